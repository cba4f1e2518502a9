//! The directory of a zip archive: where its entries lie, so that stored ones are read in place.
//!
//! Format: PKWARE APPNOTE 6.3, including zip64. Only inflating is left to the `zip` crate, which also checks the
//! checksum then; stored entries are taken as they are.

use super::error::WeightsError;
use super::source::{u16_at, u32_at, u64_at};
use std::io::Read;
use std::ops::Range;

/// Bytes of the record at the end of the directory, without its comment.
const END_RECORD: usize = 22;
/// Bytes of one directory entry, without name, extra fields and comment.
const CENTRAL_HEADER: usize = 46;
/// Bytes of the header before an entry's data, without name and extra fields.
const LOCAL_HEADER: usize = 30;

/// One file in the archive.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: String,
    flags: u16,
    method: u16,
    crc: u32,
    /// Bytes in the archive.
    packed: u64,
    /// Bytes when inflated.
    pub size: u64,
    /// Position of the local header.
    header: u64,
}

/// All files that the archive's directory names, in its order.
pub(super) fn entries(bytes: &[u8]) -> Result<Vec<Entry>, WeightsError> {
    let (start, count) = directory(bytes)?;
    let mut entries = Vec::new();
    let mut at = start;
    for number in 0..count {
        let (entry, next) = central_entry(bytes, at)
            .ok_or_else(|| WeightsError::Malformed(format!("zip directory: entry {number} of {count} is damaged")))?;
        entries.push(entry);
        at = next;
    }
    Ok(entries)
}

/// Where the directory starts and how many entries it has.
fn directory(bytes: &[u8]) -> Result<(usize, u64), WeightsError> {
    let no_directory = || {
        WeightsError::Malformed(format!(
            "zip archive of {} bytes without a directory at its end: the file is cut short or damaged",
            bytes.len()
        ))
    };
    let last = bytes.len().checked_sub(END_RECORD).ok_or_else(no_directory)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    let end = (first..=last).rev().find(|&at| has_signature(bytes, at, b"PK\x05\x06")).ok_or_else(no_directory)?;
    let short = || Some((u16_at(bytes, end + 10)?, u32_at(bytes, end + 12)?, u32_at(bytes, end + 16)?));
    let (count, size, start) = short().ok_or_else(no_directory)?;
    let (count, start) = if count == u16::MAX || size == u32::MAX || start == u32::MAX {
        directory64(bytes, end).unwrap_or((u64::from(count), u64::from(start)))
    } else {
        (u64::from(count), u64::from(start))
    };
    let start = usize::try_from(start).ok().filter(|&start| start <= end).ok_or_else(no_directory)?;
    Ok((start, count))
}

/// Count and start from the zip64 record, which the locator before the end record points to.
fn directory64(bytes: &[u8], end: usize) -> Option<(u64, u64)> {
    let locator = end.checked_sub(20)?;
    if !has_signature(bytes, locator, b"PK\x06\x07") {
        return None;
    }
    let record = usize::try_from(u64_at(bytes, locator + 8)?).ok()?;
    if !has_signature(bytes, record, b"PK\x06\x06") {
        return None;
    }
    Some((u64_at(bytes, record.checked_add(32)?)?, u64_at(bytes, record.checked_add(48)?)?))
}

fn has_signature(bytes: &[u8], at: usize, signature: &[u8; 4]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(signature))
}

/// The directory entry at `at` and the position behind it.
fn central_entry(bytes: &[u8], at: usize) -> Option<(Entry, usize)> {
    if !has_signature(bytes, at, b"PK\x01\x02") {
        return None;
    }
    let name_at = at.checked_add(CENTRAL_HEADER)?;
    let extra_at = name_at.checked_add(usize::from(u16_at(bytes, at + 28)?))?;
    let comment_at = extra_at.checked_add(usize::from(u16_at(bytes, at + 30)?))?;
    let next = comment_at.checked_add(usize::from(u16_at(bytes, at + 32)?))?;
    let name = String::from_utf8_lossy(bytes.get(name_at..extra_at)?).into_owned();
    let mut entry = Entry {
        name,
        flags: u16_at(bytes, at + 8)?,
        method: u16_at(bytes, at + 10)?,
        crc: u32_at(bytes, at + 16)?,
        packed: u64::from(u32_at(bytes, at + 20)?),
        size: u64::from(u32_at(bytes, at + 24)?),
        header: u64::from(u32_at(bytes, at + 42)?),
    };
    widen(&mut entry, bytes.get(extra_at..comment_at)?)?;
    (next <= bytes.len()).then_some((entry, next))
}

/// Takes the 64-bit numbers from the extra fields: they hold, in this order, those that are all ones in the header.
fn widen(entry: &mut Entry, extra: &[u8]) -> Option<()> {
    let all_ones = u64::from(u32::MAX);
    let mut at = 0usize;
    while let (Some(kind), Some(length)) = (u16_at(extra, at), u16_at(extra, at + 2)) {
        let field = at + 4;
        if kind == 1 {
            let mut number_at = field;
            for number in [&mut entry.size, &mut entry.packed, &mut entry.header] {
                if *number == all_ones {
                    *number = u64_at(extra, number_at)?;
                    number_at += 8;
                }
            }
        }
        at = field + usize::from(length);
    }
    Some(())
}

