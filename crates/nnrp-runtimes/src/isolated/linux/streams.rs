//! Streams through the shared memory: from the other side as it is, and from one that replies whatever comes to its mind.
use super::distrust::{life, right, spec};
use super::frame::{Incoming, Word};
use super::futex;
use super::host::host;
use super::life::{Ended, Life, Look};
use super::region::{Region, reply_arena};
use super::seat::{AHEAD, NUDGE, ahead, answer_room, reply_room};
use super::words::{ANSWER, END, Placed, Words, head, say};
use nnrp_core::{Cause, Control, Datatype, ModelSpec, NnrpError, Outputs, Reason, Result, Session, SessionInfo, Signature, Sink, Stop, Tensor, Threads};
use smallvec::{SmallVec, smallvec};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Counts from 0 to what it is asked for, as an answer each, of as many elements as its second input says; fails behind them where that is negative.
struct Counter {
    info: SessionInfo,
    given: Arc<AtomicUsize>,
    left: Arc<AtomicBool>,
}

impl Session for Counter {
    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn run(&self, _: &[Option<Tensor<'_>>], _: &[usize], _: Control<'_>) -> Result<Outputs> {
        unreachable!("a session that streams")
    }

    fn stream(&self, inputs: &[Option<Tensor<'_>>], _: &[usize], _: Control<'_>, sink: &mut Sink<'_>) -> Result<()> {
        let asked: Vec<f32> = inputs[0].as_ref().unwrap().bytes().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        for number in 0..asked[0] as usize {
            self.given.fetch_add(1, Ordering::SeqCst);
            let size = asked[1].abs() as usize;
            let given = sink(smallvec![Tensor::from_values(Datatype::Fp32, &[size as i64], vec![number as f32; size])]);
            given.inspect_err(|_left| self.left.store(true, Ordering::SeqCst))?;
        }
        if asked[1] < 0.0 { Err(NnrpError::new(Reason::QueueFull, "come again")) } else { Ok(()) }
    }
}

/// The other side in a thread, with everything that a process has but an end of its own.
struct There {
    life: Arc<Life>,
    signature: Signature,
    given: Arc<AtomicUsize>,
    left: Arc<AtomicBool>,
    orders: UnixStream,
    host: Option<JoinHandle<()>>,
}

impl There {
    fn new() -> There {
        let ((orders, theirs), (region, memory)) = (UnixStream::pair().unwrap(), Region::create().unwrap());
        let life = Arc::new(Life::new("tiny", Arc::new(region), orders.try_clone().unwrap(), 1 << 30));
        let (given, left) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let told = r#"{"version": "1", "format": "none", "device": "cpu", "exclusive": true, "cancellable": false, "streams": true, "settings": {},
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [2]}], "outputs": [{"name": "t", "datatype": "FP32", "shape": [-1]}]}"#;
        let session = Counter { info: SessionInfo::from_json("tiny", Threads::Any, told).unwrap(), given: given.clone(), left: left.clone() };
        let signature = session.info.signature.clone();
        let descriptors = [theirs.into_raw_fd(), memory.into_raw_fd()];
        let host = std::thread::spawn(move || host(descriptors, |_| Ok(Box::new(session))).unwrap());
        life.order(&super::frame::Order::Load(Box::new(ModelSpec::new("tiny", "tiny")), 1 << 30)).unwrap();
        let (mut incoming, mut said) = (Incoming::default(), None);
        while said.is_none() {
            assert!(incoming.read(&mut &orders).unwrap());
            said = incoming.next::<Word>().unwrap();
        }
        assert!(matches!(said, Some(Word::Loaded(told)) if told.seats == 1));
        life.open(1, false, true);
        There { life, signature, given, left, orders, host: Some(host) }
    }

    fn read(&self, count: usize, size: i32, sink: &mut Sink<'_>) -> Result<()> {
        let input = Tensor::from_values(Datatype::Fp32, &[2], vec![count as f32, size as f32]);
        let stop = Stop::default();
        self.life.stream(&self.signature, &[Some(input)], &[0], Control { stop: Some(&stop), ..Control::default() }, sink)
    }

    /// Looks after what was left until it is over there, as the supervisor does.
    fn settle(&self) {
        while self.life.look(Duration::from_secs(60)) != Look::Nothing {
            std::thread::yield_now();
        }
    }
}

