//! What a client sends to a service that tonic frames, which would wait for it for ever.
use crate::frame::status;
use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use nnrp_core::{NnrpError, Reason};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// A body that ends with an error when the client pauses for too long.
pub(super) struct Patient {
    body: Incoming,
    pause: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    pub(super) fn new(body: Incoming, pause: Duration) -> Self {
        Patient { body, pause, timer: None }
    }
}

impl Body for Patient {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.timer = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(|_| ended(Reason::ClientCancelled, "the stream was reset before its messages ended"))));
        }
        let pause = self.pause;
        ready!(self.timer.get_or_insert_with(|| Box::pin(sleep(pause))).as_mut().poll(cx));
        Poll::Ready(Some(Err(ended(Reason::Malformed, "message: no byte came for too long"))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cold]
fn ended(reason: Reason, message: &str) -> tonic::Status {
    status::tonic_status(&NnrpError::new(reason, message))
}
