//! What ingress-nginx answered, asked of Penstock: see `tests/ingress-nginx/README.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

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

/// What differs on purpose, field by field (`area/name[index].field: theirs -> ours`), each with its reason.
fn deviations() -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder().join("deviations.txt")).unwrap();
    let mut reason = None;
    let mut deviations = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            None => reason = Some(line.to_owned()),
            Some(deviation) => {
                let reason = reason.clone().unwrap_or_else(|| panic!("no reason: {line}"));
                assert!(deviations.insert(deviation.to_owned(), reason).is_none(), "twice: {line}");
            }
        }
    }
    deviations
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ingress-nginx"))
}

#[test]
fn the_documentation_gives_the_reason_of_every_difference_from_ingress_nginx() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migrating-from-ingress-nginx.md");
    let docs = fs::read_to_string(docs).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let reasons: BTreeSet<String> = deviations().into_values().collect();
    let missing: Vec<_> = reasons.iter().filter(|reason| !docs.contains(reason.as_str())).collect();
    assert!(!reasons.is_empty() && missing.is_empty(), "not in the documentation, word by word: {missing:#?}");
}

#[test]
fn ingresses_made_for_ingress_nginx_are_answered_as_it_answered_them() {
    let folder = folder();
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
    let recorded = folder.join("recorded");
    let (_, told, error) = replay(&["compare", recorded.to_str().unwrap(), ours.to_str().unwrap(), "--essential", "--differences"]);
    let summary = told.lines().last().unwrap_or_else(|| panic!("nothing compared: {error}"));
    println!("{summary}");
    assert!(summary.contains(" 0 not recorded"), "{told}");

    let found: BTreeSet<&str> = told.lines().filter(|line| line.contains(" -> ")).collect();
    let deviations = deviations();
    let listed: BTreeSet<&str> = deviations.keys().map(String::as_str).collect();
    let unlisted: Vec<_> = found.difference(&listed).collect();
    let alike: Vec<_> = listed.difference(&found).collect();
    assert!(
        unlisted.is_empty() && alike.is_empty(),
        "differs and is not listed: {unlisted:#?}\nlisted, and no different, or not in that way: {alike:#?}"
    );
}
