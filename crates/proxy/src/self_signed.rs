//! Certificates that the proxy makes itself, kept across restarts.
//!
//! One per name, with a P-256 key, in `certificates/` below the state directory: a PEM file per name with the chain and the key,
//! readable by us alone and replaced as a whole. One that is damaged, does not hold its name or is due for renewal is made anew.
//! Without a directory that can be written, certificates live as long as the process, and one warning says so.
//!
//! It promises that two calls for a name give the same pair until it is renewed. It does I/O and is not for workers' threads.

use std::{
    collections::HashMap,
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use penstock_model::{HostPattern, KeyPair};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;

use crate::tls::certified_key;

const DAY: Duration = Duration::from_hours(24);

/// How long a certificate holds. Apple's systems refuse longer than 825 days also when the user trusts it by hand; whoever did
/// that would like to do it seldom.
const LIFETIME: Duration = DAY.saturating_mul(820);
/// How long before its end a certificate is replaced: long enough that a process which only renews on its start is restarted in
/// between.
const RENEW_BEFORE: Duration = DAY.saturating_mul(30);
/// A certificate holds since before it was made, for clients whose clock is slow.
const BACKDATE: Duration = DAY;
/// How often to look whether one is due. Often enough for a laptop that sleeps; a look costs no I/O.
pub const CHECK_EVERY: Duration = Duration::from_hours(1);
/// Stands between the chain and the key in a file.
const KEY_BEGINS: &[u8] = b"-----BEGIN PRIVATE KEY-----";
/// The longest common name (X.520, `ub-common-name`).
const LONGEST_COMMON_NAME: usize = 64;
/// The longest file name without `.pem`, below the 255 bytes of common file systems.
const LONGEST_FILE_STEM: usize = 200;

/// What a certificate is made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// For handshakes that no host claims: holds `localhost` and the loopback addresses.
    Default,
    /// A host's name, maybe with `*.` before it.
    Host(Box<str>),
}

/// Why a certificate could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MakeError {
    #[error("a self-signed certificate for `{name}` cannot be made: {reason}")]
    Make { name: Name, reason: String },
}

/// All certificates that were made.
#[derive(Debug)]
pub struct SelfSigned {
    /// None: in memory only.
    directory: Option<PathBuf>,
    known: Mutex<HashMap<Name, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    pair: Arc<KeyPair>,
    not_after: SystemTime,
}

impl Name {
    /// The certificate for a host without one of its own.
    pub fn of(pattern: &HostPattern) -> Self {
        match pattern {
            HostPattern::Any => Self::Default,
            HostPattern::Exact(name) => Self::Host((&**name).into()),
            HostPattern::Wildcard { suffix, .. } => Self::Host(format!("*.{suffix}").into()),
        }
    }

    fn alternative_names(&self) -> Vec<&str> {
        match self {
            Self::Default => vec!["localhost", "127.0.0.1", "::1"],
            Self::Host(name) => vec![name],
        }
    }

    /// Differs between names, also on file systems that ignore case, and means nothing to a shell or file system.
    fn file_name(&self) -> String {
        let stem = match self {
            // No host's: an underscore is always escaped.
            Self::Default => "_default".to_owned(),
            Self::Host(name) => {
                let mut stem = String::new();
                for byte in name.bytes() {
                    match byte {
                        b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' => stem.push(char::from(byte)),
                        b'*' => stem.push_str("_wildcard"),
                        other => stem = format!("{stem}_{other:02x}"),
                    }
                }
                if stem.starts_with(['.', '-']) || stem.len() > LONGEST_FILE_STEM {
                    let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
                    stem = digest.iter().fold("_sha256_".to_owned(), |stem, byte| stem + &format!("{byte:02x}"));
                }
                stem
            }
        };
        stem + ".pem"
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "localhost",
            Self::Host(name) => name,
        })
    }
}

impl SelfSigned {
    /// Certificates are kept below this directory. It is made if it is missing.
    pub fn open(state_directory: Option<&Path>) -> Self {
        let directory = state_directory.and_then(|state| {
            let directory = state.join("certificates");
            match usable(&directory) {
                Ok(()) => Some(directory),
                Err(error) => {
                    tracing::warn!(
                        directory = %directory.display(), %error,
                        "the state directory cannot be written: certificates made here are lost at the end of the process, and \
                         clients that trusted them will be asked again; give a writable one with --state-dir"
                    );
                    None
                }
            }
        });
        Self { directory, known: Mutex::new(HashMap::new()) }
    }

    /// The pair for a name, made if there is none that holds for a while.
    pub fn pair(&self, name: &Name) -> Result<Arc<KeyPair>, MakeError> {
        self.pair_at(name, SystemTime::now())
    }

