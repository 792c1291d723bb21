//! The one error of this crate: what is wrong, where, and what would be right, in one line.

use std::fmt;

/// Why a configuration is refused. [`Display`](fmt::Display) gives one line:
/// `replay.toml:12: traffic.percent = 0: give a number above 0 and at most 100`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    file: String,
    line: Option<usize>,
    key: Option<String>,
    value: Option<String>,
    reason: String,
}

impl Error {
    /// About a file as a whole.
    pub(crate) fn file(file: &str, reason: impl fmt::Display) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            key: None,
            value: None,
            reason: one_line(&reason.to_string()),
        }
    }

    /// About a key that is not there.
    pub(crate) fn missing(
        file: &str,
        line: Option<usize>,
        key: &str,
        reason: impl fmt::Display,
    ) -> Self {
        Self {
            line,
            key: Some(one_line(key)),
            ..Self::file(file, reason)
        }
    }

    /// About the value of a key.
    pub(crate) fn value(
        file: &str,
        line: Option<usize>,
        key: &str,
        value: String,
        reason: impl fmt::Display,
    ) -> Self {
        Self {
            value: Some(value),
            ..Self::missing(file, line, key, reason)
        }
    }

    /// About a line that is no TOML.
    pub(crate) fn syntax(file: &str, line: Option<usize>, reason: impl fmt::Display) -> Self {
        Self {
            line,
            ..Self::file(file, reason)
        }
    }

    /// The full dotted path of the key, such as `transfer[1].to`; `None` if the file as a whole is
    /// meant.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The line in the file, counted from 1, where one can be named.
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        match (&self.key, &self.value) {
            (Some(key), Some(value)) => write!(f, ": {key} = {value}")?,
            (Some(key), None) => write!(f, ": {key}")?,
            (None, _) => {}
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for Error {}

/// The message without line breaks or other control characters, so that it stays one line in a log
/// and on a terminal.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control())
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
