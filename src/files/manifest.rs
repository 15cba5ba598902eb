//! Manifests as text: YAML (any number of documents), JSON and `List` objects, parsed to the objects of a World.
//!
//! A file is taken whole or not at all: half a file might be a host without its certificate. What is wrong with it is named with
//! line and column (of an item in a list: the place where the item begins). A field that its kind does not know is most often a slip of
//! the pen: of a Kubernetes kind it is a warning; of a ProxyRoute, where it may be a guard that would not hold, an error.

use std::{fmt, sync::Arc};

use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{Secret, Service},
        discovery::v1::EndpointSlice,
        networking::v1::{Ingress, IngressClass},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use penstock_api::ProxyRoute;
use penstock_translate::{Kind, Object};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor},
};
use serde_saphyr::Spanned;

/// The largest manifest that is read. The API server takes objects of 1.5 MiB; a folder of thousands of routes may be one file.
pub const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// The namespace of an object that names none, as `kubectl` has it.
const DEFAULT_NAMESPACE: &str = "default";

/// What a text held.
#[derive(Debug, Default)]
pub struct Parsed {
    pub objects: Vec<Located>,
    pub notes: Vec<Note>,
}

/// An object and the line at which its document begins.
#[derive(Debug)]
pub struct Located {
    pub object: Object,
    pub line: u64,
}

/// Something to say about a place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub line: u64,
    pub column: u64,
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
}

impl Header {
    /// Of which kind of those that mean something here.
    fn known(&self) -> Option<Kind> {
        Some(match (self.api_version.as_deref()?, self.kind.as_deref()?) {
            ("networking.k8s.io/v1", "Ingress") => Kind::Ingress,
            ("networking.k8s.io/v1", "IngressClass") => Kind::IngressClass,
            ("v1", "Service") => Kind::Service,
            ("v1", "Secret") => Kind::Secret,
            ("discovery.k8s.io/v1", "EndpointSlice") => Kind::EndpointSlice,
            ("penstock.dev/v1alpha1", "ProxyRoute") => Kind::ProxyRoute,
            _ => return None,
        })
    }
}

/// Reads a mapping until it knows both fields, which mostly come first. That it stops there is an error to the parser.
struct Beginning<'a>(&'a mut Header);

impl<'de> Visitor<'de> for Beginning<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "apiVersion" => self.0.api_version = map.next_value()?,
                "kind" => self.0.kind = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            if self.0.api_version.is_some() && self.0.kind.is_some() {
                return Err(serde::de::Error::custom("enough"));
            }
        }
        Ok(())
    }
}

/// The items of a list, each with the place where it begins.
#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Spanned<serde_json::Value>>,
}

#[derive(Deserialize)]
struct JsonList {
    #[serde(default)]
    items: Vec<serde_json::Value>,
}

/// Parses a text whole, or says where it is wrong.
pub fn parse(text: &str) -> Result<Parsed, Note> {
    let mut parsed = Parsed::default();
    for document in documents(text) {
        parse_document(&document, &mut parsed)?;
    }
    Ok(parsed)
}

/// As the API server reads YAML: of booleans there are `true` and `false`. A text is in memory already and its size limited, so that what
/// it spells out may be read whatever its number of nodes; aliases, by which a small text becomes large, keep the parser's limits.
fn options(text: &str) -> serde_saphyr::Options {
    let standard = serde_saphyr::Budget::default();
    serde_saphyr::options! {
        strict_booleans: true,
        budget: serde_saphyr::budget! {
            // A node has a character at least, and two events begin and end it.
            max_nodes: standard.max_nodes.max(text.len()),
            max_events: standard.max_events.max(text.len().saturating_mul(2)),
        },
    }
}

/// What the parser says of YAML in its own terms, in those of who writes manifests.
fn in_plain_words(message: &str) -> String {
    match message {
        "expected mapping start" => "a mapping (`field: value`) is expected".to_owned(),
        "expected sequence start" => "a list is expected".to_owned(),
        "expected string scalar" => "text is expected".to_owned(),
        _ if message.starts_with("budget breached") => format!("too large to be read ({message})"),
        _ if message.contains("from_str_multiple") => "more than one document; write a line `---` between them".to_owned(),
        _ => message.split(", set DuplicateKeyPolicy").next().unwrap_or(message).to_owned(),
    }
}

