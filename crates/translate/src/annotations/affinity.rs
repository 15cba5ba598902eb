//! Affinity by a cookie, and the attributes of the cookie.

use penstock_model::AffinityMode;

use super::{Annotation, Bad, BadValue, Item, Scope, Spelling, values};

/// What ingress-nginx allows in names (`basic`) and in the path (`url`), without what would end a cookie's attribute.
const BASIC: &str = "-._~/:";
const URL: &str = "-._~/:,?&=";
/// `INGRESSCOOKIE` in ingress-nginx, and here.
pub(crate) const COOKIE_NAME: &str = "INGRESSCOOKIE";

/// An annotation that needs `affinity` to have an effect.
const fn attribute(name: &'static str, value: &'static str, default: &'static str, doc: &'static str) -> Annotation {
    Annotation {
        name,
        aliases: &[],
        spelling: Spelling::Both,
        value,
        default_native: default,
        default_ingress_nginx: default,
        scope: Scope::Paths,
        bad_value: BadValue::Default,
        doc,
        difference: "",
    }
}

pub(crate) static AFFINITY: Item<()> = Item {
    about: Annotation {
        difference: "the cookie's name and attributes are those of the youngest Ingress of the Service. A request that cannot be connected is \
                     tried at the same endpoint again there, and at another here.",
        ..attribute(
            "affinity",
            "`cookie`",
            "none",
            "A client keeps its endpoint by a cookie, which is set where the client has none. The cookie is `HttpOnly`, and `Secure` over TLS.",
        )
    },
    parse: |text| match text.trim() {
        "cookie" => Ok(()),
        _ => Err(Bad::Form("cookie".to_owned())),
    },
};

pub(crate) static AFFINITY_MODE: Item<AffinityMode> = Item {
    about: attribute(
        "affinity-mode",
        "`balanced` or `persistent`",
        "`balanced`",
        "`balanced`: when endpoints come, some clients move to them. `persistent`: no client moves while its endpoint is there.",
    ),
    parse: |text| match text.trim() {
        "balanced" => Ok(AffinityMode::Balanced),
        "persistent" => Ok(AffinityMode::Persistent),
        _ => Err(Bad::Form("balanced or persistent".to_owned())),
    },
};

pub(crate) static COOKIE: Item<Box<str>> = Item {
    about: Annotation {
        difference: "a name with blanks is taken, which no client sends back.",
        ..attribute("session-cookie-name", "letters, digits and `-._~/:`", "`INGRESSCOOKIE`", "The name of the cookie.")
    },
    parse: |text| values::text_of(text, BASIC),
};

pub(crate) static COOKIE_PATH: Item<Box<str>> = Item {
    about: Annotation {
        difference: "the default is the Ingress path also where that is a regular expression, which no client sends a cookie to.",
        ..attribute(
            "session-cookie-path",
            "a path",
            "the Ingress path; of a regular expression, the folder that all it matches is in",
            "The paths that clients send the cookie to.",
        )
    },
    parse: |text| values::text_of(text, URL),
};

pub(crate) static COOKIE_DOMAIN: Item<Box<str>> = Item {
    about: Annotation {
        difference: "a domain with blanks is taken, which no client understands.",
        ..attribute(
            "session-cookie-domain",
            "a domain",
            "none",
            "The domain that clients send the cookie to, with all names below it.",
        )
    },
    parse: |text| values::text_of(text, BASIC),
};

pub(crate) static COOKIE_SAME_SITE: Item<Box<str>> = Item {
    about: attribute(
        "session-cookie-samesite",
        "`None`, `Lax` or `Strict`, in any case",
        "none",
        "Whether clients send the cookie along with requests from other sites. It is written as it is given.",
    ),
    parse: |text| match text.trim() {
        known if ["none", "lax", "strict"].contains(&&*known.to_ascii_lowercase()) => Ok(known.into()),
        _ => Err(Bad::Form("None, Lax or Strict".to_owned())),
    },
};

pub(crate) static COOKIE_SECURE: Item<bool> = Item {
    about: attribute(
        "session-cookie-secure",
        "`true` or `false`",
        "`Secure` over TLS",
        "With `true` the cookie is `Secure` also where the client came in plain text. `false` is the same as nothing.",
    ),
    parse: values::boolean,
};

pub(crate) static COOKIE_EXPIRES: Item<i64> = Item {
    about: attribute(
        "session-cookie-expires",
        "whole seconds",
        "none",
        "After how many seconds clients forget the cookie, as a date.",
    ),
    parse: age,
};

pub(crate) static COOKIE_MAX_AGE: Item<i64> = Item {
    about: attribute(
        "session-cookie-max-age",
        "whole seconds",
        "none",
        "After how many seconds clients forget the cookie (`Max-Age`).",
    ),
    parse: age,
};

pub(crate) static CHANGE_ON_FAILURE: Item<bool> = Item {
    about: Annotation {
        difference: "without it, a request whose endpoint cannot be connected fails; here it goes to another, and the cookie stays.",
        ..attribute(
            "session-cookie-change-on-failure",
            "`true` or `false`",
            "`false`",
            "With `true` a client whose endpoint fails gets another for good.",
        )
    },
    parse: values::boolean,
};

fn age(text: &str) -> Result<i64, Bad> {
    values::number(text.trim()).map_err(|_| Bad::Form("a whole number of seconds, without unit".to_owned()))
}
