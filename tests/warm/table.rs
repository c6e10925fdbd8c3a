//! The table that is printed.

/// A line of the table.
pub(crate) struct Row {
    pub(crate) event: &'static str,
    pub(crate) loads: u64,
    pub(crate) most: u32,
    pub(crate) keys: usize,
    pub(crate) goal_percent: f64,
    pub(crate) gets: u64,
    pub(crate) failed: u64,
    pub(crate) p99: [u32; 2],
}

impl Row {
    fn percent(&self) -> f64 {
        self.loads as f64 * 100.0 / self.keys as f64
    }

    pub(crate) fn met(&self) -> bool {
        self.percent() <= self.goal_percent && self.failed == 0
    }

    pub(crate) fn print(&self) {
        println!(
            "| {} | {} | {:.2} % | {:.1} % | {} | {} | {} | {} → {} µs ({:.1}×) | {} |",
            self.event,
            self.loads,
            self.percent(),
            self.goal_percent,
            self.most,
            self.gets,
            self.failed,
            self.p99[0],
            self.p99[1],
            f64::from(self.p99[1]) / f64::from(self.p99[0].max(1)),
            if self.met() { "yes" } else { "NO" },
        );
    }
}
