use super::load;
use nnrp_core::{Cause, Control, Datatype, Outputs, Result, Session, Stop, Tensor};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows that make a run of some seconds; one that a stop does not end gives its outputs.
const ROWS: i64 = 20_000;

fn rows(session: &dyn Session, rows: i64, stop: &Stop) -> Result<Outputs> {
    let elements = usize::try_from(rows * 512).unwrap();
    session.run(&[Some(Tensor::from_values(Datatype::Fp32, &[rows, 512], vec![1.0_f32; elements]))], &[0], Control { stop: Some(stop), ..Control::default() })
}

#[test]
fn a_long_run_is_ended_by_its_stop() {
    let session: Arc<dyn Session> = load("steps").into();
    let stop = Arc::new(Stop::default());
    let (sender, ended) = std::sync::mpsc::channel();
    let (its_session, its_stop) = (session.clone(), stop.clone());
    std::thread::spawn(move || sender.send(rows(&*its_session, ROWS, &its_stop)).expect("a test that waits"));
    assert!(ended.recv_timeout(Duration::from_millis(300)).is_err(), "the run goes on until it is stopped");
    stop.raise(Cause::Cancelled);
    assert!(ended.recv_timeout(Duration::from_secs(60)).expect("an end").is_err());
    assert!(rows(&*session, 1, &Stop::default()).is_ok(), "the session runs on");
}

#[test]
fn a_run_that_was_stopped_before_it_began_ends_at_once() {
    let (session, stop) = (load("steps"), Stop::default());
    stop.raise(Cause::Deadline);
    let took = |count: i64, stop: &Stop| {
        let begun = Instant::now();
        (rows(&*session, count, stop).is_ok(), begun.elapsed())
    };
    // Beside a tenth of the same work, on the same machine as busy as it is.
    let ((ended_well, whole), (stopped_well, stopped)) = (took(ROWS / 10, &Stop::default()), took(ROWS, &stop));
    assert!(ended_well && !stopped_well && stopped < whole, "{stopped:?} beside {whole:?}");
}

#[test]
fn a_run_with_a_stop_that_is_not_raised_gives_its_outputs() {
    let outputs = rows(&*load("steps"), 2, &Stop::default()).unwrap();
    assert_eq!(outputs[0].shape.as_slice(), [2, 512]);
    assert!(outputs[0].bytes().chunks_exact(4).all(|bytes| bytes == 1.0_f32.to_le_bytes()));
}
