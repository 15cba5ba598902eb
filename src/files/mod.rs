//! Manifests in files and folders as a source of a World.
//!
//! Promises: a file that does not parse costs only its own changes — its last good objects serve on, and the error is named with
//! line and column; an object that two files define is taken from the first by name of file; a change of any file shows within
//! a second, also when a folder is swapped through a symlink, as mounted ConfigMaps are.

mod edits;
pub mod manifest;
mod pem;
mod stamp;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
    fs::DirEntry,
    hash::{BuildHasher, RandomState},
    io::Read,
    num::NonZeroU64,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use edits::Ways;
use penstock_model::ObjectRef;
use penstock_translate::{Change, Id, IdRef, Object};
use stamp::Stamp;

pub use pem::TlsSecret;
pub use watch::{Heard, Watch};

/// How deep folders are followed.
const MAX_DEPTH: usize = 16;
/// What manifests in folders are called.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// The name of standard input.
pub const STDIN: &str = "-";

/// The files that were asked for, and what they held when they were last good.
#[derive(Debug)]
pub struct Files {
    roots: Vec<PathBuf>,
    secrets: Vec<TlsSecret>,
    /// What each file held when it last parsed, and whether its present content does.
    known: BTreeMap<PathBuf, FileState>,
    /// What counts of it, in order; each has a name.
    objects: Box<[Object]>,
    /// Files define something else than these objects: they are yet to be compared.
    behind: bool,
    /// Those that more than one file defines, or a file and a pair of PEM files.
    contested: BTreeSet<Id>,
    /// What there is to say of those.
    contests: Vec<FileNote>,
    /// What the last reading had to say: the next one says what is new.
    told: BTreeSet<FileNote>,
    /// How paths lead here.
    ways: Ways,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct FileState {
    /// As long as it has this stamp it holds what was read, and is not read again.
    stamp: Option<Stamp>,
    /// The hash of its content: what was read and is the same again is not parsed again.
    content: Option<NonZeroU64>,
    /// Its name leads to another place.
    is_link: bool,
    /// It has other names too.
    has_names: bool,
    /// Each with a name, and the line where it begins.
    objects: Box<[(Object, u64)]>,
}

/// What a reading of all files brought.
#[derive(Debug, Default)]
pub struct Reading {
    pub changes: Vec<Change>,
    /// What stands in the way of a file or object. Each is told once, for as long as it lasts.
    pub errors: Vec<FileNote>,
    pub warnings: Vec<FileNote>,
}

/// Something to say about a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileNote {
    pub path: PathBuf,
    /// None: about the file as a whole.
    pub place: Option<(u64, u64)>,
    pub message: String,
}

impl fmt::Display for FileNote {
    /// `path:line:column: message`, which editors can jump to.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.path.display(), self.message),
            None => write!(f, "{}: {}", self.path.display(), self.message),
        }
    }
}

impl Files {
    pub fn new(roots: Vec<PathBuf>, secrets: Vec<TlsSecret>) -> Self {
        let (known, objects, behind, contested, contests, told, ways, hasher) = Default::default();
        Self { roots, secrets, known, objects, behind, contested, contests, told, ways, hasher }
    }

    /// The next reading looks into every file, whatever the file system says of it.
    pub fn doubt(&mut self) {
        for state in self.known.values_mut() {
            state.stamp = None;
        }
    }

    /// Reads what may have changed, and tells what differs from the last reading.
    pub fn read(&mut self) -> Reading {
        let found = self.look(SystemTime::now());
        self.take(found)
    }

    fn look(&self, now: SystemTime) -> Found {
        let mut found = Found { now: Some(now), ..Found::default() };
        for root in &self.roots {
            found.collect(root, true, root.is_symlink(), &mut Vec::new());
        }
        found
    }

