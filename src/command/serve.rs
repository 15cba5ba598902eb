//! `penstock serve`: the pipeline over files.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use penstock_translate::Change;

use super::check::settings;
use prometheus_client::registry::Registry;

use crate::{
    cli::ServeOptions,
    files::{Files, Reading, TlsSecret, Watch},
    serving::{self, Mode, Source, secret_key},
};

pub fn run(options: &ServeOptions) -> anyhow::Result<ExitCode> {
    let mut settings = settings(options.ingress_class.as_deref());
    settings.default_certificate =
        options.default_ssl_certificate.as_deref().map(secret_key).transpose().context("--default-ssl-certificate")?;
    for path in &options.paths {
        std::fs::metadata(path).with_context(|| path.display().to_string())?;
    }
    let source = FileSource::new(options.paths.clone(), options.tls_secret.clone(), options.watch != Some(false));
    serving::run(&options.serving, &Mode::Standalone, settings, Registry::default(), async |_| Ok(source))
}

/// Files as a source of changes.
#[derive(Debug)]
pub struct FileSource {
    files: Files,
    watch: Option<Watch>,
    /// What is served besides the files, once.
    given: Vec<Change>,
    started: bool,
}

impl FileSource {
    pub fn new(paths: Vec<PathBuf>, secrets: Vec<TlsSecret>, watch: bool) -> Self {
        Self { files: Files::new(paths, secrets), watch: watch.then(Watch::new), given: Vec::new(), started: false }
    }

    /// Serves these objects too.
    pub fn with(mut self, given: Vec<Change>) -> Self {
        self.given = given;
        self
    }

    fn read(&mut self) -> Vec<Change> {
        // The watch stands before the reading: what changes after the reading is told.
        if let Some(watch) = &mut self.watch {
            watch.set(&self.files.watched());
        }
        let Reading { mut changes, errors, warnings } = self.files.read();
        for error in errors {
            tracing::error!("{error}; what it held before serves on");
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        changes.append(&mut self.given);
        changes
    }
}

impl Source for FileSource {
    async fn changes(&mut self) -> anyhow::Result<Vec<Change>> {
        if !self.started {
            self.started = true;
            return Ok(self.read());
        }
        loop {
            match &mut self.watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
            let changes = self.read();
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }
}
