//! A fast reader for the one JSON that is ever large here: a list of flat result objects.
//!
//! The text is cut between objects into parts that are read at the same time. A cut is only a guess (a `}` and a `{`
//! with a comma between them), and it is proved by reading: when each part is a whole sequence of objects, reading the
//! list from its beginning would have come to the same places. Whatever is not of the expected form gives `None`, and
//! the caller reads the file with the general reader, which also words the fault.

/// One result as it stands in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Scanned<'a> {
    pub image_id: u64,
    pub category_id: u64,
    /// Four numbers; `None` when absent, null or an empty list.
    pub bbox: Option<[f64; 4]>,
    pub score: f64,
    /// The value's text; `None` when absent or null.
    pub segmentation: Option<&'a [u8]>,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// Cuts the text of a list into runs of objects of about `size` bytes each.
pub fn split(text: &[u8], size: usize) -> Option<Vec<&[u8]>> {
    let start = text.iter().position(|&b| !is_space(b))?;
    let end = text.iter().rposition(|&b| !is_space(b))?;
    if text[start] != b'[' || text[end] != b']' || start == end {
        return None;
    }
    let mut rest = &text[start + 1..end];
    let mut parts = Vec::new();
    while rest.len() > size
        && let Some((end, next)) = cut(rest, size)
    {
        parts.push(&rest[..end]);
        rest = &rest[next..];
    }
    parts.push(rest);
    Some(parts)
}

/// The first place at or after `from` where one object seems to end and another to begin: behind the one's `}` and at
/// the other's `{`.
fn cut(text: &[u8], from: usize) -> Option<(usize, usize)> {
    let skip_spaces = |at: usize| at + text[at..].iter().take_while(|&&b| is_space(b)).count();
    let mut at = from;
    loop {
        at += text.get(at..)?.iter().position(|&b| b == b'}')? + 1;
        let comma = skip_spaces(at);
        if text.get(comma) == Some(&b',') {
            let next = skip_spaces(comma + 1);
            if text.get(next) == Some(&b'{') {
                return Some((at, next));
            }
        }
    }
}

/// Reads a part that [`split`] made; `None` when it is not a sequence of results of the expected form.
pub fn scan(part: &[u8]) -> Option<Vec<Scanned<'_>>> {
    let mut cursor = Cursor { text: part, at: 0 };
    // a result takes about a hundred bytes
    let mut found = Vec::with_capacity(part.len() / 96 + 1);
    cursor.spaces();
    if cursor.at == part.len() {
        return Some(found);
    }
    loop {
        found.push(cursor.result()?);
        cursor.spaces();
        if cursor.at == part.len() {
            return Some(found);
        }
        cursor.expect(b',')?;
        cursor.spaces();
    }
}

/// A number, and the same as a whole one where it is: also when written as `7.0`.
struct Number {
    value: f64,
    whole: Option<u64>,
}

