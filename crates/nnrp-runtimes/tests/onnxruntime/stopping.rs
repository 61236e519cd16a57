use super::load;
use nnrp_core::{Cause, Control, Datatype, Outputs, Result, Session, Stop, Tensor};
use std::sync::Arc;
use std::time::Duration;

fn turns(session: &dyn Session, turns: i64, stop: &Stop) -> Result<Outputs> {
    let inputs = [Some(Tensor::from_values(Datatype::Int64, &[], vec![turns])), Some(Tensor::from_values(Datatype::Fp32, &[64, 64], vec![0.0_f32; 64 * 64]))];
    session.run(&inputs, &[0], Control { stop: Some(stop), ..Control::default() })
}

#[test]
fn a_long_run_is_ended_by_its_stop() {
    let session: Arc<dyn Session> = load("loop").into();
    let stop = Arc::new(Stop::default());
    let (sender, ended) = std::sync::mpsc::channel();
    let (its_session, its_stop) = (session.clone(), stop.clone());
    std::thread::spawn(move || sender.send(turns(&*its_session, i64::MAX, &its_stop)).expect("a test that waits"));
    assert!(ended.recv_timeout(Duration::from_millis(200)).is_err(), "the run goes on until it is stopped");
    stop.raise(Cause::Cancelled);
    assert!(ended.recv_timeout(Duration::from_secs(60)).expect("an end").is_err());
    assert!(turns(&*session, 1, &Stop::default()).is_ok(), "the session runs on");
}

#[test]
fn a_run_that_was_stopped_before_it_began_ends_at_once() {
    let stop = Stop::default();
    stop.raise(Cause::Deadline);
    assert!(turns(&*load("loop"), i64::MAX, &stop).is_err());
}

#[test]
fn a_run_with_a_stop_that_is_not_raised_gives_its_outputs() {
    let outputs = turns(&*load("loop"), 3, &Stop::default()).unwrap();
    assert_eq!(outputs[0].shape.as_slice(), [64, 64]);
}
