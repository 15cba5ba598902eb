//! `penstock completions SHELL`

use std::process::ExitCode;

use crate::{
    cli::{self, CompletionsOptions},
    output,
};

pub fn run(options: &CompletionsOptions) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut cli::command(), "penstock", &mut script);
    output::done(&String::from_utf8(script)?)
}
