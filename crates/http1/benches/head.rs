//! What a head costs to parse and to write again, against httparse alone, which neither keeps nor checks as much.
//!
//! `cargo bench -p penstock-http1` takes about half a minute; criterion's flags (`--measurement-time`, a filter) give more or less.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::{hint::black_box, mem::MaybeUninit};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock_http1::{BodyDecoder, ChunkRelay, Limits, Name, Piece, Progress, RequestFraming, RequestHead, write_request};

/// As a browser sends it, shortened nowhere.
const BROWSER: &[u8] = b"GET /dashboard/projects?page=2&sort=updated HTTP/1.1\r\n\
Host: app.example.test\r\n\
Connection: keep-alive\r\n\
Cache-Control: max-age=0\r\n\
sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n\
sec-ch-ua-mobile: ?0\r\n\
sec-ch-ua-platform: \"Linux\"\r\n\
Upgrade-Insecure-Requests: 1\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n\
Sec-Fetch-Site: same-origin\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-User: ?1\r\n\
Sec-Fetch-Dest: document\r\n\
Referer: https://app.example.test/dashboard\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7\r\n\
Cookie: session=0f8fad5b-d9cb-469f-a165-70867728950e; theme=dark; csrftoken=Zm9vYmFyYmF6cXV4\r\n\r\n";

fn httparse_alone(bytes: &[u8]) -> usize {
    let mut storage = [const { MaybeUninit::uninit() }; 64];
    let mut request = httparse::Request::new(&mut []);
    request.parse_with_uninit_headers(black_box(bytes), &mut storage).unwrap().unwrap()
}

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("browser request");
    group.throughput(Throughput::Bytes(BROWSER.len() as u64));
    let limits = Limits::default();
    group.bench_function("httparse alone", |b| b.iter(|| httparse_alone(BROWSER)));
    let mut head = RequestHead::new();
    let mut buffer = Vec::with_capacity(4096);
    group.bench_function("copy into the buffer", |b| {
        b.iter(|| {
            buffer.clear();
            buffer.extend_from_slice(black_box(BROWSER));
        });
    });
    group.bench_function("parse", |b| {
        b.iter(|| {
            buffer.clear();
            buffer.extend_from_slice(black_box(BROWSER));
            assert_eq!(head.parse(&mut buffer, &limits), Ok(Progress::Complete));
        });
    });
    let mut out = Vec::with_capacity(4096);
    group.bench_function("parse, check, edit as a proxy does, write", |b| {
        b.iter(|| {
            buffer.clear();
            buffer.extend_from_slice(black_box(BROWSER));
            assert_eq!(head.parse(&mut buffer, &limits), Ok(Progress::Complete));
            assert_eq!(head.framing(), Ok(RequestFraming::None));
            black_box((head.host().unwrap(), head.persists(), head.expectation()));
            let fields = head.fields_mut();
            fields.remove_hop_by_hop().unwrap();
            fields.set(Name::XForwardedFor, b"203.0.113.9").unwrap();
            fields.set(Name::XForwardedProto, b"https").unwrap();
            fields.set(Name::XForwardedHost, b"app.example.test").unwrap();
            fields.set(Name::XRealIp, b"203.0.113.9").unwrap();
            fields.set(Name::XRequestId, b"0123456789abcdef0123456789abcdef").unwrap();
            out.clear();
            write_request(&mut out, head.method_str(), head.target(), head.fields()).unwrap();
            black_box(out.len())
        });
    });
    assert_eq!(head.parse(&mut BROWSER.to_vec(), &limits), Ok(Progress::Complete));
    group.bench_function("write as it came", |b| {
        b.iter(|| {
            out.clear();
            head.write(&mut out).unwrap();
            black_box(out.len())
        });
    });
    assert_eq!(out, BROWSER);
    group.bench_function("parse byte by byte", |b| {
        b.iter(|| {
            buffer.clear();
            for byte in BROWSER {
                buffer.push(*byte);
                black_box(head.parse(&mut buffer, &limits).unwrap());
            }
        });
    });
    group.finish();
}

fn bodies(c: &mut Criterion) {
    // What one read of a chatty stream holds: many small chunks.
    let input = b"20\r\n0123456789abcdef0123456789abcdef\r\n".repeat(400);
    let mut group = c.benchmark_group("16 KB of small chunks");
    group.throughput(Throughput::Bytes(input.len() as u64));
    let limits = Limits::default();
    group.bench_function("decode", |b| {
        b.iter(|| {
            let mut decoder = BodyDecoder::for_request(RequestFraming::Chunked, limits);
            let mut rest = black_box(input.as_slice());
            let mut data = 0;
            while !rest.is_empty() {
                let step = decoder.decode(rest).unwrap();
                if let Piece::Data(range) = step.piece {
                    data += range.len();
                }
                rest = &rest[step.consumed..];
            }
            data
        });
    });
    let mut out = Vec::new();
    group.bench_function("relay", |b| {
        b.iter(|| {
            let relayed = ChunkRelay::new(limits).relay(black_box(&input), &mut out).unwrap();
            assert!(relayed.verbatim);
            relayed.data
        });
    });
    group.finish();
}

criterion_group!(benches, heads, bodies);
criterion_main!(benches);
