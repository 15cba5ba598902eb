//! What holds of all bytes, tried with many: the same result in whatever pieces, a round trip, no panic; and the list of fields against a plain one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use penstock_http1::{Fields, Limits, Method, Name, Progress, RequestHead, ResponseHead, write_request, write_response};
use proptest::{collection::vec, prelude::*, sample::select};

/// Bytes of which messages are made, and of which they are unmade.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<&'static [u8]> = vec![
        b"GET / HTTP/1.1\r\n",
        b"POST /a?b HTTP/1.0\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"GET http://b:1?c HTTP/1.1\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 204\r\n",
        b"Host: a\r\n",
        b"host:b\r\n",
        b"Content-Length: 5\r\n",
        b"content-length: 05 \r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close, x-a\r\n",
        b"X-A : b\r\n",
        b"X-A: \"b, c\"\r\n",
        b"Expect: 100-continue\r\n",
        b"X-Forwarded-For: 1\r\n",
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"05;a=\"b\"\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b":",
        b";",
        b" ",
        b"\t",
        b"\0",
        b"#",
        b"\x80",
        b",",
        b"a",
        b"5",
    ];
    prop_oneof![9 => select(known).prop_map(<[u8]>::to_vec), 1 => vec(any::<u8>(), 0..4)]
}

/// A first part that is likely to be right, and then anything; before it, the size of the pieces.
fn soup(start: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), select(start), vec(fragment(), 0..12)).prop_map(|(piece, start, fragments)| {
        let mut bytes = vec![piece];
        bytes.extend_from_slice(start);
        bytes.extend(fragments.concat());
        bytes
    })
}

const REQUESTS: &[&[u8]] =
    &[b"", b"GET / HTTP/1.1\r\n", b"POST /a/b?c HTTP/1.1\r\nHost: a\r\n", b"GET http://b HTTP/1.1\r\nHost: a\r\n"];
const RESPONSES: &[&[u8]] = &[b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 304 Not Modified\r\n", b"HTTP/1.0 500\r\n"];
const CHUNKS: &[&[u8]] = &[b"", b"5\r\nhello\r\n", b"0\r\n", b"3;a\r\nabc\r\n0\r\nA: b\r\n", b"1\r\na\r\n02\r\nbc\r\n"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_request_is_the_same_in_any_pieces_and_after_a_round_trip(bytes in soup(REQUESTS)) {
        support::request_head(&bytes);
    }

    #[test]
    fn a_response_is_the_same_in_any_pieces_and_after_a_round_trip(bytes in soup(RESPONSES)) {
        support::response_head(&bytes);
    }

    #[test]
    fn a_chunked_body_is_the_same_in_any_pieces_and_passed_on(bytes in soup(CHUNKS)) {
        support::chunked_body(&bytes);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
        support::request_head(&bytes);
        support::response_head(&bytes);
        support::chunked_body(&bytes);
    }
}

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        select(&["Host", "cookie", "X-Forwarded-For", "connection", "Content-Type", "x-a", "X-A"][..]).prop_map(ToOwned::to_owned),
        "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,24}",
    ]
}

/// Of what may stand in a value, without blanks around it.
fn value() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff, Just(b'\t')], 0..40).prop_map(|bytes| bytes.trim_ascii().to_vec())
}

fn list() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    vec((token(), value()), 0..16)
}

