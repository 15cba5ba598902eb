//! What a watch heard, when all of it is edits of files that are known: only they are read then, and not the whole of a folder.
//!
//! Promises: what comes of it is what a look at everything would have given. Whatever is not certain to be an edit (a new name, a link, a folder,
//! a file of two names) is left to that look.

use std::{
    collections::BTreeSet,
    fs::Metadata,
    ops::Bound,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use penstock_translate::{Change, Id};

use super::{Content, Files, Reading, is_hidden, is_manifest, place, read_file, same, stamp::Stamp, watch::links};

/// A known file that may have another content.
#[derive(Debug)]
pub struct Edit {
    path: PathBuf,
    stamp: Option<Stamp>,
}

/// How paths lead to what is served, as it was at the last look at everything. Changes of it are heard by the names that it had then, and are no edits.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// What a watch may call a place, and which of those asked for it is.
    bases: Vec<(PathBuf, PathBuf)>,
    /// What is on the way to the places that matter, and these.
    hops: Vec<PathBuf>,
}

impl Ways {
    pub(super) fn of(files: &Files) -> Self {
        let names = |root: &PathBuf| {
            let root = root.clone();
            let names = [std::path::absolute(&root), std::fs::canonicalize(&root)];
            names.into_iter().flatten().map(move |name| (name, root.clone()))
        };
        let bases = files.roots.iter().flat_map(names).collect();
        Self { bases, hops: files.watched().iter().flat_map(|place| links(place)).collect() }
    }

    /// The path as one below a place asked for, if it is; more than one where a place can be reached in several ways.
    fn below(&self, path: &Path) -> Vec<PathBuf> {
        let below = self.bases.iter().filter_map(|(base, root)| Some((root, path.strip_prefix(base).ok()?)));
        below.map(|(root, rest)| if rest.as_os_str().is_empty() { root.clone() } else { root.join(rest) }).collect()
    }

    /// Whether something that matters is reached over this path.
    fn lead_over(&self, path: &Path) -> bool {
        self.hops.iter().any(|hop| hop.starts_with(path))
    }

    /// Whether this path is reached over something that matters.
    fn lead_to(&self, path: &Path) -> bool {
        self.hops.iter().any(|hop| path.starts_with(hop))
    }
}

/// What a path that was heard stands for.
enum Meaning {
    Edit(Edit),
    /// It is no manifest of ours, and nothing leads to or over it.
    Nothing,
    Other,
}

impl Files {
    /// The edits that these paths stand for, as a watch tells them. None: everything is to be looked at.
    pub fn edits(&self, heard: &BTreeSet<PathBuf>) -> Option<Vec<Edit>> {
        let mut edits = Vec::new();
        for path in heard {
            match self.meaning(path) {
                Meaning::Edit(edit) => edits.push(edit),
                Meaning::Nothing => {}
                Meaning::Other => return None,
            }
        }
        Some(edits)
    }

    fn meaning(&self, path: &Path) -> Meaning {
        let ours = self.ways.below(path);
        if ours.is_empty() {
            // What else happens in a folder that is watched for the name of one in it, such as a log that is written beside the manifests.
            let nothing = !self.ways.lead_over(path) && !self.ways.lead_to(path);
            return if nothing { Meaning::Nothing } else { Meaning::Other };
        }
        let there = std::fs::symlink_metadata(path);
        let plain = |metadata: &Metadata| metadata.is_file() && metadata.nlink() == 1;
        if let Some((known, state)) = ours.iter().find_map(|path| self.known.get_key_value(path)) {
            return match there {
                Ok(metadata) if plain(&metadata) && !state.is_link && !state.has_names => {
                    Meaning::Edit(Edit { path: known.clone(), stamp: Stamp::of(&metadata, SystemTime::now()) })
                }
                _ => Meaning::Other,
            };
        }
        let nothing = match there {
            Ok(metadata) => metadata.is_file() && (!is_manifest(path) || is_hidden(path)),
            // An editor's file that came and went, and no folder that held others.
            Err(error) => error.kind() == std::io::ErrorKind::NotFound && !ours.iter().any(|ours| self.knows_below(ours)),
        };
        if nothing && !self.ways.lead_over(path) { Meaning::Nothing } else { Meaning::Other }
    }

