//! The allocator of the process.
//!
//! Owns which one it is, and how that of the C library is set, which the Kafka library uses. A binary
//! that is built to be measured (feature `count-allocations`) counts what is asked of ours instead, and
//! tells as metrics; nothing else may depend on the feature.

/// Bytes of freed memory that the C library keeps for the next time, in each of its heaps.
#[cfg(target_env = "gnu")]
const KEPT_C_BYTES: libc::c_int = 64 << 20;

/// Pieces of as many bytes or more do not come from heaps. Half a heap is the most that is allowed.
#[cfg(target_env = "gnu")]
const MAX_HEAP_PIECE_BYTES: libc::c_int = 32 << 20;

/// To be called where records are read from Kafka. Their batches are taken apart in memory that is free
/// a moment later. The C library gives it back to the kernel every time, which then has to find, clear
/// and map it again: a tenth of what building blocks costs. What is kept is never more than was in use
/// at once, and that is limited by what is fetched ahead.
pub(crate) fn keep_freed_c_memory() {
    #[cfg(target_env = "gnu")]
    for (parameter, bytes) in [
        (libc::M_MMAP_THRESHOLD, MAX_HEAP_PIECE_BYTES),
        (libc::M_TRIM_THRESHOLD, KEPT_C_BYTES),
        (libc::M_TOP_PAD, KEPT_C_BYTES),
    ] {
        // SAFETY: sets a number within the C library, under a lock of its own. It fails for numbers
        // that are out of range, and then nothing is set.
        #[allow(unsafe_code)]
        let is_set = unsafe { libc::mallopt(parameter, bytes) };
        if is_set != 1 {
            tracing::debug!(parameter, "the C library does not keep freed memory");
        }
    }
}

#[cfg(not(feature = "count-allocations"))]
mod chosen {
    // Without asking for huge pages (feature `no_thp`): they would save 2 % of CPU, and cost 14 MiB
    // when idle and 170 MiB under load.
    #[global_allocator]
    static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

    /// Nothing is counted.
    pub(crate) fn register(_: &prometheus::Registry) -> Result<(), prometheus::Error> {
        Ok(())
    }
}

#[cfg(feature = "count-allocations")]
mod chosen {
    use std::alloc::System;

    use prometheus::{PullingGauge, Registry};
    use stats_alloc::{INSTRUMENTED_SYSTEM, Stats, StatsAlloc};

    #[global_allocator]
    static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

    /// Tells how often memory was asked for since the start, and for how many bytes. One that grew
    /// counts again, and its growth.
    pub(crate) fn register(registry: &Registry) -> Result<(), prometheus::Error> {
        let gauge = |name: &str, help: &str, value: fn(Stats) -> usize| {
            let read = move || value(ALLOCATOR.stats()) as f64;
            registry.register(Box::new(PullingGauge::new(name, help, Box::new(read))?))
        };
        gauge(
            "tempo_allocations",
            "How often memory was allocated or grown since the start.",
            |stats| stats.allocations + stats.reallocations,
        )?;
        gauge(
            "tempo_allocated_bytes",
            "Bytes of memory that were allocated since the start.",
            |stats| stats.bytes_allocated,
        )
    }
}

pub(crate) use chosen::register;
