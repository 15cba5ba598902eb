use super::*;

fn parse(bytes: &str) -> (RequestHead, Vec<u8>) {
    let mut head = RequestHead::new();
    let mut buffer = bytes.as_bytes().to_vec();
    assert_eq!(head.parse(&mut buffer, &Limits::default()), Ok(Progress::Complete), "{bytes:?}");
    (head, buffer)
}

#[test]
fn a_head_takes_the_buffer_and_leaves_what_follows() {
    let mut buffer = b"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_vec();
    let address = buffer.as_ptr();
    let mut head = RequestHead::new();
    assert_eq!(head.parse(&mut buffer, &Limits::default()), Ok(Progress::Complete));
    assert_eq!((buffer.as_slice(), head.fields.bytes.as_ptr()), (&b"hello"[..], address), "the head's bytes did not move");
    buffer.extend_from_slice(b" and more");
    assert_eq!((head.method_str(), head.path(), head.query(), head.target()), ("POST", "/a", Some("b"), "/a?b"));
    assert_eq!((head.version(), head.target_form()), (Version::Http11, TargetForm::Origin));
    assert_eq!(head.fields().get(Name::Host), Some(&b"a"[..]));
}

#[test]
fn one_request_after_the_other_allocates_nothing() {
    let mut head = RequestHead::new();
    let mut buffer = Vec::new();
    let mut vectors = Vec::new();
    for round in 0..6 {
        buffer.extend_from_slice(b"GET /some/path HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n");
        assert_eq!(head.parse(&mut buffer, &Limits::default()), Ok(Progress::Complete));
        assert_eq!((head.path(), head.fields().len()), ("/some/path", 2));
        let pair = [buffer.as_ptr().addr(), head.fields.bytes.as_ptr().addr()];
        if round > 2 {
            assert!(vectors.contains(&pair), "two vectors take turns");
        }
        vectors.push(pair);
        buffer.clear();
    }
}

