//! `ProxyRoute` v1alpha1.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::balancing::{RouteLoadBalancing, RouteRetries};

/// Routes of one or more hosts to Services, or to addresses outside the cluster.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "penstock.dev",
    version = "v1alpha1",
    kind = "ProxyRoute",
    plural = "proxyroutes",
    shortname = "pr",
    category = "penstock",
    namespaced,
    status = "ProxyRouteStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "Hosts", type_ = "string", json_path = ".spec.hosts"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Programmed\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.tls) || !has(self.tls.redirect) || !self.tls.redirect || has(self.tls.secretName) || (has(self.tls.selfSigned) && self.tls.selfSigned)").message("tls.redirect needs tls.secretName or tls.selfSigned"))]
pub struct ProxyRouteSpec {
    /// The IngressClass this route belongs to. Default: the class `penstock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ingress_class_name: Option<String>,
    /// The names this route answers to, exact (`code.example.com`) or with a wildcard for one label (`*.example.com`). Default: any name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[schemars(
        length(max = 64),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
        )
    )]
    pub hosts: Vec<String>,
    /// TLS for these hosts. Default: the hosts are served in plain text, and over TLS with the default certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RouteTls>,
    /// What to do with which requests.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.all(r, !has(r.name) || self.exists_one(o, has(o.name) && o.name == r.name))").message("the names of rules must differ"))]
    pub rules: Vec<RouteRule>,
}

/// TLS towards clients.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!(has(self.secretName) && has(self.selfSigned) && self.selfSigned)").message("secretName and selfSigned exclude each other"))]
pub struct RouteTls {
    /// A Secret of type kubernetes.io/tls in the namespace of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// Make a certificate, keep it, and renew it before it expires. Clients will not trust it by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<bool>,
    /// The oldest version of TLS to speak. Default: 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<MinTlsVersion>,
    /// Redirect plain requests to https. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<bool>,
}

/// A version of TLS.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinTlsVersion {
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

/// Matches, and what to do with the requests that meet one of them: exactly one of backends, redirect and respond.
// There may be thousands of rules, and most have few of the fields: those that are large are boxed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("(has(self.backends) && size(self.backends) > 0 ? 1 : 0) + (has(self.redirect) ? 1 : 0) + (has(self.respond) ? 1 : 0) == 1").message("exactly one of backends, redirect and respond is needed"))]
pub struct RouteRule {
    /// Names the rule in metrics, logs and `penstock explain`. Default: its place in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: Option<String>,
    /// Any one of these must hold. Default: every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub matches: Vec<RouteMatch>,
    /// Send the request to one of these, chosen in proportion to weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub backends: Vec<RouteBackend>,
    /// Answer with a redirect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Box<RouteRedirect>>,
    /// Answer with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond: Option<Box<RouteRespond>>,
    /// What the backend gets instead of the request's own path and host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Box<RouteRewrite>>,
    /// Edits of the request's headers on their way to the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<Box<HeaderEditing>>,
    /// Edits of the response's headers on their way to the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<Box<HeaderEditing>>,
    /// Time limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Box<RouteTimeouts>>,
    /// When a request is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Box<RouteRetries>>,
    /// How an endpoint is chosen among those of a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<Box<RouteLoadBalancing>>,
    /// WebSockets and other upgrades.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websocket: Option<RouteWebSocket>,
    /// The largest request body, as `10Mi`. A larger one is answered 413. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 20), regex(pattern = r"^[0-9]{1,16}(Ki|Mi|Gi|k|M|G)?$"))]
    pub max_body_size: Option<String>,
    /// Client addresses that may come, as CIDRs or single addresses. Others are answered 403. Default: all may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 64)))]
    pub allow: Vec<String>,
    /// Client addresses that may not come; goes before `allow`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 64)))]
    pub deny: Vec<String>,
}

/// Conditions on a request; all must hold.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteMatch {
    /// The path. Default: any path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RoutePath>,
    /// The method, as `GET`. Default: any method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[A-Z][A-Z-]*$"))]
    pub method: Option<String>,
    /// Conditions on headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<ValueCondition>,
    /// Conditions on parameters of the query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub query: Vec<ValueCondition>,
}

/// A condition on the path.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.type == 'Regex' || self.value.startsWith('/')").message("value must begin with a slash"))]
pub struct RoutePath {
    /// How the path is compared. Prefix means whole segments: `/foo` holds `/foo/bar`, not `/foobar`.
    #[serde(rename = "type", default)]
    pub type_: PathType,
    /// The path, or the regular expression, which is held against the path from its start.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// How a path is compared. Prefix means whole segments.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathType {
    Exact,
    #[default]
    Prefix,
    Regex,
}

/// A condition on the values of one header or query parameter.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.type == 'Present' ? !has(self.value) : has(self.value)").message("value is needed for Exact and Regex, and not for Present"))]
pub struct ValueCondition {
    /// How the value is compared. Present: any value will do.
    #[serde(rename = "type", default)]
    pub type_: ValueType,
    /// The name of the header (case does not matter) or of the parameter.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The value, or the regular expression that the whole value must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub value: Option<String>,
}

/// How a value is compared.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ValueType {
    #[default]
    Exact,
    Regex,
    Present,
}

