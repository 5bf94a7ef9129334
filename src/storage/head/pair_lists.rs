//! The label pairs of each series as numbers, packed: a few bytes a label, no allocation of its own
//! for each series.
//!
//! The lists of [`SERIES_PER_PAGE`] consecutive refs lie behind one another on a page. A list is its
//! length in bytes and the numbers, all as varints; one that is empty is a zero.

use super::lookup::{grow_by_an_eighth, truncate};
use larum_storage_format::varint::{get_uvarint, put_uvarint};
use std::ops::Range;

/// More would save little, and each has to be passed over to find the last.
const SERIES_PER_PAGE: usize = 16;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct PairLists {
    pages: Vec<Vec<u8>>,
    /// The list that is being packed.
    packed: Vec<u8>,
}

impl PairLists {
    /// The pairs of a series; none if it is not known.
    pub fn get(&self, series: u32) -> impl Iterator<Item = u32> {
        let at = series as usize;
        let page = self.pages.get(at / SERIES_PER_PAGE).map_or(&[][..], Vec::as_slice);
        let list = locate(page, at % SERIES_PER_PAGE).map_or(&[][..], |(_, list)| &page[list]);
        let mut next = 0;
        std::iter::from_fn(move || {
            let (pair, len) = get_uvarint(list.get(next..)?)?;
            next += len;
            Some(pair as u32)
        })
    }

    /// Gives a series these pairs in place of those it had.
    pub fn set(&mut self, series: u32, pairs: &[u32]) {
        let PairLists { pages, packed } = self;
        packed.clear();
        pairs.iter().for_each(|&pair| put_uvarint(packed, u64::from(pair)));
        let body = packed.len();
        put_uvarint(packed, body as u64);
        packed.rotate_left(body);

        let (at, position) = (series as usize / SERIES_PER_PAGE, series as usize % SERIES_PER_PAGE);
        if pages.len() <= at {
            grow_by_an_eighth(pages);
            pages.resize_with(at + 1, Vec::new);
        }
        let page = &mut pages[at];
        if page.capacity() == 0 {
            // The lists of neighbours are mostly about as long.
            page.reserve_exact(packed.len() * SERIES_PER_PAGE);
        }
        let old = loop {
            match locate(page, position) {
                Some((start, list)) => break start..list.end,
                None => page.push(0),
            }
        };
        page.splice(old, packed.iter().copied());
        if position + 1 == SERIES_PER_PAGE || pairs.is_empty() {
            page.shrink_to_fit();
        }
    }
}

impl PairLists {
    /// Forgets all series from `len` on, whose lists are empty.
    pub fn truncate(&mut self, len: usize) {
        truncate(&mut self.pages, len.div_ceil(SERIES_PER_PAGE));
    }
}

/// Where the list at `position` begins, and where its pairs lie; `None` if the page ends before.
fn locate(page: &[u8], position: usize) -> Option<(usize, Range<usize>)> {
    let mut start = 0;
    for left in (0..=position).rev() {
        let (body, len) = get_uvarint(page.get(start..)?)?;
        let list = start + len..start + len + body as usize;
        if left == 0 {
            return Some((start, list));
        }
        start = list.end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_series_has_the_pairs_it_was_given_last(
            steps in proptest::collection::vec((0u32..70, proptest::collection::vec(any::<u32>(), 0..40)), 0..60),
        ) {
            let mut lists = PairLists::default();
            let mut model = std::collections::HashMap::new();
            for (series, pairs) in steps {
                lists.set(series, &pairs);
                model.insert(series, pairs);
            }
            for series in 0..80 {
                let expected = model.remove(&series).unwrap_or_default();
                prop_assert_eq!(lists.get(series).collect::<Vec<_>>(), expected);
            }
        }
    }
}
