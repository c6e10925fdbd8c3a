//! The metrics of the process: those of the Prometheus library, with the CPU time in fractions. The
//! library counts whole seconds, of which an idle node takes one in an hour.

use prometheus::{
    core::{Collector, Desc},
    process_collector::ProcessCollector,
    proto::{Counter, Metric, MetricFamily},
};
use rustix::time::{ClockId, clock_gettime};

const CPU: &str = "process_cpu_seconds_total";

/// They describe the process that asks.
pub(super) struct ProcessMetrics(ProcessCollector);

impl ProcessMetrics {
    pub(super) fn new() -> Self {
        Self(ProcessCollector::for_self())
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        let of_cpu = families.iter_mut().filter(|family| family.name() == CPU);
        of_cpu
            .flat_map(MetricFamily::mut_metric)
            .for_each(with_fractions);
        families
    }
}

fn with_fractions(metric: &mut Metric) {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let mut counter = Counter::default();
    counter.set_value(used.tv_sec as f64 + used.tv_nsec as f64 / 1e9);
    metric.set_counter(counter);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_s_work_is_seen_in_the_cpu_time() {
        let metrics = ProcessMetrics::new();
        let used = || {
            let families = metrics.collect();
            let cpu = families.iter().find(|family| family.name() == CPU);
            let cpu = cpu.expect("it is there");
            cpu.get_metric()[0].get_counter().get_value()
        };
        for _ in 0..10 {
            let before = used();
            assert!(used() > before, "to read it takes time");
        }
    }
}
