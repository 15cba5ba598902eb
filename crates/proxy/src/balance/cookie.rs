//! The cookie by which a client keeps its endpoint (RFC 6265).
//!
//! Its value is `KEY|BACKEND`, as in ingress-nginx: what stands for an endpoint or is hashed, and what stands for the backend. A value of another
//! form is taken for a key. It is set only where the client's own does not lead where the request went.

use std::{
    fmt::Write,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use penstock_http1::{Fields, Name};
use penstock_model::{AffinityCookie, AffinityMode, Balancing};

use super::{
    Wish,
    state::State,
    wish::{Kept, key_of},
};

/// A cookie's value as the client sent it; empty: it sent none.
pub(super) fn sent(headers: &Fields, name: &str) -> String {
    let pairs = headers.all(Name::Cookie).flat_map(|line| line.split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let (sent, value) = pair.trim_ascii().split_at_checked(name.len())?;
        (sent == name.as_bytes()).then(|| value.strip_prefix(b"="))?
    });
    values.next().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
}

impl Wish {
    /// The cookie that the client is to have from now on, if it is not the one that it sent. `endpoint` is where the request went.
    pub(crate) fn cookie(
        &self,
        balancing: &Balancing,
        (state, backend): (&State, &str),
        endpoint: SocketAddr,
        https: bool,
    ) -> Option<String> {
        let affinity = balancing.affinity.as_ref()?;
        let key: Box<str> = match (affinity.mode, &self.kept) {
            (AffinityMode::Persistent, kept) => {
                let name = state.name(backend, endpoint)?;
                match kept {
                    Some(Kept::Name(kept)) if *kept == name => return None,
                    // Its endpoint is there, and failed once: the client comes back to it.
                    Some(Kept::Name(kept)) if !affinity.change_on_failure && state.has_name(backend, kept) => return None,
                    _ => name,
                }
            }
            (AffinityMode::Balanced, Some(Kept::Key(key))) => {
                let leads_there = state.leads(*key).is_some_and(|home| home == endpoint);
                match &self.fresh {
                    Some(fresh) if leads_there => fresh.clone(),
                    None if leads_there || !affinity.change_on_failure => return None,
                    _ => state.key_for(endpoint, key_of)?.into(),
                }
            }
            (AffinityMode::Balanced, _) => return None,
        };
        let value = format!("{key}|{}", state.tag(backend));
        write(&affinity.cookie, &value, https, SystemTime::now())
    }
}

/// The field's value, its attributes in the order of ingress-nginx.
fn write(cookie: &AffinityCookie, value: &str, https: bool, now: SystemTime) -> Option<String> {
    let mut text = format!("{}={value}", cookie.name);
    if let Some(seconds) = cookie.expires {
        let span = Duration::from_secs(seconds.unsigned_abs());
        let at = if seconds < 0 { now.checked_sub(span) } else { now.checked_add(span) };
        let _ = write!(text, "; Expires={}", httpdate::fmt_http_date(at.filter(|at| is_writable(*at))?));
    }
    if let Some(seconds) = cookie.max_age {
        let _ = write!(text, "; Max-Age={seconds}");
    }
    if let Some(domain) = &cookie.domain {
        let _ = write!(text, "; Domain={domain}");
    }
    let _ = write!(text, "; Path={}", cookie.path);
    if cookie.secure || https {
        text.push_str("; Secure");
    }
    text.push_str("; HttpOnly");
    if let Some(same_site) = &cookie.same_site {
        let _ = write!(text, "; SameSite={same_site}");
    }
    Some(text)
}

/// Dates before 1970 and after 9999 have no form in HTTP.
fn is_writable(at: SystemTime) -> bool {
    const END: Duration = Duration::from_secs(253_402_300_800);
    at.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since < END)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = Fields::new();
        for line in ["xsid=0; sid2=0;sid=one ; sid=two", "late=3; bare"] {
            headers.push(Name::Cookie, line.as_bytes()).unwrap();
        }
        for (name, value) in [("sid", "one"), ("late", "3"), ("si", ""), ("bare", ""), ("none", ""), ("sid2", "0")] {
            assert_eq!(sent(&headers, name), value, "{name}");
        }
    }

    #[test]
    fn attributes_are_written_as_in_ingress_nginx() {
        let cookie = AffinityCookie {
            name: "sess".into(),
            path: "/app".into(),
            domain: Some("example.test".into()),
            secure: true,
            same_site: Some("Strict".into()),
            max_age: Some(3600),
            expires: Some(3600),
        };
        let text = write(&cookie, "v|t", false, UNIX_EPOCH).unwrap();
        assert_eq!(
            text,
            "sess=v|t; Expires=Thu, 01 Jan 1970 01:00:00 GMT; Max-Age=3600; Domain=example.test; Path=/app; Secure; HttpOnly; SameSite=Strict"
        );
        let plain = AffinityCookie { domain: None, secure: false, same_site: None, max_age: None, expires: None, ..cookie.clone() };
        assert_eq!(write(&plain, "v", false, UNIX_EPOCH).unwrap(), "sess=v; Path=/app; HttpOnly");
        assert_eq!(write(&plain, "v", true, UNIX_EPOCH).unwrap(), "sess=v; Path=/app; Secure; HttpOnly");
        let never = AffinityCookie { expires: Some(i64::MAX), ..cookie };
        assert_eq!(write(&never, "v", true, UNIX_EPOCH), None);
    }
}
