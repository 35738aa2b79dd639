//! The suites of `headwater-testkit`, run on every format.

mod streams;
mod tables;

use std::process::ExitCode;

use headwater_plugin_file::PLUGIN;
use headwater_testkit::{Installed, batch, named, plugin, run, stream};
use serde_json::json;

use crate::streams::Stream;
use crate::tables::Table;

fn main() -> ExitCode {
    let installed = Installed::new(&PLUGIN, |folder| json!({ "path": folder.join("data") }));
    let tables = [Table::ParquetFile, Table::Parquet, Table::Hive, Table::Csv, Table::Ndjson]
        .map(|table| named(&format!("{table:?}"), batch::suite(table)));
    let streams = [Stream::File, Stream::Directory, Stream::Parquet].into_iter().flat_map(|files| {
        [false, true].map(|follow| named(&files.label(follow), stream::suite(streams::Files { files, follow })))
    });
    run(plugin::suite(installed).into_iter().chain(tables.into_iter().flatten()).chain(streams.flatten()))
}
