//! A real control plane: etcd, kube-apiserver and kube-controller-manager, with nothing faked but the nodes.
//!
//! `tests/cluster/build` builds the parts from pinned Go modules, once; `KUBEBUILDER_ASSETS` or the PATH may offer them instead. Each
//! cluster has its own folder, ports and certificates, and ends with the value that stands for it. Clusters of one test process run
//! one at a time, since two cores carry no more.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use crate::support::free_port;
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

/// How long a part may take to come up on a busy machine.
const START: Duration = Duration::from_secs(120);
pub const SERVICES: &str = "10.96.0.0/16";
/// The name of the one node that a cluster may have.
pub const NODE: &str = "node";
/// Parts that a node brings, and who they are.
const PARTS: [(&str, [(DnType, &str); 2]); 3] = [
    ("kubelet", [(DnType::OrganizationName, "system:nodes"), (DnType::CommonName, "system:node:node")]),
    ("kube-scheduler", [(DnType::OrganizationName, "penstock"), (DnType::CommonName, "system:kube-scheduler")]),
    ("kube-proxy", [(DnType::OrganizationName, "penstock"), (DnType::CommonName, "system:kube-proxy")]),
];

/// How a cluster differs from the usual one.
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    /// Write an audit log of every request.
    pub audit: bool,
    /// All parts run in this network namespace (`ip netns`); only processes in it reach them.
    pub netns: Option<String>,
    /// For a node to join: the API server listens at this address, and pods reach it through its Service.
    pub address: Option<String>,
    /// The CRDs are somebody else's to apply.
    pub without_crds: bool,
}

/// A running control plane; killed when dropped.
pub struct Cluster {
    dir: tempfile::TempDir,
    options: ClusterOptions,
    binaries: PathBuf,
    ports: Ports,
    etcd: Option<Child>,
    api_server: Option<Child>,
    controller_manager: Option<Child>,
    runtime: tokio::runtime::Runtime,
    client: Option<Client>,
    // Dropped last: the next cluster starts when this one is gone.
    _turn: MutexGuard<'static, ()>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    etcd: u16,
    peers: u16,
    api: u16,
    controllers: u16,
}

/// The folder that holds etcd, kube-apiserver, kubectl and the rest.
pub fn binaries() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let whole = |dir: &Path| {
                ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"].iter().all(|part| dir.join(part).exists())
            };
            let offered = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).into_iter();
            let path = std::env::var_os("PATH").unwrap_or_default();
            if let Some(dir) = offered.chain(std::env::split_paths(&path)).find(|dir| whole(dir)) {
                return dir;
            }
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/build");
            let output = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
            assert!(output.status.success(), "{script} failed; it needs Go 1.26 or newer");
            PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
        })
        .clone()
}

/// Helm, for charts.
pub fn helm() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let offered = std::env::var_os("HELM").map(PathBuf::from).into_iter();
    let found = offered.chain(std::env::split_paths(&path).map(|dir| dir.join("helm"))).find(|helm| helm.exists());
    found.unwrap_or_else(|| {
        let output =
            Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/build")).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "tests/cluster/build failed");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()).join("helm")
    })
}

