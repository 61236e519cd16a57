//! What the system is told of a thread that answers rather than computes.

/// Asks the system to let this thread go on soon after it wakes, in turns that are short: a thread that reads sockets waits most of the time, and where a slow
/// model keeps the cores busy it would otherwise wait for the rest of that one's turn. It gets no larger share of the processor by that.
///
/// A system that knows no such wish, as Linux before 6.12, and a thread of a priority of its own are left as they are.
pub fn prompt() {
    #[cfg(target_os = "linux")]
    let _unheard = set_turn(TURN_NS);
}

/// The shortest turn that Linux takes.
#[cfg(target_os = "linux")]
const TURN_NS: u64 = 100_000;

#[cfg(target_os = "linux")]
fn set_turn(turn_ns: u64) -> bool {
    // SAFETY: the structure is plain numbers, for which zero is a value; `sched_getattr` writes no more than the size that it is given, and
    // `sched_setattr` reads as much as `size` says.
    unsafe {
        let mut wish: libc::sched_attr = std::mem::zeroed();
        let size = size_of_val(&wish) as u32;
        if libc::syscall(libc::SYS_sched_getattr, 0, &raw mut wish, size, 0) != 0 {
            return false;
        }
        // A priority that was given would not be that of the threads which this one starts.
        if wish.sched_runtime == 0 || wish.sched_policy != libc::SCHED_OTHER as u32 || wish.sched_nice != 0 {
            return false;
        }
        wish.sched_runtime = turn_ns;
        // Models' workers are started by such threads, and are to have turns of the usual length.
        wish.sched_flags |= libc::SCHED_FLAG_RESET_ON_FORK as u64;
        libc::syscall(libc::SYS_sched_setattr, 0, &raw const wish, 0) == 0
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_turn_is_short_where_the_system_has_turns() {
        fn turn() -> (u32, i32, u64) {
            // SAFETY: as above.
            unsafe {
                let mut told: libc::sched_attr = std::mem::zeroed();
                assert_eq!(libc::syscall(libc::SYS_sched_getattr, 0, &raw mut told, size_of_val(&told) as u32, 0), 0);
                (told.sched_policy, told.sched_nice, told.sched_runtime)
            }
        }
        let (policy, nice, before) = turn();
        // Before 6.12 the turn is nobody's to choose, and told as zero.
        let heard = before != 0 && policy == libc::SCHED_OTHER as u32 && nice == 0;
        assert_eq!(set_turn(TURN_NS), heard);
        let (policy_now, nice_now, now) = turn();
        let started = std::thread::spawn(turn).join().unwrap();
        assert_eq!((policy_now, nice_now), (policy, nice));
        assert_eq!(now, if heard { TURN_NS } else { before });
        assert_eq!(started, (policy, nice, before), "a thread that it starts");
    }
}
