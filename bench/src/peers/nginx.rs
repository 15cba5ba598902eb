//! nginx: one worker; a `server` block for each route, as ingress controllers write it.

use std::fmt::Write;

use super::{Plan, Start};
use crate::load::route_host;

const CONFIGURATION: &str = include_str!("../../peers.d/nginx.conf");
/// From here on `http2` is a directive of its own.
const HTTP2_DIRECTIVE: (u32, u32, u32) = (1, 25, 1);

pub fn plan(start: &Start<'_>) -> anyhow::Result<Plan> {
    let mut numbers = start.peer.version.split(['.', '-', '+']).map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let listen = if version >= HTTP2_DIRECTIVE {
        format!("listen {} ssl;\n    http2 on;", start.https)
    } else {
        format!("listen {} ssl http2;", start.https)
    };
    let mut routes = String::new();
    for number in 0..start.scene.routes {
        writeln!(
            routes,
            "  server {{ listen {}; server_name {}; location / {{ proxy_pass http://app; }} }}",
            start.http,
            route_host(number)
        )?;
    }
    let log = if start.scene.access_log {
        format!("{} combined buffer=64k flush=1s", start.access_log().display())
    } else {
        "off".to_owned()
    };
    let names = (start.scene.routes * 2).max(512).to_string();
    let more = [("LISTEN_TLS", &*listen), ("ACCESS_LOG", &log), ("NAMES", &names), ("ROUTES", &routes)];
    let file = start.write("nginx.conf", &start.fill(CONFIGURATION, &more))?;
    Ok(Plan { arguments: ["-p".into(), start.folder.into(), "-c".into(), file].into(), ..Plan::default() })
}
