//! What is asked and what is replied, as 64-bit words. What comes from the other process is read on no trust: every number is checked.
use nnrp_core::Datatype;
use smallvec::SmallVec;

/// Most words that are read; beyond what any signature needs.
pub(super) const MOST_WORDS: usize = 1 << 20;
/// In the place of a tensor that is not there, and of a block that need not be given back.
const NONE: u64 = u64::MAX;

/// What a reply is, its first word: the outputs of a run, or an error, which are the last; an answer of a stream, which is not; the end of a stream.
pub(super) const OUTPUTS: u64 = 0;
pub(super) const ERROR: u64 = 1;
pub(super) const ANSWER: u64 = 2;
pub(super) const END: u64 = 3;

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

/// Says one tensor.
pub(super) fn say(words: &mut Words, tensor: Option<&Placed>) {
    let Some(Placed { at, byte_size, block, datatype, shape }) = tensor else { return words.push(NONE) };
    words.push(*at as u64);
    words.push(*byte_size as u64);
    words.push(block.map_or(NONE, |block| block as u64));
    words.push(*datatype as u64);
    words.push(shape.len() as u64);
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

    /// The next, a count of things that have a word each at least.
    pub(super) fn count(&mut self) -> Option<usize> {
        self.number().filter(|count| *count <= self.0.len())
    }

    /// The next tensor; the inner `None` is one that is not there, the outer one nonsense.
    pub(super) fn tensor(&mut self) -> Option<Option<Placed>> {
        let at = self.word()?;
        if at == NONE {
            return Some(None);
        }
        let (at, byte_size, block) = (usize::try_from(at).ok()?, self.number()?, self.word()?);
        let block = if block == NONE { None } else { Some(usize::try_from(block).ok()?) };
        let datatype = *Datatype::ALL.get(self.number()?)?;
        let rank = self.count()?;
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
    fn words_that_are_cut_off_or_changed_are_nonsense_and_never_more_than_there_is() {
        let mut words = Words::new();
        say(&mut words, Some(&placed()));
        for end in 0..words.len() {
            assert_eq!(Reader(&words[..end]).tensor(), None, "{end}");
        }
        for (place, value) in [(3, 255), (4, u64::MAX), (4, 1 << 40), (1, u64::MAX)] {
            let mut wrong = words.clone();
            wrong[place] = value;
            let read = Reader(&wrong).tensor();
            assert!(read.is_none() || read.is_some_and(|tensor| tensor.is_some_and(|tensor| tensor.byte_size == usize::MAX)), "{place}");
        }
    }
}
