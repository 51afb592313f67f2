//! The cells (interval and side) of the spans that `compare()` counts, as the columns of each level
//! need them.

use std::{cell::OnceCell, ops::AddAssign};

use tempo_table::Level;

use super::selected::Selected;
use crate::error::EngineError;

/// A number of spans, or what they weigh.
pub(crate) trait Amount: Copy + Default + PartialOrd + AddAssign + Into<f64> {
    /// One span.
    const ONE: Self;
}

impl Amount for u32 {
    const ONE: Self = 1;
}

impl Amount for f64 {
    const ONE: Self = 1.0;
}

/// The cells of the selected spans, as the levels see them.
pub(crate) struct CellsByLevel<'a, T> {
    selected: &'a Selected<'a>,
    /// Of every selected span.
    pub(crate) cells: Vec<u32>,
    /// How much each span counts; 1 when `None`.
    pub(crate) amounts: Option<Vec<T>>,
    traces: OnceCell<Runs<T>>,
    resources: OnceCell<Runs<T>>,
    scopes: OnceCell<Runs<T>>,
}

/// Rows of a level above spans, and how often each of them meets a cell.
struct Runs<T> {
    places: Vec<u32>,
    cells: Vec<u32>,
    amounts: Vec<T>,
}

/// The cells of one level.
pub(crate) struct LevelCells<'a, T> {
    /// The row of each; its own number when `None`.
    places: Option<&'a [u32]>,
    cells: &'a [u32],
    /// 1 when `None`.
    amounts: Option<&'a [T]>,
}

impl<'a, T: Amount> CellsByLevel<'a, T> {
    pub(crate) fn new(
        selected: &'a Selected<'a>,
        cells: Vec<u32>,
        amounts: Option<Vec<T>>,
    ) -> Self {
        Self {
            selected,
            cells,
            amounts,
            traces: OnceCell::new(),
            resources: OnceCell::new(),
            scopes: OnceCell::new(),
        }
    }

    pub(crate) fn side(&self, number: usize) -> usize {
        (self.cells[number] & 1) as usize
    }

    pub(crate) fn for_each_span(&self, visit: impl FnMut(usize, usize, T)) {
        LevelCells {
            places: None,
            cells: &self.cells,
            amounts: self.amounts.as_deref(),
        }
        .for_each(visit);
    }

    pub(crate) fn of(&self, level: Level) -> Result<LevelCells<'_, T>, EngineError> {
        let places = self.selected.places(level)?;
        let runs = match level {
            Level::Trace => &self.traces,
            Level::Resource => &self.resources,
            Level::Scope => &self.scopes,
            Level::Span | Level::Event | Level::Link => {
                return Ok(LevelCells {
                    places,
                    cells: &self.cells,
                    amounts: self.amounts.as_deref(),
                });
            }
        };
        let runs = runs.get_or_init(|| self.runs(places));
        Ok(LevelCells {
            places: Some(&runs.places),
            cells: &runs.cells,
            amounts: Some(&runs.amounts),
        })
    }

    /// Spans of one row stand beside each other and meet few cells.
    fn runs(&self, places: Option<&[u32]>) -> Runs<T> {
        let mut runs = Runs {
            places: Vec::new(),
            cells: Vec::new(),
            amounts: Vec::new(),
        };
        let mut first_of_row = 0;
        self.for_each_span(|number, cell, amount| {
            let place = places.map_or(number as u32, |places| places[number]);
            let cell = cell as u32;
            if runs.places.last() != Some(&place) {
                first_of_row = runs.places.len();
            }
            // Of a row with very many cells only the last ones are looked at.
            let searched = first_of_row.max(runs.cells.len().saturating_sub(8));
            match runs.cells[searched..]
                .iter()
                .position(|&known| known == cell)
            {
                Some(at) => runs.amounts[searched + at] += amount,
                None => {
                    runs.places.push(place);
                    runs.cells.push(cell);
                    runs.amounts.push(amount);
                }
            }
        });
        runs
    }
}

/// The cells of spans that hold a value of an attribute which few have.
pub(crate) struct FewCells<T> {
    /// Of the spans, ascending.
    pub(crate) rows: Vec<u32>,
    pub(crate) cells: Vec<u32>,
    pub(crate) amounts: Option<Vec<T>>,
}

impl<T> FewCells<T> {
    pub(crate) fn cells(&self) -> LevelCells<'_, T> {
        LevelCells {
            places: None,
            cells: &self.cells,
            amounts: self.amounts.as_deref(),
        }
    }

    /// The place of a row in a column of these rows.
    pub(crate) fn place(&self, row: usize) -> Option<usize> {
        self.rows.binary_search(&(row as u32)).ok()
    }
}

impl<T: Amount> LevelCells<'_, T> {
    /// Hands out every row, its cell, and how much it counts there.
    #[inline]
    pub(crate) fn for_each(&self, mut visit: impl FnMut(usize, usize, T)) {
        match (self.places, self.amounts) {
            (None, None) => {
                for (place, &cell) in self.cells.iter().enumerate() {
                    visit(place, cell as usize, T::ONE);
                }
            }
            (Some(places), None) => {
                for (&place, &cell) in places.iter().zip(self.cells) {
                    visit(place as usize, cell as usize, T::ONE);
                }
            }
            (places, Some(amounts)) => {
                for (number, (&cell, &amount)) in self.cells.iter().zip(amounts).enumerate() {
                    let place = places.map_or(number, |places| places[number] as usize);
                    visit(place, cell as usize, amount);
                }
            }
        }
    }
}
