//! Records of a stream into the columns that transforms are given.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::{Field, Fields, Schema, SchemaRef, TimeUnit};
use headwater_core::definitions::{Definitions, Source, SourceKind};
use headwater_core::stream::{Payload, StreamBatch};
use headwater_core::{Error, Result, StreamSource};

#[cfg(feature = "avro")]
use super::avro::{AvroDecoder, AvroRows};
use super::cells::Columns;
use super::formats;
use super::json::JsonDecoder;
#[cfg(feature = "protobuf")]
use super::protobuf::ProtobufDecoder;
use crate::cast::{Failure, cast_batch, parse_unit, without};
use crate::store::field_mapping;

/// Decodes the batches of one source.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// What comes out: the source's columns after `field_mapping`, then metadata.
    input: SchemaRef,
    /// The columns of a record under the source's own names, in order of `input`.
    columns: Fields,
    format: Option<Format>,
    unit: Option<TimeUnit>,
    deletes: bool,
}

/// How records are encoded.
#[derive(Debug)]
enum Format {
    Json(JsonDecoder),
    #[cfg(feature = "avro")]
    Avro(AvroDecoder),
    #[cfg(feature = "protobuf")]
    Protobuf(ProtobufDecoder),
}

/// The writers' schemas that a batch needs, where its records name them.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    #[cfg(feature = "avro")]
    avro: super::avro::Writers,
}

/// The rows of a batch that could be decoded.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// The rows, with the columns of the transforms' input.
    pub(crate) rows: RecordBatch,
    /// For each row its record in the batch; `None` where row `i` is record `i`.
    pub(crate) records: Option<UInt32Array>,
    /// The records that could not be decoded, ascending.
    pub(crate) failures: Vec<Failure>,
    /// The records that are null, ascending.
    pub(crate) tombstones: Vec<usize>,
}

impl Decoded {
    /// The record that row `row` came from.
    pub(crate) fn record(&self, row: usize) -> usize {
        match &self.records {
            Some(records) => records.values().get(row).map_or(row, |record| *record as usize),
            None => row,
        }
    }
}

impl Decoder {
    /// A decoder of `source`'s records, which `stream` delivers, to `input`. Its columns that begin with `__` come beside
    /// the record. Where the stream has a registry, records are framed.
    ///
    /// # Errors
    /// `Unsupported` for a format that this build does not decode, `Invalid` for a wrong `timestamp_unit` or schema; those
    /// of reading a descriptor set.
    pub(crate) fn new(
        definitions: &Definitions,
        source: &Source,
        stream: &dyn StreamSource,
        input: &SchemaRef,
    ) -> Result<Self> {
        let registry = stream.schemas();
        let format = match &source.kind {
            SourceKind::Stream(settings) => settings.record_format.as_ref(),
            _ => None,
        };
        let mapping = field_mapping(definitions, source);
        let own_name = |name: &str| {
            let mapped = mapping.iter().find(|(_, view_name)| *view_name == name);
            mapped.map_or_else(|| name.to_owned(), |(own, _)| own.clone())
        };
        let columns = input.fields().iter().filter(|field| !field.name().starts_with("__"));
        let columns: Fields = columns.map(|field| field.as_ref().clone().with_name(own_name(field.name()))).collect();
        let unit = format.and_then(|format| format.timestamp_unit.as_deref()).map(parse_unit).transpose()?;
        let format = match format {
            None => None,
            Some(format) => Some(match format.kind.as_str() {
                "json" => Format::Json(JsonDecoder::new(columns.clone(), unit, registry.is_some())?),
                #[cfg(feature = "avro")]
                "avro" => Format::Avro(AvroDecoder::new(format.schema.as_deref().unwrap_or_default(), registry)?),
                #[cfg(feature = "protobuf")]
                "protobuf" => {
                    let folder = &definitions.base_dir;
                    Format::Protobuf(ProtobufDecoder::new(columns.clone(), format, folder, registry.is_some())?)
                }
                other => return Err(formats::missing(other)),
            }),
        };
        Ok(Self { input: Arc::clone(input), columns, format, unit, deletes: stream.deletes() })
    }

    /// What numbers count where they stand for times.
    pub(crate) fn unit(&self) -> Option<TimeUnit> {
        self.unit
    }

    /// Whether a record without a value deletes an entity.
    pub(crate) fn deletes(&self) -> bool {
        self.deletes
    }

    /// The writers' schemas that a batch needs, if they are at hand; otherwise they have to be asked for.
    pub(crate) fn writers(&self, batch: &StreamBatch) -> Option<Writers> {
        match (&self.format, &batch.payload) {
            #[cfg(feature = "avro")]
            (Some(Format::Avro(avro)), Payload::Encoded(records)) => avro.writers(records).map(|avro| Writers { avro }),
            _ => Some(Writers::default()),
        }
    }

    /// Asks the schema registry for what a batch needs.
    ///
    /// # Errors
    /// The registry's. A schema that it does not know is no error: the records that name it fail.
    #[cfg_attr(not(feature = "avro"), allow(clippy::unused_async))] // There is nobody to ask.
    pub(crate) async fn ask(&self, batch: &StreamBatch) -> Result<Writers> {
        match (&self.format, &batch.payload) {
            #[cfg(feature = "avro")]
            (Some(Format::Avro(avro)), Payload::Encoded(records)) => Ok(Writers { avro: avro.ask(records).await? }),
            _ => Ok(Writers::default()),
        }
    }

