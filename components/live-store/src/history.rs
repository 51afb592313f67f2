//! What was known when: others may go by what they heard a while ago.

use std::collections::VecDeque;

/// Values with the times since when they hold, in milliseconds since the epoch.
#[derive(Debug)]
pub(crate) struct History<T>(VecDeque<(i64, T)>);

impl<T> Default for History<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: Copy + PartialEq> History<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn learn(&mut self, now_millis: i64, value: T) {
        if self.0.back().map(|(_, last)| *last) != Some(value) {
            self.0.push_back((now_millis, value));
        }
    }

    /// The value that held so long ago.
    pub(crate) fn before(&self, now_millis: i64, age_millis: i64) -> Option<T> {
        let old = |(at, _): &&(i64, T)| now_millis.saturating_sub(*at) >= age_millis;
        let held = self.0.iter().take_while(old).last();
        held.map(|(_, value)| *value)
    }

    /// All values that are kept, the oldest first.
    pub(crate) fn values(&self) -> impl Iterator<Item = T> {
        self.0.iter().map(|(_, value)| *value)
    }

    /// Older values are not asked for any more.
    pub(crate) fn forget_before(&mut self, now_millis: i64, age_millis: i64) {
        let is_old = |at: i64| now_millis.saturating_sub(at) >= age_millis;
        while self.0.get(1).is_some_and(|(at, _)| is_old(*at)) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_holds_until_the_next() {
        let mut history = History::default();
        assert_eq!(history.before(100, 0), None);
        for (at, value) in [(100, 'a'), (110, 'a'), (120, 'b'), (130, 'c')] {
            history.learn(at, value);
        }
        let held_at = |history: &History<char>, at: i64| history.before(500, 500 - at);
        for (at, value) in [
            (99, None),
            (100, Some('a')),
            (119, Some('a')),
            (120, Some('b')),
            (130, Some('c')),
            (500, Some('c')),
        ] {
            assert_eq!(held_at(&history, at), value, "{at}");
        }
        // What held then is still asked for.
        history.forget_before(500, 500 - 125);
        assert_eq!(held_at(&history, 119), None);
        assert_eq!(held_at(&history, 125), Some('b'));
        history.forget_before(1_000, 0);
        assert_eq!(held_at(&history, 125), None);
        assert_eq!(held_at(&history, 130), Some('c'));
    }
}