#[test]
fn each_byte_is_looked_at_once() {
    // A head of many lines, byte by byte: quadratic work would show as a test that does not end.
    let mut bytes = b"GET / HTTP/1.1\r\n".to_vec();
    for _ in 0..20_000 {
        bytes.extend_from_slice(b"a: b\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    let limits = Limits { head: 1 << 20, fields: 1 << 20, ..Limits::default() };
    let mut head = RequestHead::new();
    let mut buffer = Vec::new();
    for byte in bytes {
        buffer.push(byte);
        head.parse(&mut buffer, &limits).unwrap();
    }
    assert_eq!(head.fields().len(), 20_000);
}

#[test]
fn clearing_the_fields_leaves_the_start_line() {
    let (mut head, _) = parse("BREW /a?b HTTP/1.1\r\nHost: a\r\n\r\n");
    head.fields_mut().clear();
    head.fields_mut().push(Name::Host, b"b").unwrap();
    assert_eq!((head.method_str(), head.target(), head.host()), ("BREW", "/a?b", Ok(Some("b"))));
    let mut out = Vec::new();
    head.write(&mut out).unwrap();
    assert_eq!(out, b"BREW /a?b HTTP/1.1\r\nHost: b\r\n\r\n");
}

#[test]
fn a_cleared_head_has_forgotten_everything() {
    let (mut head, _) = parse("GET http://b/c?d HTTP/1.0\r\nHost: a\r\n\r\n");
    let capacity = head.fields.bytes.capacity();
    head.clear();
    assert_eq!((head.method_str(), head.path(), head.query(), head.target_authority()), ("GET", "", None, None));
    assert!(head.fields().is_empty());
    // Also what was seen of a head that never came to its end.
    assert_eq!(head.parse(&mut b"GET / HTTP/1.1\r\nA: b\r\n".to_vec(), &Limits::default()), Ok(Progress::Incomplete));
    head.clear();
    assert_eq!(head.parse(&mut b"GET /x HTTP/1.1\r\n\r\n".to_vec(), &Limits::default()), Ok(Progress::Complete));
    assert_eq!((head.path(), head.fields().len()), ("/x", 0));
    assert!(capacity > 0 && !format!("{head:?}").is_empty());
}

#[test]
fn a_bad_line_is_refused_before_the_head_ends() {
    for (start, error) in [
        ("\u{16}", RequestError::RequestLine),
        ("GET / HTTP/3.0\r\n", RequestError::VersionNotSupported),
        ("GET / HTTP/1.1\r\nHost : a\r\n", FieldsError::BlankBeforeColon.into()),
        ("GET / HTTP/1.1\n", FieldsError::BareLineFeed.into()),
    ] {
        assert_eq!(RequestHead::new().parse(&mut start.as_bytes().to_vec(), &Limits::default()), Err(error), "{start:?}");
    }
}

#[test]
fn after_an_error_the_head_shows_what_was_read_and_nothing_of_the_request_before() {
    let mut head = parse("PUT /old HTTP/1.1\r\nHost: old\r\nX: old\r\n\r\n").0;
    let error = head.parse(&mut b"BREW /new HTTP/1.1\r\nHost: new\r\nX : 1\r\n".to_vec(), &Limits::default());
    assert_eq!(error, Err(FieldsError::BlankBeforeColon.into()));
    assert_eq!((head.method_str(), head.target(), head.fields().len(), head.host()), ("BREW", "/new", 1, Ok(Some("new"))));
    let error = head.parse(&mut b"GET /new#x HTTP/1.1\r\n".to_vec(), &Limits::default());
    assert_eq!((error, head.target(), head.fields().len()), (Err(RequestError::Fragment), "", 0));
    let mut head = parse("PUT /old HTTP/1.1\r\nHost: old\r\n\r\n").0;
    assert_eq!(head.parse(&mut b"GET /new HTTP/1.1\r\nHost: n".to_vec(), &Limits::default()), Ok(Progress::Incomplete));
    assert_eq!((head.target(), head.fields().len()), ("", 0));
}

#[test]
fn limits_are_kept_to_the_byte() {
    let head = b"GET /abc HTTP/1.1\r\nA: b\r\nC: d\r\n\r\n";
    let fits = Limits { head: head.len(), target: 4, fields: 2, ..Limits::default() };
    let parse = |limits: Limits| RequestHead::new().parse(&mut head.to_vec(), &limits);
    assert_eq!(parse(fits), Ok(Progress::Complete));
    assert_eq!(parse(Limits { head: head.len() - 1, ..fits }), Err(RequestError::HeadTooLarge));
    assert_eq!(parse(Limits { target: 3, ..fits }), Err(RequestError::TargetTooLong));
    assert_eq!(parse(Limits { fields: 1, ..fits }), Err(FieldsError::TooMany.into()));
    let longest = [&[b'M'; MAX_METHOD][..], b" /", &[b'a'; 99], b" HTTP/1.1\r\n\r\n"].concat();
    let mut head = RequestHead::new();
    let mut buffer = Vec::new();
    for byte in &longest {
        buffer.push(*byte);
        let progress = head.parse(&mut buffer, &Limits { target: 100, ..Limits::default() });
        assert_eq!(progress, Ok(if buffer.is_empty() { Progress::Complete } else { Progress::Incomplete }));
    }
    assert_eq!(head.path().len(), 100);
    let nothing = Limits { head: 0, target: 0, fields: 0, trailers: 0, extensions: 0 };
    assert_eq!(parse(nothing), Err(RequestError::HeadTooLarge));
}

#[test]
fn the_root_and_the_server_as_a_whole() {
    for (line, path, whole) in [
        ("OPTIONS *", "*", true),
        ("OPTIONS http://b", "/", true),
        ("OPTIONS http://b/", "/", false),
        ("OPTIONS http://b?q", "/", false),
        ("GET http://b", "/", false),
        ("OPTIONS /", "/", false),
        ("CONNECT b:1", "", false),
    ] {
        let (head, _) = parse(&format!("{line} HTTP/1.1\r\nHost: b\r\n\r\n"));
        assert_eq!((head.path(), head.is_server_wide()), (path, whole), "{line}");
    }
}

#[test]
fn a_head_that_is_composed_is_read_like_one_that_came() {
    let (mut head, _) = parse("GET /before HTTP/1.0\r\nHost: b\r\n\r\n");
    assert_eq!(head.compose("POST", "/a?b", &Limits::default()), Ok(()));
    head.fields_mut().push(Name::Host, b"example.test").unwrap();
    assert_eq!((head.method(), head.path(), head.query(), head.version()), (Method::Post, "/a", Some("b"), Version::Http11));
    assert_eq!((head.host(), head.fields().len()), (Ok(Some("example.test")), 1));
    let mut out = Vec::new();
    head.write(&mut out).unwrap();
    assert_eq!(out, b"POST /a?b HTTP/1.1\r\nHost: example.test\r\n\r\n");
    for (method, target) in [("G T", "/"), ("", "/"), ("GET", ""), ("GET", "a"), ("GET", "/ HTTP/1.1\r\nX: 1"), ("GET", "/\u{e4}")]
    {
        assert!(head.compose(method, target, &Limits::default()).is_err(), "{method} {target}");
    }
    assert_eq!(head.parse(&mut b"GET /next HTTP/1.1\r\n\r\n".to_vec(), &Limits::default()), Ok(Progress::Complete));
    assert_eq!(head.path(), "/next");
}
