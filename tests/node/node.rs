//! A real node for a control plane: containerd, kubelet, kube-proxy and scheduler, in a network namespace of their own.
//!
//! Needs root and Debian's `containerd runc containernetworking-plugins nftables iptables conntrack iproute2`. The machine outside the
//! namespace reaches pods, Services with an address, and the API server directly. Everything lives under the cluster's folder and is
//! taken down on drop: processes by their id, then tasks, mounts, links and control groups.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::cluster::{Cluster, ClusterOptions, NODE, SERVICES, binaries};

/// What must be there, with the Debian package that brings it.
const TOOLS: [(&str, &str); 7] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
];
const PLUGINS: &str = "/usr/lib/cni";

/// A cluster with a node.
pub struct Node {
    /// Apart for clusters of tests that run at once; it is part of names and addresses.
    number: u8,
    pub cluster: Cluster,
    parts: Vec<(&'static str, Child)>,
    containerd: Option<Child>,
}

fn on_path(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(tool)).find(|file| file.exists())
}

/// Says by name what is missing on this machine.
fn check_machine() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let root = status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    assert!(root, "a node needs root");
    let mut missing: Vec<_> = TOOLS.iter().filter(|(tool, _)| on_path(tool).is_none()).map(|(_, package)| *package).collect();
    if !Path::new(PLUGINS).join("bridge").exists() {
        missing.push("containernetworking-plugins");
    }
    let parts = binaries();
    for part in ["kubelet", "kube-proxy", "kube-scheduler"] {
        let there = parts.join(part).exists();
        assert!(there, "{} has no {part}; without KUBEBUILDER_ASSETS, tests/cluster/build makes one", parts.display());
    }
    assert!(missing.is_empty(), "a node needs these Debian packages: {}", missing.join(" "));
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Err(format!("{command:?}: {}\n{said}{error}", output.status))
    }
}

fn line(line: &str) -> Result<String, String> {
    let mut words = line.split(' ');
    run(Command::new(words.next().unwrap()).args(words))
}

impl Node {
    /// Starts everything and waits for the node to be ready. `images` are OCI archives that it will have.
    pub fn start(images: &[PathBuf]) -> Self {
        check_machine();
        let number = (1..=250_u8).find(|number| line(&format!("ip netns add penstock-node{number}")).is_ok());
        let number = number.expect("a name for a network namespace");
        let address = Self::address_of(number);
        for command in [
            format!("ip -n penstock-node{number} link set lo up"),
            format!("ip link add psk{number} type veth peer name eth0 netns penstock-node{number}"),
            format!("ip address add 172.30.{number}.1/30 dev psk{number}"),
            format!("ip link set psk{number} up"),
            format!("ip -n penstock-node{number} address add {address}/30 dev eth0"),
            format!("ip -n penstock-node{number} link set eth0 up"),
            // The way back to the machine, and what a look-up of a Service's address finds before it is rewritten.
            format!("ip -n penstock-node{number} route add {SERVICES} via 172.30.{number}.1"),
            format!("ip route replace {} via {address}", Self::pods(number)),
        ] {
            line(&command).unwrap_or_else(|error| panic!("{error}"));
        }
        let forward = ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"];
        run(Command::new("nsenter").arg(format!("--net=/run/netns/penstock-node{number}")).args(forward)).unwrap();
        let cluster = Cluster::start(ClusterOptions {
            netns: Some(format!("penstock-node{number}")),
            address: Some(address),
            without_crds: true,
            ..ClusterOptions::default()
        });
        let mut node = Self { number, cluster, parts: Vec::new(), containerd: None };
        node.bring_up(images);
        node
    }

    fn address_of(number: u8) -> String {
        format!("172.30.{number}.2")
    }

    fn pods(number: u8) -> String {
        format!("10.{}.0.0/24", if number == 96 { 255 } else { number })
    }

    pub fn address(&self) -> String {
        Self::address_of(self.number)
    }

