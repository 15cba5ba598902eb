//! What cannot be watched holds nothing else up; what leaves our class keeps nothing of ours.

use serde_json::Value;

use crate::{
    cluster::{Cluster, ClusterOptions},
    manifests::{CLASSES, controller, ingress, service, tls_secret},
    relay::Relay,
    support::{Backend, PATIENCE, Penstock, eventually, eventually_within, served_certificate},
};

const ROUTE: &str = "
apiVersion: penstock.dev/v1alpha1
kind: ProxyRoute
metadata: {name: r}
spec: {ingressClassName: penstock, hosts: [r.test], rules: [{respond: {code: 200, body: here}}]}
";

fn address(cluster: &Cluster, name: &str) -> Option<String> {
    cluster.get("Ingress", "default", name)?["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(ToOwned::to_owned)
}

#[test]
fn without_the_crd_ingresses_are_served_on_and_it_is_picked_up_when_it_comes() {
    let backend = Backend::start_outside("one");
    let mut cluster = Cluster::start(ClusterOptions { audit: true, without_crds: true, ..ClusterOptions::default() });
    cluster.apply(CLASSES);
    cluster.apply(&service("one", &backend));
    let penstock = controller(&cluster, &["--election-ttl", "3s"]);
    eventually("it has looked for the kind, and twice again", || {
        let looks = |entry: &&Value| {
            entry["requestURI"].as_str().is_some_and(|uri| uri.contains("/proxyroutes")) && entry["responseStatus"]["code"] == 404
        };
        (cluster.audit_log().iter().filter(looks).count() >= 3).then_some(())
    });
    let live = |name: &str| {
        cluster.apply(&ingress(name, &format!("{name}.test"), "/", "one"));
        eventually("an Ingress is served", || (penstock.get(&format!("{name}.test"), "/").1 == "one").then_some(()));
        eventually("its status", || address(&cluster, name));
    };
    live("later");
    penstock.told("are not installed");
    assert_eq!(penstock.log().matches("are not installed").count(), 1, "said once");

    cluster.kubectl(&["apply", "--server-side", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/crds")]);
    cluster.wait("the CRD is served", |cluster| cluster.try_kubectl(&["get", "proxyroutes"]).is_ok());
    cluster.apply(ROUTE);
    eventually("a ProxyRoute is served", || (penstock.get("r.test", "/").1 == "here").then_some(()));
    live("last");

    // A Secret that is deleted while nobody can tell of it.
    let (secret, certificate) = tls_secret("later-tls", "later.test");
    cluster.apply(&secret);
    eventually("its certificate", || (served_certificate(penstock.https, "later.test") == certificate).then_some(()));
    penstock.signal("STOP");
    cluster.delete("Secret", "default", "later-tls");
    cluster.kill_api_server();
    penstock.signal("CONT");
    cluster.start_api_server();
    eventually("a deleted Secret is not served", || {
        (served_certificate(penstock.https, "later.test") != certificate).then_some(())
    });
}

#[test]
fn a_namespace_that_may_not_be_read_holds_nothing_up() {
    let backend = Backend::start_outside("one");
    let cluster = Cluster::start(ClusterOptions::default());
    cluster.apply(CLASSES);
    cluster.apply(&service("one", &backend));
    cluster.apply(
        "
apiVersion: v1
kind: ServiceAccount
metadata: {name: narrow}
---
apiVersion: v1
kind: Namespace
metadata: {name: closed}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: narrow}
rules: [{apiGroups: [networking.k8s.io], resources: [ingressclasses], verbs: [list, watch]}]
",
    );
    let account = "--serviceaccount=default:narrow";
    cluster.kubectl(&["create", "clusterrolebinding", "narrow", "--clusterrole=narrow", account]);
    cluster.kubectl(&["create", "rolebinding", "narrow", "--clusterrole=cluster-admin", account]);
    let kubeconfig = cluster.service_account("default", "narrow");
    let arguments =
        ["controller", "--kubeconfig", kubeconfig.to_str().unwrap(), "--watch-namespace", "default,closed", "--election-ttl", "3s"];
    let mut penstock = Penstock::spawn(&arguments, &[]);
    penstock.wait_until_serving();
    cluster.apply(&ingress("open", "open.test", "/", "one"));
    eventually("the other namespace is served", || (penstock.get("open.test", "/").1 == "one").then_some(()));
    assert!(penstock.metric("penstock_kubernetes_watches_refused", "") >= 4.0);
    let told = |line: &str| line.contains("the API server refuses them") && line.contains("closed");
    eventually("the log says which", || penstock.log().lines().any(told).then_some(()));

    cluster.kubectl(&["create", "rolebinding", "narrow", "-n", "closed", "--clusterrole=cluster-admin", account]);
    let route = ROUTE.replace("{name: r}", "{name: r, namespace: closed}");
    cluster.apply(&route);
    eventually("it is picked up when it may be read", || (penstock.get("r.test", "/").1 == "here").then_some(()));
    eventually("nothing is refused", || (penstock.metric("penstock_kubernetes_watches_refused", "") == 0.0).then_some(()));
}

#[test]
fn what_leaves_the_class_loses_what_is_ours_and_keeps_what_is_anothers() {
    let backend = Backend::start_outside("one");
    let cluster = Cluster::start(ClusterOptions::default());
    cluster.apply(CLASSES);
    cluster.apply(
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: other}\nspec: {controller: example.com/other}\n",
    );
    cluster.apply(&service("one", &backend));
    let other = |yaml: &str| yaml.replace("ingressClassName: penstock", "ingressClassName: other");
    let conditions = || {
        let route = cluster.get("ProxyRoute", "default", "r").unwrap();
        route["status"]["conditions"].as_array().map_or(0, Vec::len)
    };
    let mut penstock = controller(&cluster, &["--election-ttl", "3s"]);
    cluster.apply(ROUTE);
    for name in ["stays", "moves"] {
        cluster.apply(&ingress(name, &format!("{name}.test"), "/", "one"));
        eventually("our address", || address(&cluster, name));
    }
    eventually("our conditions", || (conditions() == 3).then_some(()));
    // Whoever was told of nothing still takes back what an earlier process wrote.
    penstock.kill();
    cluster.apply(&other(&ingress("stays", "stays.test", "/", "one")));
    cluster.apply(&other(ROUTE));
    let penstock = controller(&cluster, &["--election-ttl", "3s"]);
    eventually("our address is gone", || address(&cluster, "stays").is_none().then_some(()));
    eventually("our conditions are gone", || (conditions() == 0).then_some(()));
    // Another controller was faster.
    penstock.signal("STOP");
    cluster.apply(&other(&ingress("moves", "moves.test", "/", "one")));
    cluster.apply_status(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: moves}\nstatus: {loadBalancer: {ingress: [{ip: 198.51.100.9}]}}\n",
    );
    let before = cluster.get("Ingress", "default", "moves").unwrap();
    penstock.signal("CONT");
    eventually("it is served no more", || (penstock.get("moves.test", "/").0 == 404).then_some(()));
    cluster.apply(&ingress("last", "last.test", "/", "one"));
    eventually("all that came before was written", || address(&cluster, "last"));
    assert_eq!(cluster.get("Ingress", "default", "moves").unwrap(), before, "another's address was written over");
    // Nothing is written over and over: as many writes as there were reasons.
    let writes = penstock.metric("penstock_kubernetes_status_writes_total", "") as u64;
    assert_eq!(writes, 1 + 2, "an object is written again and again");
}

