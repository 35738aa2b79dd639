//! Fault injection: stores that fail, stall and lie about it when a test says so, and streams that deliver again.
//!
//! A wrapper passes every call on to the implementation inside. What goes wrong, and when, stands in its [`Faults`],
//! which the test keeps a handle of:
//!
//! ```
//! use std::sync::Arc;
//!
//! use headwater_core::OnlineStore;
//! use headwater_core::memory::MemoryOnlineStore;
//! use headwater_testkit::faults::{Fault, Faults, FlakyOnline};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let faults = Faults::new();
//! let store = FlakyOnline::new(Arc::new(MemoryOnlineStore::new()), &faults);
//! faults.plan("put", 2, Fault::Before);
//! assert!(store.put("t", vec![]).await.is_ok());
//! assert!(store.put("t", vec![]).await.unwrap_err().is_retryable());
//! assert!(store.put("t", vec![]).await.is_ok());
//! assert_eq!(faults.calls("put"), 3);
//! # });
//! ```

mod stores;
mod stream;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_core::{Error, ErrorKind, Result};
use tokio::sync::watch;

pub use stores::{FlakyOffline, FlakyOnline};
pub use stream::ShuffledStream;

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with a temporary error and has done nothing.
    Before,
    /// It is done, and then fails with a temporary error: the answer was lost on the way.
    After,
    /// It fails with a permanent error and has done nothing.
    Permanent,
}

/// What goes wrong in the wrappers that share it. Calls are counted by the name of the trait's method, from 1.
#[derive(Debug)]
pub struct Faults {
    state: Mutex<State>,
    stalled: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    calls: BTreeMap<&'static str, u64>,
    planned: BTreeMap<(&'static str, u64), Fault>,
    every: BTreeMap<&'static str, (u64, Fault)>,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), stalled: watch::Sender::new(false) })
    }

    /// The `nth` call of a method from now on goes wrong; the next one is 1.
    pub fn plan(&self, method: &'static str, nth: u64, fault: Fault) {
        let mut state = self.state();
        let made = state.calls.get(method).copied().unwrap_or_default();
        state.planned.insert((method, made + nth), fault);
    }

    /// Every `nth` call of a method goes wrong, until [`Faults::heal`].
    pub fn plan_every(&self, method: &'static str, nth: u64, fault: Fault) {
        self.state().every.insert(method, (nth.max(1), fault));
    }

    /// Nothing goes wrong any more, and whoever is stalled goes on.
    pub fn heal(&self) {
        let mut state = self.state();
        state.planned.clear();
        state.every.clear();
        drop(state);
        self.release();
    }

    /// From now on calls wait, before they do anything, until [`Faults::release`].
    pub fn stall(&self) {
        self.stalled.send_replace(true);
    }

    /// Lets stalled calls go on.
    pub fn release(&self) {
        self.stalled.send_replace(false);
    }

    /// How often a method was called, whatever became of it.
    pub fn calls(&self, method: &'static str) -> u64 {
        self.state().calls.get(method).copied().unwrap_or_default()
    }

    /// Counts a call and waits while stalled. Gives the error that it is to end with once it is done.
    async fn call(&self, method: &'static str) -> Result<Outlook> {
        let fault = {
            let mut state = self.state();
            let calls = state.calls.entry(method).or_default();
            *calls += 1;
            let number = *calls;
            let every = state.every.get(method).filter(|(nth, _)| number.is_multiple_of(*nth)).map(|(_, fault)| *fault);
            state.planned.remove(&(method, number)).or(every)
        };
        let mut stalled = self.stalled.subscribe();
        // The sender lives as long as `self`.
        let _ = stalled.wait_for(|stalled| !stalled).await;
        let error = |kind| Error::new(kind, format!("`{method}` fails because the test says so"));
        match fault {
            None => Ok(Outlook(None)),
            Some(Fault::Before) => Err(error(ErrorKind::Unavailable)),
            Some(Fault::Permanent) => Err(error(ErrorKind::Unexpected)),
            Some(Fault::After) => Ok(Outlook(Some(error(ErrorKind::Unavailable)))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a call ends that has been let through.
struct Outlook(Option<Error>);

impl Outlook {
    /// The result, or the error instead of it.
    fn of<T>(self, result: Result<T>) -> Result<T> {
        match self.0 {
            Some(error) => result.and(Err(error)),
            None => result,
        }
    }
}