impl Drop for There {
    fn drop(&mut self) {
        self.orders.shutdown(std::net::Shutdown::Both).unwrap();
        let ended = self.host.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn first(outputs: &Outputs) -> f32 {
    f32::from_le_bytes(outputs[0].bytes()[..4].try_into().unwrap())
}

fn enough() -> NnrpError {
    NnrpError::new(Reason::ClientCancelled, "enough")
}

#[test]
fn answers_of_every_size_cross_in_order_and_then_their_end() {
    let there = There::new();
    for (size, count) in [(1, 300), (20_000, 300), (100_000, 50), (1, 0)] {
        for sign in [1, -1] {
            let (mut seen, mut in_place) = (0, true);
            let ended = there.read(count, sign * size, &mut |outputs| {
                assert_eq!((first(&outputs), outputs[0].shape[0]), (seen as f32, i64::from(size)));
                seen += 1;
                in_place &= there.life.region.place_of(outputs[0].bytes()).is_some() == (size > 16_384);
                Ok(())
            });
            assert!(in_place && seen == count, "{size}");
            assert_eq!(ended.err().map(|error| error.is(Reason::QueueFull)), (sign < 0).then_some(true));
        }
    }
    assert_eq!(there.life.look(Duration::ZERO), Look::Nothing);
}

#[test]
fn a_few_answers_are_given_ahead_and_of_large_ones_none() {
    let there = There::new();
    // One that has to wait goes on once there is room for half of them.
    for (size, least, most) in [(4, AHEAD / 2 + 1, AHEAD), (20_000, AHEAD / 2 + 1, AHEAD), (300_000, 1, 1)] {
        let (mut seen, mut farthest) = (0, 0);
        there.given.store(0, Ordering::SeqCst);
        there
            .read(60, size, &mut |_| {
                seen += 1;
                while seen == 20 && there.given.load(Ordering::SeqCst) < seen + least {
                    std::thread::yield_now();
                }
                farthest = farthest.max(there.given.load(Ordering::SeqCst) - seen);
                Ok(())
            })
            .unwrap();
        assert!(seen == 60 && farthest <= most + 1, "{size}: {farthest}");
    }
}

#[test]
fn one_that_is_left_is_stopped_and_its_seat_is_free_once_it_is_over() {
    let there = There::new();
    for taken in [1, 2, 7] {
        for size in [1, 20_000] {
            let mut seen = 0;
            let mut sink = |_| {
                seen += 1;
                if seen < taken { Ok(()) } else { Err(enough()) }
            };
            assert_eq!(there.read(1_000_000, size, &mut sink).unwrap_err().message(), "enough");
            there.settle();
            assert!(there.left.swap(false, Ordering::SeqCst));
            // The next one in its seat has its own answers.
            let mut all = Vec::new();
            there
                .read(3, 1, &mut |outputs| {
                    all.push(first(&outputs));
                    Ok(())
                })
                .unwrap();
            assert_eq!(all, [0.0, 1.0, 2.0]);
        }
    }
}

#[test]
fn a_reader_that_panics_leaves_its_stream_as_any_other() {
    let there = There::new();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| there.read(1_000_000, 1, &mut |_| std::panic::resume_unwind(Box::new(())))));
    assert!(panicked.is_err());
    there.settle();
    let mut count = 0;
    there
        .read(3, 1, &mut |_| {
            count += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(count, 3);
}

#[test]
fn a_stop_reaches_one_that_waits_for_an_ask() {
    let there = There::new();
    let stop = Stop::default();
    let input = Tensor::from_values(Datatype::Fp32, &[2], vec![1e6_f32, 1.0]);
    let mut sink = |_| {
        while there.given.load(Ordering::SeqCst) < 3 {
            std::thread::yield_now();
        }
        stop.raise(Cause::Deadline);
        Ok(())
    };
    let ended = there.life.stream(&there.signature, &[Some(input)], &[0], Control { stop: Some(&stop), ..Control::default() }, &mut sink);
    assert!(ended.unwrap_err().message().ends_with("the run was stopped"));
    there.settle();
    assert!(there.left.load(Ordering::SeqCst));
}

/// Where the answer lies, in the room that it has of its own, before which so many were given.
fn own(before: u32) -> usize {
    (answer_room(0, before).start + 4096).next_multiple_of(64)
}

fn answer(at: usize, block: Option<usize>) -> Words {
    let mut words = right(at, block);
    words[0] = head(ANSWER, 1);
    words
}

/// Puts an answer where the engine finds it.
fn put(life: &Life, before: u32, words: &[u64]) {
    let at = answer_room(0, before).start;
    life.region.write_words(at, words);
    life.region.table().seats[0].answer(before).put(at, words.len());
}

/// A stream from a process that gives what `says` says, as far ahead as it may, until that is nothing; how many answers were taken, and how it ended.
fn read_from(life: &Arc<Life>, says: &(dyn Fn(u32) -> Option<Words> + Sync)) -> (usize, Result<()>) {
    let (seat, over) = (&life.region.table().seats[0], AtomicBool::new(false));
    let asked = seat.ask().word.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            futex::wait(&seat.ask().word, &seat.host_sleeps.0, asked, false);
            for (words, before) in (0..).map_while(says).zip(0..) {
                while ahead(before, seat.taken.0.load(Ordering::SeqCst)) == AHEAD {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    std::thread::yield_now();
                }
                put(life, before, &words);
                futex::post(&seat.given.0, &seat.engine_sleeps.0, before + 1);
            }
        });
        let (signature, mut count) = (Signature { inputs: vec![], outputs: vec![spec(Datatype::Fp32)] }, 0);
        let ended = life.stream(&signature, &[], &[0], Control::default(), &mut |outputs| {
            assert_eq!((outputs[0].bytes().len(), outputs[0].shape.as_slice()), (8, [2].as_slice()));
            count += 1;
            if count < 100 { Ok(()) } else { Err(enough()) }
        });
        over.store(true, Ordering::SeqCst);
        (count, ended)
    })
}

