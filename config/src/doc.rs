//! A parsed TOML text that remembers where everything stands, so that errors can name line, key and
//! value.
//!
//! Holds always: a [`Section`] that could be opened has no key that is not known.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Error;

/// The tables of a file with their keys. The table of the file itself is not listed.
pub(crate) type Schema = &'static [(&'static str, &'static [&'static str])];

/// A text and what it is called in errors.
#[derive(Clone, Copy)]
pub(crate) struct Doc<'a> {
    pub path: &'a str,
    pub text: &'a str,
    pub schema: Schema,
}

/// A table of the file; absent ones read as empty, so that defaults need no special case.
pub(crate) struct Section<'a> {
    doc: Doc<'a>,
    name: String,
    table: Option<&'a DeTable<'a>>,
    line: Option<usize>,
}

/// A value with its full key.
#[derive(Clone)]
pub(crate) struct Item<'a> {
    doc: Doc<'a>,
    pub key: String,
    value: &'a DeValue<'a>,
    span: Range<usize>,
}

/// A value that was read, and where it was read.
#[derive(Clone)]
pub(crate) struct Found<'a, T> {
    pub item: Item<'a>,
    pub value: T,
}

impl<'a> Doc<'a> {
    /// Parses the text into TOML.
    pub fn table(&self) -> Result<Spanned<DeTable<'a>>, Error> {
        DeTable::parse(self.text).map_err(|e| {
            let line = e.span().map(|s| self.line(s.start));
            Error::syntax(
                self.path,
                line,
                format_args!("not valid TOML: {}", e.message()),
            )
        })
    }

    /// The line, from 1, of a byte offset.
    fn line(&self, offset: usize) -> usize {
        1 + self
            .text
            .as_bytes()
            .iter()
            .take(offset)
            .filter(|b| **b == b'\n')
            .count()
    }

    fn keys(&self, section: &str) -> &'static [&'static str] {
        self.schema
            .iter()
            .find(|(name, _)| *name == section)
            .map_or(&[], |(_, keys)| keys)
    }

    /// Refuses tables that the schema doesn't have.
    pub fn check_tables(&self, root: &DeTable<'a>) -> Result<(), Error> {
        for (name, value) in root.iter() {
            let key: &str = name.get_ref();
            if self.schema.iter().any(|(known, _)| *known == key) {
                continue;
            }
            let line = Some(self.line(name.span().start));
            // Those of tables in others have a dot.
            let names = || self.schema.iter().map(|(known, _)| *known);
            let tables = || names().filter(|name| !name.contains('.'));
            let hint = match (self.elsewhere(key), nearest(key, tables())) {
                (Some(there), _) => format!("did you mean {there}?"),
                (None, Some(near)) => format!("did you mean [{near}]?"),
                (None, None) => format!("known tables are {}", list(tables())),
            };
            return Err(Error::value(
                self.path,
                line,
                key,
                show(value.get_ref()),
                format_args!("unknown key; {hint}"),
            ));
        }
        Ok(())
    }

    /// A key of this name in another table, as a full path.
    fn elsewhere(&self, key: &str) -> Option<String> {
        // What several tables have is most likely meant for all of the traffic, which is last.
        let mut tables = self.schema.iter().rev();
        let (table, _) = tables.find(|(_, keys)| keys.contains(&key))?;
        Some(format!("{table}.{key}"))
    }

    /// Opens `[name]`.
    pub fn section(&self, root: &'a DeTable<'a>, name: &'static str) -> Result<Section<'a>, Error> {
        let Some(value) = find(root, name) else {
            return Ok(Section {
                doc: *self,
                name: name.to_owned(),
                table: None,
                line: None,
            });
        };
        let item = Item {
            doc: *self,
            key: name.to_owned(),
            value: value.get_ref(),
            span: value.span(),
        };
        item.into_section(name)
    }

    /// Opens every `[[name]]`.
    pub fn sections(
        &self,
        root: &'a DeTable<'a>,
        name: &'static str,
    ) -> Result<Vec<Section<'a>>, Error> {
        let Some(value) = find(root, name) else {
            return Ok(Vec::new());
        };
        let item = Item {
            doc: *self,
            key: name.to_owned(),
            value: value.get_ref(),
            span: value.span(),
        };
        if value.get_ref().is_table() {
            return Err(item.fail(format_args!(
                "write [[{name}]], it can be given several times"
            )));
        }
        item.items(&format!("write [[{name}]] tables"))?
            .into_iter()
            .map(|i| i.into_section(name))
            .collect()
    }
}

