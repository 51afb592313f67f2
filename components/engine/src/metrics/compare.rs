//! `compare()` on a table: every attribute column is read once, and its values are counted by their
//! codes.
//!
//! Spans are first reduced to cells (interval and side), and for the levels above spans to how often
//! a row meets a cell. Values of a column with few of them are then counted in one pass; of a column
//! with many the first pass finds those that occur most, and a second one their cells.

use std::sync::Arc;

use hashbrown::HashMap;
use tempo_table::{ABSENT, AttributeScope, Bitmap, Column, ColumnKey, Level};
use tempo_traceql::{Attribute, Intrinsic, Scope};

use super::{
    compare_cells::{Amount, CellsByLevel, FewCells, LevelCells},
    comparison::{BASELINE, ComparedSpan, Comparison, Counted, Counts, SELECTION, max_values},
    encode::{Numbers, Values, encode_with, is_below_spans},
    evaluate::Evaluation,
    exemplar::Exemplar,
    label::{is_never_compared, label_name},
    selected::Selected,
};
use crate::{
    error::EngineError,
    filter::matching,
    operand::{Operand, Source},
    plan::{Filter, Loaded},
    results::survivor,
    rows::RowReader,
    value::{Value, ValueRef},
};

/// Intrinsics that are compared; there is no sense in counting times and ids.
const INTRINSICS: [Intrinsic; 8] = [
    Intrinsic::Name,
    Intrinsic::Status,
    Intrinsic::StatusMessage,
    Intrinsic::Kind,
    Intrinsic::TraceRootName,
    Intrinsic::TraceRootService,
    Intrinsic::InstrumentationName,
    Intrinsic::InstrumentationVersion,
];

/// Attributes that blocks have columns of their own for, by default: of those Tempo counts spans
/// without a value, too, and so do we for all data, however it is stored.
const COUNTED_WITHOUT_VALUE: [(AttributeScope, &str); 16] = [
    (AttributeScope::Resource, "cluster"),
    (AttributeScope::Resource, "namespace"),
    (AttributeScope::Resource, "pod"),
    (AttributeScope::Resource, "container"),
    (AttributeScope::Resource, "k8s.cluster.name"),
    (AttributeScope::Resource, "k8s.namespace.name"),
    (AttributeScope::Resource, "k8s.pod.name"),
    (AttributeScope::Resource, "k8s.container.name"),
    (AttributeScope::Span, "http.method"),
    (AttributeScope::Span, "http.url"),
    (AttributeScope::Span, "http.status_code"),
    (AttributeScope::Span, "http.request.method"),
    (AttributeScope::Span, "http.route"),
    (AttributeScope::Span, "url.path"),
    (AttributeScope::Span, "url.route"),
    (AttributeScope::Span, "server.address"),
];

/// Cells that are counted at once, so that they stay in a cache near the core.
const MAX_CACHED_CELLS: usize = 1 << 18;
/// Cells that are counted by index; more are counted by hash.
const MAX_INDEXED_CELLS: usize = 1 << 22;

/// What is done for one table.
pub(crate) struct Task<'a> {
    pub(crate) evaluation: &'a Evaluation<'a>,
    pub(crate) selected: &'a Selected<'a>,
    pub(crate) weights: Option<&'a [f64]>,
    pub(crate) factor: f64,
}

/// A column that is compared.
struct Compared {
    name: Arc<str>,
    key: ColumnKey,
    reading: crate::operand::Reading,
    counts_nil: bool,
    /// How often a value counts: twice, when the query's conditions have loaded it, too.
    times: f64,
}

