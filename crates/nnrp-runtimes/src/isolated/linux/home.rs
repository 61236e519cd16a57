//! Where the process of an isolated model is looked after: started, started again with more and more time between, ended.
use super::frame::{Order, Told, Word};
use super::life::{Ended, Life, Look, crashed};
use super::process::{Event, Process, here, poke, poke_new, poll};
use crate::isolated::{Settings, abandoned};
use nnrp_core::condvar::Condvar;
use nnrp_core::stop::Cause;
use nnrp_core::{ModelSpec, NnrpError, Reason, Result, Stop};
use parking_lot::{Mutex, MutexGuard, RwLock};
use serde_json::{Map, Value, json};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long nobody waits before the first try to start again, and how long at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Longest wait before a try to start again through which requests wait: with a longer one it ended again and again.
const SOON: Duration = Duration::from_secs(1);
/// A process that lived so long is started again as if it were the first time.
const STEADY: Duration = Duration::from_secs(60);
/// How often runs that nobody waits for are looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long a process has to close its session.
const CLOSE: Duration = Duration::from_secs(2);

/// A model's process, whichever it is now.
pub(super) struct Home {
    pub(super) runtime: &'static str,
    pub(super) settings: Arc<Settings>,
    /// What is loaded, with the options that hold.
    pub(super) spec: Mutex<ModelSpec>,
    /// Where each process begins: what a path means does not change.
    folder: Option<OwnedFd>,
    state: RwLock<State>,
    /// Told, with the lock, of each change of the state.
    change: (Mutex<()>, Condvar),
    closing: AtomicBool,
    poke: OwnedFd,
    restarts: AtomicU64,
    crashes: AtomicU64,
    last_exit: Mutex<Option<String>>,
}

enum State {
    Up(Arc<Life>, u32),
    /// With the time of the next try, and whether requests wait through it: it is near, and the last one did not fail.
    Down(Ended, Instant, bool),
}

/// Its supervisor, and what the first process told.
pub(super) type Started = (Arc<Home>, JoinHandle<()>, Told);

impl Home {
    /// Starts a process and has it load the model.
    ///
    /// # Errors
    /// As [`Process::load`]; `LOAD_FAILED` when no process can be started.
    pub(super) fn start(runtime: &'static str, settings: Arc<Settings>, spec: ModelSpec) -> Result<Started> {
        let failed = |error: std::io::Error| no_process(runtime, &error);
        let home = Home {
            runtime,
            settings,
            spec: Mutex::new(spec),
            folder: here(),
            state: RwLock::new(State::Down(Ended { exit: "not started".to_owned(), again: BACKOFF.0 }, Instant::now(), false)),
            change: Default::default(),
            closing: AtomicBool::new(false),
            poke: poke_new().map_err(failed)?,
            restarts: AtomicU64::new(0),
            crashes: AtomicU64::new(0),
            last_exit: Mutex::new(None),
        };
        let home = Arc::new(home);
        let (sender, receiver) = sync_channel(1);
        let supervised = home.clone();
        let thread = std::thread::Builder::new().name("nnrp-isolated".to_owned()).spawn(move || supervised.supervise(sender)).map_err(failed)?;
        match home.first(&receiver) {
            Ok(Ok(told)) => Ok((home, thread, told)),
            Ok(Err(error)) => Err(error),
            Err(_gone) => Err(NnrpError::new(Reason::Bug, "the supervisor of an isolated model ended")),
        }
    }

    /// Waits for what the first process told, no longer than who loads wants to: then that process is ended.
    fn first(&self, receiver: &Receiver<Result<Told>>) -> std::result::Result<Result<Told>, RecvError> {
        let Some(look) = self.settings.look else { return receiver.recv() };
        while !look() {
            match receiver.recv_timeout(nnrp_core::stop::LOOK) {
                Err(RecvTimeoutError::Timeout) => {}
                other => return other.map_err(|_gone| RecvError),
            }
        }
        self.close();
        // One that was there just before goes with the model that nobody has.
        receiver.recv().map(|told| told.and(Err(abandoned())))
    }

