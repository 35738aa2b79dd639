//! One file of a log: what its footer says, how it is written, and how its columns meet a wider schema.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef};
use bytes::Bytes;
use futures::FutureExt;
use headwater_core::offline::LOG_POSITION;
use headwater_core::{ErrorKind, Position, Result};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::config::Compression;
use crate::error;
use crate::storage::{Entry, Input, Storage};

/// The version of what this module writes beside the columns.
const FORMAT: &str = "1";

// Keys of the footer's key-value metadata.
const KEY_FORMAT: &str = "headwater.format";
const KEY_AFTER: &str = "headwater.after";
const KEY_THROUGH: &str = "headwater.through";
const KEY_METADATA: &str = "headwater.metadata";
const KEY_MOVED_TO: &str = "headwater.moved_to";
const KEY_MOVED_ROW: &str = "headwater.moved_row";
const KEY_COMPACTION: &str = "headwater.compaction";

/// Footers kept in memory; beyond it the cache starts anew.
const CACHED_FOOTERS: usize = 4_096;

/// What a file says of its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) after: Position,
    pub(crate) through: Position,
    pub(crate) metadata: BTreeMap<String, String>,
    /// Where its rows went when it was merged; it has none itself then.
    pub(crate) moved: Option<Moved>,
    /// The compaction that wrote it, if one did.
    pub(crate) compaction: Option<String>,
}

/// Where the rows of a merged file are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    /// The file under this position has them,
    pub(crate) to: Position,
    /// from this row on.
    pub(crate) row: u64,
}

/// A file whose footer was read.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) entry: Entry,
    pub(crate) piece: Piece,
    pub(crate) arrow: ArrowReaderMetadata,
    pub(crate) schema: SchemaRef,
}

impl Footer {
    /// Opens the footer of a file. Whatever its bytes are, this ends with a footer or an error.
    async fn read(input: &Input, path: &str) -> Result<Self> {
        let mut reader = input.clone();
        let parsed = AssertUnwindSafe(async {
            let metadata = reader.get_metadata(None).await?;
            ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new())
        })
        .catch_unwind()
        .await;
        let arrow = parsed
            .map_err(|_| error::corrupt("the file's footer is damaged", &input.name))?
            .map_err(|error| error::decode(error, &input.name))?;
        let piece = read_piece(&arrow, &input.name)?;
        // What the footer holds beside the columns is no part of the rows' schema.
        let schema = Arc::new(Schema::new(arrow.schema().fields().clone()));
        let entry = Entry { path: path.to_owned(), size: input.size, tag: input.tag.clone() };
        Ok(Self { entry, piece, arrow, schema })
    }

    /// How many rows the file has.
    pub(crate) fn rows(&self) -> u64 {
        u64::try_from(self.arrow.metadata().file_metadata().num_rows()).unwrap_or(0)
    }
}

/// Footers by path, each for one content of that path.
#[derive(Debug, Default)]
pub(crate) struct Footers {
    cached: Mutex<HashMap<String, Arc<Footer>>>,
}

impl Footers {
    /// The footer of a listed file; `None` where it is gone. It may be of a content newer than the listed one.
    pub(crate) async fn of(&self, storage: &Storage, entry: &Entry) -> Result<Option<Arc<Footer>>> {
        match self.cached(&entry.path, &entry.tag) {
            Some(footer) => Ok(Some(footer)),
            None => Ok(self.open(storage, &entry.path).await?.map(|(_, footer)| footer)),
        }
    }

    /// Opens a file for reading, with its footer; `None` where there is none.
    pub(crate) async fn open(&self, storage: &Storage, path: &str) -> Result<Option<(Input, Arc<Footer>)>> {
        let Some(input) = storage.open(path).await? else { return Ok(None) };
        if let Some(footer) = self.cached(path, &input.tag) {
            return Ok(Some((input, footer)));
        }
        let footer = Arc::new(Footer::read(&input, path).await?);
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.len() >= CACHED_FOOTERS {
            cached.clear();
        }
        cached.insert(path.to_owned(), Arc::clone(&footer));
        Ok(Some((input, footer)))
    }

    fn cached(&self, path: &str, tag: &str) -> Option<Arc<Footer>> {
        let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.get(path).filter(|footer| footer.entry.tag == tag).cloned()
    }
}

