//! What several layers hold, gathered: mostly the same again and again.

/// Fewer items are not worth looking for equal ones before the end.
const MIN: usize = 1 << 16;

/// Items of which there are never many more than different ones.
pub(crate) struct Gathered<T> {
    items: Vec<T>,
    /// Beyond so many, those that are the same are sorted out.
    most: usize,
    bytes: usize,
    is_same: fn(&T, &T) -> bool,
    bytes_of: fn(&T) -> usize,
}

impl<T: Ord> Gathered<T> {
    /// None yet. Those that are the same follow one another in order; the first of them is kept.
    /// `bytes_of` tells what an item takes.
    pub fn new(is_same: fn(&T, &T) -> bool, bytes_of: fn(&T) -> usize) -> Gathered<T> {
        Gathered { items: Vec::new(), most: MIN, bytes: 0, is_same, bytes_of }
    }

    /// Adds the items of a layer.
    pub fn add(&mut self, more: impl IntoIterator<Item = T>) {
        let before = self.items.len();
        self.items.extend(more);
        self.bytes += self.items[before..].iter().map(self.bytes_of).sum::<usize>();
        if self.items.len() > self.most {
            self.sort_out();
            self.most = MIN.max(self.items.len() * 2);
        }
    }

    /// About what they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of them, sorted, each once.
    pub fn finish(mut self) -> Vec<T> {
        self.sort_out();
        self.items
    }

    fn sort_out(&mut self) {
        // Parts mostly give them in order; this sort merges what is.
        self.items.sort();
        self.items.dedup_by(|b, a| (self.is_same)(a, b));
        self.bytes = self.items.iter().map(self.bytes_of).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_layers_take_no_more_memory_than_what_is_different_in_them() {
        let mut found = Gathered::new(|a: &(u32, u32), b| a.0 == b.0, |_| 8);
        for layer in 0..200 {
            found.add((0..10_000).map(|id| (id, layer)));
            assert!(found.items.len() <= MIN && found.bytes() == 8 * found.items.len());
        }
        let found = found.finish();
        assert!(found.into_iter().eq((0..10_000).map(|id| (id, 0))), "the first of each");
    }

    #[test]
    fn what_is_different_is_all_kept() {
        let mut found = Gathered::new(|a: &usize, b| a == b, |_| 8);
        (0..50).rev().for_each(|layer| found.add((0..5_000).map(|i| i * 50 + layer)));
        assert!(found.finish().into_iter().eq(0..250_000));
    }
}
