#![doc = include_str!("../README.md")]

mod batch;
mod config;
mod error;
mod names;
mod producer;
mod sizes;
mod stream;
mod union;

use std::sync::Arc;

use headwater_core::options::Options;
use headwater_core::plugin::Role;
use headwater_core::{BatchSource, Plugin, StreamProducer, StreamSource};

pub use batch::FileBatchSource;
pub use config::{BatchFormat, FileBatchConfig, FileStreamConfig, StreamFormat};
pub use producer::FileProducer;
pub use stream::FileStreamSource;

/// `type: file`.
pub static PLUGIN: Plugin = Plugin::new("file", env!("CARGO_PKG_VERSION"))
    .with_stream(Role::new::<FileStreamConfig>(|config, context| {
        let options = FileStreamConfig::from_config(config)?;
        Ok(Arc::new(FileStreamSource::open(&options, config, context)?) as Arc<dyn StreamSource>)
    }))
    .with_producer(Role::new::<FileStreamConfig>(|config, context| {
        let options = FileStreamConfig::from_config(config)?;
        Ok(Arc::new(FileProducer::open(&options, config, context)?) as Arc<dyn StreamProducer>)
    }))
    .with_batch(Role::new::<FileBatchConfig>(|config, _| {
        let options = FileBatchConfig::from_config(config)?;
        Ok(Arc::new(FileBatchSource::open(&options, config)?) as Arc<dyn BatchSource>)
    }));

headwater_core::register!(PLUGIN);
