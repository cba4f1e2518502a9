//! Tapped maps by family, as tables: a pyramid is one row, M2Det's TUMs are one row each with a column a scale.

use crate::trace::FeatureMap;

/// Maps that belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Family {
    /// What their names have in common.
    pub name: String,
    /// Rows of positions in the trace.
    pub rows: Vec<Vec<usize>>,
}

impl Family {
    /// Longest row.
    pub fn columns(&self) -> usize {
        self.rows.iter().map(Vec::len).max().unwrap_or(0)
    }
}

/// Which part of a table is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cut {
    #[default]
    Whole,
    /// One level (a TUM) over all its scales.
    Row(usize),
    /// One scale over all levels.
    Column(usize),
}

/// Sorts maps into families, in the order in which they were tapped.
pub(super) fn families(maps: &[FeatureMap]) -> Vec<Family> {
    let mut families: Vec<(Family, Vec<usize>)> = Vec::new();
    for (position, map) in maps.iter().enumerate() {
        let (name, row) = place(&map.name);
        let at = match families.iter().position(|(family, _)| family.name == name) {
            Some(at) => at,
            None => {
                families.push((Family { name: name.to_string(), rows: Vec::new() }, Vec::new()));
                families.len() - 1
            }
        };
        let Some((family, numbers)) = families.get_mut(at) else { continue };
        let line = match numbers.iter().position(|number| *number == row) {
            Some(line) => line,
            None => {
                numbers.push(row);
                family.rows.push(Vec::new());
                numbers.len() - 1
            }
        };
        if let Some(line) = family.rows.get_mut(line) {
            line.push(position);
        }
    }
    families.into_iter().map(|(family, _)| family).collect()
}

/// Rows of positions under `cut`.
pub(super) fn cut(family: &Family, cut: Cut) -> Vec<Vec<usize>> {
    match cut {
        Cut::Whole => family.rows.clone(),
        Cut::Row(row) => family.rows.get(row).cloned().into_iter().collect(),
        Cut::Column(column) => vec![family.rows.iter().filter_map(|row| row.get(column).copied()).collect()],
    }
}

/// Family and row of a map's name: `tum3.scale0` is of `tum`, row 3; `fpn.p6` of `fpn`; `conv4` of `conv`.
fn place(name: &str) -> (&str, usize) {
    let stem = |text: &str| text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    if let Some((module, _)) = name.split_once(".scale") {
        let (family, number) = module.split_at(stem(module));
        return (family, number.parse().unwrap_or(0));
    }
    match name.rsplit_once('.') {
        Some((family, _)) => (family, 0),
        None => {
            let (family, _) = name.split_at(stem(name));
            (if family.is_empty() { name } else { family }, 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<FeatureMap> {
        names.iter().map(|name| FeatureMap { name: (*name).into(), ..FeatureMap::default() }).collect()
    }

    #[test]
    fn pyramids_are_rows_and_tums_a_table() {
        let maps = named(&["conv1", "conv2", "base", "tum1.scale0", "tum1.scale1", "tum2.scale0", "tum2.scale1"]);
        let found = families(&maps);
        let names: Vec<&str> = found.iter().map(|family| family.name.as_str()).collect();
        assert_eq!(names, ["conv", "base", "tum"]);
        let tum = &found[2];
        assert_eq!(tum.rows, [[3, 4], [5, 6]]);
        assert_eq!(tum.columns(), 2);
        assert_eq!(cut(tum, Cut::Row(1)), [[5, 6]]);
        assert_eq!(cut(tum, Cut::Column(0)), [[3, 5]]);
        assert_eq!(cut(tum, Cut::Row(9)), Vec::<Vec<usize>>::new());
        let found = families(&named(&["features.0", "tcb.0", "features.1", "sfam.attention.0", "fpn.p6", "7"]));
        let names: Vec<&str> = found.iter().map(|family| family.name.as_str()).collect();
        assert_eq!(names, ["features", "tcb", "sfam.attention", "fpn", "7"]);
        assert_eq!(found[0].rows, [[0, 2]]);
    }
}
