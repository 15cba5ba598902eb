//! Annotations as data: each is one typed item, defined once, known under two spellings.
//!
//! `penstock.dev/NAME` and `nginx.ingress.kubernetes.io/NAME` are the same item; if an object bears both, ours counts. What ingress-nginx
//! has no word for is called like the field of a ProxyRoute, and has our prefix alone. What an item is called, what it takes, what it does
//! and what becomes of a bad value stands at the item; the code that reads objects, the documentation ([`reference()`]) and the report are
//! made from that. One file per family.
//!
//! An annotation under either prefix that is none of these is refused by name (`known`): nothing is dropped in silence.

mod affinity;
mod balancing;
mod endpoints;
mod https;
mod known;
mod limits;
mod redirects;
mod retries;
mod rewriting;
mod tls;
mod upstream;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

pub(crate) use affinity::{
    AFFINITY, AFFINITY_MODE, CHANGE_ON_FAILURE, COOKIE, COOKIE_DOMAIN, COOKIE_EXPIRES, COOKIE_MAX_AGE, COOKIE_NAME, COOKIE_PATH,
    COOKIE_SAME_SITE, COOKIE_SECURE,
};
pub(crate) use balancing::{LOAD_BALANCE, LOAD_FACTOR, UPSTREAM_HASH_BY};
pub(crate) use endpoints::{
    EJECTION_FAILURES, EJECTION_MAX_TIME, EJECTION_TIME, LIMIT_PENDING, LIMIT_REQUESTS, PANIC_THRESHOLD, SLOW_START,
};
pub(crate) use https::{FORCE_SSL_REDIRECT, SSL_REDIRECT};
pub(crate) use limits::{ALLOWLIST, BODY_SIZE};
pub(crate) use redirects::{PERMANENT_CODE, PERMANENT_REDIRECT, TEMPORAL_CODE, TEMPORAL_REDIRECT};
pub(crate) use retries::{NEXT_UPSTREAM, NEXT_UPSTREAM_TIMEOUT, NEXT_UPSTREAM_TRIES, RETRY_ATTEMPTS, RETRY_TIMEOUT, RETRY_WHEN};
pub(crate) use rewriting::{APP_ROOT, REWRITE_TARGET, USE_REGEX};
pub(crate) use tls::TLS_MIN_VERSION;
pub(crate) use upstream::{
    BACKEND_PROTOCOL, CONNECT_TIMEOUT, PATH_VARIABLES, PROXY_SSL_NAME, PROXY_SSL_VERIFY, READ_TIMEOUT, SEND_TIMEOUT,
    SpokenProtocol, UPSTREAM_VHOST, VirtualHost,
};

use self::known::Instead;
use crate::{Reason, reading::Reading};

/// The prefix of our own spelling.
pub(crate) const NATIVE_PREFIX: &str = "penstock.dev/";
/// The prefix of ingress-nginx.
pub(crate) const NGINX_PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// An annotation that is honoured: all there is to know of it but its type in Rust.
#[derive(Debug)]
pub struct Annotation {
    /// Without prefix.
    pub name: &'static str,
    /// Other names, which are looked at if this one is absent or empty.
    pub aliases: &'static [&'static str],
    pub spelling: Spelling,
    /// What it takes, for the documentation.
    pub value: &'static str,
    /// What holds without it, in each profile.
    pub default_native: &'static str,
    pub default_ingress_nginx: &'static str,
    pub scope: Scope,
    pub bad_value: BadValue,
    /// What it does.
    pub doc: &'static str,
    /// Where ingress-nginx does otherwise. Empty: nowhere.
    pub difference: &'static str,
}

/// Which prefixes an annotation can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// Ours, or that of ingress-nginx.
    Both,
    /// Ours alone.
    Ours,
}

/// How far an annotation reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The paths of its own Ingress.
    Paths,
    /// The paths of its own Ingress; in the ingress-nginx profile also the other Ingresses of its hosts.
    Host,
    /// The hosts that its own Ingress asks TLS for.
    TlsHosts,
}

/// What becomes of a value that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadValue {
    /// As if the annotation were absent.
    Default,
    /// The Ingress is not served.
    RefuseIngress,
    /// Every path of the Ingress answers 503.
    Answer503,
}

/// An annotation with the type of its value.
pub(crate) struct Item<T: 'static> {
    pub(crate) about: Annotation,
    pub(crate) parse: fn(&str) -> Result<T, Bad>,
}

