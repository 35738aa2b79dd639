//! Headwater, an embeddable streaming feature store: streams in, fresh features and training sets out.
//!
//! This crate is the way in. It re-exports the engine ([`FeatureStore`], [`store`], [`history`]), the vocabulary of
//! definitions ([`definitions`]) and what a plugin is made of, and it links the plugins:
//!
//! | feature | plugin | default |
//! | --- | --- | --- |
//! | `file` | streams and tables from files | yes |
//! | `kafka` | streams from Kafka topics; builds librdkafka, which takes a C compiler and make | |
//! | `kinesis` | streams from Kinesis data streams; builds the AWS SDK | |
//! | `parquet` | offline store | yes |
//! | `sqlite` | online store | yes |
//! | `sql` | transforms written as SQL | |
//! | `avro`, `protobuf` | records in these formats | |
//! | `s3` | `s3://` paths for `file` and `parquet` | |
//! | `full` | all of these | |
//!
//! [`guide`] explains how it is built, what its words mean and how to run it.
//!
//! Sections for `kafka` and `kinesis` are checked in every build. `memory` stores are always there.

pub mod guide;

pub use arrow;

pub use headwater_core::{
    BatchSource, Clock, Error, ErrorKind, Micros, OfflineStore, OnlineStore, Origin, Plugin, Position, Registry,
    Result, RowVersion, Secret, SplitId, StreamProducer, StreamReader, StreamSource, Transform,
};
pub use headwater_core::{
    batch, memory, offline, online, options, plugin, position, register, stream, time, transform, version,
};
pub use headwater_engine::store::{EntityColumns, FeatureStore, Features};
pub use headwater_engine::{Project, View, history, ingest, store};

/// What can be defined, how a definition file is read, and what is wrong with one.
pub mod definitions {
    pub use headwater_core::definitions::*;
    pub use headwater_engine::definitions::*;
}

/// One row for each plugin: its feature, which is its name, and its crate.
///
/// The rows become [`LINKED`]. Where a feature is off, a stand-in of the same name says so when it is used.
macro_rules! plugins {
    ($($feature:literal => $package:ident),* $(,)?) => {
        $(
            #[cfg(not(feature = $feature))]
            mod $package {
                /// Nothing but the name.
                pub(crate) static PLUGIN: headwater_core::Plugin =
                    headwater_core::Plugin::new($feature, env!("CARGO_PKG_VERSION")).enabled(false);

                headwater_core::register!(PLUGIN);
            }
        )*

        /// Every plugin that Headwater knows, whether this build can use it or not.
        ///
        /// The references are real, so that no linker drops a plugin from a binary that uses this list; the
        /// inventory behind [`Registry::global`] holds the same plugins wherever rustc links.
        pub const LINKED: &[&Plugin] = &[
            &headwater_core::memory::PLUGIN,
            &headwater_plugin_kafka::PLUGIN,
            &headwater_plugin_kinesis::PLUGIN,
            $(&$package::PLUGIN,)*
        ];
    };
}

plugins! {
    "file" => headwater_plugin_file,
    "parquet" => headwater_plugin_parquet,
    "sql" => headwater_plugin_sql,
    "sqlite" => headwater_plugin_sqlite,
}

/// The plugins of this program: [`LINKED`] and whatever else is registered in it.
///
/// [`FeatureStore::open`] finds the plugins by itself. Where something other than rustc links the program, such as a
/// `staticlib` in a C program, give it this registry:
///
/// ```no_run
/// # async fn run() -> headwater::Result<()> {
/// let store = headwater::FeatureStore::builder().file("headwater.yaml").registry(headwater::registry()?).open().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Conflict` where two plugins have one name.
pub fn registry() -> Result<Registry> {
    LINKED.iter().try_fold(Registry::global()?, |registry, plugin| registry.with(plugin))
}
