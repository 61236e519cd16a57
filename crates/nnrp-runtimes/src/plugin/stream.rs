//! Answers one by one: what a plug-in's `stream` gives, for as long as it goes on and on its own thread alone.
use super::outputs::{Given, Slots};
use crate::c::abi::{NnrpRun, OK, Status};
use nnrp_core::error::panicked;
use nnrp_core::{Code, NnrpError, Result};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{from_ref, null};

thread_local! {
    /// The stream that goes on here. What a plug-in gives is looked up and not pointed to: `give` may be called at any time, by any thread.
    static GOES_ON: Cell<*const Giving<'static>> = const { Cell::new(null()) };
}

/// What `give` says where no stream goes on, or another.
const OUT_OF_TURN: Status = Code::FailedPrecondition as Status;

/// Takes an answer that was given.
pub(super) type Take<'a> = dyn FnMut(Given) -> Result<()> + 'a;

/// A stream that goes on.
pub(super) struct Giving<'a> {
    slots: &'a Slots,
    /// Not there while an answer is taken.
    take: Cell<Option<&'a mut Take<'a>>>,
    run: Cell<*const NnrpRun>,
    refused: RefCell<Option<NnrpError>>,
}

impl<'a> Giving<'a> {
    /// One whose answers are put into `slots`, and passed on by `take`.
    pub(super) fn new(slots: &'a Slots, take: &'a mut Take<'a>) -> Giving<'a> {
        Giving { slots, take: Cell::new(Some(take)), run: Cell::new(null()), refused: RefCell::new(None) }
    }

    /// Calls the plug-in, which may give answers to that run until it returns.
    pub(super) fn during(&self, run: &NnrpRun, call: impl FnOnce(&NnrpRun) -> Status) -> Status {
        struct Restore(*const Giving<'static>);
        impl Drop for Restore {
            fn drop(&mut self) {
                GOES_ON.set(self.0);
            }
        }
        self.run.set(run);
        let _restore = Restore(GOES_ON.replace(from_ref(self).cast()));
        call(run)
    }

    /// Why no answer was taken any more, if one was refused.
    ///
    /// # Errors
    /// That.
    pub(super) fn ended(self) -> Result<()> {
        self.refused.into_inner().map_or(Ok(()), Err)
    }

    fn give(&self) -> Status {
        // A deleter that is called while an answer is taken gives none.
        let Some(take) = self.take.take() else { return OUT_OF_TURN };
        // SAFETY: the plug-in waits on this thread.
        let given = unsafe { self.slots.take() };
        let refused = self.refused.borrow_mut().take();
        let taken = match refused {
            None => catch_unwind(AssertUnwindSafe(|| take(given))).unwrap_or_else(|_| Err(panicked())),
            Some(error) => {
                drop(given);
                Err(error)
            }
        };
        self.take.set(Some(take));
        let status = taken.as_ref().map_or_else(|error| error.code() as Status, |()| OK);
        *self.refused.borrow_mut() = taken.err();
        status
    }
}

/// What a plug-in calls when the results of a run are an answer of its stream.
pub(super) unsafe extern "C" fn give(run: *const NnrpRun) -> Status {
    // SAFETY: `during` keeps what it has put there alive until it takes it back, on this thread.
    let giving = unsafe { GOES_ON.get().as_ref() };
    giving.filter(|giving| giving.run.get() == run).map_or(OUT_OF_TURN, Giving::give)
}