/// Whether an object may have this name (a DNS subdomain, RFC 1123), as the API server asks.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let end = |byte: Option<u8>| byte.is_some_and(|byte| byte != b'-');
        label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && end(label.bytes().next())
            && end(label.bytes().last())
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    Yaml,
    Json,
}

struct Document<'a> {
    text: &'a str,
    syntax: Syntax,
    /// The number of lines before it.
    offset: u64,
    /// For an item of a list: where it begins, since places within it are those of a copy.
    item: Option<(u64, u64)>,
}

impl Document<'_> {
    fn note(&self, line: u64, column: u64, message: String) -> Note {
        match self.item {
            Some((line, column)) => Note { line, column, message },
            None => Note { line: self.offset + line.max(1), column: column.max(1), message },
        }
    }

    fn yaml_error(&self, error: &serde_saphyr::Error) -> Note {
        let (line, column) = error.location().map_or((1, 1), |location| (location.line(), location.column()));
        let text = error.without_snippet().to_string();
        let message = text.lines().next().unwrap_or("not readable");
        self.note(line, column, in_plain_words(message.split(" at line ").next().unwrap_or(message)))
    }

    fn json_error(&self, error: &serde_json::Error) -> Note {
        let text = error.to_string();
        let message = text.split(" at line ").next().unwrap_or(&text).to_owned();
        self.note(error.line() as u64, error.column() as u64, message)
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, Note> {
        match self.syntax {
            Syntax::Yaml => {
                serde_saphyr::from_str_with_options(self.text, options(self.text)).map_err(|error| self.yaml_error(&error))
            }
            Syntax::Json => serde_json::from_str(self.text).map_err(|error| self.json_error(&error)),
        }
    }

    /// Of what kind it says to be before anything is wrong with it. Not of JSON: reading it twice costs little, and only a whole reading finds what it
    /// says twice.
    fn beginning(&self) -> Header {
        let mut header = Header::default();
        if self.syntax == Syntax::Yaml {
            let _ = serde_saphyr::with_deserializer_from_str_with_options(self.text, options(self.text), |deserializer| {
                deserializer.deserialize_map(Beginning(&mut header))
            });
        }
        header
    }

    /// Also tells the fields that the type does not know.
    fn read_noting<T: DeserializeOwned>(&self, unknown: &mut Vec<String>) -> Result<T, Note> {
        let mut note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
        match self.syntax {
            Syntax::Yaml => serde_saphyr::with_deserializer_from_str_with_options(self.text, options(self.text), |deserializer| {
                serde_ignored::deserialize(deserializer, &mut note)
            })
            .map_err(|error| self.yaml_error(&error)),
            Syntax::Json => serde_ignored::deserialize(&mut serde_json::Deserializer::from_str(self.text), &mut note)
                .map_err(|error| self.json_error(&error)),
        }
    }

    fn items(&self) -> Result<Vec<Item>, Note> {
        let place = |line, column| {
            let note = self.note(line, column, String::new());
            (note.line, note.column)
        };
        Ok(match self.syntax {
            Syntax::Yaml => {
                let items = self.read::<List>()?.items.into_iter();
                items
                    .map(|item| Item { place: place(item.referenced.line(), item.referenced.column()), value: item.value })
                    .collect()
            }
            Syntax::Json => {
                let place = place(first_line(self), 1);
                self.read::<JsonList>()?.items.into_iter().map(|value| Item { value, place }).collect()
            }
        })
    }
}

/// An item of a list, and the line and column where it begins (in JSON where the list does).
struct Item {
    value: serde_json::Value,
    place: (u64, u64),
}

fn documents(text: &str) -> Vec<Document<'_>> {
    json_documents(text).unwrap_or_else(|| yaml_documents(text))
}

/// The values of a text that is JSON throughout: one, or one after the other.
fn json_documents(text: &str) -> Option<Vec<Document<'_>>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
    let mut documents = Vec::new();
    let mut start = 0;
    while let Some(value) = values.next() {
        value.ok()?;
        let end = values.byte_offset();
        let offset = text.get(..start)?.bytes().filter(|byte| *byte == b'\n').count() as u64;
        documents.push(Document { text: text.get(start..end)?, syntax: Syntax::Json, offset, item: None });
        start = end;
    }
    Some(documents)
}

