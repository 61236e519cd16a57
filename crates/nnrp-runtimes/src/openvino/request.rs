//! Infer requests: each is used by one run at a time, and kept for the next.
use super::failure::Failure;
use super::library::{Library, Owned};
use super::table::{Compiled, Request, TensorHandle};
use nnrp_core::Stop;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most requests that wait for a run; those beyond are freed when theirs ends.
const MOST_IDLE: usize = 16;
/// Most requests that stay out because somebody reads their outputs.
const MOST_LENT: usize = 8;

/// A compiled model and its requests. OpenVINO answers wrongly, and goes on to, when a request is used on two threads at once.
pub(super) struct Pool {
    library: &'static Library,
    compiled: Owned<Compiled>,
    idle: Mutex<Vec<Arc<Owned<Request>>>>,
    lent: AtomicUsize,
}

impl Pool {
    pub(super) fn new(library: &'static Library, compiled: Owned<Compiled>) -> Arc<Pool> {
        Arc::new(Pool { library, compiled, idle: Mutex::new(Vec::new()), lent: AtomicUsize::new(0) })
    }

    /// A request that nobody else has.
    pub(super) fn take(self: &Arc<Pool>) -> Result<Taken, Failure> {
        let waiting = self.idle.lock().pop();
        let request = match waiting {
            Some(request) => request,
            None => Arc::new(self.library.made(self.library.functions.ov_infer_request_free, |out| {
                // SAFETY: the compiled model is alive; the request is ours to free.
                unsafe { (self.library.functions.ov_compiled_model_create_infer_request)(self.compiled.ptr(), out) }
            })?),
        };
        Ok(Taken { request, pool: self.clone(), sound: false, lent: false })
    }
}

/// A request of one run; it goes back to its pool at the end, after the outputs that lie in its memory.
pub(super) struct Taken {
    request: Arc<Owned<Request>>,
    pool: Arc<Pool>,
    /// Its run went well; one whose run did not is not used again.
    sound: bool,
    lent: bool,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.lent {
            self.pool.lent.fetch_sub(1, Ordering::Relaxed);
        }
        if self.sound {
            let mut idle = self.pool.idle.lock();
            if idle.len() < MOST_IDLE {
                idle.push(self.request.clone());
            }
        }
    }
}

impl Taken {
    pub(super) fn ptr(&self) -> *mut Request {
        self.request.ptr()
    }

    /// The tensor that an output is written to.
    pub(super) fn output(&self, index: usize) -> Result<Owned<TensorHandle>, Failure> {
        let functions = &self.pool.library.functions;
        // SAFETY: the request is ours, and does not run; the handle is ours to free.
        self.pool.library.made(functions.ov_tensor_free, |out| unsafe { (functions.ov_infer_request_get_output_tensor_by_index)(self.ptr(), index, out) })
    }

    /// Has it used for nothing more.
    pub(super) fn spoil(&mut self) {
        self.sound = false;
    }

    pub(super) fn library(&self) -> &'static Library {
        self.pool.library
    }

    /// Whether the request may stay out as long as somebody reads its outputs.
    pub(super) fn lend(&mut self) -> bool {
        if !self.lent {
            self.lent = self.pool.lent.fetch_add(1, Ordering::Relaxed) < MOST_LENT;
            if !self.lent {
                self.pool.lent.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.lent
    }

    /// Runs it. With a stop on the library's own threads, so that it runs already when the stop can first reach it.
    pub(super) fn run(&mut self, stop: Option<&Stop>) -> Result<(), Failure> {
        let (library, request) = (self.pool.library, self.ptr());
        self.sound = false;
        match stop {
            // SAFETY: the request is ours alone, and its inputs are alive.
            None => library.check(unsafe { (library.functions.ov_infer_request_infer)(request) })?,
            Some(stop) => {
                // SAFETY: as above; nothing is touched before the wait below is over.
                library.check(unsafe { (library.functions.ov_infer_request_start_async)(request) })?;
                self.wait(library, stop)?;
            }
        }
        self.sound = true;
        Ok(())
    }

    fn wait(&self, library: &'static Library, stop: &Stop) -> Result<(), Failure> {
        // A stop may come as the run ends, and must not reach the next one.
        let runs = Arc::new(Mutex::new(true));
        let (still_runs, request) = (runs.clone(), self.request.clone());
        let cancel = move || {
            let runs = still_runs.lock();
            if *runs {
                // SAFETY: a request may be cancelled from any thread. A failure here cannot be told to anyone; the run goes on to its end.
                let _unheard = unsafe { (library.functions.ov_infer_request_cancel)(request.ptr()) };
            }
        };
        // SAFETY: the request was started by this thread.
        let ended = stop.during(cancel, || unsafe { (library.functions.ov_infer_request_wait)(self.ptr()) });
        *runs.lock() = false;
        library.check(ended)
    }
}
