//! Whether the store that was meant is there.

use std::sync::OnceLock;

use bytes::Bytes;
use dr_provider::store::IDENTITY_KEY;
use dr_provider::{Error, ErrorKind, Key, ObjectStore as _, Result};

use crate::S3Store;
use crate::answer::Answer;
use crate::call::{Action, Call};

/// The identity that was seen first through a handle.
#[derive(Debug, Default)]
pub(crate) struct Seen(OnceLock<Bytes>);

impl S3Store {
    /// Makes a prefix of a bucket, or a whole bucket, into a store with the given identity object.
    ///
    /// The bucket must exist. Fails with `AlreadyExists` if it is a store already and with `Invalid`
    /// if it holds anything else.
    pub async fn initialise(&self, identity: Bytes) -> Result<()> {
        let call = self.call("initialise store", "");
        if identity.is_empty() {
            let error = call.error(ErrorKind::Invalid);
            return Err(error.because("the identity object is empty"));
        }
        let request = self.client().await?.list_objects_v2();
        let request = request
            .bucket(&self.options.bucket)
            .prefix(&self.options.prefix)
            .max_keys(1000);
        let listed = match request.send().await {
            Ok(listed) => listed,
            Err(error) => return Err(Answer::of(&error).error(&call, Action::LIST)),
        };
        let own = self.bucket_key(IDENTITY_KEY);
        let mut foreign = listed.contents().iter().filter_map(|object| object.key());
        match foreign.next() {
            None => self.create(&identity_key(), identity).await,
            Some(first) if first == own || foreign.any(|key| key == own) => {
                Err(call.error(ErrorKind::AlreadyExists))
            }
            Some(first) => Err(call
                .error(ErrorKind::Invalid)
                .because(format!("the bucket holds `{first}` there"))
                .with_hint("give the store a bucket or a prefix of its own")),
        }
    }

    /// Succeeds while the identity object can be read and is the one that was seen first.
    pub(crate) async fn prove(&self, call: &Call<'_>) -> Result<()> {
        let away = |why: &str| call.error(ErrorKind::Unavailable).because(why.to_owned());
        let key = identity_key();
        let found = match self.fetch(&key, None).await? {
            Ok(found) => found,
            Err(answer) if answer.is_missing() => {
                return Err(away("there is no store: its identity object is missing")
                    .with_hint("a new store is initialised by the daemon of its region"));
            }
            Err(answer) => return Err(self.unproven(call, answer)),
        };
        if self.seen.0.get_or_init(|| found.clone()) == &found {
            return Ok(());
        }
        Err(away("another store is in its place").with_hint(
            "see `store` of the region; if the change is intended, restart whatever uses the store",
        ))
    }

    /// Says why nothing can be called missing: what kept the identity from being read.
    fn unproven(&self, call: &Call<'_>, answer: Answer) -> Error {
        answer.error(call, Action::GET)
    }
}

fn identity_key() -> Key {
    Key::new(IDENTITY_KEY).expect("the name of the identity object is a key")
}
