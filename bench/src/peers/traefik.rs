//! Traefik: one processor.

use super::{Plan, Start};

const CONFIGURATION: &str = include_str!("../../peers.d/traefik.yaml");
const ROUTES: &str = include_str!("../../peers.d/traefik-routes.yaml");

pub fn plan(start: &Start<'_>) -> anyhow::Result<Plan> {
    let log = if start.scene.access_log { "accessLog: {filePath: \"{{DIR}}/access.log\", bufferingSize: 100}" } else { "" };
    start.write("routes.yaml", &start.fill(ROUTES, &[]))?;
    let file = start.write("traefik.yaml", &start.fill(CONFIGURATION, &[("ACCESS_LOG", log)]))?;
    let mut file_flag = std::ffi::OsString::from("--configFile=");
    file_flag.push(file);
    Ok(Plan { arguments: vec![file_flag], environment: vec![("GOMAXPROCS".to_owned(), "1".into())] })
}
