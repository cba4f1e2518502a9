//! The pickle machine: runs the opcodes of a stream and builds [`Value`]s, never anything else.
//!
//! Every opcode makes at most a few values and all loops are over bytes that are there, so memory and time follow the
//! length of the stream; the number of values and of open marks is bounded besides.

use super::cursor::{Cursor, is_decimal, raw_unicode, unescape};
use super::pickle::{Id, Object, Pickle, PickleError, Span, Value};
use std::collections::HashMap;

/// Open marks: as deep as brackets may nest while they are being filled. Python's own pickler stops near 1000.
const MAX_MARKS: usize = 4096;

/// Values beyond one for every two bytes that a stream may make: short streams are all overhead.
const SPARE_VALUES: usize = 4096;

// Values that every stream has, so that writing one costs its byte in the stream and nothing here.
const NONE: Id = Id(0);
const FALSE: Id = Id(1);
const TRUE: Id = Id(2);
const EMPTY_TUPLE: Id = Id(3);
/// The integers 0 to 255 follow from here.
const BYTE_INTS: u32 = 4;

/// Runs the stream that begins at `start`.
pub(super) fn run(bytes: &[u8], start: usize) -> Result<Pickle<'_>, PickleError> {
    let mut values = vec![Value::None, Value::Bool(false), Value::Bool(true), Value::Tuple(Vec::new())];
    values.extend((0..256).map(Value::Int));
    let limit = values.len() + SPARE_VALUES + bytes.len().saturating_sub(start) / 2;
    let machine = Machine {
        input: Cursor { bytes, at: start },
        start,
        values,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        limit,
        copied: 0,
    };
    machine.run()
}

/// What a class means to the machine itself.
enum Role {
    /// A dictionary by another name.
    Mapping,
    /// `copyreg._reconstructor(class, base, state)`.
    Reconstructor,
    Opaque,
}

struct Machine<'a> {
    input: Cursor<'a>,
    start: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    limit: usize,
    /// Dictionary entries that were copied out of an argument.
    copied: usize,
}

