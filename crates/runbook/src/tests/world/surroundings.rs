//! What surrounds the database: the record that leads clients, checks, messages, hosts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dr_model::{Epoch, RegionName, WorkloadName};
use dr_provider::host::{Command, Output, PathKind};
use dr_provider::notifier::Message;
use dr_provider::probe::{ClientProbe, Health};
use dr_provider::traffic::{Role, TrafficState, View};
use dr_provider::{Error, ErrorKind, Host, Notifier, Probe, Result, Traffic};

use super::database::Seen;
use super::{State, east, noon};

impl Seen {
    /// Looks at our key, as the name server does.
    fn take_key(&self) -> Result<()> {
        match self.0.state().key_refused {
            true => Err(
                Error::new(ErrorKind::Denied, "update", Traffic::describe(self))
                    .because("BADSIG".to_owned())
                    .with_hint("it has another secret for this key"),
            ),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Traffic for Seen {
    fn describe(&self) -> String {
        format!("rfc2136 {}", self.0.record)
    }

    fn name(&self) -> &str {
        self.0.record
    }

    fn answer(&self, region: &RegionName) -> Option<String> {
        Some(
            if *region == east() {
                "10.0.2.20"
            } else {
                "10.8.2.20"
            }
            .to_owned(),
        )
    }

    async fn observe(&self) -> Result<TrafficState> {
        if self.0.state().name_server_silent {
            let error = Error::new(ErrorKind::Unavailable, "ask", "orders.acme.example");
            return Err(error.because("no answer"));
        }
        Ok(self.0.state().traffic.clone())
    }

    async fn switch(
        &self,
        region: &RegionName,
        epoch: Epoch,
        previous: &TrafficState,
    ) -> Result<TrafficState> {
        let standing = self.0.state().traffic.clone();
        let subject = Traffic::describe(self);
        if standing.epoch.is_some_and(|there| there > epoch) {
            return Err(Error::new(ErrorKind::Superseded, "switch", subject));
        }
        self.take_key()?;
        if (standing.epoch, &standing.answer) != (previous.epoch, &previous.answer) {
            return Err(Error::new(ErrorKind::Conflict, "switch", subject));
        }
        let answer = self.answer(region).unwrap();
        let region = region.clone();
        let change = |state: &mut State| {
            state.traffic.region = Some(region);
            state.traffic.answer = answer;
            state.traffic.epoch = Some(epoch);
            true
        };
        self.have("switch-traffic", epoch, change).await?;
        Ok(self.0.state().traffic.clone())
    }

    async fn rehearse(&self) -> Result<()> {
        self.take_key()
    }

    async fn views(&self) -> Vec<View> {
        let (state, silent, others) = {
            let state = self.0.state();
            let others = state.other_views.clone();
            (state.traffic.clone(), state.silent_view, others)
        };
        let view = |observer: &str, state| View {
            observer: observer.to_owned(),
            role: Role::Authority,
            state,
            seen_at: noon(),
        };
        let mut views = vec![view("10.8.0.53", Ok(state))];
        if silent {
            views.push(view("10.0.0.53", Err("no answer".to_owned())));
        }
        views.extend(others);
        views
    }
}

#[async_trait]
impl Probe for Seen {
    fn describe(&self) -> String {
        "GET http://10.8.2.20:8080/health".to_owned()
    }

    async fn probe(&self) -> Health {
        let state = self.0.state();
        match (state.healthy, state.serving && state.primary_here.is_some()) {
            (true, true) => Health::Healthy("200".to_owned()),
            (true, false) => Health::Unknown("connection refused".to_owned()),
            (false, _) => Health::Unhealthy("503".to_owned()),
        }
    }
}

#[async_trait]
impl ClientProbe for Seen {
    fn describe(&self, name: &str) -> String {
        format!("GET http://{name}:8080/health")
    }

    async fn probe(&self, name: &str, answer: &str) -> Health {
        assert!(name.ends_with(".acme.example"));
        if answer != "10.8.2.20" {
            return Health::Unhealthy(format!("{answer} is the old side"));
        }
        match self.0.state().turned_away {
            true => Health::Unhealthy("421".to_owned()),
            false => Health::Healthy("200".to_owned()),
        }
    }
}

#[async_trait]
impl Notifier for Seen {
    fn describe(&self) -> String {
        "https://hooks.acme.example".to_owned()
    }

    async fn notify(&self, message: &Message) -> Result<()> {
        let send = |state: &mut State| {
            state.messages.push(message.clone());
            true
        };
        let epoch = self.0.state().highest_epoch;
        self.have("notify", epoch, send).await
    }
}

#[async_trait]
impl Host for Seen {
    fn name(&self) -> &str {
        "west-host"
    }

    fn is_local(&self) -> bool {
        false
    }

    async fn run(&self, command: &Command, _: Duration) -> Result<Output> {
        let output = |status, stderr: &str| Output {
            status: Some(status),
            stdout: Bytes::new(),
            stderr: Bytes::copy_from_slice(stderr.as_bytes()),
        };
        let program = command.argv[0].as_str();
        match program {
            "check" => return Ok(output(i32::from(!self.0.state().serving), "")),
            "check-left" => return Ok(output(i32::from(!self.0.state().left_serving), "")),
            _ => {}
        }
        let (name, effect): (&str, fn(&mut State) -> bool) = match program {
            "stop-left" => ("stop-service", |state| {
                std::mem::take(&mut state.left_serving)
            }),
            "start-left" => ("start-left", |state| {
                !std::mem::replace(&mut state.left_serving, true)
            }),
            "ledger" => ("start-service", |state| {
                !std::mem::replace(&mut state.serving, true)
            }),
            other => (other, |_| true),
        };
        let is_other = !matches!(program, "stop-left" | "start-left" | "ledger");
        let epoch = self.0.state().highest_epoch;
        let ran = |state: &mut State| {
            if is_other {
                state.commands.push(command.clone());
            }
            effect(state)
        };
        match self.have(name, epoch, ran).await {
            Err(error) if error.kind() == ErrorKind::Failed => {
                let said = match program {
                    "ledger" => format!("cannot log in with {}", command.argv[2]),
                    _ => self.0.state().error_text.clone(),
                };
                Ok(output(1, &said))
            }
            Err(error) => Err(error),
            Ok(()) => Ok(output(0, "")),
        }
    }

    async fn read(&self, _: &Path, _: u64, _: u64) -> Result<Bytes> {
        Ok(Bytes::new())
    }

    async fn write(&self, _: &Path, _: &[u8]) -> Result<()> {
        Ok(())
    }

    async fn remove(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    async fn kind(&self, _: &Path) -> Result<PathKind> {
        Ok(PathKind::Missing)
    }

    async fn list(&self, _: &Path) -> Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    async fn admit(&self, _: &WorkloadName, epoch: Epoch) -> Result<()> {
        let mut state = self.0.state();
        if epoch < state.highest_epoch {
            return Err(Error::new(ErrorKind::Superseded, "use", "west-host"));
        }
        state.highest_epoch = epoch;
        Ok(())
    }
}
