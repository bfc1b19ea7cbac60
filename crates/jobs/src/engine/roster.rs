//! The scheduled jobs of a running daemon, for whoever asks for a run by name.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dr_model::ResourceId;
use dr_provider::{Error, ErrorKind, Result};

use super::scheduled_job::ScheduledJob;

/// All scheduled jobs of a daemon. Streams are not among them: they run all the time.
#[derive(Debug, Default)]
pub struct Roster {
    jobs: Mutex<Vec<Arc<ScheduledJob>>>,
}

impl Roster {
    fn jobs(&self) -> MutexGuard<'_, Vec<Arc<ScheduledJob>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, job: Arc<ScheduledJob>) {
        self.jobs().push(job);
    }

    /// Finds the job of a schedule by the schedule's name; `resource` is needed only where several have that name.
    ///
    /// # Errors
    ///
    /// `NotFound` with the names there are, `Invalid` if the name is ambiguous.
    pub fn find(&self, name: &str, resource: Option<&ResourceId>) -> Result<Arc<ScheduledJob>> {
        let jobs = self.jobs();
        let mut found = jobs.iter().filter(|job| {
            job.schedule().name.as_str() == name && resource.is_none_or(|id| id == job.resource())
        });
        match (found.next(), found.next()) {
            (Some(job), None) => Ok(Arc::clone(job)),
            (Some(one), Some(other)) => {
                let why = format!(
                    "several schedules have this name: for {} and {}",
                    one.resource(),
                    other.resource()
                );
                Err(Error::new(ErrorKind::Invalid, "run", name)
                    .because(why)
                    .with_hint("say which with --resource"))
            }
            (None, _) => {
                let names: Vec<String> = jobs
                    .iter()
                    .map(|job| format!("`{}` of {}", job.schedule().name, job.resource()))
                    .collect();
                let why = if names.is_empty() {
                    "this daemon has no schedules but streams".to_owned()
                } else {
                    format!("this daemon knows {}", names.join(", "))
                };
                Err(Error::new(ErrorKind::NotFound, "run", name).because(why))
            }
        }
    }
}
