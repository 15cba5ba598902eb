//! Which client addresses may come ([`AddressRules`]): deny goes first, an empty allow list allows all, and the answer to the others is 403.

use std::net::IpAddr;

use penstock_model::AddressRules;

use super::Answer;

pub(crate) fn refuse(rules: &AddressRules, client: IpAddr) -> Option<Answer> {
    let client = client.to_canonical();
    let denied = rules.deny.iter().any(|network| network.contains(&client));
    let allowed = rules.allow.is_empty() || rules.allow.iter().any(|network| network.contains(&client));
    (denied || !allowed).then(|| Answer::page(403, "Your address may not come here."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_goes_before_allow_and_an_empty_allow_list_allows_all() {
        let networks = |list: &[&str]| list.iter().map(|network| network.parse().unwrap()).collect::<Vec<_>>();
        for (allow, deny, client, refused) in [
            (&[][..], &[][..], "192.0.2.1", false),
            (&["192.0.2.0/24"], &[], "192.0.2.1", false),
            (&["192.0.2.0/24"], &[], "::ffff:192.0.2.1", false),
            (&["192.0.2.0/24"], &[], "198.51.100.1", true),
            (&["192.0.2.0/24"], &["192.0.2.1/32"], "192.0.2.1", true),
            (&[], &["2001:db8::/32"], "2001:db8::1", true),
            (&[], &["2001:db8::/32"], "192.0.2.1", false),
        ] {
            let rules = AddressRules { allow: networks(allow), deny: networks(deny) };
            assert_eq!(refuse(&rules, client.parse().unwrap()).is_some(), refused, "{allow:?} {deny:?} {client}");
        }
    }
}
