//! Checked reading of a pickle stream: fixed-width numbers, lengths, lines, and the escapes of protocol 0.

use super::pickle::{PickleError, Span};

/// A position in a stream; nothing beyond the end can be taken.
pub(super) struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn error(&self, what: impl Into<String>) -> PickleError {
        PickleError { at: self.at, what: what.into() }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<Span, PickleError> {
        let start = self.at;
        match start.checked_add(count) {
            Some(end) if end <= self.bytes.len() => {
                self.at = end;
                Ok(Span { start, end })
            }
            _ => {
                let left = self.bytes.len().saturating_sub(start);
                Err(self.error(format!("needs {count} bytes but {left} are left: the stream is cut short")))
            }
        }
    }

    pub(super) fn slice(&self, span: Span) -> &'a [u8] {
        self.bytes.get(span.start..span.end).unwrap_or_default()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let span = self.take(N)?;
        <[u8; N]>::try_from(self.slice(span)).map_err(|_| self.error("the stream is cut short"))
    }

    pub(super) fn byte(&mut self) -> Result<u8, PickleError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn length_i32(&mut self) -> Result<usize, PickleError> {
        let length = i32::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| self.error(format!("length {length}")))
    }

    pub(super) fn length_u32(&mut self) -> Result<usize, PickleError> {
        let length = u32::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| self.error(format!("length {length}")))
    }

    pub(super) fn length_u64(&mut self) -> Result<usize, PickleError> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| self.error(format!("length {length}")))
    }

    /// The bytes up to the next line feed, which is consumed.
    pub(super) fn line(&mut self) -> Result<Span, PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(self.error("a line without an end"));
        };
        let line = self.take(length)?;
        self.take(1)?;
        Ok(line)
    }

    pub(super) fn ascii(&self, span: Span) -> Option<&'a str> {
        std::str::from_utf8(self.slice(span)).ok()
    }
}

/// Whether a text is an integer in decimal, of any length.
pub(super) fn is_decimal(digits: &str) -> bool {
    let digits = digits.strip_prefix('-').unwrap_or(digits);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Undoes the escapes that Python 2's `repr` writes.
pub(super) fn unescape(escaped: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next()? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => u8::try_from(hexadecimal(&mut rest, 2)?).ok()?,
            plain @ (b'\\' | b'\'' | b'"') => plain,
            _ => return None,
        });
    }
    Some(bytes)
}

/// Undoes `\uXXXX` and `\UXXXXXXXX`; every other byte is the Latin-1 character it is.
pub(super) fn raw_unicode(escaped: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(escaped.len());
    let mut rest = escaped.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        let digits = match (byte, rest.peek()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(char::from(byte));
                continue;
            }
        };
        rest.next();
        text.push(char::from_u32(hexadecimal(&mut rest, digits)?)?);
    }
    Some(text)
}

/// The next `digits` bytes as one hexadecimal number, at most 8 of them.
fn hexadecimal(bytes: &mut impl Iterator<Item = u8>, digits: usize) -> Option<u32> {
    let mut number = 0u32;
    for _ in 0..digits {
        number = (number << 4) | char::from(bytes.next()?).to_digit(16)?;
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_cannot_be_taken() {
        let mut cursor = Cursor { bytes: b"\x02\x00ab\ncd", at: 0 };
        assert_eq!(cursor.array::<2>().unwrap(), [2, 0]);
        let line = cursor.line().unwrap();
        assert_eq!(cursor.ascii(line), Some("ab"));
        assert_eq!(cursor.at, 5);
        assert!(cursor.line().is_err());
        assert!(cursor.take(usize::MAX).is_err());
        assert_eq!(cursor.take(3).unwrap_err().at, 5);
        assert!(cursor.take(2).is_ok() && cursor.byte().is_err());
    }

    #[test]
    fn a_negative_length_is_an_error() {
        let mut cursor = Cursor { bytes: &(-1i32).to_le_bytes(), at: 0 };
        assert!(cursor.length_i32().is_err());
    }

    #[test]
    fn escapes_that_python_does_not_write_are_refused() {
        assert_eq!(unescape(b"a\\x41\\\"").as_deref(), Some(b"aA\"".as_slice()));
        assert!(unescape(b"\\q").is_none() && unescape(b"\\x4").is_none() && unescape(b"\\").is_none());
        assert_eq!(raw_unicode(b"\\u0041\\U0001f600\xff").as_deref(), Some("A\u{1f600}\u{ff}"));
        assert!(raw_unicode(b"\\ud800").is_none() && raw_unicode(b"\\u41").is_none());
        // a backslash before anything else is itself
        assert_eq!(raw_unicode(b"\\n").as_deref(), Some("\\n"));
        assert!(is_decimal("-12345678901234567890") && !is_decimal("-") && !is_decimal("1e5"));
    }
}
