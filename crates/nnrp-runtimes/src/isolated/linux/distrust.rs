//! A process that replies whatever comes to its mind.
use super::futex;
use super::inputs::{Block, Desk};
use super::life::{Ended, Kept, Life, Look};
use super::region::{BLOCKS, Region, ask_arena, reply_arena};
use super::seat::reply_room;
use super::words::{ERROR, OUTPUTS, Placed, Words, head, say};
use bytes::Bytes;
use nnrp_core::runtime::{Room, placed};
use nnrp_core::{Control, Datatype, Outputs, Reason, Result, Signature, Tensor, TensorSpec, Verb};
use smallvec::{SmallVec, smallvec};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(super) fn spec(datatype: Datatype) -> TensorSpec {
    TensorSpec { name: "t".into(), datatype, shape: Some(smallvec![-1]), symbols: vec![], ranges: vec![], optional: false }
}

pub(super) fn life() -> Arc<Life> {
    life_at(UnixStream::pair().unwrap().0, false)
}

fn life_at(orders: UnixStream, exclusive: bool) -> Arc<Life> {
    let life = Life::new("tiny", Arc::new(Region::create().unwrap().0), orders, 1 << 30);
    life.open(1, false, exclusive);
    Arc::new(life)
}

/// Runs once, with a process that replies with `words` at `at`.
fn run(life: &Arc<Life>, at: usize, words: &[u64]) -> Result<Outputs> {
    run_for(life, at, words, &[0])
}

fn run_for(life: &Arc<Life>, at: usize, words: &[u64], outputs: &[usize]) -> Result<Outputs> {
    run_by(life, &Signature { inputs: vec![], outputs: vec![spec(Datatype::Fp32)] }, at, words, outputs)
}

fn run_by(life: &Arc<Life>, signature: &Signature, at: usize, words: &[u64], outputs: &[usize]) -> Result<Outputs> {
    run_with(life, signature, Tensor::from_values(Datatype::Fp32, &[1], vec![1.0_f32]), at, words, outputs)
}

fn run_with(life: &Arc<Life>, signature: &Signature, input: Tensor<'_>, at: usize, words: &[u64], outputs: &[usize]) -> Result<Outputs> {
    let post = &life.region.table().seats[0];
    let seen = post.ask().word.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let asked = futex::wait(&post.ask().word, &post.host_sleeps.0, seen, false);
            if at.checked_add(8 * words.len()).is_some_and(|end| end <= reply_arena().end) {
                life.region.write_words(at, words);
            }
            post.reply().spot.put(at, words.len());
            futex::post(&post.reply().word, &post.engine_sleeps.0, asked);
        });
        life.run(signature, &[Some(input)], outputs, Control::default())
    })
}

pub(super) fn right(at: usize, block: Option<usize>) -> Words {
    let mut words: Words = smallvec![head(OUTPUTS, 1)];
    say(&mut words, Some(&Placed { at, byte_size: 8, block, datatype: Datatype::Fp32, shape: SmallVec::from_slice(&[2]) }));
    words
}

#[test]
fn whatever_a_process_replies_the_answer_is_right_or_a_typed_error() {
    let (life, room) = (life(), reply_room(0).start);
    for (at, block) in [((room + 4096).next_multiple_of(64), None), (reply_arena().start, Some(0))] {
        let outputs = run(&life, room, &right(at, block)).unwrap();
        assert_eq!((outputs[0].bytes().len(), outputs[0].shape.as_slice()), (8, [2].as_slice()));
        let words = right(at, block);
        for place in 0..words.len() {
            for value in [
                0,
                1,
                2,
                3,
                9,
                63,
                64,
                head(OUTPUTS, 0),
                head(OUTPUTS, 2),
                0x1_0000_010a,
                1 << 20,
                1 << 31,
                1 << 40,
                (1 << 63) - 1,
                1 << 63,
                u64::MAX - 7,
                u64::MAX,
            ] {
                let mut wrong = words.clone();
                wrong[place] = value;
                if let Err(error) = run(&life, room, &wrong) {
                    assert!(error.is(Reason::RunFailed) && error.message().starts_with("runtime tiny: "), "{place} {value}: {error:?}");
                }
            }
            assert!(run(&life, room, &words[..place]).unwrap_err().is(Reason::RunFailed));
        }
    }
}

#[test]
fn words_that_lie_nowhere_are_nonsense() {
    let life = life();
    for at in [0, 1, 4096, reply_room(1).start, reply_room(0).end - 8, reply_arena().end - 8, usize::MAX - 7] {
        assert!(run(&life, at, &right(reply_room(0).start, None)).unwrap_err().is(Reason::RunFailed), "{at}");
    }
}

