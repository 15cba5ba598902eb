//! Container images without a registry: static binaries as an OCI archive that `ctr images import` takes.

use std::{fs, path::Path};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Writes an image of this name with these files (path without a leading slash, content), which runs as a user that is not root.
pub fn write(out: &Path, name: &str, files: &[(&str, Vec<u8>)], entrypoint: &[&str]) {
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "tmp/", 0o1777, &[], tar::EntryType::Directory);
    for (path, content) in files {
        append(&mut layer, path, 0o755, content, tar::EntryType::Regular);
    }
    let layer = layer.into_inner().unwrap();
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": { "Entrypoint": entrypoint, "User": "65532:65532" },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    })
    .to_string()
    .into_bytes();
    let descriptor =
        |kind: &str, content: &[u8]| -> Value { json!({ "mediaType": kind, "digest": digest(content), "size": content.len() }) };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string()
    .into_bytes();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] = json!({ "io.containerd.image.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();

    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#, tar::EntryType::Regular);
    append(&mut archive, "index.json", 0o644, index.as_bytes(), tar::EntryType::Regular);
    for content in [&layer, &config, &manifest] {
        let path = format!("blobs/sha256/{}", digest(content).trim_start_matches("sha256:"));
        append(&mut archive, &path, 0o644, content, tar::EntryType::Regular);
    }
    fs::write(out, archive.into_inner().unwrap()).unwrap();
}

fn append(builder: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8], kind: tar::EntryType) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, path, content).unwrap();
}

fn digest(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    hash.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