    fn knows_below(&self, folder: &Path) -> bool {
        let next = self.known.range::<Path, _>((Bound::Included(folder), Bound::Unbounded)).next();
        next.is_some_and(|(known, _)| known.starts_with(folder))
    }

    /// Reads these alone, and tells what differs from the last reading.
    pub fn read_edits(&mut self, edits: Vec<Edit>) -> Reading {
        let mut reading = Reading::default();
        let mut objects = Vec::new();
        // Each defines what it did before, and nothing that another defines too: then it is the only one that anything changes of.
        let mut alone = true;
        for Edit { path, stamp } in edits {
            let Some(state) = self.known.get_mut(&path) else {
                alone = false;
                continue;
            };
            let before: Vec<Id> = state.objects.iter().filter_map(|(object, _)| object.id()).collect();
            let mut of_it = Reading::default();
            let read = read_file(&path, state, &self.hasher, &mut of_it);
            if read == Content::Failed {
                // It went meanwhile, which the look will tell.
                state.stamp = None;
                alone = false;
                continue;
            }
            state.stamp = stamp;
            reading.errors.extend(of_it.errors);
            reading.warnings.extend(of_it.warnings);
            let the_same = state.objects.iter().filter_map(|(object, _)| object.id_ref()).eq(before.iter().map(Id::borrowed));
            if the_same && !before.iter().any(|id| self.contested.contains(id)) {
                self.told.retain(|note| note.path != path);
                objects.extend(state.objects.iter().map(|(object, _)| object.clone()));
            } else {
                alone = false;
            }
        }
        if !alone {
            self.behind = true;
            let Reading { changes, errors, warnings } = self.read();
            reading.errors.extend(errors);
            reading.warnings.extend(warnings);
            return Reading { changes, ..reading };
        }
        for object in objects {
            if let Some(before) = place(&self.objects, object.id_ref()).and_then(|place| self.objects.get_mut(place))
                && !same(before, &object)
            {
                *before = object.clone();
                reading.changes.push(Change::Put(object));
            }
        }
        reading
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::files::TlsSecret;

    fn service(name: &str, port: u16) -> String {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n")
    }

    struct Scene {
        name: &'static str,
        before: fn(&Path),
        change: fn(&Path),
        /// What the watch tells of it, below the folder.
        heard: &'static [&'static str],
        /// Whether all of it is certain to be edits.
        edits: bool,
    }

    fn two(at: &Path) {
        fs::write(at.join("a.yaml"), service("a", 80)).unwrap();
        fs::write(at.join("b.yaml"), service("b", 80)).unwrap();
    }

