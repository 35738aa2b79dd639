//! Records of a stream into the columns that transforms are given.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::{Field, Fields, Schema, SchemaRef, TimeUnit};
use headwater_core::definitions::{Definitions, Source, SourceKind};
use headwater_core::stream::{Payload, StreamBatch};
use headwater_core::{Error, Result};

use super::json::JsonDecoder;
use crate::cast::{Failure, cast_batch, parse_unit, without};
use crate::store::field_mapping;

/// Decodes the batches of one source.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// What comes out: the source's columns after `field_mapping`, then metadata.
    input: SchemaRef,
    /// The columns of a record under the source's own names, in order of `input`.
    columns: Fields,
    json: Option<JsonDecoder>,
    unit: Option<TimeUnit>,
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
    /// A decoder of `source`'s records to `input`. Its columns that begin with `__` come beside the record.
    ///
    /// # Errors
    /// `Unsupported` for a format that this build does not decode, `Invalid` for a wrong `timestamp_unit`.
    pub(crate) fn new(definitions: &Definitions, source: &Source, input: &SchemaRef) -> Result<Self> {
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
        let json = match format {
            None => None,
            Some(format) if format.kind == "json" => Some(JsonDecoder::new(columns.clone(), unit)?),
            Some(format) => {
                return Err(Error::unsupported(format!(
                    "source `{}`: record format `{}` is not decoded by this release; `json` is",
                    source.name, format.kind
                )));
            }
        };
        Ok(Self { input: Arc::clone(input), columns, json, unit })
    }

    /// What numbers count where they stand for times.
    pub(crate) fn unit(&self) -> Option<TimeUnit> {
        self.unit
    }

    /// Decodes a batch.
    ///
    /// # Errors
    /// `Invalid` where the source hands over bytes and no format says how to read them. Bad records are no error.
    pub(crate) fn decode(&self, batch: &StreamBatch) -> Result<Decoded> {
        let rows = batch.payload.len();
        let (mut columns, mut failures, tombstones) = match &batch.payload {
            Payload::Encoded(records) => {
                let json = self.json.as_ref().ok_or_else(|| {
                    Error::invalid("the stream's records are encoded: its source needs a `record_format`")
                })?;
                let decoded = json.decode(records)?;
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