    /// Decodes a batch.
    ///
    /// # Errors
    /// `Invalid` where the source hands over bytes and no format says how to read them. Bad records are no error.
    pub(crate) fn decode(&self, batch: &StreamBatch, writers: &Writers) -> Result<Decoded> {
        let rows = batch.payload.len();
        let (mut columns, mut failures, tombstones) = match &batch.payload {
            Payload::Encoded(records) => {
                let format = self.format.as_ref().ok_or_else(|| {
                    Error::invalid("the stream's records are encoded: its source needs a `record_format`")
                })?;
                let decoded = self.decode_records(format, records, writers)?;
                (decoded.columns, decoded.failures, nulls(records))
            }
            Payload::Rows(rows) => {
                let (columns, failures) = self.cast(rows)?;
                (columns, failures, Vec::new())
            }
        };
        for field in self.input.fields().iter().skip(columns.len()) {
            let column = batch.metadata.as_ref().and_then(|metadata| metadata.column_by_name(field.name()));
            columns.push(match column {
                Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
                Some(column) => crate::cast::cast(column, field.data_type(), None)?.array,
                None => new_null_array(field.data_type(), rows),
            });
        }
        if !tombstones.is_empty() {
            failures.extend(tombstones.iter().map(|row| Failure { row: *row, reason: String::new() }));
            failures.sort_by_key(|failure| failure.row);
        }
        let (rows, records) = without(columns, &self.input, rows, &failures)?;
        failures.retain(|failure| !failure.reason.is_empty());
        Ok(Decoded { rows, records, failures, tombstones })
    }

    #[cfg_attr(not(feature = "avro"), allow(unused_variables))]
    fn decode_records(&self, format: &Format, records: &BinaryArray, writers: &Writers) -> Result<Columns> {
        match format {
            Format::Json(json) => json.decode(records),
            #[cfg(feature = "protobuf")]
            Format::Protobuf(protobuf) => protobuf.decode(records),
            #[cfg(feature = "avro")]
            Format::Avro(avro) => {
                let (pieces, failures) = avro.decode(records, &writers.avro)?;
                self.put_together(pieces, failures, records.len())
            }
        }
    }

    /// Rows of several writers, in order of their records, with a row of nulls for each record that gave none.
    #[cfg(feature = "avro")]
    fn put_together(&self, pieces: Vec<AvroRows>, mut failures: Vec<Failure>, records: usize) -> Result<Columns> {
        let mut parts = Vec::with_capacity(pieces.len());
        let mut places: Vec<Option<u32>> = vec![None; records];
        let mut next = 0;
        for piece in pieces {
            let (columns, misfits) = self.cast(&piece.rows)?;
            let record = |row: usize| piece.records.get(row).copied().unwrap_or(row);
            failures.extend(misfits.into_iter().map(|fault| Failure { row: record(fault.row), reason: fault.reason }));
            for record in &piece.records {
                if let Some(place) = places.get_mut(*record) {
                    *place = Some(next);
                }
                next += 1;
            }
            parts.push(columns);
        }
        failures.sort_by_key(|failure| failure.row);
        let in_order = places.iter().zip(0..).all(|(place, row)| *place == Some(row));
        let places = UInt32Array::from(places);
        let column = |index: usize| -> Result<ArrayRef> {
            let field = self.columns.get(index).ok_or_else(|| Error::unexpected("a column is missing"))?;
            let parts = parts.iter().filter_map(|columns| columns.get(index));
            let parts = parts.map(|column| column.as_ref()).collect::<Vec<_>>();
            let all = match parts.as_slice() {
                [] => return Ok(new_null_array(field.data_type(), records)),
                parts => arrow::compute::concat(parts)?,
            };
            Ok(if in_order { all } else { take(&all, &places, None)? })
        };
        let columns = (0..self.columns.len()).map(column).collect::<Result<_>>()?;
        Ok(Columns { columns, failures })
    }

    /// Columns as the source has them to columns as they were declared. A column that this batch lacks is null.
    fn cast(&self, rows: &RecordBatch) -> Result<(Vec<ArrayRef>, Vec<Failure>)> {
        let schema = rows.schema();
        let same = schema.fields().len() == self.columns.len()
            && schema
                .fields()
                .iter()
                .zip(&self.columns)
                .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
        if same && self.columns.iter().all(|field| field.is_nullable()) {
            return Ok((rows.columns().to_vec(), Vec::new()));
        }
        let mut fields = schema.fields().iter().cloned().collect::<Vec<_>>();
        let mut arrays = rows.columns().to_vec();
        for field in &self.columns {
            if rows.column_by_name(field.name()).is_none() {
                fields.push(Arc::new(Field::new(field.name(), field.data_type().clone(), true)));
                arrays.push(new_null_array(field.data_type(), rows.num_rows()));
            }
        }
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
        cast_batch(&rows, &Arc::new(Schema::new(self.columns.clone())), self.unit)
    }
}

fn nulls(records: &BinaryArray) -> Vec<usize> {
    if records.null_count() == 0 {
        return Vec::new();
    }
    (0..records.len()).filter(|row| records.is_null(*row)).collect()
}

/// `values[indices[i]]` for each `i`; all of them where there are no indices.
///
/// # Errors
/// Those of Arrow.
pub(crate) fn pick(values: &BinaryArray, indices: Option<&UInt32Array>) -> Result<BinaryArray> {
    match indices {
        Some(indices) => Ok(take(values, indices, None)?.as_binary::<i32>().clone()),
        None => Ok(values.clone()),
    }
}