/// Why a value is refused: what was expected of it.
#[derive(Debug)]
pub(crate) enum Bad {
    /// It is not of the form; the item says what becomes of it.
    Form(String),
    /// It has the form and makes no sense: the default is used.
    Sense(String),
}

/// One that ingress-nginx has no word for: it is called like the field of a ProxyRoute that asks for the same.
const fn own(name: &'static str, value: &'static str, default: &'static str, doc: &'static str) -> Annotation {
    Annotation {
        name,
        aliases: &[],
        spelling: Spelling::Ours,
        value,
        default_native: default,
        default_ingress_nginx: default,
        scope: Scope::Paths,
        bad_value: BadValue::Default,
        doc,
        difference: "",
    }
}

/// Every annotation that is honoured, in the order of the documentation.
static ALL: [&Annotation; 45] = [
    &REWRITE_TARGET.about,
    &USE_REGEX.about,
    &APP_ROOT.about,
    &SSL_REDIRECT.about,
    &FORCE_SSL_REDIRECT.about,
    &TLS_MIN_VERSION.about,
    &PERMANENT_REDIRECT.about,
    &PERMANENT_CODE.about,
    &TEMPORAL_REDIRECT.about,
    &TEMPORAL_CODE.about,
    &BACKEND_PROTOCOL.about,
    &CONNECT_TIMEOUT.about,
    &READ_TIMEOUT.about,
    &SEND_TIMEOUT.about,
    &NEXT_UPSTREAM.about,
    &NEXT_UPSTREAM_TIMEOUT.about,
    &NEXT_UPSTREAM_TRIES.about,
    &RETRY_WHEN.about,
    &RETRY_ATTEMPTS.about,
    &RETRY_TIMEOUT.about,
    &UPSTREAM_VHOST.about,
    &PROXY_SSL_VERIFY.about,
    &PROXY_SSL_NAME.about,
    &AFFINITY.about,
    &AFFINITY_MODE.about,
    &COOKIE.about,
    &COOKIE_PATH.about,
    &COOKIE_DOMAIN.about,
    &COOKIE_SAME_SITE.about,
    &COOKIE_SECURE.about,
    &COOKIE_EXPIRES.about,
    &COOKIE_MAX_AGE.about,
    &CHANGE_ON_FAILURE.about,
    &UPSTREAM_HASH_BY.about,
    &LOAD_FACTOR.about,
    &LOAD_BALANCE.about,
    &SLOW_START.about,
    &EJECTION_FAILURES.about,
    &EJECTION_TIME.about,
    &EJECTION_MAX_TIME.about,
    &PANIC_THRESHOLD.about,
    &LIMIT_REQUESTS.about,
    &LIMIT_PENDING.about,
    &BODY_SIZE.about,
    &ALLOWLIST.about,
];

/// Every annotation that is honoured on an Ingress.
pub fn annotations() -> &'static [&'static Annotation] {
    &ALL
}

/// The reference of annotations in Markdown, made from the items.
pub fn reference() -> String {
    let mut text = format!(
        "# Annotations\n\nOn an Ingress, each annotation can be written `{NATIVE_PREFIX}NAME` or `{NGINX_PREFIX}NAME`; if both are there, the \
         first counts. Those with a prefix in their heading are our own, and written so alone: they are called like the fields of a \
         [ProxyRoute](proxyroute.md) that ask for the same. A ProxyRoute takes none: it has fields. Every other annotation under either prefix is reported by name on the \
         object, with what was done instead.\n\n## Honoured\n"
    );
    for item in annotations() {
        let _ = write!(text, "\n### `{}`\n\n{}\n\n", item.heading(), item.doc);
        if !item.difference.is_empty() {
            let _ = write!(text, "In ingress-nginx: {}\n\n", item.difference);
        }
        let _ = writeln!(text, "* Value: {}", item.value);
        if item.default_native == item.default_ingress_nginx {
            let _ = writeln!(text, "* Default: {}", item.default_native);
        } else {
            let _ =
                writeln!(text, "* Default: {}; in the ingress-nginx profile {}", item.default_native, item.default_ingress_nginx);
        }
        let _ = writeln!(text, "* Reaches: {}", item.scope.words());
        let _ = writeln!(text, "* A value that cannot be read: {}", item.bad_value.words());
        if !item.aliases.is_empty() {
            let _ = writeln!(text, "* Also written: `{}`", item.aliases.join("`, `"));
        }
    }
    text.push_str("\n## Known, and not supported yet\n\n| annotation | what is done instead |\n|---|---|\n");
    for known in known::UNSUPPORTED.iter().filter(|known| !known.legacy) {
        let _ = writeln!(text, "| `{}` | {} |", known.name, known.instead());
    }
    let legacy: Vec<&str> = known::UNSUPPORTED.iter().filter(|known| known.legacy).map(|known| known.name).collect();
    let _ =
        writeln!(text, "\nOf older versions of ingress-nginx, without effect in its last one and here: `{}`.", legacy.join("`, `"));
    text
}