impl<'a> Machine<'a> {
    fn run(mut self) -> Result<Pickle<'a>, PickleError> {
        loop {
            let opcode = self.input.byte()?;
            if opcode == b'.' {
                let root = self.pop()?;
                return Ok(Pickle {
                    bytes: self.input.bytes,
                    start: self.start,
                    values: self.values,
                    root,
                    end: self.input.at,
                });
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            // protocol and frame: a frame's length only matters to those who read from a pipe
            0x80 => {
                let protocol = self.input.byte()?;
                if protocol > 5 {
                    return Err(self.error(format!("protocol {protocol}, supported are 0 to 5")));
                }
            }
            0x95 => {
                self.input.take(8)?;
            }
            // constants and numbers
            b'N' => self.stack.push(NONE),
            0x88 => self.stack.push(TRUE),
            0x89 => self.stack.push(FALSE),
            b'K' => {
                let number = self.input.byte()?;
                self.stack.push(Id(BYTE_INTS + u32::from(number)));
            }
            b'M' => {
                let number = u16::from_le_bytes(self.input.array()?);
                self.push(Value::Int(i64::from(number)))?;
            }
            b'J' => {
                let number = i32::from_le_bytes(self.input.array()?);
                self.push(Value::Int(i64::from(number)))?;
            }
            b'G' => {
                let number = f64::from_be_bytes(self.input.array()?);
                self.push(Value::Float(number))?;
            }
            b'I' | b'L' => self.decimal()?,
            b'F' => {
                let line = self.input.line()?;
                let number = self.input.ascii(line).and_then(|text| text.trim().parse::<f64>().ok());
                let number = number.ok_or_else(|| self.error("not a float"))?;
                self.push(Value::Float(number))?;
            }
            0x8a => {
                let length = usize::from(self.input.byte()?);
                self.long(length)?;
            }
            0x8b => {
                let length = self.input.length_i32()?;
                self.long(length)?;
            }
            // byte strings
            b'U' | b'C' => {
                let length = usize::from(self.input.byte()?);
                self.byte_string(length)?;
            }
            b'T' => {
                let length = self.input.length_i32()?;
                self.byte_string(length)?;
            }
            b'B' => {
                let length = self.input.length_u32()?;
                self.byte_string(length)?;
            }
            0x8e | 0x96 => {
                let length = self.input.length_u64()?;
                self.byte_string(length)?;
            }
            b'S' => self.quoted()?,
            // text
            0x8c => {
                let length = usize::from(self.input.byte()?);
                self.text(length)?;
            }
            b'X' => {
                let length = self.input.length_u32()?;
                self.text(length)?;
            }
            0x8d => {
                let length = self.input.length_u64()?;
                self.text(length)?;
            }
            b'V' => self.escaped_text()?,
            // the stack
            b'(' => {
                if self.marks.len() >= MAX_MARKS {
                    return Err(self.error(format!("more than {MAX_MARKS} open marks")));
                }
                self.marks.push(self.stack.len());
            }
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            // the memo
            b'p' => {
                let key = self.memo_key()?;
                self.put(key)?;
            }
            b'q' => {
                let key = u32::from(self.input.byte()?);
                self.put(key)?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.input.array()?);
                self.put(key)?;
            }
            0x94 => {
                let key = u32::try_from(self.memo.len()).map_err(|_| self.error("memo is full"))?;
                self.put(key)?;
            }
            b'g' => {
                let key = self.memo_key()?;
                self.get(key)?;
            }
            b'h' => {
                let key = u32::from(self.input.byte()?);
                self.get(key)?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.input.array()?);
                self.get(key)?;
            }
            // containers
            b')' => self.stack.push(EMPTY_TUPLE),
            b']' => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            0x8f => self.push(Value::Set(Vec::new()))?,
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items))?;
            }
            0x85..=0x87 => {
                let mut items = Vec::with_capacity(3);
                for _ in 0x84..opcode {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Value::Tuple(items))?;
            }
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(items))?;
            }
            0x91 => {
                let items = self.pop_mark()?;
                self.push(Value::Set(items))?;
            }
            b'd' => {
                let items = self.pop_mark()?;
                let entries = self.pairs(&items)?;
                self.push(Value::Dict(entries))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[(key, value)])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                let entries = self.pairs(&items)?;
                self.set_items(&entries)?;
            }
            // classes, calls and references
            b'c' => {
                let class = self.global_lines()?;
                self.stack.push(class);
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                self.push(Value::Global { module, name })?;
            }
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let class = self.pop()?;
                self.construct(class, arguments)?;
            }
            0x92 => {
                let _keywords = self.pop()?;
                let arguments = self.pop()?;
                let class = self.pop()?;
                self.construct(class, arguments)?;
            }
            b'i' => {
                let class = self.global_lines()?;
                let items = self.pop_mark()?;
                let arguments = self.add(Value::Tuple(items))?;
                self.construct(class, arguments)?;
            }
            b'o' => {
                let mut items = self.pop_mark()?;
                if items.is_empty() {
                    return Err(self.error("an object without a class"));
                }
                let class = items.remove(0);
                let arguments = self.add(Value::Tuple(items))?;
                self.construct(class, arguments)?;
            }
            b'b' => {
                let state = self.pop()?;
                let target = self.top()?;
                // attributes of a dictionary (torch's `_metadata`) describe versions, not weights
                if let Some(Value::Object(object)) = self.values.get_mut(target.0 as usize) {
                    object.state = Some(state);
                }
            }
            b'P' => {
                let line = self.input.line()?;
                let name = self.add(Value::Str(line))?;
                self.push(Value::Persistent(name))?;
            }
            b'Q' => {
                let name = self.pop()?;
                self.push(Value::Persistent(name))?;
            }
            0x82..=0x84 => return Err(self.error("extension codes are not supported")),
            0x97 | 0x98 => return Err(self.error("buffers outside of the stream are not supported")),
            other => return Err(self.error(format!("unknown opcode 0x{other:02x}"))),
        }
        Ok(())
    }

    fn error(&self, what: impl Into<String>) -> PickleError {
        self.input.error(what)
    }

    // Values and the stack

    fn add(&mut self, value: Value) -> Result<Id, PickleError> {
        if self.values.len() >= self.limit {
            return Err(self.error(format!("more than {} values in a stream of this length", self.limit)));
        }
        let id = u32::try_from(self.values.len()).map_err(|_| self.error("more than 2^32 values"))?;
        self.values.push(value);
        Ok(Id(id))
    }

    fn push(&mut self, value: Value) -> Result<(), PickleError> {
        let id = self.add(value)?;
        self.stack.push(id);
        Ok(())
    }

    /// Takes the top value; what lies under the last mark is out of reach.
    fn pop(&mut self) -> Result<Id, PickleError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn top(&self) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.last().copied().filter(|_| self.stack.len() > floor);
        top.ok_or_else(|| self.error("the stack is empty"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let Some(mark) = self.marks.pop() else {
            return Err(self.error("no open mark"));
        };
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn memo_key(&mut self) -> Result<u32, PickleError> {
        let line = self.input.line()?;
        let key = self.input.ascii(line).and_then(|text| text.trim().parse::<u32>().ok());
        key.ok_or_else(|| self.error("not a memo key"))
    }

    fn pairs(&self, items: &[Id]) -> Result<Vec<(Id, Id)>, PickleError> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.error("a key without a value"));
        }
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    }

    fn put(&mut self, key: u32) -> Result<(), PickleError> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&mut self, key: u32) -> Result<(), PickleError> {
        let Some(&id) = self.memo.get(&key) else {
            return Err(self.error(format!("nothing is memoised as {key}")));
        };
        self.stack.push(id);
        Ok(())
    }

    // Opcodes with more to them

    fn decimal(&mut self) -> Result<(), PickleError> {
        let line = self.input.line()?;
        let value = match self.input.slice(line) {
            b"00" => Value::Bool(false),
            b"01" => Value::Bool(true),
            _ => {
                let text = self.input.ascii(line).unwrap_or_default().trim();
                let digits = text.strip_suffix('L').unwrap_or(text);
                match digits.parse::<i64>() {
                    Ok(number) => Value::Int(number),
                    Err(_) if is_decimal(digits) => Value::LongInt(line),
                    Err(_) => return Err(self.error("not an integer")),
                }
            }
        };
        self.push(value)
    }

    /// An integer of `length` bytes in two's complement.
    fn long(&mut self, length: usize) -> Result<(), PickleError> {
        let span = self.input.take(length)?;
        let bytes = self.input.slice(span);
        if bytes.len() > 8 {
            return self.push(Value::LongInt(span));
        }
        let sign = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut wide = if sign { [0xff; 8] } else { [0; 8] };
        for (to, from) in wide.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn byte_string(&mut self, length: usize) -> Result<(), PickleError> {
        let span = self.input.take(length)?;
        self.push(Value::Bytes(span))
    }

    fn text(&mut self, length: usize) -> Result<(), PickleError> {
        let span = self.input.take(length)?;
        self.push(Value::Str(span))
    }

    /// Python 2's `repr` of a string on a line.
    fn quoted(&mut self) -> Result<(), PickleError> {
        let line = self.input.line()?;
        let inner = match self.input.slice(line) {
            [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
            _ => return Err(self.error("a string without quotes")),
        };
        if !inner.contains(&b'\\') {
            let start = line.start + 1;
            return self.push(Value::Bytes(Span { start, end: start + inner.len() }));
        }
        match unescape(inner) {
            Some(bytes) => self.push(Value::UnescapedBytes(bytes.into_boxed_slice())),
            None => Err(self.error("an unknown escape in a string")),
        }
    }

    /// Text on a line: Latin-1 with `\uXXXX` and `\UXXXXXXXX`.
    fn escaped_text(&mut self) -> Result<(), PickleError> {
        let line = self.input.line()?;
        let bytes = self.input.slice(line);
        if bytes.is_ascii() && !bytes.contains(&b'\\') {
            return self.push(Value::Str(line));
        }
        match raw_unicode(bytes) {
            Some(text) => self.push(Value::UnescapedStr(text.into_boxed_str())),
            None => Err(self.error("an unknown escape in a text")),
        }
    }

    fn global_lines(&mut self) -> Result<Id, PickleError> {
        let module = self.input.line()?;
        let module = self.add(Value::Str(module))?;
        let name = self.input.line()?;
        let name = self.add(Value::Str(name))?;
        self.add(Value::Global { module, name })
    }

    fn append(&mut self, items: &[Id]) -> Result<(), PickleError> {
        let top = self.top()?;
        let accepted = match self.values.get_mut(top.0 as usize) {
            Some(Value::List(list) | Value::Set(list)) => {
                list.extend_from_slice(items);
                true
            }
            // items of a class derived from `list` hold no weights
            Some(Value::Object(_)) => true,
            _ => false,
        };
        if accepted { Ok(()) } else { Err(self.error("appends to what is not a list")) }
    }

    fn set_items(&mut self, new: &[(Id, Id)]) -> Result<(), PickleError> {
        let top = self.top()?;
        let accepted = match self.values.get_mut(top.0 as usize) {
            Some(Value::Dict(entries)) => {
                entries.extend_from_slice(new);
                true
            }
            Some(Value::Object(object)) => {
                object.entries.extend_from_slice(new);
                true
            }
            _ => false,
        };
        if accepted { Ok(()) } else { Err(self.error("sets items of what is not a dictionary")) }
    }

    fn bytes_of(&self, id: Id) -> &[u8] {
        match self.values.get(id.0 as usize) {
            Some(Value::Str(span) | Value::Bytes(span)) => self.input.slice(*span),
            Some(Value::UnescapedStr(text)) => text.as_bytes(),
            _ => &[],
        }
    }

    fn role(&self, class: Id) -> Role {
        let Some(Value::Global { module, name }) = self.values.get(class.0 as usize) else {
            return Role::Opaque;
        };
        match (self.bytes_of(*module), self.bytes_of(*name)) {
            (b"collections", b"OrderedDict" | b"defaultdict" | b"Counter") => Role::Mapping,
            (b"builtins" | b"__builtin__", b"dict") => Role::Mapping,
            (b"copyreg" | b"copy_reg", b"_reconstructor") => Role::Reconstructor,
            _ => Role::Opaque,
        }
    }

    /// Pushes what calling `class` would give: a dictionary where that is what it is, else the description of the call.
    fn construct(&mut self, class: Id, arguments: Id) -> Result<(), PickleError> {
        let value = match self.role(class) {
            Role::Mapping => Value::Dict(self.initial_entries(arguments)?),
            Role::Reconstructor => {
                let (class, state) = match self.items(arguments) {
                    [class, _base, state, ..] => (*class, Some(*state)),
                    _ => return Err(self.error("a reconstruction without a class")),
                };
                Value::Object(Box::new(Object { class, arguments: EMPTY_TUPLE, state, entries: Vec::new() }))
            }
            Role::Opaque => Value::Object(Box::new(Object { class, arguments, state: None, entries: Vec::new() })),
        };
        self.push(value)
    }

    fn items(&self, id: Id) -> &[Id] {
        match self.values.get(id.0 as usize) {
            Some(Value::Tuple(items) | Value::List(items)) => items,
            _ => &[],
        }
    }

    /// What a dictionary starts with: the pairs or the dictionary that is its first argument.
    fn initial_entries(&mut self, arguments: Id) -> Result<Vec<(Id, Id)>, PickleError> {
        let Some(&first) = self.items(arguments).first() else {
            return Ok(Vec::new());
        };
        let entries: Vec<(Id, Id)> = match self.values.get(first.0 as usize) {
            Some(Value::Dict(entries)) => entries.clone(),
            _ => {
                let pair = |item: &Id| match self.items(*item) {
                    [key, value] => Some((*key, *value)),
                    _ => None,
                };
                self.items(first).iter().filter_map(pair).collect()
            }
        };
        // one argument may be named again and again at two bytes each
        self.copied = self.copied.saturating_add(entries.len());
        if self.copied > self.limit {
            return Err(self.error("dictionaries copy more entries than a stream of this length can need"));
        }
        Ok(entries)
    }
}
