//! The allocator of the process.
//!
//! Owns which one it is. A binary that is built to be measured (feature `count-allocations`) counts
//! what is asked of it instead, and tells as metrics; nothing else may depend on the feature.

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
