//! Memory does not grow with loads and runs; alone in its process, so that nothing else grows beside it.
#![cfg(target_os = "linux")]
#[allow(dead_code, reason = "each test program uses its part")]
mod common;

use common::{model, onnxruntime, openvino, spec};
use nnrp_core::tensor::push_bytes_element;
use nnrp_core::{Control, Datatype, Result, Runtime, Session, Stop, Tensor};
use serde_json::json;
use std::sync::Mutex;

/// One runtime's memory is counted at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// The least growth of three rounds, or the first that is within the bound: what leaks does so in each, what an allocator keeps does not.
fn least_grown_by(bound: usize, times: usize, mut act: impl FnMut()) -> usize {
    let mut least = usize::MAX;
    for _ in 0..3 {
        least = least.min(grown_by(times, &mut act));
        if least < bound {
            break;
        }
    }
    least
}

fn grown_by(times: usize, mut act: impl FnMut()) -> usize {
    (0..times / 4).for_each(|_| act());
    let before = resident_bytes();
    (0..times).for_each(|_| act());
    resident_bytes().saturating_sub(before)
}

fn load(runtime: &dyn Runtime, name: &str) -> Result<Box<dyn Session>> {
    runtime.load(&spec(&model(name), json!({})))
}

fn x(elements: i64) -> [Option<Tensor<'static>>; 1] {
    [Some(Tensor::from_values(Datatype::Fp32, &[elements], vec![1.0_f32; usize::try_from(elements).unwrap()]))]
}

fn load_run_and_fail(runtime: &dyn Runtime) {
    let session = load(runtime, "double").unwrap();
    session.run(&x(64), &[0], Control::default()).unwrap();
    session.run(&x(64), &[0], Control { stop: Some(&Stop::default()), ..Control::default() }).unwrap();
    let mut strings = Vec::new();
    push_bytes_element(&mut strings, &[b'a'; 256]);
    // Strings where numbers belong.
    assert!(session.run(&[Some(Tensor::borrowed(Datatype::Bytes, &[1], &strings))], &[0], Control::default()).is_err());
    assert!(load(runtime, "external_missing").is_err());
}

#[test]
fn two_thousand_loads_and_runs_leave_memory_where_it_was() {
    let _alone = ALONE.lock();
    let grown = grown_by(2_000, || load_run_and_fail(&onnxruntime()));
    // Some 40 kB is usual; the smallest thing that each time leaves behind, a run's options, would be twice the bound.
    assert!(grown < 256 << 10, "grown by {grown} bytes");
}

#[test]
fn a_thousand_loads_on_openvino_leave_memory_where_it_was() {
    let _alone = ALONE.lock();
    let grown = grown_by(1_000, || load_run_and_fail(&openvino()));
    assert!(grown < 4 << 20, "grown by {grown} bytes");
}

#[test]
fn twenty_thousand_runs_on_openvino_leave_memory_where_it_was() {
    let _alone = ALONE.lock();
    let session = load(&openvino(), "double").unwrap();
    let mut turn = 0;
    let grown = least_grown_by(1 << 20, 20_000, || {
        turn += 1;
        session.run(&x(64 + turn % 8_000), &[0], Control::default()).unwrap();
    });
    assert!(grown < 1 << 20, "grown by {grown} bytes");
}
