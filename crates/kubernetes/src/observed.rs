//! Tells when the API server takes a watch up.
//!
//! kube's watcher gives the events of a watch and its errors. After an outage nothing may happen to a kind for days, and that its
//! watch stands again is no event: it shows in the answer to the request alone.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use kube::{Client, client::Body};
use tokio::sync::watch;

/// A client that makes the same requests, and what changes whenever the API server has answered one to watch with success.
pub(crate) fn observed(client: &Client) -> (Client, watch::Receiver<()>) {
    let (taken_up, told) = watch::channel(());
    (Client::new(Observed { client: client.clone(), taken_up }, client.default_namespace()), told)
}

struct Observed {
    client: Client,
    taken_up: watch::Sender<()>,
}

impl tower_service::Service<Request<Body>> for Observed {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, kube::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (client, taken_up) = (self.client.clone(), self.taken_up.clone());
        Box::pin(async move {
            let watches = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
            let response = client.send(request).await?;
            if watches && response.status().is_success() {
                taken_up.send_replace(());
            }
            Ok(response)
        })
    }
}
