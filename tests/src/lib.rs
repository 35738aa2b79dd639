//! What tests across crates share: processes of the command, and looking at what they left behind.

// A test in all but name: what fails here fails the test that asked.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "command")]
pub mod drivers;
pub mod outcome;
#[cfg(feature = "command")]
pub mod worker;

use std::time::{Duration, Instant};

/// Waits until something is so, looking at it often.
///
/// # Panics
/// Where it is not so after `limit`.
pub fn wait_for(what: &str, limit: Duration, mut so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
