//! Partial series as messages between processes.
//!
//! Exact: what comes out is what went in, to the last bit of every number. Compact: texts go once,
//! intervals without anything at either end do not go at all, and counts go as short whole numbers.
//! What comes in may be anything: every size is checked against a budget before memory is taken,
//! every number of a text or an interval against what there is.

mod comparison;
mod numbers;
mod values;

use tempo_proto::tempostack::query::v1 as wire;

use self::{
    numbers::{read_numbers, write_numbers},
    values::{Reader, Writer},
};
use super::{
    exemplar::Exemplar,
    partial::{Head, Merge, MetricsPartial, Part, SeriesTable},
    plan::MetricsPlan,
    window::Grid,
};

/// The widest bucket of a histogram is the one up to this power of two.
const MAX_BUCKET: u32 = 63;

/// Why a message holds no partial series.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It contradicts itself, or is not understood.
    #[error("partial series from another process: {0}")]
    Malformed(&'static str),
    /// It would take too much memory.
    #[error("partial series from another process take more than the {limit_bytes} bytes they may")]
    TooLarge {
        /// What they may take.
        limit_bytes: usize,
    },
}

impl MetricsPartial {
    /// The message to send.
    pub fn to_wire(&self) -> wire::MetricsPartial {
        let mut writer = Writer::default();
        let parts = self
            .parts
            .iter()
            .map(|part| wire::MetricsPart {
                kind: Some(match part {
                    Part::Series(table) => {
                        wire::metrics_part::Kind::Series(write_table(table, &mut writer))
                    }
                    Part::Comparison(comparison) => wire::metrics_part::Kind::Comparison(
                        comparison::write(comparison, &mut writer),
                    ),
                }),
            })
            .collect();
        wire::MetricsPartial {
            grid: Some(wire::Grid {
                first: self.grid.first,
                len: self.grid.len as u64,
                step_nano: self.grid.step_nano,
                instant_nano: self.grid.instant_nano,
            }),
            parts,
            is_truncated: self.is_truncated,
            counted_spans: self.counted_spans,
            texts: writer.into_texts(),
        }
    }

    /// What was received; it may take `max_bytes`.
    ///
    /// # Errors
    /// When the message is malformed, or what it holds too large.
    pub fn from_wire(message: wire::MetricsPartial, max_bytes: usize) -> Result<Self, WireError> {
        let grid = read_grid(&message.grid.unwrap_or_default())?;
        let mut reader = Reader::new(message.texts, grid.len(), max_bytes)?;
        let parts = message
            .parts
            .into_iter()
            .map(|part| match part.kind {
                Some(wire::metrics_part::Kind::Series(table)) => {
                    Ok(Part::Series(read_table(table, &mut reader)?))
                }
                Some(wire::metrics_part::Kind::Comparison(compared)) => {
                    Ok(Part::Comparison(comparison::read(compared, &mut reader)?))
                }
                None => Err(WireError::Malformed("a part of a kind that is not known")),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            grid,
            parts,
            is_truncated: message.is_truncated,
            counted_spans: message.counted_spans,
        })
    }

    /// Whether these are series of that plan: those from another process may not be.
    pub(super) fn fits(&self, plan: &MetricsPlan) -> bool {
        let fits = |(part, fragment): (&Part, &super::plan::Fragment)| match (
            part,
            &Part::new(&fragment.what, 0),
        ) {
            (Part::Series(part), Part::Series(want)) => {
                part.merge == want.merge && part.weights.is_some() == want.weights.is_some()
            }
            (Part::Comparison(part), Part::Comparison(want)) => part.top() == want.top(),
            _ => false,
        };
        self.parts.len() == plan.fragments.len() && self.parts.iter().zip(&plan.fragments).all(fits)
    }
}

