//! What a proxy needs to know of WebSockets: where frames begin and end, the handshake's keys, and a Close frame.
//!
//! [`FrameTracker`] follows the frame headers of one direction of a tunnel and never touches payload. It promises the same answer
//! however the bytes are cut, and to hold no more than 16 bytes. That the peers obey the rest of RFC 6455
//! (masking, reserved bits, order of fragments) is for them to judge: what is not understood is followed by length alone.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

/// The GUID of RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Close code "service restart" (IANA WebSocket Close Code Number Registry): the client may come back at once, after a short
/// random time.
pub const SERVICE_RESTART: u16 = 1012;

const OPCODE_CLOSE: u8 = 0x8;

/// Follows the frames of one direction (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameTracker {
    /// Payload that is still to come; while the extended length is read, what of it is known.
    remaining: u64,
    stage: Stage,
    /// Bytes of the extended length that are still to come.
    extended: u8,
    /// Bytes of the masking key that are still to come.
    mask: u8,
    close_seen: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Between frames.
    #[default]
    Boundary,
    /// The first byte was read, the second is next.
    Length,
    Extended,
    Mask,
    Payload,
    /// A length that RFC 6455 forbids was seen: there is no telling where frames begin.
    Lost,
}

// A tunnel holds two of these for as long as it lives.
const _: () = assert!(size_of::<FrameTracker>() <= 16);

impl FrameTracker {
    /// Takes the next bytes of the direction.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.stage {
                Stage::Lost => return,
                Stage::Payload => {
                    let here = self.remaining.min(bytes.len() as u64);
                    self.remaining -= here;
                    bytes = bytes.get(here as usize..).unwrap_or_default();
                    if self.remaining == 0 {
                        self.stage = Stage::Boundary;
                    }
                    continue;
                }
                Stage::Boundary => {
                    self.close_seen |= byte & 0x0f == OPCODE_CLOSE;
                    self.stage = Stage::Length;
                }
                Stage::Length => {
                    self.mask = if byte & 0x80 == 0 { 0 } else { 4 };
                    (self.extended, self.remaining) = match byte & 0x7f {
                        126 => (2, 0),
                        127 => (8, 0),
                        length => (0, u64::from(length)),
                    };
                    self.stage = Stage::Extended;
                    self.after_header_part();
                }
                Stage::Extended => {
                    self.remaining = self.remaining << 8 | u64::from(byte);
                    self.extended -= 1;
                    if self.extended == 0 && self.remaining > i64::MAX as u64 {
                        self.stage = Stage::Lost;
                        return;
                    }
                    self.after_header_part();
                }
                Stage::Mask => {
                    self.mask -= 1;
                    self.after_header_part();
                }
            }
            bytes = rest;
        }
    }

    fn after_header_part(&mut self) {
        self.stage = if self.extended > 0 {
            Stage::Extended
        } else if self.mask > 0 {
            Stage::Mask
        } else if self.remaining > 0 {
            Stage::Payload
        } else {
            Stage::Boundary
        };
    }

    /// Whether a control frame of ours could be put in here: the direction stands between two frames, also inside a fragmented
    /// message (RFC 6455 §5.4), and no Close came by, after which nothing may be sent (§5.5.1).
    pub fn at_boundary(&self) -> bool {
        self.stage == Stage::Boundary && !self.close_seen
    }

    /// Whether a Close came by or began.
    pub fn close_seen(&self) -> bool {
        self.close_seen
    }
}

/// A Close frame ready to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    bytes: [u8; 8],
    length: usize,
}

