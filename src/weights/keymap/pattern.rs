//! Patterns of names: what a key map's rows are written in.
//!
//! `{i}` captures an index; `{2k}` and `{2k+1}` capture even and odd ones, and `{k+1}` in the replacement counts from it;
//! `{}` is an index without a name; `*` at the end is the rest of the name.

/// What a pattern captured.
#[derive(Debug, Default)]
pub(super) struct Captures<'n> {
    /// Letter and value; `_` for an index without a name.
    indices: Vec<(char, usize)>,
    /// What `*` stands for.
    rest: &'n str,
}

/// `scale · letter + offset`, what stands between braces.
#[derive(Debug, PartialEq)]
struct Affine {
    scale: usize,
    letter: char,
    offset: isize,
}

impl Affine {
    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Affine { scale: 1, letter: '_', offset: 0 });
        }
        let (scale, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let scale = if scale.is_empty() { 1 } else { scale.parse().ok()? };
        let mut letters = rest.chars();
        let letter = letters.next()?;
        let offset = letters.as_str();
        // `parse` reads the sign
        let offset = if offset.is_empty() { 0 } else { offset.parse().ok()? };
        Some(Affine { scale, letter, offset })
    }

    /// The letter's value that gives `number`, where one does.
    fn solve(&self, number: usize) -> Option<usize> {
        let scaled = number.checked_add_signed(self.offset.checked_neg()?)?;
        let whole = scaled.checked_rem(self.scale)? == 0;
        whole.then_some(scaled / self.scale)
    }

    fn apply(&self, value: usize) -> Option<usize> {
        value.checked_mul(self.scale)?.checked_add_signed(self.offset)
    }
}

/// Matches the whole of `name` against `pattern`.
pub(super) fn captures<'n>(pattern: &str, name: &'n str) -> Option<Captures<'n>> {
    let mut found = Captures::default();
    let (mut pattern, mut name) = (pattern, name);
    while let Some(special) = pattern.find(['{', '*']) {
        let (literal, rest) = pattern.split_at(special);
        name = name.strip_prefix(literal)?;
        if rest == "*" {
            found.rest = name;
            return (!name.is_empty()).then_some(found);
        }
        let (expression, behind) = rest.strip_prefix('{')?.split_once('}')?;
        let affine = Affine::parse(expression)?;
        let digits = name.bytes().take_while(u8::is_ascii_digit).count();
        let (number, remaining) = name.split_at(digits);
        if number.len() > 1 && number.starts_with('0') {
            return None;
        }
        let value = affine.solve(number.parse().ok()?)?;
        match found.indices.iter().find(|(letter, _)| *letter == affine.letter) {
            Some((_, earlier)) if *earlier != value => return None,
            Some(_) => {}
            None => found.indices.push((affine.letter, value)),
        }
        (pattern, name) = (behind, remaining);
    }
    (pattern == name).then_some(found)
}

impl Captures<'_> {
    /// The replacement with indices and rest put in; nothing where it asks for what was not captured.
    pub(super) fn fill(&self, replacement: &str) -> Option<String> {
        let mut name = String::with_capacity(replacement.len() + self.rest.len());
        let mut replacement = replacement;
        while let Some(special) = replacement.find(['{', '*']) {
            let (literal, rest) = replacement.split_at(special);
            name.push_str(literal);
            if let Some(behind) = rest.strip_prefix('*') {
                name.push_str(self.rest);
                replacement = behind;
                continue;
            }
            let (expression, behind) = rest.strip_prefix('{')?.split_once('}')?;
            let affine = Affine::parse(expression)?;
            let (_, value) = self.indices.iter().find(|(letter, _)| *letter == affine.letter)?;
            name.push_str(&affine.apply(*value)?.to_string());
            replacement = behind;
        }
        name.push_str(replacement);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(pattern: &str, replacement: &str, name: &str) -> Option<String> {
        captures(pattern, name).and_then(|found| found.fill(replacement))
    }

    #[test]
    fn indices_are_captured_and_computed() {
        assert_eq!(mapped("a.{}.b", "{}.c", "a.12.b").as_deref(), Some("12.c"));
        assert_eq!(
            mapped("res{n}.{b}.*", "layer{n-1}.{b}.*", "res3.10.conv.weight").as_deref(),
            Some("layer2.10.conv.weight")
        );
        assert_eq!(mapped("x.{2k+1}", "{k}.{3k+2}", "x.7").as_deref(), Some("3.11"));
        for (pattern, name) in [
            ("x.{2k+1}", "x.8"),
            ("x.{2k}", "x.7"),
            ("res{n+2}", "res1"),
            ("x.{i}", "x."),
            ("x.{i}", "x.1a"),
            ("x.{i}", "x.01"),
            ("x.{i}", "x.99999999999999999999"),
            ("x.*", "x."),
            ("{i}.{i}", "1.2"),
            ("x", "xy"),
        ] {
            assert!(captures(pattern, name).is_none(), "{pattern} {name}");
        }
        assert!(mapped("x.{i}", "{k}", "x.1").is_none());
        assert!(mapped("x.{i}", "{i-2}", "x.1").is_none());
    }
}
