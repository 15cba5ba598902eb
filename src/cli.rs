//! The command line: every flag defined once, each also as an environment variable `PENSTOCK_…`.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{
    Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    builder::{BoolishValueParser, ValueParser},
};
use ipnet::IpNet;

use crate::files::TlsSecret;

mod limits;

pub use limits::LimitOptions;

/// Serves HTTP, HTTPS and WebSockets as Ingress and ProxyRoute objects say, in a Kubernetes cluster or without one.
#[derive(Debug, Parser)]
#[command(name = "penstock", version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub log: LogOptions,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the Ingresses and ProxyRoutes of a Kubernetes cluster
    Controller(Box<ControllerOptions>),
    /// Serve manifests in files and folders, without a cluster
    Serve(Box<ServeOptions>),
    /// Serve one address under one name; nothing to write
    Proxy(Box<ProxyOptions>),
    /// Say what would be made of manifests: each object, field and annotation honoured, ignored or refused, and why
    Check(CheckOptions),
    /// Say which object, rule and backends a request would meet, and what would happen to it on the way
    Explain(ExplainOptions),
    /// Print the custom resource definitions
    Crds,
    /// Print a reference page generated from the code
    #[command(hide = true)]
    Reference(ReferenceOptions),
    /// Print completions for a shell
    Completions(CompletionsOptions),
}

#[derive(Debug, Args)]
pub struct LogOptions {
    /// How much to log: error, warn, info, debug, or a filter such as `info,penstock_proxy=debug` (trace: as debug, but in debug builds)
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    /// The form of log lines, on standard error
    #[arg(long, global = true, default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// What every serving mode has.
#[derive(Debug, Args)]
pub struct ServingOptions {
    /// Where to serve plain HTTP, as host:port; `off` for nowhere
    #[arg(long, default_value = "[::]:8080", value_name = "ADDR")]
    pub http: String,
    /// Where to serve HTTPS, as host:port; `off` for nowhere
    #[arg(long, default_value = "[::]:8443", value_name = "ADDR")]
    pub https: String,
    /// Where to serve /healthz, /readyz, /metrics and /debug/model; `off` for nowhere [default: 127.0.0.1:9090, in a cluster [::]:9090]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// Threads that serve requests [default: as many as the CPU quota allows]
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZeroUsize>,
    /// One line per request on standard output
    #[arg(long, default_value = "off", value_name = "FORMAT")]
    pub access_log: AccessLog,
    /// Peers whose X-Forwarded-For, -Proto, -Host and -Port are believed
    #[arg(long, value_delimiter = ',', value_parser = network, value_name = "CIDR,…")]
    pub trusted_proxies: Vec<IpNet>,
    /// Expect a PROXY protocol header (v1 or v2) at the start of every connection
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    pub proxy_protocol: Option<bool>,
    /// The port at which clients reach --http, for redirects and X-Forwarded-Port [default: the port of --http]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..), value_name = "PORT")]
    pub public_http_port: Option<u16>,
    /// The port at which clients reach --https, for redirects and X-Forwarded-Port [default: the port of --https]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..), value_name = "PORT")]
    pub public_https_port: Option<u16>,
    /// Where certificates that Penstock makes are kept [default: $STATE_DIRECTORY, else $XDG_STATE_HOME/penstock]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// At shutdown: how long to go on accepting after readiness is withdrawn
    #[arg(long, default_value = "0s", value_parser = duration, value_name = "TIME")]
    pub drain_delay: Duration,
    /// At shutdown: how long requests and tunnels may take after that; tunnels are ended spread over it
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub drain_grace: Duration,
    #[command(flatten)]
    pub limits: LimitOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessLog {
    Off,
    Json,
    Combined,
}

#[derive(Debug, Args)]
pub struct ControllerOptions {
    #[command(flatten)]
    pub serving: ServingOptions,
    /// How to reach the API server [default: the pod's service account, else $KUBECONFIG or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The value of the annotation `kubernetes.io/ingress.class` that makes an Ingress ours
    #[arg(long, default_value = "penstock", value_name = "NAME")]
    pub ingress_class: String,
    /// The `spec.controller` of the IngressClasses that are ours [default: penstock.dev/ingress-controller and k8s.io/ingress-nginx]
    #[arg(long, value_name = "STRING")]
    pub controller_class: Option<String>,
    /// Also take the IngressClass whose name is --ingress-class, whatever its controller
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    pub ingress_class_by_name: Option<bool>,
    /// Also serve Ingresses that name no class
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    pub watch_ingress_without_class: Option<bool>,
    /// Only see these namespaces [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NS,…")]
    pub watch_namespace: Vec<String>,
    /// The Service whose addresses are written into the status of Ingresses
    #[arg(long, value_name = "NS/NAME", conflicts_with = "publish_status_address")]
    pub publish_service: Option<String>,
    /// The addresses or names that are written into the status of Ingresses
    #[arg(long, value_delimiter = ',', value_name = "ADDR,…")]
    pub publish_status_address: Vec<String>,
    /// Write the status of objects; `=false` for running beside another controller
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_name = "BOOL")]
    pub update_status: Option<bool>,
    /// The Secret with the certificate for names that have none of their own
    #[arg(long, value_name = "NS/NAME")]
    pub default_ssl_certificate: Option<String>,
    /// Allow `url` backends, and Services of type ExternalName in the native profile
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    pub allow_external_backends: Option<bool>,
    /// Addresses that external backends may have although they are loopback, link-local or the like
    #[arg(long, value_delimiter = ',', value_parser = network, value_name = "CIDR,…")]
    pub allow_external_addresses: Vec<IpNet>,
    /// How Secrets are read: all of type kubernetes.io/tls by one watch, or each that is wanted by its name (for RBAC with resourceNames)
    #[arg(long, default_value = "all", value_name = "HOW")]
    pub secrets: Secrets,
    /// The name of the Lease by which replicas agree on who writes status and Events
    #[arg(long, default_value = "penstock-leader", value_name = "NAME")]
    pub election_id: String,
    /// The namespace of that Lease [default: $POD_NAMESPACE, else that of the kubeconfig]
    #[arg(long, value_name = "NS")]
    pub election_namespace: Option<String>,
    /// How long a leader that is not heard of stays leader
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub election_ttl: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Secrets {
    All,
    ByName,
}

/// Objects in files, and what the command line says of them: the same for all commands that read files.
#[derive(Debug, Args)]
pub struct ManifestOptions {
    /// Manifests: files, or folders of .yaml, .yml and .json files; `-` for standard input, where nothing is followed
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// A Secret from PEM files; they are read again when they change. May be given more than once, or with `;` between
    #[arg(long, value_delimiter = ';', value_name = "[NS/]NAME=CERT,KEY")]
    pub tls_secret: Vec<TlsSecret>,
    /// The Secret with the certificate for names that have none of their own
    #[arg(long, value_name = "NS/NAME")]
    pub default_ssl_certificate: Option<String>,
    /// Only objects of this class [default: all objects]
    #[arg(long, value_name = "NAME")]
    pub ingress_class: Option<String>,
    /// Allow `url` backends, and Services of type ExternalName in the native profile; `controller` does not by default
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_name = "BOOL")]
    pub allow_external_backends: Option<bool>,
}

