//! Compressed messages, the same in both forms.
use super::too_large;
use crate::buffer::{Gathered, Pool};
use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, HeaderName};
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason, Result};
use std::io::Read;

#[derive(Clone, Copy)]
enum Kind {
    Gzip,
    Deflate,
}

/// How a message is compressed, as a header says.
pub(super) struct Packing {
    kind: Kind,
    what: &'static str,
    header: HeaderName,
}

impl Packing {
    /// Reads the header; `None` when `what` is not compressed.
    ///
    /// # Errors
    /// `refusal`: neither gzip, deflate nor identity.
    pub(super) fn of(headers: &HeaderMap, header: HeaderName, what: &'static str, refusal: Reason) -> Result<Option<Packing>> {
        let Some(value) = headers.get(&header) else { return Ok(None) };
        let kind = match value.as_bytes().trim_ascii() {
            name if name.is_empty() || name.eq_ignore_ascii_case(b"identity") => return Ok(None),
            name if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => Kind::Gzip,
            name if name.eq_ignore_ascii_case(b"deflate") => Kind::Deflate,
            other => {
                let got = excerpt(&String::from_utf8_lossy(other));
                return Err(NnrpError::new(refusal, format!("header '{header}': expected gzip, deflate or identity, got '{got}'")).with("got", got));
            }
        };
        Ok(Some(Packing { kind, what, header }))
    }

    /// Decompresses up to `limit` bytes; the byte at `head` is aligned.
    ///
    /// # Errors
    /// `BODY_TOO_LARGE`, `MALFORMED`.
    pub(super) fn inflate(&self, packed: &[u8], head: usize, limit: usize, pool: &Pool) -> Result<Bytes> {
        match self.kind {
            Kind::Gzip => self.read(MultiGzDecoder::new(packed), head, limit, pool),
            Kind::Deflate => self.read(ZlibDecoder::new(packed), head, limit, pool),
        }
    }

    fn read(&self, mut decoder: impl Read, head: usize, limit: usize, pool: &Pool) -> Result<Bytes> {
        let mut whole = Gathered::new(pool, head, 0);
        let mut piece = vec![0; 64 << 10];
        loop {
            match decoder.read(&mut piece) {
                Ok(0) => return Ok(whole.into_bytes()),
                Ok(count) if count > limit - whole.len() => return Err(too_large(self.what, limit, None)),
                Ok(count) => whole.push(piece.get(..count).unwrap_or_default()),
                Err(_) => {
                    let message = format!("{}: expected what '{}' says, got bytes that do not decompress", self.what, self.header);
                    return Err(NnrpError::new(Reason::Malformed, message));
                }
            }
        }
    }
}
