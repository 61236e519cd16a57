//! Answers on their way.
use super::Service;
use crate::frame::grpc::Parts;
use crate::unread::{Claim, SHARE};
use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame};
use nnrp_core::Result;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;

/// The body of an answer.
#[derive(Default)]
pub(super) enum Outgoing {
    /// None; all is said in the headers.
    #[default]
    Empty,
    /// Ours; the trailers are one more thing to read.
    Framed { message: Framed, trailers: Option<(HeaderMap, Hold)> },
    /// Ours, as it comes.
    Streamed { message: Framed, coming: mpsc::Receiver<Sent> },
}

/// What is sent of an answer that comes bit by bit.
pub(super) enum Sent {
    Message(Framed),
    /// The trailers, which end it.
    End {
        trailers: HeaderMap,
        _hold: Hold,
    },
}

/// A message in parts, which counts as unread until the last of it is written.
pub(super) struct Framed {
    parts: smallvec::IntoIter<[Bytes; 2]>,
    since: usize,
    hold: Option<Hold>,
}

/// Counts as unread by the client of a connection as long as it is kept.
pub(super) struct Hold {
    service: Arc<Service>,
    since: usize,
    byte_size: usize,
    _claim: Option<Claim>,
}

impl Hold {
    /// What has room whoever reads nothing.
    pub(super) fn small(service: &Arc<Service>, byte_size: usize) -> Hold {
        Hold::new(service, byte_size, None)
    }

    fn of(service: &Arc<Service>, byte_size: usize) -> Result<Hold> {
        let beyond = service.backlog.byte_size() + byte_size > SHARE;
        let claim = beyond.then(|| service.shared.unread.claim(byte_size)).transpose()?;
        Ok(Hold::new(service, byte_size, claim))
    }

    fn new(service: &Arc<Service>, byte_size: usize, claim: Option<Claim>) -> Hold {
        Hold { service: service.clone(), since: service.backlog.add(byte_size), byte_size, _claim: claim }
    }
}

impl Hold {
    /// Whether its turn to be sent has come.
    fn turn(&mut self, has_come: bool) {
        let backlog = &self.service.backlog;
        backlog.remove(self.since, self.byte_size);
        self.since = if has_come { backlog.add(self.byte_size) } else { backlog.hold(self.byte_size) };
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.service.backlog.remove(self.since, self.byte_size);
    }
}

impl Framed {
    /// Nothing.
    pub(super) fn none() -> Framed {
        Framed { parts: Parts::new().into_iter(), since: 0, hold: None }
    }

    /// # Errors
    /// `UNREAD_ANSWERS`: it is large, and there is no room for it.
    pub(super) fn of(service: &Arc<Service>, parts: Parts) -> Result<Framed> {
        Hold::of(service, byte_size(&parts)).map(|hold| Framed::held(parts, hold))
    }

    /// What has room whoever reads nothing.
    pub(super) fn small(service: &Arc<Service>, parts: Parts) -> Framed {
        let hold = Hold::small(service, byte_size(&parts));
        Framed::held(parts, hold)
    }

    fn held(parts: Parts, hold: Hold) -> Framed {
        Framed { parts: parts.into_iter(), since: hold.since, hold: Some(hold) }
    }

    /// Whether its turn to be sent has come: only then does its client have to read it.
    pub(super) fn turn(mut self, has_come: bool) -> Framed {
        if let Some(hold) = &mut self.hold {
            hold.turn(has_come);
            self.since = hold.since;
        }
        self
    }

    fn next(&mut self, service: &Arc<Service>) -> Option<Piece> {
        let bytes = self.parts.next()?;
        let hold = if self.parts.len() == 0 { self.hold.take() } else { None };
        Some(Piece { bytes, since: self.since, _hold: hold, service: service.clone() })
    }
}

fn byte_size(parts: &Parts) -> usize {
    parts.iter().map(Bytes::len).sum()
}

impl Outgoing {
    fn poll_frame(&mut self, service: &Arc<Service>, cx: &mut Context<'_>) -> Poll<Option<std::result::Result<Frame<Piece>, tonic::Status>>> {
        match self {
            Outgoing::Empty => Poll::Ready(None),
            Outgoing::Framed { message, trailers } => {
                let data = message.next(service).map(Frame::data);
                Poll::Ready(data.or_else(|| trailers.take().map(|(trailers, _)| Frame::trailers(trailers))).map(Ok))
            }
            Outgoing::Streamed { message, coming } => loop {
                if let Some(piece) = message.next(service) {
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                match ready!(coming.poll_recv(cx)) {
                    Some(Sent::Message(next)) => *message = next,
                    Some(Sent::End { trailers, .. }) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                    None => return Poll::Ready(Some(Err(tonic::Status::cancelled("the answer was given up")))),
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Empty => true,
            Outgoing::Framed { message, trailers } => message.parts.len() == 0 && trailers.is_none(),
            Outgoing::Streamed { .. } => false,
        }
    }
}

/// An answer that holds its service until the last of it is written, so that a connection knows whether it has something to answer.
pub(super) struct Answer {
    pub(super) body: Outgoing,
    pub(super) service: Arc<Service>,
}

/// Bytes of an answer. HTTP/2 takes all of them from the body at once, and then sends them as the client reads.
pub(super) struct Piece {
    bytes: Bytes,
    since: usize,
    service: Arc<Service>,
    _hold: Option<Hold>,
}

impl Body for Answer {
    type Data = Piece;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std::result::Result<Frame<Piece>, tonic::Status>>> {
        let Answer { body, service } = &mut *self;
        body.poll_frame(service, cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.service.backlog.moves(self.since);
    }
}
