//! `ModelStreamInfer`: any number of requests and their answers over one call (spec §4.8).
use super::Service;
use super::outgoing::{Framed, Hold, Outgoing, Sent};
use crate::codec::{check_elements, proto};
use crate::frame::grpc::{Bounds, GRPC};
use crate::frame::messages::Messages;
use crate::frame::{status, streamed, timeout};
use crate::request::{new_request_id, unwound};
use crate::shared::{Taken, draining, parting};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use nnrp_core::{Answer, Answers, Cause, NnrpError, Reason, Result, Stop};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::mpsc;

/// Most requests of one call that are answered at once; no more are read until one of them is.
const REQUESTS: usize = 128;
/// Answers of one call that HTTP/2 has not taken yet.
const AHEAD: usize = 2;

/// Begins a call, whose answers come in a body of their own.
pub(super) fn call(service: &Arc<Service>, request: Request<Incoming>) -> Result<Response<Outgoing>> {
    let (head, body) = request.into_parts();
    let deadline = timeout::deadline(&head.headers, Instant::now())?;
    let strict = head.headers.get(streamed::STATUS_ERRORS).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let taken = service.shared.take()?;
    let settings = &service.shared.settings;
    let bounds =
        Bounds { byte_size: settings.max_body_bytes, pause: settings.read_timeout, raw_tag: 7, pool: &service.pool, engine: Some(&service.shared.engine) };
    let (out, coming) = mpsc::channel(AHEAD);
    let messages = Messages::new(head.headers, body, &bounds);
    let call = Call { service: service.clone(), deadline, strict, messages, flights: Flights::default(), out, _taken: taken };
    tokio::spawn(call.serve());
    let mut response = Response::new(Outgoing::Streamed { message: Framed::none(), coming });
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    Ok(response)
}

struct Call {
    service: Arc<Service>,
    deadline: Option<Instant>,
    /// An error ends the call as its status.
    strict: bool,
    messages: Messages<Incoming>,
    flights: Flights,
    out: mpsc::Sender<Sent>,
    _taken: Taken,
}

enum Event {
    /// Nobody reads the answers any more.
    Left,
    /// Nothing was asked or answered for too long.
    Idle,
    Stopping,
    Asked(Result<Option<Bytes>>),
    Answered(Option<Result<Framed>>),
}

impl Call {
    async fn serve(mut self) {
        let deadline = self.deadline;
        let answering = unwound(self.answer());
        let ended = match deadline {
            None => Some(answering.await),
            Some(deadline) => tokio::time::timeout_at(deadline.into(), answering).await.ok(),
        };
        let ended = match ended {
            None => Err(self.flights.are_late()),
            Some(ended) => ended.unwrap_or_else(|_| Err(NnrpError::new(Reason::Bug, "the server failed while it handled this call"))),
        };
        let mut trailers = HeaderMap::new();
        match ended {
            // What was late within the call was told there.
            Ok(()) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => status::insert(&mut trailers, &late(), &new_request_id()),
            Ok(()) => drop(trailers.insert(status::STATUS, HeaderValue::from_static("0"))),
            Err(error) => status::insert(&mut trailers, &error, &new_request_id()),
        }
        // What was asked for and is not answered is cancelled.
        self.flights = Flights::default();
        // Where that is not read in time either, the stream is reset.
        let _unread = self.send(Sent::End { trailers, _hold: Hold::small(&self.service, 1) }).await;
    }

