//! A kernel as a list of steps: statements are read, names become registers, calls become what they call.

use super::decode::{Row, carry, row};
use super::module::{Function, Module, Param, bytes_of, declared};
use std::collections::HashMap;

/// A register's place in the table of a warp.
pub type Slot = usize;

/// Where an address points.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Space {
    Global,
    Shared,
    Local,
    /// Any of these, by its value.
    Generic,
}

#[derive(Clone, Copy, Debug)]
pub enum Atomic {
    Add,
    Max,
    Min,
    Exchange,
}

pub enum Step {
    Row {
        row: Row,
        inputs: [Slot; 4],
        result: Slot,
    },
    Load {
        space: Space,
        ty: &'static str,
        base: Slot,
        offset: i64,
        results: Vec<Slot>,
    },
    Store {
        space: Space,
        ty: &'static str,
        base: Slot,
        offset: i64,
        values: Vec<Slot>,
    },
    Atomic {
        space: Space,
        ty: &'static str,
        what: Atomic,
        base: Slot,
        offset: i64,
        value: Slot,
        result: Option<Slot>,
    },
    /// An exchange among all threads of the warp, as the two operands in `whole` must say.
    Butterfly {
        value: Slot,
        mask: Slot,
        whole: [Slot; 2],
        result: Slot,
    },
    Barrier,
    Jump {
        to: usize,
    },
    Exit,
    /// An assertion of the kernel that did not hold.
    Fail,
}

/// A step, whom it concerns (a predicate and the value it must have), and what it was read from.
pub struct Line {
    pub step: Step,
    pub guard: Option<(Slot, bool)>,
    pub text: String,
}

pub struct Kernel {
    pub name: String,
    pub params: Vec<Param>,
    pub lines: Vec<Line>,
    /// Registers that never change.
    pub constants: Vec<(Slot, u64)>,
    /// Those with places of threads, by name.
    pub places: Vec<(Slot, String)>,
    /// Those that hold the launch's parameters: which bytes.
    pub arguments: Vec<(Slot, usize, usize)>,
    pub registers: usize,
    pub shared_bytes: usize,
    pub local_bytes: usize,
    pub has_barrier: bool,
}

/// Addresses above these are of a thread's local or a block's shared memory.
pub const LOCAL_WINDOW: u64 = 1 << 60;
pub const SHARED_WINDOW: u64 = 1 << 61;

/// A number of PTX, as the bits of a register.
pub fn literal(word: &str) -> Option<u64> {
    let (negative, digits) = word.strip_prefix('-').map_or((false, word), |digits| (true, digits));
    let hexadecimal = |digits: &str| u64::from_str_radix(digits.trim_end_matches('U'), 16).ok();
    if let Some(digits) = digits.strip_prefix("0f").or_else(|| digits.strip_prefix("0F")) {
        return u32::from_str_radix(digits, 16).ok().map(u64::from);
    }
    let value = match digits.get(..2) {
        Some("0d" | "0D" | "0x" | "0X") => hexadecimal(&digits[2..])?,
        _ => digits.trim_end_matches('U').parse().ok()?,
    };
    Some(if negative { value.wrapping_neg() } else { value })
}

/// A name's meaning.
#[derive(Clone)]
enum Meaning {
    Register(Slot),
    /// A parameter of a called function: a slot for every four bytes.
    Cells(Vec<Slot>),
    /// Bytes of the launch's parameters.
    Argument(usize),
    /// A place in shared or local memory.
    Address(u64),
}

struct Reader<'a> {
    module: &'a Module,
    kernel: Kernel,
    names: HashMap<String, Meaning>,
    constants: HashMap<u64, Slot>,
    carry: Option<Slot>,
    /// Jumps whose target was not yet seen, by the label's full name.
    jumps: Vec<(usize, String)>,
    labels: HashMap<String, usize>,
    /// How many bodies were begun; labels of each are its own.
    bodies: usize,
}