    fn take(&mut self, found: Found) -> Reading {
        let mut reading = Reading::default();
        let Found { mut files, errors, .. } = found;
        files.sort_by(|(left, _), (right, _)| left.cmp(right));
        files.dedup_by(|(left, _), (right, _)| left == right);
        // Between the two halves of a swap a root may be missing for an instant, and a folder that cannot be read may hold what it held: its
        // files stay as they were.
        let kept = |path: &Path| errors.iter().any(|(place, _)| path.starts_with(place));
        reading.errors.extend(errors.iter().map(|(place, error)| FileNote {
            path: place.clone(),
            place: None,
            message: describe(error),
        }));
        // Both are in order. Comparing paths is most of what a look at many files costs, so that each is compared once or twice.
        let mut before = std::mem::take(&mut self.known).into_iter().peekable();
        let mut known: Vec<(PathBuf, FileState)> = Vec::with_capacity(files.len());
        for (path, Seen { stamp, is_link, has_names }) in files {
            while let Some(other) = before.next_if(|(other, _)| *other < path) {
                self.behind |= !kept(&other.0);
                known.extend(Some(other).filter(|(other, _)| kept(other)));
            }
            let state = before.next_if(|(same, _)| *same == path).map(|(_, state)| state);
            self.behind |= state.is_none();
            let mut state = state.unwrap_or_default();
            (state.is_link, state.has_names) = (is_link, has_names);
            if stamp.is_none() || state.stamp != stamp {
                let read = read_file(&path, &mut state, &self.hasher, &mut reading);
                state.stamp = stamp.filter(|_| read != Content::Failed);
                self.behind |= read == Content::Other;
            }
            known.push((path, state));
        }
        for other in before {
            self.behind |= !kept(&other.0);
            known.extend(Some(other).filter(|(other, _)| kept(other)));
        }
        self.known = known.into_iter().collect();
        self.ways = Ways::of(self);
        // Thousands of files are looked at every few seconds, and most times nothing came of it. Pairs of PEM files are read each time.
        if std::mem::take(&mut self.behind) || !self.secrets.is_empty() {
            self.compare(&mut reading);
        }
        reading.warnings.extend(self.contests.iter().cloned());
        let told = reading.errors.iter().chain(&reading.warnings).cloned().collect();
        for notes in [&mut reading.errors, &mut reading.warnings] {
            notes.retain(|note| !self.told.contains(note));
        }
        self.told = told;
        reading
    }

    /// Takes what all files define now for what they defined before, and tells what differs.
    fn compare(&mut self, reading: &mut Reading) {
        let next = self.gather(reading);
        let differs = |object: &&Object| find(&self.objects, object).is_none_or(|before| !same(before, object));
        reading.changes.extend(next.iter().filter(differs).cloned().map(Change::Put));
        let gone = self.objects.iter().filter(|object| find(&next, object).is_none());
        reading.changes.extend(gone.filter_map(Object::id).map(Change::Delete));
        self.objects = next;
    }

    /// Where the objects of files stand: the file, and the line at which the document begins.
    pub fn places(&self) -> BTreeMap<ObjectRef, (&Path, u64)> {
        let mut places = BTreeMap::new();
        for (path, state) in &self.known {
            for (object, line) in &state.objects {
                if let Some(id) = object.id() {
                    places.entry(id.object_ref()).or_insert((path.as_path(), *line));
                }
            }
        }
        places
    }

    /// Those of the places asked for that hold no object, although nothing is wrong with them.
    pub fn empty_roots(&self) -> impl Iterator<Item = &Path> {
        let full = |root: &Path| self.known.iter().any(|(path, state)| path.starts_with(root) && !state.objects.is_empty());
        self.roots.iter().map(PathBuf::as_path).filter(move |root| !full(root))
    }

