//! The text of a module: where its functions stand, and the tables that it brings.

use crate::memory;
use std::collections::HashMap;

/// A function's parameters (name, alignment and bytes) and its body.
pub struct Function<'a> {
    pub results: Vec<Param>,
    pub params: Vec<Param>,
    pub body: &'a str,
}

#[derive(Clone, Debug)]
pub struct Param {
    pub name: String,
    pub align: usize,
    pub bytes: usize,
}

/// Where in the text a function's head and its body begin and end, braces excluded.
type Place = ((usize, usize), (usize, usize));

pub struct Module {
    text: String,
    functions: HashMap<String, Place>,
    /// Addresses of the tables, on the device that the module was loaded on.
    globals: HashMap<String, u64>,
    /// Names of the shared memory whose size a launch decides.
    pub dynamic_shared: Vec<String>,
}

/// Bytes of a type such as `.u32`.
pub fn bytes_of(ty: &str) -> Option<usize> {
    match ty {
        "pred" | "u8" | "s8" | "b8" => Some(1),
        "u16" | "s16" | "b16" | "f16" | "bf16" => Some(2),
        "u32" | "s32" | "b32" | "f32" | "f16x2" | "bf16x2" => Some(4),
        "u64" | "s64" | "b64" | "f64" => Some(8),
        _ => None,
    }
}

/// `.param .align 8 .b8 name[16]`, also of `.shared` and `.local`: name, alignment and bytes in all.
pub fn declared(text: &str) -> Option<Param> {
    let (mut align, mut unit, mut words) = (None, None, text.split_whitespace().peekable());
    while let Some(word) = words.next() {
        match word.strip_prefix('.') {
            Some("align") => align = Some(words.next()?.parse().ok()?),
            Some("ptr") => {}
            Some(word) => unit = bytes_of(word).or(unit),
            None => {
                let (name, count) = match word.split_once('[') {
                    Some((name, count)) => (name, count.trim_end_matches(']').parse().unwrap_or(0)),
                    None => (word, 1),
                };
                let unit = unit?;
                return Some(Param { name: name.to_owned(), align: align.unwrap_or(unit), bytes: unit * count });
            }
        }
    }
    None
}

/// The numbers of `{1, 0x2, …}`, each in `unit` bytes.
fn initial(list: &str, unit: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        bytes.extend(&super::parse::literal(word)?.to_le_bytes()[..unit]);
    }
    Some(bytes)
}

impl Module {
    /// Reads a module's text and lays its tables into the memory of the current device.
    pub fn new(text: &str) -> Result<Self, String> {
        let text: String = text.lines().flat_map(|line| [line.split("//").next().unwrap_or_default(), "\n"]).collect();
        let (mut functions, mut globals, mut dynamic_shared) = (HashMap::new(), HashMap::new(), Vec::new());
        let mut at = 0;
        while let Some(found) = text[at..].find(['.']) {
            let start = at + found;
            let rest = &text[start..];
            let word = rest[1..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            let end = rest.find([';', '{']).map_or(text.len(), |end| start + end);
            match word {
                "version" | "target" | "address_size" => {
                    at = start + rest.find('\n').unwrap_or(rest.len());
                    continue;
                }
                "visible" | "weak" | "extern" | "entry" | "func" | "global" | "const" => {}
                _ => return Err(format!("`{}` is not read", rest.lines().next().unwrap_or_default())),
            }
            let head = &text[start..end];
            let is_function = head.split_whitespace().any(|word| word == ".func" || word == ".entry");
            if is_function && text[end..].starts_with('{') {
                let close = end + closing(&text[end..]).ok_or("a function without an end")?;
                let name = name_of(head).ok_or_else(|| format!("no name in `{head}`"))?;
                functions.insert(name.to_owned(), ((start, end), (end + 1, close)));
                at = close + 1;
                continue;
            }
            let end = start + text[start..].find(';').ok_or("a declaration without an end")?;
            at = end + 1;
            if is_function {
                continue;
            }
            let whole = &text[start..end];
            let (left, list) = whole.split_once('=').unwrap_or((whole, ""));
            let table = declared(left).ok_or_else(|| format!("`{left}` is not read"))?;
            if left.contains(".shared") {
                dynamic_shared.push(table.name);
                continue;
            }
            let unit = left.split_whitespace().filter_map(|word| bytes_of(word.strip_prefix('.')?)).next_back();
            let values = initial(list.trim().trim_matches(['{', '}']), unit.unwrap_or(1));
            let mut values = values.ok_or_else(|| format!("the values of {} are not read", table.name))?;
            values.resize(table.bytes, 0);
            let place = memory::allocate(table.bytes).ok_or("no memory for a module's tables")?;
            memory::view_mut::<u8>(place, table.bytes).ok_or("a table out of reach")?.copy_from_slice(&values);
            globals.insert(table.name, place);
        }
        Ok(Self { text, functions, globals, dynamic_shared })
    }

    pub fn function(&self, name: &str) -> Option<Function<'_>> {
        let ((start, end), (body, close)) = *self.functions.get(name)?;
        let head = &self.text[start..end];
        let at = head.find(name)?;
        let list = |text: &str| -> Vec<Param> {
            let inside =
                text.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).map_or("", |(inside, _)| inside);
            inside.split(',').filter_map(declared).collect()
        };
        Some(Function { results: list(&head[..at]), params: list(&head[at..]), body: &self.text[body..close] })
    }

    /// Where a table of the module lies.
    pub fn global(&self, name: &str) -> Option<u64> {
        self.globals.get(name).copied()
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        for place in self.globals.values() {
            memory::free(*place);
        }
    }
}

/// Where the brace is closed that a text begins with.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.bytes().position(|byte| {
        depth += i32::from(byte == b'{') - i32::from(byte == b'}');
        depth == 0
    })
}

/// The name in `.visible .entry name(` or `.func (.param …) name(`.
fn name_of(head: &str) -> Option<&str> {
    let (_, rest) = head.split_once(".entry").or_else(|| head.split_once(".func"))?;
    let rest = rest.trim_start();
    let rest = if rest.starts_with('(') { rest.split_once(')')?.1 } else { rest };
    rest.trim_start().split(|c: char| c == '(' || c.is_whitespace()).next()
}
