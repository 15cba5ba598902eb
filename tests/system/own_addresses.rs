//! No route leads back to the process that serves it.

use crate::support::{Backend, Penstock, eventually, proxy_route, write};

#[test]
fn a_route_to_the_admin_port_or_a_port_of_our_own_is_a_502() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::start("one");
    let routes = folder.path().join("r.yaml");
    write(&routes, &proxy_route("r", "live.test", &backend.url()));
    let penstock = Penstock::start(&["serve", folder.path().to_str().unwrap()]);
    let own = [("admin.test", penstock.admin), ("own.test", penstock.http)];
    for (host, address) in own {
        let text = proxy_route("own", host, &format!("http://{address}"));
        write(&folder.path().join(format!("{host}.yaml")), &text.replace("name: own", &format!("name: {host}")));
    }
    for (host, _) in own {
        let (status, body) =
            eventually("the route is served", || Some(penstock.get(host, "/metrics")).filter(|(status, _)| *status != 404));
        assert_eq!(status, 502, "{host}: {body}");
    }
    assert_eq!(penstock.get("live.test", "/").0, 200);
}
