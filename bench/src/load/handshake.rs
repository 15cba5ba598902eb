//! TLS handshakes: connect, shake hands, say goodbye, read to the end. No request is sent.

use std::io;

use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    client::{Client, Target},
    tls::{self, Connector, Stream},
};

/// A client that comes again and again, with the tickets of its own last visit or with none.
pub struct Handshakes {
    connector: Connector,
    resume: bool,
}

impl Handshakes {
    async fn visit(&self) -> io::Result<HandshakeKind> {
        let mut stream = self.connector.connect().await?;
        let kind = match &stream {
            Stream::Tls(stream) => stream.get_ref().1.handshake_kind(),
            Stream::Plain(_) => None,
        };
        // Reading to the end takes the tickets, and leaves no unread byte that would make our close a reset.
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        loop {
            match stream.read(&mut rest).await {
                Ok(0) => break,
                Ok(_) => {}
                // nginx says no goodbye of its own once it has heard ours.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        kind.ok_or_else(|| io::Error::other("no handshake"))
    }
}

impl Client for Handshakes {
    async fn connect(target: &Target, _: usize) -> io::Result<Self> {
        let config = tls::config(b"http/1.1", target.resume).map_err(io::Error::other)?;
        let client = Self { connector: Connector::new(target.connector.address, Some(config)), resume: target.resume };
        if client.resume {
            client.visit().await?;
        }
        Ok(client)
    }

    async fn exchange(&mut self) -> io::Result<u64> {
        match (self.visit().await?, self.resume) {
            (HandshakeKind::Full, false) | (HandshakeKind::Resumed, true) => Ok(1),
            (other, _) => Err(io::Error::other(format!("the handshake was {other:?}"))),
        }
    }
}
