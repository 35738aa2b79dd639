//! How often a shard is asked, and how long is waited after a fault.

use std::collections::VecDeque;
use std::time::Duration;

use aws_sdk_kinesis::types::Record;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use headwater_core::stream::StreamEvent;
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

/// How long is waited after a fault at the most.
pub(crate) const LONGEST: Duration = Duration::from_secs(10);

/// How often a call is made again that stands alone.
const PATIENCE: usize = 5;

/// What a record counts for in the limits of a shard: its data and its key.
pub(crate) fn size(record: &Record) -> usize {
    record.data().as_ref().len() + record.partition_key().map_or(0, str::len)
}

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

    /// Waits until the shard may be asked again.
    pub(crate) async fn wait(&self) {
        sleep_until(self.due()).await;
    }

    fn due(&self) -> Instant {
        let window = self.calls.front().filter(|_| self.calls.len() >= CALLS).map(|first| *first + WINDOW);
        window.map_or(self.not_before, |window| window.max(self.not_before))
    }

    /// Counts a call.
    pub(crate) fn called(&mut self, now: Instant) {
        if self.calls.len() >= CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(now);
    }

    /// Takes the size and kind of an answer into account: at once while behind, else after a rest, and longer and
    /// longer while nothing comes.
    pub(crate) fn answered(&mut self, now: Instant, bytes: usize, answer: Answer) {
        let called = self.calls.back().copied().unwrap_or(now);
        let size = u32::try_from(bytes).map_or(f64::from(u32::MAX), f64::from);
        let paid = now + Duration::from_secs_f64(size / BYTES_PER_SECOND);
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

    /// The last call went well. Where the engine was told of a fault it is told that this has passed: a shard to which
    /// nothing is added would seem to ail for ever.
    pub(crate) fn over(&mut self, queue: &Queue) {
        if self.failures >= Self::REPORTED {
            // An event that changes nothing.
            queue.event(StreamEvent::Assigned(Vec::new()));
        }
        if self.failures > 0 {
            *self = Self::new();
        }
    }

    /// Waits after a fault.
    ///
    /// # Errors
    /// The fault, where waiting does not help.
    pub(crate) async fn wait(&mut self, shard: &str, error: Error, queue: &Queue) -> Result<()> {
        sleep(self.note(shard, error, queue)?).await;
        Ok(())
    }

    fn note(&mut self, shard: &str, error: Error, queue: &Queue) -> Result<Duration> {
        if !error.is_retryable() {
            return Err(error);
        }
        self.failures = self.failures.saturating_add(1);
        tracing::warn!(shard, %error, failures = self.failures, "will be tried again");
        if self.failures >= Self::REPORTED {
            queue.error(error);
        } else {
            queue.passing();
        }
        Ok(self.pauses.next().unwrap_or(LONGEST))
    }
}

/// Makes a call that nothing is reported of yet, several times where it meets faults that pass: there may be hundreds of
/// such calls in a row, and all would be made again if one of them were given up at once.
///
/// # Errors
/// The last fault, or the first one that does not pass.
pub(crate) async fn patiently<T, F: Future<Output = Result<T>>>(mut call: impl FnMut() -> F) -> Result<T> {
    let mut waits = pauses().take(PATIENCE);
    loop {
        match call().await {
            Err(error) if error.is_retryable() => match waits.next() {
                Some(pause) => sleep(pause).await,
                None => return Err(error),
            },
            done => return done,
        }
    }
}

pub(crate) fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(Duration::from_millis(100))
        // Jitter comes on top, as much again at the most.
        .with_max_delay(LONGEST / 2)
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use headwater_core::ErrorKind;

    use super::*;

    /// Calls as early as may be; gives how long after `begun` that is.
    fn call(pace: &mut Pace, begun: Instant, bytes: usize, answer: Answer) -> Duration {
        let due = pace.due();
        pace.called(due);
        pace.answered(due, bytes, answer);
        due - begun
    }

    #[test]
    fn five_calls_a_second_and_two_megabytes() {
        let mut pace = Pace::new();
        let begun = pace.not_before;
        let calls = [(); 11].map(|()| call(&mut pace, begun, 0, Answer::Behind).as_secs());
        assert_eq!(calls, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2]);
        let large = call(&mut pace, begun, 10_000_000, Answer::Behind);
        assert_eq!((call(&mut pace, begun, 0, Answer::Behind) - large).as_secs(), 5);
    }

    #[test]
    fn rests_when_all_is_read_and_longer_while_nothing_comes() {
        let mut pace = Pace::new();
        let begun = pace.not_before;
        let mut rest = |answer| call(&mut pace, begun, 0, answer);
        let first = rest(Answer::Records);
        let second = rest(Answer::Nothing);
        assert_eq!(second - first, REST);
        let third = rest(Answer::Nothing);
        assert!(third - second >= REST && third - second <= 2 * REST, "{:?}", third - second);
        let mut last = (0..10).fold(third, |_, _| rest(Answer::Nothing));
        let idle = rest(Answer::Records) - last;
        assert!(idle >= IDLE && idle <= 2 * IDLE, "{idle:?}");
        last = rest(Answer::Nothing);
        let fresh = rest(Answer::Nothing) - last;
        assert!(fresh <= 2 * REST, "{fresh:?}");
    }

    #[tokio::test]
    async fn faults_are_reported_when_they_last_and_when_they_have_passed() {
        let queue = Queue::new(1);
        let mut trouble = Trouble::new();
        let fault = || Error::new(ErrorKind::Throttled, "slow down");
        let mut before = Duration::ZERO;
        for _ in 1..Trouble::REPORTED {
            let pause = trouble.note("s", fault(), &queue).unwrap();
            assert!(pause >= before, "{pause:?} after {before:?}");
            before = pause / 2;
        }
        assert!(pauses().take(50).all(|pause| pause <= LONGEST));
        assert!(queue.next().now_or_never().is_none());
        assert_eq!(queue.repeated(), u64::from(Trouble::REPORTED) - 1);
        trouble.note("s", fault(), &queue).unwrap();
        assert_eq!(queue.next().await.unwrap_err().kind(), ErrorKind::Throttled);
        trouble.over(&queue);
        let passed = queue.next().now_or_never();
        assert!(matches!(&passed, Some(Ok(StreamEvent::Assigned(none))) if none.is_empty()), "{passed:?}");
        trouble.note("s", fault(), &queue).unwrap();
        trouble.over(&queue);
        assert!(queue.next().now_or_never().is_none(), "the engine knew of no fault");
        let lasting = trouble.wait("s", Error::new(ErrorKind::PermissionDenied, "no"), &queue).await;
        assert_eq!(lasting.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}
