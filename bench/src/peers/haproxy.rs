//! HAProxy: one thread; routes stand in a map from host to backend, the leanest form it has.

use std::fmt::Write;

use super::{Plan, Start};
use crate::load::route_host;

const CONFIGURATION: &str = include_str!("../../peers.d/haproxy.cfg");

pub fn plan(start: &Start<'_>) -> anyhow::Result<Plan> {
    let mut choice = "use_backend app if { req.hdr(host) -i bench.test }".to_owned();
    if start.scene.routes > 0 {
        let mut map = String::new();
        for number in 0..start.scene.routes {
            writeln!(map, "{} app", route_host(number))?;
        }
        let map = start.write("hosts.map", &map)?;
        write!(choice, "\n  use_backend %[req.hdr(host),lower,map_str({})]", map.display())?;
    }
    // It writes to no file by itself; its standard output is one here (and would be /dev/null with `-q`).
    let log = if start.scene.access_log { "log stdout format raw local0 info\n  option httplog" } else { "" };
    let more = [("USE_BACKEND", &*choice), ("ACCESS_LOG", log)];
    let file = start.write("haproxy.cfg", &start.fill(CONFIGURATION, &more))?;
    Ok(Plan { arguments: ["-db".into(), "-f".into(), file].into(), ..Plan::default() })
}
