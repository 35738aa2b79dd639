//! Tables for the suite.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use headwater_core::plugin::OpenContext;
use headwater_core::{BatchSource, Error, Result};
use headwater_plugin_file::PLUGIN;
use headwater_testkit::Installed;
use headwater_testkit::batch::BatchFixture;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::json;
use tempfile::TempDir;

/// A way to keep a table in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// One Parquet file.
    ParquetFile,
    /// A directory of Parquet files.
    Parquet,
    /// Parquet files in folders that are columns.
    Hive,
    /// A directory of CSV files.
    Csv,
    /// A directory of NDJSON files.
    Ndjson,
}

impl Table {
    /// Where the piece of this number goes, below the table's folder.
    fn file(self, index: usize) -> String {
        match self {
            Self::ParquetFile => "data/table.parquet".into(),
            Self::Parquet => format!("data/{index}.parquet"),
            Self::Hive => format!("data/piece={index}/day=2001-01-0{}/part.parquet", index + 1),
            Self::Csv => format!("data/{index}.csv"),
            Self::Ndjson => format!("data/{index}.ndjson"),
        }
    }

    fn write(self, folder: &Path, index: usize, rows: &RecordBatch) -> Result<()> {
        let path = folder.join(self.file(index));
        let fault = |e: std::io::Error| Error::unexpected("cannot write").with_source(e);
        fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(fault)?;
        let file = File::create(&path).map_err(fault)?;
        match self {
            Self::ParquetFile | Self::Parquet | Self::Hive => {
                let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1000)).build();
                ArrowWriter::try_new(file, rows.schema(), Some(properties))
                    .and_then(|mut writer| writer.write(rows).and_then(|()| writer.close()))
                    .map_err(|e| Error::unexpected("cannot write").with_source(e))?;
            }
            Self::Csv => {
                let rows = with_type(rows, "event_timestamp", &DataType::Timestamp(MICROS, None))?;
                arrow::csv::WriterBuilder::new().with_header(true).build(file).write(&rows)?;
            }
            Self::Ndjson => {
                let rows = with_type(rows, "event_timestamp", &DataType::Int64)?;
                let mut writer = arrow::json::LineDelimitedWriter::new(file);
                writer.write(&rows)?;
                writer.finish()?;
            }
        }
        Ok(())
    }
}

const MICROS: arrow::datatypes::TimeUnit = arrow::datatypes::TimeUnit::Microsecond;

/// The rows with another type for one column.
fn with_type(rows: &RecordBatch, column: &str, data_type: &DataType) -> Result<RecordBatch> {
    let schema = rows.schema();
    let fields = schema.fields().iter().map(|field| {
        let changed = if field.name() == column { data_type } else { field.data_type() };
        Field::new(field.name(), changed.clone(), true)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let through_numbers = |array| cast(array, &DataType::Int64).and_then(|numbers| cast(&numbers, data_type));
    let columns = rows
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(array, field)| if field.name() == column { through_numbers(array) } else { Ok(Arc::clone(array)) })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

#[async_trait]
impl BatchFixture for Table {
    type Table = TempDir;

    async fn create(&self, pieces: &[RecordBatch]) -> Result<TempDir> {
        if *self == Self::ParquetFile && pieces.len() > 1 {
            return Err(Error::unsupported("one file is one piece"));
        }
        let folder = tempfile::tempdir().map_err(|e| Error::unexpected("no folder").with_source(e))?;
        for (index, piece) in pieces.iter().enumerate() {
            self.write(folder.path(), index, piece)?;
        }
        Ok(folder)
    }

    async fn add(&self, table: &TempDir, piece: &RecordBatch) -> Result<()> {
        if *self == Self::ParquetFile {
            return Err(Error::unsupported("one file is one piece"));
        }
        self.write(table.path(), 9, piece)
    }

    async fn open(&self, table: &TempDir, context: &OpenContext) -> Result<Arc<dyn BatchSource>> {
        let options: fn(&Path) -> serde_json::Value = match self {
            Self::ParquetFile => |folder| json!({ "path": folder.join("data/table.parquet") }),
            _ => |folder| json!({ "path": folder.join("data") }),
        };
        let config = Installed::new(&PLUGIN, options).config(table.path());
        let role = PLUGIN.batch.ok_or_else(|| Error::unsupported("no batch source"))?;
        (role.open)(&config, context)
    }

    fn prunes(&self) -> bool {
        matches!(self, Self::ParquetFile | Self::Parquet | Self::Hive)
    }
}