    /// The process that is there.
    ///
    /// # Errors
    /// `RUNTIME_CRASHED` while there is none.
    #[inline]
    pub(super) fn life(&self) -> Result<Arc<Life>> {
        match &*self.state.read() {
            State::Up(life, _) => Ok(life.clone()),
            State::Down(ended, until, _) => Err(self.away(ended, *until)),
        }
    }

    /// Waits on this thread until there is a process, or `stop` is raised.
    ///
    /// # Errors
    /// `RUNTIME_CRASHED` once none is to be had soon.
    pub(super) fn back(self: &Arc<Home>, stop: &Stop) -> Result<()> {
        let (mut back, home) = (Ok(()), self.clone());
        let changed = move || home.changed();
        let mut wait = |look: nnrp_core::stop::Look<'_>| back = stop.during(changed.clone(), || self.await_change(stop, look));
        match self.settings.aside {
            Some(aside) => aside(&mut wait),
            None => wait(&mut || false),
        }
        back
    }

    fn await_change(&self, stop: &Stop, look: nnrp_core::stop::Look<'_>) -> Result<()> {
        let mut lock = self.change.0.lock();
        while stop.cause().is_none() {
            match &*self.state.read() {
                State::Up(..) => return Ok(()),
                State::Down(ended, until, false) => return Err(self.away(ended, *until)),
                State::Down(.., true) => {}
            }
            if self.change.1.wait_for(&mut lock, nnrp_core::stop::LOOK).timed_out() {
                let look = || {
                    if look() {
                        stop.raise(Cause::Cancelled)
                    }
                };
                MutexGuard::unlocked(&mut lock, look);
            }
        }
        Ok(())
    }

    #[cold]
    fn away(&self, ended: &Ended, until: Instant) -> NnrpError {
        let again = until.saturating_duration_since(Instant::now());
        crashed(self.runtime, &Ended { again, ..ended.clone() }, false)
    }

    fn change_to(&self, state: State) {
        *self.state.write() = state;
        self.changed();
    }

    fn changed(&self) {
        // Under the lock, so that who has just looked waits already.
        let _lock = self.change.0.lock();
        self.change.1.notify_all();
    }

    /// What became of it so far.
    pub(super) fn told(&self) -> Map<String, Value> {
        let id = if let State::Up(_, id) = &*self.state.read() { Some(*id) } else { None };
        let [restarts, crashes] = [&self.restarts, &self.crashes].map(|count| count.load(Ordering::Relaxed));
        let told = json!({"id": id, "restarts": restarts, "crashes": crashes, "last_exit": *self.last_exit.lock()});
        [("process".to_owned(), told)].into_iter().collect()
    }

    /// Makes the supervisor look around.
    pub(super) fn poke(&self) {
        poke(&self.poke);
    }

