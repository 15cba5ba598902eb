//! What the fuzz targets found interesting, run as a plain test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod differential;
mod support;

use std::{fs, path::Path};

fn each(target: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        // Shown when one fails.
        println!("{}", path.display());
        run(&fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 10, "{} is not empty", folder.display());
}

/// The first byte says in which pieces the others come.
fn each_in_pieces(target: &str, run: impl Fn(&[u8])) {
    each(target, |bytes| {
        let mut bytes = bytes.to_vec();
        for piece in 0..32 {
            if let Some(first) = bytes.first_mut() {
                *first = piece;
            }
            run(&bytes);
        }
    });
}

#[test]
fn requests_of_the_corpus_hold_what_is_promised() {
    each_in_pieces("request_head", support::request_head);
}

#[test]
fn responses_of_the_corpus_hold_what_is_promised() {
    each_in_pieces("response_head", support::response_head);
}

#[test]
fn chunked_bodies_of_the_corpus_hold_what_is_promised() {
    each_in_pieces("chunked_body", support::chunked_body);
}

#[test]
fn requests_of_the_corpus_are_read_as_hyper_reads_them() {
    each("hyper_requests", differential::requests::hyper_requests);
}

#[test]
fn responses_of_the_corpus_are_read_as_hyper_reads_them() {
    each("hyper_responses", differential::responses::hyper_responses);
}
