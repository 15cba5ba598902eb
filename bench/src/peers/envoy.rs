//! Envoy: one worker besides its main thread; a virtual host for each route.

use std::fmt::Write;

use super::{Plan, Start};
use crate::load::route_host;

const CONFIGURATION: &str = include_str!("../../peers.d/envoy.yaml");
const HTTP: &str = include_str!("../../peers.d/envoy-http.yaml");

const ACCESS_LOG: &str = r#"                access_log:
                  - name: envoy.access_loggers.file
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
                      path: "{{DIR}}/access.log""#;

pub fn plan(start: &Start<'_>) -> anyhow::Result<Plan> {
    let mut routes = String::new();
    for number in 0..start.scene.routes {
        let host = route_host(number);
        writeln!(
            routes,
            r#"                    - {{name: "{host}", domains: ["{host}"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: app, timeout: 0s}}}}]}}"#
        )?;
    }
    let log = if start.scene.access_log { ACCESS_LOG } else { "" };
    let http = |routes: &str| start.fill(HTTP, &[("ACCESS_LOG", log), ("ROUTES", routes)]);
    let file = start.write("envoy.yaml", &start.fill(CONFIGURATION, &[("PLAIN", &http(&routes)), ("SECURE", &http(""))]))?;
    let mut arguments = vec!["-c".into(), file];
    arguments.extend(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"].map(Into::into));
    // What waits for company is written after a second, as nginx is told to; the default is ten.
    arguments.extend(["--file-flush-interval-msec", "1000"].map(Into::into));
    Ok(Plan { arguments, ..Plan::default() })
}
