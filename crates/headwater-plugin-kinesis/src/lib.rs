#![doc = include_str!("../README.md")]

#[cfg(feature = "client")]
mod batch;
#[cfg(feature = "client")]
mod client;
mod config;
#[cfg(feature = "client")]
mod coordinator;
#[cfg(feature = "client")]
mod cursor;
#[cfg(feature = "client")]
mod delivery;
#[cfg(feature = "client")]
mod ends;
#[cfg(feature = "client")]
mod error;
#[cfg(feature = "client")]
mod fan_out;
#[cfg(feature = "client")]
mod kpl;
#[cfg(feature = "client")]
mod leases;
#[cfg(feature = "client")]
mod notes;
#[cfg(feature = "client")]
mod pace;
#[cfg(feature = "client")]
mod polling;
#[cfg(feature = "client")]
mod position;
#[cfg(feature = "client")]
mod producer;
#[cfg(feature = "client")]
mod queue;
#[cfg(feature = "client")]
mod reader;
#[cfg(feature = "client")]
mod shards;
#[cfg(feature = "client")]
mod starts;
#[cfg(feature = "client")]
mod stream;

#[cfg(test)]
mod tests;

#[cfg(feature = "client")]
use std::sync::Arc;

use headwater_core::options::{Config, Options};
#[cfg(feature = "client")]
use headwater_core::plugin::OpenContext;
use headwater_core::plugin::{Plugin, Role, SourceContext};
use headwater_core::{Error, Result};
#[cfg(feature = "client")]
use headwater_core::{StreamProducer, StreamSource};

pub use config::{Consumer, KinesisConfig};
#[cfg(feature = "client")]
pub use producer::KinesisProducer;
#[cfg(feature = "client")]
pub use stream::KinesisStreamSource;

/// The plugin `kinesis`. Without the feature `client` it checks definitions and opens nothing.
pub static PLUGIN: Plugin = plugin();

headwater_core::register!(PLUGIN);

#[cfg(feature = "client")]
const fn plugin() -> Plugin {
    Plugin::new("kinesis", env!("CARGO_PKG_VERSION"))
        .with_stream(Role::new::<KinesisConfig>(open_stream).with_check(check))
        .with_producer(Role::new::<KinesisConfig>(open_producer))
}

#[cfg(feature = "client")]
fn open_stream(config: &Config, context: &OpenContext) -> Result<Arc<dyn StreamSource>> {
    Ok(Arc::new(KinesisStreamSource::open(config, context)?))
}

#[cfg(feature = "client")]
fn open_producer(config: &Config, context: &OpenContext) -> Result<Arc<dyn StreamProducer>> {
    Ok(Arc::new(KinesisProducer::open(config, context)?))
}

#[cfg(not(feature = "client"))]
const fn plugin() -> Plugin {
    Plugin::new("kinesis", env!("CARGO_PKG_VERSION")).enabled(false).with_stream(
        Role::new::<KinesisConfig>(|_, _| {
            Err(Error::unsupported("this build has no Kinesis client: build with the cargo feature `kinesis`")
                .with_plugin("kinesis"))
        })
        .with_check(check),
    )
}

fn check(config: &Config, source: &SourceContext) -> Result<()> {
    KinesisConfig::from_config(config)?.validate(&config.name)?;
    if source.record_format.is_none() {
        return Err(Error::invalid(
            "`record_format` is missing: Kinesis' records are bytes, such as `{ type: json, schema: driver_id bigint }`",
        ));
    }
    Ok(())
}
