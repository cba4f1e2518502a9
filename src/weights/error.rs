//! What can go wrong while weights are read or written.

use super::pickle::PickleError;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// An error of a reader or the writer: what failed and where, then what was expected, the path last.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// The operating system refused.
    #[error("cannot {action}: {cause}")]
    Io {
        /// The verb of the sentence: "open", "map", "write".
        action: &'static str,
        cause: std::io::Error,
    },
    /// Fewer bytes are there than a length in the file promises.
    #[error("{what} needs {expected} bytes but {actual} are there: the file is cut short or damaged")]
    Truncated { what: String, expected: u64, actual: u64 },
    /// The bytes contradict their format, or ask for something that is not supported.
    #[error("{0}")]
    Malformed(String),
    /// One tensor is wrong; the message names it.
    #[error("tensor `{name}`: {what}")]
    Tensor { name: String, what: String },
    /// A pickle stream is wrong.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// Neither the content nor the extension says what this is.
    #[error(
        "not a weights file of a known format; known are torch zip (.pth, .pt), torch legacy stream, pickle (.pkl), \
         .safetensors and darknet .weights"
    )]
    UnknownFormat,
    /// Any of the above in a file with a name.
    #[error("{problem}; file {}", .path.display())]
    InFile { problem: Box<WeightsError>, path: PathBuf },
}

impl WeightsError {
    /// The same error with the file it happened in.
    pub(super) fn in_file(self, path: Option<&Path>) -> Self {
        match (self, path) {
            (WeightsError::InFile { problem, path }, _) => WeightsError::InFile { problem, path },
            (problem, Some(path)) => WeightsError::InFile { problem: Box::new(problem), path: path.to_path_buf() },
            (problem, None) => problem,
        }
    }

    /// The same error with the tensor it happened in, where it does not name one yet.
    pub(super) fn in_tensor(self, name: &str) -> Self {
        match self {
            WeightsError::Malformed(what) => WeightsError::Tensor { name: name.to_owned(), what },
            WeightsError::Truncated { what, expected, actual } => {
                WeightsError::Truncated { what: format!("tensor `{name}`: {what}"), expected, actual }
            }
            other => other,
        }
    }

    /// The problem itself, without the path around it.
    pub fn problem(&self) -> &WeightsError {
        match self {
            WeightsError::InFile { problem, .. } => problem,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_comes_last_and_once() {
        let error = WeightsError::Truncated { what: "header".into(), expected: 8, actual: 3 };
        let placed = error.in_file(Some(Path::new("a.pt"))).in_file(Some(Path::new("b.pt")));
        let text = placed.to_string();
        assert!(text.contains("8 bytes") && text.contains("3 are there"), "{text}");
        assert!(text.ends_with("file a.pt"), "{text}");
        assert!(matches!(placed.problem(), WeightsError::Truncated { .. }));
    }

    #[test]
    fn a_problem_inside_a_tensor_names_it() {
        let error = WeightsError::Malformed("no storage".into()).in_tensor("conv1.weight");
        assert_eq!(error.to_string(), "tensor `conv1.weight`: no storage");
    }
}
