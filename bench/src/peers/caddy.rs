//! Caddy: one processor.

use super::{Plan, Start};

const CONFIGURATION: &str = include_str!("../../peers.d/Caddyfile");

pub fn plan(start: &Start<'_>) -> anyhow::Result<Plan> {
    let log =
        if start.scene.access_log { "\tlog {\n\t\toutput file {{DIR}}/access.log {\n\t\t\troll_disabled\n\t\t}\n\t}" } else { "" };
    let file = start.write("Caddyfile", &start.fill(CONFIGURATION, &[("ACCESS_LOG", log)]))?;
    let arguments = ["run".into(), "--adapter".into(), "caddyfile".into(), "--config".into(), file].into();
    let own = |name: &str| start.folder.join(name).into();
    let environment = [
        ("GOMAXPROCS".to_owned(), "1".into()),
        ("XDG_DATA_HOME".to_owned(), own("data")),
        ("XDG_CONFIG_HOME".to_owned(), own("config")),
    ];
    Ok(Plan { arguments, environment: environment.into() })
}