/// An answer, then what `wrong` says, then the end.
fn read_wrong(at: fn(u32) -> (usize, Option<usize>), wrong: &(dyn Fn(Words) -> Words + Sync)) -> (usize, Result<()>) {
    let says = |before| match before {
        0 | 1 => {
            let (at, block) = at(before);
            Some(if before == 0 { answer(at, block) } else { wrong(answer(at, block)) })
        }
        2 => Some(smallvec![END]),
        _ => None,
    };
    read_from(&life(), &says)
}

#[test]
fn whatever_a_process_streams_each_answer_is_right_or_the_stream_ends_with_a_typed_error() {
    for at in [|before| (own(before), None), |before| (reply_arena().start + 64 * before as usize, Some(before as usize))] {
        let (count, ended) = read_wrong(at, &|words| words);
        assert_eq!((count, ended.is_ok()), (2, true));
        // An end that says more, no words at all, the outputs of a run, words that nobody knows.
        let odd: [&[u64]; 5] = [&[END, 0], &[], &[4], &[u64::MAX, 1], &[1 << 63]];
        for wrong in odd {
            let (count, ended) = read_wrong(at, &|_| wrong.into());
            assert!(count == 1 && ended.unwrap_err().message().ends_with("makes no sense"), "{wrong:?}");
        }
        let whole = answer(at(1).0, at(1).1);
        for place in 0..whole.len() {
            for value in [0, 1, 2, 3, 9, 64, 1 << 20, 1 << 31, (1 << 63) - 1, 1 << 63, u64::MAX - 7, u64::MAX] {
                let (count, ended) = read_wrong(at, &|mut words| {
                    words[place] = value;
                    words
                });
                let fits = |error: &NnrpError| error.is(Reason::RunFailed) && error.message().starts_with("runtime tiny: ");
                assert!(count >= 1 && ended.as_ref().err().is_none_or(fits), "{place} {value}: {ended:?}");
            }
            let (count, ended) = read_wrong(at, &|words| words[..place].into());
            assert!(count == 1 && ended.unwrap_err().is(Reason::RunFailed));
        }
    }
}

#[test]
fn words_of_an_answer_that_lie_elsewhere_are_nonsense() {
    for at in [0, 4096, answer_room(0, 1).start, answer_room(0, 0).end - 8, reply_room(1).start, reply_arena().end - 8, usize::MAX - 7] {
        let life = life();
        let seat = &life.region.table().seats[0];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                futex::wait(&seat.ask().word, &seat.host_sleeps.0, 0, false);
                put(&life, 1, &answer(own(1), None));
                seat.answer(0).put(at, 9);
                futex::post(&seat.given.0, &seat.engine_sleeps.0, 1);
            });
            let signature = Signature { inputs: vec![], outputs: vec![spec(Datatype::Fp32)] };
            let ended = life.stream(&signature, &[], &[0], Control::default(), &mut |_| Ok(()));
            assert!(ended.unwrap_err().message().ends_with("makes no sense"), "{at}");
        });
    }
}

