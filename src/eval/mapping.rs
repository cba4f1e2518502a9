//! Which class of a data set each class of a model is: by name alone, and an error rather than a guess.

use std::collections::HashMap;
use thiserror::Error;

/// Names shown in a message before it ends in "…".
const SHOWN: usize = 5;

/// Why two lists of classes cannot be brought together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MappingError {
    /// A name stands twice in one list, case aside, so that it points to no single class.
    #[error("the {side} has class name {name:?} twice, at {first} and {second} (case is ignored)")]
    Repeated { side: &'static str, name: String, first: usize, second: usize },
    /// Classes of the data set that the model does not know.
    #[error(
        "{} of {total} classes of the data set have no class of that name in the model: {}; the model knows {}",
        .missing.len(), quoted(.missing), quoted(.known)
    )]
    Unknown { missing: Vec<String>, total: usize, known: Vec<String> },
}

/// The first names, quoted and joined.
fn quoted(names: &[String]) -> String {
    let mut text: Vec<String> = names.iter().take(SHOWN).map(|name| format!("{name:?}")).collect();
    if names.len() > SHOWN {
        text.push(format!("… ({} in all)", names.len()));
    }
    if text.is_empty() { "none".to_owned() } else { text.join(", ") }
}

/// Lower-case names with their indices; an error when two are equal.
fn index_names(names: &[String], side: &'static str) -> Result<HashMap<String, usize>, MappingError> {
    let mut index = HashMap::with_capacity(names.len());
    for (second, name) in names.iter().enumerate() {
        if let Some(first) = index.insert(name.to_lowercase(), second) {
            return Err(MappingError::Repeated { side, name: name.clone(), first, second });
        }
    }
    Ok(index)
}

/// For each class of the model the index of the data set's class of the same name, case aside; `None` for a class that
/// the data set does not have, whose detections then take no part.
///
/// Fails when a class of the data set is unknown to the model, or when either list has a name twice.
pub fn map_classes(model: &[String], data: &[String]) -> Result<Vec<Option<u32>>, MappingError> {
    let model_index = index_names(model, "model")?;
    let data_index = index_names(data, "data set")?;
    let missing: Vec<String> =
        data.iter().filter(|name| !model_index.contains_key(&name.to_lowercase())).cloned().collect();
    if !missing.is_empty() {
        return Err(MappingError::Unknown { missing, total: data.len(), known: model.to_vec() });
    }
    Ok(model
        .iter()
        .map(|name| data_index.get(&name.to_lowercase()).and_then(|&index| u32::try_from(index).ok()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn classes_meet_by_name_whatever_their_order_and_case() {
        let map = map_classes(&names(&["Cat", "dog", "bird"]), &names(&["DOG", "cat"])).unwrap();
        assert_eq!(map, [Some(1), Some(0), None]);
        assert!(map_classes(&[], &[]).unwrap().is_empty());
    }

    #[test]
    fn near_names_are_not_guessed() {
        let error = map_classes(&names(&["motorcycle", "person"]), &names(&["motorbike", "person"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "1 of 2 classes of the data set have no class of that name in the model: \"motorbike\"; \
             the model knows \"motorcycle\", \"person\""
        );
    }

    #[test]
    fn long_lists_are_cut_and_say_so() {
        let data = names(&["a", "b", "c", "d", "e", "f", "g"]);
        let message = map_classes(&[], &data).unwrap_err().to_string();
        assert!(message.contains("\"e\", … (7 in all); the model knows none"), "{message}");
    }

    #[test]
    fn repeated_names_point_nowhere() {
        let error = map_classes(&names(&["a", "A"]), &names(&["a"])).unwrap_err();
        assert_eq!(error, MappingError::Repeated { side: "model", name: "A".to_owned(), first: 0, second: 1 });
    }
}
