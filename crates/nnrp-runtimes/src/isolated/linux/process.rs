//! The process of an isolated model: how it is started, waited for, and ended.
use super::frame::{Incoming, Order, Told, Word, error_of, write};
use super::life::Life;
use super::region::Region;
use crate::isolated::{Command, Settings};
use nnrp_core::error::excerpt;
use nnrp_core::{ModelSpec, NnrpError, Reason, Result};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an order may wait for room in the socket.
const HEARS: Duration = Duration::from_millis(100);

/// How often a process is looked at whose end nothing tells.
const GLANCE: Duration = Duration::from_millis(50);

/// A process that runs, and what it says. Killed at the end, if it is still there.
pub(super) struct Process {
    child: Child,
    /// `None` where the kernel has none, before Linux 5.3, in some sandboxes and under valgrind: then it is looked at again and again.
    pidfd: Option<OwnedFd>,
    stream: UnixStream,
    incoming: Incoming,
}

/// Something that happened.
pub(super) enum Event {
    /// The process said it.
    Said(Word),
    /// What it says makes no sense.
    Nonsense(io::Error),
    /// It is gone.
    Gone,
    /// Somebody else wants us to look around, or the time is over.
    Nothing,
}

impl Process {
    /// Starts one in a folder, with its shared memory. Call it on a thread that outlives the process, which ends with its thread.
    pub(super) fn start(settings: &Settings, runtime: &'static str, folder: Option<&OwnedFd>) -> io::Result<(Process, Arc<Life>)> {
        let (ours, theirs) = UnixStream::pair()?;
        let (region, memory) = Region::create()?;
        let child = spawn(&settings.command, theirs.as_raw_fd(), memory.as_raw_fd(), folder.map(AsRawFd::as_raw_fd))?;
        drop((theirs, memory));
        // SAFETY: a plain system call; the descriptor that it makes is owned at once.
        let pidfd = unsafe {
            let made = libc::syscall(libc::SYS_pidfd_open, child.id() as libc::pid_t, 0) as RawFd;
            (made >= 0).then(|| OwnedFd::from_raw_fd(made))
        };
        let life = Arc::new(Life::new(runtime, Arc::new(region), ours.try_clone()?, settings.max_output_bytes));
        Ok((Process { child, pidfd, stream: ours, incoming: Incoming::default() }, life))
    }

    /// Its number.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has it load the model, within a time.
    ///
    /// # Errors
    /// What its runtime says; `LOAD_FAILED` when it ends, takes too long, or talks nonsense.
    pub(super) fn load(&mut self, life: &Life, spec: &ModelSpec, limit: Duration, poke: BorrowedFd<'_>, closing: impl Fn() -> bool) -> Result<Told> {
        let failed = |what: &str| {
            let message = format!("runtime {}: {what} while it loaded the model in a process of its own", life.runtime);
            NnrpError::new(Reason::LoadFailed, message).with("runtime", life.runtime)
        };
        let until = Instant::now() + limit;
        // Orders wait for room, for no longer than this: who does not read them is ended.
        let said =
            self.stream.set_write_timeout(Some(limit)).and_then(|()| write(&mut &self.stream, &Order::Load(Box::new(spec.clone()), life.max_output_bytes)));
        if said.and_then(|()| self.stream.set_write_timeout(Some(HEARS))).is_err() {
            return Err(failed(&format!("it ended ({})", self.kill())));
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.wait(Some(left), poke) {
                Event::Said(Word::Loaded(told)) => return Ok(*told),
                Event::Said(Word::Refused(error)) => return Err(error_of(life.runtime, &error)),
                Event::Said(Word::Answer { .. }) | Event::Nothing => {}
                Event::Nonsense(error) => return Err(failed(&excerpt(&error.to_string()))),
                Event::Gone => return Err(failed(&format!("it ended ({})", self.kill()))),
            }
            if left.is_zero() {
                self.kill();
                return Err(failed(&format!("it took longer than {} s", limit.as_secs_f32())).with("limit_s", limit.as_secs_f32()));
            }
            if closing() {
                return Err(failed("the model was unloaded"));
            }
        }
    }

    /// Waits until something happens.
    pub(super) fn wait(&mut self, limit: Option<Duration>, poke: BorrowedFd<'_>) -> Event {
        match self.incoming.next() {
            Ok(None) => {}
            Ok(Some(word)) => return Event::Said(word),
            Err(error) => return Event::Nonsense(error),
        }
        let (said, gone, poked) = if let Some(pidfd) = &self.pidfd {
            let [said, gone, poked] = poll([self.stream.as_fd(), pidfd.as_fd(), poke], limit);
            (said, gone, poked)
        } else {
            let [said, poked] = poll([self.stream.as_fd(), poke], Some(limit.map_or(GLANCE, |limit| limit.min(GLANCE))));
            (said, self.has_ended(), poked)
        };
        if poked {
            drain(poke);
        }
        if said {
            // At the end of what it says it is gone, or will be at once.
            if let Ok(true) = self.incoming.read(&mut &self.stream) {
                return Event::Nothing;
            }
            return if gone { Event::Gone } else { self.closed() };
        }
        if gone { Event::Gone } else { Event::Nothing }
    }

