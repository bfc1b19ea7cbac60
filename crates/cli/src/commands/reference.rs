//! `dr reference`: the command line as a document, made from the same definition that parses it.

use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory};

use crate::args::Arguments;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;

/// Print the reference of all commands, in Markdown
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(output: &Output) -> Result<Exit> {
    let mut root = Arguments::command();
    root.build();
    let mut lines = vec![
        "# Commands".to_owned(),
        String::new(),
        "Made by `dr reference > docs/cli.md`. How each command ends: [exit codes](exit-codes.md)."
            .to_owned(),
        String::new(),
        "Every command takes these options:".to_owned(),
        String::new(),
    ];
    options(&root, &mut lines);
    for command in visible(&root) {
        section(command, "dr", &mut lines);
    }
    output.data(&lines.join("\n"))?;
    Ok(Exit::Ok)
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}

fn section(command: &Command, parent: &str, lines: &mut Vec<String>) {
    let name = format!("{parent} {}", command.get_name());
    if command.has_subcommands() {
        for sub in visible(command) {
            section(sub, &name, lines);
        }
        return;
    }
    lines.extend([String::new(), format!("## {name}"), String::new()]);
    let about = command
        .get_long_about()
        .or_else(|| command.get_about())
        .map(text)
        .unwrap_or_default();
    lines.extend([
        about,
        String::new(),
        "```".to_owned(),
        usage(command, &name),
        "```".to_owned(),
        String::new(),
    ]);
    options(command, lines);
}

fn usage(command: &Command, name: &str) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    // Rendered for the command alone, it may lack the commands above it.
    let after = usage.strip_prefix(name).or_else(|| {
        let (_, after) = usage.split_once(command.get_name())?;
        Some(after)
    });
    let after = after.unwrap_or_default();
    format!("{name}{after}")
}

fn options(command: &Command, lines: &mut Vec<String>) {
    let own = |argument: &&Arg| {
        let name = argument.get_id().as_str();
        let is_root = command.get_name() == "dr";
        !argument.is_hide_set()
            && !matches!(name, "help" | "version")
            && (is_root || !argument.is_global_set())
    };
    for argument in command.get_arguments().filter(own) {
        let help = argument
            .get_long_help()
            .or_else(|| argument.get_help())
            .map(text)
            .unwrap_or_default();
        let default: Vec<_> = argument
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy())
            .collect();
        let default = match default.as_slice() {
            [] => String::new(),
            _ if !argument.get_action().takes_values() => String::new(),
            values => format!(" Default: `{}`.", values.join(" ")),
        };
        lines.push(format!("- `{}`: {help}.{default}", shown(argument)));
    }
}

fn shown(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let values: Vec<_> = names.iter().map(|name| format!("<{name}>")).collect();
    let values = if argument.get_action().takes_values() {
        values.join(" ")
    } else {
        String::new()
    };
    match argument.get_long() {
        Some(long) if values.is_empty() => format!("--{long}"),
        Some(long) => format!("--{long} {values}"),
        None => values,
    }
}

fn text(styled: &StyledStr) -> String {
    styled.to_string()
}
