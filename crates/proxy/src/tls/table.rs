//! Which certificate and which versions a server name gets.
//!
//! Pure, and incremental: what the previous table parsed is taken over by fingerprint, and where nothing changed there is no new
//! table. Names are looked for as an exact host, then under the wildcard with the longest suffix, then as any host, then the
//! default certificate is given. Hosts that ask for no TLS of their own do not count: a wildcard above such a name serves it too.
//!
//! A host may have one certificate for each kind of key. Of those that a client can use it gets the one whose signature costs least.
//!
//! A pair that the TLS library refuses is replaced by the default certificate and reported, as is one that could not be made.

use std::{collections::HashMap, fmt, sync::Arc};

use penstock_model::{CertificateSource, Fingerprint, HostPattern, HostTls, KeyPair, Model, TlsVersion, WildcardDepth};
use rustls::{SignatureAlgorithm, SignatureScheme, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::provider;
use crate::self_signed::{MakeError, Name};

/// What a certificate that is asked of us came to.
pub(super) type Made = Result<Arc<KeyPair>, MakeError>;

/// Why a pair cannot be served.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    #[error("the certificate chain is not PEM: {0}")]
    Chain(String),
    #[error("the certificate chain is empty")]
    Empty,
    #[error("the private key is not PEM of a kind that is known (PKCS#8, PKCS#1, SEC1): {0}")]
    Key(String),
    #[error("certificate and key cannot be used: {0}")]
    Pair(rustls::Error),
    #[error(transparent)]
    Making(#[from] MakeError),
}

/// A certificate that could not be served as the model wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateProblem {
    /// None: the default certificate, in whose place a self-signed one stands.
    pub host: Option<HostPattern>,
    pub reason: Refused,
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = &self.reason;
        match &self.host {
            Some(host) => write!(f, "{host} is served with the default certificate: {reason}"),
            None => write!(f, "the default certificate cannot be served: {reason}"),
        }
    }
}

/// What decides whether a connection made for one name may carry requests for another: the certificates that are served, and the
/// versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PolicyId {
    /// That of all of them.
    certificates: Option<Fingerprint>,
    pub min_version: TlsVersion,
}

/// What one name gets.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The best first. None: nothing can be served. Only if not even a default certificate could be made.
    certificates: Arc<[Arc<CertifiedKey>]>,
    pub(super) policy: PolicyId,
}

/// Every request over HTTP asks whether its host has a certificate. The names in here are those of hosts that somebody was let set up, not whatever a
/// client asks for: chance is enough against collisions.
type Names = HashMap<Box<str>, Entry, foldhash::fast::RandomState>;

/// All names.
#[derive(Debug)]
pub struct CertificateTable {
    exact: Names,
    one_label: Names,
    many_labels: Names,
    any: Option<Entry>,
    default: Entry,
    parsed: HashMap<Fingerprint, Arc<CertifiedKey>>,
    problems: Vec<CertificateProblem>,
    /// What this was made from, to see whether another would be the same, and to make it again when a made certificate is due.
    pub(super) source: Source,
}

/// The part of a model that a table is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    hosts: Vec<(HostPattern, HostTls)>,
    default: CertificateSource,
}

impl Source {
    pub(super) fn of(model: &Model) -> Self {
        let hosts = model.hosts.iter().filter_map(|(pattern, host)| Some((pattern.clone(), host.tls.clone()?)));
        Self { hosts: hosts.collect(), default: model.default_certificate.clone() }
    }

    /// Compares without copying.
    pub(super) fn is_of(&self, model: &Model) -> bool {
        let hosts = model.hosts.iter().filter_map(|(pattern, host)| Some((pattern, host.tls.as_ref()?)));
        self.default == model.default_certificate && self.hosts.iter().map(|(pattern, tls)| (pattern, tls)).eq(hosts)
    }
}

impl Default for CertificateTable {
    /// The table before there is a model: refuses every handshake.
    fn default() -> Self {
        Self {
            exact: Names::default(),
            one_label: Names::default(),
            many_labels: Names::default(),
            any: None,
            default: entry(Vec::new(), TlsVersion::default()),
            parsed: HashMap::new(),
            problems: Vec::new(),
            source: Source::default(),
        }
    }
}