/// Cuts at lines that begin with `---` or are `...`; no YAML document holds such a line within itself.
fn yaml_documents(text: &str) -> Vec<Document<'_>> {
    let mut cut = Vec::new();
    let (mut start, mut offset, mut position) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let number = number as u64;
        let marker =
            |marker| line.strip_prefix(marker).filter(|rest: &&str| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if let Some(rest) = marker("---").or_else(|| marker("...")) {
            cut.push((start..position, offset));
            // `--- {…}`: the document begins on the line of its mark.
            let content = rest.trim();
            let inline = !content.is_empty() && !content.starts_with('#');
            start = if inline { position + line.len() - rest.len() } else { position + line.len() };
            offset = if inline { number } else { number + 1 };
        }
        position += line.len();
    }
    cut.push((start..text.len(), offset));
    cut.into_iter()
        .filter_map(|(range, offset)| Some(Document { text: text.get(range)?, syntax: Syntax::Yaml, offset, item: None }))
        .filter(|document| document.text.lines().any(is_content))
        .collect()
}

/// Neither blank nor a comment nor a directive (`%YAML 1.2`).
fn is_content(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with(['#', '%'])
}

fn parse_document(document: &Document<'_>, parsed: &mut Parsed) -> Result<(), Note> {
    // What is wrong with the rest of a document that means something shows when it is read as what it is.
    let mut header = document.beginning();
    if header.known().is_none() {
        header = document.read()?;
    }
    let Some(kind) = header.known() else { return parse_other(&header, document, parsed) };
    let object = known_object(kind, document, parsed)?;
    parsed.objects.push(Located { object, line: document.note(first_line(document), 1, String::new()).line });
    Ok(())
}

fn known_object(kind: Kind, document: &Document<'_>, parsed: &mut Parsed) -> Result<Object, Note> {
    Ok(match kind {
        Kind::Ingress => Object::Ingress(typed(document, parsed)?),
        Kind::IngressClass => Object::IngressClass(typed(document, parsed)?),
        Kind::Service => Object::Service(typed(document, parsed)?),
        Kind::Secret => Object::Secret(secret(document, parsed)?),
        Kind::EndpointSlice => Object::EndpointSlice(typed(document, parsed)?),
        Kind::ProxyRoute => Object::ProxyRoute(typed(document, parsed)?),
    })
}

/// A list, or what has no meaning here.
fn parse_other(header: &Header, document: &Document<'_>, parsed: &mut Parsed) -> Result<(), Note> {
    let first = first_line(document);
    let Some(kind) = &header.kind else {
        return Err(document.note(first, 1, "no `kind`: this is not a Kubernetes object".to_owned()));
    };
    let api_version = header.api_version.as_deref().unwrap_or_default();
    if kind.ends_with("List") {
        for (index, Item { value, place }) in document.items()?.into_iter().enumerate() {
            let text = value.to_string();
            let inner =
                Document { text: &text, syntax: Syntax::Json, offset: document.offset, item: Some(document.item.unwrap_or(place)) };
            parse_document(&inner, parsed).map_err(|mut note| {
                note.message = format!("items[{index}]: {}", note.message);
                note
            })?;
        }
        return Ok(());
    }
    match kind.as_str() {
        "Ingress" | "IngressClass" | "EndpointSlice" | "ProxyRoute" => {
            let message = format!("{kind} of `{api_version}` is not understood; {}", expected_version(kind));
            return Err(document.note(first, 1, message));
        }
        _ => parsed.notes.push(document.note(first, 1, format!("{api_version} {kind} has no meaning here and is left out"))),
    }
    Ok(())
}

fn expected_version(kind: &str) -> &'static str {
    match kind {
        "EndpointSlice" => "write `discovery.k8s.io/v1`",
        "ProxyRoute" => "write `penstock.dev/v1alpha1`",
        _ => "write `networking.k8s.io/v1`",
    }
}

fn first_line(document: &Document<'_>) -> u64 {
    document.text.lines().take_while(|line| !is_content(line)).count() as u64 + 1
}

/// An object whose metadata can be reached.
trait Manifest: DeserializeOwned + Clone {
    const NAMESPACED: bool;
    fn metadata(&mut self) -> &mut ObjectMeta;
    /// What the API server would have made of it.
    fn default_fields(&mut self) {}
}

