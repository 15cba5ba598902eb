//! Log lines on standard error. Access logs are the data plane's, on standard output.

use tracing_subscriber::EnvFilter;

use crate::cli::{LogFormat, LogOptions};

/// Sets up logging for the process.
pub fn init(options: &LogOptions) -> Result<(), String> {
    // The libraries below speak of every watch and connection at `info`; ours say what an operator needs.
    // Failures of requests to the API server are told by who made them, with the object.
    let quiet = ["kube_runtime", "hyper", "h2", "rustls", "hickory_proto", "hickory_resolver", "hickory_net", "tower", "notify"];
    let level = &options.log_level;
    // A word alone would be taken for the name of a module, and all else be silent.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    if !level.contains(['=', ',']) && !levels.contains(&level.as_str()) {
        return Err(format!(
            "--log-level {level}: expected one of {}, or a filter such as `info,penstock_proxy=debug`",
            levels.join(", ")
        ));
    }
    let filter = if level.contains(['=', ',']) || matches!(level.as_str(), "debug" | "trace") {
        level.clone()
    } else {
        quiet.iter().fold(format!("{level},kube_client=off"), |filter, name| format!("{filter},{name}=error"))
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("--log-level {level}: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match options.log_format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
