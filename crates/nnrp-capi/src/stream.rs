//! The answers to one request, one after another.
use crate::abi::{NEXT_ANSWER, NEXT_END, NEXT_WAIT, Next, NnrpEngine, NnrpError, NnrpRequest, NnrpResponse, NnrpStream, Status};
use crate::boundary::{call, call_quietly, malformed, put, read, refer, write};
use crate::infer::{Busy, clear, decode, give};
use nnrp_core::stop::LOOK;
use nnrp_core::{Answers, Cause, NnrpError as Error, Reason, Response, Result, Tensor};
use nnrp_runtimes::c::clock;
use std::sync::{Mutex, TryLockError};
use std::task::Poll;
use std::time::{Duration, Instant};

/// What a stream's handle holds.
pub(crate) struct Reading {
    /// `None` once the request was cancelled and that was told.
    answers: Option<Answers>,
    _busy: Option<Busy<'static>>,
}

/// Begins to answer one request with all the answers that the model gives.
///
/// # Safety
/// `spec/nnrp.h` says what each pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_stream_open(engine: *mut NnrpEngine, request: *const NnrpRequest, stream: *mut *mut NnrpStream, error: *mut NnrpError) -> Status {
    let make = || {
        // SAFETY: the caller keeps what the header says: the handle that the request carries lives until the stream is closed.
        let (engine, given) = unsafe { (refer("engine", engine)?, read("request", request)?) };
        // SAFETY: as above.
        let (busy, mut request) = unsafe { (Busy::take(given.cancel)?, decode(&given, Tensor::into_owned)?) };
        request.stop = busy.as_ref().map(|busy| busy.0.stop.clone());
        let answers = Some(engine.0.stream(request)?);
        Ok(Box::into_raw(Box::new(NnrpStream(Mutex::new(Reading { answers, _busy: busy })))))
    };
    // SAFETY: as above.
    unsafe { call(error, || put("stream", stream, make)) }
}

/// Waits for the next answer of a stream.
///
/// # Safety
/// `spec/nnrp.h` says what each pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_stream_next(
    stream: *mut NnrpStream,
    until_ns: u64,
    next: *mut Next,
    response: *mut NnrpResponse,
    error: *mut NnrpError,
) -> Status {
    let body = || {
        // SAFETY: the caller keeps what the header says.
        unsafe { refer("next", next)? };
        // SAFETY: `refer` has checked it.
        unsafe { *next = NEXT_END };
        // SAFETY: as above.
        unsafe { clear("response", response)? };
        // SAFETY: as above.
        let stream = unsafe { refer("stream", stream)? };
        let mut reading = match stream.0.try_lock() {
            Ok(reading) => reading,
            Err(TryLockError::Poisoned(reading)) => reading.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(malformed("stream", "one that no other thread reads", "one that is in use")),
        };
        let (found, answer) = match reading.next(clock::instant(until_ns)) {
            Poll::Ready(Some(answer)) => (NEXT_ANSWER, Some(answer?)),
            Poll::Ready(None) => (NEXT_END, None),
            Poll::Pending => (NEXT_WAIT, None),
        };
        if let Some(answer) = answer {
            // SAFETY: `clear` has checked the struct.
            unsafe { write(response, &give(answer)) };
        }
        // SAFETY: as above.
        unsafe { *next = found };
        Ok(())
    };
    // SAFETY: as above.
    unsafe { call(error, body) }
}

/// Ends a stream.
///
/// # Safety
/// `spec/nnrp.h` says what the pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_stream_close(stream: *mut NnrpStream) {
    if !stream.is_null() {
        // SAFETY: `nnrp_stream_open` made it from a box.
        call_quietly(|| drop(unsafe { Box::from_raw(stream) }));
    }
}

impl Reading {
    fn next(&mut self, until: Option<Instant>) -> Poll<Option<Result<Response>>> {
        let Some(answers) = &mut self.answers else { return Poll::Ready(None) };
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let next = answers.wait_next(left.unwrap_or(LOOK).min(LOOK));
            if next.is_ready() {
                return next;
            }
            // The model may go on for as long as it likes: nobody waits for that.
            if answers.stop().cause() == Some(Cause::Cancelled) {
                self.answers = None;
                return Poll::Ready(Some(Err(Error::new(Reason::ClientCancelled, "the request was cancelled"))));
            }
            if left == Some(Duration::ZERO) {
                return Poll::Pending;
            }
        }
    }
}