/// A Secret, also one whose base64 is broken into lines, as `base64` prints it and the API server takes it.
fn secret(document: &Document<'_>, parsed: &mut Parsed) -> Result<Arc<Secret>, Note> {
    let notes = parsed.notes.len();
    let error = match typed::<Secret>(document, parsed) {
        Ok(secret) => return Ok(secret),
        Err(error) => error,
    };
    let Ok(mut value) = document.read::<serde_json::Value>() else { return Err(error) };
    let data = value.get_mut("data").and_then(serde_json::Value::as_object_mut);
    for (name, value) in data.into_iter().flatten() {
        let Some(text) = value.as_str() else { continue };
        let joined: String = text.split_ascii_whitespace().collect();
        if serde_json::from_value::<ByteString>(joined.clone().into()).is_err() {
            return Err(Note { message: format!("data.{name} is not base64"), ..error });
        }
        *value = joined.into();
    }
    let text = value.to_string();
    let place = document.note(first_line(document), 1, String::new());
    let joined = Document { text: &text, syntax: Syntax::Json, offset: 0, item: Some((place.line, place.column)) };
    parsed.notes.truncate(notes);
    typed::<Secret>(&joined, parsed).map_err(|_| error)
}

fn typed<T: Manifest>(document: &Document<'_>, parsed: &mut Parsed) -> Result<Arc<T>, Note> {
    let mut unknown = Vec::new();
    let mut object: T = document.read_noting(&mut unknown)?;
    let first = first_line(document);
    for path in unknown.iter().map(|path| path.replace(".?", "")) {
        // The API server fills these in; manifests taken from a cluster carry them.
        if !matches!(path.as_str(), "apiVersion" | "kind") && !path.starts_with("status") {
            parsed.notes.push(document.note(first, 1, format!("unknown field `{path}`, without effect")));
        }
    }
    let metadata = object.metadata();
    if metadata.name.as_deref().is_none_or(str::is_empty) {
        return Err(document.note(first, 1, "no `metadata.name`".to_owned()));
    }
    for (field, value) in [("name", &metadata.name), ("namespace", &metadata.namespace)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty() && !is_name(value)) {
            let message = format!("metadata.{field} {value:?} is not made of small letters, digits, '-' and '.'");
            return Err(document.note(first, 1, message));
        }
    }
    if !T::NAMESPACED {
        metadata.namespace = None;
    } else if metadata.namespace.as_deref().is_none_or(str::is_empty) {
        metadata.namespace = Some(DEFAULT_NAMESPACE.to_owned());
    }
    object.default_fields();
    Ok(penstock_translate::kept(&object))
}

macro_rules! manifest {
    ($($kind:ty, $namespaced:expr $(, $default:expr)?;)*) => {$(
        impl Manifest for $kind {
            const NAMESPACED: bool = $namespaced;
            fn metadata(&mut self) -> &mut ObjectMeta { &mut self.metadata }
            $(fn default_fields(&mut self) { $default(self); })?
        }
    )*};
}

manifest! {
    Ingress, true;
    IngressClass, false;
    Service, true;
    EndpointSlice, true;
    ProxyRoute, true;
    Secret, true, merge_string_data;
}