/// 10^0 to 10^22: those that a double holds exactly.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
/// 2^53: up to here a double holds every whole number.
const EXACT: u64 = 1 << 53;

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.take(byte).then_some(())
    }

    fn result(&mut self) -> Option<Scanned<'a>> {
        let (mut image_id, mut category_id, mut score) = (None, None, None);
        let (mut bbox, mut segmentation) = (None, None);
        self.expect(b'{')?;
        self.spaces();
        loop {
            let key = self.plain_string()?;
            self.spaces();
            self.expect(b':')?;
            self.spaces();
            // a name that comes twice is left to the general reader
            let is_first = match key {
                b"image_id" => image_id.replace(self.number()?.whole?).is_none(),
                b"category_id" => category_id.replace(self.number()?.whole?).is_none(),
                b"score" => score.replace(self.number()?.value).is_none(),
                b"bbox" => bbox.replace(self.bbox()?).is_none(),
                b"segmentation" => segmentation.replace(self.segmentation()?).is_none(),
                _ => self.skip_scalar().is_some(),
            };
            if !is_first {
                return None;
            }
            self.spaces();
            if self.take(b'}') {
                break;
            }
            self.expect(b',')?;
            self.spaces();
        }
        Some(Scanned {
            image_id: image_id?,
            category_id: category_id?,
            bbox: bbox.flatten(),
            score: score?,
            segmentation: segmentation.flatten(),
        })
    }

    /// A string without escapes, its quotes left out.
    fn plain_string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' | 0..=31 => return None,
                _ => self.at += 1,
            }
        }
        let text = &self.text[start..self.at];
        self.at += 1;
        Some(text)
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn skip_scalar(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.plain_string().map(|_| ()),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number().map(|_| ()),
        }
    }

    fn bbox(&mut self) -> Option<Option<[f64; 4]>> {
        if self.peek()? == b'n' {
            return self.word(b"null").map(|()| None);
        }
        self.expect(b'[')?;
        self.spaces();
        if self.take(b']') {
            return Some(None);
        }
        let mut sides = [0.0; 4];
        for (i, side) in sides.iter_mut().enumerate() {
            if i > 0 {
                self.expect(b',')?;
                self.spaces();
            }
            *side = self.number()?.value;
            self.spaces();
        }
        self.expect(b']')?;
        Some(Some(sides))
    }

    /// A list or an object up to its closing bracket, whatever is in it; brackets in strings do not count.
    fn segmentation(&mut self) -> Option<Option<&'a [u8]>> {
        if self.peek()? == b'n' {
            return self.word(b"null").map(|()| None);
        }
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'[' | b'{' => depth += 1,
                b']' | b'}' => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(Some(&self.text[start..self.at]));
                    }
                }
                b'"' if depth > 0 => self.rest_of_string()?,
                _ if depth == 0 => return None,
                _ => {}
            }
        }
    }

    /// Up to behind the closing quote.
    fn rest_of_string(&mut self) -> Option<()> {
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => self.at += 1,
                _ => {}
            }
        }
    }

    /// Appends decimal digits to `mantissa` and says how many there were; beyond 19 of them it is no longer right.
    fn digits(&mut self, mantissa: &mut u64) -> usize {
        let start = self.at;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        self.at - start
    }

    /// A number by JSON's grammar, rounded correctly: an exact whole number divided by an exact power of ten rounds
    /// once (Clinger, "How to read floating point numbers accurately", 1990); all else goes to the standard library.
    fn number(&mut self) -> Option<Number> {
        let start = self.at;
        let negative = self.take(b'-');
        let first = self.peek()?;
        let mut mantissa = 0;
        let whole_digits = self.digits(&mut mantissa);
        if whole_digits == 0 || (first == b'0' && whole_digits > 1) {
            return None;
        }
        let mut decimals = 0;
        if self.take(b'.') {
            decimals = self.digits(&mut mantissa);
            if decimals == 0 {
                return None;
            }
        }
        let mut scaled = false;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if !self.take(b'+') {
                self.take(b'-');
            }
            if self.digits(&mut 0) == 0 {
                return None;
            }
            scaled = true;
        }
        let fits = whole_digits + decimals <= 19;
        let value = match TENS.get(decimals) {
            Some(ten) if fits && !scaled && mantissa <= EXACT => {
                let size = mantissa as f64 / ten;
                if negative { -size } else { size }
            }
            _ => {
                let text = std::str::from_utf8(&self.text[start..self.at]).ok()?;
                text.parse::<f64>().ok().filter(|value| value.is_finite())?
            }
        };
        let whole = if negative {
            None
        } else if fits && !scaled && decimals == 0 {
            Some(mantissa)
        } else {
            (value <= EXACT as f64 && value.fract() == 0.0).then_some(value as u64)
        };
        Some(Number { value, whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn number(text: &str) -> Option<f64> {
        let mut cursor = Cursor { text: text.as_bytes(), at: 0 };
        let number = cursor.number()?;
        (cursor.at == text.len()).then_some(number.value)
    }

    #[test]
    fn numbers_are_those_of_the_standard_library() {
        let mut random = Random::new(2);
        let mut compared = 0;
        for case in 0..4000 {
            let size = f64::from(random.unit()) * 10_f64.powi(case % 30 - 15);
            let exact = f64::from_bits(random.next_u64() >> 2);
            for text in [format!("{size}"), format!("-{size:.3}"), format!("{exact:e}"), format!("{exact:.17}")] {
                assert_eq!(number(&text), text.parse().ok(), "{text}");
                compared += 1;
            }
        }
        assert_eq!(compared, 16_000);
        for (text, value) in [("0", 0.0), ("-0.5", -0.5), ("10000000000000000000000", 1e22)] {
            assert_eq!(number(text), Some(value));
        }
        for text in ["", "-", ".5", "5.", "01", "+1", "1e", "1e+", "NaN", "Infinity", "1e999", "0x1"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn results_are_read_in_any_order_of_names() {
        let text = br#" {"score":5e-1,"id" : "x", "category_id": 3.0 ,"bbox":[1,2.5,-3,4e0] , "image_id":7},
            {"image_id":7,"category_id":1,"score":1,"bbox":[],"segmentation":{"counts":"a}\"]","size":[1]},"a":null}"#;
        let found = scan(text).unwrap();
        let bbox = Some([1.0, 2.5, -3.0, 4.0]);
        assert_eq!(found[0], Scanned { image_id: 7, category_id: 3, bbox, score: 0.5, segmentation: None });
        assert_eq!(found[1].segmentation, Some(&br#"{"counts":"a}\"]","size":[1]}"#[..]));
        assert_eq!((found[1].bbox, found.len()), (None, 2));
        assert_eq!(scan(b" "), Some(Vec::new()));
    }

    #[test]
    fn what_is_unusual_is_left_to_the_general_reader() {
        let plain = r#"{"image_id":1,"category_id":1,"score":1}"#;
        assert!(scan(plain.as_bytes()).is_some());
        for text in [
            r#"{"image_id":1,"category_id":1}"#,
            r#"{"image_id":-1,"category_id":1,"score":1}"#,
            r#"{"image_id":1.5,"category_id":1,"score":1}"#,
            r#"{"image_id":"1","category_id":1,"score":1}"#,
            r#"{"image_id":1,"category_id":1,"score":NaN}"#,
            r#"{"image_id":1,"category_id":1,"score":1,"score":1}"#,
            r#"{"image_id":1,"category_id":1,"score":1,"bbox":[1,2,3]}"#,
            r#"{"image_id":1,"category_id":1,"score":1,"bbox":[1,2,3,4,5]}"#,
            r#"{"image_id":1,"category_id":1,"score":1,"keypoints":[1]}"#,
            r#"{"image_id":1,"category_id":1,"score":1,"segmentation":{"counts":"}"#,
            r#"{"image_id":1,"category_id":1,"score":1,"segmentation":]}"#,
            r#"{"image_id":1,"category_id":1,"score":1,}"#,
            r#"{"im\u0061ge_id":1,"category_id":1,"score":1}"#,
            "{}",
            "{",
        ] {
            assert_eq!(scan(text.as_bytes()), None, "{text}");
        }
        for text in [format!("{plain},"), format!("{plain} {plain}"), format!(",{plain}"), format!("{plain}]")] {
            assert_eq!(scan(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn parts_put_together_are_the_whole() {
        let objects: Vec<String> = (0..500)
            .map(|i| {
                let extra = if i % 7 == 0 { r#","segmentation":{"counts":"}, {","size":[1,2]}"# } else { "" };
                format!(r#"{{"image_id":{i},"category_id":1,"score":0.{i}{extra}}}"#)
            })
            .collect();
        let text = format!("\n[{}]\r\n", objects.join(" ,\n"));
        let whole = scan(&text.as_bytes()[2..text.len() - 3]).unwrap();
        assert_eq!(whole.len(), 500);
        let (mut read, mut refused) = (0, 0);
        for size in (1..400).map(|step| step * 57) {
            let parts = split(text.as_bytes(), size).unwrap();
            // a cut inside the string that looks like the end of an object must be noticed
            match parts.into_iter().map(scan).collect::<Option<Vec<_>>>() {
                Some(lists) => {
                    assert_eq!(lists.concat(), whole, "size {size}");
                    read += 1;
                }
                None => refused += 1,
            }
        }
        assert!(read > 10 && refused > 10, "{read} read, {refused} refused");
        assert_eq!(split(b" [ ] ", 9).unwrap(), [b" "]);
        for text in ["", "[", "{}", "]", "[}"] {
            assert_eq!(split(text.as_bytes(), 9), None, "{text}");
        }
    }
}