    const SCENES: &[Scene] = &[
        Scene {
            name: "a file is written",
            before: two,
            change: |at| fs::write(at.join("a.yaml"), service("a", 81)).unwrap(),
            heard: &["a.yaml"],
            edits: true,
        },
        Scene {
            name: "an editor puts another file in its place",
            before: two,
            change: |at| {
                fs::write(at.join("a.yaml~"), service("a", 81)).unwrap();
                fs::rename(at.join("a.yaml~"), at.join("a.yaml")).unwrap();
            },
            heard: &["a.yaml~", ".a.yaml.swp", "a.yaml"],
            edits: true,
        },
        Scene {
            name: "its backup and its hidden copy stay",
            before: two,
            change: |at| {
                fs::write(at.join("a.yaml~"), service("a", 82)).unwrap();
                fs::write(at.join(".a.yaml"), service("a", 82)).unwrap();
                fs::write(at.join("a.yaml"), service("a", 81)).unwrap();
            },
            heard: &["a.yaml~", ".a.yaml", "a.yaml"],
            edits: true,
        },
        Scene {
            name: "a file breaks",
            before: two,
            change: |at| fs::write(at.join("a.yaml"), "{").unwrap(),
            heard: &["a.yaml"],
            edits: true,
        },
        Scene { name: "a file is touched", before: two, change: |at| two(at), heard: &["a.yaml", "b.yaml"], edits: true },
        Scene {
            name: "a file defines one more",
            before: two,
            change: |at| fs::write(at.join("a.yaml"), format!("{}---\n{}", service("a", 81), service("c", 80))).unwrap(),
            heard: &["a.yaml"],
            edits: true,
        },
        Scene {
            name: "a file defines what another does",
            before: two,
            change: |at| fs::write(at.join("b.yaml"), service("a", 81)).unwrap(),
            heard: &["b.yaml"],
            edits: true,
        },
        Scene {
            name: "the second of two definitions is written",
            before: |at| {
                two(at);
                fs::write(at.join("b.yaml"), service("a", 80)).unwrap();
            },
            change: |at| fs::write(at.join("b.yaml"), service("a", 81)).unwrap(),
            heard: &["b.yaml"],
            edits: true,
        },
        Scene {
            name: "a file comes",
            before: two,
            change: |at| fs::write(at.join("c.yaml"), service("c", 80)).unwrap(),
            heard: &["c.yaml"],
            edits: false,
        },
        Scene {
            name: "a file goes",
            before: two,
            change: |at| fs::remove_file(at.join("a.yaml")).unwrap(),
            heard: &["a.yaml"],
            edits: false,
        },
        Scene {
            name: "a link takes the place of a file",
            before: two,
            change: |at| {
                fs::remove_file(at.join("a.yaml")).unwrap();
                std::os::unix::fs::symlink("b.yaml", at.join("a.yaml")).unwrap();
            },
            heard: &["a.yaml"],
            edits: false,
        },
        Scene {
            name: "one of two names of a file gets a content of its own",
            before: |at| {
                two(at);
                fs::hard_link(at.join("a.yaml"), at.join("c.yaml")).unwrap();
            },
            change: |at| {
                fs::write(at.join("new"), service("d", 80)).unwrap();
                fs::rename(at.join("new"), at.join("a.yaml")).unwrap();
            },
            heard: &["new", "a.yaml"],
            edits: false,
        },
        Scene {
            name: "a folder goes",
            before: |at| {
                fs::create_dir(at.join("team")).unwrap();
                two(&at.join("team"));
            },
            change: |at| fs::remove_dir_all(at.join("team")).unwrap(),
            heard: &["team"],
            edits: false,
        },
        Scene {
            name: "what a link leads to is written",
            before: |at| {
                fs::write(at.join("text"), service("a", 80)).unwrap();
                std::os::unix::fs::symlink("text", at.join("a.yaml")).unwrap();
            },
            change: |at| fs::write(at.join("text"), service("a", 81)).unwrap(),
            heard: &["text"],
            edits: false,
        },
        Scene {
            name: "a certificate beside the manifests is written",
            before: |at| {
                two(at);
                pair(at);
            },
            change: pair,
            heard: &["cert.pem", "key.pem"],
            edits: false,
        },
    ];

