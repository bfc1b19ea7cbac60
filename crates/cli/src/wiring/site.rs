//! A workload as an execution works with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dr_config::{Notify, Service, ServiceInstance, Workload};
use dr_jobs::engine::WorkloadSite;
use dr_model::{RegionName, ResourceId, ResourceName, WorkloadName};
use dr_postgres::StandbyPolicy;
use dr_provider::host::Command;
use dr_provider::{Notifier, ResourceDriver, Secret, SecretSource, Traffic};
use dr_runbook::plan::Target;
use dr_runbook::{ServiceSite, Site};

use super::Setup;
use super::webhook::LateWebhook;
use crate::error::Result;

impl Setup {
    /// Returns the drivers of a workload's resources.
    pub(crate) fn drivers(
        &self,
        name: &WorkloadName,
        workload: &Workload,
    ) -> Result<BTreeMap<ResourceName, Arc<dyn ResourceDriver>>> {
        let make = |resource: &ResourceName| {
            let id = ResourceId {
                workload: name.clone(),
                resource: resource.clone(),
            };
            Ok((resource.clone(), self.driver(&id)?))
        };
        workload.resources.keys().map(make).collect()
    }

    /// Tells whether a standby of any of a workload's resources is kept running in a region.
    pub(crate) fn keeps_standby(&self, name: &WorkloadName, region: &RegionName) -> Result<bool> {
        for resource in self.workload(name)?.resources.keys() {
            let options = self.postgres_options(&ResourceId {
                workload: name.clone(),
                resource: resource.clone(),
            })?;
            let instance = options.instances.get(region);
            if instance.is_some_and(|instance| instance.standby == StandbyPolicy::Warm) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns a workload as an execution works with it.
    pub(crate) fn site(&self, name: &WorkloadName, workload: &Workload) -> Result<Site> {
        let traffic = self.traffic(workload)?;
        let services = workload.services.iter();
        let (probes, optional) = self.probes(name, workload, &traffic)?;
        Ok(Site {
            optional: Self::optional(workload, &traffic, optional),
            services: services
                .map(|(name, service)| Ok((name.clone(), self.service(service)?)))
                .collect::<Result<_>>()?,
            probes,
            clients: self.clients(workload),
            traffic,
            notifiers: self.notifiers(workload),
            secrets: self.secret_values(name, workload)?,
            ..self.register_site(name, workload)?
        })
    }

    /// Returns what a move goes on without.
    fn optional(
        workload: &Workload,
        traffic: &[Arc<dyn Traffic>],
        checks: BTreeSet<String>,
    ) -> BTreeSet<Target> {
        let services = workload.services.iter();
        let services = services.filter(|(_, service)| service.optional);
        let records = workload.traffic.iter().zip(traffic);
        let records = records.filter(|(written, _)| written.optional);
        services
            .map(|(name, _)| Target::Service(name.clone()))
            .chain(records.map(|(_, record)| Target::Traffic(record.describe())))
            .chain(checks.into_iter().map(Target::Probe))
            .collect()
    }

    /// Returns the workloads that have a place in a region: their primary is there, or may come there.
    pub(crate) fn workloads_in<'a>(
        &'a self,
        region: &'a RegionName,
    ) -> impl Iterator<Item = (&'a WorkloadName, &'a Workload)> {
        let has_place =
            |workload: &Workload| workload.home == *region || workload.recovery.contains(region);
        let all = self.config.workloads.iter();
        all.filter(move |(_, workload)| has_place(workload))
    }

    /// Returns what moving the registers of all these workloads takes.
    pub(crate) fn register_sites(&self, region: &RegionName) -> Result<Vec<Site>> {
        let workloads = self.workloads_in(region);
        workloads
            .map(|(name, workload)| self.register_site(name, workload))
            .collect()
    }

    /// Returns what moving a workload's register takes, without anything that leads or tells clients.
    pub(crate) fn register_site(&self, name: &WorkloadName, workload: &Workload) -> Result<Site> {
        Ok(Site {
            workload: name.clone(),
            home: workload.home.clone(),
            recovery: workload.recovery.clone(),
            rpo: workload.objectives.rpo,
            approval: workload.approval.clone(),
            stores: self.stores.clone(),
            register: Arc::new(self.register(name, workload)),
            resources: self.drivers(name, workload)?,
            services: BTreeMap::new(),
            probes: BTreeMap::new(),
            clients: Vec::new(),
            traffic: Vec::new(),
            optional: BTreeSet::new(),
            notifiers: Vec::new(),
            clock: Arc::clone(&self.clock),
            actor: self.actor.clone(),
            definitions: workload.definitions(),
            secrets: Vec::new(),
        })
    }

    /// Returns a workload as the daemon serves it.
    pub(crate) fn workload_site(
        &self,
        name: &WorkloadName,
        workload: &Workload,
    ) -> Result<WorkloadSite> {
        let mut sync = BTreeMap::new();
        for resource in workload.resources.keys() {
            let id = ResourceId {
                workload: name.clone(),
                resource: resource.clone(),
            };
            sync.insert(resource.clone(), self.postgres_options(&id)?.sync);
        }
        Ok(WorkloadSite {
            name: name.clone(),
            home: workload.home.clone(),
            initial: Self::first_register(workload).clone(),
            register: self.register(name, workload),
            resources: self.drivers(name, workload)?,
            sync,
        })
    }

    fn service(&self, service: &Service) -> Result<BTreeMap<RegionName, ServiceSite>> {
        let make = |(region, instance): (&RegionName, &ServiceInstance)| {
            let site = ServiceSite {
                host: self.host(region, &instance.host)?,
                start: Command::new(instance.start.clone()),
                stop: instance.stop.clone().map(Command::new),
                check: instance.check.clone().map(Command::new),
            };
            Ok((region.clone(), site))
        };
        service.regions.iter().map(make).collect()
    }

    fn notifiers(&self, workload: &Workload) -> Vec<Arc<dyn Notifier>> {
        let make = |notify: &Notify| {
            let Notify::Webhook { url, ca_file } = notify;
            let authorities = self.authorities(ca_file);
            let webhook = LateWebhook::new(url.clone(), authorities, self.secrets().clone());
            Arc::new(webhook) as Arc<dyn Notifier>
        };
        workload.notify.iter().map(make).collect()
    }

    /// Returns every secret of a workload that can be resolved here, for nothing that holds one to
    /// be written down. One that cannot be resolved is not known to this process, which therefore
    /// cannot write it either.
    fn secret_values(&self, name: &WorkloadName, workload: &Workload) -> Result<Vec<Secret>> {
        let templates = self.secret_texts(name, workload)?;
        let resolved = templates
            .iter()
            .filter_map(|template| self.secrets().resolve(template).ok());
        Ok(resolved
            .filter(|secret| !secret.expose().is_empty())
            .collect())
    }

    /// Returns the texts that stand for the secrets of a workload, or that are ones if they refer to nothing.
    pub(crate) fn secret_texts(
        &self,
        name: &WorkloadName,
        workload: &Workload,
    ) -> Result<Vec<String>> {
        let mut templates = self.needed_texts(name, workload)?;
        for notify in &workload.notify {
            let Notify::Webhook { url, .. } = notify;
            templates.push(url.text().to_owned());
        }
        Ok(templates)
    }

    /// The same without those that a move does without: where somebody is told.
    pub(crate) fn needed_texts(
        &self,
        name: &WorkloadName,
        workload: &Workload,
    ) -> Result<Vec<String>> {
        let mut templates = Vec::new();
        for resource in workload.resources.keys() {
            let id = ResourceId {
                workload: name.clone(),
                resource: resource.clone(),
            };
            templates.extend(self.postgres_options(&id)?.password);
        }
        for traffic in &workload.traffic {
            let secret = traffic
                .node
                .get("tsig")
                .and_then(|tsig| tsig.get("secret"))
                .and_then(|node| node.as_text());
            templates.extend(secret.map(str::to_owned));
        }
        templates.extend(super::stores::secrets(&self.config));
        Ok(templates)
    }
}
