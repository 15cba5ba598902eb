//! The proxies: which are here, how each is configured and started, when it is ready.
//!
//! A configuration is a file of `peers.d/`, filled in; the modules below say only what differs.

mod caddy;
mod envoy;
mod haproxy;
mod nginx;
mod penstock;
mod traefik;

use std::{
    ffi::OsString,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use tempfile::TempDir;

use crate::{
    backend::Addresses,
    certificate::{Certificate, HOST},
    child::{self, Child, Program},
    cli::Options,
    port,
};

pub use penstock::{RouteFolder, source, target};

/// How long a start may take, and how much more for each route.
const PATIENCE: Duration = Duration::from_secs(20);
const PATIENCE_A_ROUTE: Duration = Duration::from_millis(2);
/// Connections that a proxy is told to take: what descriptors allow, with two for each and some for itself.
const SPARE_DESCRIPTORS: u64 = 400;

/// The proxies that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Penstock,
    Nginx,
    Haproxy,
    Envoy,
    Caddy,
    Traefik,
}

impl Kind {
    pub const ALL: [Self; 6] = [Self::Penstock, Self::Nginx, Self::Haproxy, Self::Envoy, Self::Caddy, Self::Traefik];
    /// Those without which there is nothing to compare.
    pub const MAIN: [Self; 3] = [Self::Penstock, Self::Nginx, Self::Haproxy];

    pub fn name(self) -> &'static str {
        match self {
            Self::Penstock => "penstock",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
        }
    }
}

/// A proxy that can be started.
#[derive(Clone, Debug)]
pub struct Peer {
    pub name: String,
    pub kind: Kind,
    pub program: PathBuf,
    pub version: String,
}

/// Finds those that are wanted. The second list names the ones that are not here, and how to get them.
pub fn find(options: &Options) -> anyhow::Result<(Vec<Peer>, Vec<String>)> {
    let wanted = wanted(options)?;
    let (mut peers, mut missing) = (Vec::new(), Vec::new());
    for kind in wanted {
        if kind == Kind::Penstock {
            peers.extend(penstock::find(&options.penstock)?);
            continue;
        }
        match (program(kind), Kind::MAIN.contains(&kind)) {
            (Some(program), _) => {
                let version = version(kind, &program);
                peers.push(Peer { name: kind.name().to_owned(), kind, program, version });
            }
            (None, true) => anyhow::bail!(
                "{name} is not here; on Debian: apt-get install --no-install-recommends nginx haproxy (and stop the services they start)",
                name = kind.name()
            ),
            (None, false) => {
                let how = if kind == Kind::Traefik { "builds it, with Go, in ten minutes or more" } else { "brings it, from PyPI" };
                missing.push(format!("{}: not here; `make bench-peers` {how}", kind.name()));
            }
        }
    }
    Ok((peers, missing))
}

fn wanted(options: &Options) -> anyhow::Result<Vec<Kind>> {
    if options.peers.is_empty() {
        return Ok(if options.quick { Kind::MAIN.to_vec() } else { Kind::ALL.to_vec() });
    }
    let known = |name: &String| {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        kind.with_context(|| format!("--peers: `{name}` is none of penstock, nginx, haproxy, envoy, caddy, traefik"))
    };
    options.peers.iter().map(known).collect()
}

