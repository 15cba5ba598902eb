//! Tells when files may have changed.
//!
//! Folders are watched, not files: an editor renames over a file, certbot and ConfigMap mounts swap symlinks, and a watch on the
//! file would die with the old one. A slow look-round besides covers file systems that tell nothing (NFS).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Writers touch several files at a time; a reading waits this long for them to finish.
const SETTLE: Duration = Duration::from_millis(40);
/// How often files are looked at although nothing was told.
const LOOK_ROUND: Duration = Duration::from_secs(5);

/// A watch on a set of places.
#[derive(Debug)]
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    events: mpsc::Receiver<()>,
    folders: BTreeSet<(PathBuf, bool)>,
}

impl Watch {
    pub fn new() -> Self {
        // One waiting token is enough: it means "look again".
        let (sender, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = sender.try_send(());
            }
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(%error, "files cannot be watched; they are looked at every {} s", LOOK_ROUND.as_secs());
            })
            .ok();
        Self { watcher, events, folders: BTreeSet::new() }
    }

    /// Watches the folders that matter for `paths` as they are now; called again after each reading, since symlinks move.
    pub fn set(&mut self, paths: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut wanted = BTreeSet::new();
        for path in paths {
            for hop in links(path) {
                if let Some(parent) = hop.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    wanted.insert((parent.to_path_buf(), false));
                }
                if hop.is_dir() {
                    wanted.insert((hop, true));
                }
            }
        }
        for (folder, recursive) in self.folders.difference(&wanted) {
            let _ = watcher.unwatch(folder);
            tracing::trace!(folder = %folder.display(), recursive, "no longer watched");
        }
        let mut watched = BTreeSet::new();
        for (folder, recursive) in wanted {
            let known = self.folders.contains(&(folder.clone(), recursive));
            let mode = if recursive { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            if known || watcher.watch(&folder, mode).is_ok() {
                watched.insert((folder, recursive));
            }
        }
        self.folders = watched;
    }

    /// Waits until something may have changed.
    pub async fn changed(&mut self) {
        tokio::select! {
            event = self.events.recv(), if self.watcher.is_some() => {
                if event.is_some() {
                    tokio::time::sleep(SETTLE).await;
                    while self.events.try_recv().is_ok() {}
                }
            }
            () = tokio::time::sleep(LOOK_ROUND) => {}
        }
    }
}

/// The path itself, made absolute, and what each symlink on its end points to.
fn links(path: &Path) -> Vec<PathBuf> {
    // More hops than the kernel follows cannot be opened either.
    const MAX_HOPS: usize = 40;
    let mut hops = Vec::new();
    let Ok(mut current) = std::path::absolute(path) else { return hops };
    for _ in 0..MAX_HOPS {
        hops.push(current.clone());
        let Ok(target) = std::fs::read_link(&current) else { break };
        current = current.parent().map_or_else(|| target.clone(), |parent| parent.join(&target));
    }
    hops.extend(std::fs::canonicalize(path));
    hops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_swapped_symlink_wakes() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["v1", "v2"] {
            std::fs::create_dir(folder.path().join(version)).unwrap();
        }
        let link = folder.path().join("routes");
        std::os::unix::fs::symlink("v1", &link).unwrap();
        let mut watch = Watch::new();
        watch.set(std::slice::from_ref(&link));
        std::os::unix::fs::symlink("v2", folder.path().join("next")).unwrap();
        std::fs::rename(folder.path().join("next"), &link).unwrap();
        tokio::time::timeout(LOOK_ROUND / 2, watch.changed()).await.expect("the swap was not seen");
        watch.set(std::slice::from_ref(&link));
        std::fs::write(link.join("x.yaml"), "").unwrap();
        tokio::time::timeout(LOOK_ROUND / 2, watch.changed()).await.expect("a file in the new folder was not seen");
    }
}
