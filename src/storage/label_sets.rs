//! Many label sets at once. Series share most of their labels, so each label is kept once, and a set
//! is a list of numbers: reading, sorting and printing look at a text once, not once per series.

use larum_storage_format::Labels;

/// Label sets, sorted as [`Labels`] are.
#[derive(Debug, Default)]
pub struct LabelSets {
    /// Names and values behind one another.
    text: String,
    labels: Vec<Label>,
    /// The labels of the sets, set by set.
    numbers: Vec<u32>,
    sets: Vec<Set>,
}

/// Where a label lies in the text: its name, and its value right behind.
#[derive(Debug, Clone, Copy)]
struct Label {
    start: usize,
    value: usize,
    end: usize,
}

/// Which numbers are those of a set.
#[derive(Debug, Clone, Copy)]
struct Set {
    start: usize,
    end: usize,
}

impl LabelSets {
    /// How many sets there are.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// About how many bytes of memory it takes, and sorting it.
    pub fn len_bytes(&self) -> usize {
        self.text.capacity()
            + self.labels.capacity() * (size_of::<Label>() + 2 * size_of::<u32>())
            + self.numbers.capacity() * size_of::<u32>()
            + self.sets.capacity() * size_of::<Set>()
    }

    /// All labels that occur, each once, by name and value.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.labels.iter().map(|label| self.texts(label))
    }

    /// The labels of the set at `index`, in order of their names, each as its position among
    /// [`LabelSets::labels`].
    ///
    /// # Panics
    /// If `index` is out of range.
    pub fn set(&self, index: usize) -> &[u32] {
        self.numbers_of(&self.sets[index])
    }

    /// The sets one after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Labels> {
        self.sets.iter().map(|set| {
            let pairs = self.numbers_of(set).iter().map(|&number| self.texts(&self.labels[number as usize]));
            Labels::from_pairs(pairs).unwrap_or_default()
        })
    }

    fn texts(&self, label: &Label) -> (&str, &str) {
        (&self.text[label.start..label.value], &self.text[label.value..label.end])
    }

    fn numbers_of(&self, set: &Set) -> &[u32] {
        &self.numbers[set.start..set.end]
    }

    /// Adds a label that sets may have from now on, and gives its number. The same label may be added
    /// again and have several numbers until [`LabelSets::sort`].
    pub(crate) fn add_label(&mut self, name: &str, value: &str) -> u32 {
        let start = self.text.len();
        self.text.push_str(name);
        let value_start = self.text.len();
        self.text.push_str(value);
        self.labels.push(Label { start, value: value_start, end: self.text.len() });
        (self.labels.len() - 1) as u32
    }

    /// Adds a set of these labels, in order of their names.
    pub(crate) fn add_set(&mut self, numbers: impl IntoIterator<Item = u32>) {
        let start = self.numbers.len();
        self.numbers.extend(numbers);
        self.sets.push(Set { start, end: self.numbers.len() });
    }

    /// Sorts labels and sets, and numbers the labels by their order.
    pub(crate) fn sort(&mut self) {
        let mut order: Vec<u32> = (0..self.labels.len() as u32).collect();
        order.sort_unstable_by_key(|&number| self.texts(&self.labels[number as usize]));
        let mut ranks = vec![0; order.len()];
        let mut labels: Vec<Label> = Vec::with_capacity(order.len());
        for number in order {
            let label = self.labels[number as usize];
            if labels.last().is_none_or(|last| self.texts(last) != self.texts(&label)) {
                labels.push(label);
            }
            ranks[number as usize] = (labels.len() - 1) as u32;
        }
        self.labels = labels;
        self.numbers.iter_mut().for_each(|number| *number = ranks[*number as usize]);
        let numbers = &self.numbers;
        self.sets.sort_unstable_by(|a, b| numbers[a.start..a.end].cmp(&numbers[b.start..b.end]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sets_are_sorted_as_label_sets_are(
            sets in proptest::collection::vec(proptest::collection::btree_map("[ab]{1,2}", "[ab]{1,2}", 0..4), 0..20),
        ) {
            let mut list = LabelSets::default();
            for set in &sets {
                let numbers: Vec<u32> = set.iter().map(|(name, value)| list.add_label(name, value)).collect();
                list.add_set(numbers);
            }
            list.sort();
            let mut expected: Vec<Labels> = sets.iter().map(|set| Labels::from_pairs(set).unwrap()).collect();
            expected.sort();
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), expected);
            let labels: Vec<(&str, &str)> = list.labels().collect();
            prop_assert!(labels.is_sorted_by(|a, b| a < b));
            for i in 0..list.len() {
                prop_assert!(list.set(i).is_sorted());
            }
        }
    }
}
