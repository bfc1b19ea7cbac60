//! The primary of a site: what is committed in it, and how it is ended and started again.

use std::fs;
use std::path::Path;

use dr_model::TimelineId;
use jiff::Timestamp;

use super::{Entry, Site};
use crate::server::{PATIENCE, Server, Version, as_postgres, give_to_postgres, run};

impl Site {
    /// Commits so many entries, each by itself.
    pub(crate) async fn commit(&self, entries: u32) {
        let mut connection = self.primary.connect().await;
        for _ in 0..entries {
            let sql = "insert into ledger (filler) values (repeat('x', 300))";
            connection.query(sql).await.unwrap();
        }
    }

    /// Returns all entries that a server has, with the times of their commits.
    pub(crate) async fn ledger(server: &Server) -> Vec<Entry> {
        let sql = "select id, (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint \
                   from ledger order by id";
        let rows = server.connect().await.query(sql).await.unwrap();
        let entry = |row: &dr_pgwire::Row| {
            let micros: i64 = row.get(1).unwrap();
            (
                row.get(0).unwrap(),
                Timestamp::from_microsecond(micros).unwrap(),
            )
        };
        rows.iter().map(entry).collect()
    }

    /// Starts the primary again as a standby without a primary, and promotes it.
    pub(crate) async fn restart_promoted(&mut self) {
        self.restart_as_standby().await;
        self.primary.sql("select pg_promote()").await;
    }

    /// The same in an epoch of its own, in which something is committed and brought into that region's store.
    pub(crate) async fn go_on_promoted(&mut self, name: &str) {
        self.restart_promoted().await;
        self.open_epoch(2, 2).await;
        self.commit(40).await;
        self.switch().await;
        self.push_history(name, 2).await;
        self.push(name).await;
    }

    /// Starts the primary again as a standby without a primary.
    pub(crate) async fn restart_as_standby(&mut self) {
        let data = self.primary.data.clone();
        self.primary.stop();
        fs::write(data.join("standby.signal"), "").unwrap();
        give_to_postgres(&data.join("standby.signal"));
        self.primary = Server::start(&data, &settings(&self.archive())).await;
    }

    /// Ends the primary as a crash does, lets something happen to its files, and starts it again.
    pub(crate) async fn crash(&mut self, meanwhile: impl FnOnce(&Path)) {
        self.primary.crash();
        meanwhile(&self.primary.data);
        let settings = settings(&self.archive());
        self.primary = Server::start(&self.primary.data.clone(), &settings).await;
    }

    /// Waits until the primary has removed the segment of that name, or has given it another one.
    pub(crate) async fn forget(&self, segment: &str) {
        let path = self.primary.data.join("pg_wal").join(segment);
        let gone = async {
            while path.exists() {
                self.commit(20).await;
                self.switch().await;
                self.primary.sql("checkpoint").await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap();
    }

    /// Stops the primary for good and starts one of another cluster, with a ledger of its own.
    pub(crate) async fn replace_primary(&mut self) {
        self.primary.stop();
        let data = self.primary.data.clone();
        fs::rename(&data, data.with_extension("old")).unwrap();
        for segment in self.segments() {
            fs::remove_file(self.archive().join(segment)).unwrap();
        }
        self.pushed.lock().unwrap().clear();
        Server::initialise(&data, 1);
        self.primary = Server::start(&data, &settings(&self.archive())).await;
        let ledger = "create table ledger (id bigserial primary key, filler text)";
        self.primary.sql(ledger).await;
    }

    /// Has `pg_upgrade` carry the primary into another major version, and starts that. The old one stays beside it.
    pub(crate) async fn upgrade_primary(&mut self, version: Version) {
        self.primary.stop();
        let data = self.primary.data.clone();
        let (old, new) = (data.with_extension("old"), data.with_extension("new"));
        let before = Version::of(&data);
        fs::rename(&data, &old).unwrap();
        Server::initialise_as(version, &new, 1);
        let mut upgrade = as_postgres(&version.binaries(), "pg_upgrade");
        upgrade
            .current_dir(self.directory.path())
            .args(["--username=postgres", "--no-sync"])
            .arg("--old-bindir")
            .arg(before.binaries())
            .arg("--new-bindir")
            .arg(version.binaries())
            .arg("--old-datadir")
            .arg(&old)
            .arg("--new-datadir")
            .arg(&new)
            .arg("--socketdir")
            .arg(self.directory.path());
        run(&mut upgrade);
        fs::rename(&new, &data).unwrap();
        for segment in self.segments() {
            fs::remove_file(self.archive().join(segment)).unwrap();
        }
        self.pushed.lock().unwrap().clear();
        self.primary = Server::start(&data, &settings(&self.archive())).await;
    }

    /// Starts the primary again with more settings, which are in no file.
    pub(crate) async fn restart_with(&mut self, further: &[&str]) {
        self.primary.stop();
        let mut settings = settings(&self.archive());
        settings.extend(further.iter().map(|setting| (*setting).to_owned()));
        self.primary = Server::start(&self.primary.data.clone(), &settings).await;
    }

    /// Makes what was restored and promoted at `data` the primary, archiving like the one before.
    pub(crate) async fn take_over(&mut self, data: &Path) {
        self.primary.stop();
        // What was restored archives nothing by itself, its history neither.
        let history = TimelineId(2).history_file_name();
        let archived = self.archive().join(&history);
        fs::copy(data.join("pg_wal").join(&history), archived).unwrap();
        self.primary = Server::start(data, &settings(&self.archive())).await;
    }
}

/// What the server of a site is told beside its configuration.
pub(super) fn settings(archive: &Path) -> Vec<String> {
    let place = archive.display();
    let command = format!("cp %p {place}/%f.tmp && mv {place}/%f.tmp {place}/%f");
    vec![
        "archive_mode=on".to_owned(),
        format!("archive_command={command}"),
        "max_wal_size=1GB".to_owned(),
        "track_commit_timestamp=on".to_owned(),
    ]
}
