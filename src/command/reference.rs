//! `penstock reference PAGE`: the reference pages under `docs/reference/`, from the data that the code runs on.

use std::{fmt::Write, process::ExitCode};

use crate::{
    cli::{self, ReferenceOptions, ReferencePage},
    output,
};

pub fn run(options: &ReferenceOptions) -> anyhow::Result<ExitCode> {
    output::done(&page(options.page))
}

fn page(page: ReferencePage) -> String {
    match page {
        ReferencePage::Annotations => penstock_translate::reference(),
        ReferencePage::Profiles => penstock_translate::profiles_reference(),
        ReferencePage::Proxyroute => penstock_api::reference(),
        ReferencePage::CommandLine => command_line(),
    }
}

fn command_line() -> String {
    let mut out = String::from(
        "# The command line\n\nGenerated from the code by `penstock reference command-line`; do not edit.\n\nEvery flag can also be given as an environment variable: `--some-flag` as `PENSTOCK_SOME_FLAG`.\n",
    );
    let mut command = cli::command();
    // So that what all commands have stands with each.
    command.build();
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set() && subcommand.get_name() != "help") {
        let _ = write!(out, "\n## penstock {}\n\n", subcommand.get_name());
        let _ = writeln!(out, "{}.\n", subcommand.get_about().map(ToString::to_string).unwrap_or_default());
        let arguments: Vec<_> = subcommand
            .get_arguments()
            .filter(|argument| !argument.is_hide_set() && !matches!(argument.get_id().as_str(), "help" | "version"))
            .collect();
        if arguments.is_empty() {
            continue;
        }
        out.push_str("| flag | default | does |\n|---|---|---|\n");
        for argument in arguments {
            let takes = argument.get_action().takes_values();
            let names = argument.get_value_names().filter(|_| takes);
            let value = names.and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
            let name = match (argument.get_long(), argument.get_short()) {
                (Some(long), Some(short)) => format!("-{short}, --{long} {value}"),
                (Some(long), None) => format!("--{long} {value}"),
                _ => value,
            };
            let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
            let default = if defaults.is_empty() { String::new() } else { format!("`{}`", defaults.join(",")) };
            let mut help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let values = argument.get_possible_values();
            let values: Vec<_> =
                values.iter().filter(|value| !value.is_hide_set()).map(|value| format!("`{}`", value.get_name())).collect();
            if !values.is_empty() && argument.get_action().takes_values() && !is_switch(argument) {
                let _ = write!(help, " ({})", values.join(", "));
            }
            let _ = writeln!(out, "| `{}` | {default} | {help} |", name.trim());
        }
    }
    out
}

/// Whether it is on or off: what it takes goes without saying.
fn is_switch(argument: &clap::Arg) -> bool {
    argument.get_value_parser().type_id() == clap::builder::ValueParser::bool().type_id()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    /// Set to write the pages instead of comparing them.
    const REWRITE: &str = "PENSTOCK_REWRITE";

    #[test]
    fn the_reference_pages_are_current() {
        for kind in ReferencePage::value_variants() {
            let name = kind.to_possible_value().unwrap().get_name().to_owned();
            let path = format!("{}/docs/reference/{name}.md", env!("CARGO_MANIFEST_DIR"));
            let text = page(*kind);
            if std::env::var_os(REWRITE).is_some() {
                std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == text, "{path} is not current: run `make docs`");
        }
    }
}
