//! Handing out places in a range, by whole pages, the lowest that fits.
use std::collections::BTreeMap;
use std::ops::Range;

const PAGE: usize = 4096;

/// What is free.
pub(super) struct Arena {
    /// Where each free place begins, and how long it is.
    places: BTreeMap<usize, usize>,
    /// Bytes of all of them.
    free: usize,
}

impl Arena {
    pub(super) fn new(range: Range<usize>) -> Arena {
        let start = range.start.next_multiple_of(PAGE);
        Arena { places: BTreeMap::from([(start, range.end - start)]), free: range.end - start }
    }

    /// A place of that size, beside which that many bytes stay free; `None` when there is none.
    pub(super) fn take(&mut self, size: usize, left: usize) -> Option<Range<usize>> {
        let size = size.max(1).checked_next_multiple_of(PAGE)?;
        let free = self.free.checked_sub(size).filter(|free| *free >= left)?;
        let (&at, &length) = self.places.iter().find(|(_, length)| **length >= size)?;
        self.places.remove(&at);
        if length > size {
            self.places.insert(at + size, length - size);
        }
        self.free = free;
        Some(at..at + size)
    }

    /// Takes a place back that [`Arena::take`] gave.
    pub(super) fn give(&mut self, place: Range<usize>) {
        let (mut start, mut length) = (place.start, place.len());
        self.free += length;
        if let Some((&before, &size)) = self.places.range(..start).next_back()
            && before + size == start
        {
            self.places.remove(&before);
            (start, length) = (before, length + size);
        }
        if let Some(size) = self.places.remove(&place.end) {
            length += size;
        }
        self.places.insert(start, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_whole_again_in_whichever_order() {
        let mut arena = Arena::new(100..10 * PAGE);
        assert_eq!(arena.take(5 * PAGE, 4 * PAGE + 1), None);
        let places: Vec<_> = (0..9).map(|_| arena.take(PAGE - 1, 0).unwrap()).collect();
        assert!(places.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(arena.take(1, 0), None);
        for index in [4, 3, 8, 0, 1, 2, 7, 5, 6] {
            arena.give(places[index].clone());
        }
        assert_eq!(arena.take(9 * PAGE, 0), Some(PAGE..10 * PAGE));
        assert_eq!(arena.take(usize::MAX, 0), None);
    }
}
