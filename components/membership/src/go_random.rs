//! The random numbers that decide which partitions a tenant's shard consists of.
//!
//! Tempo draws them from Go's seeded generator, so a cluster that shares tenants with Tempo must
//! draw the same: an additive lagged Fibonacci generator, x(n) = x(n-607) + x(n-273) mod 2^64,
//! whose start is mixed with its own state after 7.8e12 steps from seed 1. That state is computed
//! here once, by raising the recurrence to that power, instead of being kept as a table.

use std::sync::LazyLock;

/// Length of the generator's memory.
const LENGTH: usize = 607;
/// Distance of the second term.
const TAP: usize = 273;
/// Steps after which the state is taken that every start is mixed with.
const WARM_UP_STEPS: u64 = 7_800_000_000_000;
/// Modulus of the generator that spreads a seed, a Mersenne prime.
const SEED_MODULUS: i64 = (1 << 31) - 1;

type State = [u64; LENGTH];

/// A seeded source of numbers.
pub(crate) struct GoRandom {
    state: State,
    tap: usize,
    feed: usize,
}

impl GoRandom {
    pub(crate) fn new(seed: i64) -> Self {
        static MIX: LazyLock<State> = LazyLock::new(warmed_up);

        let mut state = spread(seed, [40, 20]);
        for (word, mix) in state.iter_mut().zip(MIX.iter()) {
            *word ^= mix;
        }
        Self {
            state,
            tap: 0,
            feed: LENGTH - TAP,
        }
    }

    pub(crate) fn next_u32(&mut self) -> u32 {
        self.tap = self.tap.checked_sub(1).unwrap_or(LENGTH - 1);
        self.feed = self.feed.checked_sub(1).unwrap_or(LENGTH - 1);
        let word = self.state[self.feed].wrapping_add(self.state[self.tap]);
        self.state[self.feed] = word;
        // The upper half of the 63 bits that Go hands out.
        ((word & (u64::MAX >> 1)) >> 31) as u32
    }
}

/// A state from a seed: three numbers of a multiplicative generator for each word, shifted over
/// one another.
fn spread(seed: i64, shifts: [u32; 2]) -> State {
    let next = |x: i64| x * 48_271 % SEED_MODULUS;
    let mut x = match seed.rem_euclid(SEED_MODULUS) {
        0 => 89_482_311,
        seed => seed,
    };
    for _ in 0..20 {
        x = next(x);
    }
    let mut state = [0; LENGTH];
    for word in &mut state {
        for shift in [shifts[0], shifts[1], 0] {
            x = next(x);
            *word ^= (x as u64) << shift;
        }
    }
    state
}

/// The state after [`WARM_UP_STEPS`] from seed 1.
///
/// In the order in which words are replaced, the generator is the linear recurrence
/// s(n) = s(n-607) + s(n-273). So s(N + k) is the sum of r(i) s(k + i), where r are the
/// coefficients of x^N modulo x^607 - x^334 - 1.
fn warmed_up() -> State {
    let start = spread(1, [20, 10]);
    // Words are replaced downwards from the one before `feed`.
    let place = |n: usize| (2 * LENGTH - TAP - 1 - n % LENGTH) % LENGTH;
    let mut sequence: Vec<u64> = (0..LENGTH).map(|n| start[place(n)]).collect();
    for n in LENGTH..2 * LENGTH {
        sequence.push(sequence[n - LENGTH].wrapping_add(sequence[n - TAP]));
    }
    let power = power_of_x(WARM_UP_STEPS);
    let offset = (WARM_UP_STEPS % LENGTH as u64) as usize;
    let mut state = [0; LENGTH];
    for k in 0..LENGTH {
        let word = power
            .iter()
            .zip(&sequence[k..])
            .fold(0_u64, |sum, (r, s)| sum.wrapping_add(r.wrapping_mul(*s)));
        state[place(offset + k)] = word;
    }
    state
}

/// The coefficients of x^`exponent` modulo x^607 - x^334 - 1.
fn power_of_x(exponent: u64) -> State {
    let mut power: State = [0; LENGTH];
    power[0] = 1;
    for bit in (0..u64::BITS - exponent.leading_zeros()).rev() {
        let mut product = [0_u64; 2 * LENGTH];
        let odd = (exponent >> bit & 1) as usize;
        for (i, a) in power.iter().enumerate() {
            for (j, b) in power.iter().enumerate() {
                let term = &mut product[i + j + odd];
                *term = term.wrapping_add(a.wrapping_mul(*b));
            }
        }
        for n in (LENGTH..2 * LENGTH).rev() {
            let high = product[n];
            product[n - LENGTH] = product[n - LENGTH].wrapping_add(high);
            product[n - TAP] = product[n - TAP].wrapping_add(high);
        }
        power.copy_from_slice(&product[..LENGTH]);
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_what_go_draws() {
        let mut random = GoRandom::new(-310_300_615_871_717_453);
        let drawn: Vec<u32> = (0..3).map(|_| random.next_u32()).collect();
        assert_eq!(drawn, [757_973_876, 2_626_992_651, 1_044_939_330]);
    }
}
