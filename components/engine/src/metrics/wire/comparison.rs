//! What `compare()` has counted.

use tempo_proto::tempostack::query::v1 as wire;

use super::{
    super::comparison::{BASELINE, ComparedSpan, Comparison, Counts, SELECTION},
    WireError,
    numbers::{read_cells, read_numbers, write_cells, write_numbers},
    read_exemplar,
    values::{Reader, Writer},
    write_exemplar,
};

pub(super) fn write(comparison: &Comparison, writer: &mut Writer) -> wire::Comparison {
    let attributes = comparison
        .attributes()
        .map(|(name, counted)| wire::ComparedAttribute {
            name: writer.text(name),
            baseline_totals: write_numbers(&counted.totals[BASELINE], 0.0),
            selection_totals: write_numbers(&counted.totals[SELECTION], 0.0),
            values: counted
                .values()
                .map(|(value, sides)| wire::ComparedValue {
                    value: writer.value(value),
                    baseline: write_cells(sides[BASELINE].cells()),
                    selection: write_cells(sides[SELECTION].cells()),
                })
                .collect(),
        })
        .collect();
    let exemplars = comparison
        .exemplars()
        .iter()
        .map(|span| wire::ComparedSpan {
            is_selected: span.side == SELECTION,
            exemplar: Some(write_exemplar(&span.exemplar, writer)),
            attributes: span
                .attributes
                .iter()
                .map(|name| writer.text(name))
                .collect(),
        })
        .collect();
    wire::Comparison {
        top: u32::try_from(comparison.top()).unwrap_or(u32::MAX),
        attributes,
        exemplars,
    }
}

pub(super) fn read(
    message: wire::Comparison,
    reader: &mut Reader,
) -> Result<Comparison, WireError> {
    let intervals = reader.intervals();
    let mut comparison = Comparison::new(message.top as usize, intervals);
    for attribute in message.attributes {
        reader.take(intervals.saturating_mul(16).saturating_add(256))?;
        let name = reader.text(attribute.name)?;
        let totals = [
            read_numbers(attribute.baseline_totals, 0.0, intervals)?,
            read_numbers(attribute.selection_totals, 0.0, intervals)?,
        ];
        let counted = comparison.attribute(&name);
        for (into, totals) in counted.totals.iter_mut().zip(totals) {
            for (into, total) in into.iter_mut().zip(totals) {
                *into += total;
            }
        }
        for value in attribute.values {
            let [baseline, selection] =
                [value.baseline, value.selection].map(Option::unwrap_or_default);
            reader.take(200 + 16 * (baseline.intervals.len() + selection.intervals.len()))?;
            let sides = [
                Counts::from_cells(read_cells(baseline, intervals)?),
                Counts::from_cells(read_cells(selection, intervals)?),
            ];
            counted.add(reader.value(value.value)?, sides);
        }
    }
    for span in message.exemplars {
        let attributes = span
            .attributes
            .into_iter()
            .map(|name| reader.text(name))
            .collect::<Result<_, _>>()?;
        comparison.add_exemplar(ComparedSpan {
            side: if span.is_selected {
                SELECTION
            } else {
                BASELINE
            },
            exemplar: read_exemplar(span.exemplar.unwrap_or_default(), reader)?,
            attributes,
        });
    }
    Ok(comparison)
}
