//! Which images are listed: by name, class, size of objects, groups, and by what is wrong with them.

use crate::app::state::State;
use crate::data::Severity;
use crate::data::statistics::SizeRange;
use crate::engine::event::{DataSummary, ImageSummary};
use std::collections::HashMap;

/// What an image must have to be listed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Filter {
    /// Letters of its name, case aside.
    pub name: String,
    pub class: Option<u32>,
    /// An object in this range.
    pub range: Option<SizeRange>,
    /// A group of objects (crowd).
    pub crowd: bool,
    /// Something wrong with it.
    pub found: bool,
}

impl Filter {
    /// `wanted` is the name in small letters.
    fn passes(&self, image: &ImageSummary, wanted: &str, is_found: bool) -> bool {
        let has = |range: SizeRange| image.ranges.get(range as usize).is_some_and(|count| *count > 0);
        (wanted.is_empty() || image.name.to_lowercase().contains(wanted))
            && self.class.is_none_or(|class| image.classes.contains(&class))
            && self.range.is_none_or(has)
            && (!self.crowd || image.crowds > 0)
            && (!self.found || is_found)
    }

    /// Positions of the images that pass. `found` is by name, as of [`worst_by_name`].
    pub(super) fn positions(&self, data: &DataSummary, found: &HashMap<String, Severity>) -> Vec<usize> {
        let wanted = self.name.to_lowercase();
        let passing = data.images.iter().enumerate();
        let passing = passing.filter(|(_, image)| self.passes(image, &wanted, found.contains_key(stem(&image.name))));
        passing.map(|(index, _)| index).collect()
    }
}

/// A name without its ending: an image and its annotation file differ in that alone.
pub(super) fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The worst that is known about each [`stem`] of a file or image name: from reading, and from the check where it was made.
pub(super) fn worst_by_name(state: &State, data: &DataSummary) -> HashMap<String, Severity> {
    let mut worst: HashMap<String, Severity> = HashMap::new();
    let findings = match &state.checked {
        Some(checked) => checked.as_slice(),
        None => data.findings.as_slice(),
    };
    for finding in findings.iter().filter(|finding| finding.severity != Severity::Info) {
        let entry = worst.entry(stem(&finding.file).to_owned()).or_insert(finding.severity);
        // the worst sorts first
        *entry = (*entry).min(finding.severity);
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, classes: &[u32], ranges: [usize; 3], crowds: usize) -> ImageSummary {
        let objects = ranges.iter().sum();
        ImageSummary { name: name.into(), width: 8, height: 8, objects, classes: classes.into(), ranges, crowds }
    }

    #[test]
    fn each_condition_takes_its_own_images_away() {
        let images = [
            image("Day/One.png", &[0], [1, 0, 0], 0),
            image("two.png", &[1, 2], [0, 2, 1], 1),
            image("three", &[], [0; 3], 0),
        ];
        let listed = |filter: Filter, found: &[&str]| -> Vec<usize> {
            let wanted = filter.name.to_lowercase();
            let passing = images.iter().enumerate();
            let passing = passing.filter(|(_, i)| filter.passes(i, &wanted, found.contains(&i.name.as_str())));
            passing.map(|(index, _)| index).collect()
        };
        let all = Filter::default;
        assert_eq!(listed(all(), &[]), [0, 1, 2]);
        assert_eq!(listed(Filter { name: "ONE".into(), ..all() }, &[]), [0]);
        assert_eq!(listed(Filter { class: Some(2), ..all() }, &[]), [1]);
        assert_eq!(listed(Filter { range: Some(SizeRange::Small), ..all() }, &[]), [0]);
        assert_eq!(listed(Filter { range: Some(SizeRange::Large), ..all() }, &[]), [1]);
        assert_eq!(listed(Filter { crowd: true, ..all() }, &[]), [1]);
        assert_eq!(listed(Filter { found: true, ..all() }, &["three"]), [2]);
        assert!(listed(Filter { found: true, class: Some(0), ..all() }, &["three"]).is_empty());
    }
}
