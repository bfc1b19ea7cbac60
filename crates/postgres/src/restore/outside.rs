//! Where tablespaces go (R11).
//!
//! Nothing is ever written to the place where a tablespace was unless a person says so: the cluster that was backed up
//! may be using it. Two tablespaces never share a place, and none lies in the data directory or around it.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use dr_provider::driver::OutsidePlaces;

use crate::backup::Source;

/// Decides where each tablespace goes; the error says what is wrong, and what can be done.
pub(super) fn places(
    source: &Source,
    told: &OutsidePlaces,
    directory: &Path,
) -> Result<BTreeMap<u32, PathBuf>, (String, String)> {
    if let Some(unknown) = told
        .places
        .keys()
        .find(|number| !source.tablespaces.contains_key(number))
    {
        let known: Vec<String> = source.tablespaces.keys().map(ToString::to_string).collect();
        return Err((
            format!("there is no tablespace {unknown}"),
            match known.as_slice() {
                [] => "the recovery point has none".to_owned(),
                known => format!("the recovery point has {}", known.join(", ")),
            },
        ));
    }
    let mut places = BTreeMap::new();
    let mut untold = Vec::new();
    for (number, was) in &source.tablespaces {
        let place = match (told.places.get(number), &told.root) {
            (Some(place), _) => Some(place.clone()),
            (None, Some(root)) => Some(root.join(number.to_string())),
            (None, None) if told.same_place => Some(PathBuf::from(was)),
            (None, None) => None,
        };
        match place {
            Some(place) => drop(places.insert(*number, place)),
            None => untold.push(format!("{number} (was in `{was}`)")),
        }
    }
    if !untold.is_empty() {
        return Err((
            format!("it is not said where the tablespaces go: {}", untold.join(", ")),
            "`--tablespace-root DIR` puts all of them below a directory, `--tablespace NUMBER=DIR` one; \
             `--tablespace-same-place` puts them where they were"
                .to_owned(),
        ));
    }
    let told: Vec<(u32, &PathBuf)> = places
        .iter()
        .map(|(number, place)| (*number, place))
        .collect();
    for (index, (number, place)) in told.iter().enumerate() {
        let refuse = |why: &str| {
            let what = format!(
                "tablespace {number} cannot go to `{}`: {why}",
                place.display()
            );
            Err((what, "name another directory".to_owned()))
        };
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !place.is_absolute() || !place.components().all(plain) {
            return refuse("it is not an absolute path without `..`");
        }
        if place.starts_with(directory) || directory.starts_with(place) {
            return refuse("the data directory is there");
        }
        for (other, taken) in &told[..index] {
            if place.starts_with(taken) || taken.starts_with(place) {
                return refuse(&format!("tablespace {other} goes there"));
            }
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use dr_model::{Lsn, SegmentSize, SystemIdentifier, TimelineId};
    use jiff::Timestamp;

    use super::*;

    fn source(tablespaces: &[(u32, &str)]) -> Source {
        let value = serde_json::json!({
            "version": 1,
            "system_identifier": SystemIdentifier(7),
            "timeline": TimelineId(1),
            "start": Lsn(1),
            "stop": Lsn(2),
            "started_at": Timestamp::UNIX_EPOCH,
            "stopped_at": Timestamp::UNIX_EPOCH,
            "server_version": "15.18",
            "segment_bytes": SegmentSize::DEFAULT,
            "data_checksums": true,
            "tablespaces": BTreeMap::from_iter(tablespaces.iter().copied()),
        });
        serde_json::from_value(value).unwrap()
    }

    fn decide(told: OutsidePlaces) -> Result<BTreeMap<u32, PathBuf>, String> {
        let source = source(&[(16400, "/mnt/fast"), (16401, "/mnt/slow")]);
        places(&source, &told, Path::new("/srv/copy")).map_err(|(why, _)| why)
    }

    fn told(places: &[(u32, &str)]) -> OutsidePlaces {
        OutsidePlaces {
            places: places
                .iter()
                .map(|(number, place)| (*number, PathBuf::from(place)))
                .collect(),
            ..OutsidePlaces::default()
        }
    }

    #[test]
    fn the_old_place_is_used_only_if_that_is_said() {
        let error = decide(told(&[(16400, "/a")])).unwrap_err();
        assert!(
            error.contains("16401 (was in `/mnt/slow`)") && !error.contains("16400"),
            "{error}"
        );
        let same = OutsidePlaces {
            same_place: true,
            ..told(&[(16400, "/a")])
        };
        let expected = BTreeMap::from([(16400, "/a".into()), (16401, "/mnt/slow".into())]);
        assert_eq!(decide(same), Ok(expected));
    }

    #[test]
    fn a_root_holds_all_that_are_not_told() {
        let root = OutsidePlaces {
            root: Some("/spaces".into()),
            ..told(&[(16401, "/b")])
        };
        let expected = BTreeMap::from([(16400, "/spaces/16400".into()), (16401, "/b".into())]);
        assert_eq!(decide(root), Ok(expected));
    }

    #[test]
    fn no_place_is_taken_twice_or_holds_the_data_directory() {
        for (places, why) in [
            (
                [(16400, "/a"), (16401, "/a")],
                "tablespace 16400 goes there",
            ),
            (
                [(16400, "/a"), (16401, "/a/b")],
                "tablespace 16400 goes there",
            ),
            (
                [(16400, "/srv/copy/x"), (16401, "/b")],
                "the data directory is there",
            ),
            (
                [(16400, "/srv"), (16401, "/b")],
                "the data directory is there",
            ),
            ([(16400, "a"), (16401, "/b")], "not an absolute path"),
            (
                [(16400, "/srv/x/../copy"), (16401, "/b")],
                "not an absolute path",
            ),
        ] {
            let error = decide(told(&places)).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let error = decide(told(&[(1, "/a")])).unwrap_err();
        assert!(error.contains("no tablespace 1"), "{error}");
    }
}
