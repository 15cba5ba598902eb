//! What an exchange works with: heads, and the texts that are made of them. A thread lends it from one exchange to the next, so that what it has
//! grown to is allocated once, and a connection that is idle holds none of it.

use penstock_http1::{RequestHead, ResponseHead};

use super::{
    buffers,
    message::{Connect, Version},
    spares::Spares,
};
use crate::policy::forwarding::Edits;

/// Workspaces that a thread keeps at most: some 3 KiB each, without their heads' buffers.
const KEPT: usize = 256;
/// The largest text that is kept with a workspace.
const LARGEST_TEXT: usize = 4 * 1024;

#[derive(Debug, Default)]
pub(super) struct Workspace {
    pub(super) request: RequestHead,
    pub(super) version: Version,
    pub(super) connect: Connect,
    pub(super) response: ResponseHead,
    pub(super) edits: Edits,
    /// The target that the backend is asked for.
    pub(super) target: Vec<u8>,
    /// The host that it is asked for. Empty: that of its endpoint.
    pub(super) host: Vec<u8>,
}

thread_local! {
    static FREE: Spares<Box<Workspace>> = const { Spares::new() };
}

/// Takes a workspace. One that is not given back is dropped as any value.
pub(super) fn take() -> Box<Workspace> {
    FREE.with(Spares::take).unwrap_or_default()
}

pub(super) fn give_back(mut workspace: Box<Workspace>) {
    workspace.release_heads();
    if workspace.target.capacity().max(workspace.host.capacity()) > LARGEST_TEXT {
        (workspace.target, workspace.host) = (Vec::new(), Vec::new());
    }
    FREE.with(|spares| spares.keep(workspace, KEPT));
}

pub(super) fn trim() {
    FREE.with(Spares::trim);
}

impl Workspace {
    /// The heads are needed no more: their buffers are for others while the bodies go by.
    pub(super) fn release_heads(&mut self) {
        buffers::give_back(&mut self.request.take_buffer());
        buffers::give_back(&mut self.response.take_buffer());
    }
}
