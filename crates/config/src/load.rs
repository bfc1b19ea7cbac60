//! From a directory to a validated configuration.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dr_model::RunbookName;
use dr_model::document::{Context, Node, Problem, Reader, Resolver, Severity, map};

use crate::config::{Config, Contents};
use crate::scope::{Scope, version};
use crate::{
    Kinds, Problems, Region, Runbook, Workload, apart, digest, overlap, runbook, schedule, shipped,
    yaml,
};

/// No file is read that is larger than this.
const MAX_BYTES: u64 = 1 << 20;

/// The file in an unpacked recovery kit that says where its configuration was.
pub const RELATIVE_TO: &str = "relative-to";

/// A configuration that can be used, and what somebody should look at.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Problems that do not stop it from being used.
    pub warnings: Vec<Problem>,
}

/// Loads the configuration at `path`: a directory that holds `dr.yaml`, or that file itself.
///
/// Reads `dr.yaml`, `schedules/*.yaml` and `runbooks/*.yaml`, and reports the problems of all of them at once.
pub fn load(path: &Path, kinds: &Kinds, resolver: Arc<dyn Resolver>) -> Result<Loaded, Problems> {
    let directory = directory(path)?;
    let base = base(&directory);
    let mut context = Context::new(&base, Arc::clone(&resolver));
    let root = file(&directory, "dr.yaml", &mut context);
    let schedules = files(&directory, "schedules", &mut context);
    let runbooks = files(&directory, "runbooks", &mut context);
    let digest = digest::digest(
        root.iter()
            .chain(schedules.values())
            .chain(runbooks.values()),
    );

    if root.is_none() {
        // Without it every name in the other files would be unknown, which says nothing about them.
        return Err(Problems(context.into_problems()));
    }
    let scope = Scope::new(root.as_ref(), kinds);
    let contents = root
        .as_ref()
        .and_then(|root| read_root(root, &mut context, &scope));
    let mut all_schedules = Vec::new();
    for (stem, node) in &schedules {
        all_schedules.extend(schedule::read(stem, node, &mut context, &scope));
    }
    let mut all_runbooks = BTreeMap::new();
    for node in runbooks.values() {
        let Some(read) = runbook::read(node, &mut context, &scope) else {
            continue;
        };
        let name = read.value.name.clone();
        if all_runbooks.insert(name.clone(), read.value).is_some() {
            let problem =
                Problem::error(&read.span, format!("there is a runbook `{name}` already"));
            context.report(problem);
        }
    }
    if let Some(problem) = built_in_failover(&runbooks, &all_runbooks)
        && context.errors() == 0
    {
        context.report(problem);
    }
    for runbook in shipped::runbooks(&base, &resolver, &scope) {
        all_runbooks.entry(runbook.name.clone()).or_insert(runbook);
    }
    if let (Some(root), Some(contents)) = (&root, &contents) {
        apart::check(root, contents, &mut context);
        overlap::check(contents, &mut context);
    }

    let refused = context.errors() > 0;
    let problems = context.into_problems();
    match contents {
        Some(contents) if !refused => Ok(Loaded {
            config: Config {
                directory,
                base,
                organization: contents.organization,
                encryption: contents.encryption,
                regions: contents.regions,
                workloads: contents.workloads,
                schedules: all_schedules,
                runbooks: all_runbooks,
                digest,
                resolver,
            },
            warnings: problems,
        }),
        _ => {
            debug_assert!(problems.iter().any(|p| p.severity == Severity::Error));
            Err(Problems(problems))
        }
    }
}

/// Says that a failover uses the runbook of the program although there are some of one's own: the file may have been lost.
fn built_in_failover(
    files: &BTreeMap<String, Node>,
    read: &BTreeMap<RunbookName, Runbook>,
) -> Option<Problem> {
    let own = read.keys().any(|name| name.as_str() == shipped::FAILOVER);
    if files.is_empty() || own {
        return None;
    }
    let what = format!(
        "`runbooks/` has no `{}`: `dr failover` uses the one that is built in",
        shipped::FAILOVER
    );
    let problem = Problem::nowhere(what).hint(
        "`dr runbook show failover-region` prints it; put the file back if there was one of your own",
    );
    Some(Problem {
        severity: Severity::Warning,
        ..problem
    })
}

fn read_root(node: &Node, context: &mut Context, scope: &Scope<'_>) -> Option<Contents> {
    let mut reader = Reader::open(node, context)?;
    version(&mut reader);
    let organization = reader.optional("organization");
    let encryption = reader.optional("encryption");
    let region = |n: &Node, c: &mut Context| Region::read(n, c, scope);
    let regions = reader.required_with("regions", map(region));
    let workload = |n: &Node, c: &mut Context| Workload::read(n, c, scope);
    let workloads = reader.required_with("workloads", map(workload));
    reader.finish();
    Some(Contents {
        organization,
        encryption,
        regions: regions?,
        workloads: workloads?,
    })
}

