//! What waits between the polling thread and the reader: events, bounded in bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headwater_core::stream::{AssignedSplit, StreamBatch, StreamEvent};
use headwater_core::{Error, Result, SplitId};
use tokio::sync::Notify;

/// Events on their way from the polling thread to the reader.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Something was put in, or the thread has ended.
    filled: Notify,
    /// Something was taken out, acknowledged, or the reader is gone.
    drained: Condvar,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Queued>,
    bytes: usize,
    /// The reader is closed or dropped.
    closed: bool,
    /// The thread has ended.
    ended: bool,
}

#[derive(Debug)]
enum Queued {
    Assigned(Vec<AssignedSplit>),
    Batch(Box<StreamBatch>, usize),
    Revoked { splits: Vec<SplitId>, deadline: Option<Instant>, acknowledged: Arc<Acknowledged> },
    Error(Error),
}

/// Set when the reader's caller has dealt with a revocation.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged(Mutex<bool>);

impl Acknowledged {
    fn is_set(&self) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is a single push or pop: a panic elsewhere cannot leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out splits. Of none, it says that all is well, which while nobody reads is said once.
    pub(crate) fn assigned(&self, splits: Vec<AssignedSplit>) {
        let mut state = self.lock();
        let is_said = matches!(state.events.back(), Some(Queued::Assigned(last)) if last.is_empty());
        if !(splits.is_empty() && is_said) {
            state.events.push_back(Queued::Assigned(splits));
        }
        drop(state);
        self.filled.notify_one();
    }

    pub(crate) fn batch(&self, batch: StreamBatch) {
        let bytes = batch.bytes();
        let mut state = self.lock();
        state.bytes += bytes;
        state.events.push_back(Queued::Batch(Box::new(batch), bytes));
        drop(state);
        self.filled.notify_one();
    }

    pub(crate) fn error(&self, error: Error) {
        let mut state = self.lock();
        // While nobody reads, one report of a passing fault is enough.
        if !(error.is_retryable() && state.events.iter().any(|queued| matches!(queued, Queued::Error(_)))) {
            state.events.push_back(Queued::Error(error));
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Takes back what was queued for `splits` and announces that they go. Waits for the acknowledgement until
    /// `patience` is over, or not at all where there is none: then the splits are lost already.
    pub(crate) fn revoke(&self, splits: &[SplitId], patience: Option<Duration>) {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let acknowledged = Arc::new(Acknowledged::default());
        let mut state = self.lock();
        let mut unseen: Vec<SplitId> = Vec::new();
        let mut freed = 0;
        state.events.retain_mut(|queued| match queued {
            Queued::Batch(batch, bytes) if splits.contains(&batch.split) => {
                freed += *bytes;
                false
            }
            Queued::Assigned(assigned) => {
                assigned.retain(|one| {
                    let goes = splits.contains(&one.split);
                    if goes {
                        unseen.push(one.split.clone());
                    }
                    !goes
                });
                !assigned.is_empty()
            }
            _ => true,
        });
        state.bytes -= freed;
        let seen: Vec<SplitId> = splits.iter().filter(|split| !unseen.contains(split)).cloned().collect();
        if seen.is_empty() {
            return;
        }
        let announced = Queued::Revoked { splits: seen, deadline, acknowledged: Arc::clone(&acknowledged) };
        // Ahead of what waits for other splits: somebody is waiting for these.
        state.events.push_front(announced);
        self.filled.notify_one();
        let Some(deadline) = deadline else { return };
        while !acknowledged.is_set() && !state.closed {
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                break;
            };
            state = self
                .drained
                .wait_timeout(state, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
        if !acknowledged.is_set() {
            for queued in &mut state.events {
                if let Queued::Revoked { deadline, acknowledged: theirs, .. } = queued
                    && Arc::ptr_eq(theirs, &acknowledged)
                {
                    *deadline = None;
                }
            }
        }
    }

    pub(crate) fn acknowledge(&self, acknowledged: &Acknowledged) {
        let state = self.lock();
        *acknowledged.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        drop(state);
        self.drained.notify_all();
    }

    /// Whether less than `limit` waits; waits up to `patience` for that.
    pub(crate) fn has_space(&self, limit: usize, patience: Duration) -> bool {
        let state = self.lock();
        if state.bytes < limit || state.closed {
            return true;
        }
        let state = self
            .drained
            .wait_timeout(state, patience)
            .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        state.bytes < limit || state.closed
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The reader wants nothing more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.drained.notify_all();
    }

    /// The thread will add nothing more.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.filled.notify_one();
    }

    /// The next event; `None` once the reader is closed. Cancel-safe: an event is taken only to be returned.
    pub(crate) async fn next(&self, to_acknowledge: &mut Option<Arc<Acknowledged>>) -> Option<Result<StreamEvent>> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.lock();
                if let Some(queued) = state.events.pop_front() {
                    return Some(match queued {
                        Queued::Assigned(splits) => Ok(StreamEvent::Assigned(splits)),
                        Queued::Batch(batch, bytes) => {
                            state.bytes -= bytes;
                            drop(state);
                            self.drained.notify_all();
                            Ok(StreamEvent::Batch(*batch))
                        }
                        Queued::Revoked { splits, deadline, acknowledged } => {
                            *to_acknowledge = Some(acknowledged);
                            Ok(StreamEvent::Revoked { splits, deadline })
                        }
                        Queued::Error(error) => Err(error),
                    });
                }
                if state.ended {
                    let died = || Error::unexpected("the polling thread has died").with_plugin("kafka");
                    return if state.closed { None } else { Some(Err(died())) };
                }
            }
            filled.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use headwater_core::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn faults_that_come_and_go_while_nobody_reads_are_told_of_once() {
        let queue = Queue::default();
        for _ in 0..3 {
            queue.error(Error::new(ErrorKind::Unavailable, "the brokers are away"));
            queue.assigned(Vec::new());
        }
        queue.close();
        queue.end();
        assert_eq!(queue.next(&mut None).await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(matches!(queue.next(&mut None).await, Some(Ok(StreamEvent::Assigned(splits))) if splits.is_empty()));
        assert!(queue.next(&mut None).await.is_none());
    }
}
