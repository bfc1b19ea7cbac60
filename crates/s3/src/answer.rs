//! What an answer that is no success means: the one place that decides it.

use std::error::Error as StdError;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;
use dr_provider::{Error, ErrorKind};

use crate::call::{Action, Call};

/// How long a server that asks to be left alone is left alone if it does not say.
const BACK_OFF: Duration = Duration::from_secs(1);
/// How much of a server's own request to wait is honoured.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(20);

/// A request that did not succeed, without the types of its operation.
#[derive(Debug)]
pub(crate) struct Answer {
    what: What,
    request: Option<String>,
    text: String,
}

#[derive(Debug)]
enum What {
    /// It never left: no credentials, or no connection.
    NotSent(Lacking),
    /// It may have arrived, and no answer that can be read has come back.
    Lost,
    /// It was refused.
    Refused(Refusal),
}

/// What a request lacked that was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lacking {
    /// There are no credentials.
    Missing,
    /// Whoever hands them out did not answer.
    Late,
    /// There is no connection.
    Connection,
    /// The server has a certificate that nobody who is trusted has signed, or that is of another name or time.
    Trust,
}

#[derive(Debug)]
struct Refusal {
    status: u16,
    code: String,
    retry_after: Option<Duration>,
    region: Option<String>,
}

impl Answer {
    /// Takes what the SDK says.
    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let what = match error {
            SdkError::ServiceError(_) => refusal(error).map_or(What::Lost, What::Refused),
            // An answer came that is none of S3's: what its status says is still to be believed.
            SdkError::ResponseError(_) => match refusal(error) {
                Some(refused) if refused.status >= 300 => What::Refused(refused),
                _ => What::Lost,
            },
            SdkError::TimeoutError(_) => What::Lost,
            _ => unsent(error),
        };
        let text = match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            _ if let Some(response) = error.raw_response() => {
                format!("the server answered {}", response.status().as_u16())
            }
            _ => causes(error).collect::<Vec<_>>().join(": "),
        };
        Self {
            what,
            request: error.request_id().map(str::to_owned),
            text,
        }
    }

    /// Tells whether the object is proven not to be in this bucket now.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(&self.what, What::Refused(refused)
            if refused.status == 404 && matches!(refused.code.as_str(), "NoSuchKey" | "NotFound" | ""))
    }

    /// Tells whether it was refused for a reason that has not come along: answers to HEAD have no body.
    pub(crate) fn is_unexplained(&self) -> bool {
        matches!(&self.what, What::Refused(refused)
            if matches!(refused.status, 400 | 401 | 403) && refused.code.is_empty())
    }

    /// Tells whether another write was in the way, so that this one has to be repeated.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(&self.what, What::Refused(refused) if refused.status == 409)
    }

    /// Tells whether a range begins behind the end of the object.
    pub(crate) fn is_past_the_end(&self) -> bool {
        matches!(&self.what, What::Refused(refused) if refused.status == 416)
    }

    /// Says it as an error of the seam.
    pub(crate) fn error(self, call: &Call<'_>, action: Action) -> Error {
        let unclear = if action.is_change {
            ErrorKind::Unknown
        } else {
            ErrorKind::Unavailable
        };
        let (kind, hint, wait) = match &self.what {
            What::NotSent(lacking) => not_sent(*lacking, call),
            What::Lost => (unclear, None, None),
            What::Refused(refused) => refused.meaning(call, action, unclear),
        };
        let mut cause = format!("{}: {}", action.name, self.text);
        if let Some(endpoint) = call.endpoint {
            cause.push_str(&format!(" (at {endpoint})"));
        }
        if let Some(request) = self.request {
            cause.push_str(&format!(" (request {request})"));
        }
        let mut error = call.error(kind).because(cause);
        if let Some(hint) = hint {
            error = error.with_hint(hint);
        }
        match wait {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }
}

type Meaning = (ErrorKind, Option<String>, Option<Duration>);

fn not_sent(lacking: Lacking, call: &Call<'_>) -> Meaning {
    let hint = match lacking {
        Lacking::Missing => {
            let hint = "name keys under `credentials` of the store, or see with `dr check` whether what is named there is on this machine, or run \
                 where the instance, the pod or the environment has a role";
            return (ErrorKind::Denied, Some(hint.to_owned()), None);
        }
        Lacking::Late => "whoever hands out the credentials did not answer".to_owned(),
        Lacking::Trust => {
            let hint = "the server's certificate is not trusted for this name: name the authority that signed it as `ca_file` of the \
                 store, or see whether the endpoint is the right one";
            return (ErrorKind::Denied, Some(hint.to_owned()), None);
        }
        Lacking::Connection => match call.endpoint {
            Some(endpoint) => format!("see whether {endpoint} can be reached from here"),
            None => "see whether the region is right, and whether S3 can be reached from here"
                .to_owned(),
        },
    };
    (ErrorKind::Unavailable, Some(hint), None)
}

