//! The text of the TXT record that says which epoch a record belongs to.

use std::fmt;
use std::str::FromStr;

use dr_model::{Epoch, RegionName};

/// What stands in the TXT record `_dr.<name>`: `dr epoch=3 region=us-west-2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) epoch: Epoch,
    pub(super) region: RegionName,
}

/// The text is not a marker.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not of the form `dr epoch=3 region=us-west-2`")]
pub(super) struct ParseMarkerError(String);

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dr epoch={} region={}", self.epoch, self.region)
    }
}

impl FromStr for Marker {
    type Err = ParseMarkerError;

    /// Reads a marker; words that a later version may add are passed over.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseMarkerError(text.to_owned());
        let mut words = text.split(' ');
        if words.next() != Some("dr") {
            return Err(error());
        }
        let (mut epoch, mut region) = (None, None);
        for word in words {
            match word.split_once('=') {
                Some(("epoch", number)) => epoch = number.parse().ok().map(Epoch),
                Some(("region", name)) => region = name.parse().ok(),
                _ => {}
            }
        }
        Ok(Self {
            epoch: epoch.ok_or_else(error)?,
            region: region.ok_or_else(error)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_the_rest() {
        let text = "dr epoch=3 region=us-west-2";
        let marker: Marker = text.parse().unwrap();
        assert_eq!(marker.to_string(), text);
        let later = format!("{text} more=x");
        assert_eq!(later.parse::<Marker>().unwrap(), marker);
        for text in [
            "",
            "epoch=3 region=a",
            "dr epoch=3",
            "dr epoch=x region=a",
            "dr region=a epoch=-1",
        ] {
            assert!(text.parse::<Marker>().is_err(), "{text}");
        }
    }
}
