//! The values that a pickle stream describes. Nothing is imported and nothing is run: a class is a name, and a call of
//! it an opaque object that later code may or may not know the meaning of.
//!
//! Values stand in one flat list and name each other by [`Id`], since a pickle may share and even loop; whoever walks
//! them bounds the depth. Format: the opcodes of Python's `pickletools`, protocols 0 to 5.

use super::machine;
use std::borrow::Cow;
use thiserror::Error;

/// A pickle stream that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("pickle at byte {at}: {what}")]
pub struct PickleError {
    /// Position in the bytes that were parsed, just behind the opcode or argument that failed.
    pub at: usize,
    pub what: String,
}

/// One value of a [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(pub(super) u32);

/// Bytes `start..end` of what was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

/// What a value is. Strings and byte strings stay where they are in the stream unless they were escaped.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, as its bytes in the stream.
    LongInt(Span),
    Float(f64),
    Str(Span),
    UnescapedStr(Box<str>),
    Bytes(Span),
    UnescapedBytes(Box<[u8]>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Set(Vec<Id>),
    /// `dict`, `OrderedDict`, `defaultdict`, `Counter`; a key may occur twice, the last one counts.
    Dict(Vec<(Id, Id)>),
    /// The name of a class or function.
    Global {
        module: Id,
        name: Id,
    },
    /// What calling a class or function would give, not called.
    Object(Box<Object>),
    /// A reference to something outside of the stream, such as a torch storage.
    Persistent(Id),
}

/// A call that was described and not made.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Usually a [`Value::Global`].
    pub class: Id,
    /// Usually a [`Value::Tuple`].
    pub arguments: Id,
    /// What `__setstate__` would have got.
    pub state: Option<Id>,
    /// Items set on it, for classes derived from `dict`.
    pub entries: Vec<(Id, Id)>,
}

/// The bytes of a byte string.
pub(super) enum RawBytes {
    /// In the stream as they are.
    InPlace(Span),
    /// Decoded from an escaped or re-encoded form.
    Decoded(Vec<u8>),
}

static NONE: Value = Value::None;