/// A place to send requests to: a Service, or an address outside the cluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.service) != has(self.url)").message("exactly one of service and url is needed"))]
pub struct RouteBackend {
    /// A Service in the namespace of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceBackend>,
    /// `http://host:port` or `https://host:port`, an address or DNS name. In a cluster this needs `--allow-external-backends`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https?://[^/?#@\s]+/?$"))]
    pub url: Option<String>,
    /// The share of requests, relative to the other backends of the rule. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: Option<i32>,
    /// The protocol spoken to the backend. Default: what the scheme of `url` says, or http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<BackendProtocol>,
    /// TLS towards the backend, where the protocol has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
}

/// A port of a Service.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceBackend {
    /// The name of the Service, in the namespace of the route.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The number or the name of the port.
    pub port: ServicePort,
}

/// A port by number or by name.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(untagged)]
pub enum ServicePort {
    Number(i32),
    Name(String),
}

impl Default for ServicePort {
    fn default() -> Self {
        Self::Number(80)
    }
}

impl schemars::JsonSchema for ServicePort {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ServicePort".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        // A structural schema has no other word for "number or text" (Kubernetes: int-or-string).
        schemars::json_schema!({
            "x-kubernetes-int-or-string": true, "maxLength": 63,
            "x-kubernetes-validations": [{
                "rule": "type(self) == int ? self >= 1 && self <= 65535 : self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
                "message": "a port is a number from 1 to 65535 or the name of a port"
            }]
        })
    }
}

/// The protocol spoken to a backend.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum BackendProtocol {
    Http,
    Https,
    H2c,
    Grpc,
    Grpcs,
}

/// TLS towards a backend.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendTls {
    /// The name to ask for and to verify. Default: the host of `url`, or `name.namespace.svc` of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
    /// A Secret of the route's namespace whose `ca.crt` is trusted instead of the system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_secret_name: Option<String>,
    /// Whether the certificate of the backend is verified. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
}

/// A redirect to the request's own URL with these parts replaced. The query is kept.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteRedirect {
    /// The scheme. Default: the scheme of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<RedirectScheme>,
    /// The host. Default: the host of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// The port. Default: that of the scheme if the scheme is given, else the port of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The whole path. Default: the path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[!-~]*$"))]
    pub path: Option<String>,
    /// The status of the answer. Default: 302.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self in [301, 302, 303, 307, 308]").message("301, 302, 303, 307 or 308"))]
    pub code: Option<i32>,
}

/// A scheme of URLs.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum RedirectScheme {
    Http,
    Https,
}

/// A fixed answer.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteRespond {
    /// The status of the answer.
    #[schemars(range(min = 200, max = 599))]
    pub code: i32,
    /// The body of the answer. Default: a small page that names the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub body: Option<String>,
    /// The media type of the body. Default: `text/plain; charset=utf-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[ -~]+$"))]
    pub content_type: Option<String>,
}

/// What the backend gets instead.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteRewrite {
    /// Another path. Default: the path as it was matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewriting>,
    /// The Host header. Default: as received, with its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9._\[\]:-]+$"))]
    pub host: Option<String>,
}

/// Another path: exactly one of these.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("(has(self.prefix) ? 1 : 0) + (has(self.full) ? 1 : 0) + (has(self.regex) ? 1 : 0) == 1").message("exactly one of prefix, full and regex is needed"))]
pub struct PathRewriting {
    /// Replaces the part that a Prefix match matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[!-~]*$"))]
    pub prefix: Option<String>,
    /// Replaces the whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[!-~]*$"))]
    pub full: Option<String>,
    /// Replaces the whole path where the pattern matches, with captures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<RegexRewriting>,
}

/// A replacement with captures.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegexRewriting {
    /// A regular expression that is looked for in the path. Where it matches nothing, the path stays as it is.
    #[schemars(length(min = 1, max = 1024))]
    pub pattern: String,
    /// The new path; `$1` to `$9` stand for what the pattern's groups captured.
    #[schemars(length(min = 1, max = 1024))]
    pub replacement: String,
}

/// Edits of headers, done in the order remove, set, add.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderEditing {
    /// Headers that get this one value, whatever was there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "header_map")]
    pub set: BTreeMap<String, String>,
    /// Headers that get this value besides what was there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "header_map")]
    pub add: BTreeMap<String, String>,
    /// Headers to drop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub remove: Vec<String>,
}

fn header_map(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object", "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 4096 }
    })
}

/// Time limits, as `1h30m`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteTimeouts {
    /// To connect to an endpoint, with TLS. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub connect: Option<String>,
    /// From the request to the head of its response. Default: off (`0s`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub request: Option<String>,
    /// Between two bytes, either way. Default: 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub idle: Option<String>,
}

/// WebSockets and other upgrades.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteWebSocket {
    /// Whether requests may switch to another protocol (WebSocket). Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How long a tunnel may be silent, as `1h30m`; `0s`: for ever. Default: 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub idle_timeout: Option<String>,
}

pub(crate) fn duration(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string", "minLength": 2, "maxLength": 32, "pattern": "^([0-9]{1,9}(h|m|s|ms)){1,4}$"
    })
}

/// What became of the route.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProxyRouteStatus {
    /// `Accepted`: the route is well-formed and its hosts and paths are its own. `ResolvedRefs`: what it refers to is there.
    /// `Programmed`: every data-plane thread of the reporting replica serves it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
