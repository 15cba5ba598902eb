//! Load balancing and retries of a rule of a ProxyRoute.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::proxy_route::duration;

/// How an endpoint is chosen among those of a backend.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("(has(self.policy) && self.policy == 'Hash') == has(self.hash)").message("hash is needed for the policy Hash, and for no other"))]
pub struct RouteLoadBalancing {
    /// LeastLoaded: of two, the endpoint with the smaller product of requests in flight and latency. RoundRobin: each in its turn. Hash: requests with
    /// one key go to one endpoint while that is there. Default: LeastLoaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<BalancingPolicy>,
    /// The key of the policy Hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<BalancingHash>,
    /// Clients keep their endpoint by a cookie; goes before the policy. Default: they keep none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<BalancingCookie>,
    /// How long an endpoint that is new gets less than its share, as `30s`; `0s`: it gets its share at once. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub slow_start: Option<String>,
    /// When an endpoint that fails is passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<BalancingEjection>,
    /// What the requests of this rule may take of one backend. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<BalancingLimits>,
}

/// How an endpoint is chosen.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BalancingPolicy {
    #[default]
    LeastLoaded,
    RoundRobin,
    Hash,
}

/// By what requests are told apart. Those without it are balanced as by LeastLoaded.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("(self.by == 'SourceAddress') != has(self.name)").message("name is needed for Header, Cookie and Query, and not for SourceAddress"))]
pub struct BalancingHash {
    /// The address of the client, or the value of a header, cookie or parameter of the query.
    pub by: HashSource,
    /// The name of the header (case does not matter), cookie or parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    /// An endpoint that has more than so many percent of the mean of requests in flight is passed over. Default: none is, however loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 1000))]
    pub load_factor: Option<i32>,
}

/// What a key is taken from.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashSource {
    #[default]
    SourceAddress,
    Header,
    Cookie,
    Query,
}

/// A cookie that names an endpoint, without giving its address away. It is `HttpOnly`, and `Secure` over TLS.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BalancingCookie {
    /// The name of the cookie. Default: `penstock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9._~-]+$"))]
    pub name: Option<String>,
    /// The paths that it is for. Default: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[!-:<-~]*$"))]
    pub path: Option<String>,
    /// The domain that it is for. Default: the host alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub domain: Option<String>,
    /// How long clients keep it, as `12h`. Default: until they are closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub max_age: Option<String>,
    /// Whether it goes along with requests from other sites. Default: what the client takes for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_site: Option<SameSite>,
}

/// Whether a cookie goes along with requests from other sites.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    Strict,
    Lax,
    None,
}

/// When an endpoint that fails is passed over. One that cannot be connected is at once.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BalancingEjection {
    /// After so many failures in a row: no response, or 502, 503 or 504; 0: no endpoint is passed over. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub consecutive_failures: Option<i32>,
    /// For how long the first time; each time after that it is twice as long, until it answers. Default: 2s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub time: Option<String>,
    /// For how long at most. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub max_time: Option<String>,
    /// If more than so many percent of the endpoints are to be passed over, none is. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub panic_threshold: Option<i32>,
}

/// What the requests of a rule may take of one backend. Others are answered 503.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BalancingLimits {
    /// Requests at once, tunnels included, over all endpoints; over HTTP/1.1 each takes a connection. Those of other rules that set a limit for the
    /// same backend count as well. It holds for each replica of the proxy.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: i32,
    /// How many more wait until one of those is over, for as long as connecting may take. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub pending: Option<i32>,
}

/// When a request is sent again, to another endpoint if there is one. What was sent already is sent again only if its method is idempotent and
/// its body, if there is one, is of at most 64 KiB.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteRetries {
    /// How often it is tried at most, the first time included. Default: 3 where nothing can be connected, else 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: Option<i32>,
    /// How long each may take up to the head of the response, with connecting but without what the client takes to send its body, as `2s`.
    /// Default: as long as the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub per_try_timeout: Option<String>,
    /// After what: `connect-failure`, `reset` (the connection broke before a response), `timeout`, or a status of the response: 429, 500, 502, 503,
    /// 504. Default: connect-failure and reset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    // Not `on`: without quotes that is `true` to YAML 1.1, and so to kubectl.
    pub when: Vec<RetryCondition>,
}

/// After what a request is sent again.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(untagged)]
pub enum RetryCondition {
    Status(i32),
    Event(String),
}

impl schemars::JsonSchema for RetryCondition {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RetryCondition".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        // A structural schema has no other word for "number or text" (Kubernetes: int-or-string).
        schemars::json_schema!({
            "x-kubernetes-int-or-string": true, "maxLength": 15,
            "x-kubernetes-validations": [{
                "rule": "type(self) == int ? self in [429, 500, 502, 503, 504] : self in ['connect-failure', 'reset', 'timeout']",
                "message": "connect-failure, reset, timeout, 429, 500, 502, 503 or 504"
            }]
        })
    }
}