    /// Has the process ended, for good.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.poke();
    }

    fn closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// The supervisor's life, which is longer than that of each process.
    fn supervise(&self, first: SyncSender<Result<Told>>) {
        let (mut first, mut backoff, mut signature) = (Some(first), BACKOFF.0, None);
        loop {
            match self.begin() {
                Ok((process, life, told)) if signature.as_ref().is_none_or(|known| *known == shape_of(&told)) => {
                    signature.get_or_insert_with(|| shape_of(&told));
                    self.change_to(State::Up(life.clone(), process.id()));
                    match first.take() {
                        Some(first) => drop(first.send(Ok(told))),
                        None => self.restarted(process.id()),
                    }
                    backoff = self.attend(process, &life, backoff);
                }
                Ok(_other) => self.down("its model has another signature now".to_owned(), backoff, false),
                Err(error) => {
                    if let Some(first) = first.take() {
                        let _gone = first.send(Err(error));
                        return;
                    }
                    self.down(error.message().to_owned(), backoff, false);
                }
            }
            if self.rest(backoff) {
                return;
            }
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    fn begin(&self) -> Result<(Process, Arc<Life>, Told)> {
        let spec = self.spec.lock().clone();
        let started = Process::start(&self.settings, self.runtime, self.folder.as_ref());
        let (mut process, life) = started.map_err(|error| no_process(self.runtime, &error))?;
        let told = process.load(&life, &spec, self.settings.load_limit, self.poke.as_fd(), || self.closing())?;
        life.open(told.seats, told.session["cancellable"] == true, told.session["exclusive"] == true);
        Ok((process, life, told))
    }

    /// Looks after a process until it ends or is to end, and tells when to start another.
    fn attend(&self, mut process: Process, life: &Life, backoff: Duration) -> Duration {
        let (mut look, began) = (Look::Nothing, Instant::now());
        let exit = loop {
            let limit = if look == Look::Nothing { None } else { Some(LOOK) };
            match process.wait(limit, self.poke.as_fd()) {
                Event::Said(Word::Answer { number, answer }) => life.answered(number, answer),
                Event::Said(_) | Event::Nothing => {}
                Event::Nonsense(error) => {
                    process.kill();
                    break format!("ended by us: {error}");
                }
                Event::Gone => break process.kill(),
            }
            if self.closing() {
                let _gone = life.order(&Order::Close);
                process.leave(CLOSE);
                life.end(Ended { exit: "the model was unloaded".to_owned(), again: Duration::ZERO });
                return backoff;
            }
            if life.deaf() {
                process.kill();
                break "ended by us: it took no orders".to_owned();
            }
            look = life.look(self.settings.stop_grace);
            if look == Look::Stuck {
                process.kill();
                break format!("ended by us: a run went on for {} s after nobody waited for it", self.settings.stop_grace.as_secs_f32());
            }
        };
        let again = if began.elapsed() > STEADY { BACKOFF.0 } else { backoff };
        self.down(exit.clone(), again, again <= SOON);
        life.end(Ended { exit, again });
        again
    }

    /// Notes that there is no process, and why, and whether requests wait for the next.
    fn down(&self, exit: String, again: Duration, soon: bool) {
        self.crashes.fetch_add(1, Ordering::Relaxed);
        *self.last_exit.lock() = Some(exit.clone());
        self.change_to(State::Down(Ended { exit: exit.clone(), again }, Instant::now() + again, soon));
        let (name, version) = self.named();
        eprintln!("nnrp: model '{name}': its process ended ({exit}); it is started again in {} ms", again.as_millis());
        self.settings.events.tell(json!({"event": "ended", "model": name, "version": version, "exit": exit, "again_ms": again.as_millis() as u64}));
    }

    /// Notes that there is a process again.
    fn restarted(&self, id: u32) {
        let restarts = self.restarts.fetch_add(1, Ordering::Relaxed) + 1;
        let (name, version) = self.named();
        self.settings.events.tell(json!({"event": "restarted", "model": name, "version": version, "id": id, "restarts": restarts}));
    }

    fn named(&self) -> (String, String) {
        let spec = self.spec.lock();
        (spec.name.clone(), spec.version.clone())
    }

    /// Waits for the next try; true when there is none.
    fn rest(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            if self.closing() {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            if poll([self.poke.as_fd()], Some(left))[0] {
                super::process::drain(self.poke.as_fd());
            }
        }
    }
}

/// What must be the same for those who know a model to go on with it.
fn shape_of(told: &Told) -> Value {
    json!([told.session["inputs"], told.session["outputs"], told.session["exclusive"], told.session["streams"], told.own_threads])
}

#[cold]
fn no_process(runtime: &'static str, error: &std::io::Error) -> NnrpError {
    let message = format!("runtime {runtime}: no process could be started for the model: {}", error.kind());
    NnrpError::new(Reason::LoadFailed, message).with("runtime", runtime)
}
