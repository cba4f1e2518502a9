//! The classes of a data set: without objects, far apart in number, with gaps in their ids, or not in every split.

use super::{Dataset, Finding, Severity};
use std::collections::HashMap;

/// The largest class may have so many times the objects of the smallest.
const IMBALANCE: usize = 50;
/// Names in one message.
const NAMED: usize = 5;

/// Classes without objects, uneven classes, ids with gaps, images without objects.
pub(super) fn check_classes(dataset: &Dataset) -> Vec<Finding> {
    let mut list = Vec::new();
    let mut remark = |severity: Severity, rule: &str, message: String| {
        list.push(Finding::new(severity, rule, &dataset.name, message))
    };
    if let Some(message) = gaps(&dataset.category_ids) {
        remark(Severity::Info, "gapped-categories", message);
    }
    if dataset.object_count() == 0 {
        remark(Severity::Info, "no-objects", "nothing is annotated; good for detection, not for training".to_owned());
        return list;
    }
    let bare: Vec<&str> =
        dataset.images.iter().filter(|image| image.objects.is_empty()).map(|image| image.name.as_str()).collect();
    if !bare.is_empty() {
        let message = format!(
            "{} of {} images have no object and are trained as background: {}",
            bare.len(),
            dataset.images.len(),
            some_of(&bare)
        );
        remark(Severity::Info, "image-without-objects", message);
    }
    let counts = dataset.class_counts();
    let unused: Vec<&str> =
        dataset.classes.iter().zip(&counts).filter(|(_, n)| **n == 0).map(|(name, _)| name.as_str()).collect();
    if !unused.is_empty() {
        let message = format!(
            "{} of {} classes have no object in this split and are not learnt from it: {}",
            unused.len(),
            dataset.classes.len(),
            some_of(&unused)
        );
        remark(Severity::Info, "unused-class", message);
    }
    let used = || dataset.classes.iter().zip(&counts).filter(|(_, n)| **n > 0);
    if let (Some((many, most)), Some((few, least))) = (used().max_by_key(|(_, n)| **n), used().min_by_key(|(_, n)| **n))
        && *most > IMBALANCE * *least
    {
        let ratio = *most as f64 / *least as f64;
        let message = format!(
            "{many} has {most} objects and {few} has {least}, {ratio:.0} times fewer; the rare classes will be learnt late"
        );
        remark(Severity::Warning, "uneven-classes", message);
    }
    list
}

/// What a network's classes mean where the ids that name them have gaps.
fn gaps(ids: &[u64]) -> Option<String> {
    let (first, last) = (*ids.first()?, *ids.last()?);
    let missing = last.checked_sub(first)?.checked_add(1)?.checked_sub(ids.len() as u64)?;
    if missing == 0 {
        return None;
    }
    let mut shown: Vec<String> = Vec::new();
    for pair in ids.windows(2) {
        let between = pair[0].saturating_add(1)..pair[1];
        shown.extend(between.take(NAMED - shown.len().min(NAMED)).map(|id| id.to_string()));
    }
    let more = if missing > shown.len() as u64 { ", …" } else { "" };
    Some(format!(
        "category ids go from {first} to {last} without {}{more} ({missing} in all); training counts the {} classes \
         without gaps, and results are written with the ids",
        shown.join(", "),
        ids.len()
    ))
}

/// Classes that one split has objects of and another has not, and splits whose classes differ.
pub(super) fn compare_classes(sets: &[&Dataset]) -> Vec<Finding> {
    let mut list = Vec::new();
    let Some((first, others)) = sets.split_first() else { return list };
    for other in others.iter().filter(|other| other.classes != first.classes) {
        let message = format!(
            "the splits {} and {} do not have the same classes: {}; a model trained on the one is scored on the other \
             by class names, and refused where it lacks one",
            first.split,
            other.split,
            first_difference(&first.classes, &other.classes)
        );
        list.push(Finding::new(Severity::Warning, "classes-differ", &other.split, message));
    }
    let counts: Vec<HashMap<&str, usize>> = sets.iter().map(|set| objects_by_class(set)).collect();
    for (set, own) in sets.iter().zip(&counts) {
        let elsewhere = |name: &str| counts.iter().any(|other| other.get(name).is_some_and(|&n| n > 0));
        let lacks = |name: &str| own.get(name) == Some(&0) && elsewhere(name);
        let absent: Vec<&str> = set.classes.iter().map(String::as_str).filter(|name| lacks(name)).collect();
        if !absent.is_empty() {
            let message = format!(
                "{} classes have objects in another split and none here: {}; they are not learnt where this split is \
                 trained, and have no score where it is evaluated",
                absent.len(),
                some_of(&absent)
            );
            list.push(Finding::new(Severity::Warning, "class-missing-in-split", &set.split, message));
        }
    }
    list
}

fn objects_by_class(dataset: &Dataset) -> HashMap<&str, usize> {
    dataset.classes.iter().map(String::as_str).zip(dataset.class_counts()).collect()
}

/// The first place where two lists of names part.
fn first_difference(a: &[String], b: &[String]) -> String {
    let place = a.iter().zip(b).position(|(x, y)| x != y).unwrap_or(a.len().min(b.len()));
    let name = |list: &[String]| list.get(place).map_or_else(|| "none".to_owned(), |name| format!("{name:?}"));
    format!("class {} is {} here and {} there, of {} and {}", place + 1, name(a), name(b), a.len(), b.len())
}

fn some_of(names: &[&str]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED).copied().collect();
    let more = if names.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_between_ids_are_named_and_counted() {
        assert_eq!(gaps(&[]), None);
        assert_eq!(gaps(&[0, 1, 2]), None);
        assert_eq!(gaps(&[7]), None);
        let message = gaps(&[1, 2, 5, 7]).unwrap();
        assert!(message.contains("from 1 to 7 without 3, 4, 6 (3 in all)"), "{message}");
        let message = gaps(&[1, u64::MAX - 1]).unwrap();
        assert!(message.contains("without 2, 3, 4, 5, 6, … ("), "{message}");
        assert_eq!(gaps(&[0, u64::MAX]), None, "one more than can be counted");
    }

    #[test]
    fn lists_part_where_the_first_names_differ() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let text = first_difference(&list(&["a", "b"]), &list(&["a", "c", "d"]));
        assert_eq!(text, "class 2 is \"b\" here and \"c\" there, of 2 and 3");
        let text = first_difference(&list(&["a"]), &list(&["a", "c"]));
        assert_eq!(text, "class 2 is none here and \"c\" there, of 1 and 2");
    }
}
