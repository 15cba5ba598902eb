//! How backends are spoken to.

use std::time::Duration;

use super::{Annotation, Bad, BadValue, Item, Scope, Spelling, values};

/// What `backend-protocol` can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpokenProtocol {
    Http,
    Https,
    Grpc,
    Grpcs,
    /// Known to ingress-nginx, and not spoken here.
    AutoHttp,
    Fcgi,
}

pub(crate) static BACKEND_PROTOCOL: Item<SpokenProtocol> = Item {
    about: Annotation {
        name: "backend-protocol",
        aliases: &[],
        spelling: Spelling::Both,
        value: "`HTTP`, `HTTPS`, `GRPC` or `GRPCS`, in any case",
        default_native: "`HTTP`",
        default_ingress_nginx: "`HTTP`",
        scope: Scope::Paths,
        bad_value: BadValue::Default,
        doc: "The protocol spoken to the endpoints. `GRPC` is HTTP/2 in plain text, `GRPCS` HTTP/2 over TLS. Certificates of endpoints are not \
              verified unless `proxy-ssl-verify` says so.",
        difference: "`AUTO_HTTP` and `FCGI` exist. Here `AUTO_HTTP` is refused and HTTP used; with `FCGI` the paths answer 503.",
    },
    parse: |text| match text.trim().to_ascii_uppercase().as_str() {
        "HTTP" => Ok(SpokenProtocol::Http),
        "HTTPS" => Ok(SpokenProtocol::Https),
        "GRPC" => Ok(SpokenProtocol::Grpc),
        "GRPCS" => Ok(SpokenProtocol::Grpcs),
        "AUTO_HTTP" => Ok(SpokenProtocol::AutoHttp),
        "FCGI" => Ok(SpokenProtocol::Fcgi),
        _ => Err(Bad::Form("one of HTTP, HTTPS, GRPC, GRPCS".to_owned())),
    },
};

pub(crate) static CONNECT_TIMEOUT: Item<Duration> = Item {
    about: Annotation {
        name: "proxy-connect-timeout",
        aliases: &[],
        spelling: Spelling::Both,
        value: "whole seconds",
        default_native: "5",
        default_ingress_nginx: "5",
        scope: Scope::Paths,
        bad_value: BadValue::Default,
        doc: "How long connecting to an endpoint may take, with TLS.",
        difference: "0 is taken, and every request is answered 504; here it is refused.",
    },
    parse: values::seconds,
};

pub(crate) static READ_TIMEOUT: Item<Duration> = Item {
    about: Annotation {
        name: "proxy-read-timeout",
        aliases: &[],
        spelling: Spelling::Both,
        value: "whole seconds",
        default_native: "60",
        default_ingress_nginx: "60",
        scope: Scope::Paths,
        bad_value: BadValue::Default,
        doc: "How long the endpoint may be silent between two bytes. Before the head of the response the answer is 504. In the ingress-nginx \
              profile it also limits silent tunnels: the larger of this and `proxy-send-timeout`, if either is set.",
        difference: "tunnels are cut after 60 s of silence by default; here after 1 h.",
    },
    parse: values::seconds,
};

pub(crate) static SEND_TIMEOUT: Item<Duration> = Item {
    about: Annotation {
        name: "proxy-send-timeout",
        aliases: &[],
        spelling: Spelling::Both,
        value: "whole seconds",
        default_native: "60",
        default_ingress_nginx: "60",
        scope: Scope::Paths,
        bad_value: BadValue::Default,
        doc: "How long the endpoint may refuse to take bytes between two of them.",
        difference: "tunnels are cut after 60 s of silence by default; here after 1 h.",
    },
    parse: values::seconds,
};

/// A Host header for the backend, in which variables may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VirtualHost {
    /// That of the request.
    AsReceived,
    Text(Box<str>),
}

/// The variables that a path and its Service have values for: `$` and one of these, also in braces. Those that begin like another one stand
/// before it.
pub(crate) const PATH_VARIABLES: [&str; 5] = ["proxy_upstream_name", "service_name", "service_port", "ingress_name", "namespace"];

pub(crate) static UPSTREAM_VHOST: Item<VirtualHost> = Item {
    about: Annotation {
        name: "upstream-vhost",
        aliases: &[],
        spelling: Spelling::Both,
        value: "a host name, with or without port; `$http_host` or `$host`; a name made with `$service_name`, `$service_port`, `$namespace`, \
                `$ingress_name`, `$proxy_upstream_name`",
        default_native: "the Host header as received",
        default_ingress_nginx: "the Host header as received",
        scope: Scope::Paths,
        bad_value: BadValue::RefuseIngress,
        doc: "The Host header that the backend gets.",
        difference: "all variables of nginx are filled in, and `$host` has no port. Here `$host` alone passes the header on as received, and \
                     other variables are refused by name.",
    },
    parse: |text| {
        // What the original allows is more than a Host header can hold (`regexchars`).
        let text = text.trim();
        if ["$host", "$http_host", "$best_http_host", "${host}", "${http_host}"].contains(&text) {
            return Ok(VirtualHost::AsReceived);
        }
        let mut plain = text.to_owned();
        for variable in PATH_VARIABLES {
            plain = plain.replace(&format!("${{{variable}}}"), "x").replace(&format!("${variable}"), "x");
        }
        if let Some((_, unknown)) = plain.split_once('$') {
            let name: String =
                unknown.chars().take_while(|letter| letter.is_ascii_alphanumeric() || "_{}".contains(*letter)).collect();
            return Err(Bad::Sense(format!("a name whose variables are known here (${name} is not, or not beside other text)")));
        }
        values::text_of(&plain, "-._:[]")?;
        Ok(VirtualHost::Text(text.into()))
    },
};

pub(crate) static PROXY_SSL_VERIFY: Item<bool> = Item {
    about: Annotation {
        name: "proxy-ssl-verify",
        aliases: &[],
        spelling: Spelling::Both,
        value: "`on` or `off`",
        default_native: "`off`",
        default_ingress_nginx: "`off`",
        scope: Scope::Paths,
        bad_value: BadValue::Default,
        doc: "Whether the certificate of a TLS backend is verified, against the authorities of the system. In the ingress-nginx profile it \
              has an effect only beside `proxy-ssl-secret`, as in the original.",
        difference: "the authorities are those of `proxy-ssl-secret`, which is not supported yet.",
    },
    parse: values::switch,
};

pub(crate) static PROXY_SSL_NAME: Item<Box<str>> = Item {
    about: Annotation {
        name: "proxy-ssl-name",
        aliases: &[],
        spelling: Spelling::Both,
        value: "a DNS name",
        default_native: "`NAME.NAMESPACE.svc` of the Service",
        default_ingress_nginx: "`NAME.NAMESPACE.svc` of the Service, and no SNI",
        scope: Scope::Paths,
        bad_value: BadValue::Default,
        doc: "The name that the certificate of a TLS backend is verified for. Native: also what is sent as SNI. In the ingress-nginx profile it \
              has an effect only beside `proxy-ssl-secret`, as in the original.",
        difference: "",
    },
    parse: |text| match crate::names::dns_name(text.trim()) {
        Some(name) => Ok(name),
        None => Err(Bad::Form("a DNS name".to_owned())),
    },
};
