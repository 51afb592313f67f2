//! Printing: tables, JSON, progress.

use std::io::{IsTerminal, Write};

use serde_json::Value;

use super::{CliError, arguments::Arguments};

/// How answers are printed.
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(arguments: &Arguments) -> Result<Self, CliError> {
        match arguments.value("format") {
            None | Some("table") => Ok(Self { json: false }),
            Some("json") => Ok(Self { json: true }),
            Some(other) => Err(CliError::Usage(format!(
                "--format {other}: use table or json"
            ))),
        }
    }

    /// Text as it is.
    pub(super) fn text(&self, text: &str) {
        // Who closed the other end knows why.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }

    /// A list of objects: one per row, in the order of `columns`, or as JSON.
    pub(super) fn rows(&self, columns: &[&str], rows: Vec<Value>) {
        if self.json {
            self.json(&Value::Array(rows));
            return;
        }
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|row| columns.iter().map(|column| cell(&row[*column])).collect())
            .collect();
        let widths: Vec<usize> = columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let cells = cells.iter().map(|row| row[at].chars().count());
                cells.max().unwrap_or(0).max(column.len())
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded = cells
                .zip(&widths)
                .map(|(cell, &width)| format!("{cell:width$}"));
            format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
        };
        let mut table = line(&mut columns.iter().copied());
        for row in &cells {
            table.push_str(&line(&mut row.iter().map(String::as_str)));
        }
        self.text(&table);
    }

    /// One object: a line per key, or as JSON.
    pub(super) fn object(&self, object: Value) {
        match (&object, self.json) {
            (Value::Object(fields), false) => {
                let width = fields.keys().map(String::len).max().unwrap_or(0);
                let lines = fields
                    .iter()
                    .map(|(key, value)| format!("{key:width$}  {}\n", cell(value)));
                self.text(&lines.collect::<String>());
            }
            _ => self.json(&object),
        }
    }

    fn json(&self, value: &Value) {
        self.text(&format!("{value:#}\n"));
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Tells on standard error how far long work is.
pub(super) struct Progress {
    what: &'static str,
    all: usize,
    done: usize,
    live: bool,
}

impl Progress {
    pub(super) fn new(what: &'static str, all: usize) -> Self {
        Self {
            what,
            all,
            done: 0,
            live: std::io::stderr().is_terminal(),
        }
    }

    /// One more is done.
    pub(super) fn step(&mut self) {
        self.done += 1;
        let (what, done, all) = (self.what, self.done, self.all);
        if self.live {
            eprint!("\r{what} {done}/{all}");
            if done == all {
                eprintln!();
            }
        } else if done == all || done.is_multiple_of(100) {
            eprintln!("{what} {done}/{all}");
        }
    }
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut number = bytes as f64;
    let mut unit = 0;
    while number >= 1024.0 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{number:.1} {}", UNITS[unit]),
    }
}
