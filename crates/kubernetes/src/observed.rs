//! The client of one watch: tells when the API server takes the watch up, and waits for no answer for ever.
//!
//! kube's watcher gives the events of a watch and its errors. After an outage nothing may happen to a kind for days, and that its
//! watch stands again is no event: it shows in the answer to the request alone. And a request that is never answered is no error.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use kube::{Client, client::Body};
use tokio::sync::watch;

/// How long the API server may take to answer, and then to send a page of a list: long beside what a loaded one takes.
pub(crate) const ANSWER: Duration = Duration::from_secs(30);

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
            let response = within(client.send(request)).await?;
            if !watches {
                let (head, body) = response.into_parts();
                return Ok(Response::from_parts(head, Body::from(within(body.collect_bytes()).await?)));
            }
            if response.status().is_success() {
                taken_up.send_replace(());
            }
            Ok(response)
        })
    }
}

/// The answer, unless it takes too long.
pub(crate) async fn within<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(kube::Error::Service(format!("no answer within {ANSWER:?}").into())),
    }
}
