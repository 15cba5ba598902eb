//! The redirect of plain requests to `https://` ([`HttpsRedirect`]).
//!
//! The scheme is that of the client, as a trusted proxy may tell it. The Location names the host without its port, and the public HTTPS port
//! unless that is 443.

use penstock_model::{HttpsRedirect, HttpsRedirectWhen};

use super::Answer;
use crate::{client_address::Scheme, head::RequestHead};

/// Below it an ACME server looks for answers, over plain HTTP (RFC 8555 §8.3).
const ACME: &[u8] = b"/.well-known/acme-challenge/";

pub(crate) fn redirect(rule: HttpsRedirect, request: &RequestHead<'_>) -> Option<Answer> {
    let wanted = match rule.when {
        HttpsRedirectWhen::Always => true,
        HttpsRedirectWhen::HostHasTls => request.name_has_certificate,
    };
    if !wanted || request.client.scheme == Scheme::Https || request.path.normalised().starts_with(ACME) {
        return None;
    }
    let Some(name) = request.public_name() else {
        return Some(Answer::page(400, "The request names no host that it could be redirected to."));
    };
    let mut target = request.raw_target();
    if rule.cut_trailing_slash && target.ends_with('/') {
        target.pop();
    }
    let port = match request.ports.https {
        443 => String::new(),
        port => format!(":{port}"),
    };
    Some(Answer::redirect(rule.code, format!("https://{name}{port}{target}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{PublicPorts, sample::Sample};

    const RULE: HttpsRedirect =
        HttpsRedirect { code: 308, when: HttpsRedirectWhen::HostHasTls, cut_trailing_slash: false, after_redirects: false };

    fn location(rule: HttpsRedirect, name_has_certificate: bool, sample: &Sample) -> Option<String> {
        let answer = sample.with(|request| redirect(rule, &RequestHead { name_has_certificate, ..*request }));
        answer.and_then(|answer| answer.location)
    }

    #[test]
    fn a_plain_request_goes_to_https_with_path_and_query() {
        let sample = Sample { target: "/a//b?x=/", ..Sample::default() };
        assert_eq!(location(RULE, true, &sample).as_deref(), Some("https://a.example/a//b?x=/"));
        assert_eq!(location(RULE, false, &sample), None);
        let always = HttpsRedirect { when: HttpsRedirectWhen::Always, ..RULE };
        assert_eq!(location(always, false, &sample).as_deref(), Some("https://a.example/a//b?x=/"));
        let cut = HttpsRedirect { cut_trailing_slash: true, ..RULE };
        assert_eq!(location(cut, true, &sample).as_deref(), Some("https://a.example/a//b?x="));
    }

    #[test]
    fn another_public_port_is_named() {
        let sample = Sample { ports: PublicPorts { http: 8080, https: 8443 }, ..Sample::default() };
        assert_eq!(location(RULE, true, &sample).as_deref(), Some("https://a.example:8443/"));
        let sample = Sample { authority: "[2001:db8::1]:8080", ..Sample::default() };
        assert_eq!(location(RULE, true, &sample).as_deref(), Some("https://[2001:db8::1]/"));
    }

    #[test]
    fn acme_challenges_are_never_redirected() {
        let sample = Sample { target: "/.well-known/acme-challenge/token", ..Sample::default() };
        assert_eq!(location(RULE, true, &sample), None);
        let sample = Sample { target: "/.well-known/acme-challenge", ..Sample::default() };
        assert!(location(RULE, true, &sample).is_some());
    }

    #[test]
    fn a_request_that_a_trusted_proxy_got_over_https_is_not_redirected() {
        let mut sample = Sample::default();
        sample.client.scheme = Scheme::Https;
        assert_eq!(location(RULE, true, &sample), None);
    }
}