impl CertificateTable {
    /// Makes the table of a model. `make` gives the certificates that the model demands of us.
    pub fn compile(model: &Model, previous: &Self, make: impl FnMut(&Name) -> Made) -> Self {
        Self::from_source(Source::of(model), previous, make)
    }

    pub(super) fn from_source(source: Source, previous: &Self, make: impl FnMut(&Name) -> Made) -> Self {
        let mut compiler = Compiler { previous, parsed: HashMap::new(), make, problems: Vec::new() };
        let mut table = Self { default: compiler.default(&source.default), ..Self::default() };
        for (pattern, tls) in &source.hosts {
            let entry = compiler.host(pattern, tls, &table.default);
            let (names, name) = match pattern {
                HostPattern::Any => {
                    table.any = Some(entry);
                    continue;
                }
                HostPattern::Exact(name) => (&mut table.exact, name),
                HostPattern::Wildcard { suffix, depth: WildcardDepth::One } => (&mut table.one_label, suffix),
                HostPattern::Wildcard { suffix, depth: WildcardDepth::Many } => (&mut table.many_labels, suffix),
            };
            names.insert((&**name).into(), entry);
        }
        table.parsed = compiler.parsed;
        table.problems = compiler.problems;
        table.source = source;
        table
    }

    /// Whether another table of the same source serves the same certificates and has the same problems.
    pub(super) fn serves_as(&self, other: &Self) -> bool {
        self.problems == other.problems
            && self.parsed.len() == other.parsed.len()
            && self.parsed.keys().all(|fingerprint| other.parsed.contains_key(fingerprint))
    }

    /// What could not be served as the model wants it.
    pub fn problems(&self) -> &[CertificateProblem] {
        &self.problems
    }

    /// The certificate for a server name and what the client can verify, as a handshake gives them. To a client that can use none the first
    /// is given: it will say what it thinks of it.
    pub fn certificate(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        match &*self.entry(name).certificates {
            [] => None,
            [only] => Some(only.clone()),
            several @ [first, ..] => {
                let usable = several.iter().find(|certificate| certificate.key.choose_scheme(schemes).is_some());
                Some(usable.unwrap_or(first).clone())
            }
        }
    }

    /// Whether there is anything to serve.
    pub(super) fn serves(&self) -> bool {
        !self.entry(None).certificates.is_empty()
    }

    /// The policy for a server name or a request's host (without port). Differs between two names exactly if a connection made
    /// for one must not serve the other (RFC 9110 §7.4: 421).
    pub fn policy_of(&self, name: Option<&str>) -> PolicyId {
        self.entry(name).policy
    }

    pub(super) fn entry(&self, name: Option<&str>) -> &Entry {
        let named = name.and_then(|name| {
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                self.named(&name.to_ascii_lowercase())
            } else {
                self.named(name)
            }
        });
        named.or(self.any.as_ref()).unwrap_or(&self.default)
    }

    /// What a host asks for a name in lower case.
    pub(super) fn named(&self, name: &str) -> Option<&Entry> {
        if let Some(entry) = self.exact.get(name) {
            return Some(entry);
        }
        let (first, mut suffix) = name.split_once('.')?;
        if let Some(entry) = self.one_label.get(suffix).filter(|_| !first.is_empty()) {
            return Some(entry);
        }
        while !self.many_labels.is_empty() {
            if let Some(entry) = self.many_labels.get(suffix) {
                return Some(entry);
            }
            suffix = suffix.split_once('.')?.1;
        }
        None
    }
}

struct Compiler<'a, M> {
    previous: &'a CertificateTable,
    parsed: HashMap<Fingerprint, Arc<CertifiedKey>>,
    make: M,
    problems: Vec<CertificateProblem>,
}

