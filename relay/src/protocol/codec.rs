//! Frames as bytes: a length (u32, big endian) and postcard.
//!
//! The law: a length is checked before anything is allocated, and trailing bytes are an error.

use serde::{Serialize, de::DeserializeOwned};

use crate::limits::FRAME_BYTES_MAX;

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length in front is beyond the limit.
    #[error("a frame of {bytes} bytes, and {max} is the most", max = FRAME_BYTES_MAX)]
    TooLong {
        /// The announced or needed length.
        bytes: usize,
    },
    /// The bytes do not decode.
    #[error("the bytes are not a frame of this protocol")]
    Malformed,
}

/// Bytes of the length in front of each frame.
pub const LENGTH_BYTES: usize = 4;

/// The frame with its length in front.
pub fn encode_frame<T: Serialize>(frame: &T) -> Result<Vec<u8>, FrameError> {
    let bytes =
        postcard::to_extend(frame, vec![0; LENGTH_BYTES]).map_err(|_| FrameError::Malformed)?;
    let length = bytes.len() - LENGTH_BYTES;
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { bytes: length });
    }
    let mut bytes = bytes;
    let length = u32::try_from(length).map_err(|_| FrameError::TooLong { bytes: length })?;
    bytes[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

/// How many bytes follow these four.
pub fn frame_length(prefix: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    let bytes = u32::from_be_bytes(prefix) as usize;
    if bytes > FRAME_BYTES_MAX { Err(FrameError::TooLong { bytes }) } else { Ok(bytes) }
}

/// The frame these bytes are, without the length in front.
pub fn decode_frame<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { bytes: bytes.len() });
    }
    match postcard::take_from_bytes(bytes) {
        Ok((frame, [])) => Ok(frame),
        _ => Err(FrameError::Malformed),
    }
}

/// Cuts a stream of bytes, arriving in any pieces, into frames.
#[derive(Debug, Default)]
pub struct Framed {
    buffer: Vec<u8>,
    read: usize,
}

impl Framed {
    /// Adds bytes as they arrived.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.read > 0 {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame's bytes, without its length; `None` if more bytes are needed.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let rest = &self.buffer[self.read..];
        let Some(prefix) = rest.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = frame_length(*prefix)?;
        let Some(frame) = rest.get(LENGTH_BYTES..LENGTH_BYTES + length) else { return Ok(None) };
        self.read += LENGTH_BYTES + length;
        Ok(Some(frame))
    }
}
