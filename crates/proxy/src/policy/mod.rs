//! What a route does to a request, besides sending it somewhere: one policy a file. Pure: they see a head and give an answer, or values
//! to write. The order in which they run stands in [`crate::route`].

pub(crate) mod addresses;
pub(crate) mod forwarding;
pub(crate) mod https_redirect;
pub(crate) mod redirect;
pub(crate) mod rewrite;

use std::sync::Arc;

/// An answer of the proxy's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) content: Content,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The page of the status, maybe with a line that says more.
    Page {
        hint: Option<&'static str>,
    },
    Text {
        content_type: Arc<str>,
        body: Arc<str>,
    },
}

impl Answer {
    pub(crate) fn page(status: u16, hint: &'static str) -> Self {
        Self { status, location: None, content: Content::Page { hint: Some(hint) } }
    }

    pub(crate) fn plain(status: u16) -> Self {
        Self { status, location: None, content: Content::Page { hint: None } }
    }

    pub(crate) fn text(status: u16, body: &'static str) -> Self {
        Self {
            status,
            location: None,
            content: Content::Text { content_type: "text/plain; charset=utf-8".into(), body: body.into() },
        }
    }

    pub(crate) fn redirect(status: u16, location: String) -> Self {
        Self { status, location: Some(location), content: Content::Page { hint: None } }
    }
}