#[test]
fn an_api_server_that_falls_silent_changes_nothing_and_is_asked_anew() {
    let backend = Backend::start_outside("one");
    let cluster = Cluster::start(ClusterOptions::default());
    cluster.apply(CLASSES);
    cluster.apply(&service("one", &backend));
    let relay = Relay::to(&cluster);
    let kubeconfig = relay.kubeconfig(&cluster);
    let address_of_ours = ["--publish-status-address", "192.0.2.7", "--election-ttl", "3s"];
    let penstock = Penstock::start(&[&["controller", "--kubeconfig", kubeconfig.to_str().unwrap()], &address_of_ours[..]].concat());
    cluster.apply(&ingress("before", "before.test", "/", "one"));
    eventually("our address", || address(&cluster, "before"));

    relay.fall_silent();
    cluster.apply(&ingress("after", "after.test", "/", "one"));
    let serves = || assert_eq!((penstock.get("before.test", "/").1.as_str(), penstock.ask_admin("/readyz").0), ("one", 200));
    // A watch may say nothing for half a minute with good reason, and the request that follows it has as long.
    eventually_within(2 * PATIENCE, "the silence is noticed", || {
        serves();
        (penstock.metric("penstock_kubernetes_watches_interrupted", "") > 0.0).then_some(())
    });
    penstock.told("the watch is interrupted; what was known serves on");
    assert_eq!(penstock.get("after.test", "/").0, 404);

    // What hung before hangs on: only who asks anew learns something.
    relay.speak();
    eventually("what came meanwhile is served", || {
        serves();
        (penstock.get("after.test", "/").1 == "one").then_some(())
    });
    eventually("it leads again, and writes", || address(&cluster, "after"));
    eventually("all watches stand", || (penstock.metric("penstock_kubernetes_watches_interrupted", "") == 0.0).then_some(()));
}