fn fields(list: &[(String, Vec<u8>)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in list {
        fields.push_raw(name.as_bytes(), value).unwrap();
    }
    fields
}

fn listed(fields: &Fields) -> Vec<(String, Vec<u8>)> {
    fields.iter().map(|field| (String::from_utf8(field.raw_name.to_vec()).unwrap(), field.value.to_vec())).collect()
}

proptest! {
    #[test]
    fn a_request_that_is_written_is_read_again(method in "[A-Z]{1,20}", path in "/[!-\"$->@-~]{0,40}", query in proptest::option::of("[!-\"$-~]{0,20}"), list in list()) {
        prop_assume!(method != "CONNECT");
        let target = query.as_ref().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        let mut wire = Vec::new();
        write_request(&mut wire, &method, &target, &fields(&list)).unwrap();
        let mut head = RequestHead::new();
        prop_assert_eq!(head.parse(&mut wire, &Limits::default()), Ok(Progress::Complete));
        prop_assert!(wire.is_empty());
        prop_assert_eq!((head.method_str(), head.path(), head.query()), (&*method, &*path, query.as_deref()));
        prop_assert_eq!(head.method(), Method::of(method.as_bytes()));
        prop_assert_eq!(listed(head.fields()), list);
    }

    #[test]
    fn a_response_that_is_written_is_read_again(status in 100_u16..1000, reason in "[ -~]{0,20}", list in list()) {
        let mut wire = Vec::new();
        write_response(&mut wire, status, &reason, &fields(&list)).unwrap();
        let mut head = ResponseHead::new();
        prop_assert_eq!(head.parse(&mut wire, &Limits::default()), Ok(Progress::Complete));
        prop_assert_eq!((head.status(), head.reason()), (status, &*reason));
        prop_assert_eq!(listed(head.fields()), list);
    }

    #[test]
    fn what_would_be_two_lines_is_never_pushed(name in vec(any::<u8>(), 0..8), value in vec(any::<u8>(), 0..8)) {
        let mut fields = Fields::new();
        let pushed = fields.push_raw(&name, &value);
        let set = fields.set_raw(&name, &value);
        prop_assert_eq!(pushed, set);
        let mut wire = Vec::new();
        fields.write(&mut wire);
        prop_assert_eq!(wire.iter().filter(|byte| **byte < b' ' && **byte != b'\t').count(), if pushed.is_ok() { 2 } else { 0 });
    }

    #[test]
    fn a_list_of_fields_does_what_a_plain_list_does(list in list(), edits in vec((0..7_u8, token(), value()), 0..12)) {
        let mut model = list.clone();
        let mut fields = fields(&list);
        for (kind, name, value) in edits {
            let same = |other: &str| other.eq_ignore_ascii_case(&name);
            match kind {
                0 => {
                    fields.push_raw(name.as_bytes(), &value).unwrap();
                    model.push((name.clone(), value.clone()));
                }
                1 | 2 => {
                    fields.set_raw(name.as_bytes(), &value).unwrap();
                    match model.iter().position(|(other, _)| same(other)) {
                        Some(index) => {
                            model[index].1.clone_from(&value);
                            let mut at = 0;
                            model.retain(|(other, _)| { at += 1; at - 1 <= index || !same(other) });
                        }
                        None => model.push((name.clone(), value.clone())),
                    }
                }
                3 => {
                    let there = model.iter().any(|(other, _)| same(other));
                    prop_assert_eq!(fields.remove_raw(name.as_bytes()), there);
                    model.retain(|(other, _)| !same(other));
                }
                4 => {
                    fields.retain(|field| field.value.len() % 5 != 0);
                    model.retain(|(_, value)| value.len() % 5 != 0);
                }
                _ => {
                    let known = Name::of(name.as_bytes());
                    let expected: Vec<&[u8]> = model.iter().filter(|(other, _)| same(other)).map(|(_, value)| &value[..]).collect();
                    prop_assert!(fields.all_raw(name.as_bytes()).eq(expected.iter().copied()));
                    prop_assert_eq!(fields.get_raw(name.as_bytes()), expected.first().copied());
                    if known != Name::Other {
                        prop_assert!(fields.all(known).eq(expected.iter().copied()));
                        prop_assert_eq!(fields.contains(known), !expected.is_empty());
                    }
                }
            }
            prop_assert_eq!(&listed(&fields), &model);
        }
        let mut wire = Vec::new();
        fields.write(&mut wire);
        let expected: Vec<u8> = model.iter().flat_map(|(name, value)| [name.as_bytes(), b": ", value, b"\r\n"].concat()).collect();
        prop_assert_eq!(wire, expected);
        fields.clear();
        prop_assert!(fields.is_empty() && listed(&fields).is_empty() && !fields.contains(Name::Host));
    }
}
