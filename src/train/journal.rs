//! `log.txt`: what happened to a run, one dated line each.

use super::TrainError;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Appends one line to the log of the run in `folder`.
///
/// # Errors
/// A disk that is full or gone.
pub fn note(folder: &Path, text: &str) -> Result<(), TrainError> {
    let path = folder.join("log.txt");
    let line = format!("{} {}\n", utc(super::events::seconds_now() as u64), text.replace('\n', " "));
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(|source| TrainError::Write { path, source })
}

/// Date and time, `2025-01-31T23:59:58Z`, of `seconds` since 1970.
pub fn utc(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01 in eras of 400 years (H. Hinnant, "chrono-compatible low-level date algorithms").
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + later;
    format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // `date -u -d @SECONDS`
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }
}
