//! The guides: how Headwater is built, what its words mean, how to run it.
//!
//! Read [`architecture`] first, [`definitions`] when you write a `headwater.yaml`, [`time_and_delivery`],
//! [`point_in_time`] and [`windows`] to know exactly what you get, [`plugins`] to connect a system of your own, and
//! [`operating`] to run jobs.

#[doc = include_str!("architecture.md")]
pub mod architecture {}
#[doc = include_str!("definitions.md")]
pub mod definitions {}
#[doc = include_str!("time_and_delivery.md")]
pub mod time_and_delivery {}
#[doc = include_str!("point_in_time.md")]
pub mod point_in_time {}
#[doc = include_str!("windows.md")]
pub mod windows {}
#[doc = include_str!("plugins.md")]
pub mod plugins {}
#[doc = include_str!("operating.md")]
pub mod operating {}
