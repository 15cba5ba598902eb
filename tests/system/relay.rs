//! A way to the API server that can be cut or fall silent: what is changed meanwhile comes to its user all at once, when it is whole again.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use crate::cluster::Cluster;

/// Passes connections on to another address while it is open.
pub struct Relay {
    pub address: SocketAddr,
    open: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    /// How often it fell silent: connections made before say nothing for ever.
    silenced: Arc<AtomicUsize>,
    silent: Arc<AtomicBool>,
}

impl Relay {
    /// Leads to the API server of a cluster, wherever it is started again.
    pub fn to(cluster: &Cluster) -> Self {
        let target: SocketAddr = cluster.server().trim_start_matches("https://").parse().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let relay = Self {
            address: listener.local_addr().unwrap(),
            open: Arc::new(AtomicBool::new(true)),
            connections: Arc::default(),
            silenced: Arc::default(),
            silent: Arc::default(),
        };
        let (open, connections) = (relay.open.clone(), relay.connections.clone());
        let (silenced, silent) = (relay.silenced.clone(), relay.silent.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Closed, or nobody there: dropped, which its user sees at once.
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(onward) = TcpStream::connect(target) else { continue };
                connections.lock().unwrap().extend([stream.try_clone().unwrap(), onward.try_clone().unwrap()]);
                let began = silenced.load(Ordering::SeqCst);
                let speaks = |silenced: Arc<AtomicUsize>, silent: Arc<AtomicBool>| {
                    move || silenced.load(Ordering::SeqCst) == began && !silent.load(Ordering::SeqCst)
                };
                pump(stream.try_clone().unwrap(), onward.try_clone().unwrap(), speaks(silenced.clone(), silent.clone()));
                pump(onward, stream, speaks(silenced.clone(), silent.clone()));
            }
        });
        relay
    }

    /// The kubeconfig of an administrator who comes this way.
    pub fn kubeconfig(&self, cluster: &Cluster) -> PathBuf {
        let kubeconfig = cluster.path("relayed.kubeconfig");
        let text = fs::read_to_string(cluster.kubeconfig()).unwrap();
        fs::write(&kubeconfig, text.replace(&cluster.server(), &format!("https://{}", self.address))).unwrap();
        kubeconfig
    }

    /// Cuts every connection, and lets none through until it is opened.
    pub fn close(&self) {
        self.open.store(false, Ordering::SeqCst);
        for stream in self.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// From here on every connection stays, and nothing comes through it: as where a machine on the way is gone.
    pub fn fall_silent(&self) {
        self.silenced.fetch_add(1, Ordering::SeqCst);
        self.silent.store(true, Ordering::SeqCst);
    }

    /// New connections are whole again. Those of before stay silent.
    pub fn speak(&self) {
        // One that was made in the silence has lost what was said on it.
        self.silenced.fetch_add(1, Ordering::SeqCst);
        self.silent.store(false, Ordering::SeqCst);
    }
}

/// Passes on what comes, while `speaks`.
fn pump(mut from: TcpStream, mut to: TcpStream, speaks: impl Fn() -> bool + Send + 'static) {
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if speaks() && to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        if speaks() {
            let _ = to.shutdown(Shutdown::Both);
        }
    });
}
