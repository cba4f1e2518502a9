//! Cuts the text of a COCO file into the entries of its lists, so that they can be read in parallel.
//!
//! Only brackets and quotes are looked at, in steps of many bytes: the entries themselves are checked when they are read.

/// Bytes that are looked over at once for something of interest.
const BLOCK: usize = 32;

/// The entries of each list that is there, each the text of one object; and the texts of all other values.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entries<'a> {
    pub(super) images: Option<Vec<&'a [u8]>>,
    pub(super) annotations: Option<Vec<&'a [u8]>>,
    pub(super) categories: Option<Vec<&'a [u8]>>,
    pub(super) others: Vec<&'a [u8]>,
}

/// The entries of a text that is one object whose `images`, `annotations` and `categories` are lists of objects, each
/// there at most once. Nothing for any other text, well-formed or not.
pub(super) fn entries(text: &[u8]) -> Option<Entries<'_>> {
    let mut entries = Entries::default();
    let mut at = expect(text, 0, b'{')?;
    if byte(text, at) == Some(b'}') {
        at += 1;
    } else {
        loop {
            at = space(text, at);
            let end = value_end(text, at)?;
            let key: String = serde_json::from_slice(text.get(at..end)?).ok()?;
            at = space(text, expect(text, end, b':')?);
            let end = value_end(text, at)?;
            let value = text.get(at..end)?;
            at = space(text, end);
            let list = match key.as_str() {
                "images" => Some(&mut entries.images),
                "annotations" => Some(&mut entries.annotations),
                "categories" => Some(&mut entries.categories),
                _ => None,
            };
            match list {
                // A list that stands twice: its order matters.
                Some(Some(_)) => return None,
                Some(list) => *list = Some(objects(value)?),
                None => entries.others.push(value),
            }
            match byte(text, at)? {
                b',' => at += 1,
                b'}' => {
                    at += 1;
                    break;
                }
                _ => return None,
            }
        }
    }
    (space(text, at) == text.len()).then_some(entries)
}

/// The objects of a list.
fn objects(list: &[u8]) -> Option<Vec<&[u8]>> {
    let mut objects = Vec::new();
    let mut at = expect(list, 0, b'[')?;
    if byte(list, at) == Some(b']') {
        return Some(objects);
    }
    loop {
        at = space(list, at);
        if byte(list, at) != Some(b'{') {
            return None;
        }
        let end = value_end(list, at)?;
        objects.push(list.get(at..end)?);
        at = space(list, end);
        match byte(list, at)? {
            b',' => at += 1,
            b']' => return (at + 1 == list.len()).then_some(objects),
            _ => return None,
        }
    }
}

fn byte(text: &[u8], at: usize) -> Option<u8> {
    text.get(at).copied()
}

/// The place behind white space.
fn space(text: &[u8], mut at: usize) -> usize {
    while matches!(byte(text, at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// The place behind `wanted` and the white space around it.
fn expect(text: &[u8], at: usize, wanted: u8) -> Option<usize> {
    let at = space(text, at);
    (byte(text, at)? == wanted).then(|| space(text, at + 1))
}

/// The place behind the value that begins at `at`.
fn value_end(text: &[u8], at: usize) -> Option<usize> {
    match byte(text, at)? {
        b'"' => string_end(text, at),
        b'{' | b'[' => {
            let mut depth = 0usize;
            let mut at = at;
            loop {
                at = mark(text, at)?;
                match byte(text, at)? {
                    b'"' => {
                        at = string_end(text, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    _ => depth -= 1,
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        // A number or a word.
        _ => {
            let ends = |b: &u8| matches!(b, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
            let rest = text.get(at..)?;
            Some(at + rest.iter().position(ends).unwrap_or(rest.len()))
        }
    }
}

/// The next bracket or quote from `at` on.
fn mark(text: &[u8], mut at: usize) -> Option<usize> {
    // [ ] and { } differ in one bit.
    let is_mark = |b: u8| (b == b'"') | (b | 0x20 == b'{') | (b | 0x20 == b'}');
    // Without an early end the comparison runs on whole registers.
    while let Some(block) = text.get(at..at + BLOCK)
        && !block.iter().fold(false, |found, b| found | is_mark(*b))
    {
        at += BLOCK;
    }
    text.get(at..)?.iter().position(|b| is_mark(*b)).map(|step| at + step)
}

/// The place behind the string that begins at `at`.
fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match byte(text, at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_into_their_objects() {
        let text = br#" {"images": [{"a": "]}\"{"}, {"b": [[1, 2], {}]} ] , "info": {"images": [1]}, "n": 1.5,
            "categories":[], "last": null} "#;
        let found = entries(text).unwrap();
        let texts = |list: &[&[u8]]| list.iter().map(|t| String::from_utf8_lossy(t).into_owned()).collect::<Vec<_>>();
        assert_eq!(texts(found.images.as_deref().unwrap()), [r#"{"a": "]}\"{"}"#, r#"{"b": [[1, 2], {}]}"#]);
        assert_eq!((found.categories, &found.annotations), (Some(Vec::new()), &None));
        assert_eq!(texts(&found.others), [r#"{"images": [1]}"#, "1.5", "null"]);
        let long = format!("{{\"annotations\": [{{\"s\": [{}]}}]}}", "1.25, ".repeat(1000));
        assert_eq!(entries(long.as_bytes()).unwrap().annotations.unwrap()[0].len(), long.len() - 19);
    }

    #[test]
    fn any_other_text_is_left_to_the_stream() {
        let cases = [
            "",
            "[]",
            "{",
            "{\"images\": [1]}",
            "{\"images\": 3}",
            "{\"images\": [{}",
            "{\"images\": [{},]}",
            "{} {}",
            "{\"a\" 1}",
            "{\"images\": [], \"images\": []}",
            "{\"a\": \"",
            "{\"a\": 1,}",
            "{\"images\": [{}] \"a\": 1}",
            "{a: 1}",
        ];
        for text in cases {
            assert_eq!(entries(text.as_bytes()), None, "{text}");
        }
    }
}
