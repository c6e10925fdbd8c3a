//! Limits how often a repeated failure is logged, and counts the suppressed lines.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// At most one line per subject in this time.
const PAUSE: Duration = Duration::from_secs(10);
/// Maximum number of remembered subjects. Beyond that, lines may repeat early.
const MOST_SUBJECTS: usize = 1024;

/// Remembers when each subject was last logged.
#[derive(Default)]
pub struct Throttle {
    subjects: Mutex<HashMap<String, (Instant, u64)>>,
}

impl Throttle {
    /// `Some` with the number of lines suppressed since the last one if a line about `subject` is
    /// due, `None` if it is to be suppressed.
    pub fn due(&self, subject: &str) -> Option<u64> {
        let now = Instant::now();
        let mut subjects = self.subjects.lock();
        if let Some((last, suppressed)) = subjects.get_mut(subject) {
            if now.duration_since(*last) < PAUSE {
                *suppressed += 1;
                return None;
            }
            *last = now;
            return Some(std::mem::take(suppressed));
        }
        if subjects.len() >= MOST_SUBJECTS {
            subjects.retain(|_, (last, _)| now.duration_since(*last) < PAUSE);
            if subjects.len() >= MOST_SUBJECTS {
                subjects.clear();
            }
        }
        subjects.insert(subject.to_owned(), (now, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_subject_and_pause() {
        let throttle = Throttle::default();
        assert_eq!(throttle.due("a"), Some(0));
        assert_eq!(throttle.due("a"), None);
        assert_eq!(throttle.due("a"), None);
        assert_eq!(throttle.due("b"), Some(0));
        tokio::time::advance(PAUSE).await;
        assert_eq!(throttle.due("a"), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn its_memory_is_bounded() {
        let throttle = Throttle::default();
        for n in 0..10 * MOST_SUBJECTS {
            throttle.due(&n.to_string());
        }
        assert!(throttle.subjects.lock().len() <= MOST_SUBJECTS);
    }
}