impl Kernel {
    /// Reads the kernel `name` of a module.
    pub fn read(module: &Module, name: &str) -> Result<Self, String> {
        let function = module.function(name).ok_or_else(|| format!("there is no kernel {name}"))?;
        let kernel = Self {
            name: name.to_owned(),
            params: function.params.clone(),
            lines: Vec::new(),
            constants: Vec::new(),
            places: Vec::new(),
            arguments: Vec::new(),
            registers: 0,
            shared_bytes: 0,
            local_bytes: 0,
            has_barrier: false,
        };
        let mut reader = Reader {
            module,
            kernel,
            names: HashMap::new(),
            constants: HashMap::new(),
            carry: None,
            jumps: Vec::new(),
            labels: HashMap::new(),
            bodies: 0,
        };
        let mut at = 0usize;
        for param in &function.params {
            at = at.next_multiple_of(param.align);
            reader.names.insert(param.name.clone(), Meaning::Argument(at));
            at += param.bytes;
        }
        reader.body(&function)?;
        // Dynamic shared memory lies behind what the kernel declares.
        let place = reader.kernel.shared_bytes.next_multiple_of(16);
        for line in std::mem::take(&mut reader.jumps) {
            let to = *reader.labels.get(&line.1).ok_or_else(|| format!("{name}: no label {}", line.1))?;
            reader.kernel.lines[line.0].step = Step::Jump { to };
        }
        reader.kernel.shared_bytes = place;
        Ok(reader.kernel)
    }
}

/// The statements of a body: labels with their colon, braces, and instructions without their semicolon.
fn statements(body: &str) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), body.trim_start());
    while let Some(first) = rest.chars().next() {
        let label = rest.find(|c: char| !(c.is_alphanumeric() || c == '$' || c == '_'));
        let length = match first {
            '{' | '}' => 1,
            _ => match label {
                Some(colon) if rest[colon..].starts_with(':') => colon + 1,
                _ => rest.find(';').map_or(rest.len(), |end| end + 1),
            },
        };
        found.push(rest[..length].trim_end_matches(';').trim());
        rest = rest[length..].trim_start();
    }
    found
}

/// Operands, a list in braces or parentheses being one.
fn operands(text: &str) -> Vec<&str> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                found.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        found.push(text[start..].trim());
    }
    found
}

/// What stands between braces or parentheses; of anything else, itself.
fn listed(operand: &str) -> Vec<&str> {
    let inside = operand.trim_matches(['{', '}', '(', ')']);
    inside.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
}

/// A type's name for as long as the program runs.
fn type_named(word: &str) -> Result<&'static str, String> {
    const ALL: [&str; 15] =
        ["u8", "s8", "b8", "u16", "s16", "b16", "u32", "s32", "b32", "u64", "s64", "b64", "f16", "f32", "f64"];
    ALL.into_iter().find(|name| *name == word).ok_or_else(|| format!("no type {word} in memory"))
}