    /// It says no more: is gone, or might as well be.
    fn closed(&mut self) -> Event {
        self.wait_for_end(Duration::from_secs(1));
        Event::Gone
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Waits for its end, no longer than this.
    fn wait_for_end(&mut self, limit: Duration) {
        if let Some(pidfd) = &self.pidfd {
            poll([pidfd.as_fd()], Some(limit));
            return;
        }
        let until = Instant::now() + limit;
        while !self.has_ended() && Instant::now() < until {
            std::thread::sleep(GLANCE.min(limit));
        }
    }

    /// Ends it, if it has not ended, and tells how it came to its end.
    pub(super) fn kill(&mut self) -> String {
        let _gone = self.child.kill();
        self.child.wait().map_or_else(|error| error.kind().to_string(), exit)
    }

    /// Waits for its end, and ends it when it takes too long.
    pub(super) fn leave(&mut self, grace: Duration) {
        self.wait_for_end(grace);
        self.kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a process came to its end.
fn exit(status: ExitStatus) -> String {
    let names = [(libc::SIGSEGV, "SIGSEGV"), (libc::SIGABRT, "SIGABRT"), (libc::SIGBUS, "SIGBUS"), (libc::SIGILL, "SIGILL"), (libc::SIGFPE, "SIGFPE")];
    let more = [(libc::SIGKILL, "SIGKILL"), (libc::SIGTERM, "SIGTERM"), (libc::SIGINT, "SIGINT"), (libc::SIGTRAP, "SIGTRAP"), (libc::SIGSYS, "SIGSYS")];
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            names.iter().chain(&more).find(|(number, _)| *number == signal).map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).into())
        }
        (None, code) => format!("exit {}", code.unwrap_or(-1)),
    }
}

fn spawn(command: &Command, socket: RawFd, memory: RawFd, folder: Option<RawFd>) -> io::Result<Child> {
    let parent = std::process::id();
    let mut made = std::process::Command::new(&command.program);
    made.args(&command.words).args([socket.to_string(), memory.to_string()]);
    made.envs(command.environment.iter().map(|(name, value)| (name, value)));
    // What a library prints is no answer of ours; and Ctrl-C on a terminal is for us, who end the process in good order.
    made.stdin(Stdio::null()).stdout(io::stderr().as_fd().try_clone_to_owned()?).process_group(0);
    let prepare = move || {
        // SAFETY: plain system calls, which may be made between a fork and an exec.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() as u32 != parent || libc::fcntl(socket, libc::F_SETFD, 0) < 0 || libc::fcntl(memory, libc::F_SETFD, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            if folder.is_some_and(|folder| libc::fchdir(folder) < 0) {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: it allocates nothing and takes no lock.
    unsafe { made.pre_exec(prepare) };
    made.spawn()
}

/// The folder in which this process is now.
pub(super) fn here() -> Option<OwnedFd> {
    // SAFETY: a plain system call with a text that ends in 0; the descriptor that it makes is owned at once.
    unsafe {
        let opened = libc::open(c".".as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC);
        if opened < 0 { None } else { Some(OwnedFd::from_raw_fd(opened)) }
    }
}

/// Which of these can be read, once one can or the time is over.
pub(super) fn poll<const N: usize>(descriptors: [BorrowedFd<'_>; N], limit: Option<Duration>) -> [bool; N] {
    let mut polled = descriptors.map(|descriptor| libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    // Rounded up, so that the time is over when the call says so.
    let limit = limit.map_or(-1, |limit| i32::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
    // SAFETY: the array has the length that goes with it.
    unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, limit) };
    polled.map(|one| one.revents != 0)
}

/// Something to be poked by other threads.
pub(super) fn poke_new() -> io::Result<OwnedFd> {
    // SAFETY: a plain system call; the descriptor that it makes is owned at once.
    unsafe {
        let made = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        if made < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(made)) }
    }
}

/// Pokes.
pub(super) fn poke(descriptor: &OwnedFd) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: eight bytes are there. Where it does not take them, it has been poked often enough.
    unsafe { libc::write(descriptor.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

pub(super) fn drain(descriptor: BorrowedFd<'_>) {
    let mut count = [0_u8; 8];
    // SAFETY: eight bytes are there.
    unsafe { libc::read(descriptor.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
}
