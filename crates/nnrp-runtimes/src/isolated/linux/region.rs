//! The memory that an engine shares with the process of one isolated model: seats, where runs are asked for and answered, and room for tensors.
//!
//! Both sides see the same bytes at the same offsets. What decides what becomes of memory lies outside of it, with the side that owns the decision.
use super::seat::Seat;
use nnrp_core::runtime::Place;
use std::io;
use std::mem::size_of;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Most runs at once.
pub(super) const SEATS: usize = 64;
/// Outputs beyond a seat's own room that may be in use at once.
pub(super) const BLOCKS: usize = 4096;
/// Address space for large tensors, each way; memory is taken where something was written.
const ARENA: usize = 4 << 30;
/// Freed memory of this size, or beyond this depth of its arena, goes back to the system at once, so that neither one huge request nor many at once cost
/// memory for ever.
const KEPT: usize = 8 << 20;
const KEPT_DEPTH: usize = 64 << 20;

/// What lies at the beginning.
#[repr(C)]
pub(super) struct Table {
    pub(super) seats: [Seat; SEATS],
    /// Not 0 where the engine needs the output no longer.
    pub(super) freed: [AtomicU32; BLOCKS],
}

const ASKS: usize = size_of::<Table>().next_multiple_of(4096);
const REPLIES: usize = ASKS + ARENA;
const SIZE: usize = REPLIES + ARENA;

/// Room for large inputs, which the engine hands out.
pub(super) const fn ask_arena() -> Range<usize> {
    ASKS..REPLIES
}

/// Room for large outputs, which the other process hands out.
pub(super) const fn reply_arena() -> Range<usize> {
    REPLIES..SIZE
}

/// Shared memory, mapped; unmapped with its last user.
pub(super) struct Region {
    base: NonNull<u8>,
    process: u32,
    /// Outputs that are read where they lie, and their bytes.
    lent: [AtomicUsize; 2],
}

