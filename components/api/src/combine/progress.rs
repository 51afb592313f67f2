//! How far back in time the answer of a search is complete.

/// A run of jobs that together complete the answer down to a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// How many jobs it has.
    pub jobs: u32,
    /// Once all are done, and those of the shards before, no later job finds anything that starts
    /// after this second.
    pub completed_through_seconds: u32,
}

impl Shard {
    /// The shard completes no time: what overlaps it may still come from later shards.
    pub const NOTHING: u32 = u32::MAX;
    /// The shard completes all time.
    pub const EVERYTHING: u32 = 1;
}

/// Counts the finished jobs of shards that lie in order, newest first.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    shards: Vec<Shard>,
    done: Vec<u32>,
    current: usize,
    completed_through_seconds: Option<u32>,
}

impl Progress {
    /// Nothing is done yet.
    pub fn new(shards: Vec<Shard>) -> Self {
        let done = vec![0; shards.len()];
        let mut progress = Self {
            shards,
            done,
            current: 0,
            completed_through_seconds: None,
        };
        progress.advance();
        progress
    }

    /// One job of the shard is done.
    pub fn job_done(&mut self, shard: usize) {
        if let Some(done) = self.done.get_mut(shard) {
            *done += 1;
            self.advance();
        }
    }

    /// The second down to which all is known; `None` before the first shard is done.
    pub fn completed_through_seconds(&self) -> Option<u32> {
        self.completed_through_seconds
    }

    fn advance(&mut self) {
        while let (Some(shard), Some(&done)) =
            (self.shards.get(self.current), self.done.get(self.current))
        {
            if done < shard.jobs {
                return;
            }
            self.completed_through_seconds = Some(shard.completed_through_seconds);
            self.current += 1;
        }
        self.completed_through_seconds = Some(Shard::EVERYTHING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_complete_in_order() {
        let shard = |jobs, completed_through_seconds| Shard {
            jobs,
            completed_through_seconds,
        };
        let mut progress =
            Progress::new(vec![shard(1, Shard::NOTHING), shard(2, 40), shard(1, 30)]);
        assert_eq!(progress.completed_through_seconds(), None);
        progress.job_done(1);
        progress.job_done(1);
        assert_eq!(progress.completed_through_seconds(), None);
        progress.job_done(0);
        assert_eq!(progress.completed_through_seconds(), Some(40));
        progress.job_done(7);
        progress.job_done(2);
        assert_eq!(
            progress.completed_through_seconds(),
            Some(Shard::EVERYTHING)
        );
        assert_eq!(
            Progress::new(Vec::new()).completed_through_seconds(),
            Some(Shard::EVERYTHING)
        );
    }
}
