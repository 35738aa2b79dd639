//! Servers that tests run against. The program `xtask` starts them for a run of all tests, and tests that take a server
//! away and bring it back start their own.

pub mod services;
