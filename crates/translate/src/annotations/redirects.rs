//! Redirects to a fixed URL. The backend is never asked.

use super::{Annotation, Bad, BadValue, Item, Scope, Spelling, values};

/// What ingress-nginx allows in URLs. Variables (`$`) are not among it.
const URL: &str = "-._~/:,?&=";

pub(crate) static PERMANENT_REDIRECT: Item<Box<str>> = Item {
    about: Annotation {
        name: "permanent-redirect",
        aliases: &[],
        spelling: Spelling::Both,
        value: "a URL, or anything that a client can take for one",
        default_native: "none",
        default_ingress_nginx: "none",
        scope: Scope::Paths,
        bad_value: BadValue::RefuseIngress,
        doc: "Every request is answered with a redirect (301) to this URL as it stands; path and query of the request are not appended.",
        difference: "",
    },
    // As in the original, no scheme is asked for: `myapp://open`, or a reference that clients resolve themselves.
    parse: |text| values::text_of(text, URL),
};

pub(crate) static PERMANENT_CODE: Item<u16> = Item {
    about: Annotation {
        name: "permanent-redirect-code",
        aliases: &[],
        spelling: Spelling::Both,
        value: "a number from 300 to 308",
        default_native: "301",
        default_ingress_nginx: "301",
        scope: Scope::Paths,
        bad_value: BadValue::RefuseIngress,
        doc: "The status of `permanent-redirect`.",
        difference: "",
    },
    parse: |text| code(text, 308),
};

pub(crate) static TEMPORAL_REDIRECT: Item<Box<str>> = Item {
    about: Annotation {
        name: "temporal-redirect",
        aliases: &[],
        spelling: Spelling::Both,
        value: "a URL that begins with `http`",
        default_native: "none",
        default_ingress_nginx: "none",
        scope: Scope::Paths,
        bad_value: BadValue::RefuseIngress,
        doc: "Every request is answered with a redirect (302) to this URL as it stands. Goes before `permanent-redirect`.",
        difference: "",
    },
    parse: |text| {
        let url = values::text_of(text, URL)?;
        if is_http_url(&url) { Ok(url) } else { Err(Bad::Sense("an http or https URL".to_owned())) }
    },
};

pub(crate) static TEMPORAL_CODE: Item<u16> = Item {
    about: Annotation {
        name: "temporal-redirect-code",
        aliases: &[],
        spelling: Spelling::Both,
        value: "a number from 300 to 307",
        default_native: "302",
        default_ingress_nginx: "302",
        scope: Scope::Paths,
        bad_value: BadValue::RefuseIngress,
        doc: "The status of `temporal-redirect`.",
        difference: "",
    },
    parse: |text| code(text, 307),
};

fn is_http_url(url: &str) -> bool {
    url.strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
}

fn code(text: &str, last: u16) -> Result<u16, Bad> {
    let code = values::number(text)?;
    u16::try_from(code)
        .ok()
        .filter(|code| (300..=last).contains(code))
        .ok_or_else(|| Bad::Sense(format!("a number from 300 to {last}")))
}
