//! `penstock check`: what would be made of manifests.

use std::process::ExitCode;

use penstock_translate::{Change, Ownership, Settings, World, translate};

use crate::{
    cli::{CheckOptions, Output},
    files::Files,
    pipeline::has_problems,
    report,
};

pub fn run(options: &CheckOptions) -> anyhow::Result<ExitCode> {
    let (world, reading) = load(options.paths.clone());
    let translation = translate(&world, &settings(options.ingress_class.as_deref()));
    match options.output {
        Output::Text => print!("{}", report::text(&translation.report, &reading.errors, &reading.warnings)),
        Output::Json => println!("{:#}", report::json(&translation.report, &reading.errors, &reading.warnings)),
    }
    let refused = !reading.errors.is_empty() || has_problems(&translation.report);
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A World of files, read once.
pub fn load(paths: Vec<std::path::PathBuf>) -> (World, crate::files::Reading) {
    let mut reading = Files::new(paths, Vec::new()).read();
    let mut world = World::default();
    for change in std::mem::take(&mut reading.changes) {
        if let Change::Put(object) = change {
            world.put(object);
        }
    }
    (world, reading)
}

/// The settings of the modes without a cluster.
pub fn settings(class: Option<&str>) -> Settings {
    let ownership = match class {
        None => Ownership::Everything,
        Some(class) => super::controller::by_class(class, None, false, false),
    };
    Settings { ownership, allow_external_backends: true, default_certificate: None, namespaces: Vec::new() }
}