/// Returns the absolute directory of the configuration.
fn directory(path: &Path) -> Result<PathBuf, Problems> {
    let shown = path.display();
    let absent = || {
        let problem = Problem::nowhere(format!("there is no configuration at `{shown}`"))
            .expected("a directory that holds `dr.yaml`")
            .hint("`dr init` writes one; `--config` says where it is");
        Problems(vec![problem])
    };
    let unreadable = |error: &io::Error| {
        let what = format!("`{shown}` cannot be read: {error}");
        let problem = Problem::nowhere(what);
        Problems(vec![match error.kind() {
            io::ErrorKind::PermissionDenied => problem.hint(readable(path)),
            _ => problem,
        }])
    };
    let absolute = path.canonicalize().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => absent(),
        _ => unreadable(&error),
    })?;
    if absolute.is_dir() {
        return match absolute.join("dr.yaml").try_exists() {
            Ok(true) => Ok(absolute),
            Ok(false) => Err(absent()),
            Err(error) => Err(unreadable(&error)),
        };
    }
    match (absolute.file_name(), absolute.parent()) {
        (Some(name), Some(parent)) if name == "dr.yaml" => Ok(parent.to_owned()),
        _ => Err(absent()),
    }
}

/// Returns what relative paths are relative to in the configuration in a directory, which must be absolute.
///
/// What was unpacked from a recovery kit says where it was before: a relative path means the same place as there.
#[must_use]
pub fn base(directory: &Path) -> PathBuf {
    match std::fs::read_to_string(directory.join(RELATIVE_TO)) {
        Ok(text) => PathBuf::from(text.trim_end()),
        Err(_) => directory.to_owned(),
    }
}

/// Says what to do about a file or directory that this user may not read.
fn readable(path: &Path) -> String {
    format!(
        "run `dr` as a user who may read it: see `ls -ld {}`",
        path.display()
    )
}

/// Reads one file; `name` is relative to the directory and its name in messages.
fn file(directory: &Path, name: &str, context: &mut Context) -> Option<Node> {
    let path = directory.join(name);
    let read = || -> Result<Node, Box<Problem>> {
        let problem = |why: &str| Problem::nowhere(format!("`{name}` cannot be read: {why}"));
        let unreadable = |error: io::Error| {
            let problem = problem(&error.to_string());
            Box::new(match error.kind() {
                io::ErrorKind::PermissionDenied => problem.hint(readable(&path)),
                io::ErrorKind::InvalidData => problem.hint("it has to be text in UTF-8"),
                io::ErrorKind::IsADirectory => problem.hint("it has to be a file"),
                _ => problem,
            })
        };
        let metadata = path.metadata().map_err(unreadable)?;
        if metadata.len() > MAX_BYTES {
            let what = format!("it is larger than {MAX_BYTES} bytes");
            return Err(Box::new(problem(&what).hint("is that the right file?")));
        }
        let text = std::fs::read_to_string(&path).map_err(unreadable)?;
        yaml::parse(name, &text)
    };
    match read() {
        Ok(node) => Some(node),
        Err(problem) => {
            context.report(*problem);
            None
        }
    }
}

/// Reads the `*.yaml` of a directory, by name without the ending. A directory that is missing holds none.
fn files(directory: &Path, folder: &str, context: &mut Context) -> BTreeMap<String, Node> {
    let mut nodes = BTreeMap::new();
    let entries = match std::fs::read_dir(directory.join(folder)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return nodes,
        Err(error) => {
            let problem = Problem::nowhere(format!("`{folder}` cannot be read: {error}"));
            context.report(match error.kind() {
                io::ErrorKind::PermissionDenied => problem.hint(readable(&directory.join(folder))),
                io::ErrorKind::NotADirectory => problem.hint("it has to be a directory"),
                _ => problem,
            });
            return nodes;
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => names.push(entry.file_name().to_string_lossy().into_owned()),
            Err(error) => {
                context.report(Problem::nowhere(format!(
                    "`{folder}` cannot be read: {error}"
                )));
            }
        }
    }
    names.sort();
    for name in names.iter().filter(|name| !name.starts_with('.')) {
        match name.strip_suffix(".yaml") {
            Some(stem) => {
                if let Some(node) = file(directory, &format!("{folder}/{name}"), context) {
                    nodes.insert(stem.to_owned(), node);
                }
            }
            None if name.ends_with(".yml") => {
                let what = format!("`{folder}/{name}` is not read");
                let problem = Problem::nowhere(what).hint("only `*.yaml` is: rename it");
                context.report(Problem {
                    severity: Severity::Warning,
                    ..problem
                });
            }
            None => {}
        }
    }
    nodes
}
