//! Conformance suites, fault injection and oracles for Headwater plugins.
//!
//! There is one suite for each trait of `headwater-core`: [`online`], [`offline`], [`batch`], [`stream`], [`transform`];
//! and [`plugin`] for what every plugin promises whatever its roles. A suite is a list of [`Clause`]s, each named after
//! the sentence of the trait's documentation that it checks and quoting it. A plugin says in a *fixture* how to make
//! fresh storage and how to open it, and runs the suite as its `tests/conformance.rs` (`harness = false`):
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use headwater_core::memory;
//! use headwater_testkit::{Installed, online, plugin, run};
//!
//! fn main() -> ExitCode {
//!     // A real store names its options here: `|folder| json!({ "path": folder.join("online.db") })`.
//!     let fixture = Installed::new(&memory::PLUGIN, |_folder| serde_json::json!({}));
//!     run(plugin::suite(fixture).into_iter().chain(online::suite(fixture)))
//! }
//! ```
//!
//! (That very example fails `online::survives-reopen-after-sync`: memory opened anew is empty.)
//!
//! What does not apply to an implementation, by its capabilities or because its fixture cannot bring it about, is
//! reported as ignored with the reason, never as passed. Storage that cannot do something says so with
//! [`ErrorKind::Unsupported`](headwater_core::ErrorKind::Unsupported). Whoever knows what does not apply says so with
//! [`applying`], and whatever else does not fails.
//!
//! The suites are tested themselves: `tests/suites` holds implementations with one fault each, and each fails just
//! the clause that it breaks.

mod clause;
mod installed;
mod random;
mod rows;

pub mod batch;
pub mod faults;
pub mod offline;
pub mod online;
pub mod plugin;
pub mod stream;
pub mod transform;

pub use clause::{Clause, Outcome, Stop, Verdict, applying, named, outcomes, run};
pub use installed::{Installed, context};
pub use random::{Random, seeds};
