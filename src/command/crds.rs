//! `penstock crds`: the custom resource definitions as YAML.

use std::process::ExitCode;

use crate::output;

pub fn run() -> anyhow::Result<ExitCode> {
    output::done(&penstock_api::crds_yaml())
}
