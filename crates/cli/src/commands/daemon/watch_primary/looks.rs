//! One round of looks at a primary from outside, and at what stands beside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dr_config::{StoreLocation, Workload};
use dr_coordination::identity::read_identity;
use dr_model::RegionName;
use dr_provider::probe::Health;
use dr_provider::{Error, ErrorKind, ObjectStore, Traffic};
use dr_runbook::Site;
use futures::future::join_all;

use crate::wiring::Setup;

/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(2);

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// It answered as it should.
    Well,
    /// It answered otherwise; what.
    Ill(String),
    /// It did not answer; why.
    Silent(String),
    /// It was not asked, or not understood: what is wrong may be on this machine.
    Unasked(String),
}

/// What a round of looks comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The primary answers.
    There,
    /// It does not.
    Silent,
    /// It could not be asked.
    Unasked,
}

/// One look.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    what: String,
    /// Whether it is at a database itself: what answers there is the primary, however it answers.
    is_database: bool,
    found: Found,
}

/// A round of looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Looks(Vec<Look>);

impl Looks {
    /// Looks at every database and with every check, all at once.
    pub(super) async fn take(site: &Site, primary: &RegionName) -> Self {
        let databases = site.resources.iter().map(|(name, driver)| async move {
            let what = format!("{name} in {primary}");
            let found = match driver.query() {
                None => Found::Unasked(format!("kind `{}` answers no queries", driver.kind())),
                Some(query) => {
                    let asked = query.scalar(primary, "select true", LIMIT);
                    match tokio::time::timeout(LIMIT, asked).await {
                        Ok(Ok(_)) => Found::Well,
                        Ok(Err(error)) => failed(&error),
                        Err(_) => Found::Silent(format!("no answer within {LIMIT:?}")),
                    }
                }
            };
            Look {
                what,
                is_database: true,
                found,
            }
        });
        let probes = site.probes.get(primary).into_iter().flatten();
        let checks = probes.map(|probe| async move {
            let found = match tokio::time::timeout(LIMIT, probe.probe()).await {
                Ok(Health::Healthy(_)) => Found::Well,
                Ok(Health::Unhealthy(what)) => Found::Ill(what),
                Ok(Health::Unknown(why)) => Found::Silent(why),
                Err(_) => Found::Silent(format!("no answer within {LIMIT:?}")),
            };
            Look {
                what: probe.describe(),
                is_database: false,
                found,
            }
        });
        let (databases, checks) =
            futures::future::join(join_all(databases), join_all(checks)).await;
        Self(databases.into_iter().chain(checks).collect())
    }

    /// Tells whether there is nothing that could be asked.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether the primary answers: every database does, or a check passes, which goes all the way. Where there is no database, the
    /// checks are what is looked at.
    ///
    /// A check that fails while the databases answer is no reason to leave the region.
    pub(super) fn answer(&self) -> Answer {
        let (databases, checks): (Vec<&Look>, Vec<&Look>) =
            self.0.iter().partition(|look| look.is_database);
        let asked = match databases.is_empty() {
            true => &checks,
            false => &databases,
        };
        let answers = |look: &&Look| matches!(look.found, Found::Well | Found::Ill(_));
        let is_silent = |look: &&Look| matches!(look.found, Found::Silent(_));
        if checks.iter().any(|look| look.found == Found::Well) {
            Answer::There
        } else if asked.iter().any(is_silent) {
            Answer::Silent
        } else if !asked.is_empty() && asked.iter().all(answers) {
            Answer::There
        } else {
            Answer::Unasked
        }
    }

    /// Returns what was not answered as it should be, one line each.
    pub(super) fn missed(&self) -> Vec<String> {
        let line = |look: &Look| match &look.found {
            Found::Well => None,
            Found::Ill(what) | Found::Silent(what) | Found::Unasked(what) => {
                Some(format!("{}: {what}", look.what))
            }
        };
        self.0.iter().filter_map(line).collect()
    }

    /// Returns what a person should see to although the primary answers, one line each.
    pub(super) fn trouble(&self) -> Vec<String> {
        self.missed()
    }
}

/// Who says no is there; an error of our own, such as a secret that cannot be read, says nothing of it.
fn failed(error: &Error) -> Found {
    let why = dr_provider::error::chain(error);
    match error.kind() {
        // One whose clients have taken every connection as well.
        _ if error.is_answer() => Found::Ill(why),
        ErrorKind::Unavailable | ErrorKind::Unknown => Found::Silent(why),
        _ => Found::Unasked(why),
    }
}

/// Something beside the primary that answers as long as our own network works.
pub(super) enum Landmark {
    /// The authority for a traffic record.
    Traffic(Arc<dyn Traffic>),
    /// A store that is reached over the network.
    Store(RegionName, Arc<dyn ObjectStore>),
    /// An address that takes connections.
    Address(SocketAddr),
}

