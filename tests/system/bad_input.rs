//! Bad input of every kind: a clear message on the line or the object, and the rest serves.
//!
//! `bad_input/NAME.yaml` holds a case. Its first lines say what must be told: `# files:` part of what `check` and `serve` say,
//! with the line if it is about one; `# cluster:` how the API server refuses it (`refused: …`), or what a condition of one of its objects
//! that is False says, or a Warning about one of them (`told: …`); `# external:` the same of a controller that allows external
//! backends. A case that is about files alone has no `# cluster:`, and the other way round.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    cluster::{Cluster, ClusterOptions, objects},
    manifests::{CLASSES, controller, service},
    support::{Backend, Penstock, eventually, write},
};

struct Case {
    name: String,
    path: PathBuf,
    files: Option<String>,
    cluster: Option<Verdict>,
    /// In a cluster, with `--allow-external-backends`.
    external: Option<Verdict>,
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
                let mut header = text.lines().take_while(|line| line.starts_with('#'));
                let said = header.find_map(|line| line.strip_prefix(&format!("# {word}: ")))?;
                assert!(said.len() >= 10, "{}: {said:?} would be found in anything", path.display());
                Some(said.to_owned())
            };
            let verdict = |word: &str| {
                let said = said(word)?;
                let (verdict, what) = said.split_once(": ").unwrap_or_default();
                assert!(what.len() >= 10, "{}: {what:?} would be found in anything", path.display());
                Some(match verdict {
                    "refused" => Verdict::Refused(what.to_owned()),
                    "told" => Verdict::Told(what.to_owned()),
                    _ => panic!("{}: {said}", path.display()),
                })
            };
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            Case { name, files: said("files"), cluster: verdict("cluster"), external: verdict("external"), path }
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

/// What is told about a case's own objects: conditions that are False, and Warnings.
fn told(cluster: &Cluster, objects: &[Value]) -> Vec<String> {
    let events = cluster.list("/apis/events.k8s.io/v1/namespaces/default/events");
    let mut told = Vec::new();
    for object in objects {
        let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        if kind == "ProxyRoute" {
            let route = cluster.get(kind, "default", name).unwrap_or_default();
            let conditions = route["status"]["conditions"].as_array().cloned().unwrap_or_default();
            told.extend(
                conditions.into_iter().filter(|condition| condition["status"] == "False").map(|mut told| told["message"].take()),
            );
        }
        let about =
            |event: &&Value| event["regarding"]["kind"] == kind && event["regarding"]["name"] == name && event["type"] == "Warning";
        told.extend(events.iter().filter(about).map(|event| event["note"].clone()));
    }
    told.iter().filter_map(Value::as_str).map(plain).collect()
}

/// Applies each case that has a verdict here, and looks whether it comes, and whether the good route is served beside it.
fn try_each(cluster: &Cluster, penstock: &Penstock, verdict: impl Fn(&Case) -> Option<&Verdict>) -> Vec<String> {
    eventually("the good route", || (penstock.get("good.test", "/").0 == 200).then_some(()));
    let mut wrong = Vec::new();
    for case in cases() {
        let Some(verdict) = verdict(&case) else { continue };
        let path = case.path.to_str().unwrap();
        let applied = cluster.try_kubectl(&["create", "--validate=false", "-f", path]);
        match (verdict, applied) {
            (Verdict::Refused(why), Err(error)) if plain(&error).contains(why) => {}
            (Verdict::Told(what), Ok(_)) => {
                let objects = objects(&fs::read_to_string(&case.path).unwrap());
                eventually(&format!("{} is told", case.name), || {
                    told(cluster, &objects).iter().any(|message| message.contains(what)).then_some(())
                });
            }
            (Verdict::Refused(why), other) => wrong.push(format!("{}: {other:?}\n  instead of refused: {why}", case.name)),
            (Verdict::Told(what), Err(error)) => wrong.push(format!("{}: {error}\n  instead of told: {what}", case.name)),
        }
        let _ = cluster.try_kubectl(&["delete", "--ignore-not-found", "--wait=false", "-f", path]);
        let _ = cluster.try_kubectl(&["delete", "events", "--all"]);
        assert_eq!(penstock.get("good.test", "/"), (200, "good".to_owned()), "beside {}", case.name);
    }
    wrong
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
    let mut wrong = try_each(&cluster, &penstock, |case| case.cluster.as_ref());
    drop(penstock);
    // A Lease of its own: the one before said no farewell.
    let penstock = controller(&cluster, &["--allow-external-backends", "--election-id", "allowing"]);
    wrong.extend(try_each(&cluster, &penstock, |case| case.external.as_ref()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let ready: Value = cluster.get("ProxyRoute", "default", "good").unwrap();
    assert!(ready["status"]["conditions"].as_array().unwrap().iter().all(|condition| condition["status"] == "True"), "{ready}");
}
