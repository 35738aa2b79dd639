#![doc = include_str!("../README.md")]

mod config;

#[cfg(test)]
mod tests;

use headwater_core::options::{Config, Options};
use headwater_core::plugin::{Plugin, Role, SourceContext};
use headwater_core::{Error, Result};

pub use config::{KafkaConfig, OnPositionLost, Tombstones};

/// The plugin `kafka`. It checks definitions; this release has no client behind it.
pub static PLUGIN: Plugin = Plugin::new("kafka", env!("CARGO_PKG_VERSION")).enabled(false).with_stream(
    Role::new::<KafkaConfig>(|_, _| {
        Err(Error::unsupported("this release has no Kafka client; it comes with the cargo feature `kafka`")
            .with_plugin("kafka"))
    })
    .with_check(check),
);

headwater_core::register!(PLUGIN);

fn check(config: &Config, source: &SourceContext) -> Result<()> {
    KafkaConfig::from_config(config)?.validate(&config.name)?;
    if source.record_format.is_none() {
        return Err(Error::invalid(
            "`record_format` is missing: Kafka's records are bytes, such as `{ type: json, schema: driver_id bigint }`",
        ));
    }
    Ok(())
}
