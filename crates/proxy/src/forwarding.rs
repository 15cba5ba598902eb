//! What an upstream is told of the client, and what of an upstream's answer is ours to say.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use penstock_model::Forwarding;

use crate::{
    client_address::{ClientInfo, Scheme},
    handler::{ClientConnection, name},
    worker::Worker,
};

const FORWARDED_FOR: HeaderName = name("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = name("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = name("x-forwarded-host");
const FORWARDED_PORT: HeaderName = name("x-forwarded-port");
const FORWARDED_SCHEME: HeaderName = name("x-forwarded-scheme");
const SCHEME: HeaderName = name("x-scheme");
const REAL_IP: HeaderName = name("x-real-ip");
const REQUEST_ID: HeaderName = name("x-request-id");
const ORIGINAL_FOR: HeaderName = name("x-original-forwarded-for");
const ORIGINAL_HOST: HeaderName = name("x-original-forwarded-host");
/// What ingress-nginx says by default (`hsts`, `hsts-max-age`, `hsts-include-subdomains`).
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000; includeSubDomains");

/// Sets the headers that tell the upstream of the client.
pub(crate) fn set(
    headers: &mut HeaderMap,
    style: Forwarding,
    client: &ClientInfo,
    connection: &ClientConnection,
    worker: &Worker,
    host: &str,
    request_id: &HeaderValue,
) {
    // httpoxy: CGI programs take this header for their proxy setting.
    headers.remove("proxy");
    let address = client.address.to_string();
    let text = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    let proto = HeaderValue::from_static(client.scheme.as_str());
    let port = client.port.unwrap_or_else(|| match connection.scheme {
        Scheme::Https => worker.public_https_port().unwrap_or(connection.port),
        Scheme::Http => worker.public_http_port().unwrap_or(connection.port),
    });
    headers.insert(REQUEST_ID, request_id.clone());
    match style {
        Forwarding::Native => {
            headers.insert(FORWARDED_FOR, text(&client.forwarded_chain));
        }
        Forwarding::IngressNginx => {
            headers.insert(SCHEME, proto.clone());
            headers.insert(FORWARDED_SCHEME, proto.clone());
            for (from, to) in [(FORWARDED_FOR, ORIGINAL_FOR), (FORWARDED_HOST, ORIGINAL_HOST)] {
                match headers.get(&from).cloned() {
                    Some(value) => drop(headers.insert(to, value)),
                    None => drop(headers.remove(&to)),
                }
            }
            headers.insert(FORWARDED_FOR, text(&address));
            let odd: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
            for name in odd {
                headers.remove(name);
            }
        }
    }
    headers.insert(REAL_IP, text(&address));
    headers.insert(FORWARDED_PROTO, proto);
    headers.insert(FORWARDED_HOST, text(host));
    headers.insert(FORWARDED_PORT, HeaderValue::from(port));
}

/// What the profile has us add to an answer.
pub(crate) fn answer(headers: &mut HeaderMap, style: Forwarding, scheme: Scheme) {
    if style == Forwarding::IngressNginx {
        headers.remove(header::SERVER);
        if scheme == Scheme::Https {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
        }
    }
}
