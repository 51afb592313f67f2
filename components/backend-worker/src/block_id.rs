//! Ids of new blocks: the same job makes the same block.

use uuid::Uuid;

/// Of ids that are made here.
const NAMESPACE: Uuid = Uuid::from_u128(0x0b5d_9f0e_57a6_4c1f_8a36_5d2c_7e91_40d3);

/// The id of the block that is made of `inputs`, in whatever order; `purpose` tells jobs of the
/// same inputs apart.
pub(crate) fn output_id(tenant: &str, inputs: &[Uuid], purpose: &str) -> Uuid {
    let mut sorted = inputs.to_vec();
    sorted.sort_unstable();
    let mut name = Vec::with_capacity(tenant.len() + purpose.len() + 2 + 16 * sorted.len());
    name.extend_from_slice(tenant.as_bytes());
    name.push(0);
    name.extend_from_slice(purpose.as_bytes());
    name.push(0);
    for input in sorted {
        name.extend_from_slice(input.as_bytes());
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_the_job() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let id = output_id("t", &[one, two], "");
        assert_eq!(id, output_id("t", &[two, one], ""));
        for other in [
            output_id("u", &[one, two], ""),
            output_id("t", &[one], ""),
            output_id("t", &[one, two], "batch"),
        ] {
            assert_ne!(id, other);
        }
    }
}
