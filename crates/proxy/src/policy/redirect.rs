//! Where a route's redirect leads ([`RedirectTarget`]).

use penstock_model::{Redirect, RedirectTarget};

use super::Answer;
use crate::{client_address::Scheme, head::RequestHead};

pub(crate) fn answer(redirect: &Redirect, request: &RequestHead<'_>) -> Answer {
    Answer::redirect(redirect.code, location(&redirect.target, request))
}

fn location(target: &RedirectTarget, request: &RequestHead<'_>) -> String {
    match target {
        RedirectTarget::Literal(url) if url.starts_with('/') && !request.authority.is_empty() => {
            format!("{}://{}{url}", request.client.scheme.as_str(), request.public_authority())
        }
        RedirectTarget::Literal(url) => url.to_string(),
        RedirectTarget::SameOrigin { path } if request.authority.is_empty() => path.to_string(),
        RedirectTarget::SameOrigin { path } => format!("{}://{}{path}", request.listener.scheme.as_str(), request.authority),
        RedirectTarget::Parts { scheme, host, port, path } => {
            let own = request.client.scheme;
            let wanted = match scheme.as_deref() {
                Some("https") => Scheme::Https,
                Some(_) => Scheme::Http,
                None => own,
            };
            let name = host.as_deref().or_else(|| request.public_name());
            let path = match path {
                Some(path) => match request.query {
                    Some(query) => format!("{path}?{query}"),
                    None => path.to_string(),
                },
                None => request.raw_target(),
            };
            // Without a host a path is all that can be said.
            let Some(name) = name else { return path };
            let port = match (port, scheme) {
                (Some(port), _) => Some(*port),
                (None, Some(_)) => Some(request.ports.of(wanted)),
                (None, None) => own_port(request),
            };
            let port = port.filter(|port| *port != wanted.default_port()).map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{name}{port}{path}", wanted.as_str())
        }
    }
}

/// The port that stands in the authority.
fn own_port(request: &RequestHead<'_>) -> Option<u16> {
    let authority = request.public_authority();
    authority.get(authority.rfind(':')?..)?.strip_prefix(':')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{PublicPorts, sample::Sample};

    fn parts(scheme: Option<&str>, host: Option<&str>, port: Option<u16>, path: Option<&str>) -> RedirectTarget {
        RedirectTarget::Parts { scheme: scheme.map(Into::into), host: host.map(Into::into), port, path: path.map(Into::into) }
    }

    #[test]
    fn parts_that_are_not_given_are_those_of_the_request() {
        let sample = Sample { target: "/p?q=1", ports: PublicPorts { http: 8080, https: 8443 }, ..Sample::default() };
        for (target, expected) in [
            (parts(None, None, None, None), "http://a.example:8080/p?q=1"),
            (parts(None, None, None, Some("/new")), "http://a.example:8080/new?q=1"),
            (parts(None, Some("b.example"), None, None), "http://b.example:8080/p?q=1"),
            (parts(Some("https"), None, None, None), "https://a.example:8443/p?q=1"),
            (parts(Some("https"), None, Some(443), None), "https://a.example/p?q=1"),
            (parts(None, None, Some(80), None), "http://a.example/p?q=1"),
            (parts(Some("http"), Some("b.example"), Some(81), Some("/")), "http://b.example:81/?q=1"),
        ] {
            assert_eq!(sample.with(|request| location(&target, request)), expected, "{target:?}");
        }
    }

    #[test]
    fn a_literal_path_gets_scheme_and_host_before_it() {
        let sample = Sample::default();
        for (url, expected) in [("https://x.example/y?z", "https://x.example/y?z"), ("/y", "http://a.example:8080/y")] {
            assert_eq!(sample.with(|request| location(&RedirectTarget::Literal(url.into()), request)), expected);
        }
    }

    #[test]
    fn a_redirect_within_the_origin_keeps_the_authority_as_it_is_and_drops_the_query() {
        let sample = Sample { target: "/?q", ..Sample::default() };
        let target = RedirectTarget::SameOrigin { path: "/app".into() };
        assert_eq!(sample.with(|request| location(&target, request)), "http://a.example:8080/app");
    }
}
