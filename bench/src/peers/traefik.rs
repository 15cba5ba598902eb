//! Traefik: one processor; a router for each route.

use std::fmt::Write;

use super::{Plan, Start};
use crate::load::route_host;

const CONFIGURATION: &str = include_str!("../../peers.d/traefik.yaml");
const ROUTES: &str = include_str!("../../peers.d/traefik-routes.yaml");

pub fn plan(start: &Start<'_>) -> anyhow::Result<Plan> {
    let log = if start.scene.access_log { "accessLog: {filePath: \"{{DIR}}/access.log\", bufferingSize: 100}" } else { "" };
    let mut routes = String::new();
    for number in 0..start.scene.routes {
        writeln!(routes, "    route-{number}: {{entryPoints: [plain], rule: \"Host(`{}`)\", service: app}}", route_host(number))?;
    }
    start.write("routes.yaml", &start.fill(ROUTES, &[("ROUTES", &routes)]))?;
    let file = start.write("traefik.yaml", &start.fill(CONFIGURATION, &[("ACCESS_LOG", log)]))?;
    let mut file_flag = std::ffi::OsString::from("--configFile=");
    file_flag.push(file);
    Ok(Plan { arguments: vec![file_flag], environment: vec![("GOMAXPROCS".to_owned(), "1".into())] })
}
