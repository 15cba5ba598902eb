//! `penstock check`: what would be made of manifests.

use std::process::ExitCode;

use penstock_translate::translate;

use crate::{
    cli::{CheckOptions, Output},
    manifests::{Loaded, settings},
    output,
    pipeline::has_problems,
    report,
};

pub fn run(options: &CheckOptions) -> anyhow::Result<ExitCode> {
    let settings = settings(&options.manifests)?;
    let loaded = Loaded::read(&options.manifests)?;
    let report = translate(&loaded.world, &settings).report;
    match options.output {
        Output::Text => output::print(&report::text(&report, &loaded))?,
        Output::Json => output::print(&format!("{:#}\n", report::json(&report, &loaded)))?,
    }
    let refused = !loaded.errors.is_empty() || has_problems(&report);
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
