//! What every serving mode does: open the sockets, run the pipeline over a source of changes, and shut down in good order.
//!
//! Order of a start: sockets are bound (a taken port ends the command at once), the first full table is made, listeners open, readiness
//! comes. Order of an end: readiness goes, the data plane drains, the process exits 0; a second signal ends it at once.

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use penstock_model::HostPattern;
use penstock_proxy::{AccessLogFormat, DataPlane, DrainOptions, ExternalAddresses, Limits, Options, StandBack};
use penstock_translate::{AddressGuard, Change, Key, Settings, Translation};
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    admin, allocator,
    cli::{AccessLog, ServingOptions},
    pipeline::Pipeline,
    systemd,
};

/// Threads of the control side beside the main one, which translates: one may be busy with a long list of a watch while the other answers probes and scrapes.
const CONTROL_THREADS: usize = 2;

/// After so many changes at once what reading and translating them took is worth giving back.
const MANY_CHANGES: usize = 500;

/// How long those who follow the end may take beyond the drain.
const FAREWELL: Duration = Duration::from_secs(3);

/// Where a process stands.
#[derive(Clone, Debug)]
pub enum Mode {
    /// On a machine: `serve`, `proxy`.
    Standalone,
    /// In a cluster, where addresses such as loopback are refused to `url` backends unless listed.
    Cluster { allowed_addresses: Vec<ipnet::IpNet> },
}

impl Mode {
    fn external(&self) -> ExternalAddresses {
        match self {
            Self::Standalone => ExternalAddresses::standalone(),
            Self::Cluster { allowed_addresses } => ExternalAddresses::cluster(allowed_addresses.clone()),
        }
    }

    /// The same rules for translation, except what only shows when connecting: which ports are our own.
    pub fn guard(&self) -> AddressGuard {
        let rules = self.external();
        AddressGuard::new(move |address| rules.check(SocketAddr::new(address, 0), &[]).err().map(|refused| refused.to_string()))
    }
}

/// Where changes come from.
pub trait Source: Send {
    /// The next changes. The first call gives the full state.
    fn changes(&mut self) -> impl Future<Output = anyhow::Result<Vec<Change>>> + Send;

    /// Called after each translation: true if what it wants is still on its way, so that it is better to wait for the next changes
    /// than to serve.
    fn incomplete(&mut self, translation: &Translation) -> bool {
        let _ = translation;
        false
    }
}

/// What a source may follow of the process that it feeds.
#[derive(Debug)]
pub struct Surroundings {
    /// The objects that every worker serves, and the report of them.
    pub served: penstock_kubernetes::ServedReceiver,
    /// True once the end began. The process waits a little until it is dropped.
    pub ending: tokio::sync::watch::Receiver<bool>,
}

/// Serves until a signal comes. `more_metrics` stand beside those of the data plane.
pub fn run<S, F>(
    options: &ServingOptions,
    mode: &Mode,
    settings: Settings,
    more_metrics: Registry,
    source: F,
) -> anyhow::Result<ExitCode>
where
    S: Source,
    F: AsyncFnOnce(Surroundings) -> anyhow::Result<S>,
{
    let admin_default = match mode {
        Mode::Standalone => "127.0.0.1:9090",
        Mode::Cluster { .. } => "[::]:9090",
    };
    anyhow::ensure!(
        off(&options.http).is_some() || off(&options.https).is_some(),
        "--http and --https are both off: there is nothing to serve"
    );
    let plane = Arc::new(DataPlane::start(data_plane_options(options, mode)?)?);
    let back = StandBack::from_here().inspect_err(|error| tracing::debug!(%error, "the control side does not stand back")).ok();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .on_thread_start(move || stand_back(back))
        .enable_all()
        .build()
        .context("the control runtime could not be started")?;
    let code = runtime.block_on(async {
        let mut pipeline = Pipeline::new(settings, plane.clone());
        let ready = Arc::new(AtomicBool::new(false));
        if let Some(address) = off(options.admin.as_deref().unwrap_or(admin_default)) {
            let bound =
                admin::serve(address, plane.clone(), more_metrics, pipeline.subscribe(), ready.clone()).context("--admin")?;
            plane.also_ours(bound);
        }
        let (end, ending) = tokio::sync::watch::channel(false);
        let surroundings = Surroundings { served: pipeline.follow(), ending };
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Its default would end the process and cut what is open. Sources that can read again hear it themselves.
        let _hangup = signal(SignalKind::hangup())?;
        let renewing = plane.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(penstock_proxy::CHECK_CERTIFICATES_EVERY);
            loop {
                ticks.tick().await;
                renewing.renew_certificates();
            }
        });
        let feeding = async {
            let source = source(surroundings).await?;
            feed(source, &mut pipeline, &plane, &ready, back).await
        };
        tokio::select! {
            result = feeding => { result?; }
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        ready.store(false, Ordering::Relaxed);
        end.send_replace(true);
        systemd::notify("STOPPING=1");
        tracing::info!(delay = ?options.drain_delay, grace = ?options.drain_grace, "draining; another signal ends at once");
        tokio::select! {
            report = plane.drain() => tracing::info!(%report, "drained"),
            _ = terminate.recv() => plane.stop_now(),
            _ = interrupt.recv() => plane.stop_now(),
        }
        // Whoever follows the end has things to put in order, such as the Lease.
        let _ = tokio::time::timeout(FAREWELL, end.closed()).await;
        anyhow::Ok(ExitCode::SUCCESS)
    })?;
    // Watches and scrapes that are still open need no farewell.
    runtime.shutdown_background();
    Ok(code)
}

