//! A check that is a program of the workload's own: it works if that exits with 0.
//!
//! For what neither an address nor a query shows: that an order can be placed, that a queue is read. It may be run often and by
//! several at once, as any look may.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dr_model::{RegionName, WorkloadName};
use dr_provider::host::Command;
use dr_provider::probe::Health;
use dr_provider::{Host, Probe};

/// A program that is run for one region.
#[derive(Debug)]
pub(super) struct CommandCheck {
    host: Arc<dyn Host>,
    command: Command,
    limit: Duration,
    region: RegionName,
}

impl CommandCheck {
    /// Makes the check; the program finds in its environment what is checked where.
    pub(super) fn new(
        host: Arc<dyn Host>,
        words: Vec<String>,
        limit: Duration,
        workload: &WorkloadName,
        region: &RegionName,
    ) -> Self {
        let mut command = Command::new(words);
        command.environment = vec![
            ("DR_WORKLOAD".to_owned(), workload.to_string()),
            ("DR_REGION".to_owned(), region.to_string()),
        ];
        Self {
            host,
            command,
            limit,
            region: region.clone(),
        }
    }
}

#[async_trait]
impl Probe for CommandCheck {
    fn describe(&self) -> String {
        let words = self.command.argv.join(" ");
        format!("run `{words}` on {} for {}", self.host.name(), self.region)
    }

    async fn probe(&self) -> Health {
        match self.host.run(&self.command, self.limit).await {
            Ok(output) if output.status == Some(0) => Health::Healthy("exit status 0".to_owned()),
            Ok(output) => Health::Unhealthy(output.said()),
            Err(error) => Health::Unknown(dr_provider::error::chain(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use dr_local::LocalHost;

    use super::*;

    fn check(words: &[&str], limit: Duration) -> CommandCheck {
        let state = std::env::temp_dir().join("dr-command-check");
        CommandCheck::new(
            Arc::new(LocalHost::new(state)),
            words.iter().map(|word| (*word).to_owned()).collect(),
            limit,
            &"orders".parse().unwrap(),
            &"us-west-2".parse().unwrap(),
        )
    }

    async fn found(words: &[&str]) -> Health {
        check(words, Duration::from_secs(30)).probe().await
    }

    #[tokio::test]
    async fn a_command_that_exits_with_0_is_healthy_and_with_anything_else_says_why_not() {
        let script = r#"test "$DR_WORKLOAD $DR_REGION" = "orders us-west-2""#;
        let healthy = Health::Healthy("exit status 0".to_owned());
        assert_eq!(found(&["sh", "-c", script]).await, healthy);
        let script = "echo first >&2; echo no orders since noon >&2; exit 3";
        let unhealthy = "exit status 3: no orders since noon".to_owned();
        assert_eq!(
            found(&["sh", "-c", script]).await,
            Health::Unhealthy(unhealthy)
        );
        let silent = Health::Unhealthy("exit status 1".to_owned());
        assert_eq!(found(&["false"]).await, silent);
        let killed = Health::Unhealthy("ended by a signal".to_owned());
        assert_eq!(found(&["sh", "-c", "kill -9 $$"]).await, killed);
    }

    #[tokio::test]
    async fn what_does_not_end_or_is_not_there_is_unknown() {
        let hangs = check(&["sleep", "600"], Duration::from_millis(50));
        let Health::Unknown(why) = hangs.probe().await else {
            panic!("what does not end is not known to be well");
        };
        assert!(why.contains("still running after 50ms"), "{why}");
        let Health::Unknown(why) = found(&["/nowhere/smoke-test"]).await else {
            panic!("what is not there is not known to be well");
        };
        assert!(why.contains("`/nowhere/smoke-test`"), "{why}");
    }

    #[test]
    fn a_plan_says_what_is_run_where() {
        let check = check(&["smoke-test", "--all"], Duration::from_secs(1));
        let described = check.describe();
        assert_eq!(described, "run `smoke-test --all` on local for us-west-2");
    }
}
