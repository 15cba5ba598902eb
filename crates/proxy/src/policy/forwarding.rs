//! Which headers tell a backend about the client ([`Forwarding`]).
//!
//! Whatever of this family a client sends is replaced or removed, unless a trusted proxy sent it; what is believed of it was settled
//! before ([`crate::client_address`]).

use std::{
    fmt::{self, Write},
    net::IpAddr,
};

use penstock_http1::{Fields, Name};
use penstock_model::Forwarding;

use crate::head::RequestHead;

/// What becomes of a request's fields. Kept from one request to the next, so that it allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    /// Fields that are the only ones of their name.
    pub(crate) set: Fields,
    pub(crate) removed: Vec<Name>,
}

impl Edits {
    fn set(&mut self, name: Name, value: &[u8]) {
        // A value that HTTP does not allow is none.
        if self.set.push(name, value).is_err() {
            self.removed.push(name);
        }
    }

    fn set_or_remove(&mut self, name: Name, value: Option<&[u8]>) {
        match value {
            Some(value) => self.set(name, value),
            None => self.removed.push(name),
        }
    }

    /// Whether a field of this name is written or removed, whatever its case.
    pub(crate) fn concern(&self, name: &[u8]) -> bool {
        let names = self.set.iter().map(|field| field.name).chain(self.removed.iter().copied());
        names.into_iter().any(|ours| ours.as_str().as_bytes().eq_ignore_ascii_case(name))
    }

    pub(crate) fn apply(&self, fields: &mut Fields) {
        for name in &self.removed {
            fields.remove(*name);
        }
        // Should the head outgrow its limit, nothing of the client's is left in their place.
        fields.set_all(&self.set);
    }
}

/// A number or an address as text.
struct Text {
    /// An IPv6 address has 45 characters at most.
    bytes: [u8; 48],
    length: usize,
}

impl Text {
    const EMPTY: Self = Self { bytes: [0; 48], length: 0 };

    /// Most are of the fourth version, and no request is without one: their digits are written without the machinery for any format.
    fn of_address(address: IpAddr) -> Self {
        let mut text = Self::EMPTY;
        match address {
            IpAddr::V4(address) => {
                let [first, rest @ ..] = address.octets();
                text.push_number(first.into());
                for part in rest {
                    text.push(b'.');
                    text.push_number(part.into());
                }
            }
            // What does not fit is no address.
            IpAddr::V6(address) => _ = write!(text, "{address}"),
        }
        text
    }

    fn of_port(port: u16) -> Self {
        let mut text = Self::EMPTY;
        text.push_number(port);
        text
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn push_number(&mut self, mut number: u16) {
        let mut digits = [b'0'; 5];
        let mut first = digits.len();
        for (place, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0' + (number % 10) as u8;
            first = place;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        for digit in digits.into_iter().skip(first) {
            self.push(digit);
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let end = self.length + part.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(part.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// The edits of a request.
pub(crate) fn edits(forwarding: Forwarding, request: &RequestHead<'_>, edits: &mut Edits) {
    edits.set.clear();
    edits.removed.clear();
    let client = request.client;
    let address = Text::of_address(client.address);
    let scheme = client.scheme.as_str().as_bytes();
    let host = Some(request.public_authority()).filter(|host| !host.is_empty());
    edits.set(Name::XRealIp, address.as_bytes());
    edits.set(Name::XForwardedProto, scheme);
    edits.set_or_remove(Name::XForwardedHost, host.map(str::as_bytes));
    edits.set(Name::XForwardedPort, Text::of_port(client.port.unwrap_or(request.listener.port)).as_bytes());
    edits.set(Name::XRequestId, request.request_id.as_bytes());
    // A CGI program would read it as HTTP_PROXY.
    edits.removed.push(Name::Proxy);
    match forwarding {
        Forwarding::Native => {
            edits.set(Name::XForwardedFor, client.forwarded_chain.as_deref().map_or(address.as_bytes(), str::as_bytes));
            // RFC 7239 says the same in another way; what we do not write we must not let through.
            edits.removed.push(Name::Forwarded);
        }
        Forwarding::IngressNginx => {
            edits.set(Name::XForwardedFor, address.as_bytes());
            edits.set(Name::XForwardedScheme, scheme);
            edits.set(Name::XScheme, scheme);
            for (to, from) in
                [(Name::XOriginalForwardedFor, Name::XForwardedFor), (Name::XOriginalForwardedHost, Name::XForwardedHost)]
            {
                edits.set_or_remove(to, joined(request.headers, from).as_deref());
            }
        }
    }
}

/// What the client sent, its lines joined.
fn joined(fields: &Fields, name: Name) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = fields.all(name).collect();
    (!lines.is_empty()).then(|| lines.join(&b", "[..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::sample::Sample;

    fn written(forwarding: Forwarding, sample: &Sample) -> Vec<String> {
        let mut written = Edits::default();
        sample.with(|request| edits(forwarding, request, &mut written));
        let set = written.set.iter().map(|field| format!("{field:?}"));
        let mut lines: Vec<_> = set.chain(written.removed.iter().map(|name| format!("-{}", name.as_str()))).collect();
        for line in &mut lines {
            line.make_ascii_lowercase();
        }
        lines.sort_unstable();
        lines
    }

    #[test]
    fn addresses_and_ports_are_written_as_usual() {
        for address in ["0.0.0.0", "9.10.99.100", "192.0.2.7", "255.255.255.255", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert_eq!(Text::of_address(address.parse().unwrap()).as_bytes(), address.as_bytes());
        }
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(Text::of_address(longest.parse().unwrap()).as_bytes(), longest.as_bytes());
        for port in [0, 9, 10, 80, 8080, u16::MAX] {
            assert_eq!(Text::of_port(port).as_bytes(), port.to_string().as_bytes());
        }
    }

    #[test]
    fn a_native_route_tells_the_chain() {
        let mut sample = Sample { headers: vec![("x-forwarded-for", "6.6.6.6")], ..Sample::default() };
        sample.client.forwarded_chain = Some("203.0.113.9, 192.0.2.7".to_owned());
        assert_eq!(
            written(Forwarding::Native, &sample),
            [
                "-forwarded",
                "-proxy",
                "x-forwarded-for: 203.0.113.9, 192.0.2.7",
                "x-forwarded-host: a.example:8080",
                "x-forwarded-port: 80",
                "x-forwarded-proto: http",
                "x-real-ip: 192.0.2.7",
                "x-request-id: 0123456789abcdef0123456789abcdef",
            ]
        );
    }

    #[test]
    fn an_ingress_of_nginx_replaces_the_chain_and_shows_what_was_sent() {
        let sample = Sample { headers: vec![("x-forwarded-for", "6.6.6.6")], ..Sample::default() };
        assert_eq!(
            written(Forwarding::IngressNginx, &sample),
            [
                "-proxy",
                "-x-original-forwarded-host",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: a.example:8080",
                "x-forwarded-port: 80",
                "x-forwarded-proto: http",
                "x-forwarded-scheme: http",
                "x-original-forwarded-for: 6.6.6.6",
                "x-real-ip: 192.0.2.7",
                "x-request-id: 0123456789abcdef0123456789abcdef",
                "x-scheme: http",
            ]
        );
    }
}
