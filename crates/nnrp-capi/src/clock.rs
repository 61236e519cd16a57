//! The clock of deadlines.

/// Nanoseconds on the clock of deadlines.
#[unsafe(no_mangle)]
pub extern "C" fn nnrp_now_ns() -> u64 {
    nnrp_runtimes::c::clock::now_ns()
}