#[derive(Debug, Args)]
pub struct ServeOptions {
    #[command(flatten)]
    pub manifests: ManifestOptions,
    #[command(flatten)]
    pub serving: ServingOptions,
    /// Follow changes of the files
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_name = "BOOL")]
    pub watch: Option<bool>,
}

#[derive(Debug, Args)]
pub struct ProxyOptions {
    /// The name that clients ask for, as `code.example.com` or `*.example.com`; `*` for any
    #[arg(long, value_name = "HOST")]
    pub from: String,
    /// Where it is, as `http://192.168.90.100:8443`
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// The certificate chain (PEM) [default: one is made]
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The private key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Do not verify the certificate of an https:// address
    #[arg(long)]
    pub insecure: bool,
    #[command(flatten)]
    pub serving: ServingOptions,
}

#[derive(Debug, Args)]
pub struct CheckOptions {
    #[command(flatten)]
    pub manifests: ManifestOptions,
    /// The form of the report
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct ExplainOptions {
    /// As a client would ask, with scheme (http, https, ws, wss) and host
    #[arg(value_name = "URL")]
    pub url: String,
    #[command(flatten)]
    pub manifests: ManifestOptions,
    /// The method
    #[arg(short = 'X', long = "method", default_value = "GET", value_name = "METHOD")]
    pub method: String,
    /// A header of the request; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// The client's address
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    pub client: std::net::IpAddr,
    /// The port at which clients reach plain HTTP, for redirects
    #[arg(long, default_value = "80", value_parser = clap::value_parser!(u16).range(1..), value_name = "PORT")]
    pub public_http_port: u16,
    /// The port at which clients reach HTTPS, for redirects
    #[arg(long, default_value = "443", value_parser = clap::value_parser!(u16).range(1..), value_name = "PORT")]
    pub public_https_port: u16,
}

#[derive(Debug, Args)]
pub struct ReferenceOptions {
    pub page: ReferencePage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReferencePage {
    Annotations,
    Proxyroute,
    Profiles,
    CommandLine,
}

#[derive(Debug, Args)]
pub struct CompletionsOptions {
    pub shell: clap_complete::Shell,
}

fn duration(text: &str) -> Result<Duration, String> {
    penstock_model::units::parse_duration(text).ok_or_else(|| "expected a time such as `30s` or `1m30s`".to_owned())
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(|_| address()).map_err(|_| "expected a network such as `10.0.0.0/8`, or an address".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    penstock_model::units::parse_size(text).ok_or_else(|| "expected a number of bytes such as `65536` or `64Ki`".to_owned())
}

/// The whole command line, with the environment variable of each flag.
pub fn command() -> clap::Command {
    with_environment(Cli::command())
}

/// Parses the arguments of this process, or ends it with a message.
pub fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// `--public-http-port` is also `PENSTOCK_PUBLIC_HTTP_PORT`. An empty variable is as none: so manifests can leave one open.
fn with_environment(command: clap::Command) -> clap::Command {
    command
        .mut_args(|argument| {
            let switch = argument.get_value_parser().type_id() == ValueParser::bool().type_id();
            let argument = if switch { argument.value_parser(BoolishValueParser::new()) } else { argument };
            match argument.get_long() {
                Some(long) if !matches!(long, "help" | "version") => {
                    let name = format!("PENSTOCK_{}", long.replace('-', "_").to_uppercase());
                    let empty = std::env::var_os(&name).is_some_and(|value| value.is_empty());
                    if empty { argument } else { argument.env(name).hide_env(true) }
                }
                _ => argument,
            }
        })
        .mut_subcommands(with_environment)
        // As with the flags of Go programs: whoever appends to arguments that somebody else wrote has the last word.
        .args_override_self(true)
        .after_help("Every flag can also be given as an environment variable: --some-flag as PENSTOCK_SOME_FLAG.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn switches_can_be_given_bare_and_with_a_value() {
        let parse = |arguments: &[&str]| {
            let matches = command().try_get_matches_from(arguments).unwrap();
            match Cli::from_arg_matches(&matches).unwrap().command {
                Command::Controller(options) => options.update_status,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(parse(&["penstock", "controller"]), Some(true));
        assert_eq!(parse(&["penstock", "controller", "--update-status=false"]), Some(false));
        assert_eq!(parse(&["penstock", "controller", "--update-status"]), Some(true));
    }

    fn serve(arguments: &[&str]) -> ServeOptions {
        let matches = command().try_get_matches_from([&["penstock", "serve", "."], arguments].concat()).unwrap();
        match Cli::from_arg_matches(&matches).unwrap().command {
            Command::Serve(options) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_last_of_a_repeated_flag_counts_and_lists_grow() {
        let options = serve(&["--http", "off", "--http", "[::]:80", "--tls-secret", "a=c,k;b=c,k", "--tls-secret", "c=c,k"]);
        assert_eq!(options.serving.http, "[::]:80");
        assert_eq!(options.manifests.tls_secret.len(), 3);
    }

    #[test]
    fn networks_may_be_single_addresses_and_have_blanks() {
        let options = serve(&["--trusted-proxies", "10.0.0.1, 192.168.0.0/16,fd00::1"]);
        assert_eq!(
            options.serving.trusted_proxies,
            ["10.0.0.1/32", "192.168.0.0/16", "fd00::1/128"].map(|network| network.parse().unwrap())
        );
        assert!(command().try_get_matches_from(["penstock", "serve", ".", "--trusted-proxies", "ten"]).is_err());
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        fn walk(command: &clap::Command) {
            for argument in command.get_arguments() {
                if let Some(long) = argument.get_long().filter(|long| !matches!(*long, "help" | "version")) {
                    let expected = format!("PENSTOCK_{}", long.replace('-', "_").to_uppercase());
                    assert_eq!(argument.get_env().and_then(|env| env.to_str()), Some(&expected[..]), "{}", command.get_name());
                }
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&command());
    }
}