    /// The objects of all files and PEM pairs, the first definition of each, in order.
    fn gather(&mut self, reading: &mut Reading) -> Box<[Object]> {
        let mut given = Vec::new();
        for secret in &mut self.secrets {
            match secret.read() {
                Ok(object) => given.push(object),
                Err(note) => {
                    reading.errors.extend(note);
                    given.extend(secret.last_good());
                }
            }
        }
        let (mut contested, mut contests) = (BTreeSet::new(), Vec::new());
        let mut first: BTreeMap<IdRef<'_>, (&Object, Option<&Path>)> =
            given.iter().filter_map(|object| Some((object.id_ref()?, (object, None)))).collect();
        for (path, state) in &self.known {
            for (object, line) in &state.objects {
                let Some(id) = object.id_ref() else { continue };
                match first.entry(id) {
                    Entry::Vacant(place) => drop(place.insert((object, Some(path)))),
                    Entry::Occupied(first) => {
                        let first = first.get().1.map_or_else(|| "--tls-secret".to_owned(), |path| path.display().to_string());
                        let id = id.to_id();
                        let message = format!("{} is already defined by {first}, which is the one that counts", id.object_ref());
                        contests.push(FileNote { path: path.clone(), place: Some((*line, 1)), message });
                        contested.insert(id);
                    }
                }
            }
        }
        let objects = first.into_values().map(|(object, _)| object.clone()).collect();
        (self.contested, self.contests) = (contested, contests);
        objects
    }

    /// The places whose change can change what [`Files::read`] gives: those asked for, and the files found there, which may be links to
    /// other places.
    pub fn watched(&self) -> Vec<PathBuf> {
        let mut paths = self.roots.clone();
        paths.extend(self.known.iter().filter(|(_, state)| state.is_link).map(|(path, _)| path.clone()));
        paths.extend(self.secrets.iter().flat_map(TlsSecret::paths));
        paths
    }
}

/// What came of reading a file; not whether it is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Failed,
    /// Its content is what it was.
    Same,
    Other,
}

fn read_file(path: &Path, state: &mut FileState, hasher: &RandomState, reading: &mut Reading) -> Content {
    let error = |place, message| FileNote { path: path.to_path_buf(), place, message };
    let content = match content(path) {
        Ok(bytes) => bytes,
        Err(problem) => {
            reading.errors.push(error(None, describe(&problem)));
            return Content::Failed;
        }
    };
    let hash = Some(NonZeroU64::new(hasher.hash_one(&content)).unwrap_or(NonZeroU64::MIN));
    if state.content == hash {
        return Content::Same;
    }
    state.content = hash;
    let text = match std::str::from_utf8(&content) {
        Ok(text) => text,
        Err(problem) => {
            let (before, _) = content.split_at(problem.valid_up_to());
            let line = before.split(|byte| *byte == b'\n').count() as u64;
            let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() as u64 + 1;
            reading.errors.push(error(Some((line, column)), "not UTF-8 text".to_owned()));
            return Content::Other;
        }
    };
    match manifest::parse(text) {
        Ok(parsed) => {
            reading.warnings.extend(parsed.notes.into_iter().map(|note| error(Some((note.line, note.column)), note.message)));
            state.objects = parsed
                .objects
                .into_iter()
                .filter(|located| located.object.id_ref().is_some())
                .map(|located| (located.object, located.line))
                .collect();
        }
        Err(note) => reading.errors.push(error(Some((note.line, note.column)), note.message)),
    }
    Content::Other
}

/// What can be read there, a pipe or standard input too.
fn content(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let most = manifest::MAX_MANIFEST_BYTES;
    if path == Path::new(STDIN) {
        std::io::stdin().lock().take(most + 1).read_to_end(&mut content)?;
    } else {
        let file = std::fs::File::open(path)?;
        // One byte more, so that the end is seen without room for more being made.
        content.reserve_exact(file.metadata()?.len().min(most) as usize + 1);
        file.take(most + 1).read_to_end(&mut content)?;
    }
    if content.len() as u64 > most {
        return Err(std::io::Error::other(format!("larger than {} MiB", most >> 20)));
    }
    Ok(content)
}

/// A file or folder on its device: two names may lead to one.
type Inode = (u64, u64);

/// The manifests below the places asked for. Hidden names are left out: `..data` of a mounted ConfigMap is reached through its visible links.
#[derive(Default)]
struct Found {
    files: Vec<(PathBuf, Seen)>,
    inodes: BTreeSet<Inode>,
    errors: Vec<(PathBuf, std::io::Error)>,
    /// When it was looked. None: no stamp is taken.
    now: Option<SystemTime>,
}

/// What a look at a file shows before it is read.
#[derive(Default)]
struct Seen {
    stamp: Option<Stamp>,
    is_link: bool,
    has_names: bool,
}