impl CloseFrame {
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// A Close frame with a code and no text. To a backend it must be masked, with a key that nobody can guess; to a client it must not
/// (RFC 6455 §5.1).
pub fn close_frame(code: u16, mask: Option<[u8; 4]>) -> CloseFrame {
    let [high, low] = code.to_be_bytes();
    match mask {
        None => CloseFrame { bytes: [0x88, 2, high, low, 0, 0, 0, 0], length: 4 },
        Some([a, b, c, d]) => CloseFrame { bytes: [0x88, 0x82, a, b, c, d, high ^ a, low ^ b], length: 8 },
    }
}

/// A masking key for [`close_frame`].
pub fn new_mask() -> [u8; 4] {
    rand::random()
}

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (RFC 6455 §4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(GUID);
    STANDARD.encode(hash.finalize())
}

/// A fresh `Sec-WebSocket-Key` (RFC 6455 §4.1).
pub fn new_key() -> String {
    STANDARD.encode(rand::random::<[u8; 16]>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, masked: bool, payload: usize) -> Vec<u8> {
        let bit = if masked { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match payload {
            0..126 => bytes.push(bit | payload as u8),
            126..65536 => {
                bytes.push(bit | 0x7e);
                bytes.extend((payload as u16).to_be_bytes());
            }
            _ => {
                bytes.push(bit | 0x7f);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend([1, 2, 3, 4]);
        }
        bytes.extend(std::iter::repeat_n(0x88, payload));
        bytes
    }

    fn fed(bytes: &[u8]) -> FrameTracker {
        let mut tracker = FrameTracker::default();
        tracker.feed(bytes);
        tracker
    }

    #[test]
    fn a_boundary_is_only_between_frames() {
        for (masked, payload) in [(false, 0), (true, 0), (true, 5), (false, 125), (true, 126), (false, 65535), (true, 65536)] {
            let bytes = frame(0x81, masked, payload);
            for end in 1..bytes.len() {
                assert!(!fed(&bytes[..end]).at_boundary(), "{masked} {payload} {end}");
            }
            assert!(fed(&bytes).at_boundary(), "{masked} {payload}");
            assert!(!fed(&bytes).close_seen);
        }
    }

    #[test]
    fn a_control_frame_inside_a_fragmented_message_is_followed() {
        let mut tracker = fed(&frame(0x01, true, 10));
        assert!(tracker.at_boundary());
        tracker.feed(&frame(0x89, true, 4));
        assert!(tracker.at_boundary());
        tracker.feed(&frame(0x80, true, 10));
        assert!(tracker.at_boundary());
    }

    #[test]
    fn nothing_may_be_sent_after_a_close() {
        let mut tracker = fed(&[0x88]);
        assert!(!tracker.at_boundary());
        tracker.feed(&[0]);
        assert!(tracker.stage == Stage::Boundary && !tracker.at_boundary());
        tracker.feed(&frame(0x81, true, 3));
        assert!(!tracker.at_boundary());
    }

    #[test]
    fn a_forbidden_length_is_never_taken_for_a_boundary() {
        let mut tracker = fed(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!tracker.at_boundary());
        tracker.feed(&frame(0x81, false, 3));
        assert!(!tracker.at_boundary());
    }

    #[test]
    fn the_keys_of_the_rfc_agree() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(STANDARD.decode(new_key()).unwrap().len(), 16);
        assert_ne!(new_key(), new_key());
    }

    #[test]
    fn close_frames_carry_their_code() {
        assert_eq!(close_frame(1012, None).as_bytes(), [0x88, 2, 0x03, 0xf4]);
        let masked = close_frame(1012, Some([9, 8, 7, 6]));
        assert_eq!(masked.as_bytes(), [0x88, 0x82, 9, 8, 7, 6, 0x03 ^ 9, 0xf4 ^ 8]);
        let tracker = fed(masked.as_bytes());
        assert!(tracker.stage == Stage::Boundary && tracker.close_seen);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_answer(
            frames in prop::collection::vec((any::<u8>(), any::<bool>(), prop_oneof![0usize..200, 65530usize..65540]), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            tail in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut bytes: Vec<u8> = frames.iter().flat_map(|&(first, masked, payload)| frame(first, masked, payload)).collect();
            prop_assert_eq!(fed(&bytes).stage, Stage::Boundary);
            prop_assert_eq!(fed(&bytes).close_seen, frames.iter().any(|(first, ..)| first & 0x0f == 8));
            bytes.extend(tail);
            let whole = fed(&bytes);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut pieces = FrameTracker::default();
            let mut from = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                pieces.feed(&bytes[from..cut]);
                from = cut;
            }
            prop_assert_eq!(pieces, whole);
            let mut single = FrameTracker::default();
            for byte in &bytes {
                single.feed(&[*byte]);
            }
            prop_assert_eq!(single, whole);
        }
    }
}
