//! The chart's permissions, against the real authorizer: enough for everything, and none that is not used.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use crate::{
    cluster::{Cluster, ClusterOptions, helm, objects},
    manifests::{service, tls_secret},
    support::{Backend, Penstock, eventually, served_certificate},
};

/// One permission: the namespace it is for (empty: all), verb, group, resource, and the name of the object (empty: any).
type Permission = (String, String, String, String, String);
/// A Secret that is there, wanted, and not among the names that the chart was given.
const BARRED: &str = "barred-tls";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

/// What the rendered chart grants.
fn granted(chart: &[Value]) -> BTreeSet<Permission> {
    let mut all = BTreeSet::new();
    for role in chart.iter().filter(|object| matches!(object["kind"].as_str(), Some("Role" | "ClusterRole"))) {
        for rule in role["rules"].as_array().into_iter().flatten() {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        let namespace = text(&role["metadata"]["namespace"]);
                        let permission = |name| (namespace.clone(), verb.clone(), group.clone(), resource.clone(), name);
                        let names = texts(&rule["resourceNames"]);
                        all.extend(names.iter().cloned().map(permission));
                        if names.is_empty() {
                            all.insert(permission(String::new()));
                        }
                    }
                }
            }
        }
    }
    all
}

/// Runs the controller as the chart would, with its account's token, through everything that it does; `namespace` is where the
/// objects live.
fn everything_works(values: &str, namespace: &str) {
    let backend = Backend::start_outside("one");
    let cluster = Cluster::start(ClusterOptions { audit: true, ..ClusterOptions::default() });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, values).unwrap();
    let output = Command::new(helm())
        .args([
            "template",
            "penstock",
            concat!(env!("CARGO_MANIFEST_DIR"), "/charts/penstock"),
            "--namespace",
            "penstock",
            "--values",
        ])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rendered = folder.path().join("chart.yaml");
    std::fs::write(&rendered, &output.stdout).unwrap();
    cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: penstock}\n");
    if namespace != "default" {
        cluster.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n"));
    }
    cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", rendered.to_str().unwrap()]);
    let apply =
        |yaml: &str| cluster.apply(&yaml.replace("metadata: {name: ", &format!("metadata: {{namespace: {namespace}, name: ")));
    let chart = objects(&String::from_utf8(output.stdout).unwrap());
    let workload = chart.iter().find(|object| object["kind"] == "Deployment").unwrap();
    // As in the pod, but for where it listens.
    let arguments = texts(&workload["spec"]["template"]["spec"]["containers"][0]["args"]);
    let own = ["--http=", "--https=", "--admin=", "--log-format=", "--log-level=", "--drain-"];
    let arguments = arguments.iter().filter(|argument| !own.iter().any(|own| argument.starts_with(own))).map(String::as_str);
    let kubeconfig = cluster.service_account("penstock", "penstock");
    let arguments: Vec<&str> = arguments.chain(["--kubeconfig", kubeconfig.to_str().unwrap()]).collect();
    let (secret, certificate) = tls_secret("web-tls", "web.test");
    apply(&secret);
    let mut penstock = Penstock::spawn(&arguments, &[("POD_NAME", "penstock-0"), ("POD_NAMESPACE", "penstock")]);
    penstock.wait_until_serving();

    apply(&service("one", &backend));
    apply(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, annotations: {penstock.dev/no-such-thing: x}}
spec:
  ingressClassName: penstock
  tls: [{hosts: [web.test], secretName: web-tls}]
  rules: [{host: web.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}]}}]
