//! Which endpoint gets a request: the method, and the key that is hashed.

use penstock_model::{HashPart, Method};

use super::{Annotation, Bad, BadValue, Item, Scope, Spelling, own, values};
use crate::bounds;

pub(crate) static LOAD_BALANCE: Item<Method> = Item {
    about: Annotation {
        name: "load-balance",
        aliases: &[],
        spelling: Spelling::Both,
        value: "`round_robin` or `ewma`",
        default_native: "`ewma`",
        default_ingress_nginx: "`round_robin`",
        scope: Scope::Paths,
        bad_value: BadValue::RefuseIngress,
        doc: "How an endpoint is chosen: each in its turn, or the better of two by requests in flight and latency. `affinity` and \
              `upstream-hash-by` go before it.",
        difference: "it reaches all paths, of whichever Ingress, that lead to the same port of a Service, and that of the oldest counts; `ewma` \
                     looks at latency alone. Names of other methods (`chash`, `sticky_balanced`, …) are taken there, and refused here: \
                     `upstream-hash-by` and `affinity` ask for the same.",
    },
    parse: |text| match text.trim() {
        "round_robin" => Ok(Method::RoundRobin),
        "ewma" => Ok(Method::LeastLoaded),
        "chash" | "chashsubset" | "sticky_balanced" | "sticky_persistent" => {
            Err(Bad::Sense("round_robin or ewma (upstream-hash-by and affinity ask for the others)".to_owned()))
        }
        _ => Err(Bad::Form("round_robin or ewma".to_owned())),
    },
};

pub(crate) static UPSTREAM_HASH_BY: Item<Vec<HashPart>> = Item {
    about: Annotation {
        name: "upstream-hash-by",
        aliases: &[],
        spelling: Spelling::Both,
        value: "text with the variables `$remote_addr`, `$binary_remote_addr`, `$request_uri`, `$host`, `$http_NAME`, `$cookie_NAME`, \
                `$arg_NAME`, also as `${NAME}`",
        default_native: "none",
        default_ingress_nginx: "none",
        scope: Scope::Paths,
        bad_value: BadValue::RefuseIngress,
        doc: "Requests for which this text is the same go to the same endpoint, while that is there. Requests that have none of the variables \
              are balanced as by `load-balance`. `affinity` goes before it.",
        difference: "it reaches all paths, of whichever Ingress, that lead to the same port of a Service, and that of the oldest counts; other \
                     variables are known; requests without any go to one endpoint, all of them. Here other variables are refused by name.",
    },
    parse: |text| {
        let text = text.trim();
        if text.is_empty() || !text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_${}".contains(letter)) {
            return Err(Bad::Form("made of letters, digits and -_${} alone".to_owned()));
        }
        let parts = parts(text)?;
        if parts.iter().all(|part| matches!(part, HashPart::Text(_))) {
            return Err(Bad::Sense("a text with a variable".to_owned()));
        }
        Ok(parts)
    },
};

pub(crate) static LOAD_FACTOR: Item<u32> = Item {
    about: own(
        "load-balancing-hash-load-factor",
        "percent, from 100 to 1000",
        "no endpoint is passed over, however loaded",
        "Beside `upstream-hash-by`: an endpoint that has more than so many percent of the mean of requests in flight is passed over.",
    ),
    parse: |text| values::bounded(text, bounds::load_factor),
};

fn parts(text: &str) -> Result<Vec<HashPart>, Bad> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((plain, after)) = rest.split_once('$') {
        if !plain.is_empty() {
            parts.push(HashPart::Text(plain.into()));
        }
        let (name, after) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or_else(|| Bad::Sense("a text whose braces are closed".to_owned()))?,
            None => {
                let end = after.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(after.len());
                after.split_at_checked(end).unwrap_or((after, ""))
            }
        };
        parts.push(variable(name)?);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(HashPart::Text(rest.into()));
    }
    Ok(parts)
}

fn variable(name: &str) -> Result<HashPart, Bad> {
    let of = |prefix| name.strip_prefix(prefix).filter(|name: &&str| !name.is_empty());
    Ok(match name {
        "remote_addr" | "binary_remote_addr" => HashPart::ClientAddress,
        "request_uri" => HashPart::Target,
        "host" => HashPart::Host,
        _ if let Some(header) = of("http_") => HashPart::Header(header.replace('_', "-").to_ascii_lowercase().into()),
        _ if let Some(cookie) = of("cookie_") => HashPart::Cookie(cookie.into()),
        _ if let Some(argument) = of("arg_") => HashPart::Query(argument.into()),
        _ => return Err(Bad::Sense(format!("a text whose variables are known here (${name} is not)"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_text_and_variables_with_or_without_braces() {
        let text = |text: &str| HashPart::Text(text.into());
        for (given, read) in [
            ("$request_uri", vec![HashPart::Target]),
            ("$binary_remote_addr", vec![HashPart::ClientAddress]),
            ("${request_uri}-text-$http_x_user", vec![HashPart::Target, text("-text-"), HashPart::Header("x-user".into())]),
            ("$arg_User$cookie_SID-", vec![HashPart::Query("User".into()), HashPart::Cookie("SID".into()), text("-")]),
            ("a${host}b", vec![text("a"), HashPart::Host, text("b")]),
        ] {
            assert_eq!((UPSTREAM_HASH_BY.parse)(given).unwrap(), read, "{given}");
        }
    }

    #[test]
    fn what_cannot_be_hashed_by_exactly_is_refused_by_name() {
        for (given, said) in
            [("$uri", "$uri"), ("${request_uri", "braces"), ("text", "variable"), ("$http_", "$http_"), ("a$", "$ ")]
        {
            match (UPSTREAM_HASH_BY.parse)(given) {
                Err(Bad::Sense(why)) => assert!(why.contains(said), "{given}: {why}"),
                other => panic!("{given}: {other:?}"),
            }
        }
        assert!(matches!((UPSTREAM_HASH_BY.parse)("$bogus;"), Err(Bad::Form(_))));
    }
}
