//! Kinds as a binary would hand them in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dr_config::{Kinds, Loaded, Problems, StepKind, load};
use dr_model::RegionName;
use dr_model::document::{Context, Node, Reader, Template, Value, choice, map};

fn postgres(node: &Node, context: &mut Context) {
    let Some(mut reader) = Reader::open(node, context) else {
        return;
    };
    for key in ["kind", "sync"] {
        reader.node(key);
    }
    reader.optional::<String>("user");
    reader.optional::<Template>("password");
    reader.required_with("regions", map::<RegionName, ()>(instance));
    reader.finish();
}

fn instance(node: &Node, context: &mut Context) -> Option<()> {
    let mut reader = Reader::open(node, context)?;
    let host: Option<String> = reader.required("host");
    reader.optional::<String>("address");
    reader.optional::<u16>("port");
    reader.required::<PathBuf>("data_directory");
    reader.optional_with("standby", choice(&[("warm", ()), ("none", ())]));
    reader.finish();
    host.map(drop)
}

fn dns(node: &Node, context: &mut Context) {
    let Some(mut reader) = Reader::open(node, context) else {
        return;
    };
    for key in ["kind", "optional", "answers", "ttl", "server", "tsig"] {
        reader.node(key);
    }
    reader.required::<String>("name");
    reader.finish();
}

fn bucket(node: &Node, context: &mut Context) {
    let Value::Map(_) = node.value else {
        return;
    };
    let Some(mut reader) = Reader::open(node, context) else {
        return;
    };
    reader.node("url");
    reader.optional::<String>("region");
    reader.optional::<Template>("secret");
    reader.finish();
}

fn nothing(node: &Node, context: &mut Context) {
    if let Some(reader) = Reader::open(node, context) {
        reader.finish();
    }
}

pub(crate) fn kinds() -> Kinds {
    let step = |follows| StepKind {
        stands_for: &[],
        check: nothing,
        follows,
    };
    let after_seal: &[&str] = &["open-epoch", "fence-primary", "seal-wal"];
    Kinds {
        stores: [("s3", bucket as fn(&Node, &mut Context))].into(),
        resources: [("postgres", postgres as fn(&Node, &mut Context))].into(),
        traffic: [("rfc2136", dns as fn(&Node, &mut Context))].into(),
        jobs: [
            "take-snapshot",
            "ship-wal",
            "compact-wal",
            "copy-recovery-points",
            "expire-recovery-points",
            "verify-recovery-point",
            "boot-recovery-point",
        ]
        .into(),
        expiries: ["expire-recovery-points"].into(),
        steps: [
            ("assess-region", step(&[])),
            ("check-data-loss", step(&[])),
            ("await-approval", step(&[])),
            ("open-epoch", step(&[])),
            ("fence-primary", step(&[])),
            ("await-fence", step(&[])),
            ("seal-wal", step(&[])),
            ("promote-database", step(after_seal)),
            ("restore-database", step(after_seal)),
            ("start-service", step(&[])),
            ("check-health", step(&[])),
            ("switch-traffic", step(&[])),
            ("verify-traffic", step(&[])),
            ("notify", step(&[])),
            ("rearm-protection", step(&[])),
            ("record-evidence", step(&[])),
        ]
        .into(),
        conditions: ["unplanned"].into(),
    }
}

/// Loads with one variable set, `SECRET`.
pub(crate) fn load_at(path: &Path) -> Result<Loaded, Problems> {
    let resolver = |text: &str| match text.contains("${env:SECRET}") {
        true => Ok(text.replace("${env:SECRET}", "hunter2")),
        false => Err(format!("`{text}` cannot be resolved")),
    };
    load(path, &kinds(), Arc::new(resolver))
}

/// Loads a fixture.
pub(crate) fn fixture(name: &str) -> Result<Loaded, Problems> {
    load_at(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests")
            .join(name),
    )
}
