//! The client of the API server.

use std::path::Path;

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{path}: {error}")]
    File { path: String, error: kube::config::KubeconfigError },
    #[error("neither a service account nor a kubeconfig was found: {0}")]
    Infer(kube::config::InferConfigError),
    #[error("the client could not be made: {0}")]
    Client(kube::Error),
}

/// A client from a kubeconfig, or from where the process runs. Gives the namespace that it stands in, too.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<(Client, String), ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = |error| ConnectError::File { path: path.display().to_string(), error };
            let read = Kubeconfig::read_from(path).map_err(file)?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.map_err(file)?
        }
        None => Config::infer().await.map_err(ConnectError::Infer)?,
    };
    // The watches have their own back-off, and a write that waits for minutes inside the client would be a stale one.
    config.default_retry = false;
    let namespace = config.default_namespace.clone();
    Ok((Client::try_from(config).map_err(ConnectError::Client)?, namespace))
}
