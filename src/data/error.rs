//! What goes wrong with a data set as a whole; trouble with a single image or box is a `Finding`.

use crate::imaging::ImageError;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a data set, an image of it or a batch could not be had.
#[derive(Debug, Error)]
pub enum DataError {
    #[error("cannot read {what}: {source}: {}", .path.display())]
    Read { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot write {what}: {source}: {}", .path.display())]
    Write { what: &'static str, path: PathBuf, source: io::Error },
    #[error("not well-formed XML at byte {position}: {message}: {}", .path.display())]
    Xml { path: PathBuf, position: u64, message: String },
    #[error("not a {what} in JSON: {source}: {}", .path.display())]
    Json { what: &'static str, path: PathBuf, source: serde_json::Error },
    /// Well-formed, but it contradicts itself or what it is read for.
    #[error("{message}: {}", .path.display())]
    Invalid { path: PathBuf, message: String },
    #[error("no split {wanted:?} here; the splits are {}: {data}", .have.join(", "))]
    NoSplit { wanted: String, have: Vec<String>, data: String },
    #[error("no data set recognised; looked for {looked_for}: {}", .path.display())]
    Unrecognised { path: PathBuf, looked_for: String },
    #[error("empty: {message}: {}", .path.display())]
    Empty { path: PathBuf, message: String },
    #[error("built-in Shapes: {message}")]
    Shapes { message: String },
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("image {index} asked for, the data set has {count}")]
    NoSuchImage { index: usize, count: usize },
    #[error("none of the {count} images can be read; one of them: {example}")]
    NoReadableImage { count: usize, example: String },
    #[error("batch loader: {message}")]
    Loader { message: String },
}
