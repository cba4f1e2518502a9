//! `events.out.tfevents.*`: scalars and histograms of a run as TensorBoard reads them.
//!
//! The few messages of `event.proto` and `summary.proto` that are needed are written field by field. Every session of
//! a run opens a file of its own and says at which step it begins, so that a reader drops what a kill left behind.

use super::layers::Spread;
use super::metrics::write_whole;
use super::tfrecord::push_record;
use super::{StepReport, TrainError, Validation};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// An open event file.
#[derive(Debug)]
pub struct Events {
    file: File,
    path: PathBuf,
    /// Records that a full disk did not take yet.
    waiting: Vec<u8>,
}

impl Events {
    /// Begins a file in `folder` for the steps after `iteration`.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn create(folder: &Path, iteration: u64) -> Result<Self, TrainError> {
        let now = seconds_now();
        let mut number = 0;
        let (file, path) = loop {
            let path = folder.join(format!("events.out.tfevents.{:010}.{number}.boxwright", now as u64));
            match OpenOptions::new().create_new(true).append(true).open(&path) {
                Ok(file) => break (file, path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
                Err(source) => return Err(TrainError::Write { path, source }),
            }
        };
        let mut events = Self { file, path, waiting: Vec::new() };
        events.event(now, 0, |event| event.bytes(3, b"brain.Event:2"));
        // SessionLog { status: START }: steps from here on replace those of an earlier file. A run begun anew in its
        // folder, or one that went back to its beginning, has such files too.
        events.event(now, iteration + 1, |event| event.message(7, |log| log.varint(1, 1)));
        events.flush()?;
        Ok(events)
    }

    /// Appends the scalars of one iteration, and histograms where the probe took them.
    ///
    /// # Errors
    /// A disk that is full or gone; the records are kept for the next time.
    pub fn append(&mut self, report: &StepReport) -> Result<(), TrainError> {
        let mut scalars: Vec<(String, f32)> = vec![
            ("loss/total".into(), report.loss),
            ("train/learning_rate".into(), report.learning_rate),
            ("train/gradient_norm".into(), report.gradient_norm as f32),
            ("time/iteration_seconds".into(), report.seconds as f32),
            ("time/data_share".into(), (report.data_seconds / report.seconds.max(1e-9)) as f32),
        ];
        scalars.extend(report.parts.iter().map(|(name, value)| (format!("loss/{name}"), *value)));
        scalars.extend(report.validation.iter().flat_map(scores));
        for layer in &report.layers {
            scalars.push((format!("update_ratio/{}", layer.name), layer.update_ratio as f32));
        }
        self.event(seconds_now(), report.iteration, |event| {
            event.message(5, |summary| {
                summary.scalars(&scalars);
                for layer in &report.layers {
                    for (kind, spread) in [("weights", &layer.weights), ("gradients", &layer.gradients)] {
                        summary.message(1, |entry| {
                            entry.bytes(1, format!("{kind}/{}", layer.name).as_bytes());
                            entry.message(5, |histogram| histogram_of(histogram, spread));
                        });
                    }
                }
            });
        });
        self.flush()
    }

    /// Appends a validation that came after its iteration's scalars.
    ///
    /// # Errors
    /// A disk that is full or gone; the records are kept for the next time.
    pub fn append_validation(&mut self, validation: &Validation) -> Result<(), TrainError> {
        let scalars = scores(validation);
        self.event(seconds_now(), validation.iteration, |event| event.message(5, |summary| summary.scalars(&scalars)));
        self.flush()
    }

    fn event(&mut self, wall_time: f64, step: u64, what: impl FnOnce(&mut Message)) {
        let mut event = Message::default();
        event.double(1, wall_time);
        event.varint(2, step);
        what(&mut event);
        push_record(&mut self.waiting, &event.0);
    }

    fn flush(&mut self) -> Result<(), TrainError> {
        write_whole(&mut self.file, &mut self.waiting)
            .map_err(|source| TrainError::Write { path: self.path.clone(), source })
    }
}

/// What of a validation becomes points of curves.
fn scores(validation: &Validation) -> Vec<(String, f32)> {
    // −1 stands for undefined and is no point of a curve.
    let found = [("validation/AP", validation.ap), ("validation/AP50", validation.ap50)];
    let found = found.into_iter().filter(|(_, value)| *value >= 0.0).map(|(name, value)| (name, value as f32));
    let all = [("validation/loss", validation.loss)].into_iter().chain(found);
    all.map(|(name, value)| (name.to_string(), value)).collect()
}

/// `HistogramProto`.
fn histogram_of(message: &mut Message, spread: &Spread) {
    let count: u64 = spread.counts.iter().sum();
    message.double(1, f64::from(spread.low));
    message.double(2, f64::from(spread.high));
    message.double(3, count as f64);
    message.double(4, spread.sum);
    message.double(5, spread.sum_of_squares);
    let edges: Vec<f64> = (0..spread.counts.len()).map(|bin| spread.edge(bin)).collect();
    let counts: Vec<f64> = spread.counts.iter().map(|c| *c as f64).collect();
    message.doubles(6, &edges);
    message.doubles(7, &counts);
}

/// A protocol-buffer message in the making.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn raw(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, wire: u64) {
        self.raw((field << 3) | wire);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.raw(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        self.raw(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A packed list.
    fn doubles(&mut self, field: u64, values: &[f64]) {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(field, &bytes);
    }

    /// `Summary.Value`s of a tag and a `simple_value`.
    fn scalars(&mut self, scalars: &[(String, f32)]) {
        for (tag, value) in scalars {
            self.message(1, |entry| {
                entry.bytes(1, tag.as_bytes());
                entry.float(2, *value);
            });
        }
    }

    fn message(&mut self, field: u64, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

/// Seconds since 1970.
pub(super) fn seconds_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_encoded_as_the_format_says() {
        let mut message = Message::default();
        // The examples of the format's documentation: field 1 = 150, field 2 = "testing".
        message.varint(1, 150);
        message.bytes(2, b"testing");
        assert_eq!(message.0, [&[0x08u8, 0x96, 0x01, 0x12, 0x07][..], &b"testing"[..]].concat());
        let mut outer = Message::default();
        outer.message(3, |inner| inner.varint(1, 150));
        assert_eq!(outer.0, [0x1a, 0x03, 0x08, 0x96, 0x01]);
    }

    #[test]
    fn two_sessions_in_one_second_write_two_files_and_the_second_says_where_it_begins() {
        let folder = tempfile::tempdir().unwrap();
        let report = StepReport { iteration: 1, loss: 2.0, ..StepReport::default() };
        for iteration in [0, 7] {
            let mut events = Events::create(folder.path(), iteration).unwrap();
            events.append(&report).unwrap();
            let bytes = std::fs::read(&events.path).unwrap();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(text.contains("brain.Event:2") && text.contains("loss/total"));
            let start = [0x10u8, 8, 0x3a, 2, 0x08, 1];
            assert_eq!(bytes.windows(start.len()).any(|w| w == start), iteration == 7);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
