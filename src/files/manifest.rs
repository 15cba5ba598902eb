//! Manifests as text: YAML (any number of documents), JSON and `List` objects, parsed to the objects of a World.
//!
//! A file is taken whole or not at all: half a file might be a host without its certificate. What is wrong with it is named with
//! line and column. A field that its kind does not know is a warning, because it is most often a slip of the pen.

use std::{fmt, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{Secret, Service},
        discovery::v1::EndpointSlice,
        networking::v1::{Ingress, IngressClass},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use penstock_api::ProxyRoute;
use penstock_translate::Object;
use serde::{Deserialize, de::DeserializeOwned};

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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct List {
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

/// As the API server reads YAML: of booleans there are `true` and `false`.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true }
}

/// What the parser says of YAML in its own terms, in those of who writes manifests.
fn in_plain_words(message: &str) -> String {
    match message {
        "expected mapping start" => "a mapping (`field: value`) is expected".to_owned(),
        "expected sequence start" => "a list is expected".to_owned(),
        "expected string scalar" => "text is expected".to_owned(),
        _ if message.starts_with("budget breached") => format!("too large to be read ({message})"),
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

struct Document<'a> {
    text: &'a str,
    /// The number of lines before it.
    offset: u64,
}

impl Document<'_> {
    fn note(&self, line: u64, column: u64, message: String) -> Note {
        Note { line: self.offset + line.max(1), column: column.max(1), message }
    }

    fn error(&self, error: &serde_saphyr::Error) -> Note {
        let (line, column) = error.location().map_or((1, 1), |location| (location.line(), location.column()));
        let text = error.without_snippet().to_string();
        let message = text.lines().next().unwrap_or("not readable");
        self.note(line, column, in_plain_words(message.split(" at line ").next().unwrap_or(message)))
    }
}

/// Cuts at lines that begin with `---`; no YAML document holds such a line within itself.
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut offset, mut position) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
            documents.push(Document { text: text.get(start..position).unwrap_or_default(), offset });
            start = position + line.len();
            offset = number as u64 + 1;
        }
        position += line.len();
    }
    documents.push(Document { text: text.get(start..).unwrap_or_default(), offset });
    documents.retain(|document| {
        document.text.lines().any(|line| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#') && line != "..."
        })
    });
    documents
}

fn parse_document(document: &Document<'_>, parsed: &mut Parsed) -> Result<(), Note> {
    let header: Header = serde_saphyr::from_str_with_options(document.text, options()).map_err(|error| document.error(&error))?;
    let first = first_line(document);
    let Some(kind) = header.kind else {
        return Err(document.note(first, 1, "no `kind`: this is not a Kubernetes object".to_owned()));
    };
    let api_version = header.api_version.unwrap_or_default();
    if kind == "List" || kind.ends_with("List") && api_version == "v1" {
        let list: List = serde_saphyr::from_str_with_options(document.text, options()).map_err(|error| document.error(&error))?;
        for (index, item) in list.items.into_iter().enumerate() {
            let text = item.to_string();
            let inner = Document { text: &text, offset: document.offset + first - 1 };
            parse_document(&inner, parsed).map_err(|mut note| {
                note.message = format!("items[{index}]: {}", note.message);
                note.line = document.offset + first;
                note.column = 1;
                note
            })?;
        }
        return Ok(());
    }
    let object = match (api_version.as_str(), kind.as_str()) {
        ("networking.k8s.io/v1", "Ingress") => Object::Ingress(typed::<Ingress>(document, parsed)?),
        ("networking.k8s.io/v1", "IngressClass") => Object::IngressClass(typed::<IngressClass>(document, parsed)?),
        ("v1", "Service") => Object::Service(typed::<Service>(document, parsed)?),
        ("v1", "Secret") => Object::Secret(typed::<Secret>(document, parsed)?),
        ("discovery.k8s.io/v1", "EndpointSlice") => Object::EndpointSlice(typed::<EndpointSlice>(document, parsed)?),
        ("penstock.dev/v1alpha1", "ProxyRoute") => Object::ProxyRoute(typed::<ProxyRoute>(document, parsed)?),
        (_, "Ingress" | "IngressClass" | "EndpointSlice" | "ProxyRoute") => {
            return Err(document.note(
                first,
                1,
                format!("{kind} of `{api_version}` is not understood; {}", expected_version(&kind)),
            ));
        }
        _ => {
            parsed.notes.push(document.note(first, 1, format!("{api_version} {kind} has no meaning here and is left out")));
            return Ok(());
        }
    };
    parsed.objects.push(Located { object, line: document.offset + first });
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
    let lines = document.text.lines().take_while(|line| line.trim().is_empty() || line.trim().starts_with('#'));
    lines.count() as u64 + 1
}

/// An object whose metadata can be reached.
trait Manifest: DeserializeOwned {
    const NAMESPACED: bool;
    fn metadata(&mut self) -> &mut ObjectMeta;
    /// What the API server would have made of it.
    fn default_fields(&mut self) {}
}

fn typed<T: Manifest>(document: &Document<'_>, parsed: &mut Parsed) -> Result<Arc<T>, Note> {
    let mut unknown = Vec::new();
    let result: Result<T, serde_saphyr::Error> =
        serde_saphyr::with_deserializer_from_str_with_options(document.text, options(), |deserializer| {
            serde_ignored::deserialize(deserializer, |path| unknown.push(path.to_string()))
        });
    let mut object = result.map_err(|error| document.error(&error))?;
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
    Ok(Arc::new(object))
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
        secret.data.get_or_insert_default().insert(name, k8s_openapi::ByteString(text.into_bytes()));
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
    fn string_data_becomes_data() {
        let parsed = parse("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n").unwrap();
        let Object::Secret(secret) = &parsed.objects[0].object else { panic!("no Secret") };
        assert_eq!(secret.data.as_ref().unwrap()["a"].0, b"b");
        assert_eq!(secret.metadata.namespace.as_deref(), Some("default"));
    }
}
