//! The way from plain requests to HTTPS.

use super::{Annotation, BadValue, Item, Scope, Spelling, values};

pub(crate) static SSL_REDIRECT: Item<bool> = Item {
    about: Annotation {
        name: "ssl-redirect",
        aliases: &[],
        spelling: Spelling::Both,
        value: "`true` or `false`",
        default_native: "`false`",
        default_ingress_nginx: "`true`",
        scope: Scope::Paths,
        bad_value: BadValue::Default,
        doc: "Plain requests are answered with 308 to `https://`, if the host has a `tls` section (of any Ingress). Paths below \
              `/.well-known/acme-challenge/` are never redirected.",
        difference: "an ACME path is spared only if an Ingress names it.",
    },
    parse: values::boolean,
};

pub(crate) static FORCE_SSL_REDIRECT: Item<bool> = Item {
    about: Annotation {
        name: "force-ssl-redirect",
        aliases: &[],
        spelling: Spelling::Both,
        value: "`true` or `false`",
        default_native: "`false`",
        default_ingress_nginx: "`false`",
        scope: Scope::Paths,
        bad_value: BadValue::Default,
        doc: "Plain requests are answered with 308 to `https://`, whether or not the host has a `tls` section. ACME paths are spared.",
        difference: "an ACME path is spared only if an Ingress names it.",
    },
    parse: values::boolean,
};
