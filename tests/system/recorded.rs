//! What ingress-nginx answered, asked of Penstock: see `tests/ingress-nginx/README.md`.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    cluster::{Cluster, ClusterOptions},
    support::{Netns, Penstock},
};

const HTTP: &str = "10.88.0.9:80";
const HTTPS: &str = "10.88.0.9:443";

/// The replayer reads certificates and keys from the kubeconfig itself only.
fn with_files_inside(kubeconfig: &Path) -> serde_json::Value {
    fn walk(value: &mut serde_json::Value) {
        let Some(map) = value.as_object_mut() else {
            value.as_array_mut().into_iter().flatten().for_each(walk);
            return;
        };
        for name in ["certificate-authority", "client-certificate", "client-key"] {
            if let Some(path) = map.remove(name) {
                let content = BASE64_STANDARD.encode(fs::read(path.as_str().unwrap()).unwrap());
                map.insert(format!("{name}-data"), content.into());
            }
        }
        map.values_mut().for_each(walk);
    }
    let mut value = serde_json::from_slice(&fs::read(kubeconfig).unwrap()).unwrap();
    walk(&mut value);
    value
}

/// `area/name` of each scenario that differs on purpose, with the reason.
fn deviations(folder: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder.join("deviations.txt")).unwrap();
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, reason) = line.split_once(' ').unwrap_or_else(|| panic!("no reason: {line}"));
            (name.to_owned(), reason.trim().to_owned())
        })
        .collect()
}

#[test]
fn ingresses_made_for_ingress_nginx_are_answered_as_it_answered_them() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ingress-nginx"));
    let namespace = Netns::with("recorded", &["10.88.0.1/32", "10.88.0.2/32", "10.88.0.3/32", "10.88.0.9/32"]);
    let cluster = Cluster::start(ClusterOptions { netns: Some(namespace.name.clone()), ..ClusterOptions::default() });
    let kubeconfig = cluster.kubeconfig();
    let kubeconfig = kubeconfig.to_str().unwrap();
    let penstock = Penstock::start_in(
        &namespace,
        HTTP,
        HTTPS,
        &["controller", "--kubeconfig", kubeconfig, "--ingress-class", "nginx", "--controller-class", "k8s.io/ingress-nginx"],
    );

    let work = tempfile::tempdir().unwrap();
    let inlined = work.path().join("kubeconfig");
    fs::write(&inlined, with_files_inside(Path::new(kubeconfig)).to_string()).unwrap();
    let ours = work.path().join("ours");
    let python = ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(|python| Command::new(python).args(["-c", "import yaml"]).output().is_ok_and(|done| done.status.success()))
        .expect("a python3 with the module yaml (Debian's package python3-yaml)");
    let replay = |arguments: &[&str]| {
        let script = folder.join("replay.py");
        let done = namespace.command(python).arg(&script).args(arguments).output().unwrap();
        (done.status, String::from_utf8_lossy(&done.stdout).into_owned(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (status, told, error) = replay(&[
        "record",
        "--kubeconfig",
        inlined.to_str().unwrap(),
        "--http",
        HTTP,
        "--https",
        HTTPS,
        "--class",
        "nginx",
        "--controller-class",
        "k8s.io/ingress-nginx",
        "--configmap",
        "default/ingress-nginx",
        "--out",
        ours.to_str().unwrap(),
    ]);
    assert!(status.success(), "{told}\n{error}\n{}", penstock.log());
    let (_, told, error) = replay(&["compare", folder.join("recorded").to_str().unwrap(), ours.to_str().unwrap(), "--essential"]);
    let summary = told.lines().last().unwrap_or_else(|| panic!("nothing compared: {error}"));
    println!("{summary}");
    assert!(summary.contains(" 0 not recorded"), "{told}");

    // A scenario that differs begins a line; what differs in it is indented.
    let differ =
        told.lines().filter(|line| !line.starts_with(' ') && line.contains('/')).filter_map(|line| line.split_whitespace().next());
    let differ: Vec<_> = differ.collect();
    let deviations = deviations(folder);
    let unlisted: Vec<_> = differ.iter().filter(|name| !deviations.contains_key(**name)).collect();
    let alike: Vec<_> = deviations.keys().filter(|name| !differ.contains(&name.as_str())).collect();
    assert!(unlisted.is_empty(), "{} scenarios differ that are not listed: {unlisted:?}\n{told}", unlisted.len());
    assert!(alike.is_empty(), "listed as deviations, yet no different: {alike:?}");
}
