//! Tells when files may have changed, and which.
//!
//! Folders are watched, not files: an editor renames over a file, certbot and ConfigMap mounts swap symlinks, and a watch on the
//! file would die with the old one. A slow look-round besides covers file systems that tell nothing (NFS).

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Writers touch several files at a time; a reading waits this long for them to finish.
const SETTLE: Duration = Duration::from_millis(40);
/// Of more a look at everything costs no more.
const MOST_PLACES: usize = 256;
/// How often files are looked at although nothing was told.
const LOOK_ROUND: Duration = Duration::from_secs(5);

/// A watch on a set of places.
#[derive(Debug)]
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    /// One waiting token is enough: it means that something was heard.
    events: mpsc::Receiver<()>,
    heard: Arc<Mutex<Heard>>,
    folders: BTreeMap<Place, Inode>,
}

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// These places, and nothing else.
    Of(BTreeSet<PathBuf>),
    Anything,
}

impl Default for Heard {
    fn default() -> Self {
        Self::Of(BTreeSet::new())
    }
}

impl Heard {
    fn hear(&mut self, event: notify::Event) {
        let Self::Of(places) = self else { return };
        if event.need_rescan() || event.paths.is_empty() || places.len() + event.paths.len() > MOST_PLACES {
            *self = Self::Anything;
        } else {
            places.extend(event.paths);
        }
    }
}

/// A folder that is watched, and whether all below it is too.
type Place = (PathBuf, bool);
/// Which folder it was: another one of its name is to be watched anew.
type Inode = (u64, u64);

impl Watch {
    pub fn new() -> Self {
        let (sender, events) = mpsc::channel(1);
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let told = heard.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if let Ok(event) = event
                && !event.kind.is_access()
            {
                told.lock().unwrap_or_else(PoisonError::into_inner).hear(event);
                let _ = sender.try_send(());
            }
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(%error, "files cannot be watched; they are looked at every {} s", LOOK_ROUND.as_secs());
            })
            .ok();
        Self { watcher, events, heard, folders: BTreeMap::new() }
    }

    /// Watches the folders that matter for `paths` as they are now; called again after each reading, since symlinks move.
    pub fn set(&mut self, paths: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut wanted: BTreeMap<Place, Inode> = BTreeMap::new();
        let mut want = |folder: &Path, recursive| {
            if let Ok(metadata) = std::fs::metadata(folder)
                && metadata.is_dir()
            {
                wanted.insert((folder.to_path_buf(), recursive), (metadata.dev(), metadata.ino()));
            }
        };
        for path in paths {
            for hop in links(path) {
                if let Some(parent) = hop.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    want(parent, false);
                }
                want(&hop, true);
            }
        }
        let whole: Vec<PathBuf> = wanted.keys().filter(|(_, recursive)| *recursive).map(|(folder, _)| folder.clone()).collect();
        wanted.retain(|(folder, recursive), _| *recursive || !whole.contains(folder));
        for ((folder, recursive), inode) in &self.folders {
            if wanted.get(&(folder.clone(), *recursive)) != Some(inode) {
                let _ = watcher.unwatch(folder);
                tracing::debug!(folder = %folder.display(), recursive, "no longer watched");
            }
        }
        wanted.retain(|place, inode| {
            let (folder, recursive) = place;
            let mode = if *recursive { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            self.folders.get(place) == Some(inode) || watcher.watch(folder, mode).is_ok()
        });
        self.folders = wanted;
    }

    /// Waits until something may have changed. What was heard and not given is given the next time.
    pub async fn changed(&mut self) -> Heard {
        tokio::select! {
            event = self.events.recv(), if self.watcher.is_some() => {
                if event.is_some() {
                    tokio::time::sleep(SETTLE).await;
                    while self.events.try_recv().is_ok() {}
                    return std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner));
                }
            }
            () = tokio::time::sleep(LOOK_ROUND) => {}
        }
        Heard::Anything
    }
}

/// The path itself, made absolute; each symlink on the way, at its end or above it; and what they come to.
pub(super) fn links(path: &Path) -> Vec<PathBuf> {
    // More hops than the kernel follows cannot be opened either.
    const MAX_HOPS: usize = 40;
    let mut hops = Vec::new();
    let Ok(mut current) = std::path::absolute(path) else { return hops };
    for _ in 0..MAX_HOPS {
        hops.push(current.clone());
        let link = current.ancestors().find_map(|place| Some((place.to_path_buf(), std::fs::read_link(place).ok()?)));
        let Some((link, target)) = link else { break };
        let below = current.strip_prefix(&link).unwrap_or(Path::new("")).to_path_buf();
        let target = link.parent().map_or_else(|| target.clone(), |parent| parent.join(&target));
        current = if below.as_os_str().is_empty() { target } else { target.join(below) };
        hops.push(link);
    }
    hops.extend(std::fs::canonicalize(path));
    hops
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes the watch see, changes something, and waits until it was seen; less than the look-round takes.
    async fn wakes(watch: &mut Watch, paths: &[PathBuf], what: &str, change: impl FnOnce()) {
        watch.set(paths);
        change();
        tokio::time::timeout(LOOK_ROUND / 2, watch.changed()).await.unwrap_or_else(|_| panic!("not seen: {what}"));
        // What else the change told.
        while tokio::time::timeout(SETTLE * 2, watch.changed()).await.is_ok() {}
    }

    #[tokio::test]
    async fn a_folder_that_another_took_the_place_of_is_watched_on() {
        let folder = tempfile::tempdir().unwrap();
        let routes = folder.path().join("routes");
        std::fs::create_dir(&routes).unwrap();
        std::fs::create_dir(folder.path().join("next")).unwrap();
        let (mut watch, paths) = (Watch::new(), [routes.clone()]);
        wakes(&mut watch, &paths, "the swap", || {
            std::fs::rename(&routes, folder.path().join("old")).unwrap();
            std::fs::rename(folder.path().join("next"), &routes).unwrap();
        })
        .await;
        wakes(&mut watch, &paths, "an edit in the new one", || std::fs::write(routes.join("x.yaml"), "").unwrap()).await;
    }

    #[tokio::test]
    async fn links_at_the_end_and_on_the_way_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for path in ["1/routes", "2/routes", "available"] {
            std::fs::create_dir_all(at(path)).unwrap();
        }
        std::fs::write(at("available/x.yaml"), "").unwrap();
        std::os::unix::fs::symlink("1", at("current")).unwrap();
        std::os::unix::fs::symlink(at("available/x.yaml"), at("1/routes/x.yaml")).unwrap();
        let (mut watch, paths) = (Watch::new(), [at("current/routes"), at("current/routes/x.yaml")]);
        wakes(&mut watch, &paths, "an edit of what a link leads to", || std::fs::write(at("available/x.yaml"), "x").unwrap()).await;
        wakes(&mut watch, &paths, "a swapped folder above", || {
            std::os::unix::fs::symlink("2", at("next")).unwrap();
            std::fs::rename(at("next"), at("current")).unwrap();
        })
        .await;
        wakes(&mut watch, &paths, "an edit below it", || std::fs::write(at("2/routes/y.yaml"), "").unwrap()).await;
    }

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
