//! A stream's way from the other process: its answers are taken one after another, from the few that may wait for it.
use super::crossing::Reply;
use super::futex::{self, SPIN};
use super::life::{Kept, Life, Sat};
use super::seat::{AHEAD, NUDGE, ahead, answer_room};
use nnrp_core::{Control, Outputs, Result, Signature, Sink, Tensor};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A stream that goes on in a seat. Left to itself at its end, unless it is over there.
struct Stream<'a> {
    life: &'a Arc<Life>,
    /// Its seat, and what it reads, as long as it goes on there.
    goes_on: Option<(Sat<'a>, Kept)>,
    seat: usize,
    /// How many answers were taken.
    taken: u32,
    /// Whether the last wait was a short one.
    spin: bool,
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        if let Some((sat, kept)) = self.goes_on.take() {
            self.life.leave(sat, kept, Some(self.taken));
        }
    }
}

impl Life {
    /// Answers one request over there with any number of answers, each passed on to `sink`.
    ///
    /// # Errors
    /// As [`Life::run`], and what `sink` says; what was passed on before stays so.
    pub(super) fn stream(
        self: &Arc<Life>,
        signature: &Signature,
        inputs: &[Option<Tensor<'_>>],
        outputs: &[usize],
        control: Control<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let sat = self.sit(control, None)?;
        let (kept, said) = self.ask(&sat, inputs, outputs, control, true)?;
        let (seat, run) = (sat.seat, sat.run);
        let post = &self.region.table().seats[seat];
        post.given.0.store(0, Ordering::SeqCst);
        post.taken.0.store(0, Ordering::SeqCst);
        self.watching(
            control.stop,
            seat,
            |seat| &seat.given.0,
            |stopped| {
                if self.dead() {
                    return Err(self.crashed(false));
                }
                if stopped() {
                    return Err(self.stopped());
                }
                post.ask().spot.put(said.start, said.len() / 8);
                futex::post(&post.ask().word, &post.host_sleeps.0, run);
                let mut stream = Stream { life: self, goes_on: Some((sat, kept)), seat, taken: 0, spin: false };
                while let Some(answer) = stream.next(signature, outputs, stopped)? {
                    sink(answer?)?;
                }
                Ok(())
            },
        )
    }

    /// Notes that one more answer was taken, of so many that were given.
    fn took(&self, seat: usize, given: u32, taken: &mut u32) {
        let post = &self.region.table().seats[seat];
        *taken = (*taken + 1) & !NUDGE;
        post.taken.0.store(*taken, Ordering::SeqCst);
        // Who waits for room wants some of it: woken for each place, the two would only run in turns.
        if ahead(given, *taken) <= AHEAD / 2 && post.host_sleeps.0.load(Ordering::SeqCst) != 0 {
            futex::wake(&post.taken.0);
        }
    }

    /// Takes what waits of a stream that nobody reads any more, and tells whether that was its end.
    pub(super) fn drain(&self, seat: usize, taken: &mut u32) -> bool {
        let post = &self.region.table().seats[seat];
        for _ in 0..AHEAD {
            let given = post.given.0.load(Ordering::Acquire);
            if !(1..=AHEAD).contains(&ahead(given, *taken)) {
                return false;
            }
            let over = self.discard(post.answer(*taken), &answer_room(seat, *taken));
            self.took(seat, given, taken);
            if over {
                return true;
            }
        }
        false
    }
}

impl Stream<'_> {
    /// Takes the next answer; `None` at the end.
    fn next(&mut self, signature: &Signature, outputs: &[usize], stopped: &dyn Fn() -> bool) -> Result<Option<Result<Outputs>>> {
        let (life, seat) = (self.life, self.seat);
        let given = self.wait(stopped)?;
        match life.read(life.region.table().seats[seat].answer(self.taken), &answer_room(seat, self.taken), signature, outputs) {
            Reply::Answer(answer) => {
                life.took(seat, given, &mut self.taken);
                Ok(Some(answer))
            }
            Reply::Over(ended) => {
                self.goes_on = None;
                ended.map(|()| None)
            }
        }
    }

    fn has_begun(&self) -> bool {
        let begun = self.life.region.table().seats[self.seat].begun.0.load(Ordering::Acquire);
        self.goes_on.as_ref().is_none_or(|(sat, _)| sat.run == begun)
    }

    /// Waits for an answer, the end of the process, or a stop, and tells how many were given.
    fn wait(&mut self, stopped: &dyn Fn() -> bool) -> Result<u32> {
        let (life, post) = (self.life, &self.life.region.table().seats[self.seat]);
        let word = &post.given.0;
        loop {
            if word.load(Ordering::SeqCst) & NUDGE != 0 {
                // Before anything is looked at: a nudge that comes now is seen as a change.
                word.fetch_and(!NUDGE, Ordering::SeqCst);
            }
            // In this order: a process that has ended has given what it gave.
            let (dead, given) = (life.dead(), word.load(Ordering::SeqCst) & !NUDGE);
            if stopped() {
                return Err(life.stopped());
            }
            match ahead(given, self.taken) {
                0 if dead => return Err(life.crashed(self.taken > 0 || self.has_begun())),
                0 => {}
                1..=AHEAD => return Ok(given),
                _ => return Err(life.nonsense()),
            }
            let begun = Instant::now();
            futex::wait(word, &post.engine_sleeps.0, given, self.spin);
            self.spin = begun.elapsed() < SPIN;
        }
    }
}
