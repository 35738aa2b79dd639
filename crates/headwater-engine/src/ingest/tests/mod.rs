mod dead_letters;
mod delivery;
mod faults;
mod generations;
mod json;
mod status;
mod world;
