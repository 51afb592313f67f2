//! Who the query-frontends are, and how the jobs that a querier may run at once are shared among
//! them.

use std::net::SocketAddr;

/// Each address once, and each query-frontend by one of its addresses: of a name with addresses of
/// both families those of the older one.
pub(super) fn one_family(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if addresses.iter().any(SocketAddr::is_ipv4) {
        addresses.retain(SocketAddr::is_ipv4);
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

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
    fn a_query_frontend_with_two_addresses_counts_once() {
        let of = |texts: &[&str]| {
            let addresses = texts.iter().map(|text| text.parse().unwrap());
            one_family(addresses.collect())
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of(&[
                "[::1]:9095",
                "10.0.0.2:9095",
                "10.0.0.1:9095",
                "10.0.0.2:9095"
            ]),
            ["10.0.0.1:9095", "10.0.0.2:9095"]
        );
        assert_eq!(of(&["[::1]:9095"]), ["[::1]:9095"]);
        assert!(of(&[]).is_empty());
    }

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