// SAFETY: the mapping is there for every thread, and nothing of it is reached but through atomics and copies.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// New memory, which neither side can make shorter, and the descriptor to give to the other process.
    pub(super) fn create() -> io::Result<(Region, OwnedFd)> {
        // SAFETY: the name ends with NUL, and a descriptor that is made is owned at once.
        let fd = unsafe {
            let fd = libc::memfd_create(c"nnrp".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
            checked(fd)?;
            OwnedFd::from_raw_fd(fd)
        };
        // SAFETY: plain system calls on a descriptor that is open.
        unsafe {
            checked(libc::ftruncate(fd.as_raw_fd(), SIZE as libc::off_t))?;
            checked(libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL))?;
        }
        Ok((Region::map(&fd)?, fd))
    }

    /// The memory that the other process made.
    pub(super) fn open(fd: &OwnedFd) -> io::Result<Region> {
        // SAFETY: all zero bits are a value of it, and it is there to be filled.
        let mut told: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: as above; the descriptor is open.
        checked(unsafe { libc::fstat(fd.as_raw_fd(), &raw mut told) })?;
        if told.st_size != SIZE as libc::off_t {
            return Err(io::Error::other("shared memory of another size: the two processes are of different versions"));
        }
        let region = Region::map(fd)?;
        let inputs = ask_arena();
        // What the engine gathers and hands out there is not for this process to change, and a library's stray write must not.
        // SAFETY: of our own mapping, and nothing refers to it yet.
        checked(unsafe { libc::mprotect(region.pointer(inputs.start, inputs.len()).cast(), inputs.len(), libc::PROT_READ) })?;
        Ok(region)
    }

    fn map(fd: &OwnedFd) -> io::Result<Region> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_NORESERVE);
        // SAFETY: a new mapping, wherever there is place for it.
        let base = unsafe { libc::mmap(null_mut(), SIZE, access, flags, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: of our own mapping; a dump of the process need not have gigabytes of holes.
        unsafe { libc::madvise(base, SIZE, libc::MADV_DONTDUMP) };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("a mapping at address 0"))?;
        Ok(Region { base, process: std::process::id(), lent: Default::default() })
    }

    /// What lies at the beginning.
    pub(super) fn table(&self) -> &Table {
        // SAFETY: the mapping is longer and aligned to a page; everything in a table is atomic, and zeros are a value of it.
        unsafe { self.base.cast::<Table>().as_ref() }
    }

    fn pointer(&self, at: usize, length: usize) -> *mut u8 {
        assert!(at.checked_add(length).is_some_and(|end| end <= SIZE), "a place outside of the shared memory");
        // SAFETY: within the mapping, as was just seen.
        unsafe { self.base.as_ptr().add(at) }
    }

    /// Copies bytes in.
    pub(super) fn write(&self, at: usize, bytes: &[u8]) {
        // SAFETY: as many bytes are there; who writes has the place for itself by what the two sides have agreed on.
        unsafe { self.pointer(at, bytes.len()).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Copies bytes out. The other side may change them meanwhile; what was copied stays.
    pub(super) fn read(&self, at: usize, bytes: &mut [u8]) {
        // SAFETY: as many bytes are there.
        unsafe { self.pointer(at, bytes.len()).copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
    }

    /// Copies words in.
    pub(super) fn write_words(&self, at: usize, words: &[u64]) {
        // SAFETY: words are bytes too, without a gap.
        self.write(at, unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) });
    }

    /// Copies words out.
    pub(super) fn read_words(&self, at: usize, words: &mut [u64]) {
        // SAFETY: words are bytes too, without a gap, and any bytes are words.
        self.read(at, unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) });
    }

    /// Where bytes lie in here, if they do.
    pub(super) fn place_of(&self, bytes: &[u8]) -> Option<usize> {
        let at = (bytes.as_ptr() as usize).checked_sub(self.base.as_ptr() as usize)?;
        (at >= ASKS && at.checked_add(bytes.len())? <= SIZE).then_some(at)
    }

    /// Whether fewer than half of the blocks or of the bytes for outputs are free.
    pub(super) fn scarce(&self) -> bool {
        let [blocks, bytes] = self.lent.each_ref().map(|lent| lent.load(Ordering::Relaxed));
        blocks > BLOCKS / 2 || bytes > ARENA / 2
    }

    /// Gives the memory of a large place that nobody uses back to the system.
    pub(super) fn forget(&self, place: &Range<usize>) {
        let (at, length) = (place.start, place.len());
        if length >= KEPT || (at - ASKS) % ARENA >= KEPT_DEPTH {
            // SAFETY: of our own mapping, and nobody uses the place; a failure leaves the memory where it is.
            unsafe { libc::madvise(self.pointer(at, length).cast(), length, libc::MADV_REMOVE) };
        }
    }

    /// Bytes where they lie.
    ///
    /// The side that wrote them has said that it is done; were it to write all the same, the numbers would be wrong, as its numbers may be anyway, and
    /// nothing here relies on more of a tensor than on its length. Requests that were gathered there are decoded where they lie: no mistake of the process can
    /// change them, which has them mapped for reading; of one that maps them anew on purpose decision 0014 speaks.
    pub(super) fn bytes(&self, at: usize, length: usize) -> &[u8] {
        // SAFETY: within the mapping, which lives as long; for what else may write to it see above.
        unsafe { std::slice::from_raw_parts(self.pointer(at, length), length) }
    }

    /// Likewise, to be written to.
    ///
    /// # Safety
    /// Nobody else has the place.
    #[allow(clippy::mut_from_ref, reason = "who calls it has the place for itself")]
    pub(super) unsafe fn bytes_mut(&self, at: usize, length: usize) -> &mut [u8] {
        // SAFETY: within the mapping, which lives as long; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(at, length), length) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, with this size, and nobody refers to it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), SIZE) };
    }
}

/// Bytes that are read where they lie.
pub(super) struct Piece {
    region: Arc<Region>,
    at: usize,
    length: usize,
    /// What to tell the other side when nobody needs them any more.
    block: Option<usize>,
}

