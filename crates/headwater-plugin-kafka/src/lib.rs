#![doc = include_str!("../README.md")]

#[cfg(feature = "client")]
mod batch;
#[cfg(feature = "client")]
mod client;
mod config;
#[cfg(feature = "client")]
mod end;
#[cfg(feature = "client")]
mod error;
#[cfg(feature = "client")]
mod mark;
#[cfg(feature = "client")]
mod member;
#[cfg(feature = "client")]
mod producer;
#[cfg(feature = "client")]
mod queue;
#[cfg(feature = "client")]
mod reader;
#[cfg(feature = "client")]
mod registry;
#[cfg(feature = "client")]
mod resolve;
#[cfg(feature = "client")]
mod splits;
#[cfg(feature = "client")]
mod stream;
#[cfg(feature = "client")]
mod trouble;
#[cfg(feature = "client")]
mod worker;

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

pub use config::{KafkaConfig, Properties, Tombstones};
#[cfg(feature = "client")]
pub use producer::KafkaProducer;
#[cfg(feature = "client")]
pub use stream::KafkaStreamSource;

/// The plugin `kafka`. Without the feature `client` it checks definitions and opens nothing.
pub static PLUGIN: Plugin = plugin();

headwater_core::register!(PLUGIN);

#[cfg(feature = "client")]
const fn plugin() -> Plugin {
    Plugin::new("kafka", env!("CARGO_PKG_VERSION"))
        .with_stream(Role::new::<KafkaConfig>(open_stream).with_check(check))
        .with_producer(Role::new::<KafkaConfig>(open_producer))
}

#[cfg(feature = "client")]
fn open_stream(config: &Config, context: &OpenContext) -> Result<Arc<dyn StreamSource>> {
    Ok(Arc::new(KafkaStreamSource::open(config, context)?))
}

#[cfg(feature = "client")]
fn open_producer(config: &Config, context: &OpenContext) -> Result<Arc<dyn StreamProducer>> {
    Ok(Arc::new(KafkaProducer::open(config, context)?))
}

#[cfg(not(feature = "client"))]
const fn plugin() -> Plugin {
    Plugin::new("kafka", env!("CARGO_PKG_VERSION")).enabled(false).with_stream(
        Role::new::<KafkaConfig>(|_, _| {
            Err(Error::unsupported("this build has no Kafka client: build with the cargo feature `kafka`")
                .with_plugin("kafka"))
        })
        .with_check(check),
    )
}

fn check(config: &Config, source: &SourceContext) -> Result<()> {
    let options = KafkaConfig::from_config(config)?;
    options.validate(&config.name)?;
    #[cfg(feature = "client")]
    client::check(&options).map_err(|error| error.with_context("of", &config.name))?;
    if source.record_format.is_none() {
        return Err(Error::invalid(
            "`record_format` is missing: Kafka's records are bytes, such as `{ type: json, schema: driver_id bigint }`",
        ));
    }
    Ok(())
}