impl Annotation {
    /// The name, with its prefix if that is no matter of choice.
    fn heading(&self) -> String {
        match self.spelling {
            Spelling::Both => self.name.to_owned(),
            Spelling::Ours => format!("{NATIVE_PREFIX}{}", self.name),
        }
    }

    /// The keys that it can have, those that go before others first.
    fn keys(&self) -> Vec<String> {
        let prefixes: &[&str] = match self.spelling {
            Spelling::Both => &[NATIVE_PREFIX, NGINX_PREFIX],
            Spelling::Ours => &[NATIVE_PREFIX],
        };
        let names = std::iter::once(&self.name).chain(self.aliases);
        names.flat_map(|name| prefixes.iter().map(move |prefix| format!("{prefix}{name}"))).collect()
    }
}

impl Scope {
    fn words(self) -> &'static str {
        match self {
            Self::Paths => "the paths of its Ingress",
            Self::Host => "the paths of its Ingress; in the ingress-nginx profile the whole host",
            Self::TlsHosts => {
                "the hosts of its Ingress that its `tls` section is for; of several objects for one host the oldest settles it"
            }
        }
    }
}

impl BadValue {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Default => "the default is used",
            Self::RefuseIngress => "the Ingress is not served",
            Self::Answer503 => "the paths of the Ingress answer 503",
        }
    }
}

/// The annotations of one object while they are read.
pub(crate) struct Annotated<'a> {
    annotations: &'a BTreeMap<String, String>,
    seen: BTreeSet<&'a str>,
    /// What the worst of its annotations does, and which field that is: it means something else than an ordinary Ingress,
    pub(crate) left_out: bool,
    /// it cannot be read,
    pub(crate) refused_by: Option<String>,
    /// it guards something and is not honoured.
    pub(crate) closed_by: Option<String>,
}

/// For objects without any.
static NONE: BTreeMap<String, String> = BTreeMap::new();

/// The field of an annotation in a finding.
pub(crate) fn field(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}

impl<'a> Annotated<'a> {
    pub(crate) fn new(annotations: Option<&'a BTreeMap<String, String>>) -> Self {
        Self {
            annotations: annotations.unwrap_or(&NONE),
            seen: BTreeSet::new(),
            left_out: false,
            refused_by: None,
            closed_by: None,
        }
    }

    /// The value of an item, and the field that it came from.
    pub(crate) fn get<T>(&mut self, reading: &mut Reading<'_>, item: &Item<T>) -> Option<(T, String)> {
        let (key, text) = self.choose(reading, &item.about.keys())?;
        self.take(reading, item, key, text)
    }

    /// The value of one of two items that ask for the same in different words: ours, if there is anything of both.
    pub(crate) fn get_either<T, U>(
        &mut self,
        reading: &mut Reading<'_>,
        ours: &Item<T>,
        theirs: &Item<U>,
    ) -> (Option<T>, Option<U>) {
        let own = ours.about.keys();
        let all: Vec<String> = own.iter().cloned().chain(theirs.about.keys()).collect();
        match self.choose(reading, &all) {
            None => (None, None),
            Some((key, text)) if own.iter().any(|own| own == key) => {
                (self.take(reading, ours, key, text).map(|(value, _)| value), None)
            }
            Some((key, text)) => (None, self.take(reading, theirs, key, text).map(|(value, _)| value)),
        }
    }

