#![doc = include_str!("../README.md")]

mod config;

#[cfg(test)]
mod tests;

use headwater_core::options::{Config, Options};
use headwater_core::plugin::{Plugin, Role, SourceContext};
use headwater_core::{Error, Result};

pub use config::{Consumer, KinesisConfig};

/// The plugin `kinesis`. It checks definitions; this release has no client behind it.
pub static PLUGIN: Plugin = Plugin::new("kinesis", env!("CARGO_PKG_VERSION")).coming().with_stream(
    Role::new::<KinesisConfig>(|_, _| {
        Err(Error::unsupported("this release has no Kinesis client; it comes with the cargo feature `kinesis`")
            .with_plugin("kinesis"))
    })
    .with_check(check),
);

headwater_core::register!(PLUGIN);

fn check(config: &Config, source: &SourceContext) -> Result<()> {
    KinesisConfig::from_config(config)?.validate(&config.name)?;
    if source.record_format.is_none() {
        return Err(Error::invalid(
            "`record_format` is missing: Kinesis' records are bytes, such as `{ type: json, schema: driver_id bigint }`",
        ));
    }
    Ok(())
}