impl Cluster {
    pub fn start(options: ClusterOptions) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::Builder::new().prefix("penstock-cluster").tempdir().unwrap();
        let ports = Ports { etcd: free_port(), peers: free_port(), api: free_port(), controllers: free_port() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut cluster = Self {
            dir,
            options,
            binaries: binaries(),
            ports,
            etcd: None,
            api_server: None,
            controller_manager: None,
            runtime,
            client: None,
            _turn: turn,
        };
        cluster.make_pki();
        cluster.etcd = Some(cluster.run_etcd());
        cluster.start_api_server();
        cluster.controller_manager = Some(cluster.run_controller_manager());
        if cluster.options.netns.is_none() || cluster.options.address.is_some() {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let path = cluster.kubeconfig();
            cluster.client = Some(cluster.runtime.block_on(async {
                let config = Kubeconfig::read_from(path).unwrap();
                let mut config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
                config.default_retry = false;
                Client::try_from(config).unwrap()
            }));
        }
        cluster.wait("the default service account", |cluster| cluster.try_kubectl(&["get", "serviceaccount", "default"]).is_ok());
        if !cluster.options.without_crds {
            cluster.kubectl(&["apply", "--server-side", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/crds")]);
            cluster.wait("the CRD is served", |cluster| cluster.try_kubectl(&["get", "proxyroutes"]).is_ok());
        }
        cluster
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    pub fn server(&self) -> String {
        format!("https://{}:{}", self.address(), self.ports.api)
    }

    fn address(&self) -> &str {
        self.options.address.as_deref().unwrap_or("127.0.0.1")
    }

    /// A kubeconfig of a part of the cluster: see [`PARTS`].
    pub fn part(&self, name: &str) -> PathBuf {
        let path = self.path(&format!("{name}.kubeconfig"));
        let file = |end: &str| self.path(&format!("{name}.{end}"));
        let user = json!({ "client-certificate": file("crt"), "client-key": file("key") });
        fs::write(&path, self.kubeconfig_with(&user, "default")).unwrap();
        path
    }

    /// A client as administrator, for use on [`Cluster::runtime`].
    pub fn client(&self) -> Client {
        self.client.clone().unwrap()
    }

    pub fn runtime(&self) -> &tokio::runtime::Runtime {
        &self.runtime
    }

    /// A kubeconfig that stands for a ServiceAccount, with a token of its own.
    pub fn service_account(&self, namespace: &str, name: &str) -> PathBuf {
        let token = self.kubectl(&["create", "token", name, "-n", namespace, "--duration", "2h"]);
        let path = self.path(&format!("{namespace}-{name}.kubeconfig"));
        let user = json!({ "token": token.trim() });
        fs::write(&path, self.kubeconfig_with(&user, namespace)).unwrap();
        path
    }

    fn kubeconfig_with(&self, user: &Value, namespace: &str) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": self.server(), "certificate-authority": self.path("ca.crt") } }],
            "users": [{ "name": "u", "user": user }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u", "namespace": namespace } }],
        })
        .to_string()
    }

    pub fn audit_log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("audit.log")).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn make_pki(&self) {
        let ca_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test CA");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        fs::write(self.path("ca.crt"), params.self_signed(&ca_key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, ca_key);
        let leaf = |file: &str, subject: &[(DnType, &str)], names: &[&str]| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            for (kind, value) in subject {
                params.distinguished_name.push(kind.clone(), *value);
            }
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            params.subject_alt_names = names
                .iter()
                .map(|name| match name.parse() {
                    Ok(address) => SanType::IpAddress(address),
                    Err(_) => SanType::DnsName((*name).try_into().unwrap()),
                })
                .collect();
            fs::write(self.path(&format!("{file}.crt")), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
            fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
        };
        leaf(
            "apiserver",
            &[(DnType::CommonName, "kube-apiserver")],
            &["127.0.0.1", "10.96.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", self.address()],
        );
        for (part, subject) in PARTS {
            leaf(part, &subject, &[self.address(), NODE]);
        }
        leaf("admin", &[(DnType::OrganizationName, "system:masters"), (DnType::CommonName, "admin")], &[]);
        let tokens = KeyPair::generate().unwrap();
        fs::write(self.path("sa.key"), tokens.serialize_pem()).unwrap();
        fs::write(self.path("sa.pub"), tokens.public_key_pem()).unwrap();
        let user = json!({ "client-certificate": self.path("admin.crt"), "client-key": self.path("admin.key") });
        fs::write(self.kubeconfig(), self.kubeconfig_with(&user, "default")).unwrap();
        fs::write(
            self.path("audit.yaml"),
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n",
        )
        .unwrap();
    }