impl Found {
    /// `named`: asked for by this name, and read whatever it is called. `above`: the folders that led here.
    fn collect(&mut self, path: &Path, named: bool, is_link: bool, above: &mut Vec<Inode>) {
        if named && path == Path::new(STDIN) {
            self.files.push((path.to_path_buf(), Seen::default()));
            return;
        }
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            // A name that vanished while the folder was read, or a link to nothing: a change that the watch will tell of.
            Err(error) if !named && error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return self.errors.push((path.to_path_buf(), error)),
        };
        let inode = (metadata.dev(), metadata.ino());
        if !metadata.is_dir() {
            if (named || is_manifest(path) && metadata.is_file()) && self.inodes.insert(inode) {
                let stamp = self.now.and_then(|now| Stamp::of(&metadata, now));
                self.files.push((path.to_path_buf(), Seen { stamp, is_link, has_names: metadata.nlink() > 1 }));
            }
            return;
        }
        // A link to a folder above would go round for ever.
        if above.contains(&inode) || above.len() >= MAX_DEPTH {
            return;
        }
        let look = |entry: std::io::Result<DirEntry>| {
            let entry = entry?;
            Ok((entry.path(), entry.file_type().is_ok_and(|kind| kind.is_symlink())))
        };
        let entries = std::fs::read_dir(path).and_then(|entries| entries.map(look).collect());
        let mut entries: Vec<(PathBuf, bool)> = match entries {
            Ok(entries) => entries,
            Err(error) => return self.errors.push((path.to_path_buf(), error)),
        };
        entries.sort_by(|(left, _), (right, _)| left.file_name().cmp(&right.file_name()));
        above.push(inode);
        for (entry, is_link) in entries {
            if !is_hidden(&entry) {
                self.collect(&entry, false, is_link, above);
            }
        }
        above.pop();
    }
}

/// By its name.
fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known))
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn describe(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or folder".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Where the object of this id is among those in order.
fn place(objects: &[Object], id: Option<IdRef<'_>>) -> Option<usize> {
    objects.binary_search_by(|known| known.id_ref().cmp(&id)).ok()
}

fn find<'a>(objects: &'a [Object], object: &Object) -> Option<&'a Object> {
    objects.get(place(objects, object.id_ref())?)
}

