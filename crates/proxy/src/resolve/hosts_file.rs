//! `/etc/hosts` (hosts(5)): a line has an address and names, `#` begins a comment.

use std::net::IpAddr;

/// The addresses of a name, in the file's order. Names are compared without regard to case and to a trailing dot.
pub(super) fn lookup(file: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let lines = file.lines().filter_map(|line| line.split('#').next());
    lines
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address: IpAddr = words.next()?.parse().ok()?;
            words.any(|word| word.strip_suffix('.').unwrap_or(word).eq_ignore_ascii_case(name)).then_some(address)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "127.0.0.1\tlocalhost\n::1 localhost ip6-localhost # nas\n\n\
        192.0.2.7  NAS.home nas\n# 192.0.2.8 nas\nx nas\n2001:db8::7 nas. \n";

    #[test]
    fn all_addresses_of_a_name_are_found() {
        for (name, expected) in [
            ("localhost", &["127.0.0.1", "::1"][..]),
            ("nas", &["192.0.2.7", "2001:db8::7"]),
            ("nas.home.", &["192.0.2.7"]),
            ("192.0.2.7", &[]),
            ("other", &[]),
        ] {
            let expected: Vec<IpAddr> = expected.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(lookup(FILE, name), expected, "{name}");
        }
    }
}
