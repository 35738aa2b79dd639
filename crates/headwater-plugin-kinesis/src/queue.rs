//! What waits between the shards' tasks and the reader: events, bounded in bytes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_core::stream::{StreamBatch, StreamEvent};
use headwater_core::{Error, Result};
use tokio::sync::Notify;

/// Events on their way to the reader.
#[derive(Debug)]
pub(crate) struct Queue {
    limit: usize,
    state: Mutex<State>,
    /// Something was put in.
    filled: Notify,
    /// Room was made.
    drained: Notify,
    /// Calls that were repeated after faults that were not reported.
    repeated: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<(Result<StreamEvent>, usize)>,
    /// What waits, and what was reserved for what is being fetched.
    bytes: usize,
    failed: bool,
}

/// Room for what is being fetched; what is left of it is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    queue: Arc<Queue>,
    bytes: usize,
}

impl Queue {
    /// A queue that holds `limit` bytes.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        let (filled, drained, repeated) = (Notify::new(), Notify::new(), AtomicU64::new(0));
        Arc::new(Self { limit, state: Mutex::default(), filled, drained, repeated })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is a single push or pop: a panic elsewhere cannot leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room: for one byte at least. An empty queue has room for anything.
    pub(crate) async fn reserve(self: &Arc<Self>, bytes: usize) -> Room {
        loop {
            // Made before looking, so that no change between looking and waiting is missed.
            let drained = self.drained.notified();
            {
                let mut state = self.lock();
                if state.bytes == 0 || state.bytes.saturating_add(bytes.max(1)) <= self.limit {
                    state.bytes += bytes;
                    return Room { queue: Arc::clone(self), bytes };
                }
            }
            drained.await;
        }
    }

    /// Adds an event that takes no room. An assignment of nothing says that all is well, which while nobody reads is
    /// said once.
    pub(crate) fn event(&self, event: StreamEvent) {
        let mut state = self.lock();
        let is_said = says_well(&event) && matches!(state.events.back(), Some((Ok(last), _)) if says_well(last));
        if !is_said {
            state.events.push_back((Ok(event), 0));
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Counts a fault that passes and is not reported.
    pub(crate) fn passing(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    /// How many faults were not reported.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Reports an error. While nobody reads, one report of a passing fault is enough; others are counted.
    pub(crate) fn error(&self, error: Error) {
        let mut state = self.lock();
        if error.is_retryable() && state.events.iter().any(|(event, _)| event.is_err()) {
            self.passing();
            return;
        }
        state.failed |= !error.is_retryable();
        state.events.push_back((Err(error), 0));
        drop(state);
        self.filled.notify_one();
    }

    /// The next event. Cancel-safe: an event is taken only to be returned.
    pub(crate) async fn next(&self) -> Result<StreamEvent> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.lock();
                if let Some((event, bytes)) = state.events.pop_front() {
                    state.bytes -= bytes;
                    drop(state);
                    if bytes > 0 {
                        self.drained.notify_waiters();
                    }
                    return event;
                }
                if state.failed {
                    return Err(Error::unexpected("the reader has stopped after an error").with_plugin("kinesis"));
                }
            }
            filled.await;
        }
    }
}

/// Whether an event changes nothing, and is there to say that a fault has passed.
fn says_well(event: &StreamEvent) -> bool {
    matches!(event, StreamEvent::Assigned(splits) if splits.is_empty())
}

impl Room {
    /// Adds a batch of this size, out of the room that was reserved and beyond it where that is too small.
    pub(crate) fn batch(&mut self, batch: StreamBatch, bytes: usize) {
        let reserved = bytes.min(self.bytes);
        self.bytes -= reserved;
        let mut state = self.queue.lock();
        state.bytes += bytes - reserved;
        state.events.push_back((Ok(StreamEvent::Batch(batch)), bytes));
        drop(state);
        self.queue.filled.notify_one();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.queue.lock().bytes -= self.bytes;
            self.queue.drained.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use headwater_core::{ErrorKind, Position};

    use super::*;
    use crate::batch::BatchBuilder;

    fn batch() -> StreamBatch {
        BatchBuilder::default().finish("shardId-000000000000", Position::START, None)
    }

    #[tokio::test]
    async fn holds_no_more_than_its_limit() {
        let queue = Queue::new(100);
        let mut room = queue.reserve(60).await;
        assert!(queue.reserve(60).now_or_never().is_none());
        room.batch(batch(), 50);
        // The other ten are given back; 50 wait.
        drop(room);
        let other = queue.reserve(50).now_or_never().unwrap();
        drop(other);
        assert!(queue.reserve(51).now_or_never().is_none());
        queue.next().await.unwrap();
        // Alone, anything fits.
        queue.reserve(1000).now_or_never().unwrap();
    }

    #[tokio::test]
    async fn one_passing_fault_is_reported_at_a_time_and_a_lasting_one_ends_it() {
        let queue = Queue::new(100);
        let fault = || Error::new(ErrorKind::Throttled, "slow down");
        queue.error(fault());
        queue.error(fault());
        assert!(queue.next().await.is_err());
        assert!(queue.next().now_or_never().is_none());
        assert_eq!(queue.repeated(), 1, "the second one is only counted");
        queue.error(Error::not_found("gone"));
        assert_eq!(queue.next().await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(queue.next().await.unwrap_err().kind(), ErrorKind::Unexpected);
    }

    #[tokio::test]
    async fn faults_that_come_and_go_while_nobody_reads_are_told_of_once() {
        let queue = Queue::new(100);
        for _ in 0..3 {
            queue.error(Error::new(ErrorKind::Unavailable, "the service is away"));
            queue.event(StreamEvent::Assigned(Vec::new()));
        }
        assert_eq!(queue.next().await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(matches!(queue.next().now_or_never(), Some(Ok(StreamEvent::Assigned(splits))) if splits.is_empty()));
        assert!(queue.next().now_or_never().is_none());
        // Read, it is said again when it is so again.
        queue.event(StreamEvent::Assigned(Vec::new()));
        assert!(queue.next().now_or_never().is_some());
    }
}
