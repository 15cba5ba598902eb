//! Why a handshake with a client failed, as it is counted.

use std::io;

use rustls::Error;

use crate::metrics::HandshakeFailure;

/// What an acceptor's error means.
pub fn failure_of(error: &io::Error) -> HandshakeFailure {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            io::ErrorKind::TimedOut => HandshakeFailure::Timeout,
            io::ErrorKind::InvalidData => HandshakeFailure::Protocol,
            _ => HandshakeFailure::Closed,
        };
    };
    match tls {
        Error::AlertReceived(_) => HandshakeFailure::ClientAlert,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => HandshakeFailure::Incompatible,
        // The only words that rustls has for it.
        Error::General(text) if text.contains("certificate") => HandshakeFailure::NoCertificate,
        _ => HandshakeFailure::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, InvalidMessage, PeerIncompatible};

    use super::*;

    #[test]
    fn errors_are_told_apart() {
        let tls = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
        for (error, expected) in [
            (tls(Error::AlertReceived(AlertDescription::UnknownCA)), HandshakeFailure::ClientAlert),
            (tls(Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon)), HandshakeFailure::Incompatible),
            (tls(Error::NoApplicationProtocol), HandshakeFailure::Incompatible),
            (tls(Error::InvalidMessage(InvalidMessage::InvalidContentType)), HandshakeFailure::Protocol),
            (io::ErrorKind::UnexpectedEof.into(), HandshakeFailure::Closed),
            (io::ErrorKind::ConnectionReset.into(), HandshakeFailure::Closed),
            (io::ErrorKind::TimedOut.into(), HandshakeFailure::Timeout),
        ] {
            assert_eq!(failure_of(&error), expected, "{error:?}");
        }
    }
}
