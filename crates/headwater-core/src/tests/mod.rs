//! Core's unit tests, by topic.

mod errors;
mod options;
mod plugins;
mod positions;
mod streams;