impl<'a> Section<'a> {
    /// The value of a key of this table, if it is given.
    pub fn get(&self, key: &str) -> Option<Item<'a>> {
        let value = find(self.table?, key)?;
        let key = format!("{}.{key}", self.name);
        Some(Item {
            doc: self.doc,
            key,
            value: value.get_ref(),
            span: value.span(),
        })
    }

    /// The value of a key that must be given. `accepted` is what to give.
    pub fn need(&self, key: &str, accepted: impl Display) -> Result<Item<'a>, Error> {
        self.get(key)
            .ok_or_else(|| self.missing(key, format_args!("is missing; {accepted}")))
    }

    /// An error about a key that is not there.
    pub fn missing(&self, key: &str, reason: impl Display) -> Error {
        Error::missing(
            self.doc.path,
            self.line,
            &format!("{}.{key}", self.name),
            reason,
        )
    }
}

impl<'a> Item<'a> {
    /// An error about this value.
    pub fn fail(&self, reason: impl Display) -> Error {
        let line = Some(self.doc.line(self.span.start));
        Error::value(self.doc.path, line, &self.key, show(self.value), reason)
    }

    fn into_section(self, schema: &str) -> Result<Section<'a>, Error> {
        let DeValue::Table(table) = self.value else {
            return Err(self.fail(format_args!("is a table; write [{}]", self.key)));
        };
        let known = self.doc.keys(schema);
        for (name, value) in table.iter() {
            let key: &str = name.get_ref();
            if known.contains(&key) {
                continue;
            }
            let hint = match (nearest(key, known.iter().copied()), self.doc.elsewhere(key)) {
                (_, Some(there)) => format!("did you mean {there}?"),
                (Some(near), None) => format!("did you mean {}.{near}?", self.key),
                (None, None) => format!(
                    "known keys of {} are {}",
                    self.key,
                    list(known.iter().copied())
                ),
            };
            let line = Some(self.doc.line(name.span().start));
            let full = format!("{}.{key}", self.key);
            return Err(Error::value(
                self.doc.path,
                line,
                &full,
                show(value.get_ref()),
                format_args!("unknown key; {hint}"),
            ));
        }
        let line = Some(self.doc.line(self.span.start));
        Ok(Section {
            doc: self.doc,
            name: self.key,
            table: Some(table),
            line,
        })
    }

    /// The elements of an array, each with its own key (`mirror.ports[1]`).
    pub fn items(&self, accepted: &str) -> Result<Vec<Item<'a>>, Error> {
        let DeValue::Array(array) = self.value else {
            return Err(self.fail(accepted));
        };
        let item = |(i, v): (usize, &'a Spanned<DeValue<'a>>)| Item {
            doc: self.doc,
            key: format!("{}[{i}]", self.key),
            value: v.get_ref(),
            span: v.span(),
        };
        Ok(array.iter().enumerate().map(item).collect())
    }

    /// The elements of an array; of what is none, itself.
    pub fn one_or_more(&self) -> Result<Vec<Item<'a>>, Error> {
        match self.value {
            DeValue::Array(_) => self.items(""),
            _ => Ok(vec![self.clone()]),
        }
    }

    /// It is opened, if it is a table with the keys of `schema`.
    pub fn table(&self, schema: &str) -> Option<Result<Section<'a>, Error>> {
        let is_table = self.value.is_table();
        is_table.then(|| self.clone().into_section(schema))
    }

    /// The elements of an array, each read by `read`.
    pub fn list<T>(
        &self,
        accepted: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<Found<'a, T>>, Error> {
        let items = self.items(&format!("give a list, each {accepted}"))?;
        items
            .into_iter()
            .map(|item| {
                Ok(Found {
                    value: item.parsed(accepted, &read)?,
                    item,
                })
            })
            .collect()
    }

    /// A string.
    pub fn str(&self, accepted: impl Display) -> Result<&'a str, Error> {
        self.value
            .as_str()
            .ok_or_else(|| self.fail(format_args!("give {accepted} in quotes")))
    }

    /// A string read by `read`, whose error says what would be right.
    pub fn parsed<T>(
        &self,
        accepted: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Error> {
        read(self.str(accepted)?).map_err(|reason| self.fail(reason))
    }

    /// `true` or `false`.
    pub fn bool(&self) -> Result<bool, Error> {
        self.value
            .as_bool()
            .ok_or_else(|| self.fail("give true or false"))
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Error> {
        let accepted = || {
            words
                .iter()
                .map(|(w, _)| format!("{w:?}"))
                .collect::<Vec<_>>()
                .join(" or ")
        };
        let found = self
            .value
            .as_str()
            .and_then(|s| words.iter().find(|(w, _)| *w == s));
        found
            .map(|(_, v)| *v)
            .ok_or_else(|| self.fail(format_args!("give {}", accepted())))
    }

    /// An integer within the range.
    pub fn integer<T: TryFrom<i128> + Display + Copy + PartialOrd>(
        &self,
        range: RangeInclusive<T>,
    ) -> Result<T, Error> {
        let number = self
            .value
            .as_integer()
            .and_then(|i| i128::from_str_radix(i.as_str(), i.radix()).ok());
        number
            .and_then(|n| T::try_from(n).ok())
            .filter(|n| range.contains(n))
            .ok_or_else(|| {
                self.fail(format_args!(
                    "give a whole number from {} to {}",
                    range.start(),
                    range.end()
                ))
            })
    }

    /// A finite number, whole or with a fraction; `None` if it is neither.
    pub fn number(&self) -> Option<f64> {
        let number = match self.value {
            DeValue::Integer(i) => i128::from_str_radix(i.as_str(), i.radix())
                .ok()
                .map(|n| n as f64),
            DeValue::Float(f) => f.as_str().parse().ok(),
            _ => None,
        };
        number.filter(|n: &f64| n.is_finite())
    }
}

fn find<'a>(table: &'a DeTable<'a>, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
    table
        .iter()
        .find(|(name, _)| name.get_ref().as_ref() == key)
        .map(|(_, value)| value)
}

