// Numbers in tests are small.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::type_complexity)]

mod dead_letters;
mod delivery;
mod faults;
mod generations;
mod json;
mod splits;
mod status;
mod world;
