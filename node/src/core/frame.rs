//! Frames between two nodes, inside the encrypted stream of the transport.

use serde::{Deserialize, Serialize};

use crate::limits;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// Something of a conversation; see [`envelope`](super::envelope).
    Envelope(Vec<u8>),
    /// Something for a device or an invite from somebody who may not be a contact yet, sealed to
    /// its HPKE key; see [`parcel`](super::parcel).
    Parcel(Vec<u8>),
}

/// A frame that does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame that is malformed or too long")]
pub struct FrameError;

impl Frame {
    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a frame is plain data and always encodes")
    }

    /// Reads a frame; nothing may follow it.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() > limits::FRAME_BYTES_MAX {
            return Err(FrameError);
        }
        match postcard::take_from_bytes(bytes) {
            Ok((frame, [])) => Ok(frame),
            _ => Err(FrameError),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden() {
        assert_eq!(Frame::Envelope(vec![1, 2]).encode(), [0, 2, 1, 2]);
        assert_eq!(Frame::Parcel(vec![9]).encode(), [1, 1, 9]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_refused(bytes: Vec<u8>) {
            if let Ok(frame) = Frame::decode(&bytes) {
                prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
            }
        }
    }
}
