//! `penstock serve`: the pipeline over files.

use std::{path::PathBuf, process::ExitCode};

use anyhow::ensure;
use penstock_translate::Change;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    cli::ServeOptions,
    files::{Files, Heard, Reading, Watch},
    manifests::{files, settings},
    serving::{self, Mode, Source},
};

pub fn run(options: &ServeOptions) -> anyhow::Result<ExitCode> {
    let manifests = &options.manifests;
    let settings = settings(manifests)?;
    let files = files(manifests)?;
    let watch = options.watch != Some(false);
    for path in manifests.paths.iter().filter(|_| watch) {
        // What can be read only once would be found empty at the next look, and all it held would go.
        let lasts = path.is_file() || path.is_dir();
        ensure!(lasts, "{}: neither a file nor a folder, and cannot be followed; use --watch=false", path.display());
    }
    let source = FileSource::new(files, watch);
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
    /// SIGHUP asks to look at once.
    hangup: Option<Signal>,
}

impl FileSource {
    pub fn new(files: Files, watch: bool) -> Self {
        Self { files, watch: watch.then(Watch::new), given: Vec::new(), started: false, hangup: None }
    }

    /// Serves these objects too.
    pub fn with(mut self, given: Vec<Change>) -> Self {
        self.given = given;
        self
    }

    fn read(&mut self, heard: &Heard) -> Vec<Change> {
        let edits = match heard {
            Heard::Of(places) => self.files.edits(places),
            Heard::Anything => None,
        };
        let reading = match edits {
            Some(edits) => self.files.read_edits(edits),
            None => self.look(),
        };
        let Reading { mut changes, errors, warnings } = reading;
        for error in errors {
            tracing::error!("{error}{}", if self.started { "; what it held before serves on" } else { "" });
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        changes.append(&mut self.given);
        changes
    }

    /// Looks at everything.
    fn look(&mut self) -> Reading {
        // The watch stands before the reading: what changes after the reading is told.
        let watched = self.watch();
        let mut reading = self.files.read();
        // Links that were found by it lead to places that were not watched yet, and may have changed since.
        if self.watch.is_some() && self.files.watched() != watched {
            self.watch();
            let again = self.files.read();
            reading.changes.extend(again.changes);
            reading.errors.extend(again.errors);
            reading.warnings.extend(again.warnings);
        }
        reading
    }

    /// Watches the places that matter, as far as they are known, and tells which.
    fn watch(&mut self) -> Vec<PathBuf> {
        let watched = self.files.watched();
        if let Some(watch) = &mut self.watch {
            watch.set(&watched);
        }
        watched
    }
}

impl Source for FileSource {
    async fn changes(&mut self) -> anyhow::Result<Vec<Change>> {
        if !self.started {
            self.hangup = Some(signal(SignalKind::hangup())?);
            let changes = self.read(&Heard::Anything);
            self.started = true;
            return Ok(changes);
        }
        loop {
            let changed = async {
                match &mut self.watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            let asked = async {
                match &mut self.hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                heard = changed => heard,
                _ = asked => {
                    tracing::info!("SIGHUP: the files are read again");
                    self.files.doubt();
                    Heard::Anything
                }
            };
            let changes = self.read(&heard);
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_a_link_leads_to_is_watched_from_the_first_reading_on() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let write = |name: &str| {
            let text = format!("{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: n}}}}");
            std::fs::write(at("available/it.yaml"), text).unwrap();
        };
        std::fs::create_dir(at("available")).unwrap();
        std::fs::create_dir(at("enabled")).unwrap();
        write("one");
        std::os::unix::fs::symlink("../available/it.yaml", at("enabled/link.yaml")).unwrap();
        let mut source = FileSource::new(Files::new(vec![at("enabled")], Vec::new()), true);
        assert_eq!(source.changes().await.unwrap().len(), 1);
        write("two");
        // Half of the time after which files are looked at although nothing was told.
        let changes = tokio::time::timeout(Duration::from_millis(2500), source.changes()).await;
        assert_eq!(changes.expect("the edit was not seen").unwrap().len(), 2, "one comes, one goes");
    }
}