impl<M: FnMut(&Name) -> Made> Compiler<'_, M> {
    fn default(&mut self, source: &CertificateSource) -> Entry {
        let given = match source {
            CertificateSource::Given(pair) => Some(self.parse(pair)),
            CertificateSource::SelfSigned | CertificateSource::Default => None,
        };
        let certificate = match given {
            Some(Ok(certificate)) => Some(certificate),
            other => {
                if let Some(Err(reason)) = other {
                    self.problems.push(CertificateProblem { host: None, reason });
                }
                match self.made(&Name::Default) {
                    Ok(certificate) => Some(certificate),
                    Err(reason) => {
                        self.problems.push(CertificateProblem { host: None, reason });
                        None
                    }
                }
            }
        };
        entry(certificate.into_iter().collect(), TlsVersion::default())
    }

    fn host(&mut self, pattern: &HostPattern, tls: &HostTls, default: &Entry) -> Entry {
        let first = match &tls.certificate {
            CertificateSource::Given(pair) => Some(self.parse(pair)),
            CertificateSource::SelfSigned => Some(self.made(&Name::of(pattern))),
            CertificateSource::Default => None,
        };
        let own: Result<Vec<_>, _> = first.into_iter().chain(tls.others.iter().map(|pair| self.parse(pair))).collect();
        let own = own.unwrap_or_else(|reason| {
            self.problems.push(CertificateProblem { host: Some(pattern.clone()), reason });
            Vec::new()
        });
        if own.is_empty() {
            let policy = PolicyId { min_version: tls.min_version, ..default.policy };
            return Entry { certificates: default.certificates.clone(), policy };
        }
        entry(own, tls.min_version)
    }

    fn made(&mut self, name: &Name) -> Result<(Fingerprint, Arc<CertifiedKey>), Refused> {
        let pair = (self.make)(name)?;
        self.parse(&pair)
    }

    fn parse(&mut self, pair: &KeyPair) -> Result<(Fingerprint, Arc<CertifiedKey>), Refused> {
        let fingerprint = pair.fingerprint();
        let known = self.parsed.get(&fingerprint).or_else(|| self.previous.parsed.get(&fingerprint)).cloned();
        let certificate = match known {
            Some(certificate) => certificate,
            None => Arc::new(certified_key(pair)?),
        };
        self.parsed.insert(fingerprint, certificate.clone());
        Ok((fingerprint, certificate))
    }
}

fn entry(mut certificates: Vec<(Fingerprint, Arc<CertifiedKey>)>, min_version: TlsVersion) -> Entry {
    certificates.sort_by_key(|(_, certificate)| cost(certificate.key.algorithm()));
    let fingerprint = Fingerprint::of_all(certificates.iter().map(|(fingerprint, _)| *fingerprint));
    let certificates = certificates.into_iter().map(|(_, certificate)| certificate).collect();
    Entry { certificates, policy: PolicyId { certificates: fingerprint, min_version } }
}

/// What a signature of ours costs, as an order: one by RSA takes many times the processor time of the others, and more bytes. Few clients take
/// Ed25519.
fn cost(kind: SignatureAlgorithm) -> u8 {
    match kind {
        SignatureAlgorithm::ECDSA => 0,
        SignatureAlgorithm::ED25519 => 1,
        _ => 2,
    }
}