#[test]
fn an_output_is_given_back_also_when_another_is_wrong() {
    let (life, room) = (life(), reply_room(0).start);
    let mut words = right(reply_arena().start, Some(5));
    words[0] = head(OUTPUTS, 2);
    say(&mut words, Some(&Placed { at: reply_arena().start, byte_size: 8, block: Some(6), datatype: Datatype::Int8, shape: smallvec![8] }));
    for outputs in [&[0, 0][..], &[0]] {
        let freed = [5, 6].map(|block| &life.region.table().freed[block]);
        freed.iter().for_each(|freed| freed.store(0, Ordering::SeqCst));
        assert!(run_for(&life, room, &words, outputs).unwrap_err().is(Reason::RunFailed));
        assert_eq!(freed.map(|freed| freed.load(Ordering::SeqCst)), [1, 1], "{outputs:?}");
    }
}

#[test]
fn no_reply_makes_the_engine_copy_what_is_nobodys_or_more_than_there_is() {
    let (life, room) = (life(), reply_room(0).start);
    assert!(run(&life, room, &right(reply_arena().start, None)).unwrap_err().message().ends_with("makes no sense"));
    let huge = |status: u64, count: usize, block: fn(usize) -> Option<usize>| {
        let mut words: Words = smallvec![head(status, count)];
        for index in 0..count {
            let (at, byte_size) = (reply_arena().start, reply_arena().len() - 64);
            say(&mut words, Some(&Placed { at, byte_size, block: block(index), datatype: Datatype::Uint8, shape: smallvec![byte_size as i64] }));
        }
        words
    };
    for (status, count) in [(OUTPUTS, 1), (OUTPUTS, 2), (OUTPUTS, 64), (ERROR, 1)] {
        for block in [|_| None, |index| Some(index)] {
            let error = run_for(&life, room, &huge(status, count, block), &[0; 2]).unwrap_err();
            assert!(error.message().ends_with("makes no sense"), "{status} {count}: {error:?}");
        }
    }
}

#[test]
fn outputs_beyond_what_a_run_may_give_are_refused_and_given_back() {
    let (life, room, index) = (life(), reply_room(0).start, BLOCKS - 1);
    let signature = Signature { inputs: vec![], outputs: vec![spec(Datatype::Bytes)] };
    let mut words: Words = smallvec![head(OUTPUTS, 1)];
    // One element of zeros after another, of which nobody has to write any.
    let byte_size = (1 << 30) + 4;
    say(&mut words, Some(&Placed { at: reply_arena().start, byte_size, block: Some(index), datatype: Datatype::Bytes, shape: smallvec![1 << 28] }));
    let error = run_by(&life, &signature, room, &words, &[0]).unwrap_err();
    assert!(error.is(Reason::RunFailed) && error.details()["got"] == byte_size && error.details()["expected"] == 1 << 30, "{error:?}");
    assert_eq!(life.region.table().freed[index].load(Ordering::SeqCst), 1);
}

#[test]
fn half_of_the_memory_stays_free_however_many_answers_are_kept() {
    let (life, room) = (life(), reply_room(0).start);
    let lent = |outputs: &Outputs| life.region.place_of(outputs[0].bytes()).is_some();
    let kept: Vec<_> = (0..BLOCKS).map(|block| run(&life, room, &right(reply_arena().start + 64 * block, Some(block))).unwrap()).collect();
    assert!(kept[..BLOCKS / 2].iter().all(lent) && !kept[BLOCKS / 2..].iter().any(lent));
    let freed = |block: usize| life.region.table().freed[block].load(Ordering::SeqCst);
    assert_eq!((freed(BLOCKS / 2 - 1), freed(BLOCKS / 2)), (0, 1));
    drop(kept);
    assert!(lent(&run(&life, room, &right(reply_arena().start, Some(0))).unwrap()));
}

#[test]
fn a_request_that_was_gathered_where_its_process_reads_is_not_copied() {
    let (life, room, signature) = (life(), reply_room(0).start, Signature { inputs: vec![], outputs: vec![spec(Datatype::Fp32)] });
    let told = |input: Tensor<'_>| {
        run_with(&life, &signature, input, room, &right((room + 4096).next_multiple_of(64), None), &[0]).unwrap();
        // Behind the one word that tells the rest.
        let mut at = [0];
        life.region.read_words(life.region.table().seats[0].ask().spot.get().0 + 8, &mut at);
        at[0] as usize
    };
    let mut place = Desk(life.clone()).place(400_000).unwrap();
    let body = {
        (*place).as_mut()[64..].fill(7);
        placed(place)
    };
    let at = life.region.place_of(&body).unwrap();
    assert_eq!(told(Tensor::shared(Datatype::Fp32, &[99_984], body.slice(64..))), at + 64);
    // Memory of anybody else is copied, into a place of its own.
    let copied = told(Tensor::shared(Datatype::Fp32, &[99_984], Bytes::from(vec![7; 399_936])));
    assert!(ask_arena().contains(&copied) && copied >= at + 400_000);
    drop(body);
    assert_eq!(told(Tensor::shared(Datatype::Fp32, &[99_984], Bytes::from(vec![7; 399_936]))), at);
}

