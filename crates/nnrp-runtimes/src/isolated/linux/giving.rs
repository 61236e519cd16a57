//! How the other process gives the answers of a stream: a few wait to be taken, and with one more it waits.
use super::futex::{self, SPIN};
use super::host::{Asked, Host};
use super::output::{Laid, Said};
use super::seat::{AHEAD, NUDGE, Seat, ahead, answer_room};
use nnrp_core::error::panicked;
use nnrp_core::{NnrpError, Outputs, Reason, Result, Stop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// An answer of more bytes waits until all before it were taken, so that what is given ahead leaves room for it.
const HEAVY: usize = 1 << 20;

/// The answers of one seat.
struct Giver<'a> {
    host: &'a Host,
    seat: usize,
    post: &'a Seat,
    /// How many of this stream were given.
    given: u32,
    /// Of each of the latest: the block of its words, which is not the engine's to give back.
    blocks: [Option<usize>; AHEAD],
    /// Whether the last wait was a short one.
    spin: bool,
}

impl Host {
    /// Answers one request after another with any number of answers.
    pub(super) fn give(&self, seat: usize) {
        let post = &self.region.table().seats[seat];
        let (mut giver, mut run) = (Giver { host: self, seat, post, given: 0, blocks: [None; AHEAD], spin: false }, 0);
        loop {
            run = futex::wait(&post.ask().word, &post.host_sleeps.0, run, false);
            post.begun.0.store(run, Ordering::Release);
            if self.closing.load(Ordering::SeqCst) {
                return;
            }
            giver.answer(run);
        }
    }
}

impl<'a> Giver<'a> {
    /// Gives the answers to one request, and then how they ended.
    fn answer(&mut self, run: u32) {
        self.given = 0;
        let (host, seat, mut refused) = (self.host, self.seat, None);
        let stop = host.watch(seat, run);
        let mut asked = Asked::default();
        let ended = host.asked(seat, &mut asked).and_then(|()| {
            let parameters = asked.aside.parameters();
            let mut sink = |outputs: Outputs| match &refused {
                None => self.give(&stop, &outputs).inspect_err(|error| refused = Some(error.clone())),
                Some(error) => Err(error.clone()),
            };
            let streamed = AssertUnwindSafe(|| host.session.stream(&asked.inputs, &asked.outputs, asked.control(Some(&stop), &parameters), &mut sink));
            catch_unwind(streamed).unwrap_or_else(|_panic| Err(panicked()))
        });
        host.unwatch(seat);
        drop(asked);
        if self.wait(AHEAD - 1, None) {
            let mut laid = self.laid();
            let said = refused.map_or(ended, Err).and_then(|()| laid.end()).unwrap_or_else(|error| laid.error(&error));
            self.say(said);
        }
    }

    /// Gives one answer, once there is room for it.
    fn give(&mut self, stop: &Stop, outputs: &Outputs) -> Result<()> {
        let (host, seat) = (self.host, self.seat);
        let heavy = outputs.iter().map(|tensor| tensor.bytes().len()).sum::<usize>() > HEAVY;
        let most = if heavy { 0 } else { AHEAD - 1 };
        if stop.cause().is_none() && ahead(self.given, self.post.taken.0.load(Ordering::Acquire)) > most {
            let region = host.region.clone();
            let nudge = move || {
                let word = &region.table().seats[seat].taken.0;
                word.fetch_or(NUDGE, Ordering::SeqCst);
                futex::wake(word);
            };
            // Several at once, so that not every one that is taken has to wake us.
            stop.during(nudge, || host.session.wait(&mut || _ = self.wait(most.min(AHEAD / 2), Some(stop))));
        }
        if stop.cause().is_some() || ahead(self.given, self.post.taken.0.load(Ordering::Acquire)) > most {
            return Err(NnrpError::new(Reason::ClientCancelled, "nobody wants more answers"));
        }
        let said = self.laid().answer(outputs)?;
        self.say(said);
        Ok(())
    }

    /// Waits until no more than `most` answers wait to be taken; false when everything is to end, or who waits is to stop.
    fn wait(&mut self, most: usize, stop: Option<&Stop>) -> bool {
        let word = &self.post.taken.0;
        loop {
            let mut taken = word.load(Ordering::SeqCst);
            if taken & NUDGE != 0 {
                // Before anything is looked at: a nudge that comes now is seen as a change.
                taken = word.fetch_and(!NUDGE, Ordering::SeqCst) & !NUDGE;
            }
            if self.host.closing.load(Ordering::SeqCst) || stop.is_some_and(|stop| stop.cause().is_some()) {
                return false;
            }
            if ahead(self.given, taken) <= most {
                return true;
            }
            let begun = Instant::now();
            futex::wait(word, &self.post.host_sleeps.0, taken, self.spin);
            self.spin = begun.elapsed() < SPIN;
        }
    }

    /// Room for the next answer; what lay there has been read.
    fn laid(&mut self) -> Laid<'a> {
        if let Some(block) = self.blocks[self.given as usize % AHEAD].take() {
            self.host.region.table().freed[block].store(1, Ordering::Release);
        }
        self.host.laid(answer_room(self.seat, self.given))
    }

    fn say(&mut self, Said { at, count, block }: Said) {
        self.post.answer(self.given).put(at, count);
        self.blocks[self.given as usize % AHEAD] = block;
        self.given = (self.given + 1) & !NUDGE;
        futex::post(&self.post.given.0, &self.post.engine_sleeps.0, self.given);
    }
}