/// A pair in the form that handshakes use, checked to belong together.
pub fn certified_key(pair: &KeyPair) -> Result<CertifiedKey, Refused> {
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(pair.chain()).collect();
    let chain = chain.map_err(|error| Refused::Chain(error.to_string()))?;
    if chain.is_empty() {
        return Err(Refused::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(pair.key()).map_err(|error| Refused::Key(error.to_string()))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(Refused::Pair)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use penstock_model::Host;

    use super::*;

    fn pair(name: &str) -> Arc<KeyPair> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        Arc::new(KeyPair::new(made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes()))
    }

    // The shape that the table asks for.
    #[allow(clippy::unnecessary_wraps)]
    fn make(name: &Name) -> Made {
        Ok(pair(&name.to_string()))
    }

    fn exact(name: &str) -> HostPattern {
        HostPattern::Exact(name.into())
    }

    fn wildcard(suffix: &str, depth: WildcardDepth) -> HostPattern {
        HostPattern::Wildcard { suffix: suffix.into(), depth }
    }

    #[allow(clippy::unnecessary_wraps)]
    fn given(pair: &Arc<KeyPair>) -> Option<HostTls> {
        Some(HostTls { certificate: CertificateSource::Given(pair.clone()), others: Vec::new(), min_version: TlsVersion::V1_2 })
    }

    fn model(default: &Arc<KeyPair>, hosts: impl IntoIterator<Item = (HostPattern, Option<HostTls>)>) -> Model {
        let hosts = hosts
            .into_iter()
            .map(|(pattern, tls)| (pattern.clone(), Arc::new(Host { pattern, tls, certificate_only: false, routes: Vec::new() })))
            .collect::<BTreeMap<_, _>>();
        Model { hosts, default_certificate: CertificateSource::Given(default.clone()), ..Model::default() }
    }

    fn serves(table: &CertificateTable, name: Option<&str>, pair: &KeyPair) -> bool {
        table.policy_of(name).certificates == Some(pair.fingerprint())
            && table.certificate(name, &[]).unwrap().cert == certified_key(pair).unwrap().cert
    }

    #[test]
    fn names_get_the_certificate_of_the_closest_host() {
        let pairs: Vec<_> = ["default", "exact", "one", "many", "deeper", "other"].iter().map(|name| pair(name)).collect();
        let [default, exact_pair, one, many, deeper, other] = &pairs[..] else { panic!() };
        let model = model(
            default,
            [
                (exact("a.x.example"), given(exact_pair)),
                (exact("plain.x.example"), None),
                (exact("plain.example"), None),
                (wildcard("x.example", WildcardDepth::One), given(one)),
                (wildcard("example", WildcardDepth::Many), given(many)),
                (wildcard("deep.example", WildcardDepth::Many), given(deeper)),
                (wildcard("other", WildcardDepth::One), given(other)),
            ],
        );
        let table = CertificateTable::compile(&model, &CertificateTable::default(), make);
        assert_eq!(table.problems(), []);
        for (name, pair) in [
            (Some("a.x.example"), exact_pair),
            (Some("A.X.Example."), exact_pair),
            (Some("b.x.example"), one),
            (Some("plain.x.example"), one),
            (Some("c.b.x.example"), many),
            (Some("q.example"), many),
            (Some("r.q.deep.example"), deeper),
            (Some("example"), default),
            (Some("a.b.other"), default),
            (Some(".other"), default),
            (Some(""), default),
            (Some("."), default),
            (None, default),
        ] {
            assert!(serves(&table, name, pair), "{name:?}");
        }
    }

    #[test]
    fn a_certificate_of_any_host_stands_before_the_default_one() {
        let (default, any) = (pair("default"), pair("any"));
        let model = model(&default, [(HostPattern::Any, given(&any))]);
        let table = CertificateTable::compile(&model, &CertificateTable::default(), make);
        assert!(serves(&table, None, &any) && serves(&table, Some("x.example"), &any));
    }

    #[test]
    fn a_pair_that_cannot_be_served_is_reported_and_the_default_served() {
        let (default, good) = (pair("default"), pair("good"));
        let mixed = Arc::new(KeyPair::new(good.chain(), default.key()));
        let garbage = Arc::new(KeyPair::new(*b"no pem", *b"no pem"));
        let model =
            model(&default, [(exact("good"), given(&good)), (exact("garbage"), given(&garbage)), (exact("mixed"), given(&mixed))]);
        let table = CertificateTable::compile(&model, &CertificateTable::default(), make);
        let problems = table.problems();
        assert!(serves(&table, Some("good"), &good));
        assert!(serves(&table, Some("mixed"), &default) && serves(&table, Some("garbage"), &default));
        let of: Vec<_> = problems.iter().map(|problem| problem.host.clone().unwrap()).collect();
        assert_eq!(of, [exact("garbage"), exact("mixed")]);
        let text = problems[1].to_string();
        assert!(text.starts_with("mixed is served with the default certificate: certificate and key cannot be used"), "{text}");
    }

    #[test]
    fn a_default_certificate_that_cannot_be_served_is_replaced_by_a_made_one() {
        let garbage = Arc::new(KeyPair::new(*b"no pem", *b"no pem"));
        let made = pair("made");
        let table = CertificateTable::compile(&model(&garbage, []), &CertificateTable::default(), |name| {
            assert_eq!(*name, Name::Default);
            Ok(made.clone())
        });
        assert!(serves(&table, None, &made));
        assert_eq!(table.problems().len(), 1);
    }

    #[test]
    fn what_did_not_change_is_not_parsed_again() {
        let (default, a, b) = (pair("default"), pair("a"), pair("b"));
        let old = CertificateTable::compile(&model(&default, [(exact("a"), given(&a))]), &CertificateTable::default(), make);
        let again = model(&default, [(exact("a"), given(&Arc::new(KeyPair::new(a.chain(), a.key())))), (exact("b"), given(&b))]);
        let new = CertificateTable::compile(&again, &old, make);
        assert!(Arc::ptr_eq(&old.certificate(Some("a"), &[]).unwrap(), &new.certificate(Some("a"), &[]).unwrap()));
        assert!(Arc::ptr_eq(&old.certificate(None, &[]).unwrap(), &new.certificate(None, &[]).unwrap()));
        assert!(!old.source.is_of(&again) && new.source.is_of(&again));
        assert_eq!(Source::of(&again), new.source);
        let third = CertificateTable::compile(&model(&default, []), &new, make);
        assert_eq!(third.parsed.len(), 1, "certificates of vanished hosts are let go");
    }

    #[test]
    fn policies_differ_by_certificate_and_by_version() {
        let (default, shared) = (pair("default"), pair("shared"));
        let strict = given(&shared).map(|tls| HostTls { min_version: TlsVersion::V1_3, ..tls });
        let broken = given(&Arc::new(KeyPair::new(*b"", *b"")));
        let model = model(
            &default,
            [(exact("a"), given(&shared)), (exact("b"), given(&shared)), (exact("strict"), strict), (exact("broken"), broken)],
        );
        let table = CertificateTable::compile(&model, &CertificateTable::default(), make);
        let policy = |name| table.policy_of(Some(name));
        assert_eq!(policy("a"), policy("b"));
        assert_ne!(policy("a"), policy("strict"));
        assert_ne!(policy("a"), policy("unknown"));
        assert_eq!(policy("broken"), policy("unknown"));
    }

    #[test]
    fn certificates_of_two_kinds_of_key_are_one_policy_whichever_is_named_first() {
        let (default, ecdsa) = (pair("default"), pair("a"));
        let rsa = super::super::tests::rsa(&["a"]);
        let both =
            |first: &Arc<KeyPair>, other: &Arc<KeyPair>| given(first).map(|tls| HostTls { others: vec![other.clone()], ..tls });
        let broken = Arc::new(KeyPair::new(*b"", *b""));
        let model = model(
            &default,
            [
                (exact("a"), both(&ecdsa, &rsa)),
                (exact("b"), both(&rsa, &ecdsa)),
                (exact("ecdsa"), given(&ecdsa)),
                (exact("rsa"), given(&rsa)),
                (exact("broken"), both(&ecdsa, &broken)),
            ],
        );
        let table = CertificateTable::compile(&model, &CertificateTable::default(), make);
        let policy = |name| table.policy_of(Some(name));
        assert_eq!(policy("a"), policy("b"));
        assert!(policy("a") != policy("ecdsa") && policy("a") != policy("rsa"), "one of its certificates may not be for the other");
        assert_eq!((policy("broken"), table.problems().len()), (policy("unknown"), 1));
        let gets = |name, schemes: &[SignatureScheme]| table.certificate(Some(name), schemes).unwrap().key.algorithm();
        for name in ["a", "b"] {
            for (schemes, kind) in [
                (&[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256][..], SignatureAlgorithm::ECDSA),
                (&[SignatureScheme::ECDSA_NISTP256_SHA256], SignatureAlgorithm::ECDSA),
                (&[SignatureScheme::RSA_PKCS1_SHA256], SignatureAlgorithm::RSA),
                (&[SignatureScheme::ECDSA_NISTP384_SHA384, SignatureScheme::RSA_PSS_SHA512], SignatureAlgorithm::RSA),
                (&[SignatureScheme::ED25519], SignatureAlgorithm::ECDSA),
                (&[], SignatureAlgorithm::ECDSA),
            ] {
                assert_eq!(gets(name, schemes), kind, "{name} {schemes:?}");
            }
        }
        assert_eq!(gets("rsa", &[SignatureScheme::ECDSA_NISTP256_SHA256]), SignatureAlgorithm::RSA, "there is no other");
    }
}