fn list<'k>(keys: impl Iterator<Item = &'k str>) -> String {
    keys.collect::<Vec<_>>().join(", ")
}

/// The known key that a misspelt one most likely stands for.
fn nearest<'k>(key: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    // Long keys cost a quadratic comparison each and resemble nothing.
    if key.len() > 40 {
        return None;
    }
    let scored = known.map(|k| (strsim::damerau_levenshtein(key, k), k));
    scored
        .filter(|(d, k)| *d <= k.len().max(key.len()) / 3)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// The value as TOML would have it, shortened where it is long.
fn show(value: &DeValue<'_>) -> String {
    const LONGEST: usize = 80;
    // What is no number yet may hold any character.
    let number = |text: &str| -> String {
        let first = text.chars().take(LONGEST);
        first.flat_map(char::escape_debug).collect()
    };
    match value {
        DeValue::String(s) if s.chars().count() > LONGEST => {
            format!("{:?}…", s.chars().take(LONGEST).collect::<String>())
        }
        DeValue::String(s) => format!("{s:?}"),
        DeValue::Integer(i) => number(&i.to_string()),
        DeValue::Float(f) => number(f.as_str()),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Datetime(d) => d.to_string(),
        DeValue::Array(a) if a.is_empty() => "[]".to_owned(),
        // Elements are shown only where they are short and few: nesting could go deep.
        DeValue::Array(a)
            if a.len() <= 4
                && a.iter()
                    .all(|v| !v.get_ref().is_array() && !v.get_ref().is_table()) =>
        {
            format!(
                "[{}]",
                a.iter()
                    .map(|v| show(v.get_ref()))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        }
        DeValue::Array(_) => "[…]".to_owned(),
        DeValue::Table(_) => "{…}".to_owned(),
    }
}
