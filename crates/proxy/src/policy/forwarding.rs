//! Which headers tell a backend about the client ([`Forwarding`]).
//!
//! Whatever of this family a client sends is replaced or removed, unless a trusted proxy sent it; what is believed of it was settled
//! before ([`crate::client_address`]).

use penstock_model::Forwarding;

use crate::head::{Headers, RequestHead};

/// A field to write. None: to remove.
pub(crate) type Edit = (&'static str, Option<String>);

/// The edits of a request. Names are lower case.
pub(crate) fn edits<H: Headers>(forwarding: Forwarding, request: &RequestHead<'_, H>) -> Vec<Edit> {
    let client = request.client;
    let address = client.address.to_string();
    let scheme = client.scheme.as_str().to_owned();
    let host = Some(request.public_authority()).filter(|host| !host.is_empty()).map(ToOwned::to_owned);
    let port = client.port.unwrap_or(request.listener.port).to_string();
    let common = [
        ("x-real-ip", Some(address.clone())),
        ("x-forwarded-proto", Some(scheme.clone())),
        ("x-forwarded-host", host),
        ("x-forwarded-port", Some(port)),
        ("x-request-id", Some(request.request_id.to_owned())),
        // A CGI program would read it as HTTP_PROXY.
        ("proxy", None),
    ];
    let mut edits = Vec::with_capacity(12);
    edits.extend(common);
    match forwarding {
        Forwarding::Native => {
            edits.push(("x-forwarded-for", Some(client.forwarded_chain.clone())));
            // RFC 7239 says the same in another way; what we do not write we must not let through.
            edits.push(("forwarded", None));
        }
        Forwarding::IngressNginx => {
            edits.push(("x-forwarded-for", Some(address)));
            edits.push(("x-forwarded-scheme", Some(scheme.clone())));
            edits.push(("x-scheme", Some(scheme)));
            edits.push(("x-original-forwarded-for", joined(request, "x-forwarded-for")));
            edits.push(("x-original-forwarded-host", joined(request, "x-forwarded-host")));
        }
    }
    edits
}

/// What the client sent, its lines joined.
fn joined<H: Headers>(request: &RequestHead<'_, H>, name: &str) -> Option<String> {
    let lines: Vec<_> = request.headers.values(name).map(String::from_utf8_lossy).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::sample::{List, Sample};

    fn written(forwarding: Forwarding, sample: &Sample) -> Vec<String> {
        let mut lines: Vec<_> = sample
            .with(|request| edits(forwarding, request))
            .into_iter()
            .map(|(name, value)| value.map_or_else(|| format!("-{name}"), |value| format!("{name}: {value}")))
            .collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn a_native_route_tells_the_chain() {
        let mut sample = Sample { headers: List(vec![("x-forwarded-for", "6.6.6.6")]), ..Sample::default() };
        sample.client.forwarded_chain = "203.0.113.9, 192.0.2.7".to_owned();
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
        let sample = Sample { headers: List(vec![("x-forwarded-for", "6.6.6.6")]), ..Sample::default() };
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
