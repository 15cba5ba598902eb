//! Envoy: one worker besides its main thread.

use super::{Plan, Start};

const CONFIGURATION: &str = include_str!("../../peers.d/envoy.yaml");

const ACCESS_LOG: &str = r#"                access_log:
                  - name: envoy.access_loggers.file
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
                      path: "{{DIR}}/access.log""#;

pub fn plan(start: &Start<'_>) -> anyhow::Result<Plan> {
    let log = if start.scene.access_log { ACCESS_LOG } else { "" };
    let file = start.write("envoy.yaml", &start.fill(CONFIGURATION, &[("ACCESS_LOG", log)]))?;
    let mut arguments = vec!["-c".into(), file];
    arguments.extend(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"].map(Into::into));
    // What waits for company is written after a second, as nginx is told to; the default is ten.
    arguments.extend(["--file-flush-interval-msec", "1000"].map(Into::into));
    Ok(Plan { arguments, ..Plan::default() })
}
