use super::*;

fn fields(lines: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in lines {
        fields.push_raw(name.as_bytes(), value.as_bytes()).unwrap();
    }
    fields
}

fn written(fields: &Fields) -> String {
    let mut out = Vec::new();
    fields.write(&mut out);
    String::from_utf8(out).unwrap().replace("\r\n", "|")
}

#[test]
fn a_slot_takes_sixteen_bytes() {
    assert_eq!(size_of::<Slot>(), 16);
    assert_eq!(size_of::<Name>(), 1);
}

#[test]
fn order_and_case_stay() {
    let fields = fields(&[("x-B", "1"), ("HOST", "a"), ("X-a", "2"), ("x-b", "3")]);
    assert_eq!(written(&fields), "x-B: 1|HOST: a|X-a: 2|x-b: 3|");
    assert_eq!((fields.len(), fields.is_empty()), (4, false));
    assert_eq!(fields.iter().map(|field| field.name).collect::<Vec<_>>(), [Name::Other, Name::Host, Name::Other, Name::Other]);
}

#[test]
fn fields_are_found_in_any_case() {
    let fields = fields(&[("cookie", "a"), ("X-One", "1"), ("COOKIE", "b"), ("x-one", "2")]);
    assert_eq!(fields.get(Name::Cookie), Some(&b"a"[..]));
    assert!(fields.all(Name::Cookie).eq([b"a", b"b"]));
    assert!(fields.all(Name::Cookie).rev().eq([b"b", b"a"]));
    assert!(fields.all_raw(b"cookie").eq([b"a", b"b"]));
    assert_eq!(fields.get_raw(b"x-one"), Some(&b"1"[..]));
    assert!(fields.all_raw(b"X-ONE").eq([b"1", b"2"]));
    assert_eq!((fields.get(Name::Host), fields.get_raw(b"x-two"), fields.get(Name::Other)), (None, None, None));
    assert!(fields.contains(Name::Cookie) && !fields.contains(Name::Host));
}

#[test]
fn nothing_that_ends_a_line_can_be_added() {
    let mut fields = fields(&[("a", "1")]);
    for value in ["x\r\nb: 2", "x\ny", "x\ry", "\0", "x\x7f", "\u{b}"] {
        assert_eq!(fields.push(Name::Server, value.as_bytes()), Err(FieldError::Value), "{value:?}");
        assert_eq!(fields.set_raw(b"a", value.as_bytes()), Err(FieldError::Value), "{value:?}");
    }
    for name in ["", "a b", "a:", "a\r\n", "ä", "a\0"] {
        assert_eq!(fields.push_raw(name.as_bytes(), b"x"), Err(FieldError::Name), "{name:?}");
        assert_eq!(fields.set_raw(name.as_bytes(), b"x"), Err(FieldError::Name), "{name:?}");
    }
    assert_eq!(fields.push(Name::Other, b"x"), Err(FieldError::Name));
    assert_eq!(fields.push_raw(&vec![b'a'; 65_536], b"x"), Err(FieldError::Name));
    assert_eq!(fields.push_raw(b"a", &vec![b'a'; MAX_HEAD]), Err(FieldError::TooLarge));
    assert_eq!(written(&fields), "a: 1|");
}

#[test]
fn a_value_is_added_without_the_blanks_around_it() {
    let mut fields = Fields::new();
    fields.push(Name::Via, b" \t1.1 a \t").unwrap();
    fields.push(Name::Vary, b"  ").unwrap();
    assert_eq!(written(&fields), "Via: 1.1 a|Vary: |");
}

#[test]
fn setting_keeps_the_place_and_the_spelling_of_the_first() {
    let mut fields = fields(&[("a", "1"), ("hOST", "x"), ("X-One", "1"), ("host", "y"), ("x-one", "2")]);
    fields.set(Name::Host, b"z").unwrap();
    fields.set_raw(b"X-ONE", b"3").unwrap();
    fields.set(Name::Via, b"4").unwrap();
    fields.set_raw(b"x-two", b"5").unwrap();
    assert_eq!(written(&fields), "a: 1|hOST: z|X-One: 3|Via: 4|x-two: 5|");
}

