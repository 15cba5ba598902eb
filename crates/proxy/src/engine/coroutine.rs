//! The state of exchanges. It has room for the largest of all that an exchange may wait for: too much for each connection to have it while it is
//! idle, and to be allocated for each request. So a thread lends it from one exchange to the next, as a coroutine that serves one after another.
//!
//! Promises that a coroutine at rest holds nothing of the exchange before; and that one whose exchange panicked, or was given up before its end, is
//! dropped with all that it held, and never lent again.

use std::{
    cell::Cell,
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use super::{
    arrival::Client,
    exchange::{self, After},
    side::Side,
    spares::Spares,
    workspace::Workspace,
};
use crate::io::ClientStream;

/// Coroutines that a thread keeps at most, as many as workspaces: an exchange takes one of each.
const KEPT: usize = 256;

/// What an exchange is about.
struct Begun {
    client: Rc<Client>,
    side: Side<ClientStream>,
    work: Box<Workspace>,
}

/// What it came to.
pub(super) struct Ended {
    pub(super) after: After,
    pub(super) side: Side<ClientStream>,
    pub(super) work: Box<Workspace>,
}

/// Where both are handed over.
#[derive(Default)]
struct Desk {
    begun: Cell<Option<Begun>>,
    ended: Cell<Option<Ended>>,
}

struct Coroutine {
    desk: Rc<Desk>,
    run: Pin<Box<dyn Future<Output = Infallible>>>,
}

thread_local! {
    static FREE: Spares<Coroutine> = const { Spares::new() };
}

impl Coroutine {
    fn new() -> Self {
        let desk = Rc::<Desk>::default();
        Self { desk: desk.clone(), run: Box::pin(run(desk)) }
    }
}

async fn run(desk: Rc<Desk>) -> Infallible {
    loop {
        // Nobody wakes it: who hands something over polls.
        let Begun { client, mut side, mut work } = poll_fn(|_| desk.begun.take().map_or(Poll::Pending, Poll::Ready)).await;
        let after = exchange::serve(&client, &mut side, &mut work).await;
        desk.ended.set(Some(Ended { after, side, work }));
    }
}

pub(super) fn trim() {
    FREE.with(Spares::trim);
}

/// An exchange under way.
pub(super) struct Running(Option<Coroutine>);

/// Serves the request whose head is in the workspace.
pub(super) fn serve(client: &Rc<Client>, side: Side<ClientStream>, work: Box<Workspace>) -> Running {
    let coroutine = FREE.with(Spares::take).unwrap_or_else(Coroutine::new);
    coroutine.desk.begun.set(Some(Begun { client: client.clone(), side, work }));
    Running(Some(coroutine))
}

impl Future for Running {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let Some(coroutine) = &mut self.0 else { return Poll::Pending };
        let Poll::Pending = coroutine.run.as_mut().poll(cx);
        let Some(ended) = coroutine.desk.ended.take() else { return Poll::Pending };
        if let Some(coroutine) = self.0.take() {
            FREE.with(|spares| spares.keep(coroutine, KEPT));
        }
        Poll::Ready(ended)
    }
}
