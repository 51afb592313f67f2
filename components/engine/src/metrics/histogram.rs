//! Quantiles from counts per power of two.

/// The quantile of values of which only their buckets are known: the upper ends of the buckets,
/// ascending, and how many values each has. 0 if there are no values, or no such quantile.
///
/// Within a bucket values are taken to be spread evenly on a logarithmic scale. A bucket begins
/// where the one before ends; the first one at half of its end.
pub(crate) fn quantile(quantile: f64, buckets: impl Iterator<Item = (f64, u64)> + Clone) -> f64 {
    let total: u64 = buckets.clone().map(|(_, count)| count).sum();
    if !(0.0..=1.0).contains(&quantile) || total == 0 {
        return 0.0;
    }
    let wanted = ((quantile * total as f64).ceil() as u64).max(1);
    let mut before = 0;
    let mut last_end = None;
    for (end, count) in buckets.filter(|&(_, count)| count > 0) {
        if before + count < wanted {
            before += count;
            last_end = Some(end);
            continue;
        }
        if before + count == wanted {
            return end;
        }
        let share = (wanted - before) as f64 / count as f64;
        let high = end.log2();
        let low = last_end.map_or(high - 1.0, f64::log2);
        return (low + (high - low) * share).exp2();
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_the_ends_of_their_bucket() {
        let of = |wanted, buckets: &[(f64, u64)]| quantile(wanted, buckets.iter().copied());
        for (wanted, buckets, want) in [
            (1.0, &[(8.0, 4)][..], 8.0),
            (0.5, &[(8.0, 4)], 5.65685424949238),
            (0.0, &[(8.0, 4)], 4.756828460010884),
            (0.5, &[(2.0, 1), (8.0, 4)], 4.0),
            (0.2, &[(2.0, 1), (8.0, 4)], 2.0),
            (0.5, &[(2.0, 1), (4.0, 0), (8.0, 4)], 4.0),
            (0.5, &[], 0.0),
            (0.5, &[(8.0, 0)], 0.0),
            (f64::NAN, &[(8.0, 4)], 0.0),
            (1.5, &[(8.0, 4)], 0.0),
            (-0.1, &[(8.0, 4)], 0.0),
        ] {
            let got = of(wanted, buckets);
            assert!((got - want).abs() < 1e-12, "{wanted} {buckets:?}: {got}");
        }
    }
}
