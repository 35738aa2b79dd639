//! The engine of Headwater: definitions, ingestion, materialisation, point-in-time join and online reads.
//!
//! It knows no plugin by name and reads no clock but the one it is given.

pub mod definitions;
pub mod history;
pub mod ingest;
pub mod plan;
pub mod project;
pub mod store;
pub mod view;
pub mod windows;

mod cast;
mod rows;
mod state;
#[cfg(test)]
mod warnings;

pub use plan::Plan;
pub use project::Project;
pub use view::View;
