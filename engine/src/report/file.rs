//! The file that reports are written to.

use anyhow::{Context, Result};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often it is logged that reports cannot be written.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The file that reports are written to. One that cannot be written is counted and logged now and
/// then, and ends nothing: a replay is worth more than a report of how far it is.
pub struct ReportFile {
    path: PathBuf,
    failed: u64,
    warned_at: Option<Instant>,
}

impl ReportFile {
    /// The file at `path`, which may be there already.
    pub const fn new(path: PathBuf) -> Self {
        Self {
            path,
            failed: 0,
            warned_at: None,
        }
    }

    /// Reports that could not be written.
    pub const fn failed(&self) -> u64 {
        self.failed
    }

    /// Writes the report, so that a reader never sees half of one.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn write(&mut self, report: &Value) -> Result<()> {
        config::write_report(&self.path, format!("{report:#}\n").as_bytes())
            .inspect_err(|_| self.failed += 1)
            .with_context(|| format!("report {} cannot be written", self.path.display()))
    }

    /// The same, for a report that others follow: a failure is logged, if none was at `now` for
    /// some time.
    pub fn try_write(&mut self, report: &Value, now: Instant) {
        let Err(e) = self.write(report) else {
            return;
        };
        let due = |at| now.saturating_duration_since(at) >= WARN_EVERY;
        if self.warned_at.is_none_or(due) {
            self.warned_at = Some(now);
            let failed = self.failed;
            log::warn!("{e:#}; the replay goes on ({failed} so far were not)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_that_cannot_be_written_is_counted_and_ends_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("later").join("report.json");
        let mut file = ReportFile::new(path.clone());
        let report = json!({ "turns": 1 });
        let now = Instant::now();
        for n in 1..=3 {
            file.try_write(&report, now);
            assert_eq!(file.failed(), n);
        }
        assert_eq!(file.warned_at, Some(now), "logged once");
        file.try_write(&report, now + WARN_EVERY);
        assert_eq!(file.warned_at, Some(now + WARN_EVERY), "and again");
        let e = format!("{:#}", file.write(&report).unwrap_err());
        assert!(e.contains("report.json cannot be written: "), "{e}");

        std::fs::create_dir(dir.path().join("later")).unwrap();
        file.write(&report).unwrap();
        assert_eq!(file.failed(), 5);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("{report:#}\n")
        );
        // A folder stands in its place: nothing is left beside it.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        file.write(&report).unwrap_err();
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
    }
}
