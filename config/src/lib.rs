//! Configuration: TOML to validated models of plain values.
//!
//! [`replay`] is the engine's file, [`intercept`] the intercept's, [`Eal`] and [`Report`] are parts
//! of both. Nothing here opens a device or looks at the machine: the only files read are the
//! configuration and the key it names, and the only one written is a report, by [`write_report`].
//!
//! Holds always: a value returned by `parse` or `load` has passed every check that can be made from
//! the text alone, and every error names the key, the value and what is accepted, in one line.
#![forbid(unsafe_code)]

mod doc;
mod error;
pub mod intercept;
mod key;
pub mod replay;
mod report_file;
mod shared;
mod value;

pub use error::Error;
pub use key::{KeyFile, KeyReader, read_key_file};
pub use report_file::write_report;
pub use shared::{Eal, Idle, Memory, Report};

/// The control link's port where none is configured.
pub const DEFAULT_LINK_PORT: u16 = 36524;