impl Setup {
    /// Returns what stands beside the primary in `primary`. A directory is none: it answers however broken the network is.
    pub(super) fn landmarks(
        &self,
        workload: &Workload,
        site: &Site,
        primary: &RegionName,
    ) -> Vec<Landmark> {
        let addresses = workload.detection.landmarks.iter();
        let mut all: Vec<Landmark> = addresses.copied().map(Landmark::Address).collect();
        all.extend(site.traffic.iter().cloned().map(Landmark::Traffic));
        for (region, configured) in &self.config.regions {
            let is_remote = matches!(configured.store, StoreLocation::Other { .. });
            if let (true, Some(store)) = (is_remote && region != primary, self.stores.get(region)) {
                all.push(Landmark::Store(region.clone(), Arc::clone(store)));
            }
        }
        all
    }
}

impl Setup {
    /// Says why an outage of `primary` could never be told from a broken network, and what to do about it; `None` if it could.
    pub(crate) fn blind(
        &self,
        workload: &Workload,
        site: &Site,
        primary: &RegionName,
    ) -> Option<(String, &'static str)> {
        let landmarks = self.landmarks(workload, site, primary);
        landmarks.is_empty().then(|| {
            let why = format!(
                "an outage of {primary} would not be proposed: nothing beside it can be asked, which is how it is told from a broken network"
            );
            let remedy = "name `detection.landmarks`, addresses outside the primary's region that take connections, or `traffic`";
            (why, remedy)
        })
    }
}

/// Asks all of them at once; returns those that answered, one line each.
pub(super) async fn ask(landmarks: &[Landmark]) -> Vec<String> {
    let asked = landmarks.iter().map(|landmark| async move {
        let answer = async {
            match landmark {
                Landmark::Traffic(traffic) => traffic.observe().await.map(drop),
                Landmark::Store(region, store) => read_identity(&**store, region).await.map(drop),
                Landmark::Address(address) => tokio::net::TcpStream::connect(address)
                    .await
                    .map(drop)
                    .map_err(|why| {
                        Error::new(ErrorKind::Unavailable, "connect to", address.to_string())
                            .because(why)
                    }),
            }
        };
        let answered = match tokio::time::timeout(LIMIT, answer).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown),
            Err(_) => false,
        };
        answered.then(|| match landmark {
            Landmark::Traffic(traffic) => traffic.describe(),
            Landmark::Store(region, _) => format!("store of {region}"),
            Landmark::Address(address) => address.to_string(),
        })
    });
    join_all(asked).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(databases: &str, checks: &str) -> Looks {
        let look = |is_database| {
            move |mark: char| Look {
                what: "x".to_owned(),
                is_database,
                found: match mark {
                    '+' => Found::Well,
                    '!' => Found::Ill("503".to_owned()),
                    '?' => Found::Unasked("no password".to_owned()),
                    _ => Found::Silent("refused".to_owned()),
                },
            }
        };
        let all = databases.chars().map(look(true));
        Looks(all.chain(checks.chars().map(look(false))).collect())
    }

    #[test]
    fn the_primary_answers_if_its_databases_do_or_a_check_goes_all_the_way() {
        use Answer::{Silent, There, Unasked};
        for (databases, checks, answer, objections) in [
            ("+", "", There, 0),
            ("-", "", Silent, 1),
            ("++", "+", There, 0),
            ("+-", "", Silent, 1),
            // The application is ill; the region is not lost.
            ("+", "!-", There, 2),
            // It refuses our password, so it is there.
            ("!", "", There, 1),
            // We do not reach the database; clients do.
            ("-", "+", There, 1),
            ("-", "!", Silent, 2),
            ("-", "--", Silent, 3),
            // We have no password to ask it with: whether it is there, nobody knows.
            ("?", "", Unasked, 1),
            ("?", "!?", Unasked, 3),
            ("+?", "", Unasked, 1),
            ("?", "+", There, 1),
            ("-?", "", Silent, 2),
            // The checks are all there is.
            ("", "+-", There, 1),
            ("", "!", There, 1),
            ("", "-", Silent, 1),
            ("", "", Unasked, 0),
        ] {
            let looks = looks(databases, checks);
            assert_eq!(looks.answer(), answer, "{databases} {checks}");
            assert_eq!(looks.trouble().len(), objections, "{databases} {checks}");
        }
    }

    #[test]
    fn only_what_the_other_side_said_is_an_answer() {
        let error = |kind| Error::new(kind, "resolve", "${file:x}");
        let unasked = |error: Error| matches!(failed(&error), Found::Unasked(_));
        assert!(unasked(error(ErrorKind::NotFound)));
        assert!(unasked(error(ErrorKind::Denied)));
        assert!(!unasked(error(ErrorKind::Denied).answered()));
        assert!(matches!(
            failed(&error(ErrorKind::Unavailable)),
            Found::Silent(_)
        ));
    }
}
