//! Base backups from a real server.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::collections::BTreeMap;
use std::fs;

use dr_pgwire::{BaseBackupEvent, BaseBackupOptions, BaseBackupStream, Error};
use support::{Cluster, PATIENCE, give_to_postgres};

/// What a backup brought: archives by name with their tablespace, and the manifest.
struct Received {
    archives: BTreeMap<String, (Option<String>, Vec<u8>)>,
    manifest: Option<Vec<u8>>,
    progress: u64,
    damaged: bool,
}

async fn receive(stream: &mut BaseBackupStream) -> Result<Received, Error> {
    let mut received = Received {
        archives: BTreeMap::new(),
        manifest: None,
        progress: 0,
        damaged: false,
    };
    let mut archive = None;
    loop {
        match tokio::time::timeout(PATIENCE, stream.next())
            .await
            .unwrap()?
        {
            BaseBackupEvent::ArchiveStart { name, location } => {
                received
                    .archives
                    .insert(name.clone(), (location, Vec::new()));
                archive = Some(name);
            }
            BaseBackupEvent::ManifestStart => received.manifest = Some(Vec::new()),
            BaseBackupEvent::Data(data) => match (&mut received.manifest, &archive) {
                (Some(manifest), _) => manifest.extend_from_slice(&data),
                (None, Some(name)) => {
                    received
                        .archives
                        .get_mut(name)
                        .unwrap()
                        .1
                        .extend_from_slice(&data);
                }
                (None, None) => panic!("data before the first archive"),
            },
            BaseBackupEvent::Progress(bytes) => received.progress = bytes,
            BaseBackupEvent::End { position, damaged } => {
                assert!(position.lsn > stream.start().lsn);
                assert_eq!(position.timeline, stream.start().timeline);
                received.damaged = damaged;
                return Ok(received);
            }
        }
    }
}

/// Reads the names and sizes of regular files in a tar archive.
fn files(tar: &[u8]) -> BTreeMap<String, u64> {
    let mut files = BTreeMap::new();
    let mut rest = tar;
    while rest[0] != 0 {
        let (header, after) = rest.split_at(512);
        let field = |from: usize, length: usize| {
            let bytes = &header[from..from + length];
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(length);
            String::from_utf8(bytes[..end].to_vec()).unwrap()
        };
        let size = u64::from_str_radix(field(124, 12).trim(), 8).unwrap();
        if header[156] == b'0' {
            files.insert(field(0, 100), size);
        }
        rest = &after[usize::try_from(size.next_multiple_of(512)).unwrap()..];
    }
    files
}

#[tokio::test]
async fn archives_hold_what_the_manifest_says() {
    let cluster = Cluster::start(&[], &[]).await;
    let mut sql = cluster.connect().await;
    let place = cluster.socket().join("space");
    fs::create_dir(&place).unwrap();
    give_to_postgres(&place);
    sql.query(&format!(
        "create tablespace space location '{}'",
        place.display()
    ))
    .await
    .unwrap();
    sql.query(
        "create table here as select n, repeat('x', 100) from generate_series(1, 50000) n;
         create table there tablespace space as table here",
    )
    .await
    .unwrap();
    let oid = sql
        .query("select oid from pg_tablespace where spcname = 'space'")
        .await
        .unwrap();
    let oid: u32 = oid.only().unwrap().get(0).unwrap();

    let label = r"it's \ a label";
    let options = BaseBackupOptions {
        sizes: true,
        ..BaseBackupOptions::new(label)
    };
    let connection = cluster.connect_replication().await;
    let mut stream = connection.base_backup(&options).await.unwrap();
    assert_eq!(stream.start().timeline.0, 1);
    let [space, base] = stream.tablespaces() else {
        panic!("{:?}", stream.tablespaces())
    };
    assert_eq!(space.link, Some((oid, place.display().to_string())));
    assert_eq!(base.link, None);
    assert!(base.size_kibibytes.unwrap() > 10_000);
    let start = stream.start();
    let received = receive(&mut stream).await.unwrap();
    assert!(!received.damaged);

    let (location, base) = &received.archives["base.tar"];
    assert_eq!(*location, None);
    let base_files = files(base);
    let space_name = format!("{oid}.tar");
    let (location, space) = &received.archives[&space_name];
    assert_eq!(location.as_deref(), place.to_str());
    let mut all = base_files.clone();
    all.extend(
        files(space)
            .into_iter()
            .map(|(name, size)| (format!("pg_tblspc/{oid}/{name}"), size)),
    );
    assert!(received.progress >= (base.len() + space.len()) as u64 * 9 / 10);

    let manifest: serde_json::Value =
        serde_json::from_slice(received.manifest.as_ref().unwrap()).unwrap();
    let listed: BTreeMap<String, u64> = manifest["Files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| {
            (
                file["Path"].as_str().unwrap().to_owned(),
                file["Size"].as_u64().unwrap(),
            )
        })
        .collect();
    assert!(listed.len() > 500);
    assert_eq!(all, listed);
    assert_eq!(
        manifest["WAL-Ranges"][0]["Start-LSN"],
        start.lsn.to_string()
    );
    let text = String::from_utf8_lossy(base);
    assert!(text.contains(&format!("LABEL: {label}")));

    // The session goes on.
    let mut connection = stream.into_connection().unwrap();
    connection.identify_system().await.unwrap();
    let bare = BaseBackupOptions {
        manifest: false,
        ..BaseBackupOptions::new("bare")
    };
    let mut stream = connection.base_backup(&bare).await.unwrap();
    assert_eq!(stream.tablespaces()[1].size_kibibytes, None);
    assert!(receive(&mut stream).await.unwrap().manifest.is_none());
}

#[tokio::test]
async fn a_damaged_page_is_told() {
    let cluster = Cluster::start(&[], &[]).await;
    let mut sql = cluster.connect().await;
    sql.query("create table t as select generate_series(1, 5000); checkpoint")
        .await
        .unwrap();
    let rows = sql.query("select pg_relation_filepath('t')").await.unwrap();
    let path = cluster
        .data()
        .join(rows.only().unwrap().get::<String>(0).unwrap());
    let mut page = fs::read(&path).unwrap();
    page[8192 + 5000] ^= 0xff;
    fs::write(&path, page).unwrap();

    let options = BaseBackupOptions::new("damaged");
    let connection = cluster.connect_replication().await;
    let mut stream = connection.base_backup(&options).await.unwrap();
    let received = receive(&mut stream).await.unwrap();
    assert!(received.damaged && received.archives.contains_key("base.tar"));
    let told = stream
        .notices()
        .iter()
        .any(|notice| notice.message.contains("checksum"));
    assert!(told, "{:?}", stream.notices());
    let mut connection = stream.into_connection().unwrap();
    assert_eq!(connection.show("wal_level").await.unwrap(), "replica");
}

#[tokio::test]
async fn a_refused_backup_is_told() {
    let cluster = Cluster::start(&[], &[]).await;
    let rate = BaseBackupOptions {
        max_rate_kibibytes: Some(1),
        ..BaseBackupOptions::new("slow")
    };
    let connection = cluster.connect_replication().await;
    let error = connection.base_backup(&rate).await.unwrap_err();
    assert!(error.server().is_some(), "{error:?}");
}
