//! Penstock: `serve` over a folder, one file a route.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use super::{Kind, Peer, Plan, Start, version};

const ROUTES: &str = include_str!("../../peers.d/penstock.yaml");
const ROUTE: &str = include_str!("../../peers.d/penstock-route.yaml");

/// The builds that are given, or the release build of this source tree, made now. Only of that one the commit is known: a program that was given
/// may be of any.
pub fn find(given: &[String]) -> anyhow::Result<Vec<Peer>> {
    let peer = |name: &str, program: PathBuf, commit: &str| {
        let version = format!("{}{commit}", version(Kind::Penstock, &program));
        Peer { name: name.to_owned(), kind: Kind::Penstock, program, version }
    };
    if given.is_empty() {
        return Ok(vec![peer("penstock", build()?, &commit())]);
    }
    let mut peers = Vec::new();
    for text in given {
        let (name, path) = text.split_once('=').unwrap_or(("penstock", text));
        let program = fs::canonicalize(path).with_context(|| format!("--penstock {path}"))?;
        peers.push(peer(name, program, " (a program that was given)"));
    }
    Ok(peers)
}

/// The source tree that this binary was built from.
pub fn source() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Where cargo puts what it builds: two folders above this program.
pub fn target() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    own.ancestors().nth(2).map(Path::to_path_buf).context("no target folder")
}

/// As images have it.
fn build() -> anyhow::Result<PathBuf> {
    eprintln!("building penstock (release); some minutes the first time");
    let output = Command::new(source().join("pgo/build"))
        .arg("--quiet")
        .env("CARGO_TARGET_DIR", target()?)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("pgo/build")?;
    anyhow::ensure!(output.status.success(), "penstock could not be built");
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// The commit of the source tree, if it is one of git's.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(source()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return String::new() };
    let edited = git(&["status", "--porcelain", "--", "src", "crates", "Cargo.lock"]).is_some_and(|edits| !edits.is_empty());
    format!(" ({commit}{})", if edited { " and edits" } else { "" })
}

/// The folder of routes of a Penstock.
#[derive(Debug)]
pub struct RouteFolder {
    folder: PathBuf,
    backend: String,
}

/// The seconds of a route's idle limit in the first edition; each edit makes it one more.
const FIRST_EDITION: u32 = 3600;

impl RouteFolder {
    /// What is served. It has a folder above of its own: that is watched too, for the name of this one, and logs are not to be written there.
    pub fn of(running: &Path, backend: std::net::SocketAddr) -> Self {
        Self { folder: running.join("served/routes"), backend: backend.to_string() }
    }

    /// Another one, empty, which is not served. Who edits it takes what edits take of the machine, and changes nothing.
    pub fn beside(running: &Path, backend: std::net::SocketAddr) -> anyhow::Result<Self> {
        let folder = running.join("beside");
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, backend: backend.to_string() })
    }

    fn text(&self, number: u32, edition: u32) -> String {
        ROUTE
            .replace("{{NUMBER}}", &number.to_string())
            .replace("{{BACKEND}}", &self.backend)
            .replace("{{EDITION}}", &(FIRST_EDITION + edition).to_string())
    }

    /// Writes all routes as they are first.
    fn fill(&self, routes: u32) -> anyhow::Result<()> {
        for number in 0..routes {
            fs::write(self.folder.join(format!("route-{number}.yaml")), self.text(number, 0))?;
        }
        Ok(())
    }

    /// Changes one route, by a rename, as an editor does.
    pub fn edit(&self, number: u32, edition: u32) -> anyhow::Result<()> {
        let next = self.folder.join(".next");
        fs::write(&next, self.text(number, edition))?;
        Ok(fs::rename(next, self.folder.join(format!("route-{number}.yaml")))?)
    }
}

pub fn plan(start: &Start<'_>) -> anyhow::Result<Plan> {
    let folder = RouteFolder::of(start.folder, start.scene.backend.http);
    fs::create_dir_all(&folder.folder)?;
    fs::write(folder.folder.join("bench.yaml"), start.fill(ROUTES, &[]))?;
    folder.fill(start.scene.routes)?;
    let certificate = &start.scene.certificate;
    let secret = format!("bench={},{}", certificate.chain.display(), certificate.key.display());
    let mut arguments: Vec<std::ffi::OsString> = ["serve".into(), folder.folder.into()].into();
    for (flag, value) in [
        ("--workers", "1".to_owned()),
        ("--http", start.http.to_string()),
        ("--https", start.https.to_string()),
        ("--admin", start.admin.to_string()),
        ("--tls-secret", secret),
        ("--state-dir", start.folder.join("state").display().to_string()),
        // What a change of routes took stands in the lines of the pipeline.
        ("--log-level", if start.scene.routes > 0 { "info,penstock::pipeline=debug" } else { "info" }.to_owned()),
        ("--idle-timeout", "1h".to_owned()),
        ("--access-log", if start.scene.access_log { "combined" } else { "off" }.to_owned()),
    ] {
        arguments.extend([flag.into(), value.into()]);
    }
    Ok(Plan { arguments, ..Plan::default() })
}
