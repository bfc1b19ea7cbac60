//! Random operations on two stores, with what must hold checked after each.
//!
//! Backups full and incremental, copies, prunes, holds and releases, any of them stopped at any call to the store, with the
//! call done or not; bits flipped and objects lost while others read, copy and back up. After each: what is listed is whole and is
//! what was backed up; what nobody gave up, and what is held, is listed; what did not finish is not. What is damaged or lost
//! is named, and hurts nothing that does not name it. `DR_SEED=7` plays one seed again, `DR_MODEL=long` plays many more.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dr_provider::decorate::{Fault, Faulty, Rule};
use dr_provider::store::{MemoryStore, list_all};
use dr_provider::{ErrorKind, Key, ObjectStore};
use dr_repository::{
    CopyOptions, EncryptionKey, FrameReader, Hold, Keys, Label, Metadata, PruneOptions, PrunePlan,
    Repository, RestoreOptions, Result, WriterOptions, copy,
};
use jiff::{SignedDuration, Timestamp};
use support::{noise, on};

const HOUR: Duration = Duration::from_secs(3600);
const PRUNE: PruneOptions = PruneOptions {
    grace: Duration::from_secs(24 * 3600),
    abandoned_after: Duration::from_secs(48 * 3600),
};
const BLOCK: usize = 512;

type Content = BTreeMap<String, Vec<u8>>;

#[derive(Debug)]
struct Held(Vec<u8>);

impl FrameReader for Held {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
        Ok(buffer.len())
    }
}

/// Draws numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut state = self.0;
        state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((state ^ (state >> 31)) % limit.max(1) as u64).unwrap()
    }

    fn one_of<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }
}

/// A store, and what is known of it.
struct Place {
    inner: Arc<dyn ObjectStore>,
    faults: Arc<Faulty>,
    repository: Repository,
    /// Backups that must be listed.
    must: BTreeSet<Label>,
    held: BTreeSet<Label>,
}

impl Place {
    fn new(name: &str, keys: Keys) -> Self {
        let inner: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new(name));
        let faults = Arc::new(Faulty::scripted(Arc::clone(&inner), Vec::new()));
        let store: Arc<dyn ObjectStore> = faults.clone();
        Self {
            inner,
            faults,
            repository: on(&store).with_keys(keys),
            must: BTreeSet::new(),
            held: BTreeSet::new(),
        }
    }

    async fn listed(&self) -> Vec<Label> {
        let listing = self.repository.list().await.unwrap();
        assert!(listing.unusable.is_empty(), "{:?}", listing.unusable);
        listing
            .backups
            .into_iter()
            .map(|header| header.label)
            .collect()
    }
}

struct World {
    dice: Dice,
    now: Timestamp,
    labels: u16,
    places: [Place; 2],
    /// What each label was to hold.
    meant: BTreeMap<Label, Content>,
    content: Content,
}

