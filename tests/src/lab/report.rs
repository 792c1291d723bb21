//! The engine's report, read by the names that users read it by.
//!
//! Nothing here knows how the engine counts: a number that is not in the file is an error, never
//! zero.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use std::fmt;
use std::path::Path;

/// A `report.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Report(Value);

impl Report {
    /// Reads one.
    ///
    /// # Errors
    /// The file can't be read or is no JSON object. A report is to be replaced at once, so half of
    /// one is an error too.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{}: cannot be read", path.display()))?;
        Self::parse(&text).with_context(|| format!("{}", path.display()))
    }

    /// A report from its text.
    ///
    /// # Errors
    /// It's no JSON object.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value =
            serde_json::from_str(text).with_context(|| format!("is no JSON: {text:?}"))?;
        if value.is_object() {
            Ok(Self(value))
        } else {
            bail!("is no JSON object: {text:?}")
        }
    }

    /// The value with this path, such as `mirror.dropped`, `latency.target.p99_us` or `targets.0.to`.
    ///
    /// # Errors
    /// There is none.
    pub fn value(&self, path: &str) -> Result<&Value> {
        path.split('.')
            .try_fold(&self.0, |value, key| match key.parse::<usize>() {
                Ok(index) if value.is_array() => value.get(index),
                _ => value.get(key),
            })
            .ok_or_else(|| anyhow!("the report has no {path}:\n{self}"))
    }

    /// The whole number with this path.
    ///
    /// # Errors
    /// There is none, or something else.
    pub fn number(&self, path: &str) -> Result<u64> {
        self.value(path)?
            .as_u64()
            .ok_or_else(|| anyhow!("the report's {path} is no whole number:\n{self}"))
    }

    /// The sum of the whole numbers below this path, however deep.
    ///
    /// # Errors
    /// There is nothing there.
    pub fn sum(&self, path: &str) -> Result<u64> {
        fn add(value: &Value) -> u64 {
            match value {
                Value::Object(map) => map.values().map(add).sum(),
                other => other.as_u64().unwrap_or(0),
            }
        }
        Ok(add(self.value(path)?))
    }

    /// Checks that nothing is unaccounted for: `production.turns × copies = replayed + lost + in
    /// flight`, the same of bytes; the schedule has all turns that were sent; and mirrored frames =
    /// used frames + those dropped by reason + parts of datagrams that wait for the rest.
    ///
    /// # Errors
    /// A sentence for the first sum that is wrong.
    pub fn check_books(&self, copies: u16) -> Result<()> {
        for what in ["turns", "bytes"] {
            let of = |part: &str| self.number(&format!("{part}.{what}"));
            let (production, replayed, lost, in_flight) = (
                of("production")?,
                of("replayed")?,
                of("lost")?,
                of("in_flight")?,
            );
            let expected = production * u64::from(copies);
            let found = replayed + lost + in_flight;
            if expected != found {
                bail!(
                    "the books of {what} don't balance: production {production} × {copies} = {expected}, but replayed {replayed} + lost {lost} + in flight {in_flight} = {found}\n{self}"
                );
            }
        }
        let sent = self.number("schedule.late.count")? + self.number("schedule.held.count")?;
        let (replayed, owed) = (
            self.number("replayed.turns")?,
            self.number("production.turns")? * u64::from(copies),
        );
        if !(replayed..=owed).contains(&sent) {
            bail!(
                "the schedule tells of {sent} turns, but {replayed} were replayed of {owed}\n{self}"
            );
        }
        let (frames, used, dropped, held) = (
            self.number("mirror.frames")?,
            self.number("mirror.used")?,
            self.sum("mirror.dropped")?,
            self.number("mirror.fragments.held")?,
        );
        if frames != used + dropped + held {
            bail!(
                "the books of the mirror don't balance: {frames} frames, but {used} used + {dropped} dropped + {held} held\n{self}"
            );
        }
        Ok(())
    }

    /// Checks that no turn and no byte was lost.
    ///
    /// # Errors
    /// Some were; the sentence has the reasons.
    pub fn check_nothing_lost(&self) -> Result<()> {
        if self.number("lost.turns")? > 0 || self.number("lost.bytes")? > 0 {
            bail!("lost in fair weather: {}\n{self}", self.value("lost")?);
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(replayed: u64, lost: u64, used: u64) -> Report {
        scheduled(18, replayed, lost, used)
    }

    fn scheduled(sent: u64, replayed: u64, lost: u64, used: u64) -> Report {
        Report::parse(&format!(
            r#"{{"production": {{"turns": 10, "bytes": 100}}, "replayed": {{"turns": {replayed}, "bytes": 180}},
                 "schedule": {{"late": {{"count": 1}}, "held": {{"count": {}}}}},
                 "lost": {{"turns": {lost}, "bytes": 15, "shed": 1}}, "in_flight": {{"turns": 2, "bytes": 5}},
                 "mirror": {{"frames": 51, "used": {used}, "fragments": {{"held": 1}}, "dropped": {{"not_tcp": 3, "bad": {{"ip": 1, "tcp": 1}}}}}}}}"#,
            sent - 1
        ))
        .unwrap()
    }

    #[test]
    fn books_balance_or_say_which_do_not() {
        report(17, 1, 45).check_books(2).unwrap();
        let turns = report(16, 1, 45).check_books(2).unwrap_err().to_string();
        assert!(turns.contains("turns don't balance: production 10 × 2 = 20, but replayed 16 + lost 1 + in flight 2 = 19"), "{turns}");
        let mirror = report(17, 1, 44).check_books(2).unwrap_err().to_string();
        assert!(
            mirror.contains("51 frames, but 44 used + 5 dropped + 1 held"),
            "{mirror}"
        );
        for sent in [16, 21] {
            let schedule = scheduled(sent, 17, 1, 45).check_books(2).unwrap_err();
            let told = format!("tells of {sent} turns, but 17 were replayed of 20");
            assert!(schedule.to_string().contains(&told), "{schedule}");
        }
        assert!(report(17, 1, 45).check_nothing_lost().is_err());
    }

    #[test]
    fn what_is_missing_is_an_error() {
        let report = report(1, 1, 1);
        assert!(
            report
                .number("target.resets")
                .unwrap_err()
                .to_string()
                .contains("no target.resets")
        );
        assert!(report.number("mirror.dropped").is_err() && report.sum("nothing").is_err());
        assert!(Report::parse("[]").is_err() && Report::parse("{").is_err());
    }
}
