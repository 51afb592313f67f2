//! How the jobs that a querier may run at once are shared among query-frontends.

/// Jobs per query-frontend: as equal as can be, and at least one each.
pub(super) fn streams_per_frontend(max_concurrent_jobs: usize, frontends: usize) -> Vec<usize> {
    let Some(each) = max_concurrent_jobs.checked_div(frontends) else {
        return Vec::new();
    };
    let more = max_concurrent_jobs % frontends;
    (0..frontends)
        .map(|number| (each + usize::from(number < more)).max(1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_frontend_gets_its_share() {
        for (jobs, frontends, want) in [
            (20, 1, vec![20]),
            (20, 3, vec![7, 7, 6]),
            (2, 4, vec![1, 1, 1, 1]),
            (20, 0, vec![]),
        ] {
            assert_eq!(streams_per_frontend(jobs, frontends), want);
        }
    }
}
