//! From pickled dictionaries to flat names: containers are unwrapped, nested keys joined by dots, wrappers' prefixes
//! removed.

use super::error::WeightsError;
use super::pickle::{Id, Pickle, Value};
use super::rebuild::{Rebuilder, malformed};
use super::tensor::StoredTensor;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Keys under which training scripts keep the state dict, the one to prefer first.
const CONTAINERS: [&str; 10] = [
    "state_dict",
    "model",
    "model_state_dict",
    "net",
    "ema",
    "ema_state_dict",
    "weights",
    "state_dict_ema",
    "model_ema",
    // Detectron and Caffe2
    "blobs",
];

/// Keys beside weights that hold tensors of the training, not of the network.
const TRAINING: [&str; 8] = [
    "optimizer",
    "optimizer_state_dict",
    "optim",
    "optim_state_dict",
    "scheduler",
    "lr_scheduler",
    "scaler",
    "message_hub",
];

/// What wrappers put before every name.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];

/// Containers inside containers.
const MAX_CONTAINERS: usize = 4;
/// Nesting of dictionaries, lists and objects; also what ends a loop.
const MAX_DEPTH: usize = 64;
/// Bytes of a name.
const MAX_NAME: usize = 512;
/// Numbers and texts that are kept as metadata, and the bytes of each.
const MAX_METADATA: usize = 64;
const MAX_METADATA_TEXT: usize = 256;

/// The tensors under a pickle's root by name, and what stands beside them.
pub(super) fn flatten(
    rebuilder: &mut Rebuilder<'_>,
    root: Id,
) -> Result<(Vec<StoredTensor>, BTreeMap<String, String>), WeightsError> {
    let mut metadata = scalars(rebuilder.pickle, root);
    let limit = rebuilder.pickle.size().saturating_mul(4).saturating_add(4096);
    let mut walk = Walk { rebuilder, visits: 0, limit, tensors: Vec::new(), positions: HashMap::new() };
    let (state_dict, containers) = walk.descend(root);
    let whole = containers.is_empty();
    if !whole {
        metadata.insert("container".to_owned(), containers.join("."));
    }
    walk.visits = 0;
    walk.walk(state_dict, &mut String::new(), if whole { Level::Root } else { Level::Inside(0) })?;
    let mut tensors = walk.tensors;
    strip_wrappers(&mut tensors);
    Ok((tensors, metadata))
}

/// How deep the walk is.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    /// At the root of a file without a container, where entries of the training may stand beside weights.
    Root,
    Inside(usize),
}

impl Level {
    fn below(self) -> Self {
        match self {
            Level::Root => Level::Inside(1),
            Level::Inside(depth) => Level::Inside(depth + 1),
        }
    }
}

struct Walk<'w, 'p> {
    rebuilder: &'w mut Rebuilder<'p>,
    /// Values seen so far. A value may be shared by many, so this can exceed their number, up to `limit`.
    visits: usize,
    limit: usize,
    tensors: Vec<StoredTensor>,
    positions: HashMap<String, usize>,
}