    fn pair_at(&self, name: &Name, now: SystemTime) -> Result<Arc<KeyPair>, MakeError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = known.get(name).filter(|one| !due(one.not_after, now)) {
            return Ok(one.pair.clone());
        }
        let file = self.directory.as_ref().map(|directory| directory.join(name.file_name()));
        let kept = file.as_deref().and_then(|file| read(file, name, now));
        let one = match kept {
            Some(one) => one,
            None => {
                let one = make(name, now).map_err(|error| MakeError::Make { name: name.clone(), reason: error.to_string() })?;
                tracing::info!(%name, fingerprint = %one.pair.fingerprint(), "made a self-signed certificate");
                if let Some(file) = &file
                    && let Err(error) = write(file, &one.pair)
                {
                    tracing::warn!(file = %file.display(), %error, "a certificate cannot be kept: it is lost at the end of the process");
                }
                one
            }
        };
        known.insert(name.clone(), one.clone());
        Ok(one.pair)
    }
}

fn due(not_after: SystemTime, now: SystemTime) -> bool {
    not_after < now + RENEW_BEFORE
}

/// Makes the directory if need be, and finds out whether files can be made in it.
fn usable(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let probe = directory.join(format!(".probe-{:016x}", rand::random::<u64>()));
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe)?;
    fs::remove_file(&probe)
}

fn make(name: &Name, now: SystemTime) -> Result<Known, rcgen::Error> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    // Tells addresses from names.
    let alternative_names: Vec<String> = name.alternative_names().into_iter().map(ToOwned::to_owned).collect();
    let mut params = CertificateParams::new(alternative_names)?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let not_after = now + LIFETIME;
    params.not_before = epoch + (now - BACKDATE).duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_after = epoch + not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::OrganizationName, "Penstock self-signed");
    let common_name = name.to_string();
    if common_name.len() <= LONGEST_COMMON_NAME {
        params.distinguished_name.push(DnType::CommonName, common_name);
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    debug_assert!(params.subject_alt_names.iter().all(|name| matches!(name, SanType::DnsName(_) | SanType::IpAddress(_))));
    let certificate = params.self_signed(&key)?;
    let pair = KeyPair::new(certificate.pem().into_bytes(), key.serialize_pem().into_bytes());
    Ok(Known { pair: Arc::new(pair), not_after })
}

/// What is kept, if it is still of use.
fn read(file: &Path, name: &Name, now: SystemTime) -> Option<Known> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(file = %file.display(), %error, "a kept certificate cannot be read: another is made");
            }
            return None;
        }
    };
    let key_at = bytes.windows(KEY_BEGINS.len()).position(|window| window == KEY_BEGINS).unwrap_or(bytes.len());
    let (chain, key) = bytes.split_at_checked(key_at)?;
    let pair = KeyPair::new(chain, key);
    let not_after = certified_key(&pair).ok().and_then(|_| end_of(chain, name));
    let Some(not_after) = not_after else {
        tracing::warn!(file = %file.display(), "a kept certificate is damaged or not for {name}: another is made");
        return None;
    };
    (!due(not_after, now)).then(|| Known { pair: Arc::new(pair), not_after })
}

