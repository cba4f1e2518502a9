//! Class names as they turn up in annotation files, and the order that they end in.

use std::collections::HashMap;

/// Names with a number each. The final order does not depend on the order of the files: names from a list keep its
/// order, names met on the way follow, sorted.
#[derive(Debug, Default)]
pub(super) struct ClassNames {
    names: Vec<String>,
    number_of: HashMap<String, u32>,
    /// So many names come from a list.
    listed: usize,
    /// No other names than those of the list.
    closed: bool,
}

impl ClassNames {
    /// Names of a list that others may follow; a name that stands twice counts once.
    pub(super) fn listed(list: impl IntoIterator<Item = String>) -> Self {
        let mut names = Self::default();
        for name in list {
            names.number(&name);
        }
        names.listed = names.names.len();
        names
    }

    /// Names of a list that is complete, each with its place as number, also when a name stands twice.
    pub(super) fn closed(list: Vec<String>) -> Self {
        let mut number_of = HashMap::new();
        for (name, number) in list.iter().zip(0u32..) {
            number_of.entry(name.clone()).or_insert(number);
        }
        Self { listed: list.len(), names: list, number_of, closed: true }
    }

    /// The number of a name; none for an empty name and for one that a complete list does not have.
    pub(super) fn number(&mut self, name: &str) -> Option<u32> {
        if let Some(&number) = self.number_of.get(name) {
            return Some(number);
        }
        if self.closed || name.is_empty() {
            return None;
        }
        let number = u32::try_from(self.names.len()).ok()?;
        self.names.push(name.to_owned());
        self.number_of.insert(name.to_owned(), number);
        Some(number)
    }

    /// The names in their final order, and the final index of each number.
    pub(super) fn finish(self) -> (Vec<String>, Vec<u32>) {
        let mut order: Vec<usize> = (0..self.names.len()).collect();
        if let Some(met) = order.get_mut(self.listed..) {
            met.sort_by(|a, b| self.names.get(*a).cmp(&self.names.get(*b)));
        }
        let mut index_of = vec![0u32; order.len()];
        for (&number, index) in order.iter().zip(0u32..) {
            if let Some(slot) = index_of.get_mut(number) {
                *slot = index;
            }
        }
        let names = order.iter().filter_map(|&number| self.names.get(number).cloned()).collect();
        (names, index_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn met_names_are_sorted_behind_those_of_a_list() {
        let mut names = ClassNames::listed(["zebra", "ant", "zebra"].map(str::to_owned));
        assert_eq!(
            ["owl", "ant", "bee", "owl", ""].map(|name| names.number(name)),
            [Some(2), Some(1), Some(3), Some(2), None]
        );
        let (names, index_of) = names.finish();
        assert_eq!(names, ["zebra", "ant", "bee", "owl"]);
        assert_eq!(index_of, [0, 1, 3, 2]);
    }

    #[test]
    fn a_complete_list_takes_no_other_names() {
        let mut names = ClassNames::closed(["b", "a", "b"].map(str::to_owned).to_vec());
        assert_eq!([names.number("b"), names.number("a"), names.number("c")], [Some(0), Some(1), None]);
        assert_eq!(names.finish(), (["b", "a", "b"].map(str::to_owned).to_vec(), vec![0, 1, 2]));
    }
}