    /// Leads an address to the node, as a cloud's load balancer does.
    pub fn route(&self, address: &str) {
        line(&format!("ip route replace {address}/32 via {}", self.address())).unwrap();
    }

    fn dir(&self) -> String {
        self.cluster.path("").display().to_string().trim_end_matches('/').to_owned()
    }

    fn bring_up(&mut self, images: &[PathBuf]) {
        let dir = self.dir();
        for folder in ["c", "cni", "kubelet", "podlogs"] {
            fs::create_dir_all(self.cluster.path(folder)).unwrap();
        }
        fs::write(self.cluster.path("containerd.toml"), containerd_config(&dir)).unwrap();
        fs::write(self.cluster.path("cni/10-bridge.conflist"), cni_config(&dir, &Self::pods(self.number))).unwrap();
        fs::write(self.cluster.path("kubelet.yaml"), kubelet_config(&dir, &self.cgroup(), &self.address())).unwrap();
        self.make_cgroup();
        let containerd = on_path("containerd").unwrap();
        let log = fs::File::create(self.cluster.path("containerd.log")).unwrap();
        let mut command = self.cluster.command(containerd.to_str().unwrap());
        command.arg("--config").arg(self.cluster.path("containerd.toml")).stdin(Stdio::null());
        self.containerd = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        self.cluster.wait("containerd serves", |_| self.ctr(&["version"]).is_ok());
        for image in images {
            self.ctr(&["-n", "k8s.io", "images", "import", &image.display().to_string()]).unwrap();
        }
        let kubeconfig = |part: &str| format!("--kubeconfig={}", self.cluster.part(part).display());
        let parts: [(&str, Vec<String>); 3] = [
            (
                "kube-scheduler",
                vec![kubeconfig("kube-scheduler"), "--leader-elect=false".into(), "--bind-address=127.0.0.1".into()],
            ),
            (
                "kubelet",
                vec![
                    format!("--config={dir}/kubelet.yaml"),
                    kubeconfig("kubelet"),
                    format!("--root-dir={dir}/kubelet"),
                    format!("--cert-dir={dir}/kubelet/pki"),
                    format!("--hostname-override={NODE}"),
                    format!("--node-ip={}", self.address()),
                ],
            ),
            (
                "kube-proxy",
                vec![
                    kubeconfig("kube-proxy"),
                    format!("--hostname-override={NODE}"),
                    "--proxy-mode=nftables".into(),
                    format!("--cluster-cidr={}", Self::pods(self.number)),
                    format!("--bind-address={}", self.address()),
                    "--conntrack-max-per-core=0".into(),
                ],
            ),
        ];
        for (part, arguments) in parts {
            let child = self.cluster.spawn(part, &arguments);
            self.parts.push((part, child));
        }
        self.cluster.wait("the node is ready", |cluster| {
            let ready = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
            cluster.try_kubectl(&["get", "nodes", "-o", ready]).is_ok_and(|ready| ready == "True")
        });
    }

    /// containerd's own client, bounded: nothing may hold up the taking down.
    fn ctr(&self, arguments: &[&str]) -> Result<String, String> {
        let socket = self.cluster.path("c/c.sock");
        run(Command::new("timeout").arg("60").arg("ctr").arg("--address").arg(socket).args(arguments))
    }

    /// The ends of the parts' logs, for a test that failed.
    fn logs(&self) -> String {
        let parts = ["containerd", "kubelet", "kube-proxy", "kube-scheduler"];
        parts.map(|part| format!("--- {part}\n{}", self.cluster.log_tail(part))).join("\n")
    }

    fn cgroup(&self) -> String {
        format!("/penstock-node{}", self.number)
    }