/// All values of one pickle stream.
#[derive(Debug)]
pub struct Pickle<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) start: usize,
    pub(super) values: Vec<Value>,
    pub(super) root: Id,
    pub(super) end: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the stream that begins at byte `start`; spans and error positions count from the start of `bytes`.
    ///
    /// # Errors
    /// The stream ends early, an opcode is unknown or finds other operands than it needs, or there are more values
    /// than that many bytes can honestly describe.
    pub fn parse(bytes: &'a [u8], start: usize) -> Result<Self, PickleError> {
        machine::run(bytes, start)
    }

    /// The value of the whole stream.
    pub fn root(&self) -> Id {
        self.root
    }

    /// The position behind the stream's last opcode.
    pub fn end(&self) -> usize {
        self.end
    }

    /// One value.
    pub fn value(&self, id: Id) -> &Value {
        self.values.get(id.0 as usize).unwrap_or(&NONE)
    }

    /// All values, in the order in which the stream made them.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The value at a position of [`Self::values`].
    pub(super) fn id(&self, position: usize) -> Option<Id> {
        u32::try_from(position).ok().map(Id)
    }

    /// Number of bytes of the stream; bounds what walking its values may cost.
    pub(super) fn size(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// A string as text. Byte strings count, since Python 2 wrote names as such.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.value(id) {
            Value::Str(span) | Value::Bytes(span) => std::str::from_utf8(self.bytes.get(span.start..span.end)?).ok(),
            Value::UnescapedStr(text) => Some(text),
            Value::UnescapedBytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// A dictionary's key as part of a name: texts as they are, integers in decimal.
    pub fn key(&self, id: Id) -> Option<Cow<'_, str>> {
        match self.value(id) {
            Value::Int(number) => Some(Cow::Owned(number.to_string())),
            _ => self.text(id).map(Cow::Borrowed),
        }
    }

    /// An integer; `True` is 1 as in Python.
    pub fn int(&self, id: Id) -> Option<i64> {
        match self.value(id) {
            Value::Int(number) => Some(*number),
            Value::Bool(truth) => Some(i64::from(*truth)),
            _ => None,
        }
    }

    /// The items of a tuple or list.
    pub fn items(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::Tuple(items) | Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// Module and name of a class or function.
    pub fn class(&self, id: Id) -> Option<(&str, &str)> {
        match self.value(id) {
            Value::Global { module, name } => Some((self.text(*module)?, self.text(*name)?)),
            _ => None,
        }
    }

    /// The bytes of a byte string, also of the detour that protocols below 3 take: `_codecs.encode(text, 'latin1')`.
    pub(super) fn raw(&self, id: Id) -> Option<RawBytes> {
        match self.value(id) {
            Value::Bytes(span) => Some(RawBytes::InPlace(*span)),
            Value::UnescapedBytes(bytes) => Some(RawBytes::Decoded(bytes.to_vec())),
            Value::Object(object) => {
                let arguments = self.items(object.arguments)?;
                match (self.class(object.class)?, arguments) {
                    (("_codecs", "encode"), [text, encoding, ..]) => {
                        let latin = matches!(self.text(*encoding)?, "latin1" | "latin-1" | "iso-8859-1");
                        let text = self.text(*text).filter(|_| latin)?;
                        let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
                        bytes.map(RawBytes::Decoded)
                    }
                    (("builtins" | "__builtin__", "bytes"), []) => Some(RawBytes::Decoded(Vec::new())),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(bytes: &[u8]) -> (Pickle<'_>, Value) {
        let pickle = Pickle::parse(bytes, 0).unwrap();
        let value = pickle.value(pickle.root()).clone();
        (pickle, value)
    }

    fn ints(pickle: &Pickle<'_>, id: Id) -> Vec<i64> {
        pickle.items(id).unwrap().iter().map(|item| pickle.int(*item).unwrap()).collect()
    }

    // The streams below are what Python 3.12's pickle.dumps gives for the value in the comment, unless said otherwise.

    #[test]
    fn every_protocol_gives_the_same_value() {
        // {'a': [1, 300, -70000], 'b': (True, None, 0.5)}
        let streams: [&[u8]; 3] = [
            b"(dp0\nVa\np1\n(lp2\nI1\naI300\naI-70000\nasVb\np3\n(I01\nNF0.5\ntp4\ns.",
            b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01M,\x01J\x90\xee\xfe\xffeX\x01\x00\x00\x00bq\x03\x88NG?\xe0\
              \x00\x00\x00\x00\x00\x00\x87q\x04u.",
            b"\x80\x04\x95\x28\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01M,\x01J\x90\xee\xfe\xffe\x8c\x01b\
              \x94\x88NG?\xe0\x00\x00\x00\x00\x00\x00\x87\x94u.",
        ];
        for stream in streams {
            let (pickle, value) = root(stream);
            let Value::Dict(entries) = &value else { panic!("{value:?}") };
            assert_eq!(pickle.end(), stream.len());
            assert_eq!(entries.len(), 2);
            assert_eq!(pickle.text(entries[0].0), Some("a"));
            assert_eq!(ints(&pickle, entries[0].1), [1, 300, -70000]);
            let tuple = pickle.items(entries[1].1).unwrap();
            assert_eq!(pickle.value(tuple[0]), &Value::Bool(true));
            assert_eq!(pickle.value(tuple[1]), &Value::None);
            assert_eq!(pickle.value(tuple[2]), &Value::Float(0.5));
        }
    }

    #[test]
    fn a_call_is_described_and_not_made() {
        // what `os.system("echo hacked")` pickles to: posix.system and one string
        let (pickle, value) = root(b"\x80\x02cposix\nsystem\nq\x00X\x0b\x00\x00\x00echo hackedq\x01\x85q\x02Rq\x03.");
        let Value::Object(object) = &value else { panic!("{value:?}") };
        assert_eq!(pickle.class(object.class), Some(("posix", "system")));
        let arguments = pickle.items(object.arguments).unwrap();
        assert_eq!(pickle.text(arguments[0]), Some("echo hacked"));
    }

    #[test]
    fn ordered_dictionaries_of_both_pythons_are_dictionaries() {
        // OrderedDict([('a', 1)]) of Python 3, and as Python 2 wrote it: a list of lists as argument
        for stream in [
            b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01X\x01\x00\x00\x00aq\x02K\x01s.".as_slice(),
            b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01]q\x02(U\x01aq\x03K\x01ea\x85q\x04Rq\x05.".as_slice(),
        ] {
            let (pickle, value) = root(stream);
            let Value::Dict(entries) = &value else { panic!("{value:?}") };
            assert_eq!((pickle.key(entries[0].0).as_deref(), pickle.int(entries[0].1)), (Some("a"), Some(1)));
        }
    }

    #[test]
    fn a_memoised_container_is_shared_and_filled_later() {
        // written by hand: l = []; (l, l) with 7 appended to l after the first mention
        let (pickle, value) = root(b"\x80\x02]q\x00h\x00K\x07a0h\x00\x86.");
        let Value::Tuple(items) = &value else { panic!("{value:?}") };
        assert_eq!(items[0], items[1]);
        assert_eq!(ints(&pickle, items[0]), [7]);
    }

    #[test]
    fn long_integers_keep_sign_and_width() {
        // -2**63, 255 and torch's magic number 0x1950a86a20f9469cfc6c
        let (_, value) = root(b"\x80\x02\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80.");
        assert_eq!(value, Value::Int(i64::MIN));
        let (_, value) = root(b"\x80\x02\x8a\x02\xff\x00.");
        assert_eq!(value, Value::Int(255));
        let (_, value) = root(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.");
        assert_eq!(value, Value::LongInt(Span { start: 4, end: 14 }));
    }

    #[test]
    fn escapes_are_undone() {
        // protocol 0: 'aé\n☃' as V with raw unicode escapes; Python 2's repr string S'\x00\\\'\n'
        let (pickle, _) = root(b"Va\xe9\\u000a\\u2603\np0\n.");
        assert_eq!(pickle.text(pickle.root()), Some("aé\n☃"));
        let (_, value) = root(b"S'\\x00\\\\\\'\\n'\np0\n.");
        assert_eq!(value, Value::UnescapedBytes(Box::from(&b"\x00\\'\n"[..])));
        let (pickle, value) = root(b"S'plain'\np0\n.");
        assert_eq!(value, Value::Bytes(Span { start: 2, end: 7 }));
        assert_eq!(pickle.text(pickle.root()), Some("plain"));
    }

    #[test]
    fn latin_1_detours_become_bytes() {
        // pickle.dumps(b'\x01\xff', 2)
        let stream = b"\x80\x02c_codecs\nencode\nq\x00X\x03\x00\x00\x00\x01\xc3\xbfq\x01X\x06\x00\x00\x00latin1q\x02\x86q\x03Rq\x04.";
        let pickle = Pickle::parse(stream, 0).unwrap();
        let Some(RawBytes::Decoded(bytes)) = pickle.raw(pickle.root()) else { panic!("no bytes") };
        assert_eq!(bytes, [1, 255]);
    }

    #[test]
    fn a_start_inside_the_bytes_counts_from_their_beginning() {
        let pickle = Pickle::parse(b"skip\x80\x02X\x02\x00\x00\x00ab.rest", 4).unwrap();
        assert_eq!(pickle.value(pickle.root()), &Value::Str(Span { start: 11, end: 13 }));
        assert_eq!(pickle.end(), 14);
    }

    #[test]
    fn broken_streams_are_errors() {
        let streams: [&[u8]; 14] = [
            b"",
            b"\x80",
            b"\x80\x06N.",
            b".",
            b"0.",
            b"(.",
            b"t.",
            b"K\x01K\x02s.",
            b"Na.",
            b"h\x05.",
            b"X\xff\xff\xff\x7fab.",
            b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffab.",
            b"\x82\x01.",
            b"(K\x01u.",
        ];
        for stream in streams {
            assert!(Pickle::parse(stream, 0).is_err(), "{stream:?}");
        }
        assert!(Pickle::parse(b"N.", usize::MAX).is_err());
    }

    #[test]
    fn nesting_is_bounded_and_deep_values_drop_without_recursion() {
        // a list in a list, 50 000 deep, built without marks
        let mut deep = vec![b']'; 50_000];
        deep.extend(vec![b'a'; 49_999]);
        deep.push(b'.');
        assert!(Pickle::parse(&deep, 0).is_ok());
        let mut marks = vec![b'('; 50_000];
        marks.push(b'.');
        assert!(Pickle::parse(&marks, 0).is_err());
    }
}
