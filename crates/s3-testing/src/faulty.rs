//! Faults and latency, put around the protocol.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use s3s::service::S3Service;

use crate::fault::{Fault, Faults};
use crate::request::{Operation, classify};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// How many of the newest writes a listing is to hide.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hidden(pub(crate) u64);

/// How long a request is under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latency {
    pub(crate) mean: Duration,
    pub(crate) jitter: Duration,
}

impl Latency {
    /// Draws one: evenly from mean − jitter to mean + jitter.
    fn draw(self) -> Duration {
        let spread = self.jitter.mul_f64(2.0 * rand::random::<f64>());
        (self.mean + spread).saturating_sub(self.jitter)
    }
}

/// Answers a request, or ends its connection by an error.
pub(crate) async fn answer(
    service: &S3Service,
    faults: &Faults,
    latency: Latency,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, BoxError> {
    let (operation, key) = classify(request.method(), request.uri(), request.headers());
    let half = latency.draw() / 2;
    pause(half).await;
    let fault = faults.decide(operation, &key);
    match &fault {
        Some(Fault::Refuse {
            status,
            code,
            retry_after,
        }) => {
            // Read to its end: a connection closed on a client that still writes hides the answer.
            request.into_body().collect().await?;
            pause(half).await;
            return refusal(*status, code, *retry_after, operation);
        }
        Some(Fault::ResetBefore) => return Err("reset on purpose".into()),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Delay(time)) => pause(*time).await,
        Some(Fault::Stale(hidden)) => {
            request.extensions_mut().insert(Hidden(*hidden));
        }
        Some(Fault::ResetAfter | Fault::Truncate | Fault::Corrupt) | None => {}
    }
    let response = service.call(request.map(s3s::Body::from)).await?;
    pause(half).await;
    match fault {
        Some(Fault::ResetAfter) => Err("reset on purpose".into()),
        Some(Fault::Truncate) => damaged(response, true).await,
        Some(Fault::Corrupt) => damaged(response, false).await,
        _ => Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync())),
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn refusal(
    status: u16,
    code: &str,
    retry_after: Option<u64>,
    operation: Operation,
) -> Result<Response<Body>, BoxError> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
         <Message>refused on purpose</Message><RequestId>R3FUS3D</RequestId></Error>"
    );
    // An answer to HEAD has no body.
    let body = if operation == Operation::HeadObject {
        Bytes::new()
    } else {
        Bytes::from(text)
    };
    let mut response = Response::builder()
        .status(StatusCode::from_u16(status)?)
        .header("content-type", "application/xml")
        .header("x-amz-request-id", "R3FUS3D");
    if let Some(seconds) = retry_after {
        response = response.header("retry-after", seconds);
    }
    Ok(response.body(
        Full::new(body)
            .map_err(|never| match never {})
            .boxed_unsync(),
    )?)
}

/// Cuts the body in the middle, or turns one bit of it.
async fn damaged(response: Response<s3s::Body>, cut: bool) -> Result<Response<Body>, BoxError> {
    let (mut parts, body) = response.into_parts();
    let whole = body.collect().await?.to_bytes();
    let middle = whole.len() / 2;
    parts.headers.insert("content-length", whole.len().into());
    let body = if cut {
        let first = whole.slice(..middle);
        let frames: [Result<Frame<Bytes>, BoxError>; 2] =
            [Ok(Frame::data(first)), Err("cut on purpose".into())];
        StreamBody::new(futures::stream::iter(frames)).boxed_unsync()
    } else {
        let mut turned = whole.to_vec();
        if let Some(byte) = turned.get_mut(middle) {
            *byte ^= 1;
        }
        Full::new(Bytes::from(turned))
            .map_err(|never| match never {})
            .boxed_unsync()
    };
    Ok(Response::from_parts(parts, body))
}
