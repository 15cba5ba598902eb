//! The command line. What is run by other processes of the bench itself is hidden.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Measures Penstock beside other proxies: CPU per operation, latency, memory per connection, and what a change of routes costs.
#[derive(Debug, Parser)]
#[command(name = "penstock-bench", version, max_term_width = 110, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Args)]
pub struct Options {
    /// The main rows only, for Penstock, nginx and HAProxy, in under four minutes
    #[arg(long)]
    pub quick: bool,
    /// Only experiments whose name contains one of these; `=NAME` for exactly that one (see `list`)
    #[arg(long, value_delimiter = ',', value_name = "FILTER,…")]
    pub rows: Vec<String>,
    /// Who is measured: penstock, nginx, haproxy, envoy, caddy, traefik [default: all; with --quick the first three]
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub peers: Vec<String>,
    /// How often each figure is taken; the peers take turns [default: 5, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub runs: Option<u8>,
    /// Where results.json, the plots and the page are written [default: bench/ in the target folder]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Keep the rows that results.json in that folder has, but for those that are measured now: for a run in blocks
    #[arg(long)]
    pub keep: bool,
    /// At the end, write docs/benchmarks.md and docs/benchmarks/ of this source tree too
    #[arg(long)]
    pub docs: bool,
    /// The Penstock to measure; may be given more than once, to compare builds [default: a release build, made now]
    #[arg(long, value_name = "[NAME=]PATH")]
    pub penstock: Vec<String>,
    /// How long to wait for a quiet machine before anything is measured, in seconds [default: 300, with --quick 60]
    #[arg(long, value_name = "SECONDS")]
    pub settle: Option<u64>,
    /// The core of the proxies, and that of backend and load
    #[arg(long, default_value = "0,1", value_name = "A,B", value_parser = cores)]
    pub cores: Cores,
}

/// Who runs where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    pub proxy: usize,
    pub load: usize,
}

fn cores(text: &str) -> Result<Cores, String> {
    let both = text.split_once(',').and_then(|(proxy, load)| Some((proxy.parse().ok()?, load.parse().ok()?)));
    both.map(|(proxy, load)| Cores { proxy, load }).ok_or_else(|| "expected two numbers of cores, such as `0,1`".to_owned())
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the experiments and their rows
    List,
    /// Write plots and page again from a results.json
    Page {
        #[arg(value_name = "RESULTS.JSON")]
        results: PathBuf,
        /// Write docs/benchmarks.md and docs/benchmarks/ of this source tree, instead of beside the results
        #[arg(long)]
        docs: bool,
    },
    /// Run a program on these cores, to end with its parent
    #[command(hide = true)]
    Pin {
        #[arg(long, value_delimiter = ',', required = true)]
        cores: Vec<usize>,
        #[arg(last = true, required = true)]
        program: Vec<std::ffi::OsString>,
    },
    /// The backend of all proxies
    #[command(hide = true)]
    Backend,
    /// One load generator
    #[command(hide = true)]
    Load,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn two_cores_are_two_numbers() {
        assert_eq!(cores("2,3"), Ok(Cores { proxy: 2, load: 3 }));
        assert!(cores("2").is_err());
    }
}
