//! `dr-s3-server`: the server as a process of its own, for benchmarks and the demo.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dr_s3_testing::{Account, Certificate, Conditions, Options, Server};

/// An S3 server in memory, with a latency of its own. Without `--directory` everything in it is gone when it ends.
#[derive(Debug, Parser)]
#[command(name = "dr-s3-server")]
struct Args {
    /// Where to listen; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A bucket that is there at once; may be repeated.
    #[arg(long = "bucket", required = true)]
    buckets: Vec<String>,
    /// Keeps objects as files in this directory too, and takes up those that are there.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// The id of the one pair of keys.
    #[arg(long, env = "DR_S3_SERVER_KEY_ID", default_value = "test")]
    access_key_id: String,
    /// The secret of the one pair of keys.
    #[arg(
        long,
        env = "DR_S3_SERVER_SECRET",
        default_value = "secret",
        hide_env_values = true
    )]
    secret_access_key: String,
    /// How long each request is under way on average.
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// By how much that differs at most, up or down, evenly.
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    jitter: Duration,
    /// Speaks TLS, and proves itself by this certificate, in PEM format.
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate's private key, in PEM format.
    #[arg(long, requires = "certificate")]
    key: Option<PathBuf>,
    /// Fails now and then, in every way that is no lie: drawn from this seed.
    #[arg(long, value_name = "SEED")]
    faults: Option<u64>,
    /// What becomes of `If-None-Match`, by which objects are created only once.
    #[arg(long, value_enum, default_value_t)]
    conditions: Conditions,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let options = Options {
        listen: args.listen,
        accounts: vec![Account::new(args.access_key_id, args.secret_access_key)],
        buckets: args.buckets,
        directory: args.directory,
        latency: args.latency,
        jitter: args.jitter,
        certificate: args
            .certificate
            .zip(args.key)
            .map(|(chain, key)| Certificate { chain, key }),
        faults: args.faults,
    };
    match Server::start(options).await {
        Ok(server) => {
            server.set_conditions(args.conditions);
            say(&server.endpoint());
            std::future::pending::<()>().await;
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!(
                "dr-s3-server: cannot serve on {}: {error}",
                args.listen
            ));
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stdout,
    reason = "the one line that whoever starts it waits for"
)]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "a program without a log")]
fn complain(text: &str) {
    eprintln!("{text}");
}