    fn pair(at: &Path) {
        let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        fs::write(at.join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(at.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    }

    fn files(at: &Path) -> Files {
        let secret = at.join("cert.pem").exists().then(|| TlsSecret::new("n", "tls", at.join("cert.pem"), at.join("key.pem")));
        Files::new(vec![at.to_path_buf()], secret.into_iter().collect())
    }

    fn told(reading: &Reading) -> String {
        let mut changes: Vec<_> = reading.changes.iter().map(|change| format!("{change:?}")).collect();
        changes.sort();
        format!("{changes:#?} {:?} {:?}", reading.errors, reading.warnings)
    }

    #[test]
    fn what_was_heard_gives_what_a_look_gives() {
        for Scene { name, before, change, heard, edits } in SCENES {
            let folder = tempfile::tempdir().unwrap();
            let at = folder.path();
            before(at);
            let (mut by_look, mut by_ear) = (files(at), files(at));
            assert_eq!(told(&by_look.read()), told(&by_ear.read()), "{name}");
            change(at);
            let heard = heard.iter().map(|path| at.join(path)).collect();
            let certain = by_ear.edits(&heard);
            assert_eq!(certain.is_some(), *edits, "{name}: {certain:?}");
            let reading = match certain {
                Some(edits) => by_ear.read_edits(edits),
                None => by_ear.read(),
            };
            let expected = by_look.read();
            assert_eq!(told(&reading), told(&expected), "{name}");
            // And the next look finds nothing that was missed.
            assert_eq!(told(&by_ear.read()), told(&by_look.read()), "{name}");
        }
    }

    #[test]
    fn a_file_that_breaks_again_is_told_again() {
        let folder = tempfile::tempdir().unwrap();
        two(folder.path());
        let path = folder.path().join("a.yaml");
        let mut files = files(folder.path());
        let heard: BTreeSet<_> = [path.clone()].into();
        fs::write(&path, "{").unwrap();
        assert_eq!(files.read().errors.len(), 1);
        for (content, errors) in [(service("a", 80), 0), ("{".to_owned(), 1), (service("a", 81), 0)] {
            fs::write(&path, content).unwrap();
            let edits = files.edits(&heard).unwrap();
            assert_eq!(files.read_edits(edits).errors.len(), errors);
        }
        fs::write(&path, "{").unwrap();
        assert_eq!(files.read().errors.len(), 1);
    }

    #[test]
    fn a_file_that_goes_before_it_is_read_is_left_to_the_look() {
        let folder = tempfile::tempdir().unwrap();
        two(folder.path());
        let mut files = files(folder.path());
        assert_eq!(files.read().changes.len(), 2);
        let edits = files.edits(&[folder.path().join("a.yaml")].into()).unwrap();
        fs::remove_file(folder.path().join("a.yaml")).unwrap();
        let reading = files.read_edits(edits);
        assert!(reading.errors.is_empty() && matches!(reading.changes[..], [Change::Delete(_)]), "{reading:?}");
    }

    #[test]
    fn what_happens_beside_the_folder_is_nothing_but_what_leads_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("3/real")).unwrap();
        two(&at("3/real"));
        std::os::unix::fs::symlink("3", at("2")).unwrap();
        std::os::unix::fs::symlink("2/real", at("1")).unwrap();
        fs::write(at("text"), service("c", 80)).unwrap();
        std::os::unix::fs::symlink(at("text"), at("3/real/c.yaml")).unwrap();
        pair(folder.path());
        let secret = TlsSecret::new("n", "tls", at("cert.pem"), at("key.pem"));
        let mut files = Files::new(vec![at("1")], vec![secret]);
        let _ = files.read();
        let edits = |name: &str| files.edits(&[at(name)].into()).map(|edits| edits.len());
        for name in ["penstock.log", "other.yaml", "gone", "3/beside.yaml", "1.yaml"] {
            assert_eq!(edits(name), Some(0), "{name}");
        }
        for name in ["1", "2", "3", "3/real", "2/real/a.yaml", "text", "cert.pem", "key.pem"] {
            assert_eq!(edits(name), None, "{name}");
        }
        assert_eq!(edits("1/a.yaml"), Some(1));
        assert_eq!(edits("3/real/a.yaml"), Some(1));
    }

    #[test]
    fn a_folder_asked_for_by_a_link_is_heard_by_either_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("real")).unwrap();
        two(&at("real"));
        std::os::unix::fs::symlink("real", at("link")).unwrap();
        let mut files = Files::new(vec![at("link")], Vec::new());
        let _ = files.read();
        for name in ["link/a.yaml", "real/a.yaml"] {
            assert_eq!(files.edits(&[at(name)].into()).map(|edits| edits.len()), Some(1), "{name}");
        }
    }
}
