//! Limits on who may come and with how much.

use ipnet::IpNet;

use super::{Annotation, Bad, BadValue, Item, Scope, Spelling};

/// None: no limit.
pub(crate) static BODY_SIZE: Item<Option<u64>> = Item {
    about: Annotation {
        name: "proxy-body-size",
        aliases: &[],
        spelling: Spelling::Both,
        value: "bytes, or with `k`, `m`, `g` (powers of 1024); `0`: no limit",
        default_native: "no limit",
        default_ingress_nginx: "`1m`",
        scope: Scope::Paths,
        bad_value: BadValue::Default,
        doc: "The largest request body. A larger one is answered 413.",
        difference: "",
    },
    parse: |text| {
        let expected = || Bad::Form("a size like 512k, 8m or 1g".to_owned());
        let text = text.trim();
        let (digits, shift) = match text.char_indices().next_back() {
            Some((at, 'k' | 'K')) => (text.get(..at), 10),
            Some((at, 'm' | 'M')) => (text.get(..at), 20),
            Some((at, 'g' | 'G')) => (text.get(..at), 30),
            _ => (Some(text), 0),
        };
        let digits =
            digits.filter(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).ok_or_else(expected)?;
        let size = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)).ok_or_else(expected)?;
        Ok((size > 0).then_some(size))
    },
};

pub(crate) static ALLOWLIST: Item<Vec<IpNet>> = Item {
    about: Annotation {
        name: "allowlist-source-range",
        aliases: &["whitelist-source-range"],
        spelling: Spelling::Both,
        value: "addresses and CIDRs, separated by commas",
        default_native: "everybody may come",
        default_ingress_nginx: "everybody may come",
        scope: Scope::Paths,
        bad_value: BadValue::Answer503,
        doc: "Only clients from these addresses may come; others are answered 403. A list that cannot be read lets nobody in.",
        difference: "",
    },
    parse: |text| {
        let networks = text.split(',').map(|part| crate::names::network(part.trim()));
        let networks: Option<Vec<IpNet>> = networks.collect();
        networks
            .ok_or_else(|| Bad::Form("a list of addresses and CIDRs (192.0.2.0/24, 2001:db8::/32), separated by commas".to_owned()))
    },
};