#[test]
fn more_answers_than_may_wait_are_nonsense_and_their_process_is_found_out() {
    for given in [AHEAD as u32 + 1, AHEAD as u32 + 2, 1 << 20, NUDGE - 1, u32::MAX] {
        let life = life();
        let seat = &life.region.table().seats[0];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                futex::wait(&seat.ask().word, &seat.host_sleeps.0, 0, false);
                (0..AHEAD as u32).for_each(|before| put(&life, before, &answer(own(before), None)));
                futex::post(&seat.given.0, &seat.engine_sleeps.0, given);
            });
            let signature = Signature { inputs: vec![], outputs: vec![spec(Datatype::Fp32)] };
            let ended = life.stream(&signature, &[], &[0], Control::default(), &mut |_| unreachable!("an answer of too many"));
            assert!(ended.unwrap_err().message().ends_with("makes no sense"), "{given}");
        });
        assert_eq!(life.look(Duration::from_secs(1000)), Look::Waiting);
        assert_eq!(life.look(Duration::ZERO), Look::Stuck);
    }
}

#[test]
fn a_process_that_never_ends_a_stream_is_found_out_and_nobody_looks_after_it_for_ever() {
    let life = life();
    let (count, ended) = read_from(&life, &|before| Some(answer(own(before), None)));
    assert_eq!((count, ended.unwrap_err().message()), (100, "enough"));
    // It goes on to give whatever is taken.
    let (seat, over) = (&life.region.table().seats[0], AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                seat.given.0.store(seat.taken.0.load(Ordering::SeqCst).wrapping_add(AHEAD as u32), Ordering::SeqCst);
            }
        });
        assert_eq!(life.look(Duration::from_secs(1000)), Look::Waiting);
        assert_eq!(life.look(Duration::ZERO), Look::Stuck);
        over.store(true, Ordering::SeqCst);
    });
}

#[test]
fn an_answer_that_is_wrong_or_that_nobody_takes_gives_its_memory_back() {
    let life = life();
    let says = |before: u32| {
        let mut words = answer(reply_arena().start, Some(2 * before as usize));
        words[0] = head(ANSWER, 2);
        let placed =
            Placed { at: reply_arena().start, byte_size: 8, block: Some(2 * before as usize + 1), datatype: Datatype::Int8, shape: SmallVec::from_slice(&[8]) };
        say(&mut words, Some(&placed));
        (before < 3).then_some(words)
    };
    let (count, ended) = read_from(&life, &says);
    assert!(count == 0 && ended.is_err());
    // The first by who read it, the others by who looks after what is left.
    assert_eq!(life.look(Duration::from_secs(1000)), Look::Waiting);
    assert!((0..6).all(|block| life.region.table().freed[block].load(Ordering::SeqCst) == 1));
}

#[test]
fn a_process_that_ends_within_a_stream_has_given_what_it_gave() {
    for given in [0, 1, 5] {
        let life = life();
        let seat = &life.region.table().seats[0];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let run = futex::wait(&seat.ask().word, &seat.host_sleeps.0, 0, false);
                seat.begun.0.store(run, Ordering::SeqCst);
                (0..given).for_each(|before| put(&life, before, &answer(own(before), None)));
                seat.given.0.store(given, Ordering::SeqCst);
                life.end(Ended { exit: "SIGSEGV".to_owned(), again: Duration::from_millis(100) });
            });
            let (signature, mut count) = (Signature { inputs: vec![], outputs: vec![spec(Datatype::Fp32)] }, 0);
            let error = life
                .stream(&signature, &[], &[0], Control::default(), &mut |_| {
                    count += 1;
                    Ok(())
                })
                .unwrap_err();
            assert!(count == given && error.is(Reason::RuntimeCrashed) && error.details()["held"] == true, "{count} {error:?}");
        });
        assert_eq!(Arc::strong_count(&life), 1);
    }
}
