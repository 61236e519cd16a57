//! The round trip of an isolated run beside a bare futex ping-pong between two processes on the same cores; `bench/isolation.py` reads what it prints.
//!
//! Both ways of waiting are the same: look at the word while traffic is back to back, then sleep. The isolated run also carries 16 floats each way, its
//! description, and every check.
#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
mod linux {
    use nnrp_core::{Control, Datatype, Isolate, ModelSpec, Outputs, Result, Session, SessionInfo, Tensor, Threads};
    use nnrp_runtimes::isolated::{Command, Processes, Settings, host};
    use std::io;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    use std::time::{Duration, Instant};

    /// Gives back what it gets.
    struct Same(SessionInfo);

    impl Session for Same {
        fn info(&self) -> &SessionInfo {
            &self.0
        }

        fn run(&self, inputs: &[Option<Tensor<'_>>], _: &[usize], _: Control<'_>) -> Result<Outputs> {
            Ok(inputs.iter().flatten().map(|tensor| tensor.clone().into_owned()).collect())
        }
    }

    fn same(_: &ModelSpec) -> Result<Box<dyn Session>> {
        let told = r#"{"version": "1", "format": "none", "device": "cpu", "exclusive": true, "cancellable": false, "settings": {},
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}], "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}]}"#;
        Ok(Box::new(Same(SessionInfo::from_json("same", Threads::Any, told)?)))
    }

    /// Two words and two flags, each on a line of its own.
    #[repr(C, align(128))]
    struct Line(AtomicU32);

    struct Bare(&'static [Line; 4]);

    impl Bare {
        fn map(fd: i32) -> Bare {
            let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
            // SAFETY: a new mapping of an open file of a page, which stays until the process ends; zeros are lines.
            unsafe { Bare(&*libc::mmap(std::ptr::null_mut(), 4096, access, flags, fd, 0).cast()) }
        }

        fn post(&self, word: usize, value: u32) {
            self.0[word].0.store(value, SeqCst);
            if self.0[word + 2].0.load(SeqCst) != 0 {
                // SAFETY: the word is alive.
                unsafe { libc::syscall(libc::SYS_futex, self.0[word].0.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
            }
        }

        fn wait(&self, word: usize, value: u32, spin: Duration, alone: bool) {
            let (begun, word, sleeps) = (Instant::now(), &self.0[word].0, &self.0[word + 2].0);
            while !spin.is_zero() && begun.elapsed() < spin {
                for _ in 0..32 {
                    if word.load(SeqCst) == value {
                        return;
                    }
                    if alone { std::thread::yield_now() } else { std::hint::spin_loop() }
                }
            }
            sleeps.store(1, SeqCst);
            loop {
                let seen = word.load(SeqCst);
                if seen == value {
                    return sleeps.store(0, SeqCst);
                }
                // SAFETY: the word is alive.
                unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, seen, std::ptr::null::<libc::timespec>()) };
            }
        }
    }

    fn pin(cores: &[usize]) {
        // SAFETY: zeros are a set; a plain system call.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            cores.iter().for_each(|core| libc::CPU_SET(*core, &mut set));
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
        }
    }

    fn spin(asleep: bool) -> Duration {
        if asleep { Duration::ZERO } else { Duration::from_micros(50) }
    }

    /// Times calls one by one, in nanoseconds; asleep, a pause before each.
    fn time(calls: usize, asleep: bool, mut call: impl FnMut(u32)) -> Vec<u64> {
        let one = |turn: usize| {
            if asleep {
                std::thread::sleep(Duration::from_micros(700));
            }
            let begun = Instant::now();
            call(turn as u32 + 1);
            begun.elapsed().as_nanos() as u64
        };
        (0..calls).map(one).collect()
    }

    fn bare(calls: usize, asleep: bool, alone: bool) -> io::Result<Vec<u64>> {
        // SAFETY: plain system calls; the descriptor that is made is owned at once. Without CLOEXEC, for the other process.
        let fd = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"bare".as_ptr(), 0)) };
        // SAFETY: as above.
        unsafe { libc::ftruncate(fd.as_raw_fd(), 4096) };
        let words = Bare::map(fd.as_raw_fd());
        let program = std::env::current_exe()?;
        let told = [fd.as_raw_fd().to_string(), calls.to_string(), asleep.to_string(), alone.to_string()];
        let mut child = std::process::Command::new(program).arg("echo").args(told).spawn()?;
        let times = time(calls, asleep, |turn| {
            words.post(0, turn);
            words.wait(1, turn, spin(asleep), alone);
        });
        child.wait()?;
        Ok(times)
    }

    fn ours(calls: usize, asleep: bool) -> io::Result<Vec<u64>> {
        let program = std::env::current_exe()?.to_string_lossy().into_owned();
        let command = Command { program, words: vec!["host".to_owned()], environment: Vec::new() };
        let session = Processes::new(Settings { command, ..Settings::default() }).load("same", &ModelSpec::new("same", "same")).map_err(io::Error::other)?;
        let inputs = [Some(Tensor::from_values(Datatype::Fp32, &[16], vec![1.0_f32; 16]))];
        let run = |_| assert_eq!(session.run(&inputs, &[0], Control::default()).map(|outputs| outputs.len()).ok(), Some(1));
        (0..calls / 10).for_each(|_| run(0));
        Ok(time(calls, asleep, run))
    }

    /// What is measured, each in a process that knows from its start which cores it has: calls, whether both sleep between them, and the cores.
    const CASES: [(&str, usize, bool, &[usize]); 3] = [("spinning", 20_000, false, &[0, 1]), ("alone", 20_000, false, &[0]), ("asleep", 1_000, true, &[0, 1])];

    pub(super) fn main() -> io::Result<()> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok()).unwrap_or_default();
        match words.first().map(String::as_str) {
            Some("host") => return host([number(1) as i32, number(2) as i32], same),
            Some("echo") => {
                let (shared, asleep, alone) = (Bare::map(number(1) as i32), words[3] == "true", words[4] == "true");
                (1..=number(2) as u32).for_each(|turn| {
                    shared.wait(0, turn, spin(asleep), alone);
                    shared.post(1, turn);
                });
                return Ok(());
            }
            _ => {}
        }
        let Some((_, calls, asleep, cores)) = CASES.iter().find(|case| words.first().is_some_and(|word| word == case.0)) else {
            return Err(io::Error::other("expected a case and a number of rounds"));
        };
        pin(cores);
        let mut told = serde_json::Map::new();
        for _ in 0..number(1).max(1) {
            for (whose, times) in [("bare", bare(*calls, *asleep, cores.len() == 1)), ("ours", ours(*calls, *asleep))] {
                let mut times = times?;
                times.sort_unstable();
                let figures = serde_json::json!({"minimum": times[0], "p10": times[times.len() / 10], "p50": times[times.len() / 2]});
                told.entry(whose).or_insert_with(|| serde_json::json!([])).as_array_mut().expect("a list").push(figures);
            }
        }
        use std::io::Write;
        writeln!(io::stdout(), "{}", serde_json::Value::from(told))
    }
}