fn same(a: &Object, b: &Object) -> bool {
    // Most are the very same, which costs no look into them.
    fn equal<T: PartialEq>(a: &Arc<T>, b: &Arc<T>) -> bool {
        Arc::ptr_eq(a, b) || a == b
    }
    match (a, b) {
        (Object::Ingress(a), Object::Ingress(b)) => equal(a, b),
        (Object::IngressClass(a), Object::IngressClass(b)) => equal(a, b),
        (Object::ProxyRoute(a), Object::ProxyRoute(b)) => equal(a, b),
        (Object::Service(a), Object::Service(b)) => equal(a, b),
        (Object::EndpointSlice(a), Object::EndpointSlice(b)) => equal(a, b),
        (Object::Secret(a), Object::Secret(b)) => equal(a, b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, port: u16) -> String {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n")
    }

    #[test]
    fn a_broken_file_keeps_its_last_good_objects_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
        std::fs::write(&a, service("a", 80)).unwrap();
        std::fs::write(&b, service("b", 80)).unwrap();
        let mut files = Files::new(vec![folder.path().to_path_buf()], Vec::new());
        assert_eq!(files.read().changes.len(), 2);

        std::fs::write(&a, "kind: [").unwrap();
        std::fs::write(&b, service("b", 81)).unwrap();
        let reading = files.read();
        assert_eq!(reading.changes.len(), 1, "{reading:?}");
        assert!(reading.errors[0].to_string().starts_with(&format!("{}:", a.display())), "{}", reading.errors[0]);
        assert!(files.read().errors.is_empty(), "an error is told once");

        std::fs::remove_file(&a).unwrap();
        assert!(matches!(files.read().changes[..], [Change::Delete(_)]));
    }

    #[test]
    fn the_first_file_by_name_owns_an_object() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("1.yaml"), service("s", 80)).unwrap();
        std::fs::write(folder.path().join("2.yaml"), service("s", 81)).unwrap();
        let mut files = Files::new(vec![folder.path().to_path_buf()], Vec::new());
        let reading = files.read();
        assert_eq!(reading.changes.len(), 1);
        assert!(reading.warnings[0].message.contains("1.yaml"), "{}", reading.warnings[0]);
        assert!(files.read().warnings.is_empty(), "a warning is told once");
        std::fs::remove_file(folder.path().join("1.yaml")).unwrap();
        assert!(matches!(files.read().changes[..], [Change::Put(_)]));
    }

    #[test]
    fn a_file_that_was_left_alone_is_not_read_again_until_it_is_touched_or_doubted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, service("a", 80)).unwrap();
        let mut files = Files::new(vec![folder.path().to_path_buf()], Vec::new());
        let settled = SystemTime::now() + std::time::Duration::from_secs(60);
        // Whether it was read shows in what is known of its content.
        let reads = |files: &mut Files, now| {
            for state in files.known.values_mut() {
                state.content = None;
            }
            let found = files.look(now);
            files.take(found);
            files.known[&path].content.is_some()
        };
        assert!(reads(&mut files, SystemTime::now()));
        assert!(reads(&mut files, SystemTime::now()), "it may be written again within the same tick of the clock");
        assert!(reads(&mut files, settled), "its last reading took no stamp");
        assert!(!reads(&mut files, settled), "it is read although nothing touched it");
        files.doubt();
        assert!(reads(&mut files, settled));
        std::fs::write(&path, service("a", 81)).unwrap();
        assert!(reads(&mut files, settled), "it was touched");
    }

    #[test]
    fn a_folder_that_cannot_be_read_keeps_what_it_held() {
        let folder = tempfile::tempdir().unwrap();
        let team = folder.path().join("team");
        std::fs::create_dir(&team).unwrap();
        std::fs::write(team.join("a.yaml"), service("a", 80)).unwrap();
        let mut files = Files::new(vec![folder.path().to_path_buf()], Vec::new());
        assert_eq!(files.read().changes.len(), 1);
        // Root may read everything, so that permissions alone would show nothing here: a folder that is no folder any more.
        let error = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let found = Found { errors: vec![(team.clone(), error())], ..Found::default() };
        let reading = files.take(found);
        assert!(reading.changes.is_empty(), "{reading:?}");
        assert!(reading.errors[0].to_string().contains("team: permission denied"), "{}", reading.errors[0]);
        assert!(files.take(Found { errors: vec![(team, error())], ..Found::default() }).errors.is_empty(), "told once");
        assert!(files.read().errors.is_empty());
    }

    #[test]
    fn links_that_go_round_end_and_one_file_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), service("a", 80)).unwrap();
        for link in ["l1", "l2", "l3"] {
            std::os::unix::fs::symlink(".", folder.path().join(link)).unwrap();
        }
        std::os::unix::fs::symlink("a.yaml", folder.path().join("b.yaml")).unwrap();
        let reading = Files::new(vec![folder.path().to_path_buf()], Vec::new()).read();
        assert_eq!((reading.changes.len(), reading.warnings), (1, Vec::new()));
    }

    #[test]
    fn a_folder_swapped_through_a_symlink_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        for (version, port) in [("v1", 80), ("v2", 81)] {
            std::fs::create_dir(folder.path().join(version)).unwrap();
            std::fs::write(folder.path().join(version).join("s.yaml"), service("s", port)).unwrap();
        }
        let link = folder.path().join("routes");
        std::os::unix::fs::symlink("v1", &link).unwrap();
        let mut files = Files::new(vec![link.clone()], Vec::new());
        assert_eq!(files.read().changes.len(), 1);
        std::os::unix::fs::symlink("v2", folder.path().join("next")).unwrap();
        std::fs::rename(folder.path().join("next"), &link).unwrap();
        assert!(matches!(files.read().changes[..], [Change::Put(_)]));
        assert!(files.read().changes.is_empty());
    }
}
