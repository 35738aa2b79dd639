// Numbers in tests are small.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::type_complexity)]

mod dead_letters;
mod delivery;
mod faults;
mod generations;
mod json;
mod late;
#[cfg(any(feature = "avro", feature = "protobuf"))]
pub(super) mod records;
#[cfg(feature = "avro")]
mod schemas;
mod splits;
mod status;
mod tombstones;
mod windows;
mod world;