/// Where the program is: in the folder that `bench/peers` fills, or on the PATH (and in sbin, which is not on everybody's).
fn program(kind: Kind) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let own = cache.map(|cache| cache.join("penstock/bench-peers/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = own.into_iter().chain(std::env::split_paths(&path)).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(kind.name())).find(|program| program.is_file())
}

fn version(kind: Kind, program: &Path) -> String {
    let arguments: &[&str] = match kind {
        Kind::Penstock | Kind::Envoy => &["--version"],
        Kind::Nginx | Kind::Haproxy => &["-v"],
        Kind::Caddy | Kind::Traefik => &["version"],
    };
    let Ok(output) = Command::new(program).args(arguments).output() else { return "unknown".to_owned() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // The first thing that looks like one: 1.22.1, v2.11.7, 2.6.12-1+deb12u4.
    let word = text
        .split([' ', '/', '\n'])
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.'));
    word.unwrap_or("unknown").to_owned()
}

/// What proxies are started for.
#[derive(Clone, Debug)]
pub struct Scene {
    pub backend: Addresses,
    pub certificate: Certificate,
    /// Where proxies run.
    pub cores: Vec<usize>,
    pub access_log: bool,
    /// Routes besides that of the usual host, each with a host of its own.
    pub routes: u32,
}

/// A proxy that serves; ended when dropped.
#[derive(Debug)]
pub struct Running {
    pub child: Child,
    pub http: SocketAddr,
    pub https: SocketAddr,
    /// Its configuration, logs and the like.
    pub folder: TempDir,
}

impl Running {
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("output.log")
    }

    /// Where it writes a line for each request, if it is asked to: a file of its own, or its standard output.
    pub fn access_log(&self) -> PathBuf {
        let own = self.folder.path().join("access.log");
        if own.exists() { own } else { self.log() }
    }
}

/// What a module has to say of its proxy.
#[derive(Debug, Default)]
struct Plan {
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
}

/// A start: the places that a configuration names.
struct Start<'a> {
    peer: &'a Peer,
    scene: &'a Scene,
    folder: &'a Path,
    http: SocketAddr,
    https: SocketAddr,
    admin: SocketAddr,
}

impl Start<'_> {
    /// Fills in a template.
    fn fill(&self, template: &str, more: &[(&str, &str)]) -> String {
        let scene = self.scene;
        let show = |path: &Path| path.display().to_string();
        let descriptors = child::descriptors();
        let common = [
            ("DIR", show(self.folder)),
            ("HTTP", self.http.to_string()),
            ("HTTPS", self.https.to_string()),
            ("HTTP_PORT", self.http.port().to_string()),
            ("HTTPS_PORT", self.https.port().to_string()),
            ("BACKEND", scene.backend.http.to_string()),
            ("GRPC", scene.backend.grpc.to_string()),
            ("BACKEND_PORT", scene.backend.http.port().to_string()),
            ("GRPC_PORT", scene.backend.grpc.port().to_string()),
            ("CHAIN", show(&scene.certificate.chain)),
            ("KEY", show(&scene.certificate.key)),
            ("BOTH", show(&scene.certificate.both)),
            ("DESCRIPTORS", descriptors.to_string()),
            ("CONNECTIONS", (descriptors.saturating_sub(SPARE_DESCRIPTORS) / 2).to_string()),
        ];
        let mut text = template.to_owned();
        for (name, value) in more {
            text = text.replace(&format!("{{{{{name}}}}}"), value);
        }
        for (name, value) in common {
            text = text.replace(&format!("{{{{{name}}}}}"), &value);
        }
        text
    }

    /// Writes a filled template to the folder; gives its path.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<OsString> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path.into())
    }

    fn access_log(&self) -> PathBuf {
        self.folder.join("access.log")
    }
}

/// Starts a proxy and waits until it serves both ports.
pub fn start(peer: &Peer, scene: &Scene) -> anyhow::Result<Running> {
    start_it(peer, scene).with_context(|| format!("{} could not be started", peer.name))
}

fn start_it(peer: &Peer, scene: &Scene) -> anyhow::Result<Running> {
    let folder = tempfile::Builder::new().prefix("penstock-bench-").tempdir()?;
    let (http, https, admin) = (port::free()?, port::free()?, port::free()?);
    let start = Start { peer, scene, folder: folder.path(), http, https, admin };
    let plan = match peer.kind {
        Kind::Penstock => penstock::plan(&start),
        Kind::Nginx => nginx::plan(&start),
        Kind::Haproxy => haproxy::plan(&start),
        Kind::Envoy => envoy::plan(&start),
        Kind::Caddy => caddy::plan(&start),
        Kind::Traefik => traefik::plan(&start),
    }?;
    let child = Child::start(&Program {
        path: peer.program.clone(),
        arguments: plan.arguments,
        environment: plan.environment,
        cores: scene.cores.clone(),
        output: Some(folder.path().join("output.log")),
    })?;
    let mut running = Running { child, http, https, folder };
    let child = &mut running.child;
    let patience = PATIENCE + PATIENCE_A_ROUTE * scene.routes;
    child.until("it serves HTTP", patience, || answers(http))?;
    child.until("it serves HTTPS", PATIENCE, || TcpStream::connect(https).is_ok())?;
    Ok(running)
}

/// Whether a GET of the usual host is answered 200.
fn answers(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
}