impl<'p> Walk<'_, 'p> {
    /// Follows the keys of [`CONTAINERS`] as long as tensors lie below them; gives the keys it followed.
    fn descend(&mut self, root: Id) -> (Id, Vec<&'static str>) {
        let pickle = self.rebuilder.pickle;
        let mut current = root;
        let mut followed = Vec::new();
        while followed.len() < MAX_CONTAINERS {
            let entries = entries(pickle, current);
            let mut inner = None;
            for name in CONTAINERS {
                let entry = entries.iter().rev().find(|(key, _)| pickle.text(*key) == Some(name));
                if let Some((_, value)) = entry
                    && !self.rebuilder.is_tensor(*value)
                    && self.holds_tensors(*value, 0)
                {
                    inner = Some((name, *value));
                    break;
                }
            }
            let Some((name, value)) = inner else {
                break;
            };
            followed.push(name);
            current = value;
        }
        (current, followed)
    }

    fn holds_tensors(&mut self, id: Id, depth: usize) -> bool {
        self.visits += 1;
        if self.visits > self.limit || depth > MAX_DEPTH {
            return false;
        }
        if self.rebuilder.is_tensor(id) {
            return true;
        }
        let pickle = self.rebuilder.pickle;
        let state = match pickle.value(id) {
            Value::List(items) | Value::Tuple(items) => {
                return items.iter().any(|item| self.holds_tensors(*item, depth + 1));
            }
            Value::Object(object) => object.state,
            _ => None,
        };
        entries(pickle, id).iter().any(|(_, value)| self.holds_tensors(*value, depth + 1))
            || state.is_some_and(|state| self.holds_tensors(state, depth + 1))
    }

    /// Collects the tensors at and below a value whose name so far is `name`.
    fn walk(&mut self, id: Id, name: &mut String, level: Level) -> Result<(), WeightsError> {
        self.visits += 1;
        if self.visits > self.limit {
            return malformed("names the same values again and again: not a checkpoint".to_owned());
        }
        if let Some(raw) = self.rebuilder.tensor(id).map_err(|problem| problem.in_tensor(name.as_str()))? {
            let name = if name.is_empty() { "tensor" } else { name.as_str() };
            self.add(raw.named(name)?);
            return Ok(());
        }
        if level == Level::Inside(MAX_DEPTH) {
            return Ok(());
        }
        let pickle = self.rebuilder.pickle;
        match pickle.value(id) {
            Value::List(items) | Value::Tuple(items) => {
                for (position, item) in items.iter().enumerate() {
                    if may_hold_tensors(pickle, *item) {
                        self.child(&position.to_string(), *item, name, level)?;
                    }
                }
                Ok(())
            }
            Value::Dict(entries) => self.children(entries, name, level),
            Value::Object(object) => {
                self.children(&object.entries, name, level)?;
                match object.state.map(|state| pickle.value(state)) {
                    Some(Value::Dict(attributes)) => self.module(attributes, name, level),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn children(&mut self, entries: &'p [(Id, Id)], name: &mut String, level: Level) -> Result<(), WeightsError> {
        let pickle = self.rebuilder.pickle;
        for (key, value) in entries {
            let Some(key) = pickle.key(*key) else {
                continue;
            };
            let of_training = level == Level::Root && TRAINING.contains(&&*key);
            if !of_training && may_hold_tensors(pickle, *value) {
                self.child(&key, *value, name, level)?;
            }
        }
        Ok(())
    }

    /// The attributes of a pickled module: those of `torch.nn.Module` name their tensors without the dictionaries in
    /// between, as its `state_dict()` would; others (TorchScript) are dictionaries by their attributes.
    fn module(&mut self, attributes: &'p [(Id, Id)], name: &mut String, level: Level) -> Result<(), WeightsError> {
        let pickle = self.rebuilder.pickle;
        let is = |key: Id, names: &[&str]| pickle.text(key).is_some_and(|key| names.contains(&key));
        if !attributes.iter().any(|(key, _)| is(*key, &["_parameters"])) {
            return self.children(attributes, name, level);
        }
        for (key, value) in attributes {
            if is(*key, &["_parameters", "_buffers", "_modules"]) {
                self.walk(*value, name, level.below())?;
            }
        }
        Ok(())
    }

    fn child(&mut self, key: &str, id: Id, name: &mut String, level: Level) -> Result<(), WeightsError> {
        let length = name.len();
        if length + key.len() >= MAX_NAME {
            return malformed(format!("a name below `{name}` is longer than {MAX_NAME} bytes"));
        }
        if length > 0 {
            name.push('.');
        }
        name.push_str(key);
        let result = self.walk(id, name, level.below());
        name.truncate(length);
        result
    }

    /// A key that is set twice keeps its place and its last value, as in Python.
    fn add(&mut self, tensor: StoredTensor) {
        match self.positions.get(&tensor.name).and_then(|position| self.tensors.get_mut(*position)) {
            Some(earlier) => *earlier = tensor,
            None => {
                self.positions.insert(tensor.name.clone(), self.tensors.len());
                self.tensors.push(tensor);
            }
        }
    }
}

/// The entries of a dictionary, or of an object that is derived from one.
fn entries<'p>(pickle: &'p Pickle<'p>, id: Id) -> &'p [(Id, Id)] {
    match pickle.value(id) {
        Value::Dict(entries) => entries,
        Value::Object(object) => &object.entries,
        _ => &[],
    }
}

fn may_hold_tensors(pickle: &Pickle<'_>, id: Id) -> bool {
    matches!(pickle.value(id), Value::List(_) | Value::Tuple(_) | Value::Dict(_) | Value::Object(_))
}

/// Numbers and short texts at the root: epoch, scores, author.
fn scalars(pickle: &Pickle<'_>, root: Id) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::new();
    let Value::Dict(entries) = pickle.value(root) else {
        return metadata;
    };
    for (key, value) in entries {
        let text = match pickle.value(*value) {
            Value::Bool(truth) => truth.to_string(),
            Value::Int(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            _ => match pickle.text(*value) {
                Some(text) if text.len() <= MAX_METADATA_TEXT => text.to_owned(),
                _ => continue,
            },
        };
        match pickle.text(*key) {
            Some(key) if key.len() <= MAX_METADATA_TEXT => metadata.insert(key.to_owned(), text),
            _ => continue,
        };
        if metadata.len() == MAX_METADATA {
            break;
        }
    }
    metadata
}

/// Removes what `DataParallel` and `torch.compile` put before every name. Names without a dot (`n_averaged`) may lack
/// it; where removing would make two names one, it stays.
fn strip_wrappers(tensors: &mut [StoredTensor]) {
    for _ in 0..PREFIXES.len() * 2 {
        for prefix in PREFIXES {
            let wrapped = tensors.iter().any(|tensor| tensor.name.starts_with(prefix))
                && tensors.iter().all(|tensor| tensor.name.starts_with(prefix) || !tensor.name.contains('.'));
            if !wrapped {
                continue;
            }
            let stripped = |tensor: &StoredTensor| -> String {
                tensor.name.strip_prefix(prefix).unwrap_or(&tensor.name).to_owned()
            };
            let names: Vec<String> = tensors.iter().map(stripped).collect();
            let distinct = names.iter().collect::<HashSet<&String>>().len();
            if distinct < names.len() || names.iter().any(String::is_empty) {
                continue;
            }
            for (tensor, name) in tensors.iter_mut().zip(names) {
                tensor.name = name;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::tensor::{Blob, Dtype, Region};

    /// The tensors of a stream. They are numpy scalars of one byte, the shortest tensor there is, whose function is
    /// memoised as 0 and whose element type as 1 before `body`.
    fn names(body: &[u8]) -> Result<(Vec<String>, BTreeMap<String, String>), WeightsError> {
        let mut stream = b"cnumpy.core.multiarray\nscalar\nq\x000cnumpy\ndtype\nU\x02u1\x85Rq\x010".to_vec();
        stream.extend_from_slice(body);
        stream.push(b'.');
        let pickle = Pickle::parse(&stream, 0).unwrap();
        let mut rebuilder = Rebuilder::new(&pickle, HashMap::new(), Vec::new(), true);
        let (tensors, metadata) = flatten(&mut rebuilder, pickle.root())?;
        Ok((tensors.into_iter().map(|tensor| tensor.name).collect(), metadata))
    }

    /// `{key: value, …}` with `T` for a tensor.
    fn dict(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut stream = b"}(".to_vec();
        for (key, value) in entries {
            stream.push(b'U');
            stream.push(key.len() as u8);
            stream.extend_from_slice(key.as_bytes());
            let bytes: &[u8] = if *value == b"T" { b"h\x00h\x01C\x01\x07\x86R" } else { value };
            stream.extend_from_slice(bytes);
        }
        stream.push(b'u');
        stream
    }

    #[test]
    fn nested_keys_are_joined_and_training_entries_left_out() {
        let layer = dict(&[("weight", b"T"), ("bias", b"T")]);
        let list = [b"(".as_slice(), &dict(&[("a", b"T")]), b"l"].concat();
        let body = dict(&[("conv", &layer), ("items", &list), ("optimizer", &layer), ("epoch", b"K\x07")]);
        let (names, metadata) = names(&body).unwrap();
        assert_eq!(names, ["conv.weight", "conv.bias", "items.0.a"]);
        assert_eq!(metadata.get("epoch").map(String::as_str), Some("7"));
    }

    #[test]
    fn containers_are_unwrapped_in_order_of_preference() {
        let inner = dict(&[("state_dict", &dict(&[("a", b"T")])), ("other", b"N")]);
        let body = dict(&[("ema", &dict(&[("b", b"T")])), ("model", &inner), ("net", b"N"), ("best", b"T")]);
        let (found, metadata) = names(&body).unwrap();
        assert_eq!(found, ["a"]);
        assert_eq!(metadata.get("container").map(String::as_str), Some("model.state_dict"));
        // an empty `model` is passed over; a tensor called `weights` is no container
        let body = dict(&[("model", b"N"), ("ema", &dict(&[("weights", b"T"), ("c", b"T")]))]);
        assert_eq!(names(&body).unwrap().0, ["weights", "c"]);
    }

    #[test]
    fn modules_name_their_tensors_as_state_dict_does() {
        // an object of an unknown class with {'_parameters': {'w': T}, '_modules': {'0': <same kind>}, 'note': T}
        let module = |inner: &[u8]| {
            let modules = if inner.is_empty() { b"}".to_vec() } else { dict(&[("0", inner)]) };
            let state = dict(&[("_parameters", &dict(&[("w", b"T")])), ("_modules", &modules), ("note", b"T")]);
            [b"cmodels\nNet\n)\x81".as_slice(), &state, b"b"].concat()
        };
        let (found, _) = names(&dict(&[("model", &module(&module(&[])))])).unwrap();
        assert_eq!(found, ["w", "0.w"]);
    }

    #[test]
    fn a_key_set_twice_counts_once() {
        assert_eq!(names(&dict(&[("a", b"T"), ("b", b"T"), ("a", b"T")])).unwrap().0, ["a", "b"]);
    }

    #[test]
    fn loops_end_and_doubling_is_refused() {
        // d = {}; d['d'] = d; d['t'] = T
        let looped = b"}q\x05U\x01dh\x05sU\x01th\x00h\x01C\x01\x07\x86Rs";
        let (found, _) = names(looped).unwrap();
        assert_eq!(found.len(), MAX_DEPTH);
        // 60 lists, each holding the one before it twice
        let mut doubling = b"]q\x05".to_vec();
        for level in 5..65u8 {
            doubling.extend_from_slice(&[b'(', b'h', level, b'h', level, b'l', b'q', level + 1]);
        }
        assert!(names(&doubling).is_err());
    }

    #[test]
    fn prefixes_of_wrappers_are_stripped_when_every_name_has_them() {
        let strip = |names: &[&str]| {
            let region = Region { blob: Blob::File, start: 0, end: 0, big_endian: false };
            let tensor =
                |name: &&str| StoredTensor::new((*name).to_owned(), Dtype::U8, vec![0], None, 0, region).unwrap();
            let mut tensors: Vec<StoredTensor> = names.iter().map(tensor).collect();
            strip_wrappers(&mut tensors);
            tensors.into_iter().map(|tensor| tensor.name).collect::<Vec<String>>()
        };
        assert_eq!(strip(&["module.a.w", "module.b.w"]), ["a.w", "b.w"]);
        assert_eq!(strip(&["_orig_mod.module.a.w"]), ["a.w"]);
        assert_eq!(strip(&["n_averaged", "module.a.w"]), ["n_averaged", "a.w"]);
        assert_eq!(strip(&["module.a.w", "b.w"]), ["module.a.w", "b.w"]);
        assert_eq!(strip(&["module.x", "x"]), ["module.x", "x"]);
    }
}
