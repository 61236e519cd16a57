//! Where one run at a time is asked for and answered: words that are waited for, where what is said lies, and room for what is small.
use super::region::Table;
use std::mem::{offset_of, size_of};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Most answers of a stream that wait to be taken.
pub(super) const AHEAD: usize = 8;
/// Room of a seat for small tensors, each way; what it cannot hold lies in an arena.
const ROOM: usize = 128 << 10;

/// Of a word that is waited for: somebody wants who waits to look around. No number of a run and no count of answers has it.
pub(super) const NUDGE: u32 = 1 << 31;

/// The first of a room's words that lies on another line than the word.
const LINE: usize = (64 - size_of::<Post>()) / 8;

/// Where what is said about something lies: the place, and below it the count of words. One number, so that all of a small ask lies on one cache line.
#[repr(C)]
pub(super) struct Spot(AtomicU64);

/// Bits of a count.
const COUNT: u32 = 24;

impl Spot {
    /// Says that so many 64-bit words begin there.
    pub(super) fn put(&self, at: usize, count: usize) {
        self.0.store((at as u64) << COUNT | count as u64, Ordering::Relaxed);
    }

    /// Where they begin, and how many there are.
    pub(super) fn get(&self) -> (usize, usize) {
        let told = self.0.load(Ordering::Relaxed);
        ((told >> COUNT) as usize, (told & ((1 << COUNT) - 1)) as usize)
    }
}

/// The number of the latest run, and where what is said about it lies.
#[repr(C)]
pub(super) struct Post {
    pub(super) spot: Spot,
    pub(super) word: AtomicU32,
    /// Of a reply: nanoseconds of the run before, as far as they are counted, because the time of this one is known only once it has been replied to.
    pub(super) took: AtomicU32,
}

/// A post, and room for what goes with it: what is small lies beside the word, on the cache lines that come along with it.
#[repr(C, align(128))]
struct Side {
    post: Post,
    room: [AtomicU64; (ROOM - size_of::<Post>()) / 8],
}

impl Side {
    /// Has the processor fetch the line behind the word's, where a small tensor lies, while the words are read.
    #[inline]
    fn fetch(&self) {
        let line = std::ptr::from_ref(&self.room[LINE]);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, which reads nothing.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _no_hint = line;
    }
}

/// On a cache line of its own.
#[repr(C, align(128))]
pub(super) struct Flag(pub(super) AtomicU32);

/// Where one run at a time is asked for and answered.
#[repr(C)]
pub(super) struct Seat {
    ask: Side,
    reply: Side,
    /// How many answers of its stream were given, the end is one too; the engine waits for it.
    pub(super) given: Flag,
    /// How many the engine has taken; the other process waits for it.
    pub(super) taken: Flag,
    answers: [Spot; AHEAD],
    /// The run that the other process began last; looked at once it is gone.
    pub(super) begun: Flag,
    /// Not 0 while the other process needs a system call to hear of an ask.
    pub(super) host_sleeps: Flag,
    /// Likewise, the engine of a reply.
    pub(super) engine_sleeps: Flag,
}

impl Seat {
    pub(super) fn ask(&self) -> &Post {
        &self.ask.post
    }

    pub(super) fn reply(&self) -> &Post {
        &self.reply.post
    }

    /// For whoever has just seen an ask.
    pub(super) fn fetch_ask(&self) {
        self.ask.fetch();
    }

    /// For whoever has just seen a reply.
    pub(super) fn fetch_reply(&self) {
        self.reply.fetch();
    }

    /// Where the answer lies before which so many were given.
    pub(super) fn answer(&self, before: u32) -> &Spot {
        &self.answers[before as usize % AHEAD]
    }
}

/// How many answers wait to be taken.
pub(super) fn ahead(given: u32, taken: u32) -> usize {
    (given.wrapping_sub(taken) & !NUDGE) as usize
}

fn room_of(seat: usize, side: usize) -> Range<usize> {
    let start = offset_of!(Table, seats) + seat * size_of::<Seat>() + side;
    start + offset_of!(Side, room)..start + ROOM
}

/// A seat's own room for what is asked.
pub(super) fn ask_room(seat: usize) -> Range<usize> {
    room_of(seat, offset_of!(Seat, ask))
}

/// A seat's own room for what is replied.
pub(super) fn reply_room(seat: usize) -> Range<usize> {
    room_of(seat, offset_of!(Seat, reply))
}

/// The part of it for the answer before which so many were given.
pub(super) fn answer_room(seat: usize, before: u32) -> Range<usize> {
    let (start, length) = (reply_room(seat).start, reply_room(seat).len() / AHEAD / 8 * 8);
    let at = start + before as usize % AHEAD * length;
    at..at + length
}