impl Piece {
    pub(super) fn new(region: &Arc<Region>, at: usize, length: usize, block: Option<usize>) -> Piece {
        if block.is_some() {
            region.lent[0].fetch_add(1, Ordering::Relaxed);
            region.lent[1].fetch_add(length, Ordering::Relaxed);
        }
        Piece { region: region.clone(), at, length, block }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.region.bytes(self.at, self.length)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // A fork has a copy of what was given out, which is not its own to give back.
        if let Some(freed) = self.block.and_then(|block| self.region.table().freed.get(block))
            && self.region.process == std::process::id()
        {
            self.region.lent[0].fetch_sub(1, Ordering::Relaxed);
            self.region.lent[1].fetch_sub(self.length, Ordering::Relaxed);
            freed.store(1, Ordering::Release);
        }
    }
}

/// A place to be written to, by a runtime that takes it.
pub(super) struct Slab {
    region: Arc<Region>,
    place: Range<usize>,
}

impl Slab {
    pub(super) fn new(region: &Arc<Region>, place: Range<usize>) -> Slab {
        Slab { region: region.clone(), place }
    }
}

impl AsRef<[u8]> for Slab {
    fn as_ref(&self) -> &[u8] {
        self.region.bytes(self.place.start, self.place.len())
    }
}

impl AsMut<[u8]> for Slab {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: nobody else has the place until it is given away in a reply.
        unsafe { self.region.bytes_mut(self.place.start, self.place.len()) }
    }
}

impl Place for Slab {}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_mappings_see_the_same_bytes_and_neither_can_be_cut() {
        let (ours, fd) = Region::create().unwrap();
        let theirs = Region::open(&fd).unwrap();
        ours.write(ask_arena().start + 5, b"beads");
        let mut seen = [0; 5];
        theirs.read(ask_arena().start + 5, &mut seen);
        assert_eq!(&seen, b"beads");
        // SAFETY: a plain system call.
        assert_eq!(unsafe { libc::ftruncate(fd.as_raw_fd(), 4096) }, -1);
    }

    #[test]
    fn a_piece_is_found_in_its_own_region_and_given_back_once() {
        let (region, _fd) = Region::create().unwrap();
        let region = Arc::new(region);
        let piece = Piece::new(&region, reply_arena().start, 64, Some(7));
        assert_eq!(region.place_of(piece.as_ref()), Some(reply_arena().start));
        assert_eq!(region.place_of(&[0; 64]), None);
        assert_eq!(region.table().freed[7].load(Ordering::Acquire), 0);
        drop(piece);
        assert_eq!(region.table().freed[7].load(Ordering::Acquire), 1);
        assert_eq!(region.lent.each_ref().map(|lent| lent.load(Ordering::Relaxed)), [0, 0]);
    }

    #[test]
    fn what_many_took_at_once_goes_back_to_the_system_and_what_few_take_stays() {
        let (region, fd) = Region::create().unwrap();
        let taken = || {
            // SAFETY: all zero bits are a value of it; the descriptor is open.
            unsafe {
                let mut told: libc::stat = std::mem::zeroed();
                assert_eq!(libc::fstat(fd.as_raw_fd(), &raw mut told), 0);
                told.st_blocks * 512
            }
        };
        for (arena, depth, stays) in [(ask_arena(), 0, true), (ask_arena(), KEPT_DEPTH, false), (reply_arena(), 0, true), (reply_arena(), ARENA - 4096, false)]
        {
            let (start, before) = (arena.start + depth, taken());
            region.write(start, &[1; 4096]);
            assert!(taken() > before);
            region.forget(&(start..start + 4096));
            assert_eq!(taken() > before, stays, "{depth}");
        }
    }

    #[test]
    #[should_panic(expected = "outside of the shared memory")]
    fn a_place_beyond_the_end_is_never_written_to() {
        Region::create().unwrap().0.write(SIZE - 1, &[0; 2]);
    }
}