    async fn answer(&mut self) -> Result<()> {
        let (out, mut signals) = (self.out.clone(), self.service.signals.clone());
        let (asking, fresh) = (AtomicBool::new(false), AtomicBool::new(true));
        let quiet = self.quiet(&asking, &fresh);
        let (mut left, mut parting) = (pin!(out.closed()), pin!(parting(&mut signals, |signal| signal.end.is_some(), quiet)));
        // Requests may come; it is known that the server stops.
        let (mut open, mut stops) = (true, false);
        while open || !self.flights.is_empty() {
            asking.store(!self.flights.is_empty(), Ordering::Relaxed);
            fresh.store(true, Ordering::Relaxed);
            let event = poll_fn(|cx| {
                if left.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Left);
                }
                if !stops && parting.as_mut().poll(cx).is_ready() {
                    let stopping = self.service.signals.borrow().end.is_some();
                    return Poll::Ready(if stopping { Event::Stopping } else { Event::Idle });
                }
                if open
                    && self.flights.has_room(self.service.shared.settings.max_body_bytes)
                    && let Poll::Ready(message) = self.messages.poll_next(cx)
                {
                    return Poll::Ready(Event::Asked(message));
                }
                self.flights.poll_next(cx, &self.service, self.strict).map(Event::Answered)
            });
            match event.await {
                Event::Left => return Err(NnrpError::new(Reason::ClientCancelled, "the client left")),
                Event::Idle => return Err(NnrpError::new(Reason::ClientCancelled, "nothing was asked for too long")),
                Event::Stopping => (open, stops) = (false, true),
                Event::Asked(message) => match message? {
                    Some(message) => self.flights.start(&self.service, message, self.deadline),
                    None => open = false,
                },
                Event::Answered(Some(answer)) => self.send(Sent::Message(answer?)).await?,
                Event::Answered(None) => {}
            }
        }
        if stops { Err(draining()) } else { Ok(()) }
    }

    /// Whether nothing was asked, answered or read since it was asked last.
    fn quiet<'a>(&self, asking: &'a AtomicBool, fresh: &'a AtomicBool) -> impl Fn() -> bool + use<'a> {
        let (heard, service) = (self.messages.heard(), self.service.clone());
        move || {
            let moved = fresh.swap(false, Ordering::Relaxed) | heard.swap(false, Ordering::Relaxed);
            // What is not read yet is bounded by the write timeout.
            !moved && !asking.load(Ordering::Relaxed) && service.backlog.byte_size() == 0
        }
    }

    /// Sends; what is answered meanwhile is made, and so counts as unread (spec §7.12).
    async fn send(&mut self, answer: Sent) -> Result<()> {
        let Call { service, out, flights, strict, .. } = self;
        let mut sending = pin!(out.send(answer));
        let sending = poll_fn(|cx| {
            let sent = sending.as_mut().poll(cx);
            if sent.is_pending() {
                flights.make(cx, service, *strict);
            }
            sent
        });
        let sent = tokio::time::timeout(service.shared.settings.write_timeout, sending).await;
        sent.is_ok_and(|sent| sent.is_ok()).then_some(()).ok_or_else(|| NnrpError::new(Reason::ClientCancelled, "the client does not read its answers"))
    }
}

#[cold]
fn late() -> NnrpError {
    NnrpError::new(Reason::Deadline, "the call's deadline passed before it ended")
}

/// A request that has not got its last answer.
struct Flight {
    id: Option<Box<str>>,
    byte_size: usize,
    empty_final: bool,
    answers: Coming,
}

#[allow(clippy::large_enum_variant, reason = "each is in a queue of its own")]
enum Coming {
    One(Answer),
    Many(Answers),
    /// What goes out when its turn comes.
    Made(Option<Result<Framed>>),
    Refused(Option<NnrpError>),
}

/// The requests of a call: those with one answer are answered in the order in which they came, the others as their answers come.
#[derive(Default)]
struct Flights {
    single: VecDeque<Flight>,
    streams: VecDeque<Flight>,
    byte_size: usize,
}

impl Flights {
    /// Ends them because the call's deadline passed.
    #[cold]
    fn are_late(&self) -> NnrpError {
        self.single.iter().chain(&self.streams).filter_map(Flight::stop).for_each(|stop| stop.raise(Cause::Deadline));
        late()
    }

    fn is_empty(&self) -> bool {
        self.single.is_empty() && self.streams.is_empty()
    }

    fn has_room(&self, byte_size: usize) -> bool {
        self.single.len() + self.streams.len() < REQUESTS && self.byte_size < byte_size
    }