/// The end of a certificate's validity, if it holds the name.
fn end_of(pem: &[u8], name: &Name) -> Option<SystemTime> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
    let held = certificate.subject_alternative_name().ok()??;
    let holds = |wanted: &str| {
        held.value.general_names.iter().any(|held| match held {
            GeneralName::DNSName(held) => *held == wanted,
            GeneralName::IPAddress(held) => match wanted.parse() {
                Ok(std::net::IpAddr::V4(wanted)) => wanted.octets() == **held,
                Ok(std::net::IpAddr::V6(wanted)) => wanted.octets() == **held,
                Err(_) => false,
            },
            _ => false,
        })
    };
    if !name.alternative_names().into_iter().all(holds) {
        return None;
    }
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn write(file: &Path, pair: &KeyPair) -> io::Result<()> {
    let next = file.with_extension(format!("{:016x}.new", rand::random::<u64>()));
    let written = (|| {
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
        out.write_all(pair.chain())?;
        out.write_all(pair.key())?;
        // Else a power cut could leave the new name with nothing in it.
        out.sync_all()?;
        fs::rename(&next, file)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&next);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn host(name: &str) -> Name {
        Name::Host(name.into())
    }

    fn names(pair: &KeyPair) -> Vec<String> {
        let der = CertificateDer::from_pem_slice(pair.chain()).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        names.value.general_names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_certificate_is_kept_across_restarts() {
        let state = tempfile::tempdir().unwrap();
        let state = state.path().join("deep/state");
        let first = SelfSigned::open(Some(&state)).pair(&host("a.example")).unwrap();
        let again = SelfSigned::open(Some(&state)).pair(&host("a.example")).unwrap();
        assert_eq!((again.chain(), again.key()), (first.chain(), first.key()));
        assert_eq!(again, first);
        assert_ne!(SelfSigned::open(Some(&state)).pair(&host("b.example")).unwrap(), first);
    }

    #[test]
    fn keys_are_ours_alone() {
        let state = tempfile::tempdir().unwrap();
        SelfSigned::open(Some(state.path())).pair(&host("a.example")).unwrap();
        let directory = state.path().join("certificates");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        let files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(files.len(), 1, "nothing else is left behind");
        assert_eq!(files[0].file_name(), "a.example.pem");
        assert_eq!(mode(&files[0].path()), 0o600);
    }

    #[test]
    fn certificates_hold_the_name_they_are_for() {
        let made = SelfSigned::open(None);
        assert_eq!(names(&made.pair(&host("*.a.example")).unwrap()), ["DNSName(*.a.example)"]);
        let default = names(&made.pair(&Name::Default).unwrap());
        assert_eq!(default.len(), 3);
        assert!(default[0].contains("localhost"), "{default:?}");
        for pair in [made.pair(&host("x")).unwrap(), made.pair(&Name::Default).unwrap()] {
            certified_key(&pair).unwrap();
        }
        let long = format!("{}.example", vec!["label"; 40].join("."));
        certified_key(&made.pair(&host(&long)).unwrap()).unwrap();
    }

    #[test]
    fn a_certificate_is_renewed_before_it_ends() {
        let state = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let made = SelfSigned::open(Some(state.path()));
        let name = host("a.example");
        let first = made.pair_at(&name, now).unwrap();
        assert_eq!(made.pair_at(&name, now + LIFETIME - RENEW_BEFORE - DAY).unwrap(), first);
        let late = now + LIFETIME - RENEW_BEFORE + DAY;
        let second = made.pair_at(&name, late).unwrap();
        assert_ne!(second, first);
        let restarted = SelfSigned::open(Some(state.path()));
        assert_eq!(restarted.pair_at(&name, late).unwrap(), second);
        assert_ne!(SelfSigned::open(Some(state.path())).pair_at(&name, late + LIFETIME).unwrap(), second);
    }

    #[test]
    fn what_is_damaged_or_for_another_name_is_made_again() {
        let state = tempfile::tempdir().unwrap();
        let first = SelfSigned::open(Some(state.path())).pair(&host("a.example")).unwrap();
        let file = state.path().join("certificates").join("a.example.pem");
        let kept = fs::read(&file).unwrap();
        SelfSigned::open(Some(state.path())).pair(&host("b.example")).unwrap();
        let of_b = fs::read(state.path().join("certificates").join("b.example.pem")).unwrap();
        for damaged in [&b""[..], &kept[..100], first.chain(), first.key(), &of_b, b"\xff\xff"] {
            fs::write(&file, damaged).unwrap();
            let made = SelfSigned::open(Some(state.path())).pair(&host("a.example")).unwrap();
            certified_key(&made).unwrap();
            assert_ne!(made, first);
            assert!(names(&made)[0].contains("a.example"));
            assert_eq!(SelfSigned::open(Some(state.path())).pair(&host("a.example")).unwrap(), made);
        }
    }

    #[test]
    fn without_a_directory_certificates_live_in_memory() {
        let state = tempfile::tempdir().unwrap();
        let occupied = state.path().join("file");
        fs::write(&occupied, "").unwrap();
        for made in [SelfSigned::open(None), SelfSigned::open(Some(&occupied))] {
            assert!(made.directory.is_none());
            assert_eq!(made.pair(&Name::Default).unwrap(), made.pair(&Name::Default).unwrap());
        }
        // It was writable once, and is not any more.
        let gone = state.path().join("gone");
        let made = SelfSigned::open(Some(&gone));
        fs::remove_dir_all(&gone).unwrap();
        assert_eq!(made.pair(&Name::Default).unwrap(), made.pair(&Name::Default).unwrap());
    }

    #[test]
    fn file_names_are_tame_and_differ() {
        let names = [
            Name::Default,
            host("_default"),
            host("a.example"),
            host("*.a.example"),
            host("_wildcard.a.example"),
            host("A.example"),
            host(".."),
            host("../../etc/passwd"),
            host(".hidden"),
            host("-x"),
            host("a b\0c"),
            host(&"x".repeat(300)),
            host(&"x".repeat(301)),
        ];
        let mut files: Vec<_> = names.iter().map(Name::file_name).collect();
        for file in &files {
            assert!(file.len() <= 255 && !file.starts_with(['.', '-']), "{file}");
            assert!(
                file.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)),
                "{file}"
            );
        }
        files.sort();
        files.dedup();
        assert_eq!(files.len(), names.len());
    }

    #[test]
    fn each_pattern_has_its_name() {
        let suffix = || Arc::<str>::from("a.example");
        for (pattern, name) in [
            (HostPattern::Any, Name::Default),
            (HostPattern::Exact(suffix()), host("a.example")),
            (HostPattern::Wildcard { suffix: suffix(), depth: penstock_model::WildcardDepth::One }, host("*.a.example")),
        ] {
            assert_eq!(Name::of(&pattern), name);
        }
    }
}