impl Task<'_> {
    pub(crate) fn run(
        &self,
        selection: &Filter,
        selection_loaded: &[Loaded],
        time_nano: Option<(u64, u64)>,
        into: &mut Comparison,
    ) -> Result<(), EngineError> {
        let sides = self.sides(selection, time_nano)?;
        let cells: Vec<u32> = (0..self.selected.len())
            .map(|number| {
                let side = usize::from(sides.contains(self.selected.row(number)));
                self.selected.intervals[number] * 2 + side as u32
            })
            .collect();
        match self.weights {
            None => {
                let cells = CellsByLevel::<u32>::new(self.selected, cells, None);
                self.count(&cells, selection_loaded, into)?;
            }
            Some(weights) => {
                let cells = CellsByLevel::new(self.selected, cells, Some(weights.to_vec()));
                self.count(&cells, selection_loaded, into)?;
            }
        }
        Ok(())
    }

    /// The spans that are selected.
    fn sides(
        &self,
        selection: &Filter,
        time_nano: Option<(u64, u64)>,
    ) -> Result<Bitmap, EngineError> {
        let plan = &self.evaluation.fragment.plan;
        let spans = &self.selected.spans;
        let mut sides = matching(self.evaluation.session, plan, selection, spans)?;
        if let Some((start, end)) = time_nano {
            let starts = self.selected.starts()?;
            for number in 0..self.selected.len() {
                let start_nano = starts.of(number);
                if start_nano <= start || start_nano > end {
                    sides.remove(self.selected.row(number));
                }
            }
        }
        Ok(sides)
    }

    fn count<T: Amount>(
        &self,
        cells: &CellsByLevel<'_, T>,
        selection_loaded: &[Loaded],
        into: &mut Comparison,
    ) -> Result<(), EngineError> {
        let picked = self.evaluation.pick(self.selected, Some)?;
        let mut picked_attributes: Vec<Vec<Arc<str>>> = vec![Vec::new(); picked.len()];
        let columns = self.columns()?;
        let keys: Vec<ColumnKey> = columns.iter().map(|column| column.key.clone()).collect();
        self.evaluation.session.table.prefetch(&keys, &[])?;
        let mut counted_again: Vec<ColumnKey> = Vec::new();
        for mut compared in columns {
            let few = self.few(&compared, cells)?;
            let column = match &few {
                Some(few) => self.evaluation.session.gather(&compared.key, &few.rows)?,
                None => self.selected.column_once(&compared.key)?,
            };
            if self.is_loaded_as_it_is(&compared.key, &column) {
                compared.times = 2.0;
                counted_again.push(compared.key.clone());
            }
            let places = self.selected.places(compared.key.level())?;
            for (pick, attributes) in picked.iter().zip(&mut picked_attributes) {
                let place = match (&few, places) {
                    (Some(few), _) => few.place(self.selected.row(pick.number)),
                    (None, Some(places)) => Some(places[pick.number] as usize),
                    (None, None) => Some(pick.number),
                };
                if compared.counts_nil || place.is_some_and(|place| !column.is_nil(place)) {
                    attributes.push(Arc::clone(&compared.name));
                }
            }
            let cells = match &few {
                Some(few) => few.cells(),
                None => cells.of(compared.key.level())?,
            };
            into.check_room(self.evaluation.session.max_bytes())?;
            self.count_column(&compared, &column, &cells, into);
            let session = self.evaluation.session;
            if !session.is_held(&compared.key) {
                session.table.release(&compared.key);
            }
        }
        let loaded = &self.evaluation.fragment.plan.loaded;
        let of_conditions = loaded.iter().filter(|loaded| loaded.condition);
        let of_selection = selection_loaded
            .iter()
            .filter(|loaded| is_below_spans(self.operand(loaded).level()));
        for loaded in of_conditions.chain(of_selection) {
            if !self
                .operand(loaded)
                .keys()
                .all(|key| counted_again.contains(key))
            {
                self.count_loaded(loaded, cells, into)?;
            }
        }
        let numbers: Vec<usize> = picked.iter().map(|pick| pick.number).collect();
        let described = self.evaluation.describe(self.selected, &numbers)?;
        for ((pick, labels), attributes) in picked.iter().zip(described).zip(picked_attributes) {
            into.add_exemplar(ComparedSpan {
                side: cells.side(pick.number),
                exemplar: Exemplar {
                    timestamp_ms: pick.timestamp_ms,
                    value: f64::NAN,
                    labels,
                },
                attributes,
            });
        }
        Ok(())
    }

    fn operand(&self, loaded: &Loaded) -> &Operand {
        &self.evaluation.fragment.plan.operands[loaded.operand]
    }

    /// Every column that is compared.
    fn columns(&self) -> Result<Vec<Compared>, EngineError> {
        let compared = |attribute: &Attribute, counts_nil| {
            let operand = Operand::new(attribute).ok()?;
            match operand.source {
                Source::Column { key, reading } => Some(Compared {
                    name: label_name(attribute),
                    key,
                    reading,
                    counts_nil,
                    times: 1.0,
                }),
                Source::SpanThenResource { .. } => None,
            }
        };
        let mut columns: Vec<Compared> = INTRINSICS
            .iter()
            .filter_map(|&intrinsic| compared(&intrinsic.into(), false))
            .collect();
        for (scope, stored) in [
            (Scope::Resource, AttributeScope::Resource),
            (Scope::Span, AttributeScope::Span),
            (Scope::Instrumentation, AttributeScope::Instrumentation),
        ] {
            let mut names = self
                .evaluation
                .session
                .table
                .attribute_names(stored, None)?;
            let own = COUNTED_WITHOUT_VALUE.iter().filter(|own| own.0 == stored);
            names.extend(own.map(|(_, name)| Arc::from(*name)));
            if stored == AttributeScope::Resource {
                names.push("service.name".into());
            }
            names.sort_unstable();
            names.dedup();
            columns.extend(names.into_iter().filter_map(|name| {
                let counts_nil = COUNTED_WITHOUT_VALUE.contains(&(stored, &*name));
                let attribute = Attribute::Named {
                    parent: false,
                    scope: Some(scope),
                    name,
                };
                compared(&attribute, counts_nil)
            }));
        }
        Ok(columns)
    }

    /// Whether the conditions of the query have loaded just what the column holds.
    fn is_loaded_as_it_is(&self, key: &ColumnKey, column: &Column) -> bool {
        let plan = &self.evaluation.fragment.plan;
        plan.same_event
            && column.arrays.is_none()
            && column.opaque.is_none()
            && plan.loaded.iter().any(|loaded| {
                loaded.condition && !loaded.missing && self.operand(loaded).keys().eq([key])
            })
    }

    // -----------------------------------------------------------------------------------------
    // One column
    // -----------------------------------------------------------------------------------------

    /// The selected rows that hold a value of an attribute, if the table knows them and it is worth
    /// looking only at those.
    fn few<T: Amount>(
        &self,
        compared: &Compared,
        cells: &CellsByLevel<'_, T>,
    ) -> Result<Option<FewCells<T>>, EngineError> {
        if compared.counts_nil || compared.key.level() != Level::Span {
            return Ok(None);
        }
        let Some(mut rows) = self.evaluation.session.table.few_rows(&compared.key)? else {
            return Ok(None);
        };
        if rows.len() > self.selected.len() / 4 {
            return Ok(None);
        }
        rows.retain(|&row| self.selected.spans.contains(row as usize));
        let numbers = rows
            .iter()
            .filter_map(|&row| self.selected.number(row as usize));
        let numbers: Vec<usize> = numbers.collect();
        Ok(Some(FewCells {
            cells: numbers.iter().map(|&number| cells.cells[number]).collect(),
            amounts: cells
                .amounts
                .as_ref()
                .map(|amounts| numbers.iter().map(|&number| amounts[number]).collect()),
            rows,
        }))
    }

    fn count_column<T: Amount>(
        &self,
        compared: &Compared,
        column: &Column,
        cells: &LevelCells<'_, T>,
        into: &mut Comparison,
    ) {
        let scale = self.factor * compared.times;
        if column.is_absent() {
            if compared.counts_nil {
                let mut totals = vec![T::default(); self.width()];
                cells.for_each(|_, cell, amount| totals[cell] += amount);
                let mut counts = [Counts::default(), Counts::default()];
                self.add_totals(&totals, scale, into.attribute(&compared.name));
                add_cells(&totals, scale, &mut counts);
                into.attribute(&compared.name).add(Value::Nil, counts);
            }
            return;
        }
        let (codes, values) = encode_with(Numbers::with_opaque(), column, compared.reading);
        self.count_codes(&codes, &values, compared, cells, scale, into);
    }

    /// How many cells there are.
    fn width(&self) -> usize {
        self.evaluation.grid.len() * 2
    }

    fn count_codes<T: Amount>(
        &self,
        codes: &[u32],
        values: &Values,
        compared: &Compared,
        cells: &LevelCells<'_, T>,
        scale: f64,
        into: &mut Comparison,
    ) {
        let width = self.width();
        // The last one stands for no value.
        let nil = values.len();
        let code_of = |place: usize| (codes[place] as usize).min(nil);
        let counts_all = |code: usize| code < nil || compared.counts_nil;
        let value_of = |code: usize| match code == nil {
            true => Value::Nil,
            false => values.get(code as u32),
        };
        if (nil + 1).saturating_mul(width) <= MAX_CACHED_CELLS {
            let mut table = vec![T::default(); (nil + 1) * width];
            cells.for_each(|place, cell, amount| table[code_of(place) * width + cell] += amount);
            let mut totals = vec![T::default(); width];
            let mut found: Vec<(Value, [Counts; 2])> = Vec::new();
            for (code, row) in table.chunks_exact(width).enumerate() {
                if !counts_all(code) {
                    continue;
                }
                let mut sides = [Counts::default(), Counts::default()];
                if add_cells(row, scale, &mut sides) {
                    for (total, &amount) in totals.iter_mut().zip(row) {
                        *total += amount;
                    }
                    found.push((value_of(code), sides));
                }
            }
            if found.is_empty() {
                return;
            }
            let counted = into.attribute(&compared.name);
            self.add_totals(&totals, scale, counted);
            for (value, sides) in found {
                counted.add(value, sides);
            }
            return;
        }

        // Which values occur, and which of them most.
        let mut totals = vec![T::default(); width];
        let mut by_code = vec![[T::default(); 2]; nil + 1];
        cells.for_each(|place, cell, amount| {
            let code = code_of(place);
            by_code[code][cell & 1] += amount;
            if counts_all(code) {
                totals[cell] += amount;
            }
        });
        if !compared.counts_nil {
            by_code[nil] = Default::default();
        }
        let kept = most_frequent(&by_code, max_values(into.top()));
        if kept.is_empty() {
            return;
        }
        let mut slots = vec![ABSENT; nil + 1];
        for (&code, slot) in kept.iter().zip(0..) {
            slots[code] = slot;
        }
        let mut found: Vec<[Counts; 2]> = vec![Default::default(); kept.len()];
        if kept.len().saturating_mul(width) <= MAX_INDEXED_CELLS {
            let mut table = vec![T::default(); (kept.len() + 1) * width];
            let trash = kept.len() as u32;
            cells.for_each(|place, cell, amount| {
                let slot = slots[code_of(place)].min(trash) as usize;
                table[slot * width + cell] += amount;
            });
            for (row, sides) in table.chunks_exact(width).zip(&mut found) {
                add_cells(row, scale, sides);
            }
        } else {
            let mut table: HashMap<(u32, u32), T, foldhash::fast::RandomState> = HashMap::default();
            cells.for_each(|place, cell, amount| {
                let slot = slots[code_of(place)];
                if slot != ABSENT {
                    *table.entry((slot, cell as u32)).or_default() += amount;
                }
            });
            for ((slot, cell), amount) in table {
                let side = (cell & 1) as usize;
                found[slot as usize][side].add(cell / 2, amount.into() * scale);
            }
        }
        let counted = into.attribute(&compared.name);
        self.add_totals(&totals, scale, counted);
        for (code, sides) in kept.into_iter().zip(found) {
            counted.add(value_of(code), sides);
        }
    }

    fn add_totals<T: Amount>(&self, totals: &[T], scale: f64, counted: &mut Counted) {
        for (cell, &amount) in totals.iter().enumerate() {
            counted.totals[cell & 1][cell / 2] += amount.into() * scale;
        }
    }

    // -----------------------------------------------------------------------------------------
    // What conditions have loaded
    // -----------------------------------------------------------------------------------------

    /// Counts the values that conditions have loaded, which Tempo counts beside those of the
    /// columns.
    fn count_loaded<T: Amount>(
        &self,
        loaded: &Loaded,
        cells: &CellsByLevel<'_, T>,
        into: &mut Comparison,
    ) -> Result<(), EngineError> {
        let operand = self.operand(loaded);
        if let Attribute::Intrinsic(intrinsic) = operand.attribute
            && is_never_compared(intrinsic)
        {
            return Ok(());
        }
        let names: Vec<Arc<str>> = match &operand.attribute {
            Attribute::Named {
                scope: None, name, ..
            } => [Scope::Span, Scope::Resource]
                .iter()
                .map(|&scope| label_name(&Attribute::scoped(scope, name)))
                .collect(),
            attribute => vec![label_name(attribute)],
        };
        let plan = &self.evaluation.fragment.plan;
        let session = self.evaluation.session;
        let wanted = [loaded.operand];
        let reader = RowReader::for_operands(session, plan, &wanted, &self.selected.spans)?;
        let mut numbers = Numbers::with_opaque();
        let mut counts: Vec<[Counts; 2]> = Vec::new();
        for (which, name) in names.iter().enumerate() {
            numbers.values.clear();
            counts.clear();
            numbers = Numbers::with_opaque();
            let mut totals = vec![0.0; self.width()];
            cells.for_each_span(|number, cell, amount| {
                let span = self.selected.row(number);
                let values = reader.values(loaded.operand, span).enumerate();
                let values = values.filter(|(source, _)| names.len() == 1 || *source == which);
                for (_, value) in values {
                    let Some(value) = survivor(value, loaded) else {
                        continue;
                    };
                    let number = match value {
                        // The absence that was asked for counts, as a value.
                        Value::Nil => numbers.of(ValueRef::Opaque),
                        value => numbers.of(value.borrowed()),
                    };
                    let amount = amount.into() * self.factor;
                    counts.resize(numbers.values.len(), Default::default());
                    counts[number as usize][cell & 1].add((cell / 2) as u32, amount);
                    totals[cell] += amount;
                }
            });
            if counts.is_empty() {
                continue;
            }
            into.check_room(session.max_bytes())?;
            let counted = into.attribute(name);
            self.add_totals(&totals, 1.0, counted);
            for (value, sides) in numbers.values.iter().zip(counts.drain(..)) {
                counted.add(value.clone(), sides);
            }
        }
        Ok(())
    }
}

