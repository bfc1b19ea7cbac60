//! What leads clients to a region.

use std::sync::Arc;

use dr_config::Workload;
use dr_local::Rfc2136;
use dr_local::rfc2136::Rfc2136Options;
use dr_provider::{SecretSource, Traffic};

use super::Setup;
use crate::error::{CommandError, Result};

impl Setup {
    /// Returns the traffic records of a workload.
    pub(crate) fn traffic(&self, workload: &Workload) -> Result<Vec<Arc<dyn Traffic>>> {
        let make = |traffic: &dr_config::Traffic| {
            let options: Rfc2136Options = self.config.read(&traffic.node).map_err(|problems| {
                CommandError::from_problems(&problems, &self.config.directory)
            })?;
            let secrets = self.secrets().clone();
            let made = Rfc2136::new(
                options,
                Arc::new(secrets) as Arc<dyn SecretSource>,
                Arc::clone(&self.clock),
            )?;
            Ok(Arc::new(made) as Arc<dyn Traffic>)
        };
        // The one kind so far; the configuration knows no other.
        workload.traffic.iter().map(make).collect()
    }
}
