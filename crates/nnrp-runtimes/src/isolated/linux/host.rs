//! The other process: loads one model, and answers what is asked of it until the engine is gone.
use super::frame::{Aside, Incoming, Order, Told, Want, Word, write};
use super::futex::{self, BACK_TO_BACK};
use super::output::{Blocks, Laid, Said};
use super::region::{Piece, Region, SEATS};
use super::seat::{NUDGE, reply_room};
use super::words::{ASIDE, LATE, LEFT, MOST_WORDS, PICKED, Placed, Reader, Words};
use crate::c::clock::instant;
use bytes::Bytes;
use nnrp_core::error::panicked;
use nnrp_core::runtime::Room;
use nnrp_core::{Concurrency, Control, Data, ModelSpec, NnrpError, Outputs, Parameters, Reason, Result, Session, Stop, Tensor, Threads};
use parking_lot::{Condvar, Mutex};
use smallvec::{SmallVec, smallvec};
use std::io;
use std::ops::Range;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long runs that go on have when everything is to end.
const CLOSE: Duration = Duration::from_secs(1);

/// Hosts one model: loads what the engine at the other end of the socket describes, and runs it until the engine wants no more or is gone.
///
/// `descriptors` are the last two words that the process was started with: an open socket and an open memory file, which are taken over.
///
/// # Errors
/// When the descriptors are not what was said, or the engine talks nonsense.
pub fn host(descriptors: [RawFd; 2], load: impl FnOnce(&ModelSpec) -> Result<Box<dyn Session>>) -> io::Result<()> {
    let [socket, memory] = descriptors.map(adopt);
    let (stream, region) = (UnixStream::from(socket?), Arc::new(Region::open(&memory?)?));
    let mut incoming = Incoming::default();
    let Some(Order::Load(spec, max_output_bytes)) = next(&stream, &mut incoming)? else { return Ok(()) };
    let session = match catch_unwind(AssertUnwindSafe(|| load(&spec))).unwrap_or_else(|_panic| Err(panicked())) {
        Ok(session) => session,
        Err(error) => return write(&mut &stream, &Word::Refused(error.to_json())),
    };
    let told = told(&*session);
    let host = Arc::new(Host {
        session,
        max_output_bytes,
        blocks: Mutex::new(Blocks::default()),
        region,
        running: [const { Mutex::new(Running { run: 0, stop: None, stopped: 0 }) }; SEATS],
        closing: AtomicBool::new(false),
        answers: Mutex::new(stream.try_clone()?),
    });
    let seated = Arc::new((Mutex::new(0), Condvar::new()));
    for seat in 0..told.seats {
        host.seat(seat, &seated)?;
    }
    write(&mut *host.answers.lock(), &Word::Loaded(Box::new(told)))?;
    while let Some(order) = next(&stream, &mut incoming)? {
        match order {
            Order::Stop { seat, run } => host.stop(seat, run),
            Order::Ask { number, want } => host.clone().ask(number, want)?,
            Order::Load(..) => return Err(io::Error::other("a second model")),
            Order::Close => break,
        }
    }
    host.close();
    let until = Instant::now() + CLOSE;
    let mut left = seated.0.lock();
    while *left > 0 && !seated.1.wait_until(&mut left, until).timed_out() {}
    Ok(())
}

