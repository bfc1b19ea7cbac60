//! From a directory to a validated configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dr_model::document::{Context, Node, Problem, Reader, Resolver, Severity, map};

use crate::config::{Config, Contents};
use crate::scope::{Scope, version};
use crate::{
    Kinds, Problems, Region, Runbook, Runbooks, Unusable, Workload, apart, digest, overlap,
    runbook, schedule, shipped, yaml,
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

/// A file by its name, what was read from it, and what is wrong with it.
type Alone = (String, Option<Node>, Context);

/// Loads the configuration at `path`: a directory that holds `dr.yaml`, or that file itself.
///
/// Reads `dr.yaml`, `schedules/*.yaml` and `runbooks/*.yaml`, and reports the problems of all of them at once. A runbook that cannot be
/// used is no reason to refuse the rest: see [`Runbooks`].
pub fn load(path: &Path, kinds: &Kinds, resolver: Arc<dyn Resolver>) -> Result<Loaded, Problems> {
    let directory = directory(path)?;
    let base = base(&directory);
    let mut context = Context::new(&base, Arc::clone(&resolver));
    let root = file(&directory, "dr.yaml", &mut context);
    let schedules = files(&directory, "schedules", &mut context);
    let runbooks = each_alone(&directory, "runbooks", &mut context, &|| {
        Context::new(&base, Arc::clone(&resolver))
    });
    let digest = digest::digest(
        root.iter()
            .chain(schedules.values())
            .chain(runbooks.iter().filter_map(|(_, node, _)| node.as_ref())),
    );

    if root.is_none() {
        // Without it every name in the other files would be unknown, which says nothing about them.
        let broken = runbooks
            .into_iter()
            .flat_map(|(_, _, own)| own.into_problems());
        let problems = context.into_problems().into_iter().chain(broken);
        return Err(Problems(problems.collect()));
    }
    let scope = Scope::new(root.as_ref(), kinds);
    let contents = root
        .as_ref()
        .and_then(|root| read_root(root, &mut context, &scope));
    let mut all_schedules = Vec::new();
    for (stem, node) in &schedules {
        all_schedules.extend(schedule::read(stem, node, &mut context, &scope));
    }
    let shipped = shipped::runbooks(&base, &resolver, &scope);
    let runbooks = read_runbooks(runbooks, shipped, &mut context, &scope);
    if let (Some(root), Some(contents)) = (&root, &contents) {
        apart::check(root, contents, &mut context);
        overlap::check(contents, &mut context);
    }

    let refused = context.errors() > 0;
    let mut problems = context.into_problems();
    if refused {
        let unusable = runbooks.unusable().iter();
        problems.extend(unusable.flat_map(|file| file.problems.0.clone()));
    }
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
                runbooks,
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

/// Reads runbooks, each of which stands for itself, and adds those that are `shipped` and have no file in their place.
fn read_runbooks(
    files: Vec<Alone>,
    shipped: Vec<Runbook>,
    context: &mut Context,
    scope: &Scope<'_>,
) -> Runbooks {
    let has_files = !files.is_empty();
    let mut usable = BTreeMap::new();
    let mut unusable = Vec::new();
    let mut names = BTreeSet::new();
    for (file, node, mut own) in files {
        let name = node.as_ref().and_then(runbook::name);
        let read = node.and_then(|node| runbook::read(&node, &mut own, scope));
        if let Some(read) = &read
            && !names.insert(read.value.name.clone())
        {
            let what = format!("there is a runbook `{}` already", read.value.name);
            own.report(Problem::error(&read.span, what));
        }
        names.extend(name.clone());
        match read {
            Some(read) if own.errors() == 0 => {
                usable.insert(read.value.name.clone(), read.value);
                for warning in own.into_problems() {
                    context.report(warning);
                }
            }
            _ => unusable.push(Unusable {
                file,
                name,
                problems: Problems(own.into_problems()),
            }),
        }
    }
    if has_files
        && unusable.iter().all(|file| file.name.is_some())
        && !names.iter().any(|name| name.as_str() == shipped::FAILOVER)
        && context.errors() == 0
    {
        context.report(built_in_failover());
    }
    for runbook in shipped {
        usable.entry(runbook.name.clone()).or_insert(runbook);
    }
    Runbooks::new(usable, unusable)
}

/// Says that a failover uses the runbook of the program although there are some of one's own: the file may have been lost.
fn built_in_failover() -> Problem {
    let what = format!(
        "`runbooks/` has no `{}`: `dr failover` uses the one that is built in",
        shipped::FAILOVER
    );
    let problem = Problem::nowhere(what).hint(
        "`dr runbook show failover-region` prints it; put the file back if there was one of your own",
    );
    Problem {
        severity: Severity::Warning,
        ..problem
    }
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
    for stem in stems(directory, folder, context) {
        if let Some(node) = file(directory, &format!("{folder}/{stem}.yaml"), context) {
            nodes.insert(stem, node);
        }
    }
    nodes
}

/// Reads the same with a context for each file, which holds what is wrong with it; only what is wrong with the directory is
/// reported to `context`.
fn each_alone(
    directory: &Path,
    folder: &str,
    context: &mut Context,
    alone: &dyn Fn() -> Context,
) -> Vec<Alone> {
    let stems = stems(directory, folder, context);
    let read = stems.into_iter().map(|stem| {
        let name = format!("{folder}/{stem}.yaml");
        let mut own = alone();
        let node = file(directory, &name, &mut own);
        (name, node, own)
    });
    read.collect()
}

/// Returns the names of the `*.yaml` of a directory without the ending, in their order.
fn stems(directory: &Path, folder: &str, context: &mut Context) -> Vec<String> {
    let entries = match std::fs::read_dir(directory.join(folder)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let problem = Problem::nowhere(format!("`{folder}` cannot be read: {error}"));
            context.report(match error.kind() {
                io::ErrorKind::PermissionDenied => problem.hint(readable(&directory.join(folder))),
                io::ErrorKind::NotADirectory => problem.hint("it has to be a directory"),
                _ => problem,
            });
            return Vec::new();
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
    let mut stems = Vec::new();
    for name in names.iter().filter(|name| !name.starts_with('.')) {
        match name.strip_suffix(".yaml") {
            Some(stem) => stems.push(stem.to_owned()),
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
    stems
}
