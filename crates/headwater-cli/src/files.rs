//! Files of rows, in and out.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::api::{Config, Error, ErrorKind, FeatureStore, OpenContext, Result, ScanRequest, SourceContext};

/// Reads a Parquet, CSV or NDJSON file, by its extension, the way `type: file` sources are read.
pub(crate) async fn read(store: &FeatureStore, path: &Path) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let named = |error: Error| error.with_context("file", path.display());
    if !path.exists() {
        return Err(Error::not_found(format!("there is no file `{}`", path.display())));
    }
    let role = store.registry().role("file", "batch source", |plugin| plugin.batch)?;
    let config = Config {
        name: format!("file `{}`", path.display()),
        options: [("path".to_owned(), path.to_string_lossy().into_owned().into())].into(),
        base_dir: PathBuf::from("."),
    };
    let context = OpenContext {
        project: store.definitions().project.clone(),
        clock: std::sync::Arc::clone(store.clock()),
        source: Some(SourceContext::default()),
    };
    let source = (role.open)(&config, &context).map_err(named)?;
    let schema = source.schema().await.map_err(named)?;
    let request = ScanRequest::default();
    let mut rows = Vec::new();
    for fragment in source.fragments(&request).await.map_err(named)? {
        let mut batches = source.read(&fragment, &request).await.map_err(named)?;
        while let Some(batch) = batches.try_next().await.map_err(named)? {
            rows.push(batch.rows);
        }
    }
    Ok((schema, rows))
}

/// Writes rows to a Parquet or CSV file. The file is there when all of it is written, and not before.
pub(crate) struct TableWriter {
    path: PathBuf,
    part: Part,
    kind: Kind,
}

/// A file that is not complete; gone when it is dropped, unless it was renamed before.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // It may have its name by now; and who cannot remove it could not write it either.
        let _ = std::fs::remove_file(&self.0);
    }
}

enum Kind {
    Parquet(Box<ArrowWriter<File>>),
    Csv(Box<arrow::csv::Writer<BufWriter<File>>>),
}

impl TableWriter {
    /// Begins a file whose extension is `.parquet` or `.csv`.
    pub(crate) fn create(path: &Path, schema: &SchemaRef) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let parquet = extension.eq_ignore_ascii_case("parquet");
        if !parquet && !extension.eq_ignore_ascii_case("csv") {
            return Err(Error::invalid(format!(
                "`{}` has no extension that says what to write; there are `.parquet` and `.csv`",
                path.display()
            )));
        }
        if !parquet && let Some(field) = schema.fields().iter().find(|field| !fits_csv(field.data_type())) {
            return Err(Error::invalid(format!(
                "column `{}` is {}, which a CSV file cannot hold; write a `.parquet` file",
                field.name(),
                field.data_type()
            )));
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = Part(PathBuf::from(part));
        let file = File::create(&part.0).map_err(|error| unwritable(path, error))?;
        let kind = if parquet {
            let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
            let writer = ArrowWriter::try_new(file, std::sync::Arc::clone(schema), Some(properties));
            Kind::Parquet(Box::new(writer.map_err(|error| unwritable(path, error))?))
        } else {
            let writer = arrow::csv::WriterBuilder::new().with_header(true).build(BufWriter::new(file));
            let mut writer = Box::new(writer);
            // The header stands there even where no row follows.
            writer.write(&RecordBatch::new_empty(std::sync::Arc::clone(schema)))?;
            Kind::Csv(writer)
        };
        Ok(Self { path: path.to_owned(), part, kind })
    }

    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        match &mut self.kind {
            Kind::Parquet(writer) => writer.write(rows).map_err(|error| unwritable(&self.path, error)),
            Kind::Csv(writer) => writer.write(rows).map_err(|error| unwritable(&self.path, error)),
        }
    }

    pub(crate) fn finish(self) -> Result<()> {
        let Self { path, part, kind } = self;
        let file = match kind {
            Kind::Parquet(writer) => writer.into_inner().map_err(|error| unwritable(&path, error))?,
            Kind::Csv(writer) => writer.into_inner().into_inner().map_err(|error| unwritable(&path, error))?,
        };
        file.sync_all().map_err(|error| unwritable(&path, error))?;
        std::fs::rename(&part.0, &path).map_err(|error| unwritable(&path, error))
    }
}

fn fits_csv(data_type: &DataType) -> bool {
    !data_type.is_nested()
        && !matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_))
}

fn unwritable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, format!("`{}` cannot be written", path.display())).permanent().with_source(error)
}
