//! Padding to buckets, so that lengths tell little. Pad *before* sealing: the relay must not be
//! able to see where the content ends.
//!
//! ```text
//! length of the content  u32, little endian
//! content
//! zeros up to the bucket
//! ```

/// The smallest bucket, bytes.
pub const BUCKET_MIN: usize = 512;
/// Up to here buckets double; above they are multiples of it.
pub const BUCKET_STEP: usize = 4096;

const LENGTH_BYTES: usize = 4;

/// Why bytes are not padded content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the padding is damaged")]
pub struct PaddingError;

/// The bucket that `bytes` go into: 512, 1024, 2048, 4096, then multiples of 4096.
pub fn bucket(bytes: usize) -> usize {
    if bytes <= BUCKET_STEP {
        bytes.next_power_of_two().max(BUCKET_MIN)
    } else {
        bytes.div_ceil(BUCKET_STEP).saturating_mul(BUCKET_STEP)
    }
}

/// The content, padded to its bucket. `overhead` is what sealing will add (nonce and tag), so that
/// the sealed whole fills the bucket exactly. Content is shorter than 4 GiB.
pub fn pad(content: &[u8], overhead: usize) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("invariant: content is far below 4 GiB");
    let bucket = bucket(LENGTH_BYTES + content.len() + overhead);
    let mut padded = Vec::with_capacity(bucket);
    padded.extend_from_slice(&length.to_le_bytes());
    padded.extend_from_slice(content);
    padded.resize(bucket - overhead, 0);
    padded
}

/// The content within padded bytes; any other byte than zero in the padding is an error.
pub fn unpad(padded: &[u8]) -> Result<&[u8], PaddingError> {
    let (prefix, rest) = padded.split_first_chunk::<LENGTH_BYTES>().ok_or(PaddingError)?;
    let length = u32::from_le_bytes(*prefix) as usize;
    let (content, zeros) = rest.split_at_checked(length).ok_or(PaddingError)?;
    if zeros.iter().all(|&byte| byte == 0) { Ok(content) } else { Err(PaddingError) }
}
