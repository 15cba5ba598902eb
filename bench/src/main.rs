//! The benchmark: Penstock beside nginx, HAProxy and others, on one machine, over loopback.
//!
//! One binary drives everything. The orchestrator (this process) starts proxies on one core, and on another core the backend and the load
//! generator, which are this same binary with a hidden subcommand. It reads what the proxies spent from `/proc`, and writes a
//! table, JSON, plots and a page. It measures nothing by itself and needs no network but loopback.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod backend;
mod certificate;
mod child;
mod cli;
mod interrupt;
mod load;
mod machine;
mod measure;
mod peers;
mod port;
mod procfs;
mod report;
mod rows;
mod run;
mod statistics;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let done = match cli.command {
        None => run::run(&cli.options),
        Some(cli::Command::List) => {
            rows::print_list();
            Ok(())
        }
        Some(cli::Command::Page { results, docs }) => report::rewrite(&results, docs),
        Some(cli::Command::Pin { cores, program }) => child::pin(&cores, &program),
        Some(cli::Command::Backend) => backend::run(),
        Some(cli::Command::Load) => load::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("penstock-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
