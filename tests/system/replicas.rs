//! Two replicas: both serve, one writes; the other takes over within the lease time, and nothing stale is written.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    cluster::{Cluster, ClusterOptions, objects},
    manifests::{CLASSES, ingress, service},
    support::{Backend, Penstock, eventually},
};

const TTL: Duration = Duration::from_secs(4);
/// Beyond the lease time: a tenth of it until the next look at the Lease, the write itself, and a busy machine.
const MARGIN: Duration = Duration::from_secs(2);

/// Ingresses that come in one go just before the leader stops.
const HAND: usize = 60;

fn replica(cluster: &Cluster, name: &str) -> Penstock {
    // Each with an account of its own, so that the audit log tells them apart.
    let kubeconfig = cluster.service_account("default", name);
    let ttl = format!("{}s", TTL.as_secs());
    // And an address of its own, so that one who believes to lead has something to write at once.
    let address = if name == "a" { "192.0.2.7" } else { "192.0.2.8" };
    let arguments =
        ["controller", "--kubeconfig", kubeconfig.to_str().unwrap(), "--publish-status-address", address, "--election-ttl", &ttl];
    let mut penstock = Penstock::spawn(&arguments, &[("POD_NAME", name)]);
    penstock.wait_until_serving();
    penstock
}

fn address(cluster: &Cluster, name: &str) -> Option<String> {
    cluster.get("Ingress", "default", name)?["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(ToOwned::to_owned)
}

/// How often a replica has looked at the Lease.
fn looks(cluster: &Cluster, name: &str) -> usize {
    let user = format!("system:serviceaccount:default:{name}");
    let is_look =
        |entry: &&Value| entry["user"]["username"] == *user && entry["objectRef"]["resource"] == "leases" && entry["verb"] == "get";
    cluster.audit_log().iter().filter(is_look).count()
}

/// The writes of status and Events by a replica, as their place in the audit log.
fn writes(cluster: &Cluster, name: &str) -> Vec<usize> {
    let user = format!("system:serviceaccount:default:{name}");
    let is_write = |entry: &Value| {
        entry["user"]["username"] == *user
            && (entry["objectRef"]["subresource"] == "status"
                || (entry["objectRef"]["resource"] == "events" && entry["verb"] == "create"))
    };
    cluster.audit_log().iter().enumerate().filter(|(_, entry)| is_write(entry)).map(|(place, _)| place).collect()
}

#[test]
fn the_other_takes_over_within_the_lease_time_and_nothing_stale_is_written() {
    let backend = Backend::start_outside("one");
    let cluster = Cluster::start(ClusterOptions { audit: true, ..ClusterOptions::default() });
    cluster.apply(CLASSES);
    for name in ["a", "b"] {
        cluster.apply(&format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}}}\n"));
        cluster.kubectl(&[
            "create",
            "clusterrolebinding",
            name,
            "--clusterrole=cluster-admin",
            &format!("--serviceaccount=default:{name}"),
        ]);
    }
    let mut a = replica(&cluster, "a");
    eventually("a leads", || (a.metric("penstock_kubernetes_leader", "") > 0.0).then_some(()));
    let mut b = replica(&cluster, "b");
    cluster.apply(&service("one", &backend));
    let apply = |name: &str| cluster.apply(&ingress(name, &format!("{name}.test"), "/", "one"));
    let both_serve = |a: &Penstock, b: &Penstock, name: &str| {
        for replica in [a, b] {
            eventually("both serve", || (replica.get(&format!("{name}.test"), "/").0 == 200).then_some(()));
        }
    };
    apply("first");
    eventually("the leader writes", || address(&cluster, "first"));
    both_serve(&a, &b, "first");
    assert!(writes(&cluster, "b").is_empty(), "only the leader writes");
    assert!(b.metric("penstock_kubernetes_leader", "") == 0.0);

    // The leader dies.
    a.kill();
    let died = Instant::now();
    apply("second");
    eventually("the other writes", || address(&cluster, "second"));
    println!("taken over {:?} after a death; the lease time is {TTL:?}", died.elapsed());
    assert!(died.elapsed() < TTL + MARGIN, "{:?}", died.elapsed());

    // The leader stands still past its lease, with work at hand.
    let a = replica(&cluster, "a");
    both_serve(&a, &b, "second");
    // Work that it has not done when it stops, since it writes one after another: it would do it first of all when it goes on.
    let client = cluster.client();
    cluster.runtime().block_on(async {
        let applies = (0..HAND).map(|number| {
            // Without TLS, since sixty Secrets that are missed would be sixty watches.
            let yaml = ingress(&format!("hand-{number}"), &format!("hand-{number}.test"), "/", "one");
            let yaml = yaml.lines().filter(|line| !line.contains("secretName")).collect::<Vec<_>>().join("\n");
            let client = client.clone();
            tokio::spawn(async move {
                for object in objects(&yaml) {
                    Cluster::apply_with(&client, &object).await.unwrap();
                }
            })
        });
        for apply in applies.collect::<Vec<_>>() {
            apply.await.unwrap();
        }
    });
    b.signal("STOP");
    let stopped = Instant::now();
    let undone = (0..HAND).filter(|number| address(&cluster, &format!("hand-{number}")).is_none()).count();
    println!("{undone} of {HAND} Ingresses are unwritten when the leader stops");
    assert!(undone > 0, "it stopped without work at hand");
    apply("third");
    eventually("the other writes", || address(&cluster, "third"));
    println!("taken over {:?} after a standstill", stopped.elapsed());
    assert!(stopped.elapsed() < TTL + MARGIN, "{:?}", stopped.elapsed());
    for round in 0..20 {
        cluster.apply(&format!(
            "apiVersion: penstock.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: r}}\nspec: {{hosts: [r{round}.test], rules: [{{backends: [{{service: {{name: gone-{round}, port: 80}}}}]}}]}}\n"
        ));
    }
    let condition = |cluster: &Cluster| {
        let route = cluster.get("ProxyRoute", "default", "r")?;
        let current = route["status"]["conditions"]
            .as_array()?
            .iter()
            .all(|condition| condition["observedGeneration"] == route["metadata"]["generation"]);
        current.then(|| route["metadata"]["resourceVersion"].clone())
    };
    let settled = eventually("the other has written it all", || condition(&cluster));
    let names: Vec<String> = ["first", "second", "third"]
        .into_iter()
        .map(ToOwned::to_owned)
        .chain((0..HAND).map(|number| format!("hand-{number}")))
        .collect();
    let addresses = || names.iter().map(|name| address(&cluster, name)).collect::<Vec<_>>();
    let ours = Some("192.0.2.7".to_owned());
    eventually("every Ingress has the new leader's address", || addresses().iter().all(|address| *address == ours).then_some(()));
    let (before, looked) = (writes(&cluster, "b").len(), looks(&cluster, "b"));
    b.signal("CONT");
    // It has caught up once it serves what came meanwhile, and knows that it does not lead.
    eventually("it goes on", || (b.get("r19.test", "/").0 == 503).then_some(()));
    eventually("it follows", || (b.metric("penstock_kubernetes_leader", "") == 0.0).then_some(()));
    eventually("it has looked at the Lease again", || (looks(&cluster, "b") > looked + 3).then_some(()));
    assert_eq!(writes(&cluster, "b").len(), before, "a leader that stood still wrote after its lease");
    assert_eq!(condition(&cluster), Some(settled), "something was written over");
    assert!(addresses().iter().all(|address| *address == ours), "an address was written over: {:?}", addresses());

    // An orderly end gives the Lease up at once.
    let mut a = a;
    a.terminate();
    assert_eq!(a.wait(), Some(0));
    let ended = Instant::now();
    apply("fourth");
    eventually("the other writes", || address(&cluster, "fourth"));
    println!("taken over {:?} after an orderly end", ended.elapsed());
    assert!(ended.elapsed() < TTL, "the Lease was not given up");
    b.kill();
}
