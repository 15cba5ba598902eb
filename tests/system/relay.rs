//! A way to the API server that can be cut: what is changed meanwhile comes to its user all at once, when it is whole again.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Passes connections on to another address while it is open.
pub struct Relay {
    pub address: SocketAddr,
    open: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let relay =
            Self { address: listener.local_addr().unwrap(), open: Arc::new(AtomicBool::new(true)), connections: Arc::default() };
        let (open, connections) = (relay.open.clone(), relay.connections.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Closed, or nobody there: dropped, which its user sees at once.
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(onward) = TcpStream::connect(target) else { continue };
                connections.lock().unwrap().extend([stream.try_clone().unwrap(), onward.try_clone().unwrap()]);
                pump(stream.try_clone().unwrap(), onward.try_clone().unwrap());
                pump(onward, stream);
            }
        });
        relay
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
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}