/// Leaves a core to the workers and to others on it, where they want it too.
fn stand_back(back: Option<StandBack>) {
    if let Some(Err(error)) = back.map(StandBack::ask) {
        tracing::debug!(%error, "the control side does not stand back");
    }
}

async fn feed<S: Source>(
    mut source: S,
    pipeline: &mut Pipeline,
    plane: &DataPlane,
    ready: &AtomicBool,
    back: Option<StandBack>,
) -> anyhow::Result<()> {
    let mut listening = false;
    let mut many = false;
    loop {
        let changes = source.changes().await?;
        many |= changes.len() >= MANY_CHANGES;
        let translation = pipeline.translate(changes).clone();
        if source.incomplete(&translation) {
            continue;
        }
        pipeline.publish();
        if std::mem::take(&mut many) {
            allocator::give_back();
        }
        if !listening {
            listening = true;
            let bound = plane.listen()?;
            // Only now: the workers that were begun here would be as nice.
            stand_back(back);
            ready.store(true, Ordering::Relaxed);
            systemd::notify("READY=1");
            let hosts = &translation.model.hosts;
            let routes: usize = hosts.values().map(|host| host.routes.len()).sum();
            let address =
                |address: Option<std::net::SocketAddr>| address.map_or_else(|| "off".to_owned(), |address| address.to_string());
            tracing::info!(http = address(bound.http), https = address(bound.https), hosts = hosts.len(), routes, "serving");
            if hosts.is_empty() || hosts.keys().all(|host| *host == HostPattern::Any) && routes == 0 {
                tracing::warn!("no routes yet: every request is answered 404");
            }
        }
    }
}

fn data_plane_options(options: &ServingOptions, mode: &Mode) -> anyhow::Result<Options> {
    let workers = options.workers.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    Ok(Options {
        http: off(&options.http).map(ToOwned::to_owned),
        https: off(&options.https).map(ToOwned::to_owned),
        workers,
        trusted_proxies: options.trusted_proxies.clone(),
        proxy_protocol: options.proxy_protocol == Some(true),
        public_http_port: options.public_http_port,
        public_https_port: options.public_https_port,
        access_log: match options.access_log {
            AccessLog::Off => AccessLogFormat::Off,
            AccessLog::Json => AccessLogFormat::Json,
            AccessLog::Combined => AccessLogFormat::Combined,
        },
        limits: Limits::from(&options.limits),
        state_dir: state_dir(options, mode),
        external: mode.external(),
        drain: DrainOptions { delay: options.drain_delay, grace: options.drain_grace },
    })
}

/// Where the process keeps what must outlive it. In a cluster only where it is told to.
fn state_dir(options: &ServingOptions, mode: &Mode) -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    options.state_dir.clone().or_else(|| variable("STATE_DIRECTORY")).or_else(|| match mode {
        Mode::Cluster { .. } => None,
        Mode::Standalone => variable("XDG_STATE_HOME")
            .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
            .map(|base| base.join("penstock")),
    })
}

/// An address, or None for `off`.
fn off(address: &str) -> Option<&str> {
    (!matches!(address, "" | "off")).then_some(address)
}

/// `NS/NAME`, or `NAME` in the namespace `default`.
pub fn secret_key(text: &str) -> anyhow::Result<Key> {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    anyhow::ensure!(!namespace.is_empty() && !name.is_empty() && !name.contains('/'), "`{text}` is not NAMESPACE/NAME");
    Ok(Key::new(namespace, name))
}