impl Entry {
    /// Whether the bytes lie in the archive as they are.
    pub(super) fn is_stored(&self) -> bool {
        self.method == 0
    }

    fn broken(&self, what: &str) -> WeightsError {
        WeightsError::Malformed(format!("zip entry `{}` {what}", self.name))
    }

    /// Where the entry's bytes lie in the archive.
    ///
    /// # Errors
    /// The entry is encrypted, its local header is not where the directory says, or it reaches past the end.
    pub(super) fn range(&self, bytes: &[u8]) -> Result<Range<usize>, WeightsError> {
        if self.flags & 1 != 0 {
            return Err(self.broken("is encrypted"));
        }
        let damaged = || self.broken("has no local header: the archive is damaged");
        let header = usize::try_from(self.header).ok().filter(|&at| has_signature(bytes, at, b"PK\x03\x04"));
        let header = header.ok_or_else(damaged)?;
        let name = u16_at(bytes, header + 26).ok_or_else(damaged)?;
        let extra = u16_at(bytes, header + 28).ok_or_else(damaged)?;
        let start = header + LOCAL_HEADER + usize::from(name) + usize::from(extra);
        let end = usize::try_from(self.packed).ok().and_then(|length| start.checked_add(length));
        match end {
            Some(end) if end <= bytes.len() => Ok(start..end),
            _ => Err(WeightsError::Truncated {
                what: format!("zip entry `{}`", self.name),
                expected: self.packed,
                actual: bytes.len().saturating_sub(start) as u64,
            }),
        }
    }

    /// Inflates a compressed entry; the checksum is verified.
    ///
    /// # Errors
    /// What [`Self::range`] refuses, another method than deflate, damaged data, or more than `limit` bytes.
    pub(super) fn inflate(&self, bytes: &[u8], limit: usize) -> Result<Vec<u8>, WeightsError> {
        let range = self.range(bytes)?;
        if self.size > limit as u64 {
            return Err(self.broken(&format!("inflates to {} bytes, {limit} are allowed", self.size)));
        }
        let start = usize::try_from(self.header).unwrap_or(usize::MAX);
        let mut reader: &[u8] = bytes.get(start..range.end).unwrap_or_default();
        // entries written to a pipe have these numbers behind the data only; the directory has them always
        let options = zip::ZipReadOptions::new()
            .override_compressed_size(self.packed)
            .override_uncompressed_size(self.size)
            .override_crc(self.crc);
        let damaged = |cause: String| self.broken(&format!("cannot be inflated: {cause}"));
        let file = zip::read::read_zipfile_from_stream_with_options(&mut reader, options)
            .map_err(|cause| damaged(cause.to_string()))?
            .ok_or_else(|| damaged("it is not there".to_owned()))?;
        let mut inflated = Vec::new();
        file.take(self.size.saturating_add(1))
            .read_to_end(&mut inflated)
            .map_err(|cause| damaged(cause.to_string()))?;
        if inflated.len() as u64 != self.size {
            return Err(damaged(format!("{} bytes came out, {} should", inflated.len(), self.size)));
        }
        Ok(inflated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};
    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    fn archive() -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, method) in [("a/stored", CompressionMethod::Stored), ("a/deflated", CompressionMethod::Deflated)] {
            writer.start_file(name, SimpleFileOptions::default().compression_method(method)).unwrap();
            writer.write_all(&[7; 500]).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn stored_entries_are_found_in_place_and_deflated_ones_inflate() {
        let bytes = archive();
        let entries = entries(&bytes).unwrap();
        assert_eq!(entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["a/stored", "a/deflated"]);
        assert!(entries[0].is_stored() && !entries[1].is_stored());
        assert_eq!(bytes[entries[0].range(&bytes).unwrap()], [7; 500]);
        assert_eq!(entries[1].inflate(&bytes, 500).unwrap(), [7; 500]);
        assert!(entries[1].inflate(&bytes, 499).is_err());
    }

    #[test]
    fn a_comment_behind_the_directory_does_not_hide_it() {
        let mut bytes = archive();
        let end = bytes.len();
        bytes[end - 2] = 5;
        bytes.extend_from_slice(b"hello");
        assert_eq!(entries(&bytes).unwrap().len(), 2);
    }

    #[test]
    fn zip64_numbers_replace_the_ones_that_are_all_ones() {
        let mut entry = Entry {
            name: String::new(),
            flags: 0,
            method: 0,
            crc: 0,
            packed: u64::from(u32::MAX),
            size: 9,
            header: u64::from(u32::MAX),
        };
        // a foreign field of 2 bytes, then field 1 with two numbers
        let mut extra = vec![0x55, 0x54, 2, 0, 1, 1, 1, 0, 16, 0];
        extra.extend_from_slice(&5u64.to_le_bytes());
        extra.extend_from_slice(&6u64.to_le_bytes());
        widen(&mut entry, &extra).unwrap();
        assert_eq!((entry.size, entry.packed, entry.header), (9, 5, 6));
        // the numbers are missing
        entry.packed = u64::from(u32::MAX);
        assert!(widen(&mut entry, &[1, 0, 0, 0]).is_none());
    }

    #[test]
    fn an_archive_cut_anywhere_is_an_error() {
        let bytes = archive();
        for length in 0..bytes.len() {
            assert!(entries(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
