//! What is asked and what is replied, as 64-bit words. What comes from the other process is read on no trust: every number is checked.
use nnrp_core::{Datatype, Tensor};
use smallvec::SmallVec;

/// Most words that are read; beyond what any signature needs.
pub(super) const MOST_WORDS: usize = 1 << 20;
/// In the place of a tensor that is not there.
const NONE: u64 = u64::MAX;

/// What a reply is: the outputs of a run, or an error, which are the last; an answer of a stream, which is not; the end of a stream.
pub(super) const OUTPUTS: u64 = 0;
pub(super) const ERROR: u64 = 1;
pub(super) const ANSWER: u64 = 2;
pub(super) const END: u64 = 3;

/// How an ask is meant: it may be left to itself, has a deadline, has something that goes along, wants outputs that are told one by one and not just the first.
pub(super) const LEFT: u64 = 1;
pub(super) const LATE: u64 = 2;
pub(super) const ASIDE: u64 = 4;
pub(super) const PICKED: u64 = 8;

/// Words to be said.
pub(super) type Words = SmallVec<[u64; 64]>;

/// A tensor somewhere in the shared memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) at: usize,
    pub(super) byte_size: usize,
    /// What to give back.
    pub(super) block: Option<usize>,
    pub(super) datatype: Datatype,
    pub(super) shape: SmallVec<[i64; 4]>,
}

/// The first word of an ask: how it is meant, and how many inputs it has and outputs it wants.
pub(super) fn ask(meant: u64, inputs: usize, outputs: usize) -> u64 {
    meant | (inputs as u64) << 8 | (outputs as u64) << 32
}

/// The first word of a reply: what it is, and of how many tensors it tells.
pub(super) fn head(what: u64, count: usize) -> u64 {
    what | (count as u64) << 8
}

/// Words that a tensor of that rank takes: few, so that mostly all that is said lies on the cache line of the word that is waited for.
pub(super) fn length(tensor: Option<&Tensor<'_>>) -> usize {
    tensor.map_or(1, |tensor| 3 + tensor.shape.len())
}

/// Says one tensor.
pub(super) fn say(words: &mut Words, tensor: Option<&Placed>) {
    let Some(Placed { at, byte_size, block, datatype, shape }) = tensor else { return words.push(NONE) };
    let block = block.map_or(0, |block| block as u64 + 1);
    words.push(*at as u64);
    words.push(*datatype as u64 | (shape.len() as u64) << 8 | block << 32);
    words.push(*byte_size as u64);
    words.extend(shape.iter().map(|dim| *dim as u64));
}

/// Words that are read, one after another.
pub(super) struct Reader<'a>(pub(super) &'a [u64]);

impl Reader<'_> {
    /// The next word.
    pub(super) fn word(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next, a number that memory can count to.
    pub(super) fn number(&mut self) -> Option<usize> {
        usize::try_from(self.word()?).ok()
    }

    /// The next, what [`ask`] says.
    pub(super) fn ask(&mut self) -> Option<(u64, usize, usize)> {
        let ask = self.word()?;
        let outputs = usize::try_from(ask >> 32).ok().filter(|outputs| *outputs <= MOST_WORDS)?;
        Some((ask & 0xff, (ask as u32 >> 8) as usize, outputs))
    }

    /// The next, what [`head`] says; no more tensors than there are words.
    pub(super) fn head(&mut self) -> Option<(u64, usize)> {
        let head = self.word()?;
        let count = usize::try_from(head >> 8).ok()?;
        (count <= self.0.len()).then_some((head & 0xff, count))
    }

    /// The next tensor; the inner `None` is one that is not there, the outer one nonsense.
    pub(super) fn tensor(&mut self) -> Option<Option<Placed>> {
        let at = self.word()?;
        if at == NONE {
            return Some(None);
        }
        let (at, kind, byte_size) = (usize::try_from(at).ok()?, self.word()?, self.number()?);
        let datatype = *Datatype::ALL.get((kind & 0xff) as usize)?;
        let rank = Some((kind as u32 >> 8) as usize).filter(|rank| *rank <= self.0.len())?;
        let block = usize::try_from(kind >> 32).ok()?.checked_sub(1);
        let shape = (0..rank).map(|_| self.word().map(|dim| dim as i64)).collect::<Option<SmallVec<[i64; 4]>>>()?;
        Some(Some(Placed { at, byte_size, block, datatype, shape }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed() -> Placed {
        Placed { at: 4096, byte_size: 24, block: Some(3), datatype: Datatype::Fp32, shape: SmallVec::from_slice(&[2, 3]) }
    }

    #[test]
    fn what_is_said_is_read() {
        let mut words = Words::new();
        say(&mut words, Some(&placed()));
        say(&mut words, None);
        let mut reader = Reader(&words);
        assert_eq!(reader.tensor(), Some(Some(placed())));
        assert_eq!(reader.tensor(), Some(None));
        assert_eq!(reader.tensor(), None);
    }

    #[test]
    fn a_head_tells_of_no_more_tensors_than_there_are_words() {
        for (count, words) in [(0, 0), (0, 2), (2, 2)] {
            let said: Words = std::iter::once(head(ANSWER, count)).chain(std::iter::repeat_n(NONE, words)).collect();
            assert_eq!(Reader(&said).head(), Some((ANSWER, count)));
        }
        for wrong in [&[][..], &[head(ANSWER, 1)], &[head(ANSWER, 3), NONE, NONE], &[u64::MAX, NONE]] {
            assert_eq!(Reader(wrong).head(), None);
        }
    }

    #[test]
    fn words_that_are_cut_off_or_changed_are_nonsense_and_never_more_than_there_is() {
        let mut words = Words::new();
        say(&mut words, Some(&placed()));
        for end in 0..words.len() {
            assert_eq!(Reader(&words[..end]).tensor(), None, "{end}");
        }
        for (place, value) in [(1, 255), (1, u64::MAX), (1, 1 << 31 | 10), (2, u64::MAX)] {
            let mut wrong = words.clone();
            wrong[place] = value;
            let read = Reader(&wrong).tensor();
            assert!(read.is_none() || read.is_some_and(|tensor| tensor.is_some_and(|tensor| tensor.byte_size == usize::MAX)), "{place}");
        }
    }
}
