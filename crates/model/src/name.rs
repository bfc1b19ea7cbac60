//! Names that people give: regions, workloads, resources.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a name: 1 to 63 lower-case letters, digits and single hyphens, with a letter or digit at both ends"
)]
pub struct NameError(String);

fn check(text: &str) -> Result<(), NameError> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let valid = (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--");
    if valid {
        Ok(())
    } else {
        Err(NameError(text.to_owned()))
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// The name of a region: a place that can be lost.
    RegionName
);
name!(
    /// The name of a workload: what the business calls an application.
    WorkloadName
);
name!(
    /// The name of a resource within its workload.
    ResourceName
);

name!(
    /// The name of a service within its workload: something that is started where the workload is served.
    ServiceName
);
name!(
    /// The name of a schedule within its file.
    ScheduleName
);
name!(
    /// The name of a runbook.
    RunbookName
);
name!(
    /// The name of a person who may approve.
    ApproverName
);

impl RegionName {
    /// Returns the name with `_` for `-`, for replication slots and `application_name`, whose alphabet has no hyphen.
    #[must_use]
    pub fn to_identifier(&self) -> String {
        self.0.replace('-', "_")
    }
}

/// The full name of a resource, written `orders/database`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    /// The workload that the resource belongs to.
    pub workload: WorkloadName,
    /// Its name there.
    pub resource: ResourceName,
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.workload, self.resource))
    }
}

/// The text is not the full name of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceIdError {
    /// There is no `/`, or more than one.
    #[error("`{0}` is not the full name of a resource, such as `orders/database`")]
    Form(String),
    /// One of the two names is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl FromStr for ResourceId {
    type Err = ResourceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (workload, resource) = text
            .split_once('/')
            .ok_or_else(|| ResourceIdError::Form(text.to_owned()))?;
        Ok(Self {
            workload: workload.parse()?,
            resource: resource.parse()?,
        })
    }
}

impl Serialize for ResourceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ResourceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("us-east-1", true)]
    #[case("a", true)]
    #[case("", false)]
    #[case("-a", false)]
    #[case("a-", false)]
    #[case("a--b", false)]
    #[case("Orders", false)]
    #[case("a/b", false)]
    #[case("../x", false)]
    fn names(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(text.parse::<RegionName>().is_ok(), valid);
    }

    #[test]
    fn resource_ids_round_trip() {
        let id: ResourceId = "orders/database".parse().unwrap();
        assert_eq!(id.to_string(), "orders/database");
        assert!("orders".parse::<ResourceId>().is_err());
        assert!("orders/data/base".parse::<ResourceId>().is_err());
    }
}
