//! Calls of the services beside inference that are answered message by message: a watch of health, and reflection.
use super::Service;
use super::outgoing::{Framed, Hold, Outgoing, Sent};
use crate::frame::grpc::{self, GRPC};
use crate::frame::status;
use crate::request::{new_request_id, unwound};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};
use nnrp_core::{NnrpError, Reason, Result};
use prost::Message;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The server's side of such a call.
#[derive(Clone)]
pub(super) struct Talk {
    pub(super) service: Arc<Service>,
    out: mpsc::Sender<Sent>,
}

impl Talk {
    /// Begins a call; it ends with what `work` ends with.
    pub(super) fn begin<F>(service: &Arc<Service>, work: impl FnOnce(Talk) -> F) -> Response<Outgoing>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (out, coming) = mpsc::channel(1);
        let talk = Talk { service: service.clone(), out };
        let working = work(talk.clone());
        tokio::spawn(async move {
            let ended = unwound(working).await;
            let ended = ended.unwrap_or_else(|_| Err(NnrpError::new(Reason::Bug, "the server failed while it handled this call")));
            let mut trailers = HeaderMap::new();
            match ended {
                Ok(()) => drop(trailers.insert(status::STATUS, HeaderValue::from_static("0"))),
                Err(error) => status::insert(&mut trailers, &error, &new_request_id()),
            }
            // Where that is not read in time, the stream is reset.
            let _unread = talk.say(Sent::End { trailers, _hold: Hold::small(&talk.service, 1) }).await;
        });
        let mut response = Response::new(Outgoing::Streamed { message: Framed::none(), coming });
        response.headers_mut().insert(CONTENT_TYPE, GRPC);
        response
    }

    /// # Errors
    /// `CLIENT_CANCELLED`: the client does not read.
    pub(super) async fn send(&self, message: &impl Message) -> Result<()> {
        self.say(Sent::Message(Framed::of(&self.service, grpc::frame(message)?)?)).await
    }

    async fn say(&self, said: Sent) -> Result<()> {
        let sending = tokio::time::timeout(self.service.shared.settings.write_timeout, self.out.send(said)).await;
        sending.is_ok_and(|sent| sent.is_ok()).then_some(()).ok_or_else(|| NnrpError::new(Reason::ClientCancelled, "the client does not read its answers"))
    }

    /// Waits until the client has left.
    pub(super) async fn left(&self) {
        self.out.closed().await;
    }
}
