//! The files of a table at one moment, as one table.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use headwater_core::batch::ScanRequest;
use headwater_core::{Error, Result};
use object_store::ObjectStore;

use super::location::{Listing, Object};
use super::parquet::Footers;
use super::partitions::{self, Constants};
use super::text;
use crate::config::BatchFormat;
use crate::union::Union;

/// How many files are looked into at once.
const AT_ONCE: usize = 16;

/// How many snapshots are remembered for scans that are under way.
const REMEMBERED: usize = 4;

/// Files of one format.
#[derive(Debug)]
pub(super) struct Chosen {
    store: Arc<dyn ObjectStore>,
    format: BatchFormat,
    pub(super) files: Vec<Object>,
    /// All that was listed, to notice changes.
    listed: Vec<Object>,
}

/// Picks the files that are read, and tells their format.
///
/// # Errors
/// `Invalid` where the format cannot be told, or files of several formats lie side by side.
pub(super) fn choose(listing: Listing, format: Option<BatchFormat>, path: &str) -> Result<Chosen> {
    let listed = listing.objects.clone();
    let mut objects = listing.objects;
    if let Some(format) = format {
        // Told so, every file is believed to have it; but one of another known format beside them is none of ours.
        if !listing.single {
            objects.retain(|object| BatchFormat::of_name(&object.relative).is_none_or(|told| told == format));
        }
        return Ok(Chosen { store: listing.store, format, files: objects, listed });
    }
    let mut told: Option<(BatchFormat, &str)> = None;
    for object in &listed {
        let Some(format) = BatchFormat::of_name(&object.relative) else { continue };
        match told {
            None => told = Some((format, &object.shown)),
            Some((first, file)) if first != format => {
                return Err(Error::invalid(format!(
                    "`{file}` is {} and `{}` is {}: set `format` to read one of them",
                    first.name(),
                    object.shown,
                    format.name()
                ))
                .with_plugin("file"));
            }
            Some(_) => {}
        }
    }
    match (told, listed.first()) {
        (Some((format, _)), _) => {
            objects.retain(|object| BatchFormat::of_name(&object.relative) == Some(format));
            Ok(Chosen { store: listing.store, format, files: objects, listed })
        }
        (None, Some(object)) => Err(Error::invalid(format!(
            "the name of `{}` does not tell how it is written: set `format` to `parquet`, `csv` or `ndjson`",
            object.shown
        ))
        .with_plugin("file")),
        (None, None) => {
            tracing::debug!(path, "no data files");
            Ok(Chosen { store: listing.store, format: BatchFormat::Parquet, files: objects, listed })
        }
    }
}

/// What is known of a file's own columns.
#[derive(Debug, Clone)]
pub(super) enum Columns {
    /// Its footer says.
    Parquet,
    /// CSV and NDJSON: its columns, in its order, with the table's types.
    Text(SchemaRef),
}

/// One file of the table.
#[derive(Debug)]
pub(super) struct TableFile {
    pub(super) object: Object,
    pub(super) columns: Columns,
    /// The values of its Hive partitions.
    pub(super) constants: Constants,
}

/// The files of a table at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) number: u64,
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) format: BatchFormat,
    pub(super) schema: SchemaRef,
    pub(super) files: Vec<TableFile>,
    listed: Vec<Object>,
}

impl Snapshot {
    /// Looks into every file and puts their columns together.
    ///
    /// # Errors
    /// `Corrupt` and `Data` for files that cannot be read, `Invalid` for columns whose types do not go together.
    pub(super) async fn build(chosen: Chosen, footers: &Footers, delimiter: u8) -> Result<Self> {
        let Chosen { store, format, files, listed } = chosen;
        // Boxed, because the compiler cannot see that the borrowing futures are `Send`.
        let looks: Vec<BoxFuture<'_, Result<SchemaRef>>> =
            files.iter().map(|file| columns(&store, file, format, footers, delimiter).boxed()).collect();
        let schemas: Vec<SchemaRef> = futures::stream::iter(looks).buffered(AT_ONCE).try_collect().await?;
        let mut union = Union::default();
        for (file, schema) in files.iter().zip(&schemas) {
            // Types that were guessed from CSV text can all be read as text.
            union.add_with(schema, &file.shown, |_, _| (format == BatchFormat::Csv).then_some(DataType::Utf8))?;
        }
        let (partitions, constants) =
            partitions::infer(files.iter().map(|file| file.relative.as_str()), |name| union.contains(name));
        let mut fields = union.finish();
        if format != BatchFormat::Parquet {
            fields = fields.into_iter().map(settle).collect();
        }
        fields.extend(partitions);
        let schema = Arc::new(Schema::new(fields));
        let files = files
            .into_iter()
            .zip(schemas)
            .zip(constants)
            .map(|((object, own), constants)| TableFile {
                object,
                columns: own_columns(format, &own, &schema),
                constants,
            })
            .collect();
        Ok(Self { number: 0, store, format, schema, files, listed })
    }

