//! Memory does not grow with loads and runs; alone in its process, so that nothing else grows beside it.
#![cfg(target_os = "linux")]
#[path = "onnxruntime/common.rs"]
mod common;

use common::{load, load_with};
use nnrp_core::tensor::push_bytes_element;
use nnrp_core::{Control, Datatype, Stop, Tensor};
use serde_json::json;

/// Loads and runs whose memory is counted.
const TIMES: usize = 2_000;
/// Some 40 kB is usual; the smallest thing that each time leaves behind, a run's options, would be twice the bound.
const BOUND: usize = 256 << 10;

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn load_run_and_fail() {
    let session = load("double");
    let x = || [Some(Tensor::from_values(Datatype::Fp32, &[64], vec![1.0_f32; 64]))];
    session.run(&x(), &[0], Control::default()).unwrap();
    session.run(&x(), &[0], Control { stop: Some(&Stop::default()) }).unwrap();
    let mut strings = Vec::new();
    push_bytes_element(&mut strings, &[b'a'; 256]);
    // Strings where numbers belong: refused by the library, after it has been given them.
    assert!(session.run(&[Some(Tensor::borrowed(Datatype::Bytes, &[1], &strings))], &[0], Control::default()).is_err());
    assert!(load_with("external_missing", json!({})).is_err());
}

#[test]
fn two_thousand_loads_and_runs_leave_memory_where_it_was() {
    (0..TIMES / 4).for_each(|_| load_run_and_fail());
    let before = resident_bytes();
    (0..TIMES).for_each(|_| load_run_and_fail());
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < BOUND, "grown by {grown} bytes");
}
