//! Bad input of every kind: a clear message on the line or the object, and the rest serves.
//!
//! `bad_input/NAME.yaml` holds a case. Its first lines say what must be told: `# files:` part of what `check` and `serve` say,
//! with the line if it is about one; `# cluster:` how the API server refuses it (`refused: …`), or what the object's condition or an
//! Event about it says (`told: …`). A case that is about files alone has no `# cluster:`, and the other way round.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    cluster::{Cluster, ClusterOptions},
    manifests::{CLASSES, controller, service},
    support::{Backend, Penstock, eventually, write},
};

struct Case {
    name: String,
    path: PathBuf,
    files: Option<String>,
    cluster: Option<Verdict>,
}

enum Verdict {
    Refused(String),
    Told(String),
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/bad_input");
    let mut cases: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            let said = |word: &str| {
                let line = text.lines().take(2).find_map(|line| line.strip_prefix(&format!("# {word}: ")))?;
                Some(line.to_owned())
            };
            let cluster = said("cluster").map(|said| match said.split_once(": ") {
                Some(("refused", why)) => Verdict::Refused(why.to_owned()),
                Some(("told", what)) => Verdict::Told(what.to_owned()),
                _ => panic!("{}: {said}", path.display()),
            });
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            Case { name, files: said("files"), cluster, path }
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(cases.len() >= 40, "{}", cases.len());
    cases
}

/// A line of the log or of a report, on one line whatever its layout.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn check_names_each_and_fails() {
    let mut wrong = Vec::new();
    for case in cases() {
        let Some(expected) = &case.files else { continue };
        let check = |format: &str| {
            Command::new(env!("CARGO_BIN_EXE_penstock")).args(["check", "--output", format]).arg(&case.path).output().unwrap()
        };
        let (text, json) = (check("text"), check("json"));
        let said = plain(&String::from_utf8_lossy(&text.stdout));
        if text.status.code() != Some(1) || !said.contains(expected) {
            wrong.push(format!("{} ({}): {said}\n  instead of {expected}", case.name, text.status));
        }
        let report: Value = serde_json::from_slice(&json.stdout).unwrap();
        let errors = report["errors"].as_array().unwrap().iter();
        let errors = errors.map(|error| format!(":{}:{}: {}", error["line"], error["column"], error["message"].as_str().unwrap()));
        let findings = report["objects"].as_array().unwrap().iter().flat_map(|object| object["findings"].as_array().unwrap());
        let findings = findings.filter(|finding| finding["verdict"] == "refused");
        let mut said = errors.chain(findings.map(|finding| finding["message"].as_str().unwrap_or_default().to_owned()));
        if json.status.code() != Some(1) || !said.any(|message| message.contains(expected)) {
            wrong.push(format!("{} (as JSON, {}): {report}\n  instead of {expected}", case.name, json.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn serve_names_each_and_serves_the_rest() {
    let good = Backend::start("good");
    let folder = tempfile::tempdir().unwrap();
    let route = |version: usize| {
        format!(
            "apiVersion: penstock.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: good}}\nspec: {{hosts: [good.test], rules: [{{matches: [{{path: {{type: Exact, value: /version}}}}], respond: {{code: 200, body: \"{version}\"}}}}, {{backends: [{{url: \"{}\"}}]}}]}}\n",
            good.url()
        )
    };
    write(&folder.path().join("good.yaml"), &route(0));
    let penstock = Penstock::start(&["serve", folder.path().to_str().unwrap()]);
    let mut version = 0;
    for case in cases() {
        let Some(expected) = &case.files else { continue };
        // Alone, since cases share names; beside the good one, which must stay and can be edited.
        let bad = folder.path().join("bad.yaml");
        let before = penstock.log().len();
        fs::copy(&case.path, folder.path().join(".bad")).unwrap();
        fs::rename(folder.path().join(".bad"), &bad).unwrap();
        eventually(&format!("{} is told", case.name), || plain(&penstock.log()[before..]).contains(expected).then_some(()));
        assert_eq!(penstock.get("good.test", "/"), (200, "good".to_owned()), "once {} is told", case.name);
        version += 1;
        write(&folder.path().join("good.yaml"), &route(version));
        eventually("the rest can be edited", || (penstock.get("good.test", "/version").1 == version.to_string()).then_some(()));
        assert_eq!(penstock.get("good.test", "/"), (200, "good".to_owned()), "beside {}", case.name);
        fs::remove_file(&bad).unwrap();
    }
}

/// All messages of conditions and Events of a case's objects.
fn messages(cluster: &Cluster) -> String {
    let routes = cluster.list("/apis/penstock.dev/v1alpha1/namespaces/default/proxyroutes");
    let conditions = routes.iter().flat_map(|route| route["status"]["conditions"].as_array().into_iter().flatten());
    let events = cluster.list("/apis/events.k8s.io/v1/namespaces/default/events");
    let told = conditions.map(|condition| &condition["message"]).chain(events.iter().map(|event| &event["note"]));
    told.filter_map(Value::as_str).map(plain).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_cluster_names_each_and_the_rest_serves() {
    let good = Backend::start_outside("good");
    let cluster = Cluster::start(ClusterOptions::default());
    cluster.apply(CLASSES);
    cluster.apply(&service("good", &good));
    cluster.apply(
        "apiVersion: penstock.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {name: good}\nspec: {hosts: [good.test], rules: [{backends: [{service: {name: good, port: 80}}]}]}\n",
    );
    let penstock = controller(&cluster, &[]);
    eventually("the good route", || (penstock.get("good.test", "/").0 == 200).then_some(()));
    let mut wrong = Vec::new();
    for case in cases() {
        let Some(verdict) = &case.cluster else { continue };
        let path = case.path.to_str().unwrap();
        let applied = cluster.try_kubectl(&["create", "--validate=false", "-f", path]);
        match (verdict, applied) {
            (Verdict::Refused(why), Err(error)) if plain(&error).contains(why) => {}
            (Verdict::Told(what), Ok(_)) => {
                eventually(&format!("{} is told", case.name), || messages(&cluster).contains(what).then_some(()));
            }
            (Verdict::Refused(why), other) => wrong.push(format!("{}: {other:?}\n  instead of refused: {why}", case.name)),
            (Verdict::Told(what), Err(error)) => wrong.push(format!("{}: {error}\n  instead of told: {what}", case.name)),
        }
        let _ = cluster.try_kubectl(&["delete", "--ignore-not-found", "--wait=false", "-f", path]);
        let _ = cluster.try_kubectl(&["delete", "events", "--all"]);
        assert_eq!(penstock.get("good.test", "/"), (200, "good".to_owned()), "beside {}", case.name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let ready: Value = cluster.get("ProxyRoute", "default", "good").unwrap();
    assert!(ready["status"]["conditions"].as_array().unwrap().iter().all(|condition| condition["status"] == "True"), "{ready}");
}