#[test]
fn removing() {
    let mut fields = fields(&[("Via", "1"), ("a", "2"), ("VIA", "3"), ("A", "4"), ("b", "5"), ("TE", "6")]);
    assert!(fields.remove(Name::Via) && !fields.remove(Name::Via) && !fields.contains(Name::Via));
    assert!(fields.remove_raw(b"A") && !fields.remove_raw(b"a") && fields.remove_raw(b"te"));
    assert!(!fields.remove(Name::Other));
    assert_eq!(written(&fields), "b: 5|");
    fields.retain(|field| field.value != b"5");
    assert!(fields.is_empty() && !fields.contains(Name::Other));
}

#[test]
fn items_run_over_all_lines() {
    let fields = fields(&[("Connection", "close, ,x"), ("a", "b"), ("connection", " Upgrade ")]);
    assert!(fields.items(Name::Connection).eq([&b"close"[..], b"x", b"Upgrade"]));
    assert!(fields.has_item(Name::Connection, "upgrade") && !fields.has_item(Name::Connection, "up"));
    assert!(!fields.has_item(Name::Upgrade, "x"));
}

#[test]
fn a_cleared_list_keeps_what_was_allocated() {
    let mut fields = fields(&[("a", "1"), ("b", "2")]);
    let (bytes, slots) = (fields.bytes.capacity(), fields.slots.capacity());
    fields.clear();
    assert_eq!((fields.bytes.capacity(), fields.slots.capacity()), (bytes, slots));
    assert_eq!(written(&fields), "");
    let buffer = fields.take_buffer();
    assert_eq!((buffer.len(), buffer.capacity(), fields.bytes.capacity()), (0, bytes, 0));
}

#[test]
fn no_credentials_are_shown() {
    let fields =
        fields(&[("authorization", "Basic c2VjcmV0"), ("cookie", "s=secret"), ("set-cookie", "s=secret"), ("via", "shown")]);
    let shown = format!("{fields:?}");
    assert!(!shown.contains("secret") && !shown.contains("c2VjcmV0") && shown.contains("via: shown"), "{shown}");
}

#[test]
fn all_are_set_at_once_as_one_by_one() {
    let ours = fields(&[("X-Real-IP", "192.0.2.7"), ("X-Scheme", "https")]);
    let theirs: [&[(&str, &str)]; 5] = [
        &[],
        &[("Host", "a"), ("Accept", "*/*")],
        &[("x-scheme", "http"), ("Host", "a"), ("X-Scheme", "ftp")],
        &[("x-real-ip", "6.6.6.6"), ("x-scheme", "http")],
        &[("x-other", "1")],
    ];
    for lines in theirs {
        let (mut at_once, mut one_by_one) = (fields(lines), fields(lines));
        at_once.set_all(&ours);
        for field in ours.iter() {
            one_by_one.set_raw(field.raw_name, field.value).unwrap();
        }
        assert_eq!(written(&at_once), written(&one_by_one));
        for field in ours.iter() {
            assert_eq!(at_once.get(field.name), Some(field.value));
        }
        at_once.push_raw(b"x-last", b"1").unwrap();
        assert!(written(&at_once).ends_with("|x-last: 1|"));
    }
    let (mut others, custom) = (fields(&[("X-B", "1")]), fields(&[("x-b", "2"), ("x-c", "3")]));
    others.set_all(&custom);
    assert_eq!(written(&others), "X-B: 2|x-c: 3|");
}

#[test]
fn of_a_field_for_which_there_is_no_room_nothing_is_left() {
    let mut full = fields(&[("x-scheme", "theirs"), ("x-real-ip", "theirs"), ("a", &"x".repeat(MAX_HEAD - 70))]);
    full.set_all(&fields(&[("X-Scheme", "ours"), ("X-Real-IP", &"1".repeat(100))]));
    assert_eq!((full.get(Name::XScheme), full.get(Name::XRealIp)), (Some(&b"ours"[..]), None));
}
