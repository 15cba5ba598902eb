//! The controller against a real API server: apply, edit, delete, re-create; status; a broken object beside the others.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    cluster::{Cluster, ClusterOptions},
    manifests::{CLASSES, controller, ingress, service, slice, tls_secret},
    support::{Backend, WebSocket, eventually, https_request, served_certificate},
};

/// How long a change may take to be live.
const LIVE: Duration = Duration::from_secs(1);

/// Waits for it, and says how long it took; no longer than a change may take.
fn live<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    let found = eventually(what, check);
    let took = started.elapsed();
    println!("{what}: {took:?}");
    assert!(took < LIVE, "{what}: {took:?}");
    found
}

/// The condition of a ProxyRoute: its status and reason.
fn condition(cluster: &Cluster, name: &str, kind: &str) -> Option<(String, String)> {
    let route = cluster.get("ProxyRoute", "default", name)?;
    let conditions = route["status"]["conditions"].as_array()?.clone();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind)?;
    assert_eq!(found["observedGeneration"], route["metadata"]["generation"], "{found}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Some((text(&found["status"]), text(&found["reason"])))
}

#[test]
fn what_is_applied_is_served_within_a_second_and_at_once_when_the_status_says_so() {
    let (one, two) = (Backend::start_outside("one"), Backend::start_outside("two"));
    let cluster = Cluster::start(ClusterOptions::default());
    cluster.apply(CLASSES);
    let penstock = controller(&cluster, &["--allow-external-backends", "--election-ttl", "3s"]);
    let (secret, certificate) = tls_secret("shop-tls", "shop.test");

    cluster.apply(&secret);
    cluster.apply(&service("one", &one));
    cluster.apply(&service("two", &two));
    cluster.apply(&ingress("shop", "shop.test", "/", "one"));
    live("the first Ingress", || (penstock.get("shop.test", "/").1 == "one").then_some(()));
    live("over HTTPS too", || (https_request(penstock.https, "shop.test", "/") == (200, "one".to_owned())).then_some(()));
    // The first write of status waits for the election.
    let address =
        || cluster.get("Ingress", "default", "shop")?["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(ToOwned::to_owned);
    assert_eq!(eventually("the status shows an address", address), "192.0.2.7");
    assert_eq!(penstock.get("shop.test", "/"), (200, "one".to_owned()), "at once when the status shows an address");
    assert!(served_certificate(penstock.https, "shop.test") == certificate, "not its certificate");
    let mut socket = WebSocket::open(penstock.http, "shop.test");
    socket.echo("open");

    cluster.apply(&ingress("shop", "shop.test", "/", "two"));
    live("an edit of an Ingress", || (penstock.get("shop.test", "/").1 == "two").then_some(()));
    live("over HTTPS too", || (https_request(penstock.https, "shop.test", "/").1 == "two").then_some(()));
    cluster.delete("Ingress", "default", "shop");
    live("a deletion", || (penstock.get("shop.test", "/").0 == 404).then_some(()));
    live("over HTTPS too", || (https_request(penstock.https, "shop.test", "/").0 == 404).then_some(()));
    for round in 0..5 {
        // Whoever sees the address may send a request at once.
        cluster.apply(&ingress("shop", "shop.test", "/", "one"));
        live("an Ingress made again, to its status", address);
        assert_eq!(penstock.get("shop.test", "/"), (200, "one".to_owned()), "round {round}");
        assert_eq!(https_request(penstock.https, "shop.test", "/"), (200, "one".to_owned()), "round {round}");
        assert!(served_certificate(penstock.https, "shop.test") == certificate, "round {round}");
        // Deleted and made again in one go, asking for something else: an address that shows is that of the new one.
        cluster.delete("Ingress", "default", "shop");
        cluster.apply(&ingress("shop", "shop.test", &format!("/{round}"), "two"));
        live("an Ingress exchanged, to its status", address);
        assert_eq!(penstock.get("shop.test", &format!("/{round}")), (200, "two".to_owned()), "round {round}");
        assert_eq!(penstock.get("shop.test", "/").0, 404, "round {round}");
        cluster.delete("Ingress", "default", "shop");
        live("its deletion", || (penstock.get("shop.test", "/").0 == 404).then_some(()));
    }
    cluster.apply(&ingress("shop", "shop.test", "/", "one"));
    live("the Ingress", || (penstock.get("shop.test", "/").1 == "one").then_some(()));
    let (secret, renewed) = tls_secret("shop-tls", "shop.test");
    cluster.apply(&secret);
    live("a renewed certificate", || (served_certificate(penstock.https, "shop.test") == renewed).then_some(()));
    cluster.apply(&slice("one", &[&two.address.ip().to_string()], two.address.port()));
    live("other endpoints", || (penstock.get("shop.test", "/").1 == "two").then_some(()));

    // Each of what an Ingress refers to goes and comes.
    cluster.delete("Secret", "default", "shop-tls");
    live("a deleted Secret", || (served_certificate(penstock.https, "shop.test") != renewed).then_some(()));
    cluster.apply(&secret);
    live("a Secret made again", || (served_certificate(penstock.https, "shop.test") == renewed).then_some(()));
    let asked = |expected: (u16, &str)| {
        let (status, body) = https_request(penstock.https, "shop.test", "/");
        (status == expected.0 && (status != 200 || body == expected.1)).then_some(())
    };
    cluster.delete("EndpointSlice", "default", "one-1");
    live("a deleted EndpointSlice", || asked((503, "")));
    cluster.apply(&service("one", &one));
    live("an EndpointSlice made again", || asked((200, "one")));
    cluster.delete("Service", "default", "one");
    live("a deleted Service", || asked((503, "")));
    cluster.apply(&service("one", &one));
    live("a Service made again", || asked((200, "one")));

    let route = |value: &str| {
        format!(
            "apiVersion: penstock.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: r}}\nspec: {{hosts: [r.test], rules: [{{backends: [{value}]}}]}}\n"
        )
    };
    cluster.apply(&route("{service: {name: two, port: 80}}"));
    live("a ProxyRoute", || (penstock.get("r.test", "/").1 == "two").then_some(()));
    live("its condition", || (condition(&cluster, "r", "Programmed")?.0 == "True").then_some(()));
    cluster.apply(&route(&format!("{{url: \"{}\"}}", one.url())));
    live("an edit of a ProxyRoute", || (penstock.get("r.test", "/").1 == "one").then_some(()));
    for round in 0..5 {
        // Whoever sees the condition may send a request at once.
        cluster.delete("ProxyRoute", "default", "r");
        if round % 2 == 0 {
            live("a deleted ProxyRoute", || (penstock.get("r.test", "/").0 == 404).then_some(()));
        }
        let (backend, expected) = if round % 2 == 0 { ("two", "two") } else { ("one", "one") };
        cluster.apply(&route(&format!("{{service: {{name: {backend}, port: 80}}}}")));
        live("a ProxyRoute made again, to its condition", || (condition(&cluster, "r", "Programmed")?.0 == "True").then_some(()));
        assert_eq!(penstock.get("r.test", "/"), (200, expected.to_owned()), "round {round}");
    }
    let bodies = cluster.kubectl(&["get", "pr"]);
    assert!(bodies.contains("HOSTS") && bodies.contains("r.test"), "{bodies}");

    // One that comes second for all that it asks is not programmed.
    cluster.apply(&route("{service: {name: two, port: 80}}").replace("{name: r}", "{name: second}"));
    live("a ProxyRoute without a rule of its own says so", || {
        let states = ["Accepted", "Programmed"].map(|kind| condition(&cluster, "second", kind).map(|(status, _)| status));
        states.iter().all(|state| state.as_deref() == Some("False")).then_some(())
    });

    // Broken objects beside them.
    cluster.apply(
        &route("{service: {name: nowhere, port: 80}}").replace("{name: r}", "{name: broken}").replace("r.test", "broken.test"),
    );
    live("a broken ProxyRoute says so", || (condition(&cluster, "broken", "ResolvedRefs")?.0 == "False").then_some(()));
    let broken = ingress("broken", "shop.test", "/new", "one").replace(
        "metadata: {name: broken}",
        "metadata: {name: broken, annotations: {penstock.dev/no-such-thing: x, nginx.ingress.kubernetes.io/proxy-connect-timeout: soon}}",
    );
    cluster.apply(&broken);
    let events = || {
        let events = cluster.list("/apis/events.k8s.io/v1/namespaces/default/events");
        events
            .into_iter()
            .filter(|event| event["regarding"]["name"] == "broken" && event["regarding"]["kind"] == "Ingress")
            .collect::<Vec<_>>()
    };
    for name in ["penstock.dev/no-such-thing", "nginx.ingress.kubernetes.io/proxy-connect-timeout"] {
        let event = live("an Event names the annotation", || {
            events().into_iter().find(|event| event["note"].as_str().is_some_and(|note| note.contains(name)))
        });
        assert_eq!(
            (event["type"].as_str(), event["reportingController"].as_str()),
            (Some("Warning"), Some("penstock.dev/controller")),
            "{event}"
        );
    }
    assert_eq!(penstock.get("shop.test", "/").0, 200);
    assert_eq!(penstock.get("r.test", "/").0, 200);
    cluster.apply(&ingress("other", "other.test", "/", "one"));
    live("another Ingress", || (penstock.get("other.test", "/").0 == 200).then_some(()));
    let notes: Vec<_> = events().iter().map(|event| event["note"].to_string()).collect();
    let distinct: std::collections::BTreeSet<_> = notes.iter().collect();
    assert_eq!(distinct.len(), notes.len(), "a problem is told once: {notes:?}");
    socket.echo("still open, after all this");
}
