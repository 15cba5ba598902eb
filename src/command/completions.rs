//! `penstock completions SHELL`

use std::process::ExitCode;

use crate::cli::{self, CompletionsOptions};

pub fn run(options: &CompletionsOptions) -> anyhow::Result<ExitCode> {
    clap_complete::generate(options.shell, &mut cli::command(), "penstock", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
