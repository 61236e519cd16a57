//! A run's way to the other process and back: tensors are put where it can read them, and what it replies is read on no trust.
use super::frame::Aside;
use super::futex;
use super::inputs::Block;
use super::life::{Kept, Life, Sat};
use super::output::check_size;
use super::region::{BLOCKS, Piece, reply_arena};
use super::seat::{NUDGE, Seat, Spot, ask_room, reply_room};
use super::words::{self, ANSWER, ASIDE, END, ERROR, LATE, LEFT, MOST_WORDS, OUTPUTS, PICKED, Placed, Reader, Words, length, say};
use crate::c::clock::deadline_ns;
use bytes::Bytes;
use nnrp_core::{AlignedBuf, Control, Data, Datatype, NnrpError, Outputs, Reason, Result, Signature, Stop, Tensor, check_output};
use smallvec::{SmallVec, smallvec};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Every tensor begins at a multiple of this.
pub(super) const ALIGN: usize = 64;

/// Longest error that is read, as a document.
pub(super) const LONGEST: usize = 1 << 20;

/// How a wait ended.
enum Crossed {
    Done,
    Dead { held: bool },
    Stopped { asked: bool },
}

/// One of the replies to who streams.
pub(super) enum Reply {
    /// There may be another one, whatever is wrong with this.
    Answer(Result<Outputs>),
    /// There is none.
    Over(Result<()>),
}

impl Life {
    /// Runs one batch over there.
    ///
    /// # Errors
    /// What the session says; `RUNTIME_CRASHED`; `RUN_FAILED` for a reply that cannot be. A run that was stopped may return any.
    pub(super) fn run(self: &Arc<Life>, signature: &Signature, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>) -> Result<Outputs> {
        let sat = self.sit(control, None)?;
        let (kept, said) = self.ask(&sat, inputs, outputs, control, control.stop.is_some())?;
        match self.watching(control.stop, sat.seat, |seat| &seat.reply().word, |stopped| self.cross(&sat, &said, stopped)) {
            Crossed::Done => self.reply(sat.seat, signature, outputs),
            Crossed::Dead { held } => Err(self.crashed(held)),
            Crossed::Stopped { asked } => {
                if asked {
                    self.leave(sat, kept, None);
                }
                Err(self.stopped())
            }
        }
    }

    /// Does `work`, which is told of a stop by its argument, and is woken where it waits for a seat's word.
    pub(super) fn watching<T>(
        self: &Arc<Life>,
        stop: Option<&Stop>,
        seat: usize,
        word: fn(&Seat) -> &AtomicU32,
        work: impl FnOnce(&dyn Fn() -> bool) -> T,
    ) -> T {
        let Some(stop) = stop else { return work(&|| false) };
        let (raised, life) = (Arc::new(AtomicBool::new(false)), self.clone());
        let seen = raised.clone();
        let nudge = move || {
            raised.store(true, Ordering::SeqCst);
            let word = word(&life.region.table().seats[seat]);
            word.fetch_or(NUDGE, Ordering::SeqCst);
            futex::wake(word);
        };
        stop.during(nudge, || work(&|| seen.load(Ordering::SeqCst)))
    }