/// Takes over a descriptor that the process was started with, so that no process of its own inherits it.
fn adopt(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call, which fails for what is no open descriptor.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open, and by what was agreed on nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The next order; `None` when the engine is gone.
fn next(mut stream: &UnixStream, incoming: &mut Incoming) -> io::Result<Option<Order>> {
    loop {
        if let Some(order) = incoming.next()? {
            return Ok(Some(order));
        }
        if !incoming.read(&mut stream)? {
            return Ok(None);
        }
    }
}

fn told(session: &dyn Session) -> Told {
    let info = session.info();
    let workers = session.workers();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let seats = match info.concurrency {
        Concurrency::Exclusive => 1,
        Concurrency::Shared => workers.unwrap_or(2 * cores + 2).clamp(1, SEATS),
    };
    Told { session: info.told(), own_threads: info.threads == Threads::Own, workers, seats }
}

pub(super) struct Host {
    pub(super) session: Box<dyn Session>,
    /// Most bytes of all outputs of a run.
    max_output_bytes: usize,
    pub(super) region: Arc<Region>,
    pub(super) blocks: Mutex<Blocks>,
    running: [Mutex<Running>; SEATS],
    pub(super) closing: AtomicBool,
    answers: Mutex<UnixStream>,
}

/// How many threads of seats there are, and that there is one less.
type Seated = Arc<(Mutex<usize>, Condvar)>;

/// The run of a seat that may be stopped.
struct Running {
    run: u32,
    stop: Option<Arc<Stop>>,
    /// A run whose stop came before the run itself was seen.
    stopped: u32,
}

/// What the engine asks for.
#[derive(Default)]
pub(super) struct Asked {
    deadline: Option<Instant>,
    /// Whether it may be stopped.
    watched: bool,
    pub(super) outputs: SmallVec<[usize; 4]>,
    pub(super) inputs: SmallVec<[Option<Tensor<'static>>; 4]>,
    pub(super) aside: Aside,
}

impl Asked {
    pub(super) fn control<'a>(&'a self, stop: Option<&'a Stop>, parameters: &'a Parameters) -> Control<'a> {
        Control { stop, deadline: self.deadline, id: self.aside.id.as_deref(), parameters }
    }
}

impl Host {
    /// Starts the thread of a seat.
    fn seat(self: &Arc<Host>, seat: usize, seated: &Seated) -> io::Result<()> {
        let (host, seated) = (self.clone(), seated.clone());
        *seated.0.lock() += 1;
        let life = move || {
            host.session.work(&mut || if host.session.info().streams { host.give(seat) } else { host.serve(seat) });
            // Before anybody is told, so that who waits for it closes the session, and not this thread, which nobody waits for.
            drop(host);
            *seated.0.lock() -= 1;
            seated.1.notify_all();
        };
        std::thread::Builder::new().name(format!("nnrp-seat-{seat}")).spawn(life).map(drop)
    }