    /// A program that will run where the parts do.
    pub fn command(&self, part: &str) -> Command {
        let binary = self.binaries.join(part);
        match &self.options.netns {
            None => Command::new(binary),
            Some(netns) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{netns}")).arg(binary);
                command
            }
        }
    }

    /// Starts a part; its log is in the cluster's folder.
    pub fn spawn(&self, part: &str, arguments: &[String]) -> Child {
        let log = fs::File::options().create(true).append(true).open(self.path(&format!("{part}.log"))).unwrap();
        let error = log.try_clone().unwrap();
        self.command(part).args(arguments).stdin(Stdio::null()).stdout(log).stderr(error).spawn().unwrap()
    }

    fn run_etcd(&self) -> Child {
        let (clients, peers) = (format!("http://127.0.0.1:{}", self.ports.etcd), format!("http://127.0.0.1:{}", self.ports.peers));
        self.spawn(
            "etcd",
            &[
                "--data-dir".to_owned(),
                self.path("etcd").display().to_string(),
                "--unsafe-no-fsync".to_owned(),
                format!("--listen-client-urls={clients}"),
                format!("--advertise-client-urls={clients}"),
                format!("--listen-peer-urls={peers}"),
                format!("--initial-advertise-peer-urls={peers}"),
                format!("--initial-cluster=default={peers}"),
            ],
        )
    }

    /// Starts the API server and waits until it is ready.
    pub fn start_api_server(&mut self) {
        let file = |name: &str| self.path(name).display().to_string();
        let mut arguments = vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd),
            format!("--bind-address={}", self.address()),
            // Without a default route, as in a namespace of a test, it finds none itself.
            format!("--advertise-address={}", self.address()),
            format!("--secure-port={}", self.ports.api),
            format!("--tls-cert-file={}", file("apiserver.crt")),
            format!("--tls-private-key-file={}", file("apiserver.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--profiling=false".to_owned(),
        ];
        if self.options.address.is_some() {
            // For logs of pods.
            arguments.push(format!("--kubelet-client-certificate={}", file("admin.crt")));
            arguments.push(format!("--kubelet-client-key={}", file("admin.key")));
            arguments.push(format!("--kubelet-certificate-authority={}", file("ca.crt")));
            arguments.push("--kubelet-preferred-address-types=InternalIP".to_owned());
        } else {
            arguments.push("--endpoint-reconciler-type=none".to_owned());
        }
        if self.options.audit {
            arguments.push(format!("--audit-log-path={}", file("audit.log")));
            arguments.push(format!("--audit-policy-file={}", file("audit.yaml")));
        }
        self.api_server = Some(self.spawn("kube-apiserver", &arguments));
        self.wait("the API server is ready", |cluster| cluster.try_kubectl(&["get", "--raw", "/readyz"]).is_ok());
    }

    /// Kills the API server at once.
    pub fn kill_api_server(&mut self) {
        kill(self.api_server.take());
    }

    fn run_controller_manager(&self) -> Child {
        self.spawn(
            "kube-controller-manager",
            &[
                format!("--kubeconfig={}", self.kubeconfig().display()),
                "--leader-elect=false".to_owned(),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={}", self.ports.controllers),
                format!("--root-ca-file={}", self.path("ca.crt").display()),
                format!("--service-account-private-key-file={}", self.path("sa.key").display()),
                "--profiling=false".to_owned(),
            ],
        )
    }

    pub fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + START;
        while !done(self) {
            assert!(
                Instant::now() < end,
                "not within {START:?}: {what}; the API server's log ends with\n{}",
                self.log_tail("kube-apiserver")
            );
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    pub fn log_tail(&self, part: &str) -> String {
        let text = fs::read_to_string(self.path(&format!("{part}.log"))).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Runs kubectl as administrator; gives what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|error| panic!("kubectl {}: {error}", arguments.join(" ")))
    }

    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self
            .command("kubectl")
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// One request to the API server, as administrator.
    pub async fn ask(client: &Client, method: &str, path: &str, content_type: &str, body: Vec<u8>) -> Result<Value, kube::Error> {
        let request = http::Request::builder().method(method).uri(path).header("content-type", content_type).body(body).unwrap();
        client.request::<Value>(request).await
    }

    /// Server-side apply of one object.
    pub async fn apply_with(client: &Client, object: &Value) -> Result<Value, kube::Error> {
        let path = format!("{}?fieldManager=test&force=true", path_of(object));
        Self::ask(client, "PATCH", &path, "application/apply-patch+yaml", object.to_string().into_bytes()).await
    }

    pub fn try_apply(&self, yaml: &str) -> Result<(), String> {
        for object in objects(yaml) {
            self.runtime.block_on(Self::apply_with(&self.client(), &object)).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Server-side apply of the objects in a YAML stream.
    pub fn apply(&self, yaml: &str) {
        self.try_apply(yaml).unwrap_or_else(|error| panic!("apply: {error}\n{yaml}"));
    }

    /// Replaces the status of an object, as another controller would.
    pub fn apply_status(&self, yaml: &str) {
        for object in objects(yaml) {
            let path = format!("{}/status?fieldManager=cloud&force=true", path_of(&object));
            let body = object.to_string().into_bytes();
            self.runtime.block_on(Self::ask(&self.client(), "PATCH", &path, "application/apply-patch+yaml", body)).unwrap();
        }
    }

    /// None: there is no such object.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let path = object_path(kind, namespace, name);
        match self.runtime.block_on(Self::ask(&self.client(), "GET", &path, "application/json", Vec::new())) {
            Ok(value) => Some(value),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("get {path}: {error}"),
        }
    }

    pub fn list(&self, path: &str) -> Vec<Value> {
        let list = self.runtime.block_on(Self::ask(&self.client(), "GET", path, "application/json", Vec::new())).unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let path = object_path(kind, namespace, name);
        self.runtime.block_on(Self::ask(&self.client(), "DELETE", &path, "application/json", Vec::new())).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the API server's log ends with\n{}", self.log_tail("kube-apiserver"));
        }
        self.client = None;
        kill(self.controller_manager.take());
        kill(self.api_server.take());
        kill(self.etcd.take());
    }
}