    /// Checks that the columns of a request exist.
    ///
    /// # Errors
    /// `Invalid`, naming the column and those there are.
    pub(super) fn check(&self, request: &ScanRequest) -> Result<()> {
        let asked = request.columns.iter().flatten().map(String::as_str);
        let time = request.time.iter().map(|time| time.column.as_str());
        let keys = request.keys.iter().map(|keys| keys.column.as_str());
        asked.chain(time).chain(keys).try_for_each(|name| self.field(name).map(drop))
    }

    /// A column's field.
    ///
    /// # Errors
    /// `Invalid` where there is none, naming those there are.
    pub(super) fn field(&self, name: &str) -> Result<FieldRef> {
        if let Some((_, field)) = self.schema.fields().find(name) {
            return Ok(Arc::clone(field));
        }
        let known: Vec<String> = self.schema.fields().iter().map(|field| format!("`{}`", field.name())).collect();
        Err(Error::invalid(format!("there is no column `{name}`; there are {}", known.join(", "))).with_plugin("file"))
    }

    /// The file at `index`, or wherever a file of this relative path is.
    pub(super) fn file(&self, index: usize, relative: &str) -> Option<&TableFile> {
        self.files
            .get(index)
            .filter(|file| file.object.relative == relative)
            .or_else(|| self.files.iter().find(|file| file.object.relative == relative))
    }
}

async fn columns(
    store: &Arc<dyn ObjectStore>,
    file: &Object,
    format: BatchFormat,
    footers: &Footers,
    delimiter: u8,
) -> Result<SchemaRef> {
    match format {
        BatchFormat::Parquet => Ok(Arc::clone(footers.get(store, file).await?.schema())),
        BatchFormat::Csv | BatchFormat::Ndjson => text::infer(store, file, format, delimiter).await,
    }
}

/// The type in which a guessed one is read, so that values behind the part that was looked at fit, too.
fn settle(field: Field) -> Field {
    let data_type = match field.data_type() {
        DataType::Null => DataType::Utf8,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        other => other.clone(),
    };
    field.with_data_type(data_type).with_nullable(true)
}

/// A text file's columns with the table's types.
fn own_columns(format: BatchFormat, own: &SchemaRef, table: &Schema) -> Columns {
    if format == BatchFormat::Parquet {
        return Columns::Parquet;
    }
    let fields: Vec<FieldRef> = own
        .fields()
        .iter()
        .map(|field| {
            let (_, told) = table.fields().find(field.name()).unwrap_or((0, field));
            match told.data_type() {
                // The parser knows zones by their offset alone; the column is relabelled afterwards.
                DataType::Timestamp(unit, Some(_)) => {
                    let data_type = DataType::Timestamp(*unit, Some("+00:00".into()));
                    Arc::new(told.as_ref().clone().with_data_type(data_type))
                }
                _ => Arc::clone(told),
            }
        })
        .collect();
    Columns::Text(Arc::new(Schema::new(fields)))
}

/// The newest snapshots, so that a scan reads what it listed.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    newest: VecDeque<Arc<Snapshot>>,
    count: u64,
}

impl Snapshots {
    /// The newest snapshot, if the files are still the same.
    pub(super) fn current(&self, listing: &Listing) -> Option<Arc<Snapshot>> {
        self.newest.back().filter(|snapshot| snapshot.listed == listing.objects).cloned()
    }

    /// The snapshot of this number, if it is remembered.
    pub(super) fn numbered(&self, number: u64) -> Option<Arc<Snapshot>> {
        self.newest.iter().find(|snapshot| snapshot.number == number).cloned()
    }

    pub(super) fn remember(&mut self, mut snapshot: Snapshot) -> Arc<Snapshot> {
        self.count += 1;
        snapshot.number = self.count;
        let snapshot = Arc::new(snapshot);
        if self.newest.len() == REMEMBERED {
            self.newest.pop_front();
        }
        self.newest.push_back(Arc::clone(&snapshot));
        snapshot
    }
}
