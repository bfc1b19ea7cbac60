//! Where tablespaces go (R11).
//!
//! Nothing is ever written to the place where a tablespace was unless a person says so: the cluster that was backed up
//! may be using it. Two tablespaces never share a place, and none lies in the data directory or around it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use dr_provider::driver::OutsidePlaces;
use dr_provider::{Error, ErrorKind};

use super::directory;
use crate::backup::{Source, TABLESPACES};

/// Says of which tablespaces it is not said where they go, and what can be done.
pub(super) fn untold(source: &Source, told: &OutsidePlaces) -> Option<(String, String)> {
    if told.root.is_some() || told.same_place {
        return None;
    }
    let untold = source.tablespaces.iter();
    let untold: Vec<String> = untold
        .filter(|(number, _)| !told.places.contains_key(number))
        .map(|(number, was)| format!("{number} (was in `{was}`)"))
        .collect();
    (!untold.is_empty()).then(|| {
        (
            format!("it is not said where the tablespaces go: {}", untold.join(", ")),
            "`--tablespace-root DIR` puts all of them below a directory, `--tablespace NUMBER=DIR` one; \
             `--tablespace-same-place` puts them where they were"
                .to_owned(),
        )
    })
}

/// Refuses places that hold something else, before anything is written. Over what is there, a place may hold what a link in the
/// directory leads to already.
pub(super) fn check(
    directory: &Path,
    places: &BTreeMap<u32, PathBuf>,
    delta: bool,
) -> dr_provider::Result<()> {
    for (number, place) in places {
        let link = directory.join(TABLESPACES).join(number.to_string());
        if delta && fs::read_link(link).is_ok_and(|to| to == *place) {
            continue;
        }
        let is_empty = match fs::read_dir(place) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                return Err(directory::failed(place)(error).with_hint(format!(
                    "run `dr` as a user who may write there, or name another directory for it: `--tablespace {number}=DIR`"
                )));
            }
        };
        if !is_empty {
            let subject = place.display().to_string();
            let error = Error::new(ErrorKind::Invalid, "restore into", subject);
            return Err(error
                .because(format!("tablespace {number} goes there, and it is not empty"))
                .with_hint(format!(
                    "name a directory for it that is empty or does not exist: `--tablespace {number}=DIR`"
                )));
        }
    }
    Ok(())
}

/// Decides where each tablespace goes; the error says what is wrong, and what can be done. Without a directory it is not known yet
/// where the others go.
pub(super) fn places(
    source: &Source,
    told: &OutsidePlaces,
    directory: Option<&Path>,
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
    if let Some(refusal) = untold(source, told) {
        return Err(refusal);
    }
    let mut places = BTreeMap::new();
    for (number, was) in &source.tablespaces {
        let place = match (told.places.get(number), &told.root) {
            (Some(place), _) => place.clone(),
            (None, Some(root)) => root.join(number.to_string()),
            (None, None) => PathBuf::from(was),
        };
        places.insert(*number, place);
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
        let meets = |directory: &Path| place.starts_with(directory) || directory.starts_with(place);
        if directory.is_some_and(meets) {
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
        places(&source, &told, Some(Path::new("/srv/copy"))).map_err(|(why, _)| why)
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
    fn a_place_without_a_directory_meets_none() {
        let source = source(&[(16400, "/mnt/fast")]);
        let root = OutsidePlaces {
            root: Some("/absent".into()),
            ..OutsidePlaces::default()
        };
        let expected = BTreeMap::from([(16400, "/absent/16400".into())]);
        assert_eq!(places(&source, &root, None), Ok(expected));
        assert!(places(&source, &root, Some(Path::new("/"))).is_err());
        assert!(untold(&source, &OutsidePlaces::default()).is_some());
    }

    #[test]
    fn a_place_that_is_taken_is_seen() {
        let place = tempfile::tempdir().unwrap();
        let (data, space) = (place.path().join("data"), place.path().join("space"));
        let places = BTreeMap::from([(16400, space.clone())]);
        check(&data, &places, false).unwrap();
        fs::create_dir(&space).unwrap();
        check(&data, &places, false).unwrap();
        fs::write(space.join("letter"), "dear").unwrap();
        for delta in [false, true] {
            let error = check(&data, &places, delta).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.hint().unwrap().contains("--tablespace 16400=DIR"));
        }
        fs::create_dir_all(data.join(TABLESPACES)).unwrap();
        std::os::unix::fs::symlink(&space, data.join(TABLESPACES).join("16400")).unwrap();
        check(&data, &places, true).unwrap();
        assert!(check(&data, &places, false).is_err());
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