impl Refusal {
    fn meaning(&self, call: &Call<'_>, action: Action, unclear: ErrorKind) -> Meaning {
        let hint = |text: &str| Some(text.to_owned());
        match (self.status, self.code.as_str()) {
            (_, "NoSuchBucket") => (
                ErrorKind::Unavailable,
                hint("there is no such bucket at this endpoint: see `store` of the region"),
                None,
            ),
            (_, "NoSuchUpload") => (
                ErrorKind::Unavailable,
                hint(
                    "something aborts uploads in parts that are under way: see the bucket's lifecycle rules",
                ),
                None,
            ),
            (404, _) => (ErrorKind::NotFound, None, None),
            (412, _) => (ErrorKind::AlreadyExists, None, None),
            (409, _) => (ErrorKind::Unavailable, None, Some(BACK_OFF)),
            (_, "SlowDown" | "RequestLimitExceeded" | "TooManyRequests") | (429 | 503, _) => {
                let wait = self.retry_after.unwrap_or(BACK_OFF).min(LONGEST_BACK_OFF);
                (ErrorKind::Unavailable, None, Some(wait))
            }
            (_, "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken") => (
                ErrorKind::Denied,
                hint(
                    "the credentials have expired: renew them; a role of the instance renews itself",
                ),
                None,
            ),
            (_, "InvalidAccessKeyId") => (
                ErrorKind::Denied,
                hint("the access key is not known there: see `credentials` of the store"),
                None,
            ),
            (_, "SignatureDoesNotMatch") => (
                ErrorKind::Denied,
                hint(
                    "the secret does not belong to the access key, or something between here and there \
                      changes requests",
                ),
                None,
            ),
            (_, "RequestTimeTooSkewed") => (
                ErrorKind::Denied,
                hint(
                    "the clock of this machine differs too much from the server's: synchronise it",
                ),
                None,
            ),
            (
                _,
                "AuthorizationHeaderMalformed"
                | "PermanentRedirect"
                | "TemporaryRedirect"
                | "IllegalLocationConstraintException",
            )
            | (301 | 307, _) => (
                ErrorKind::Invalid,
                Some(match &self.region {
                    Some(region) => {
                        format!("the bucket is in {region}: say so as `region` of the store")
                    }
                    None => "the bucket is in another region: name it as `region` of the store"
                        .to_owned(),
                }),
                None,
            ),
            (_, code) if code.starts_with("KMS.") => (
                ErrorKind::Denied,
                hint("see the state and the policy of the key that `encryption` names"),
                None,
            ),
            (401 | 403, _) => (
                ErrorKind::Denied,
                Some(match action {
                    // Without it S3 does not say that an object is missing.
                    Action::GET | Action::HEAD => {
                        "allow s3:GetObject on the objects and s3:ListBucket on the bucket, \
                         without which a missing object looks forbidden"
                            .to_owned()
                    }
                    _ => format!("allow {} on {}", action.permission, call.location),
                }),
                None,
            ),
            (_, "QuotaExceeded" | "XMinioStorageFull" | "EntityTooLarge") | (507, _) => {
                (ErrorKind::Full, None, None)
            }
            (501, _) => (
                ErrorKind::Unsupported,
                hint("the server lacks something that a store needs"),
                None,
            ),
            (
                _,
                "BadDigest"
                | "InvalidDigest"
                | "XAmzContentChecksumMismatch"
                | "RequestTimeout"
                | "IncompleteBody",
            ) => (ErrorKind::Unavailable, None, None),
            // It was tried, and the server does not say how far it got.
            (500.., _) => (unclear, None, None),
            _ => (ErrorKind::Failed, None, None),
        }
    }
}

fn refusal<E>(error: &SdkError<E, HttpResponse>) -> Option<Refusal>
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    let response = error.raw_response()?;
    let header = |name: &str| response.headers().get(name);
    let seconds = header("retry-after").and_then(|text| text.trim().parse().ok());
    // Errors inside an answer whose status says success are S3's own: what it could not finish.
    let status = match response.status().as_u16() {
        status if status < 300 => 500,
        status => status,
    };
    Some(Refusal {
        status,
        code: error.code().unwrap_or_default().to_owned(),
        retry_after: seconds.map(Duration::from_secs),
        region: header("x-amz-bucket-region").map(str::to_owned),
    })
}

/// Looks through the causes of a request that brought no answer.
fn unsent(error: &(dyn StdError + 'static)) -> What {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(credentials) = cause.downcast_ref::<CredentialsError>() {
            let lacking = match credentials {
                CredentialsError::ProviderTimedOut(_) => Lacking::Late,
                _ => Lacking::Missing,
            };
            return What::NotSent(lacking);
        }
        if let Some(client) = cause.downcast_ref::<hyper_util::client::legacy::Error>()
            && client.is_connect()
        {
            return What::NotSent(match is_distrust(cause) {
                true => Lacking::Trust,
                false => Lacking::Connection,
            });
        }
        next = cause.source();
    }
    What::Lost
}

/// Tells whether a connection was given up because of the server's certificate. The library that says so is below several
/// others, which pass on its words alone.
fn is_distrust(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|text| text.contains("invalid peer certificate"))
}

/// Returns what an error and all that is below it say.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = String> + 'a {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error.to_string())
    })
}