/// Adds the counts of a value; false if there are none.
fn add_cells<T: Amount>(row: &[T], scale: f64, sides: &mut [Counts; 2]) -> bool {
    let mut any = false;
    for (cell, &amount) in row.iter().enumerate() {
        if amount > T::default() {
            sides[cell & 1].add((cell / 2) as u32, amount.into() * scale);
            any = true;
        }
    }
    any
}

/// The codes that occur; of very many those that occur most on either side.
fn most_frequent<T: Amount>(by_code: &[[T; 2]], max_values: usize) -> Vec<usize> {
    let zero = T::default();
    let mut kept: Vec<usize> = (0..by_code.len())
        .filter(|&code| by_code[code].iter().any(|&amount| amount > zero))
        .collect();
    if kept.len() <= max_values {
        return kept;
    }
    let mut most: Vec<usize> = Vec::new();
    for side in [BASELINE, SELECTION] {
        let amount = |code: usize| -> f64 { by_code[code][side].into() };
        kept.select_nth_unstable_by(max_values, |&a, &b| {
            amount(b).total_cmp(&amount(a)).then(a.cmp(&b))
        });
        let of_side = kept[..max_values].iter().copied();
        most.extend(of_side.filter(|&code| amount(code) > 0.0));
    }
    most.sort_unstable();
    most.dedup();
    most
}