/// `stringData` is write-only: the API server merges it into `data`.
fn merge_string_data(secret: &mut Secret) {
    for (name, text) in secret.string_data.take().into_iter().flatten() {
        secret.data.get_or_insert_default().insert(name, ByteString(text.into_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> Note {
        parse(text).map(|parsed| parsed.objects.len()).unwrap_err()
    }

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n";

    #[test]
    fn documents_are_counted_from_the_top_of_the_file() {
        let text = format!("# a comment\n---\n{SERVICE}---\n\n{SERVICE}");
        let lines: Vec<u64> = parse(&text).unwrap().objects.iter().map(|located| located.line).collect();
        assert_eq!(lines, [3, 9]);
    }

    #[test]
    fn a_wrong_type_is_named_with_line_and_column() {
        let note = error(&format!("{SERVICE}---\napiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec:\n  ports: 7\n"));
        assert_eq!((note.line, note.column), (10, 10), "{note}");
        assert!(note.message.contains("a list is expected"), "{note}");
    }

    #[test]
    fn broken_syntax_is_named_with_its_line() {
        let note = error(&format!("{SERVICE}---\nkind: [\n"));
        assert!(note.line >= 6, "{note}");
    }

    #[test]
    fn what_a_document_is_may_stand_anywhere_and_its_rest_is_read_all_the_same() {
        let count = |text: &str| parse(text).unwrap_or_else(|note| panic!("{note}\n{text}")).objects.len();
        assert_eq!(count("metadata: {name: s}\nspec: {ports: [{port: 80}]}\nkind: Service\napiVersion: v1\n"), 1);
        let twice = error(&format!("{SERVICE}kind: Ingress\n"));
        assert!(twice.line == 5 && twice.message.contains("duplicate"), "{twice}");
        let twice = error(r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "kind": "Service"}"#);
        assert!(twice.message.contains("duplicate"), "{twice}");
        let broken = error(&format!("{SERVICE}status: [\n"));
        assert!(broken.line >= 5, "{broken}");
        let foreign = error("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: [\n");
        assert!(foreign.line >= 4, "{foreign}");
    }

    #[test]
    fn an_old_api_version_says_which_to_write() {
        let note = error("apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: i}\n");
        assert!(note.message.contains("networking.k8s.io/v1"), "{note}");
    }

    #[test]
    fn a_misspelt_field_is_a_warning_by_name() {
        let parsed = parse("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {prots: []}\n").unwrap();
        assert_eq!(parsed.objects.len(), 1);
        assert!(parsed.notes[0].message.contains("spec.prots"), "{}", parsed.notes[0]);
    }

    #[test]
    fn lists_json_and_foreign_kinds_are_taken_for_what_they_are() {
        let json = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"}},{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"}}]}"#;
        let parsed = parse(json).unwrap();
        assert_eq!(parsed.objects.len(), 1);
        assert!(parsed.notes[0].message.contains("Deployment"));
    }

    #[test]
    fn marks_of_documents_and_their_content_may_share_a_line() {
        for (text, lines) in [
            (format!("%YAML 1.2\n---\n{SERVICE}...\n{SERVICE}"), vec![3, 8]),
            ("--- {apiVersion: v1, kind: Service, metadata: {name: s}}\n".to_owned(), vec![1]),
            ("--- # one\n{apiVersion: v1, kind: Service, metadata: {name: s}}\n".to_owned(), vec![2]),
            ("{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"s\"}}\n".repeat(2), vec![1, 2]),
        ] {
            let parsed = parse(&text).unwrap_or_else(|note| panic!("{note}\n{text}"));
            assert_eq!(parsed.objects.iter().map(|located| located.line).collect::<Vec<_>>(), lines, "{text}");
        }
    }

    #[test]
    fn an_item_of_a_list_is_named_with_its_place() {
        let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Service\n  metadata: {name: b}\n  spec: {ports: 7}\n";
        let note = error(list);
        assert_eq!((note.line, note.column), (7, 3), "{note}");
        assert!(note.message.starts_with("items[1]: "), "{note}");
        let kind = "apiVersion: networking.k8s.io/v1\nkind: IngressList\nitems:\n- {apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a}}\n";
        assert_eq!(parse(kind).unwrap().objects.len(), 1);
    }

    #[test]
    fn a_list_of_a_whole_cluster_is_read() {
        let item = "- {apiVersion: v1, kind: Service, metadata: {name: s, labels: {a: b, c: d, e: f}}, spec: {ports: [{port: 80, name: http}]}}\n";
        let yaml = format!("apiVersion: v1\nkind: List\nitems:\n{}", item.repeat(20_000));
        assert_eq!(parse(&yaml).unwrap().objects.len(), 20_000);
    }

    #[test]
    fn base64_may_be_broken_into_lines_and_what_is_none_is_named() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata:\n  a: |\n    aGVs\n    bG8=\n";
        let Object::Secret(secret) = &parse(text).unwrap().objects[0].object else { panic!("no Secret") };
        assert_eq!(secret.data.as_ref().unwrap()["a"].0, b"hello");
        let note = error("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata:\n  a: '!'\n");
        assert_eq!(note.message, "data.a is not base64");
    }

    #[test]
    fn string_data_becomes_data() {
        let parsed = parse("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n").unwrap();
        let Object::Secret(secret) = &parsed.objects[0].object else { panic!("no Secret") };
        assert_eq!(secret.data.as_ref().unwrap()["a"].0, b"b");
        assert_eq!(secret.metadata.namespace.as_deref(), Some("default"));
    }
}
