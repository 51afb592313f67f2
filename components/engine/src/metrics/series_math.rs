//! Arithmetic between series.

use hashbrown::HashMap;
use tempo_traceql::ast::ArithmeticOp;

use super::{
    finish::Series,
    label::{Label, NAME, series_key},
};
use crate::value::Value;

/// `lhs op rhs`. Dividing by 0 has no result, as everything with NaN.
pub(crate) fn arithmetic(op: ArithmeticOp, lhs: f64, rhs: f64) -> f64 {
    match op {
        ArithmeticOp::Add => lhs + rhs,
        ArithmeticOp::Sub => lhs - rhs,
        ArithmeticOp::Mul => lhs * rhs,
        ArithmeticOp::Div if rhs == 0.0 => f64::NAN,
        ArithmeticOp::Div => lhs / rhs,
        ArithmeticOp::Mod if rhs == 0.0 => f64::NAN,
        ArithmeticOp::Mod => lhs % rhs,
        ArithmeticOp::Pow => lhs.powf(rhs),
    }
}

/// `lhs op rhs` for every two series with the same labels. A series without labels goes with every
/// series of the other side.
pub(crate) fn join(op: ArithmeticOp, lhs: Vec<Series>, rhs: Vec<Series>) -> Vec<Series> {
    let lhs_single = unlabelled(&lhs);
    let rhs_single = unlabelled(&rhs);
    match (lhs_single, rhs_single) {
        (Some(single), None) => rhs
            .iter()
            .map(|other| combine(op, &lhs[single], other, Keep::Rhs))
            .collect(),
        (None, Some(single)) => lhs
            .iter()
            .map(|other| combine(op, other, &rhs[single], Keep::Lhs))
            .collect(),
        _ => {
            let by_labels: HashMap<Vec<u8>, &Series, foldhash::fast::RandomState> = rhs
                .iter()
                .map(|series| (series_key(&series.labels), series))
                .collect();
            lhs.iter()
                .filter_map(|series| {
                    let other = by_labels.get(&series_key(&series.labels))?;
                    Some(combine(op, series, other, Keep::Both))
                })
                .collect()
        }
    }
}

/// Whose exemplars go with the result; of a series that goes with many they do not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Lhs,
    Rhs,
    Both,
}

fn unlabelled(series: &[Series]) -> Option<usize> {
    series
        .iter()
        .position(|series| series.labels.iter().all(|label| &*label.name == NAME))
}

fn name(series: &Series) -> Option<&str> {
    series
        .labels
        .iter()
        .find_map(|label| match (&*label.name, &label.value) {
            (NAME, Value::String(name)) => Some(&**name),
            _ => None,
        })
}

fn combine(op: ArithmeticOp, lhs: &Series, rhs: &Series, keep: Keep) -> Series {
    let labelled = if keep == Keep::Rhs { rhs } else { lhs };
    let mut labels: Vec<Label> = Vec::with_capacity(labelled.labels.len());
    if let (Some(lhs), Some(rhs)) = (name(lhs), name(rhs)) {
        labels.push(Label::text(NAME, &format!("({lhs} {op} {rhs})")));
    }
    let others = labelled.labels.iter().filter(|label| &*label.name != NAME);
    labels.extend(others.cloned());
    let values = lhs
        .values
        .iter()
        .zip(&rhs.values)
        .map(|(&lhs, &rhs)| arithmetic(op, lhs, rhs))
        .collect();
    let mut exemplars = Vec::new();
    if keep != Keep::Rhs {
        exemplars.extend(lhs.exemplars.iter().cloned());
    }
    if keep != Keep::Lhs {
        exemplars.extend(rhs.exemplars.iter().cloned());
    }
    Series {
        labels,
        values,
        exemplars,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(labels: &[(&str, &str)], value: f64) -> Series {
        Series {
            labels: labels
                .iter()
                .map(|(name, value)| Label::text(name, value))
                .collect(),
            values: vec![value],
            exemplars: Vec::new(),
        }
    }

    fn print(series: &[Series]) -> Vec<String> {
        let one = |series: &Series| {
            let labels: Vec<String> = series
                .labels
                .iter()
                .map(|label| match &label.value {
                    Value::String(text) => format!("{}={text}", label.name),
                    other => format!("{}={other:?}", label.name),
                })
                .collect();
            format!("{} {:?}", labels.join(","), series.values[0])
        };
        series.iter().map(one).collect()
    }

    #[test]
    fn series_are_joined_by_their_labels() {
        let lhs = || {
            vec![
                series(&[("a", "x")], 1.0),
                series(&[("a", "y")], 2.0),
                series(&[("a", "z")], 3.0),
            ]
        };
        let rhs = vec![series(&[("a", "y")], 10.0), series(&[("a", "x")], 0.0)];
        assert_eq!(
            print(&join(ArithmeticOp::Add, lhs(), rhs.clone())),
            ["a=x 1.0", "a=y 12.0"]
        );
        assert_eq!(
            print(&join(ArithmeticOp::Div, lhs(), rhs)),
            ["a=x NaN", "a=y 0.2"]
        );
        assert_eq!(print(&join(ArithmeticOp::Add, lhs(), Vec::new())), [""; 0]);
    }

    #[test]
    fn a_series_without_labels_goes_with_all() {
        let rate = || vec![series(&[(NAME, "rate")], 2.0)];
        let grouped = || vec![series(&[("a", "x")], 6.0), series(&[("a", "y")], 8.0)];
        assert_eq!(
            print(&join(ArithmeticOp::Div, grouped(), rate())),
            ["a=x 3.0", "a=y 4.0"]
        );
        assert_eq!(
            print(&join(ArithmeticOp::Sub, rate(), grouped())),
            ["a=x -4.0", "a=y -6.0"]
        );
        let both = join(ArithmeticOp::Mul, rate(), rate());
        assert_eq!(print(&both), ["__name__=(rate * rate) 4.0"]);
        let three = join(
            ArithmeticOp::Add,
            both,
            vec![series(&[(NAME, "count")], 1.0)],
        );
        assert_eq!(print(&three), ["__name__=((rate * rate) + count) 5.0"]);
    }
}
