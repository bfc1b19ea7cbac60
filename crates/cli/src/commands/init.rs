//! `dr init`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dr_config::scaffold::{self, Answers, Site};
use dr_config::sql;
use dr_model::{RegionName, WorkloadName};
use serde_json::json;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::{Output, Tone};

/// Write a commented configuration, or with --sql print what a database must grant
///
/// Nothing that exists is overwritten. Everything can be changed in the files afterwards; `dr
/// check` says what is wrong.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write it; the directory of --config unless given
    #[arg(value_name = "DIRECTORY")]
    directory: Option<PathBuf>,

    /// The name of the organization
    #[arg(long, value_name = "NAME", default_value = "Example")]
    organization: String,

    /// The workload
    #[arg(long, value_name = "NAME", default_value = "orders")]
    workload: WorkloadName,

    /// The region where it is served
    #[arg(long, value_name = "REGION", default_value = "us-east-1")]
    home: RegionName,

    /// The region that it can be moved to
    #[arg(long, value_name = "REGION", default_value = "us-west-2")]
    recovery: RegionName,

    /// The address of the server in the home region
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    home_address: String,

    /// The address of the server in the recovery region
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    recovery_address: String,

    /// The port of the server in the home region
    #[arg(long, value_name = "PORT", default_value_t = 5432)]
    home_port: u16,

    /// The port of the server in the recovery region
    #[arg(long, value_name = "PORT", default_value_t = 5433)]
    recovery_port: u16,

    /// The data directory in the home region
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/var/lib/postgresql/15/main"
    )]
    home_data: PathBuf,

    /// The data directory in the recovery region
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/var/lib/postgresql/15/standby"
    )]
    recovery_data: PathBuf,

    /// No standby runs in the recovery region: there, the database is rebuilt from the store
    #[arg(long)]
    no_standby: bool,

    /// A file with the password of the role `dr`
    #[arg(long, value_name = "PATH")]
    password_file: Option<PathBuf>,

    /// Print the role, grants, settings and pg_hba.conf lines instead, for psql
    #[arg(long)]
    sql: bool,

    /// With --sql: the role
    #[arg(long, value_name = "NAME", default_value = "dr")]
    role: String,

    /// With --sql: the database that holds the heartbeat
    #[arg(long, value_name = "NAME", default_value = "postgres")]
    database: String,

    /// With --sql: the addresses that daemons connect from, such as 10.8.1.10/32
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1/32")]
    peer: Vec<String>,
}

pub(crate) fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    if args.sql {
        let peer = |address: &String| sql::Peer {
            name: "dr daemon".to_owned(),
            address: address.clone(),
        };
        let options = sql::Options {
            role: args.role.clone(),
            database: args.database.clone(),
            peers: args.peer.iter().map(peer).collect(),
        };
        let script = sql::script(&options);
        match output.json {
            true => output.json(&json!({ "sql": script }))?,
            false => output.data(script.trim_end())?,
        }
        return Ok(Exit::Ok);
    }
    let directory = std::path::absolute(args.directory.as_deref().unwrap_or(config))?;
    let written = scaffold::write(&directory, &answers(args)?).map_err(|error| {
        let made = CommandError::from_error(Exit::Failed, &error);
        match error {
            scaffold::Error::Exists(_) => {
                made.hint("name another directory, or edit what is there")
            }
            scaffold::Error::Write { .. } => {
                made.hint("run `dr init` as a user who may write there, or name another directory")
            }
        }
    })?;
    let next = next_steps(args, &directory)?;
    if output.json {
        output.json(&json!({ "directory": directory, "written": written, "next": next }))?;
        return Ok(Exit::Ok);
    }
    for path in &written {
        output.say(&format!(
            "{} {}",
            output.stderr.paint(Tone::Good, "wrote"),
            path.display()
        ));
    }
    output.data(&next.join("\n"))?;
    Ok(Exit::Ok)
}

fn answers(args: &Args) -> Result<Answers> {
    if args.home == args.recovery {
        return Err(CommandError::new(
            Exit::Usage,
            format!("the home and the recovery region are both `{}`", args.home),
        )
        .hint("a region cannot be recovered in itself: name another with `--recovery`"));
    }
    let site = |region: &RegionName, listen: u16, address: &str, port: u16, data: &Path| Site {
        region: region.clone(),
        store: format!("stores/{region}"),
        listen: SocketAddr::from(([127, 0, 0, 1], listen)),
        state_directory: PathBuf::from(format!("state/{region}")),
        host: "local".to_owned(),
        address: Some(address.to_owned()),
        port,
        data_directory: data.to_owned(),
    };
    Ok(Answers {
        organization: args.organization.clone(),
        workload: args.workload.clone(),
        password_file: args.password_file.clone(),
        home: site(
            &args.home,
            8421,
            &args.home_address,
            args.home_port,
            &args.home_data,
        ),
        recovery: site(
            &args.recovery,
            8422,
            &args.recovery_address,
            args.recovery_port,
            &args.recovery_data,
        ),
        standby: !args.no_standby,
    })
}

/// Says what to do next, with every path absolute: PostgreSQL starts its commands in its data
/// directory.
fn next_steps(args: &Args, directory: &Path) -> Result<Vec<String>> {
    let program = std::env::current_exe()?;
    let dr = format!("{} --config {}", program.display(), directory.display());
    let resource = format!("{}/database", args.workload);
    Ok(vec![
        "Next:".to_owned(),
        format!("  1. Look through {}/dr.yaml: stores belong on another disk than the database.", directory.display()),
        "  2. Create the role, as a superuser of the primary:".to_owned(),
        format!(
            "       {dr} init --sql | psql --host {} --port {} --dbname postgres",
            args.home_address, args.home_port
        ),
        "  3. Check everything:".to_owned(),
        format!("       {dr} check --online"),
        "  4. Start the daemon of each region, there:".to_owned(),
        format!("       {dr} daemon --region {}", args.home),
        format!("       {dr} daemon --region {}", args.recovery),
        "  5. See what is protected:".to_owned(),
        format!("       {dr} status"),
        String::new(),
        "The log is received as it is written, so archive_command is not needed. To push finished segments as well, and for".to_owned(),
        "a standby that has fallen behind its slot:".to_owned(),
        format!("  archive_command = '{dr} wal push {resource} %p'"),
        format!(
            "  restore_command = '{dr} wal fetch {resource} %f %p --in {} --standby'",
            args.recovery
        ),
    ])
}