    fn start(&mut self, service: &Service, message: Bytes, deadline: Option<Instant>) {
        let mut flight = Flight { id: None, byte_size: message.len(), empty_final: false, answers: Coming::Refused(None) };
        self.byte_size += flight.byte_size;
        flight.answers = flight.ask(service, message, deadline).unwrap_or_else(|error| Coming::Refused(Some(error)));
        let queue = if matches!(flight.answers, Coming::Many(_)) { &mut self.streams } else { &mut self.single };
        queue.push_back(flight);
    }

    /// Makes what goes out of the answers that are there, whether or not it is their turn.
    fn make(&mut self, cx: &mut Context<'_>, service: &Arc<Service>, strict: bool) {
        for flight in self.single.iter_mut().filter(|flight| matches!(flight.answers, Coming::One(_))) {
            if let Poll::Ready(made) = flight.poll(cx, service, strict) {
                flight.answers = Coming::Made(made.map(|answer| answer.map(|answer| answer.turn(false))));
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, service: &Arc<Service>, strict: bool) -> Poll<Option<Result<Framed>>> {
        self.make(cx, service, strict);
        if let Some(flight) = self.single.front_mut()
            && let Poll::Ready(answer) = flight.poll(cx, service, strict)
        {
            self.byte_size -= flight.byte_size;
            self.single.pop_front();
            return Poll::Ready(answer);
        }
        for _ in 0..self.streams.len() {
            let Some(mut flight) = self.streams.pop_front() else { break };
            let answer = flight.poll(cx, service, strict);
            // Each gets its turn; one that has ended gets no more.
            if flight.is_over() {
                self.byte_size -= flight.byte_size
            } else {
                self.streams.push_back(flight)
            }
            if answer.is_ready() {
                return answer;
            }
        }
        Poll::Pending
    }
}

impl Flight {
    fn ask(&mut self, service: &Service, message: Bytes, deadline: Option<Instant>) -> Result<Coming> {
        let limit = service.shared.settings.max_body_bytes;
        let message = proto::read_request(message, limit)?;
        self.id = (!message.id.is_empty()).then(|| message.id.as_str().into());
        let mut request = proto::decode_request(message, Instant::now())?;
        check_elements(&request, limit)?;
        request.deadline = [request.deadline, deadline].into_iter().flatten().min();
        self.empty_final = streamed::wants_empty_final(&request.parameters);
        let engine = &service.shared.engine;
        if engine.model(&request.model, &request.version)?.session.info().streams {
            return engine.stream(request).map(Coming::Many);
        }
        Ok(Coming::One(engine.infer_async(request)))
    }

    fn stop(&self) -> Option<Arc<Stop>> {
        match &self.answers {
            Coming::One(answer) => answer.stop(),
            Coming::Many(answers) => Some(answers.stop()),
            Coming::Made(_) | Coming::Refused(_) => None,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.answers, Coming::Refused(None))
    }

    /// What goes out next, if anything; an error is one that ends the call.
    fn poll(&mut self, cx: &mut Context<'_>, service: &Arc<Service>, strict: bool) -> Poll<Option<Result<Framed>>> {
        let next = match &mut self.answers {
            Coming::One(answer) => Pin::new(answer).poll(cx).map(|answer| Some(answer.map(|response| (response, true)))),
            Coming::Many(answers) => answers.poll_next(cx).map(|next| match next {
                Some(answer) => Some(answer.map(|response| (response, false))),
                None => answers.last().filter(|_| self.empty_final).map(|last| Ok((last.clone(), true))),
            }),
            Coming::Made(made) => return Poll::Ready(made.take().map(|answer| answer.map(|answer| answer.turn(true)))),
            Coming::Refused(error) => Poll::Ready(error.take().map(Err)),
        };
        next.map(|next| {
            let framed = next.map(|answer| answer.and_then(|(response, last)| Ok((Framed::of(service, streamed::encode(&response, last)?)?, last))));
            // What has no room ends its request like any other error.
            if !matches!(framed, Some(Ok((_, false)))) {
                self.answers = Coming::Refused(None);
            }
            framed.map(|framed| match framed {
                Ok((framed, _)) => Ok(framed),
                Err(error) if strict => Err(error),
                Err(error) => streamed::encode_error(self.id.as_deref(), &error).map(|parts| Framed::small(service, parts)),
            })
        })
    }
}
