//! TLS towards clients.

use penstock_model::TlsVersion;

use super::{Annotation, Bad, Item, Scope, own};

pub(crate) static TLS_MIN_VERSION: Item<TlsVersion> = Item {
    about: Annotation {
        scope: Scope::TlsHosts,
        ..own("tls-min-version", "`1.2` or `1.3`", "`1.2`", "The oldest version of TLS to speak.")
    },
    parse: |text| match text {
        "1.2" => Ok(TlsVersion::V1_2),
        "1.3" => Ok(TlsVersion::V1_3),
        _ => Err(Bad::Form("1.2 or 1.3".to_owned())),
    },
};
