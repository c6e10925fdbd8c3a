//! Which keys are asked for.

/// The group of all keys.
pub const GROUP: &str = "bench";

/// The key of that number, whose value has so many bytes: the origin reads the size from it.
pub fn key(size: usize, number: usize) -> String {
    format!("{size}-{number:08}")
}

/// Keys in the order in which they are asked for.
#[derive(Clone)]
pub struct Keys {
    all: Vec<String>,
    order: Vec<u32>,
}

/// Enough that no pattern repeats within a few thousand gets.
const ORDER: usize = 1 << 16;

impl Keys {
    /// Each of them once, in turn.
    pub fn once(all: Vec<String>) -> Self {
        let order = (0..all.len() as u32).collect();
        Self { all, order }
    }

    /// Each as often as the others, in no order.
    pub fn uniform(all: Vec<String>) -> Self {
        let mut random = fastrand::Rng::with_seed(1);
        let order = (0..ORDER)
            .map(|_| random.u32(0..all.len() as u32))
            .collect();
        Self { all, order }
    }

    /// The n-th as often as 1 / n^0.99 says.
    pub fn zipf(all: Vec<String>) -> Self {
        let mut random = fastrand::Rng::with_seed(1);
        let mut sum = 0.0;
        let sums: Vec<f64> = (1..=all.len())
            .map(|rank| {
                sum += 1.0 / (rank as f64).powf(0.99);
                sum
            })
            .collect();
        let order = (0..ORDER).map(|_| {
            let at = random.f64() * sum;
            sums.partition_point(|it| *it < at).min(all.len() - 1) as u32
        });
        let order = order.collect();
        Self { all, order }
    }

    pub fn all(&self) -> &[String] {
        &self.all
    }

    /// The key of the get of that number.
    pub fn at(&self, get: usize) -> &str {
        &self.all[self.order[get % self.order.len()] as usize]
    }
}