    /// Answers run after run.
    fn serve(&self, seat: usize) {
        let post = &self.region.table().seats[seat];
        let (mut seen, mut spin, mut words_block) = (0, false, None::<usize>);
        let (mut answered, mut took) = (Instant::now(), Duration::ZERO);
        loop {
            let (run, begun) = futex::wait_since(answered, &post.ask().word, &post.host_sleeps.0, seen, spin);
            post.fetch_ask();
            post.begun.0.store(run, Ordering::Release);
            if self.closing.load(Ordering::SeqCst) {
                return;
            }
            (seen, spin) = (run, begun - answered < BACK_TO_BACK);
            if let Some(block) = words_block.take() {
                // Who asks has read the words of the last reply.
                self.region.table().freed[block].store(1, Ordering::Release);
            }
            // Ended only once it was replied, for that takes its time too.
            let (mut laid, mut asked) = (self.laid(reply_room(seat)), Asked::default());
            let ran = self.run(seat, run, &mut asked, &laid);
            let said = ran.as_ref().map_err(NnrpError::clone).and_then(|outputs| laid.outputs(outputs));
            let Said { at, count, block } = said.unwrap_or_else(|error| laid.error(&error));
            words_block = block;
            post.reply().spot.put(at, count);
            post.reply().took.store(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX), Ordering::Relaxed);
            futex::post(&post.reply().word, &post.engine_sleeps.0, run);
            drop((laid, ran, asked));
            answered = Instant::now();
            took = answered - begun;
        }
    }

    /// A reply that is begun, with a room for what is small.
    pub(super) fn laid(&self, room: Range<usize>) -> Laid<'_> {
        Laid::new(&self.region, &self.blocks, room, self.session.info().runtime, self.max_output_bytes)
    }

    /// Runs what is asked.
    fn run(&self, seat: usize, run: u32, asked: &mut Asked, room: &dyn Room) -> Result<Outputs> {
        self.asked(seat, asked)?;
        let (stop, parameters) = (asked.watched.then(|| self.watch(seat, run)), asked.aside.parameters());
        let control = asked.control(stop.as_deref(), &parameters);
        let ran = AssertUnwindSafe(|| self.session.run_into(&asked.inputs, &asked.outputs, control, room));
        let result = catch_unwind(ran).unwrap_or_else(|_panic| Err(panicked()));
        if asked.watched {
            self.unwatch(seat);
        }
        result
    }

    /// Reads what is asked; it is too large to be handed on.
    pub(super) fn asked(&self, seat: usize, asked: &mut Asked) -> Result<()> {
        let (at, count) = self.region.table().seats[seat].ask().spot.get();
        let mut words: Words = smallvec![0; count.min(MOST_WORDS)];
        self.region.read_words(at, &mut words);
        self.read(&mut Reader(&words), asked).ok_or_else(|| NnrpError::new(Reason::Bug, "what the engine asks makes no sense"))
    }

    fn read(&self, reader: &mut Reader<'_>, asked: &mut Asked) -> Option<()> {
        let (meant, inputs, outputs) = reader.ask()?;
        let means = |bit| meant & bit != 0;
        asked.watched = means(LEFT);
        asked.deadline = if means(LATE) { instant(reader.word()?) } else { None };
        for index in 0..outputs {
            asked.outputs.push(if means(PICKED) { reader.number()? } else { index });
        }
        for _ in 0..inputs {
            asked.inputs.push(reader.tensor()?.map(|placed| self.input(placed)));
        }
        if means(ASIDE) {
            asked.aside = serde_json::from_slice(self.input(reader.tensor()??).bytes()).ok()?;
        }
        Some(())
    }

    fn input(&self, placed: Placed) -> Tensor<'static> {
        let Placed { at, byte_size, datatype, shape, .. } = placed;
        let bytes = if byte_size == 0 { Bytes::new() } else { Bytes::from_owner(Piece::new(&self.region, at, byte_size, None)) };
        Tensor { datatype, shape, data: Data::Shared(bytes) }
    }

    pub(super) fn watch(&self, seat: usize, run: u32) -> Arc<Stop> {
        let stop = Arc::new(Stop::default());
        let mut running = self.running[seat].lock();
        (running.run, running.stop) = (run, Some(stop.clone()));
        let stopped = running.stopped == run;
        drop(running);
        if stopped {
            stop.raise(nnrp_core::Cause::Cancelled);
        }
        stop
    }

    /// The run is over.
    pub(super) fn unwatch(&self, seat: usize) {
        self.running[seat].lock().stop = None;
    }

    fn stop(&self, seat: usize, run: u32) {
        let Some(running) = self.running.get(seat) else { return };
        let mut running = running.lock();
        running.stopped = run;
        let stop = running.stop.clone().filter(|_| running.run == run);
        drop(running);
        if let Some(stop) = stop {
            stop.raise(nnrp_core::Cause::Cancelled);
        }
    }

    /// Answers what a session may offer, on a thread of its own: it may take its time.
    fn ask(self: Arc<Host>, number: u64, want: Want) -> io::Result<()> {
        let answer = move || {
            let asked = catch_unwind(AssertUnwindSafe(|| self.session.tend(want.verb())));
            let answer = asked.unwrap_or_else(|_panic| Err(panicked())).map_err(|error| error.to_json());
            // An engine that is gone needs no answer.
            let _gone = write(&mut *self.answers.lock(), &Word::Answer { number, answer });
        };
        std::thread::Builder::new().name("nnrp-verb".to_owned()).spawn(answer).map(drop)
    }

    /// Has the threads of the seats end, each after its run.
    fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        for seat in &self.region.table().seats {
            for word in [&seat.ask().word, &seat.taken.0] {
                word.fetch_or(NUDGE, Ordering::SeqCst);
                futex::wake(word);
            }
        }
    }
}
