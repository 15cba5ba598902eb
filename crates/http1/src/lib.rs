//! The HTTP/1.1 codec (RFC 9112): bytes in, heads and pieces of bodies out, and the other way. No I/O, no clock, no task.
//!
//! Promises:
//!
//! * One reading. What two parsers could read differently is an error with a status for the client and a sentence for an operator, never
//!   repaired; what is written comes from the parsed form ([`RequestError`], [`ResponseError`], [`BodyError`]).
//! * The same result in whatever pieces the bytes come, in time linear in them.
//! * Bounded memory: whatever a peer sends, no more is kept than [`Limits`] say.
//! * A head takes over the buffer that it was read into; its fields keep their order and their case. Once a connection's vectors have grown to
//!   the size of its messages, parsing and writing allocate nothing.
//! * No panic on any bytes, and no unsafe code.
//!
//! Left to others: sockets and timeouts, what a route or a policy makes of a head, `Date`, and what a proxy adds about the client.
//!
//! # Use
//!
//! ```
//! use penstock_http1::{BodyDecoder, Limits, Piece, Progress, RequestHead};
//!
//! let limits = Limits::default();
//! let mut buffer = b"POST /a?b HTTP/1.1\r\nHost: example.test\r\nContent-Length: 5\r\n\r\nhello".to_vec();
//! let mut head = RequestHead::new();
//! // Incomplete: read more into the buffer, and parse again.
//! assert_eq!(head.parse(&mut buffer, &limits), Ok(Progress::Complete));
//! assert_eq!((head.method_str(), head.path(), head.query()), ("POST", "/a", Some("b")));
//! assert_eq!(head.host(), Ok(Some("example.test")));
//!
//! let mut body = BodyDecoder::for_request(head.framing().unwrap(), limits);
//! assert_eq!(body.decode(&buffer).unwrap().piece, Piece::Data(0..5));
//! assert!(body.is_done() && head.persists());
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod chunked;
mod connection;
mod decode;
mod encode;
mod error;
mod fields;
mod framing;
mod grammar;
mod items;
mod limits;
mod method;
mod name;
mod relay;
mod request;
mod response;
mod section;
mod target;
mod write;

pub use connection::Expectation;
pub use decode::{BodyDecoder, Decoded, Piece};
pub use encode::{BodyEncoder, ChunkHead, Frame};
pub use error::{BodyError, EncodeError, FieldError, FieldsError, FramingError, RequestError, ResponseError};
pub use fields::{Field, Fields};
pub use framing::{RequestFraming, ResponseFraming, may_declare_length};
pub use grammar::{is_field_name, is_field_value};
pub use items::item_name;
pub use limits::{Limits, MAX_EMPTY_LINES, MAX_HEAD, MAX_METHOD, MAX_OPTIONS};
pub use method::Method;
pub use name::Name;
pub use relay::{ChunkRelay, Relayed};
pub use request::{Progress, RequestHead, Version};
pub use response::ResponseHead;
pub use target::TargetForm;
pub use write::{StartLineError, reason_phrase, write_request, write_request_line, write_response, write_status_line};
