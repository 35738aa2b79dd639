//! How often a shard is asked, and how long is waited after a fault.

use std::collections::VecDeque;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use headwater_core::{Error, Result};
use tokio::time::{Instant, sleep, sleep_until};

use crate::queue::Queue;

/// Kinesis answers so many calls for a shard...
const CALLS: usize = 5;
/// ... in this time,
const WINDOW: Duration = Duration::from_secs(1);
/// and so many bytes of it in a second. A larger answer is followed by a longer pause.
const BYTES_PER_SECOND: f64 = 2_000_000.0;
/// How long is waited between two calls while everything there is has been read: five in a second.
const REST: Duration = Duration::from_millis(200);
/// How long is waited at the most while nothing comes.
const IDLE: Duration = Duration::from_secs(1);

/// Keeps the calls for one shard inside its limits.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When the last calls were made.
    calls: VecDeque<Instant>,
    not_before: Instant,
    idle: ExponentialBackoff,
}

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// More is there.
    Behind,
    /// Records, and nothing is left.
    Records,
    /// Nothing, and nothing is left.
    Nothing,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { calls: VecDeque::with_capacity(CALLS), not_before: Instant::now(), idle: idle() }
    }

    /// Waits until the shard may be asked again, and counts the call.
    pub(crate) async fn call(&mut self) {
        let window = self.calls.front().filter(|_| self.calls.len() >= CALLS).map(|first| *first + WINDOW);
        sleep_until(window.map_or(self.not_before, |window| window.max(self.not_before))).await;
        if self.calls.len() >= CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(Instant::now());
    }

    /// Takes the size and kind of an answer into account: at once while behind, else after a rest, and longer and
    /// longer while nothing comes.
    pub(crate) fn answered(&mut self, bytes: usize, answer: Answer) {
        let called = self.calls.back().copied().unwrap_or_else(Instant::now);
        let size = u32::try_from(bytes).map_or(f64::from(u32::MAX), f64::from);
        let paid = Instant::now() + Duration::from_secs_f64(size / BYTES_PER_SECOND);
        if answer != Answer::Nothing {
            self.idle = idle();
        }
        let rest = match answer {
            Answer::Behind => Duration::ZERO,
            Answer::Records => REST,
            Answer::Nothing => self.idle.next().unwrap_or(IDLE),
        };
        self.not_before = paid.max(called + rest);
    }
}

fn idle() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_jitter()
        .with_factor(1.5)
        .with_min_delay(REST)
        .with_max_delay(IDLE)
        .without_max_times()
        .build()
}

/// Faults that pass: waited for with growing, jittered pauses, without end.
#[derive(Debug)]
pub(crate) struct Trouble {
    pauses: ExponentialBackoff,
    failures: u32,
}

impl Trouble {
    /// From this many faults in a row on, the engine is told: it shows them, and pauses all shards a little.
    const REPORTED: u32 = 4;

    pub(crate) fn new() -> Self {
        Self { pauses: pauses(), failures: 0 }
    }

    /// The last call went well.
    pub(crate) fn over(&mut self) {
        if self.failures > 0 {
            *self = Self::new();
        }
    }

    /// Waits after a fault.
    ///
    /// # Errors
    /// The fault, where waiting does not help.
    pub(crate) async fn wait(&mut self, shard: &str, error: Error, queue: &Queue) -> Result<()> {
        if !error.is_retryable() {
            return Err(error);
        }
        self.failures = self.failures.saturating_add(1);
        tracing::warn!(shard, %error, failures = self.failures, "will be tried again");
        if self.failures >= Self::REPORTED {
            queue.error(error);
        }
        sleep(self.pauses.next().unwrap_or(Duration::from_secs(10))).await;
        Ok(())
    }
}

pub(crate) fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(10))
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn five_calls_a_second_and_two_megabytes() {
        let begun = Instant::now();
        let mut pace = Pace::new();
        for _ in 0..11 {
            pace.call().await;
            pace.answered(0, Answer::Behind);
        }
        // Five at once, five a second later, one more after that.
        assert_eq!(begun.elapsed().as_secs(), 2);
        pace.call().await;
        pace.answered(10_000_000, Answer::Behind);
        let paid = Instant::now();
        pace.call().await;
        assert_eq!(paid.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn rests_when_all_is_read_and_longer_while_nothing_comes() {
        let mut pace = Pace::new();
        let mut waited = async |answer| {
            let begun = Instant::now();
            pace.answered(0, answer);
            pace.call().await;
            begun.elapsed()
        };
        waited(Answer::Behind).await;
        assert!(waited(Answer::Records).await >= REST);
        let first = waited(Answer::Nothing).await;
        assert!(first >= REST && first <= 2 * REST, "{first:?}");
        for _ in 0..10 {
            waited(Answer::Nothing).await;
        }
        let last = waited(Answer::Nothing).await;
        assert!(last >= IDLE && last <= 2 * IDLE, "{last:?}");
        waited(Answer::Records).await;
        let first = waited(Answer::Nothing).await;
        assert!(first <= 2 * REST, "{first:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn faults_are_waited_for_and_reported_when_they_last() {
        use futures::FutureExt;
        use headwater_core::ErrorKind;

        let queue = Queue::new(1);
        let mut trouble = Trouble::new();
        let fault = || Error::new(ErrorKind::Throttled, "slow down");
        for _ in 1..Trouble::REPORTED {
            trouble.wait("s", fault(), &queue).await.unwrap();
        }
        assert!(queue.next().now_or_never().is_none());
        trouble.wait("s", fault(), &queue).await.unwrap();
        assert_eq!(queue.next().await.unwrap_err().kind(), ErrorKind::Throttled);
        trouble.over();
        trouble.wait("s", fault(), &queue).await.unwrap();
        assert!(queue.next().now_or_never().is_none());
        let lasting = trouble.wait("s", Error::new(ErrorKind::PermissionDenied, "no"), &queue).await;
        assert_eq!(lasting.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}