    fn take<T>(&mut self, reading: &mut Reading<'_>, item: &Item<T>, key: &str, text: &str) -> Option<(T, String)> {
        let field = field(key);
        if text.is_empty() {
            reading.refused(
                field,
                Reason::InvalidValue,
                format!("the value is empty; expected {}; the default is used", item.about.value),
            );
            return None;
        }
        let (expected, effect) = match (item.parse)(text) {
            Ok(value) => {
                reading.honoured(&*field);
                return Some((value, field));
            }
            Err(Bad::Form(expected)) => (expected, item.about.bad_value),
            Err(Bad::Sense(expected)) => (expected, BadValue::Default),
        };
        self.suffer(effect, &field);
        let message = format!("{} is not {expected}; {}", quoted(text), effect.words());
        reading.refused(field, Reason::InvalidValue, message);
        None
    }

    /// Whether one of the two spellings is there, whatever its value.
    pub(crate) fn has(&self, name: &str) -> bool {
        [NATIVE_PREFIX, NGINX_PREFIX].iter().any(|prefix| self.annotations.contains_key(&format!("{prefix}{name}")))
    }

    /// Names what nobody asked for, once every item has been.
    pub(crate) fn finish(&mut self, reading: &mut Reading<'_>) {
        for key in self.annotations.keys() {
            let Some(name) = key.strip_prefix(NATIVE_PREFIX).or_else(|| key.strip_prefix(NGINX_PREFIX)) else { continue };
            if self.seen.contains(&**key) {
                continue;
            }
            match known::UNSUPPORTED.iter().find(|known| known.name == name) {
                Some(known) if self.annotations.get(key).is_some_and(|value| known.is_off(value)) => {
                    reading.ignored(
                        field(key),
                        Reason::NoEffect,
                        format!("{name} is not supported yet, and asks for nothing here"),
                    );
                }
                Some(known) => {
                    let message = format!("{name} is not supported yet; {}", known.instead());
                    reading.refused(field(key), Reason::UnsupportedAnnotation, message);
                    match known.effect {
                        Some(Instead::LeaveOut) => self.left_out = true,
                        Some(Instead::Answer503) => self.suffer(BadValue::Answer503, &field(key)),
                        None => {}
                    }
                }
                None => {
                    let guess = known::nearest(name).map(|near| format!("; was {near} meant?")).unwrap_or_default();
                    reading.refused(field(key), Reason::UnknownAnnotation, format!("{} is not known{guess}", quoted(name)));
                }
            }
        }
    }

    fn suffer(&mut self, effect: BadValue, field: &str) {
        let by = match effect {
            BadValue::Default => return,
            BadValue::RefuseIngress => &mut self.refused_by,
            BadValue::Answer503 => &mut self.closed_by,
        };
        by.get_or_insert_with(|| field.to_owned());
    }

    /// The first of these keys whose value is not empty, or else the first that is there; the others are noted as without effect.
    fn choose(&mut self, reading: &mut Reading<'_>, keys: &[String]) -> Option<(&'a str, &'a str)> {
        let annotations: &'a BTreeMap<String, String> = self.annotations;
        let present: Vec<(&str, &str)> =
            keys.iter().filter_map(|key| annotations.get_key_value(key)).map(|(key, text)| (key.as_str(), text.as_str())).collect();
        self.seen.extend(present.iter().map(|(key, _)| *key));
        let chosen = present.iter().find(|(_, text)| !text.is_empty()).or(present.first()).copied()?;
        for (key, _) in present.iter().filter(|(key, _)| *key != chosen.0) {
            reading.ignored(field(key), Reason::NoEffect, format!("{} counts instead", chosen.0));
        }
        Some(chosen)
    }
}

/// A user's value in a message: in quotes, and not without end.
pub(crate) fn quoted(text: &str) -> String {
    /// More would hide the rest of the message.
    const SHOWN: usize = 80;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_ingress_nginx_is_known_exactly_once() {
        let theirs = annotations().iter().filter(|item| item.spelling == Spelling::Both);
        let mut names: Vec<&str> = theirs.flat_map(|item| std::iter::once(item.name).chain(item.aliases.iter().copied())).collect();
        names.extend(known::UNSUPPORTED.iter().filter(|known| !known.legacy).map(|known| known.name));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!((names.len(), count), (138, 138), "136 names and two aliases");
    }

    #[test]
    fn the_reference_names_every_annotation() {
        let text = reference();
        let unsupported = known::UNSUPPORTED.iter().map(|known| known.name.to_owned());
        for name in annotations().iter().map(|item| item.heading()).chain(unsupported) {
            assert!(text.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn a_value_is_quoted_with_its_control_characters_escaped_and_cut() {
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert!(quoted(&"x".repeat(1 << 20)).len() < 100);
    }
}