fn kill(child: Option<Child>) {
    if let Some(mut child) = child {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The objects in a YAML stream.
pub fn objects(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple::<Value>(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

fn path_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or("default");
    object_path(&text(&object["kind"]), namespace, &text(&metadata["name"]))
}

/// Where an object lives in the API.
pub fn object_path(kind: &str, namespace: &str, name: &str) -> String {
    let (group, plural, namespaced) = match kind {
        "Namespace" => ("api/v1", "namespaces", false),
        "Service" => ("api/v1", "services", true),
        "Secret" => ("api/v1", "secrets", true),
        "ConfigMap" => ("api/v1", "configmaps", true),
        "ServiceAccount" => ("api/v1", "serviceaccounts", true),
        "EndpointSlice" => ("apis/discovery.k8s.io/v1", "endpointslices", true),
        "Ingress" => ("apis/networking.k8s.io/v1", "ingresses", true),
        "IngressClass" => ("apis/networking.k8s.io/v1", "ingressclasses", false),
        "ProxyRoute" => ("apis/penstock.dev/v1alpha1", "proxyroutes", true),
        "Lease" => ("apis/coordination.k8s.io/v1", "leases", true),
        "Role" => ("apis/rbac.authorization.k8s.io/v1", "roles", true),
        "RoleBinding" => ("apis/rbac.authorization.k8s.io/v1", "rolebindings", true),
        "ClusterRole" => ("apis/rbac.authorization.k8s.io/v1", "clusterroles", false),
        "ClusterRoleBinding" => ("apis/rbac.authorization.k8s.io/v1", "clusterrolebindings", false),
        "CustomResourceDefinition" => ("apis/apiextensions.k8s.io/v1", "customresourcedefinitions", false),
        other => panic!("tests know no {other}"),
    };
    if namespaced { format!("/{group}/namespaces/{namespace}/{plural}/{name}") } else { format!("/{group}/{plural}/{name}") }
}