fn read_piece(arrow: &ArrowReaderMetadata, name: &str) -> Result<Piece> {
    let pairs = arrow.metadata().file_metadata().key_value_metadata();
    let value =
        |key: &str| pairs.into_iter().flatten().find(|pair| pair.key == key).and_then(|pair| pair.value.as_deref());
    match value(KEY_FORMAT) {
        Some(FORMAT) => {}
        Some(other) => {
            return Err(error::at(
                ErrorKind::FormatVersion,
                format!("the log file has format version `{other}`; this release reads version `{FORMAT}`"),
                name,
            ));
        }
        None => return Err(error::corrupt("the file was not written as a part of a log", name)),
    }
    let needed = |key: &str| value(key).ok_or_else(|| error::corrupt(format!("the file's footer lacks `{key}`"), name));
    let wrong = |key: &str| error::corrupt(format!("the file's footer has a wrong `{key}`"), name);
    let position = |key: &str| needed(key)?.parse::<Position>().map_err(|_| wrong(key));
    let moved = match value(KEY_MOVED_TO) {
        Some(_) => Some(Moved {
            to: position(KEY_MOVED_TO)?,
            row: needed(KEY_MOVED_ROW)?.parse().map_err(|_| wrong(KEY_MOVED_ROW))?,
        }),
        None => None,
    };
    Ok(Piece {
        after: position(KEY_AFTER)?,
        through: position(KEY_THROUGH)?,
        metadata: serde_json::from_str(needed(KEY_METADATA)?).map_err(|_| wrong(KEY_METADATA))?,
        moved,
        compaction: value(KEY_COMPACTION).map(str::to_owned),
    })
}

/// How files are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub(crate) compression: Compression,
    pub(crate) row_group_rows: NonZeroUsize,
}

impl Format {
    /// A whole file: rows as they come, each with the columns of `schema`.
    pub(crate) fn encode(
        self,
        piece: &Piece,
        schema: &SchemaRef,
        rows: impl IntoIterator<Item = Result<RecordBatch>>,
    ) -> Result<Bytes> {
        let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(self.properties(piece)?))
            .map_err(error::encode)?;
        for rows in rows {
            writer.write(&rows?).map_err(error::encode)?;
        }
        writer.into_inner().map(Bytes::from).map_err(error::encode)
    }

    fn properties(self, piece: &Piece) -> Result<WriterProperties> {
        let metadata = serde_json::to_string(&piece.metadata)
            .map_err(|error| headwater_core::Error::unexpected("metadata as JSON").with_source(error))?;
        let mut pairs = vec![
            (KEY_FORMAT, FORMAT.to_owned()),
            (KEY_AFTER, piece.after.to_string()),
            (KEY_THROUGH, piece.through.to_string()),
            (KEY_METADATA, metadata),
        ];
        if let Some(moved) = &piece.moved {
            pairs.push((KEY_MOVED_TO, moved.to.to_string()));
            pairs.push((KEY_MOVED_ROW, moved.row.to_string()));
        }
        if let Some(id) = &piece.compaction {
            pairs.push((KEY_COMPACTION, id.clone()));
        }
        let codec = match self.compression {
            Compression::Zstd => Codec::ZSTD(ZstdLevel::try_new(1).map_err(error::encode)?),
            Compression::Snappy => Codec::SNAPPY,
            Compression::None => Codec::UNCOMPRESSED,
        };
        Ok(WriterProperties::builder()
            .set_created_by(concat!("headwater ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(codec)
            .set_max_row_group_row_count(Some(self.row_group_rows.get()))
            // Row groups are what is pruned and read; statistics of every page would only make footers long.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            // No two records have the same position, so a dictionary of them would be written for nothing.
            .set_column_dictionary_enabled(ColumnPath::from(LOG_POSITION), false)
            .set_key_value_metadata(Some(
                pairs.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect(),
            ))
            .build())
    }
}

/// The columns of all files, in order of appearance; nullable where any file says so or lacks them.
pub(crate) fn union<'a>(schemas: impl Iterator<Item = &'a SchemaRef>) -> SchemaRef {
    let mut fields: Vec<(Field, usize)> = Vec::new();
    let mut files = 0;
    for schema in schemas {
        files += 1;
        for field in schema.fields() {
            match fields.iter_mut().find(|(known, _)| known.name() == field.name()) {
                Some((known, seen)) => {
                    known.set_nullable(known.is_nullable() || field.is_nullable());
                    *seen += 1;
                }
                None => fields.push((field.as_ref().clone(), 1)),
            }
        }
    }
    let nullable = |(field, seen): (Field, usize)| {
        let nullable = field.is_nullable() || seen < files;
        field.with_nullable(nullable)
    };
    Arc::new(Schema::new(fields.into_iter().map(nullable).collect::<Vec<_>>()))
}

/// The rows with exactly the columns of `schema`: null where the file is older than a column.
pub(crate) fn widen(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| match rows.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => Ok(cast(column, field.data_type())?),
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        })
        .collect::<Result<Vec<ArrayRef>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
