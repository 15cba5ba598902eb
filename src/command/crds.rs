//! `penstock crds`: the custom resource definitions as YAML.

use std::process::ExitCode;

pub fn run() -> anyhow::Result<ExitCode> {
    print!("{}", penstock_api::crds_yaml());
    Ok(ExitCode::SUCCESS)
}