fn read_grid(grid: &wire::Grid) -> Result<Grid, WireError> {
    let len = usize::try_from(grid.len)
        .ok()
        .filter(|&len| u32::try_from(len).is_ok())
        .ok_or(WireError::Malformed("more intervals than there can be"))?;
    if grid.step_nano == 0 {
        return Err(WireError::Malformed("intervals without a length"));
    }
    if grid.instant_nano.is_some() && len != 1 {
        return Err(WireError::Malformed(
            "an instant that is not of one interval",
        ));
    }
    Ok(Grid {
        first: grid.first,
        len,
        step_nano: grid.step_nano,
        instant_nano: grid.instant_nano,
    })
}

fn write_table(table: &SeriesTable, writer: &mut Writer) -> wire::SeriesTable {
    let mut series: Vec<wire::Series> = table
        .heads()
        .iter()
        .enumerate()
        .map(|(row, head)| wire::Series {
            labels: writer.labels(&head.labels),
            bucket: head.bucket.map(u32::from),
            values: write_numbers(table.values(row), table.merge.nothing()),
            weights: table
                .weights(row)
                .and_then(|weights| write_numbers(weights, 0.0)),
            exemplars: Vec::new(),
        })
        .collect();
    for (row, exemplar) in &table.exemplars {
        if let Some(series) = series.get_mut(*row) {
            series.exemplars.push(write_exemplar(exemplar, writer));
        }
    }
    let merge = match table.merge {
        Merge::Count => wire::series_table::Merge::Count,
        Merge::Sum => wire::series_table::Merge::Sum,
        Merge::Min => wire::series_table::Merge::Min,
        Merge::Max => wire::series_table::Merge::Max,
    };
    wire::SeriesTable {
        merge: merge.into(),
        has_weights: table.weights.is_some(),
        series,
    }
}

fn read_table(table: wire::SeriesTable, reader: &mut Reader) -> Result<SeriesTable, WireError> {
    let merge = match table.merge() {
        wire::series_table::Merge::Count => Merge::Count,
        wire::series_table::Merge::Sum => Merge::Sum,
        wire::series_table::Merge::Min => Merge::Min,
        wire::series_table::Merge::Max => Merge::Max,
        wire::series_table::Merge::Unknown => {
            return Err(WireError::Malformed(
                "series that are merged in a way that is not known",
            ));
        }
    };
    let intervals = reader.intervals();
    let mut read = SeriesTable::new(merge, table.has_weights, intervals);
    let bytes_per_series = 256 + intervals.saturating_mul(if table.has_weights { 16 } else { 8 });
    for series in table.series {
        reader.take(bytes_per_series)?;
        let bucket = match series.bucket {
            None => None,
            Some(bucket) if bucket <= MAX_BUCKET => Some(bucket as u8),
            Some(_) => {
                return Err(WireError::Malformed("a bucket that no histogram has"));
            }
        };
        let head = Head {
            labels: reader.labels(series.labels)?,
            bucket,
        };
        let values = read_numbers(series.values, merge.nothing(), intervals)?;
        let weights = match table.has_weights {
            true => Some(read_numbers(series.weights, 0.0, intervals)?),
            false => None,
        };
        let row = read
            .add(&head, 0, &values, weights.as_deref(), usize::MAX)
            .ok_or(WireError::Malformed("too many series"))?;
        for exemplar in series.exemplars {
            read.exemplars.push((row, read_exemplar(exemplar, reader)?));
        }
    }
    Ok(read)
}

fn write_exemplar(exemplar: &Exemplar, writer: &mut Writer) -> wire::Exemplar {
    wire::Exemplar {
        timestamp_ms: exemplar.timestamp_ms,
        value: exemplar.value,
        labels: writer.labels(&exemplar.labels),
    }
}

fn read_exemplar(exemplar: wire::Exemplar, reader: &mut Reader) -> Result<Exemplar, WireError> {
    reader.take(std::mem::size_of::<Exemplar>())?;
    Ok(Exemplar {
        timestamp_ms: exemplar.timestamp_ms,
        value: exemplar.value,
        labels: reader.labels(exemplar.labels)?,
    })
}

#[cfg(test)]
mod tests;
