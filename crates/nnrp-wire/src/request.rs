//! What one request of either form has beside its message: an id, and a net under its handler.
use http::{HeaderName, HeaderValue};
use std::any::Any;
use std::collections::hash_map::RandomState;
use std::future::{Future, poll_fn};
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names a request in logs and errors.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is repeated.
const REQUEST_ID_LIMIT: usize = 128;

/// Runs a future, catching a panic within it.
pub(crate) async fn unwound<T>(work: impl Future<Output = T>) -> std::result::Result<T, Box<dyn Any + Send>> {
    let mut work = pin!(work);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(payload) => std::task::Poll::Ready(Err(payload)),
    })
    .await
}

/// The client's own id of the request, or a new one.
pub(crate) fn request_id(own: Option<&HeaderValue>) -> String {
    match own.and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_LIMIT) {
        Some(id) => id.to_owned(),
        None => new_request_id(),
    }
}

pub(crate) fn new_request_id() -> String {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}", SEED.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed)))
}
