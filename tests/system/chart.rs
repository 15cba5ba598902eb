//! The chart's templates: arguments that the binary takes, and values that are refused before they become a pod that cannot start.

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;

use crate::cluster::{helm, objects};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/penstock");
/// No such file: the controller gets as far as looking for it, which is past the reading of its command line.
const NO_KUBECONFIG: &str = "/nonexistent/kubeconfig";

/// What `helm template` prints with these arguments, or its refusal.
fn template(arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new(helm()).args(["template", "penstock", CHART, "--namespace", "penstock"]).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The files of values that the chart is tried with.
fn examples() -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(format!("{CHART}/ci")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 7, "{files:?}");
    files
}

/// The arguments of the controller in what a template printed.
fn controller_arguments(manifests: &str) -> Vec<String> {
    let workload =
        objects(manifests).into_iter().find(|object| object["kind"] == "Deployment" || object["kind"] == "DaemonSet").unwrap();
    let arguments = workload["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap().iter();
    arguments.filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

#[test]
fn the_binary_takes_the_arguments_of_every_example() {
    let mut wrong = Vec::new();
    let examples = examples();
    let defaults = std::iter::once(("the defaults".to_owned(), Vec::new()));
    let given = examples.iter().map(|file| (file.display().to_string(), vec!["--values", file.to_str().unwrap()]));
    for (name, values) in defaults.chain(given) {
        let arguments = controller_arguments(&template(&values).unwrap_or_else(|error| panic!("{name}: {error}")));
        // Everything as in the pod, but at ports that nobody else wants.
        let arguments = arguments.iter().map(|argument| match argument.split_once("=[::]:") {
            Some((flag @ ("--http" | "--https" | "--admin"), _)) => format!("{flag}=127.0.0.1:0"),
            _ => argument.clone(),
        });
        // Its time is limited, should it serve after all.
        let output = Command::new("timeout")
            .args(["60", env!("CARGO_BIN_EXE_penstock")])
            .args(arguments)
            .args(["--kubeconfig", NO_KUBECONFIG])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(1) || !said.contains(NO_KUBECONFIG) {
            wrong.push(format!("{name}: {}: {said}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn values_that_would_not_do_are_refused_by_name() {
    let mut wrong = Vec::new();
    for (values, expected) in [
        ("hostNetwork=true,hostPorts.enabled=true", "hostPorts has no effect beside hostNetwork"),
        ("hostPorts.enabled=true,hostPorts.http=443", "hostPorts.http and hostPorts.https are both 443"),
        ("service.ports.http=443", "service.ports.http and service.ports.https are both 443"),
        ("ingressClass.nginx.enabled=true,ingressClass.name=nginx", "are both nginx"),
        ("ingressClass.nginx.enabled=true,controllerClass=example.com/edge", "a class that is not served"),
        ("fullnameOverride=My_Proxy", "/fullnameOverride"),
        ("nameOverride=My_Proxy", "/nameOverride"),
        ("log.level=loud", "/log/level"),
        ("controllerClass=example.com/my edge", "/controllerClass"),
        ("controllerClass=edge", "/controllerClass"),
        ("nosuch=1", "nosuch"),
        ("serviceAccount.create=false", "serviceAccount.name is needed"),
    ] {
        match template(&["--set", values]) {
            Err(said) if said.contains(expected) => {}
            other => wrong.push(format!("{values}: {other:?}\n  instead of {expected}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for values in [
        "log.level=off",
        "log.level=info\\,penstock_proxy=debug",
        "controllerClass=k8s.io/ingress-nginx",
        "fullnameOverride=gate-2",
    ] {
        template(&["--set", values]).unwrap_or_else(|error| panic!("{values}: {error}"));
    }
}
