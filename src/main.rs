//! `penstock`: both halves of a Kubernetes ingress controller, and the same pipeline without a cluster.
//!
//! Each subcommand is a file under `command/`. Those that serve build a `pipeline::Pipeline`, which joins the crates: a source of
//! objects, their translation, the data plane.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod admin;
mod allocator;
mod cli;
mod command;
mod files;
mod logging;
mod manifests;
mod output;
mod pipeline;
mod report;
mod serving;
mod systemd;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Both our own TLS and the Kubernetes client's ask the process for its one provider of cryptography.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = cli::parse();
    if let Err(error) = logging::init(&cli.log) {
        eprintln!("penstock: {error}");
        return ExitCode::from(2);
    }
    // Before any other thread is there, since each begins with the turns of the one that started it.
    if let Err(error) = penstock_proxy::lengthen_turns() {
        tracing::debug!(%error, "the system gives no long turns");
    }
    let result = match cli.command {
        cli::Command::Controller(options) => command::controller::run(&options),
        cli::Command::Serve(options) => command::serve::run(&options),
        cli::Command::Proxy(options) => command::proxy::run(&options),
        cli::Command::Check(options) => command::check::run(&options),
        cli::Command::Explain(options) => command::explain::run(&options),
        cli::Command::Crds => command::crds::run(),
        cli::Command::Reference(options) => command::reference::run(&options),
        cli::Command::Completions(options) => command::completions::run(&options),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("penstock: {error:#}");
            ExitCode::FAILURE
        }
    }
}