impl Reader<'_> {
    fn slot(&mut self) -> Slot {
        self.kernel.registers += 1;
        self.kernel.registers - 1
    }

    fn constant(&mut self, bits: u64) -> Slot {
        if let Some(slot) = self.constants.get(&bits) {
            return *slot;
        }
        let slot = self.slot();
        self.constants.insert(bits, slot);
        self.kernel.constants.push((slot, bits));
        slot
    }

    fn line(&mut self, step: Step, guard: Option<(Slot, bool)>, text: &str) {
        self.kernel.lines.push(Line { step, guard, text: text.to_owned() });
    }

    /// Reads one function: the kernel, or what it calls.
    fn body(&mut self, function: &Function<'_>) -> Result<(), String> {
        self.bodies += 1;
        let body = self.bodies;
        let mut scopes = Vec::new();
        for statement in statements(function.body) {
            match statement {
                "{" => scopes.push(self.names.clone()),
                "}" => self.names = scopes.pop().ok_or("a brace too many")?,
                "" => {}
                _ => match statement.strip_suffix(':') {
                    Some(label) => {
                        self.labels.insert(format!("{body} {label}"), self.kernel.lines.len());
                    }
                    None => self.statement(statement, body).map_err(|why| format!("`{statement}`: {why}"))?,
                },
            }
        }
        // A `ret` of a called function jumps here.
        self.labels.insert(format!("{body} end"), self.kernel.lines.len());
        if body == 1 {
            self.line(Step::Exit, None, "the end");
        }
        Ok(())
    }

    fn statement(&mut self, statement: &str, body: usize) -> Result<(), String> {
        if statement.starts_with('.') {
            return self.declaration(statement);
        }
        let (mut guard, mut text) = (None, statement);
        if let Some(rest) = statement.strip_prefix('@') {
            let (predicate, rest) = rest.split_once(char::is_whitespace).ok_or("a guard of nothing")?;
            let (wanted, name) = predicate.strip_prefix('!').map_or((true, predicate), |name| (false, name));
            guard = Some((self.read(name)?, wanted));
            text = rest.trim();
        }
        let (code, rest) = text.split_once(|c: char| c.is_whitespace() || c == '{').unwrap_or((text, ""));
        let rest = if text[code.len()..].starts_with('{') { &text[code.len()..] } else { rest };
        let operands = operands(rest);
        self.instruction(code, &operands, guard, body, statement)
    }

    fn declaration(&mut self, text: &str) -> Result<(), String> {
        let word = text[1..].split(|c: char| c == '.' || c.is_whitespace()).next().unwrap_or_default();
        match word {
            "reg" => {
                let ty = text[4..].trim_start();
                let names = ty.split_once(char::is_whitespace).ok_or("no register")?.1;
                for name in names.split(',').map(str::trim) {
                    let numbered = name.strip_suffix('>').and_then(|name| name.split_once('<'));
                    let Some((stem, count)) = numbered else {
                        let slot = self.slot();
                        self.names.insert(name.to_owned(), Meaning::Register(slot));
                        continue;
                    };
                    for number in 0..count.parse().map_err(|_| "a count that is none")? {
                        let slot = self.slot();
                        self.names.insert(format!("{stem}{number}"), Meaning::Register(slot));
                    }
                }
            }
            "param" => {
                let param = declared(text).ok_or("not read")?;
                let cells = (0..param.bytes.div_ceil(4)).map(|_| self.slot()).collect();
                self.names.insert(param.name, Meaning::Cells(cells));
            }
            "shared" | "local" => {
                let variable = declared(text).ok_or("not read")?;
                let all = if word == "shared" { &mut self.kernel.shared_bytes } else { &mut self.kernel.local_bytes };
                let place = all.next_multiple_of(variable.align);
                *all = place + variable.bytes;
                self.names.insert(variable.name, Meaning::Address(place as u64));
            }
            "pragma" => {}
            _ => return Err("not read".to_owned()),
        }
        Ok(())
    }

    /// The register of an operand that is read.
    fn read(&mut self, operand: &str) -> Result<Slot, String> {
        if let Some(bits) = literal(operand) {
            return Ok(self.constant(bits));
        }
        match self.names.get(operand) {
            Some(Meaning::Register(slot)) => return Ok(*slot),
            Some(Meaning::Address(place)) => {
                let place = *place;
                return Ok(self.constant(place));
            }
            _ => {}
        }
        if operand == "WARP_SZ" {
            return Ok(self.constant(32));
        }
        if operand.starts_with('%') && !operand.contains('<') {
            if let Some((slot, _)) = self.kernel.places.iter().find(|(_, name)| name == operand) {
                return Ok(*slot);
            }
            let slot = self.slot();
            self.kernel.places.push((slot, operand.to_owned()));
            return Ok(slot);
        }
        if let Some(place) = self.module.global(operand) {
            return Ok(self.constant(place));
        }
        if self.module.dynamic_shared.iter().any(|name| name == operand) {
            // Filled in at a launch: behind all that is declared.
            let name = "dynamic shared memory".to_owned();
            if let Some((slot, _)) = self.kernel.places.iter().find(|(_, other)| *other == name) {
                return Ok(*slot);
            }
            let slot = self.slot();
            self.kernel.places.push((slot, name));
            return Ok(slot);
        }
        Err(format!("what is {operand}?"))
    }

    fn written(&self, operand: &str) -> Result<Slot, String> {
        match self.names.get(operand) {
            Some(Meaning::Register(slot)) => Ok(*slot),
            _ => Err(format!("{operand} is not written to")),
        }
    }

    /// `[name+8]`: the base and the offset.
    fn address<'t>(&self, operand: &'t str) -> Result<(&'t str, i64), String> {
        let inside = operand.trim_matches(['[', ']']);
        let Some((base, offset)) = inside.split_once('+') else { return Ok((inside.trim(), 0)) };
        let offset = literal(offset.trim()).ok_or("an offset that is none")?;
        Ok((base.trim(), offset as i64))
    }

    /// A register made by arithmetic of others.
    fn row(&mut self, row: Row, inputs: &[Slot], result: Slot, guard: Option<(Slot, bool)>, text: &str) {
        let mut all = [inputs.first().copied().unwrap_or(0); 4];
        all[..inputs.len()].copy_from_slice(inputs);
        self.line(Step::Row { row, inputs: all, result }, guard, text);
    }

    fn instruction(
        &mut self,
        code: &str,
        operands: &[&str],
        guard: Option<(Slot, bool)>,
        body: usize,
        text: &str,
    ) -> Result<(), String> {
        let parts: Vec<&str> = code.split('.').collect();
        let ty = *parts.last().ok_or("no instruction")?;
        let space = match parts.get(1) {
            Some(_) if parts.contains(&"global") || parts.contains(&"const") => Space::Global,
            Some(_) if parts.contains(&"shared") || parts.contains(&"shared::cta") => Space::Shared,
            Some(_) if parts.contains(&"local") => Space::Local,
            _ => Space::Generic,
        };
        match (parts[0], operands) {
            ("bra", [label]) => {
                self.jumps.push((self.kernel.lines.len(), format!("{body} {label}")));
                self.line(Step::Fail, guard, text);
            }
            ("ret" | "exit", []) if body == 1 || parts[0] == "exit" => self.line(Step::Exit, guard, text),
            ("ret", []) => {
                self.jumps.push((self.kernel.lines.len(), format!("{body} end")));
                self.line(Step::Fail, guard, text);
            }
            ("trap", []) => self.line(Step::Fail, guard, text),
            ("bar" | "barrier", _) => {
                if guard.is_some() || operands != ["0"] {
                    return Err("only whole blocks meet".to_owned());
                }
                self.kernel.has_barrier = true;
                self.line(Step::Barrier, None, text);
            }
            ("membar" | "fence", _) => {}
            ("call", _) => return self.call(operands, guard, text),
            ("ld", [result, place]) if parts.contains(&"param") => {
                let (name, offset) = self.address(place)?;
                let result = self.written(result)?;
                let slot = match self.names.get(name) {
                    Some(Meaning::Cells(cells)) => *cells.get(offset as usize / 4).ok_or("outside of it")?,
                    Some(Meaning::Argument(start)) => {
                        let (start, bytes) = (start + offset as usize, bytes_of(ty).ok_or("no type")?);
                        let slot = self.slot();
                        self.kernel.arguments.push((slot, start, bytes));
                        slot
                    }
                    _ => return Err(format!("{name} is no parameter")),
                };
                let extend = match ty {
                    "s8" => row("cvt.s8.s32"),
                    "s16" => row("cvt.s64.s16"),
                    _ => row("mov.b64"),
                };
                self.row(extend.ok_or("no such type")?, &[slot], result, guard, text);
            }
            ("st", [place, value]) if parts.contains(&"param") => {
                let (name, offset) = self.address(place)?;
                let value = self.read(value)?;
                let Some(Meaning::Cells(cells)) = self.names.get(name) else { return Err("no parameter".to_owned()) };
                let slot = *cells.get(offset as usize / 4).ok_or("outside of it")?;
                self.row(row("mov.b64").ok_or("no move")?, &[value], slot, guard, text);
            }
            ("ld", [result, place]) => {
                let (base, offset) = self.address(place)?;
                let base = self.read(base)?;
                let results = listed(result).into_iter().map(|name| self.written(name)).collect::<Result<_, _>>()?;
                self.line(Step::Load { space, ty: type_named(ty)?, base, offset, results }, guard, text);
            }
            ("st", [place, value]) => {
                let (base, offset) = self.address(place)?;
                let base = self.read(base)?;
                let values = listed(value).into_iter().map(|name| self.read(name)).collect::<Result<_, _>>()?;
                self.line(Step::Store { space, ty: type_named(ty)?, base, offset, values }, guard, text);
            }
            ("atom", [result, place, value]) => {
                let result = Some(self.written(result)?);
                self.atomic(&parts, space, (place, value, result), guard, text)?;
            }
            ("red", [place, value]) => self.atomic(&parts, space, (place, value, None), guard, text)?,
            ("shfl", [result, value, mask, bound, members]) if code.starts_with("shfl.sync.bfly") => {
                // The predicate beside the result is not looked at by any kernel.
                let result = self.written(result.split('|').next().unwrap_or_default())?;
                let (value, mask) = (self.read(value)?, self.read(mask)?);
                let whole = [self.read(bound)?, self.read(members)?];
                self.line(Step::Butterfly { value, mask, whole, result }, guard, text);
            }
            ("mov", [result, value]) if result.starts_with('{') => {
                let bits = 8 * bytes_of(ty).ok_or("no type")? as u64;
                let (parts, value) = (listed(result), self.read(value)?);
                let shift = row("shr.b64").ok_or("no shift")?;
                // The value may be among the results.
                let kept = self.slot();
                self.row(row("mov.b64").ok_or("no move")?, &[value], kept, guard, text);
                for (index, name) in parts.iter().enumerate().filter(|(_, name)| **name != "_") {
                    let by = self.constant(index as u64 * bits / parts.len() as u64);
                    let result = self.written(name)?;
                    self.row(shift, &[kept, by], result, guard, text);
                }
            }
            ("mov", [result, value]) if value.starts_with('{') => {
                let bits = 8 * bytes_of(ty).ok_or("no type")? as u64;
                let (parts, result) = (listed(value), self.written(result)?);
                let width = self.constant(bits / parts.len() as u64);
                let mut whole = self.constant(0);
                for (index, name) in parts.iter().enumerate() {
                    let (part, at) = (self.read(name)?, self.constant(index as u64 * bits / parts.len() as u64));
                    let next = if index + 1 == parts.len() { result } else { self.slot() };
                    self.row(row("bfi.b64").ok_or("no insertion")?, &[part, whole, at, width], next, guard, text);
                    whole = next;
                }
            }
            ("cvta", [result, value]) => {
                let window = match (parts.contains(&"local"), parts.contains(&"shared")) {
                    (true, _) => LOCAL_WINDOW,
                    (_, true) => SHARED_WINDOW,
                    _ => 0,
                };
                let by = self.constant(if parts.contains(&"to") { window.wrapping_neg() } else { window });
                let (value, result) = (self.read(value)?, self.written(result)?);
                self.row(row("add.u64").ok_or("no sum")?, &[value, by], result, guard, text);
            }
            (_, [result, values @ ..]) => {
                let result = self.written(result)?;
                let mut inputs = values.iter().map(|value| self.read(value)).collect::<Result<Vec<_>, _>>()?;
                if (code.contains(".cc")
                    || code.starts_with("addc")
                    || code.starts_with("subc")
                    || code.starts_with("madc"))
                    && let Some((value, left, count)) = carry(code)
                {
                    let flag = match self.carry {
                        Some(flag) => flag,
                        None => self.slot(),
                    };
                    self.carry = Some(flag);
                    inputs.truncate(count);
                    inputs.push(flag);
                    let (sum, next) = (self.slot(), self.slot());
                    self.row(value, &inputs, sum, guard, text);
                    self.row(left, &inputs, next, guard, text);
                    let copy = row("mov.b64").ok_or("no move")?;
                    self.row(copy, &[sum], result, guard, text);
                    if code.contains(".cc") {
                        self.row(copy, &[next], flag, guard, text);
                    }
                    return Ok(());
                }
                let row = row(code).ok_or("an instruction that is not emulated")?;
                if inputs.is_empty() || inputs.len() > 4 {
                    return Err("operands that are not expected".to_owned());
                }
                self.row(row, &inputs, result, guard, text);
            }
            _ => return Err("an instruction that is not emulated".to_owned()),
        }
        Ok(())
    }

    fn atomic(
        &mut self,
        parts: &[&str],
        space: Space,
        (place, value, result): (&str, &str, Option<Slot>),
        guard: Option<(Slot, bool)>,
        text: &str,
    ) -> Result<(), String> {
        let has = |word: &str| parts.contains(&word);
        let what = match () {
            () if has("add") => Atomic::Add,
            () if has("max") => Atomic::Max,
            () if has("min") => Atomic::Min,
            () if has("exch") => Atomic::Exchange,
            () => return Err("an atomic operation that is not emulated".to_owned()),
        };
        let (base, offset) = self.address(place)?;
        let (base, value) = (self.read(base)?, self.read(value)?);
        let ty = type_named(parts[parts.len() - 1])?;
        self.line(Step::Atomic { space, ty, what, base, offset, value, result }, guard, text);
        Ok(())
    }

    /// Puts the body of what is called in the call's place.
    fn call(&mut self, operands: &[&str], guard: Option<(Slot, bool)>, text: &str) -> Result<(), String> {
        if guard.is_some() {
            return Err("a call that not all make".to_owned());
        }
        let (results, name, arguments) = match operands {
            [name] => ("()", *name, "()"),
            [name, arguments] if !name.starts_with('(') => ("()", *name, *arguments),
            [results, name] => (*results, *name, "()"),
            [results, name, arguments] => (*results, *name, *arguments),
            _ => return Err("a call that is not read".to_owned()),
        };
        if name == "__assertfail" {
            self.line(Step::Fail, None, text);
            return Ok(());
        }
        let function = self.module.function(name).ok_or_else(|| format!("there is no function {name}"))?;
        let outer = self.names.clone();
        let own = function.results.iter().zip(listed(results)).chain(function.params.iter().zip(listed(arguments)));
        for (param, argument) in own {
            let meaning = outer.get(argument).ok_or_else(|| format!("what is {argument}?"))?;
            self.names.insert(param.name.clone(), meaning.clone());
        }
        self.body(&function)?;
        self.names = outer;
        Ok(())
    }
}
