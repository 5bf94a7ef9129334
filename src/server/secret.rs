//! Texts of a configuration that may be kept apart from it, in files.

use crate::yaml::{FileError, read_text};
use std::fmt;
use std::path::PathBuf;

/// A text, or the file that holds it. Files are read whenever the text is needed, so that it may
/// change without a reload.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The text.
    Text(String),
    /// Its file.
    File(PathBuf),
}

impl Secret {
    /// The text, without blanks and line ends around it if it is of a file, as Prometheus has it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> Result<String, FileError> {
        match self {
            Secret::Text(text) => Ok(text.clone()),
            Secret::File(path) => Ok(read_text(path)?.trim().to_owned()),
        }
    }
}

impl Default for Secret {
    fn default() -> Secret {
        Secret::Text(String::new())
    }
}

/// Without what is secret.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Text(_) => f.write_str("<secret>"),
            Secret::File(path) => write!(f, "{}", path.display()),
        }
    }
}