#[test]
fn requests_that_are_being_gathered_leave_half_of_the_memory_to_those_that_are() {
    let life = life();
    let desk = Desk(life.clone());
    let places: Vec<_> = (0..3).map(|_| desk.place(1 << 30)).collect();
    assert!(places[1].is_some() && places[2].is_none());
    assert!(Block::take(&life, 2 << 30, 0).is_some());
    drop(places);
    assert!(Block::take(&life, ask_arena().len() - 4096, 0).is_some());
}

#[test]
fn strings_are_copied_so_that_what_was_checked_stays() {
    let (life, room) = (life(), reply_room(0).start);
    let signature = Signature { inputs: vec![], outputs: vec![spec(Datatype::Bytes)] };
    let mut words: Words = smallvec![head(OUTPUTS, 1)];
    say(&mut words, Some(&Placed { at: reply_arena().start, byte_size: 8, block: Some(3), datatype: Datatype::Bytes, shape: smallvec![1] }));
    life.region.write(reply_arena().start, b"\x04\0\0\0bead");
    let outputs = run_by(&life, &signature, room, &words, &[0]).unwrap();
    life.region.write(reply_arena().start, &[0xff; 8]);
    assert_eq!(outputs[0].bytes(), b"\x04\0\0\0bead");
    assert_eq!(life.region.table().freed[3].load(Ordering::SeqCst), 1);
}

#[test]
fn a_session_that_does_one_thing_at_a_time_is_asked_for_nothing_beside_a_run() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let (life, limit) = (life_at(ours, true), Duration::from_millis(20));
    let sat = life.sit(Control::default(), None).unwrap();
    assert!(life.ask_for(Verb::Stats, limit).unwrap_err().is(Reason::RunFailed));
    assert!(theirs.read(&mut [0; 64]).is_err(), "it was asked");
    drop(sat);
    assert!(life.ask_for(Verb::Stats, limit).unwrap_err().is(Reason::RunFailed));
    assert!(theirs.read(&mut [0; 64]).unwrap() > 0);
    // What was asked goes on, for all that is known: no run beside it, and an end when it goes on for too long.
    assert_eq!(life.look(Duration::from_secs(1000)), Look::Waiting);
    assert_eq!(life.look(Duration::ZERO), Look::Stuck);
}

#[test]
fn a_run_that_is_left_when_the_process_has_ended_keeps_nothing() {
    let life = life();
    let (sat, kept) = (life.sit(Control::default(), None).unwrap(), Kept::default());
    life.end(Ended { exit: "SIGSEGV".to_owned(), again: Duration::ZERO });
    life.leave(sat, kept, None);
    assert_eq!(Arc::strong_count(&life), 1);
}

#[test]
fn a_run_in_a_process_that_ends_is_answered_and_so_is_every_later_one() {
    let signature = Signature { inputs: vec![], outputs: vec![spec(Datatype::Fp32)] };
    let life = life();
    let ended = |life: &Arc<Life>, begins: bool| {
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| life.run(&signature, &[], &[0], Control::default()));
            let next = scope.spawn(|| life.run(&signature, &[], &[0], Control::default()));
            let post = &life.region.table().seats[0];
            while post.ask().word.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            if begins {
                post.begun.0.store(post.ask().word.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            life.end(Ended { exit: "SIGSEGV".to_owned(), again: Duration::from_millis(100) });
            let errors = [waiter.join().unwrap().unwrap_err(), next.join().unwrap().unwrap_err()];
            assert!(errors.iter().all(|error| error.is(Reason::RuntimeCrashed) && error.details()["exit"] == "SIGSEGV"), "{errors:?}");
            errors.iter().filter(|error| error.details()["held"] == true).count()
        })
    };
    assert_eq!(ended(&life, true), 1);
    // What it was asked and never looked at may be asked of the next one.
    assert_eq!(ended(&self::life(), false), 0);
    assert!(life.run(&signature, &[], &[0], Control::default()).unwrap_err().is(Reason::RuntimeCrashed));
}