impl World {
    fn new(seed: u64) -> Self {
        let keys = match seed % 2 {
            0 => Keys::default(),
            _ => Keys::new(vec![
                EncryptionKey::parse(&format!("dr-key1 {}", "7".repeat(64))).unwrap(),
            ]),
        };
        Self {
            dice: Dice(seed),
            now: Timestamp::from_second(1_795_253_405).unwrap(),
            labels: 0,
            places: [Place::new("here", keys.clone()), Place::new("there", keys)],
            meant: BTreeMap::new(),
            content: Content::new(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self
            .now
            .checked_add(SignedDuration::try_from(time).unwrap())
            .unwrap();
    }

    /// Lets the store fail at some call, perhaps: once, or from there on, as after a crash.
    fn trouble(&mut self, place: usize) {
        if self.dice.below(2) == 0 {
            return;
        }
        let fault = match self.dice.below(3) {
            0 => Fault::Before(ErrorKind::Unavailable),
            1 => Fault::Before(ErrorKind::Unknown),
            _ => Fault::After,
        };
        let skip = u32::try_from(self.dice.below(25)).unwrap();
        let mut rules = vec![Rule::all("*", fault).skip(skip).times(1)];
        if self.dice.below(2) == 0 {
            rules.push(Rule::all("*", Fault::Before(ErrorKind::Unavailable)).skip(skip));
        }
        self.places[place].faults.set_rules(rules);
    }

    fn calm(&self) {
        for place in &self.places {
            place.faults.set_rules(Vec::new());
        }
    }

    fn change_content(&mut self) {
        for _ in 0..1 + self.dice.below(4) {
            let path = format!("d{}/f{}", self.dice.below(2), self.dice.below(5));
            if self.dice.below(6) == 0 {
                self.content.remove(&path);
                continue;
            }
            let length = self.dice.below(24_000);
            let seed = self.dice.below(1000) as u64;
            let file = self.content.entry(path).or_default();
            match self.dice.below(4) {
                0 => *file = noise(seed, length),
                1 => file.resize(length, 0),
                _ if file.is_empty() => *file = vec![7; length],
                _ => {
                    let start = self.dice.below(file.len());
                    let end = file.len().min(start + self.dice.below(3000));
                    file[start..end].copy_from_slice(&noise(seed, end - start));
                }
            }
        }
    }

    async fn back_up(&mut self, incremental: bool) {
        self.change_content();
        self.labels += 1;
        let label = Label::new(self.now, self.labels);
        self.meant.insert(label.clone(), self.content.clone());
        let parent = match self.places[0].listed().await.first() {
            Some(parent) if incremental => Some(parent.clone()),
            _ => None,
        };
        self.trouble(0);
        let done = self.write(&label, parent).await;
        self.calm();
        if done.is_ok() {
            self.places[0].must.insert(label);
        }
    }

    async fn write(&self, label: &Label, parent: Option<Label>) -> Result<()> {
        let repository = &self.places[0].repository;
        let parent = match parent {
            Some(parent) => Some((repository.open(&parent).await?, &self.meant[&parent])),
            None => None,
        };
        let options = WriterOptions {
            pack_bytes: 16_000,
            workers: 1,
            uploads: 1,
            ..WriterOptions::default()
        };
        let metadata = Metadata {
            mode: 0o600,
            mtime: 0,
        };
        let mut writer = repository.begin(label.clone(), options);
        for (path, content) in &self.content {
            let reader = Arc::new(Held(content.clone()));
            let size = content.len() as u64;
            let old = match &parent {
                Some((backup, before)) => backup.file(path).await?.zip(before.get(path)),
                None => None,
            };
            match old {
                Some((old, before)) => {
                    let changed = difference(before, content);
                    writer
                        .patch_file(path, metadata, size, &old, &changed, reader)
                        .await?;
                }
                None => writer.read_file(path, metadata, size, reader).await?,
            }
        }
        writer.finish(serde_json::Value::Null).await.map(drop)
    }

    async fn copy(&mut self) {
        let listed = self.places[0].listed().await;
        let Some(label) = self.dice.one_of(&listed).cloned() else {
            return;
        };
        let troubled = self.dice.below(2);
        self.trouble(troubled);
        let [here, there] = &self.places;
        let done = copy(
            &here.repository,
            &there.repository,
            &label,
            CopyOptions { packs_in_flight: 1 },
        )
        .await;
        self.calm();
        // One that is being given up there is complete and not listed.
        let given_up = there.repository.list().await.unwrap().given_up;
        if done.is_ok() && !given_up.contains(&label) {
            self.places[1].must.insert(label);
        }
    }

    async fn prune(&mut self, place: usize, all: bool) {
        let mut expired = self.places[place].listed().await;
        expired.retain(|_| all || self.dice.below(3) == 0);
        let facts = self.places[place].repository.prune_facts().await.unwrap();
        let plan = PrunePlan::new(&facts, &expired, PRUNE, self.now);
        let newest = self.places[place].listed().await.into_iter().next();
        for label in &plan.mark {
            assert!(!self.places[place].held.contains(label), "{label} is held");
            assert_ne!(Some(label), newest.as_ref());
            self.places[place].must.remove(label);
        }
        if !all {
            self.trouble(place);
        }
        let done = self.places[place].repository.prune(&plan, self.now).await;
        self.calm();
        assert!(!all || done.is_ok(), "{done:?}");
    }

    async fn hold(&mut self, place: usize) {
        let listed = self.places[place].listed().await;
        let Some(label) = self.dice.one_of(&listed).cloned() else {
            return;
        };
        let hold = Hold {
            by: "a test".into(),
            reason: "a case".into(),
            since: self.now,
        };
        self.trouble(place);
        let held = self.places[place].repository.hold(&label, &hold).await;
        self.calm();
        if held.is_ok() {
            self.places[place].held.insert(label);
        }
    }

    async fn release(&mut self, place: usize) {
        let held: Vec<Label> = self.places[place].held.iter().cloned().collect();
        if let Some(label) = self.dice.one_of(&held) {
            self.places[place].repository.release(label).await.unwrap();
            self.places[place].held.remove(label);
        }
    }

    /// Flips a bit: whoever reads it fails or reads what was written. Flips it back.
    async fn flip(&mut self, place: usize) {
        let inner = Arc::clone(&self.places[place].inner);
        let objects = list_all(&*inner, &format!("{}/backup/", support::SOURCE))
            .await
            .unwrap();
        let Some(object) = self.dice.one_of(&objects).cloned() else {
            return;
        };
        let whole = inner.get(&object.key).await.unwrap();
        let mut flipped = whole.to_vec();
        let at = self.dice.below(flipped.len());
        flipped[at] ^= 1 << self.dice.below(8);
        inner.delete(&object.key).await.unwrap();
        inner
            .create(&object.key, Bytes::from(flipped))
            .await
            .unwrap();
        let listing = self.places[place].repository.list().await.unwrap();
        for label in listing.backups.into_iter().map(|header| header.label) {
            let result = self.restore(place, &label).await;
            if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                assert!(error.to_string().contains(object.key.as_str()), "{error}");
            }
        }
        inner.delete(&object.key).await.unwrap();
        inner.create(&object.key, whole).await.unwrap();
    }

    /// Takes an object away while others go on: whoever needs it says which it is, nobody else notices, and nothing is
    /// committed that names it. Puts it back.
    async fn lose(&mut self, place: usize) {
        let inner = Arc::clone(&self.places[place].inner);
        let objects = list_all(&*inner, &format!("{}/backup/", support::SOURCE))
            .await
            .unwrap();
        let Some(key) = self.dice.one_of(&objects).map(|object| object.key.clone()) else {
            return;
        };
        let whole = inner.get(&key).await.unwrap();
        inner.delete(&key).await.unwrap();
        let before = self.places[place].listed().await;
        match self.dice.below(3) {
            0 if place == 0 => self.back_up(true).await,
            1 => self.copy().await,
            _ => {}
        }
        // A copy brings what is missing, manifest and packs.
        let gone = inner.get(&key).await.is_err();
        for label in self.places[place].listed().await {
            let needs = gone && self.needs(place, &label, &key).await;
            assert!(
                !needs || before.contains(&label),
                "{label} was committed without {key}"
            );
            match self.restore(place, &label).await {
                Ok(()) => assert!(!needs, "{label} was restored without {key}"),
                Err(error) => {
                    assert!(needs, "{label} does not name {key}: {error}");
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                    assert!(error.to_string().contains(key.as_str()), "{error}");
                }
            }
        }
        if gone {
            inner.create(&key, whole).await.unwrap();
        } else {
            assert!(inner.get(&key).await.unwrap() == whole, "{key}");
        }
    }

    /// Tells whether what a backup is made of includes an object.
    async fn needs(&self, place: usize, label: &Label, key: &Key) -> bool {
        let backup = self.places[place].repository.open(label).await.unwrap();
        let name = key.as_str().rsplit_once("/backup/").unwrap().1;
        let mut packs = backup.packs().iter();
        name.starts_with(&format!("{label}/tree/"))
            || packs.any(|pack| name == format!("{}/packs/{:06}", pack.label, pack.number))
    }

    /// Restores; fails the test if other bytes come out.
    async fn restore(&self, place: usize, label: &Label) -> Result<()> {
        let backup = self.places[place].repository.open(label).await?;
        let directory = tempfile::tempdir().unwrap();
        let stats = backup
            .restore_into(directory.path(), RestoreOptions::default())
            .await?;
        let meant = &self.meant[label];
        assert_eq!(stats.files, meant.len() as u64);
        for (path, content) in meant {
            let found = std::fs::read(directory.path().join(path)).unwrap();
            assert!(found == *content, "{label}: {path}");
        }
        Ok(())
    }

    async fn check(&mut self) {
        for place in 0..self.places.len() {
            let listed = self.places[place].listed().await;
            for label in self.places[place].must.union(&self.places[place].held) {
                assert!(listed.contains(label), "{label} is not listed");
            }
            for label in &listed {
                assert!(self.meant.contains_key(label));
                let backup = self.places[place].repository.open(label).await.unwrap();
                backup
                    .verify(&dr_repository::VerifyOptions::default())
                    .await
                    .unwrap();
            }
            if self.dice.below(6) == 0
                && let Some(label) = self.dice.one_of(&listed)
            {
                self.restore(place, label).await.unwrap();
            }
        }
    }

    /// In the end nothing is left but what the newest backup needs.
    async fn clean_up(&mut self) {
        for place in 0..self.places.len() {
            for label in std::mem::take(&mut self.places[place].held) {
                self.places[place].repository.release(&label).await.unwrap();
            }
            // A hold whose answer was lost.
            let inner = Arc::clone(&self.places[place].inner);
            for hold in list_all(&*inner, &format!("{}/hold/", support::SOURCE))
                .await
                .unwrap()
            {
                inner.delete(&hold.key).await.unwrap();
            }
            for _ in 0..4 {
                self.pass(50 * HOUR);
                self.prune(place, true).await;
                self.check().await;
            }
            let listed = self.places[place].listed().await;
            assert!(listed.len() <= 1, "{listed:?}");
            let mut needed = BTreeSet::new();
            for label in &listed {
                let backup = self.places[place].repository.open(label).await.unwrap();
                for pack in backup.packs() {
                    needed.insert(format!("{}/packs/{:06}", pack.label, pack.number));
                }
            }
            for object in list_all(&*inner, support::SOURCE).await.unwrap() {
                let name = &object.key.as_str()[support::SOURCE.len() + 1..];
                let rest = name.strip_prefix("backup/").unwrap_or(name);
                let of_newest = listed.iter().any(|label| rest.starts_with(label.as_str()));
                // A pack of an older backup that is still named keeps others of it only until they are marked again.
                assert!(of_newest || needed.contains(rest), "{name} is left");
            }
        }
    }
}

/// Returns the blocks in which the second differs from the first, and all behind its end.
fn difference(before: &[u8], after: &[u8]) -> Vec<Range<u64>> {
    (0..after.len().div_ceil(BLOCK))
        .map(|block| block * BLOCK..after.len().min((block + 1) * BLOCK))
        .filter(|range| before.get(range.clone()) != Some(&after[range.clone()]))
        .map(|range| range.start as u64..range.end as u64)
        .collect()
}

async fn play(seed: u64, steps: usize) {
    let mut world = World::new(seed);
    for _ in 0..steps {
        let place = world.dice.below(2);
        match world.dice.below(13) {
            0 | 1 => world.back_up(false).await,
            2..=4 => world.back_up(true).await,
            5 | 6 => world.copy().await,
            7 | 8 => world.prune(place, false).await,
            9 => world.hold(place).await,
            10 => world.release(place).await,
            11 => world.lose(place).await,
            _ => world.flip(place).await,
        }
        let hours = u32::try_from(world.dice.below(20)).unwrap();
        world.pass(hours * HOUR + Duration::from_secs(1));
        world.check().await;
    }
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_keep_what_is_promised() {
    let long = std::env::var("DR_MODEL").is_ok_and(|value| value == "long");
    let seeds = match std::env::var("DR_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("DR_SEED is a number");
            seed..seed + 1
        }
        Err(_) if long => 0..600,
        Err(_) => 0..15,
    };
    for seed in seeds {
        println!("DR_SEED={seed}");
        play(seed, 70).await;
    }
}
