//! Temporary errors are tried again, without end, with growing and jittered pauses.

use std::future::Future;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use headwater_core::Result;

use super::status::Board;

/// How long to pause.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pauses {
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

impl Pauses {
    /// The pauses, one after another, without end.
    pub(super) fn iter(self) -> impl Iterator<Item = Duration> + Send {
        ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .without_max_times()
            .build()
    }
}

/// Calls until there is no temporary error. Gives back how often it had to call again.
///
/// # Errors
/// The first permanent one.
pub(super) async fn retry<T, F: Future<Output = Result<T>>>(
    what: &'static str,
    pauses: Pauses,
    board: &Board,
    mut call: impl FnMut() -> F,
) -> Result<(T, u64)> {
    let mut retries = 0;
    let mut waits = pauses.iter();
    loop {
        match call().await {
            Ok(value) => {
                if retries > 0 {
                    board.retrying(None);
                }
                return Ok((value, retries));
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, what, "will be tried again");
                board.retrying(Some(&error));
                retries += 1;
                tokio::time::sleep(waits.next().unwrap_or(pauses.longest)).await;
            }
            Err(error) => return Err(error),
        }
    }
}