    /// The kubelet wants its root group to exist in every hierarchy.
    fn make_cgroup(&self) {
        for hierarchy in hierarchies() {
            let group = hierarchy.join(self.cgroup().trim_start_matches('/'));
            fs::create_dir_all(&group).unwrap_or_else(|error| panic!("{}: {error}", group.display()));
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(hierarchy.join(file)) {
                    let _ = fs::write(group.join(file), value);
                }
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        // The kubelet first, since it restarts what is stopped before it.
        self.parts.sort_by_key(|(name, _)| *name != "kubelet");
        for (_, child) in &mut self.parts {
            let _ = child.kill();
            let _ = child.wait();
        }
        let tasks = self.ctr(&["-n", "k8s.io", "tasks", "ls", "-q"]).unwrap_or_default();
        for task in tasks.lines() {
            let _ = self.ctr(&["-n", "k8s.io", "tasks", "kill", "-s", "KILL", task]);
        }
        if let Some(mut containerd) = self.containerd.take() {
            let _ = containerd.kill();
            let _ = containerd.wait();
        }
        let socket = self.cluster.path("c/c.sock").display().to_string();
        for process in processes_with(&["containerd-shim", &socket]) {
            let _ = line(&format!("kill -KILL {process}"));
        }
        let below = format!("{}/", self.dir());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|point| point.starts_with(&below));
        let mut points: Vec<_> = points.collect();
        points.sort_unstable();
        for point in points.iter().rev() {
            let _ = line(&format!("umount -l {point}"));
        }
        let _ = line(&format!("ip link delete psk{}", self.number));
        let end = Instant::now() + Duration::from_secs(5);
        for hierarchy in hierarchies().into_iter().chain(mounted("cgroup2")) {
            let group = hierarchy.join(self.cgroup().trim_start_matches('/'));
            while group.exists() && !remove_groups(&group) && Instant::now() < end {
                std::thread::park_timeout(Duration::from_millis(50));
            }
        }
        // Its processes end with the cluster, in the moment after this; a namespace whose name is gone lasts as long as they do.
        let _ = line(&format!("ip netns delete penstock-node{}", self.number));
    }
}

/// The ids of the processes whose command line holds all of these.
pub fn processes_with(words: &[&str]) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|id: &u32| {
            let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            words.iter().all(|word| command.contains(word))
        })
        .collect()
}

fn remove_groups(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok()
}

/// Where the kubelet's control groups are: in each v1 hierarchy, or in the one v2 tree (which the runtime also uses beside v1).
fn hierarchies() -> Vec<PathBuf> {
    let v1 = mounted("cgroup");
    if v1.is_empty() { mounted("cgroup2") } else { v1 }
}

/// Where file systems of a kind are mounted.
fn mounted(kind: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|fields| fields.get(2) == Some(&kind)).filter_map(|fields| fields.get(1).map(PathBuf::from)).collect()
}

fn containerd_config(dir: &str) -> String {
    // oom_score_adj: root without CAP_SYS_RESOURCE may not lower it.
    format!(
        r#"version = 2
root = "{dir}/c/root"
state = "{dir}/c/state"
[grpc]
  address = "{dir}/c/c.sock"
[ttrpc]
  address = "{dir}/c/t.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/c/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{dir}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#
    )
}

fn cni_config(dir: &str, pods: &str) -> String {
    format!(
        r#"{{"cniVersion":"0.4.0","name":"pods","plugins":[
 {{"type":"bridge","bridge":"cni0","isGateway":true,"hairpinMode":true,"ipMasq":false,
  "ipam":{{"type":"host-local","dataDir":"{dir}/cnidata","ranges":[[{{"subnet":"{pods}"}}]],"routes":[{{"dst":"0.0.0.0/0"}}]}}}},
 {{"type":"portmap","capabilities":{{"portMappings":true}}}}]}}"#
    )
}

fn kubelet_config(dir: &str, cgroup: &str, address: &str) -> String {
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: {cgroup}
failSwapOn: false
containerRuntimeEndpoint: unix://{dir}/c/c.sock
authentication: {{anonymous: {{enabled: false}}, x509: {{clientCAFile: {dir}/ca.crt}}, webhook: {{enabled: true}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {dir}/kubelet.crt
tlsPrivateKeyFile: {dir}/kubelet.key
resolvConf: ""
clusterDNS: [{address}]
clusterDomain: cluster.local
podLogsDir: {dir}/podlogs
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}}
"#
    )
}
