//! A body that is already there.
use crate::codec::rest::Encoded;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use smallvec::SmallVec;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A body in pieces that are written as they lie.
#[derive(Clone, Default)]
pub(crate) struct Pieces {
    pieces: SmallVec<[Bytes; 3]>,
    next: usize,
    left: usize,
}

impl Pieces {
    pub(crate) fn one(bytes: Bytes) -> Self {
        Pieces { left: bytes.len(), pieces: SmallVec::from_iter([bytes]), next: 0 }
    }

    /// Bytes that were not given yet.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// The last of them, which is written last.
    pub(crate) fn last_mut(&mut self) -> Option<&mut Bytes> {
        self.pieces.iter_mut().rev().find(|piece| !piece.is_empty())
    }
}

impl From<Encoded> for Pieces {
    fn from(encoded: Encoded) -> Self {
        let mut pieces = Pieces::one(encoded.json);
        for tensor in encoded.tensors {
            pieces.left += tensor.len();
            pieces.pieces.push(tensor);
        }
        pieces
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        while let Some(piece) = this.pieces.get_mut(this.next) {
            this.next += 1;
            if !piece.is_empty() {
                this.left -= piece.len();
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(piece)))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}
