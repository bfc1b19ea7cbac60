//! The far side: answers requests on this machine.

use std::path::Path;

use bytes::Bytes;
use dr_provider::host::Command;
use dr_provider::{Error, ErrorKind, Host};
use serde::Deserialize;

use super::{Answer, Call, Failure, Reply, Request, VERSION, decode, encode, limit_of, word_of};

/// Answers a request, a line of JSON, by doing it on `host`.
pub async fn serve(host: &dyn Host, line: &[u8]) -> Answer {
    let result = match read(line) {
        Ok(request) => carry_out(host, request.call).await,
        Err(error) => Err(error),
    };
    Answer {
        version: VERSION,
        result: result.map_err(|error| Failure::of(&error)),
    }
}

fn read(line: &[u8]) -> Result<Request, Error> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let error = |kind| Error::new(kind, "read the request on", "standard input");
    // The version is looked at first: a newer one may have other fields.
    let known: Version =
        serde_json::from_slice(line).map_err(|why| error(ErrorKind::Invalid).because(why))?;
    if known.version != VERSION {
        let why = format!(
            "version {} is asked for, and {VERSION} is spoken here",
            known.version
        );
        return Err(error(ErrorKind::Unsupported)
            .because(why)
            .with_hint("use the same `dr` on both machines"));
    }
    serde_json::from_slice(line).map_err(|why| error(ErrorKind::Invalid).because(why))
}

async fn carry_out(host: &dyn Host, call: Call) -> Result<Reply, Error> {
    let limit = limit_of(&call);
    match call {
        Call::Run {
            argv, environment, ..
        } => {
            let output = host.run(&Command { argv, environment }, limit).await?;
            Ok(Reply::Ran {
                status: output.status,
                stdout: encode(&output.stdout),
                stderr: encode(&output.stderr),
            })
        }
        Call::Read {
            path,
            offset,
            length,
        } => {
            let content: Bytes = host.read(Path::new(&path), offset, length).await?;
            Ok(Reply::Content(encode(&content)))
        }
        Call::Write { path, content } => {
            let content = decode(&content).ok_or_else(|| {
                Error::new(ErrorKind::Invalid, "write file", &path)
                    .because("its content is not Base64")
            })?;
            host.write(Path::new(&path), &content).await?;
            Ok(Reply::Done)
        }
        Call::Remove { path } => {
            host.remove(Path::new(&path)).await?;
            Ok(Reply::Done)
        }
        Call::Kind { path } => {
            let kind = host.kind(Path::new(&path)).await?;
            Ok(Reply::Kind(word_of(kind)))
        }
        Call::List { path } => {
            let names = host.list(Path::new(&path)).await?;
            let text = |name: std::path::PathBuf| {
                name.into_os_string().into_string().map_err(|name| {
                    Error::new(ErrorKind::Unsupported, "list directory", &path)
                        .because(format!("the name {} is not UTF-8", name.display()))
                })
            };
            Ok(Reply::Names(
                names.into_iter().map(text).collect::<Result<_, _>>()?,
            ))
        }
        Call::Admit { workload, epoch } => {
            host.admit(&workload, epoch).await?;
            Ok(Reply::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LocalHost;

    #[tokio::test]
    async fn what_is_not_understood_is_refused_before_anything_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let host = LocalHost::new(directory.path().join("state"));
        let file = directory.path().join("file");
        let write = |version: u32| {
            let path = file.display();
            format!(
                r#"{{"version":{version},"call":{{"write":{{"path":"{path}","content":"YQ=="}}}}}}"#
            )
        };
        for (line, kind) in [
            (write(2), "unsupported"),
            (r#"{"version":2,"other":true}"#.to_owned(), "unsupported"),
            ("hello".to_owned(), "invalid"),
            (r#"{"version":1,"call":{"dance":{}}}"#.to_owned(), "invalid"),
        ] {
            let answer = serve(&host, line.as_bytes()).await;
            assert_eq!(answer.result.unwrap_err().kind, kind, "{line}");
        }
        assert!(!file.exists());
        let answer = serve(&host, write(1).as_bytes()).await;
        assert_eq!(answer.result, Ok(Reply::Done));
        assert_eq!(std::fs::read(file).unwrap(), b"a");
    }
}