---
apiVersion: penstock.dev/v1alpha1
kind: ProxyRoute
metadata: {name: route}
spec: {hosts: [route.test], rules: [{backends: [{service: {name: one, port: 80}, protocol: https, tls: {caSecretName: ca}}]}]}
",
    );
    eventually("an Ingress is served", || (penstock.get("web.test", "/") == (200, "one".to_owned())).then_some(()));
    eventually("its certificate", || (served_certificate(penstock.https, "web.test") == certificate).then_some(()));
    // The cloud gives the Service an address.
    cluster.apply_status(
        "apiVersion: v1\nkind: Service\nmetadata: {name: penstock, namespace: penstock}\nstatus: {loadBalancer: {ingress: [{ip: 192.0.2.9}]}}\n",
    );
    let address =
        || cluster.get("Ingress", namespace, "web")?["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(ToOwned::to_owned);
    assert_eq!(eventually("the status", address), "192.0.2.9");
    let condition = |status: &str| {
        let route = cluster.get("ProxyRoute", namespace, "route").unwrap();
        let found = route["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "ResolvedRefs" && condition["status"] == status);
        found.then_some(())
    };
    eventually("a missing Secret", || condition("False"));
    // Not of the type of certificates.
    let authority = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap().cert.pem().replace('\n', "\n    ");
    apply(&format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: ca}}\nstringData:\n  ca.crt: |\n    {authority}\n"));
    eventually("the Secret is found", || condition("True"));
    let (renewed, certificate) = tls_secret("web-tls", "web.test");
    apply(&renewed);
    eventually("the renewed certificate", || (served_certificate(penstock.https, "web.test") == certificate).then_some(()));
    let events = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    eventually("an Event", || cluster.list(&events).iter().any(|event| event["regarding"]["name"] == "web").then_some(()));
    if values.contains("by-name") {
        apply(&tls_secret(BARRED, "barred.test").0);
        apply(
            "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: barred}
spec:
  ingressClassName: penstock
  tls: [{hosts: [barred.test], secretName: barred-tls}]
  rules: [{host: barred.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}]}}]
",
        );
        let started = std::time::Instant::now();
        eventually("it is served, with another certificate", || (penstock.get("barred.test", "/").0 == 200).then_some(()));
        assert!(started.elapsed() < std::time::Duration::from_secs(4), "a refused Secret held it up for {:?}", started.elapsed());
        eventually("an Event says that the Secret can't be read", || {
            let said = |event: &Value| event["regarding"]["name"] == "barred" && event["reason"] == "SecretUnreadable";
            cluster.list(&events).iter().any(said).then_some(())
        });
        assert!(served_certificate(penstock.https, "web.test") == certificate, "another's certificate");
    }
    let term = cluster.get("Lease", "penstock", "penstock-leader").unwrap();
    assert!(text(&term["spec"]["holderIdentity"]).starts_with("penstock-0"), "{term}");
    penstock.terminate();
    assert_eq!(penstock.wait(), Some(0));

    let log = cluster.audit_log();
    let ours: Vec<_> = log.iter().filter(|entry| entry["user"]["username"] == "system:serviceaccount:penstock:penstock").collect();
    assert!(ours.len() > 20, "the audit log holds {} requests of the account", ours.len());
    let forbidden: Vec<_> = ours
        .iter()
        .filter(|entry| entry["responseStatus"]["code"] == 403 && entry["objectRef"]["name"] != BARRED)
        .map(|entry| (&entry["verb"], &entry["requestURI"]))
        .collect();
    assert!(forbidden.is_empty(), "forbidden: {forbidden:?}");
    let used: BTreeSet<Permission> = ours
        .iter()
        .flat_map(|entry| {
            let object = &entry["objectRef"];
            let resource = match object["subresource"].as_str() {
                Some(sub) => format!("{}/{sub}", text(&object["resource"])),
                None => text(&object["resource"]),
            };
            let permission = |namespace: String, name: String| {
                (namespace, text(&entry["verb"]), text(&object["apiGroup"]), resource.clone(), name)
            };
            // A permission for all namespaces is used by a request in any, one for all names by a request for any.
            let (namespace, name) = (text(&object["namespace"]), text(&object["name"]));
            [(String::new(), String::new()), (String::new(), name.clone()), (namespace.clone(), String::new()), (namespace, name)]
                .map(|(namespace, name)| permission(namespace, name))
        })
        .collect();
    let unused: Vec<_> = granted(&chart).into_iter().filter(|permission| !used.contains(permission)).collect();
    assert!(unused.is_empty(), "granted but never used: {unused:?}");
}

#[test]
fn all_secrets() {
    everything_works("{}", "default");
}

#[test]
fn secrets_by_name() {
    everything_works("{secrets: {mode: by-name, names: {default: [web-tls, ca]}}}", "default");
}

#[test]
fn one_namespace() {
    everything_works("{watchNamespaces: [team]}", "team");
}

#[test]
fn without_installing_the_crd() {
    everything_works("{crds: {install: false}}", "default");
}