    /// Puts what is asked where the other process finds it, and tells where the words of it are. What may be left to itself keeps what it reads.
    pub(super) fn ask(
        self: &Arc<Life>,
        sat: &Sat<'_>,
        inputs: &[Option<Tensor<'_>>],
        outputs: &[usize],
        control: Control<'_>,
        may_be_left: bool,
    ) -> Result<(Kept, Range<usize>)> {
        let aside = Aside::of(&control).map(|aside| serde_json::to_vec(&aside)).transpose();
        let aside = aside.map_err(|error| NnrpError::new(Reason::Bug, error.to_string()))?;
        let aside = aside.as_deref().map(|bytes| Tensor::borrowed(Datatype::Uint8, &[], bytes));
        let in_order = outputs.iter().copied().eq(0..outputs.len());
        let meant = [(LEFT, may_be_left), (LATE, control.deadline.is_some()), (ASIDE, aside.is_some()), (PICKED, !in_order)];
        let meant = meant.iter().fold(0, |meant, (bit, holds)| if *holds { meant | bit } else { meant });
        let (mut kept, mut words) = (Kept::default(), Words::new());
        words.push(words::ask(meant, inputs.len(), outputs.len()));
        words.extend(control.deadline.map(|deadline| deadline_ns(Some(deadline))));
        words.extend(outputs.iter().filter(|_| !in_order).map(|&index| index as u64));
        let inputs = || inputs.iter().map(Option::as_ref).chain(aside.as_ref().map(Some));
        let count = words.len() + inputs().map(length).sum::<usize>();
        let mut room = ask_room(sat.seat);
        let place = self.place(8 * count, &mut room, &mut kept)?;
        for input in inputs() {
            let Some(tensor) = input else {
                say(&mut words, None);
                continue;
            };
            let at = self.put(tensor, may_be_left, &mut room, &mut kept)?;
            let (byte_size, shape) = (tensor.bytes().len(), tensor.shape.clone());
            say(&mut words, Some(&Placed { at, byte_size, block: None, datatype: tensor.datatype, shape }));
        }
        self.region.write_words(place, &words);
        Ok((kept, place..place + 8 * words.len()))
    }

    /// Copies a tensor in, unless the other process sees it where it lies.
    fn put(self: &Arc<Life>, tensor: &Tensor<'_>, may_be_left: bool, room: &mut Range<usize>, kept: &mut Kept) -> Result<usize> {
        let bytes = tensor.bytes();
        if let Some(at) = self.region.place_of(bytes).filter(|at| at % tensor.datatype.align() == 0) {
            match &tensor.data {
                Data::Shared(bytes) => {
                    kept.in_place.push(bytes.clone());
                    return Ok(at);
                }
                // A run that is left to itself reads on after the caller has its memory back.
                Data::Borrowed(_) if !may_be_left => return Ok(at),
                Data::Borrowed(_) => {}
            }
        }
        let at = self.place(bytes.len(), room, kept)?;
        self.region.write(at, bytes);
        Ok(at)
    }

    /// A place in the seat's room, or else in the arena.
    fn place(self: &Arc<Life>, byte_size: usize, room: &mut Range<usize>, kept: &mut Kept) -> Result<usize> {
        let at = room.start;
        if byte_size <= room.len() {
            room.start = (at + byte_size).next_multiple_of(ALIGN).min(room.end);
            return Ok(at);
        }
        let block = Block::take(self, byte_size, 0).ok_or_else(|| {
            let message = format!("runtime {}: inputs of {byte_size} bytes find no place in the memory that is shared with its process", self.runtime);
            NnrpError::new(Reason::NotOffered, message).with("runtime", self.runtime).with("byte_size", byte_size)
        })?;
        let at = block.at();
        kept.blocks.push(block);
        Ok(at)
    }

    /// Asks, and waits for the reply, the end of the process, or a stop.
    fn cross(&self, sat: &Sat<'_>, said: &Range<usize>, stopped: &dyn Fn() -> bool) -> Crossed {
        let (post, pace) = (&self.region.table().seats[sat.seat], &self.paces[sat.seat]);
        // Nudges that came too late for an earlier run are cleared before anything is looked at: one that comes now is seen as a change.
        let mut seen = post.reply().word.load(Ordering::SeqCst);
        if seen & NUDGE != 0 {
            seen = post.reply().word.fetch_and(!NUDGE, Ordering::SeqCst) & !NUDGE;
        }
        if self.dead() {
            return Crossed::Dead { held: false };
        }
        if stopped() {
            return Crossed::Stopped { asked: false };
        }
        post.ask().spot.put(said.start, said.len() / 8);
        futex::post(&post.ask().word, &post.host_sleeps.0, sat.run);
        // A look at the clock is 25 ns of a round trip of 600: one, while the other side is at work, and none when the reply has come.
        let mut spin = pace.begin(self.began.elapsed());
        loop {
            let mut value = futex::wait(&post.reply().word, &post.engine_sleeps.0, seen, spin);
            if value & NUDGE != 0 {
                value = post.reply().word.fetch_and(!NUDGE, Ordering::SeqCst) & !NUDGE;
            }
            if value == sat.run {
                post.fetch_reply();
                pace.took.store(post.reply().took.load(Ordering::Relaxed).into(), Ordering::Relaxed);
                return Crossed::Done;
            }
            if self.dead() {
                return Crossed::Dead { held: post.begun.0.load(Ordering::Acquire) == sat.run };
            }
            if stopped() {
                return Crossed::Stopped { asked: true };
            }
            (seen, spin) = (value, false);
        }
    }

    /// Reads the reply of a run.
    fn reply(&self, seat: usize, signature: &Signature, outputs: &[usize]) -> Result<Outputs> {
        let (spot, room) = (&self.region.table().seats[seat].reply().spot, reply_room(seat));
        let words = self.words(spot, &room).ok_or_else(|| self.nonsense())?;
        let mut reader = Reader(&words);
        match reader.head() {
            Some((OUTPUTS, count)) => self.outputs(spot, &room, &mut reader, count, signature, outputs),
            Some((ERROR, _)) => Err(self.error(&room, &mut reader)),
            _ => Err(self.nonsense()),
        }
    }

    /// Reads a reply of a stream. One that makes no sense may be followed by others, for all that is known.
    pub(super) fn read(&self, spot: &Spot, room: &Range<usize>, signature: &Signature, outputs: &[usize]) -> Reply {
        let words = self.words(spot, room).unwrap_or_default();
        let mut reader = Reader(&words);
        match (reader.head(), reader.0) {
            (Some((ANSWER, count)), _) => Reply::Answer(self.outputs(spot, room, &mut reader, count, signature, outputs)),
            (Some((ERROR, _)), _) => Reply::Over(Err(self.error(room, &mut reader))),
            (Some((END, 0)), []) => Reply::Over(Ok(())),
            _ => Reply::Answer(Err(self.nonsense())),
        }
    }

    #[cold]
    pub(super) fn nonsense(&self) -> NnrpError {
        let message = format!("runtime {}: the reply of its process makes no sense", self.runtime);
        NnrpError::new(Reason::RunFailed, message).with("runtime", self.runtime)
    }

    /// The error that was replied.
    #[cold]
    fn error(&self, room: &Range<usize>, reader: &mut Reader<'_>) -> NnrpError {
        let told = reader.tensor().flatten().filter(|placed| placed.byte_size <= LONGEST).and_then(|placed| self.take(room, &placed));
        let error = told.and_then(|told| NnrpError::from_json(&String::from_utf8_lossy(&told))).unwrap_or_else(|| self.nonsense());
        // Whatever it says of others, it had the request: one that nobody had is asked again, and it could say so for ever (spec §8.17).
        if error.is(Reason::RuntimeCrashed) { error.with("held", true) } else { error }
    }

    /// The outputs that were replied.
    fn outputs(&self, spot: &Spot, room: &Range<usize>, reader: &mut Reader<'_>, count: usize, signature: &Signature, outputs: &[usize]) -> Result<Outputs> {
        let nonsense = || self.nonsense();
        let Some(all) = Some(count).filter(|count| *count == outputs.len()).and_then(|count| placed(room, reader, count)) else {
            self.discard(spot, room);
            return Err(nonsense());
        };
        let byte_size: usize = all.iter().map(|placed| placed.byte_size).sum();
        check_size(self.runtime, self.max_output_bytes, byte_size).inspect_err(|_| _ = self.discard(spot, room))?;
        // All of them first, so that what they lie in is given back whatever is wrong with one.
        let tensor = |placed: Placed| {
            let bytes = self.take(room, &placed)?;
            Some(Tensor { datatype: placed.datatype, shape: placed.shape, data: Data::Shared(bytes) })
        };
        let tensors = all.into_iter().map(tensor).collect::<Option<Outputs>>().ok_or_else(nonsense)?;
        for (tensor, &index) in tensors.iter().zip(outputs) {
            check_output(self.runtime, signature.outputs.get(index).ok_or_else(nonsense)?, tensor)?;
        }
        Ok(tensors)
    }

    fn words(&self, spot: &Spot, room: &Range<usize>) -> Option<Words> {
        let (at, count) = spot.get();
        if count > MOST_WORDS || !(within(room, at, 8 * count) || within(&reply_arena(), at, 8 * count)) {
            return None;
        }
        let mut words: Words = smallvec![0; count];
        self.region.read_words(at, &mut words);
        Some(words)
    }

    /// The bytes of what was replied: where they lie, when there is something to give back and enough is free, or a copy.
    fn take(&self, room: &Range<usize>, placed: &Placed) -> Option<Bytes> {
        let Placed { at, byte_size, block, datatype, .. } = *placed;
        if at % ALIGN != 0 {
            return None;
        }
        match block {
            Some(block) if block < BLOCKS && within(&reply_arena(), at, byte_size) => {
                let piece = Piece::new(&self.region, at, byte_size, Some(block));
                // What was found to be UTF-8 must stay so; and the process needs room to go on in, whatever is kept of its answers.
                let copied = datatype == Datatype::Bytes || self.region.scarce();
                Some(if copied { self.copy(at, byte_size) } else { Bytes::from_owner(piece) })
            }
            None if within(room, at, byte_size) => Some(self.copy(at, byte_size)),
            _ => None,
        }
    }

    fn copy(&self, at: usize, byte_size: usize) -> Bytes {
        if byte_size == 0 {
            return Bytes::new();
        }
        AlignedBuf::copy_of(self.region.bytes(at, byte_size)).into_bytes()
    }

    /// Gives back what was replied that nobody waits for, and tells whether it was the last; of a stream, one that makes no sense was not.
    pub(super) fn discard(&self, spot: &Spot, room: &Range<usize>) -> bool {
        let words = self.words(spot, room).unwrap_or_default();
        let mut reader = Reader(&words);
        let what = reader.head();
        let count = match what {
            Some((OUTPUTS | ANSWER, count)) => count,
            Some((ERROR, _)) => 1,
            _ => 0,
        };
        for _ in 0..count {
            let Some(placed) = reader.tensor() else { break };
            if let Some(freed) = placed.and_then(|placed| self.region.table().freed.get(placed.block?)) {
                freed.store(1, Ordering::Release);
            }
        }
        matches!(what, Some((ERROR | END, _)))
    }
}

/// The outputs of a reply, no more bytes than there is room for, however often a place is told.
fn placed(room: &Range<usize>, reader: &mut Reader<'_>, count: usize) -> Option<SmallVec<[Placed; 4]>> {
    let mut left = reply_arena().len() + room.len();
    let one = |_| {
        let placed = reader.tensor()??;
        left = left.checked_sub(placed.byte_size)?;
        Some(placed)
    };
    (0..count).map(one).collect()
}

fn within(range: &Range<usize>, at: usize, byte_size: usize) -> bool {
    at >= range.start && at.checked_add(byte_size).is_some_and(|end| end <= range.end)
}
