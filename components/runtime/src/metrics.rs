//! The metrics page, and what the process says of itself.

use std::{fs, time::Instant};

use prometheus::{
    Gauge, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Content type of [`render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of `registry` in Prometheus' text form.
pub fn render(registry: &Registry) -> Result<String, prometheus::Error> {
    TextEncoder::new().encode_to_string(&registry.gather())
}

/// A registry with the process's own metrics and `tempo_build_info`.
pub fn registry(version: &str, revision: &str) -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::new()?))?;
    let build = IntGaugeVec::new(
        Opts::new(
            "tempo_build_info",
            "The running version; the value is always 1.",
        ),
        &["version", "revision", "branch", "goversion"],
    )?;
    build.with_label_values(&[version, revision, "", ""]).set(1);
    registry.register(Box::new(build))?;
    Ok(registry)
}

/// Registers a metric that was just made, and hands it on.
///
/// # Errors
/// When it could not be made, or one of its name is there already.
pub fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: Result<C, prometheus::Error>,
) -> Result<C, prometheus::Error> {
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// The `process_*` metrics that every Prometheus client exports, read from `/proc`.
struct ProcessCollector {
    cpu_seconds: Gauge,
    resident_bytes: IntGauge,
    virtual_bytes: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    threads: IntGauge,
    start_time_seconds: Gauge,
}

impl ProcessCollector {
    fn new() -> Result<Self, prometheus::Error> {
        let collector = Self {
            cpu_seconds: Gauge::new(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
            )?,
            resident_bytes: IntGauge::new(
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
            )?,
            virtual_bytes: IntGauge::new(
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes.",
            )?,
            open_fds: IntGauge::new("process_open_fds", "Number of open file descriptors.")?,
            max_fds: IntGauge::new(
                "process_max_fds",
                "Maximum number of open file descriptors.",
            )?,
            threads: IntGauge::new("process_threads", "Number of threads.")?,
            start_time_seconds: Gauge::new(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            )?,
        };
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        collector.start_time_seconds.set(now);
        Ok(collector)
    }

    fn parts(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu_seconds,
            &self.resident_bytes,
            &self.virtual_bytes,
            &self.open_fds,
            &self.max_fds,
            &self.threads,
            &self.start_time_seconds,
        ]
    }

    fn read(&self) {
        if let Some(usage) = ResourceUsage::of_this_process() {
            self.cpu_seconds.set(usage.cpu_seconds);
            self.resident_bytes.set(usage.resident_bytes as i64);
            self.virtual_bytes.set(usage.virtual_bytes as i64);
            self.threads.set(usage.threads as i64);
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            self.open_fds.set(entries.count() as i64);
        }
        if let Ok(limits) = fs::read_to_string("/proc/self/limits") {
            let soft = limits
                .lines()
                .find_map(|line| line.strip_prefix("Max open files"))
                .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            self.max_fds.set(soft.unwrap_or(0));
        }
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.parts()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}

/// What the kernel counts for a process.
#[derive(Debug, Clone, Copy)]
pub struct ResourceUsage {
    /// User and system time, seconds.
    pub cpu_seconds: f64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Virtual memory, bytes.
    pub virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// When this was read.
    pub at: Instant,
}

impl ResourceUsage {
    /// Reads `/proc/self/stat`; `None` where there is none.
    pub fn of_this_process() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The command, in parentheses, may hold spaces; the numbers begin behind it.
        let numbers: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |index: usize| numbers.get(index)?.parse::<u64>().ok();
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        Some(Self {
            cpu_seconds: (number(11)? + number(12)?) as f64 / ticks_per_second,
            threads: number(17)?,
            virtual_bytes: number(20)?,
            resident_bytes: number(21)? * rustix::param::page_size() as u64,
            at: Instant::now(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_the_version_and_the_memory_of_the_process() {
        let registry = registry("3.0.0", "abc").unwrap();
        let page = render(&registry).unwrap();
        assert!(page.contains(
            r#"tempo_build_info{branch="",goversion="",revision="abc",version="3.0.0"} 1"#
        ));
        let resident = page
            .lines()
            .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
            .and_then(|value| value.parse::<u64>().ok());
        assert!(
            resident.is_some_and(|bytes| bytes > 1 << 20),
            "{resident:?}"
        );
    }
}
