//! The answers that the proxy makes itself: a small HTML page, or JSON for those who prefer it.
//!
//! Nothing of the request is shown but its id, and that only escaped. Which header fields go along, and that a HEAD request gets
//! no body, is for the caller.

use std::fmt::Write;

/// The `Server` header of the proxy's own answers.
pub const SERVER: &str = "penstock";

/// An answer's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub content_type: &'static str,
    pub body: String,
}

/// The page for a status. `hint` is one line that says what may be wrong, and where to look; `accept` is the request's `Accept`,
/// its lines joined with commas. JSON is `{"status":503,"error":"Service Unavailable","requestId":"…"}`, with the hint as
/// `"hint"` if there is one.
pub fn render(status: u16, hint: Option<&str>, accept: Option<&[u8]>, request_id: &str) -> Page {
    let text = status_text(status);
    let mut body = String::with_capacity(512);
    if prefers_json(accept.unwrap_or_default()) {
        let _ = write!(body, "{{\"status\":{status},\"error\":");
        json_string(&mut body, text);
        if let Some(hint) = hint {
            body.push_str(",\"hint\":");
            json_string(&mut body, hint);
        }
        body.push_str(",\"requestId\":");
        json_string(&mut body, request_id);
        body.push_str("}\n");
        return Page { content_type: "application/json", body };
    }
    let _ = write!(
        body,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{status} {text}</title>\n<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:12vh auto;padding:0 1em;\
         color-scheme:light dark;background:Canvas;color:CanvasText}}small{{opacity:.7}}</style></head>\n<body><h1>{status} {text}</h1>\n"
    );
    if let Some(hint) = hint {
        body.push_str("<p>");
        html(&mut body, hint);
        body.push_str("</p>\n");
    }
    if !request_id.is_empty() {
        body.push_str("<p><small>Request ");
        html(&mut body, request_id);
        body.push_str("</small></p>\n");
    }
    body.push_str("</body></html>\n");
    Page { content_type: "text/html; charset=utf-8", body }
}

/// What the code is called (IANA HTTP Status Code Registry); one without a name, by its class.
pub fn status_text(status: u16) -> &'static str {
    match (penstock_http1::reason_phrase(status), status) {
        ("", 100..=199) => "Informational",
        ("", 200..=299) => "Success",
        ("", 300..=399) => "Redirection",
        ("", 400..=499) => "Client Error",
        ("", _) => "Error",
        (name, _) => name,
    }
}

/// Whether JSON is wanted more than HTML (RFC 9110 §12.5.1). Of the ranges that hold a type, the most specific one counts. On a
/// draw it is HTML, as with `*/*`, which browsers and tools send alike.
fn prefers_json(accept: &[u8]) -> bool {
    let mut html = Quality::default();
    let mut json = Quality::default();
    for range in accept.split(|byte| *byte == b',') {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|parameter| match parameter {
            [b'q' | b'Q', b'=', value @ ..] => Some(thousandths(value)),
            _ => None,
        });
        let weight = weight.unwrap_or(1000);
        match &kind[..] {
            b"*/*" => {
                html.offer(1, weight);
                json.offer(1, weight);
            }
            b"application/*" => json.offer(2, weight),
            b"text/html" => html.offer(3, weight),
            b"text/*" | b"application/xhtml+xml" => html.offer(2, weight),
            b"application/json" | b"application/problem+json" | b"text/json" => json.offer(3, weight),
            _ => {}
        }
    }
    json.weight > html.weight
}

#[derive(Default)]
struct Quality {
    precision: u8,
    weight: u16,
}

impl Quality {
    fn offer(&mut self, precision: u8, weight: u16) {
        if precision > self.precision || (precision == self.precision && weight > self.weight) {
            *self = Self { precision, weight };
        }
    }
}

/// `0.25` as 250. What is no weight counts as none.
fn thousandths(text: &[u8]) -> u16 {
    let (whole, fraction) = match text {
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        [whole @ (b'0' | b'1')] => (whole, &b""[..]),
        _ => return 0,
    };
    let digits = [fraction.first(), fraction.get(1), fraction.get(2)];
    let fraction =
        digits.iter().fold(0, |sum, digit| sum * 10 + digit.map_or(0, |digit| u16::from(digit.wrapping_sub(b'0').min(9))));
    (u16::from(whole - b'0') * 1000 + fraction).min(1000)
}

fn html(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            character if character.is_control() => out.push('\u{fffd}'),
            character => out.push(character),
        }
    }
}

fn json_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            // `<` escaped too: a client that shows the answer as HTML all the same must not run it.
            character if character.is_control() || character == '<' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            character => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_accept() {
        for (accept, json) in [
            (None, false),
            (Some(""), false),
            (Some("*/*"), false),
            (Some("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"), false),
            (Some("application/json"), true),
            (Some("Application/JSON; charset=utf-8"), true),
            (Some("application/json, text/plain, */*"), false),
            (Some("application/json, */*;q=0.5"), true),
            (Some("application/json;q=0.5, text/html;q=0.8"), false),
            (Some("application/json;q=0.8, text/html;q=0.5"), true),
            (Some("application/json; q=0.9 , text/html;Q=1"), false),
            (Some("text/html;q=0, */*"), true),
            (Some("application/json;q=0"), false),
            (Some("application/*"), true),
            (Some("application/problem+json"), true),
            (Some("text/event-stream"), false),
            (Some("application/json;q=banana, text/html;q=0.1"), false),
        ] {
            let page = render(404, None, accept.map(str::as_bytes), "id");
            assert_eq!(page.content_type == "application/json", json, "{accept:?}");
        }
    }

    #[test]
    fn json_has_status_error_and_request_id() {
        let page = render(503, Some("no endpoint of \"x\" is ready"), Some(b"application/json"), "r\"1\n<script>");
        let value: serde_json::Value = serde_json::from_str(&page.body).unwrap();
        assert_eq!(value["status"], 503);
        assert_eq!(value["error"], "Service Unavailable");
        assert_eq!(value["hint"], "no endpoint of \"x\" is ready");
        assert_eq!(value["requestId"], "r\"1\n<script>");
        assert!(!page.body.contains('<'));
    }

    #[test]
    fn html_shows_what_it_was_given_and_escapes_it() {
        let page = render(404, Some("no route for <b>this</b>"), None, "<script>alert('&')</script>");
        assert!(page.body.contains("<h1>404 Not Found</h1>"));
        assert!(page.body.contains("no route for &lt;b&gt;this&lt;/b&gt;"));
        assert!(page.body.contains("Request &lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;"));
        assert!(!page.body.contains("<script"));
    }

    #[test]
    fn every_status_has_a_text() {
        assert!((100..=599).all(|status| !status_text(status).is_empty()));
        assert_eq!(status_text(421), "Misdirected Request");
    }
}
