//! Which partitions a process builds.

use std::collections::BTreeMap;

/// A state of a partition in which there is something to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumableState {
    /// It is written to.
    Active,
    /// It is not written to any more.
    Inactive,
}

impl ConsumableState {
    /// As Tempo's metrics spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "PartitionActive",
            Self::Inactive => "PartitionInactive",
        }
    }
}

/// Partitions by configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment(Vec<i32>);

/// Neither way of assigning partitions is configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "set block_builder.partitions_per_instance, or name the partitions of each process in block_builder.assigned_partitions"
)]
pub struct NoAssignment;

impl Assignment {
    /// The partitions of the process `instance_id`: those that are named for it; where none are
    /// named for anybody, as many as `per_instance` by the number at the end of its name.
    ///
    /// # Errors
    /// When neither is configured. A name without number gets no partitions.
    pub fn new(
        named: &BTreeMap<String, Vec<i32>>,
        per_instance: u32,
        instance_id: &str,
    ) -> Result<Self, NoAssignment> {
        if !named.is_empty() {
            let mut partitions = named.get(instance_id).cloned().unwrap_or_default();
            partitions.sort_unstable();
            partitions.dedup();
            return Ok(Self(partitions));
        }
        if per_instance == 0 {
            return Err(NoAssignment);
        }
        let number = instance_id
            .rsplit_once('-')
            .filter(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|(_, number)| number.parse::<u32>().ok());
        let Some(number) = number else {
            return Ok(Self(Vec::new()));
        };
        let first = u64::from(number) * u64::from(per_instance);
        Ok(Self(
            (first..first + u64::from(per_instance))
                .filter_map(|partition| i32::try_from(partition).ok())
                .collect(),
        ))
    }

    /// Those of them that hold something to build.
    pub(crate) fn effective(
        &self,
        ring: &BTreeMap<i32, ConsumableState>,
    ) -> Vec<(i32, ConsumableState)> {
        self.0
            .iter()
            .filter_map(|partition| Some((*partition, *ring.get(partition)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(named: &[(&str, &[i32])], per_instance: u32, id: &str) -> Vec<i32> {
        let named = named
            .iter()
            .map(|(name, partitions)| ((*name).to_owned(), partitions.to_vec()))
            .collect();
        Assignment::new(&named, per_instance, id).unwrap().0
    }

    #[test]
    fn by_number_or_by_name() {
        assert_eq!(assigned(&[], 2, "block-builder-42"), [84, 85]);
        assert_eq!(assigned(&[], 1, "block-builder-0"), [0]);
        assert_eq!(
            assigned(&[("block-builder-42", &[7, 3])], 2, "block-builder-42"),
            [3, 7]
        );
        assert!(assigned(&[("other", &[7])], 2, "block-builder-42").is_empty());
        assert!(assigned(&[], 2, "builder").is_empty());
        assert!(assigned(&[], 2, "builder-x").is_empty());
        assert_eq!(
            Assignment::new(&BTreeMap::new(), 0, "block-builder-1"),
            Err(NoAssignment)
        );
    }

    #[test]
    fn only_what_holds_records() {
        use ConsumableState::{Active, Inactive};
        // Partition 4 is pending, so nobody says that it can be consumed.
        let ring = BTreeMap::from([(0, Active), (1, Active), (2, Inactive), (3, Active)]);
        let configured = Assignment(vec![0, 2, 4, 6]);
        assert_eq!(configured.effective(&ring), [(0, Active), (2, Inactive)]);
    }
}
