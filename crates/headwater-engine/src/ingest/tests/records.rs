//! Records in formats, as bytes of other libraries and as rows to be compared.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use headwater_core::definitions::{Definitions, RecordFormat, Source, StreamSettings};
use headwater_core::stream::{Payload, SchemaRegistry, StreamBatch};
use headwater_core::{Position, SplitId};
use serde_json::{Map, Value, json};

use super::world::TestStream;
use crate::ingest::decode::Decoder;
use crate::ingest::formats;

/// A decoder to all columns of a format; paths start from where the golden records lie.
pub(in crate::ingest) fn decoder(format: &RecordFormat, registry: Option<Arc<dyn SchemaRegistry>>) -> Decoder {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/records");
    let mut settings = StreamSettings::new("history");
    settings.record_format = Some(format.clone());
    let definitions = Definitions::new("test").base_dir(folder).source(Source::stream("events", "test", settings));
    let described = formats::describe(format, folder.as_ref()).unwrap();
    let stream = TestStream { registry, ..TestStream::default() };
    Decoder::new(&definitions, &definitions.sources[0], &stream, &described.schema).unwrap()
}

pub(in crate::ingest) fn unhex(text: &str) -> Vec<u8> {
    Position::new(text.parse::<Position>().unwrap().as_bytes().to_vec()).as_bytes().to_vec()
}

/// A value behind the header that Confluent's serializers write.
pub(in crate::ingest) fn framed(id: u32, value: &[u8]) -> Vec<u8> {
    [[0].as_slice(), &id.to_be_bytes(), value].concat()
}

pub(in crate::ingest) fn batch(records: &[Option<Vec<u8>>]) -> StreamBatch {
    let positions = (1..=records.len() as u64).map(u64::to_be_bytes);
    StreamBatch {
        split: SplitId::from("a"),
        payload: Payload::Encoded(records.iter().map(Option::as_deref).collect()),
        positions: BinaryArray::from_iter_values(positions),
        metadata: None,
        through: Position::from_u64(records.len() as u64),
        lag: None,
        lost: false,
    }
}

/// What becomes of each record: its row, why it failed, or that it is a tombstone.
pub(in crate::ingest) async fn decode(decoder: &Decoder, records: &[Option<Vec<u8>>]) -> Vec<Result<Value, String>> {
    let batch = batch(records);
    let writers = match decoder.writers(&batch) {
        Some(writers) => writers,
        None => decoder.ask(&batch).await.unwrap(),
    };
    let decoded = decoder.decode(&batch, &writers).unwrap();
    let mut out = vec![Err("missing".to_owned()); records.len()];
    for row in 0..decoded.rows.num_rows() {
        let schema = decoded.rows.schema();
        let values = schema.fields().iter().zip(decoded.rows.columns());
        let values: Map<_, _> = values.map(|(field, column)| (field.name().clone(), value(column, row))).collect();
        out[decoded.record(row)] = Ok(Value::Object(values));
    }
    for failure in decoded.failures {
        out[failure.row] = Err(failure.reason);
    }
    for row in decoded.tombstones {
        out[row] = Err("tombstone".to_owned());
    }
    out
}

fn value(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    let items = |items: &ArrayRef| (0..items.len()).map(|item| value(items, item)).collect::<Vec<_>>();
    match column.data_type() {
        DataType::Boolean => json!(column.as_boolean().value(row)),
        DataType::Int32 => json!(column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => json!(f64::from(column.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => json!(column.as_primitive::<Float64Type>().value(row)),
        DataType::Timestamp(..) => json!(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        DataType::Binary => {
            json!(column.as_binary::<i32>().value(row).iter().map(|b| format!("{b:02x}")).collect::<String>())
        }
        DataType::List(_) => json!(items(&column.as_list::<i32>().value(row))),
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(column.as_struct().columns());
            Value::Object(columns.map(|(field, column)| (field.name().clone(), value(column, row))).collect())
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let text = |key: Value| key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            let keys = items(entries.column(0)).into_iter().map(text);
            Value::Object(keys.zip(items(entries.column(1))).collect())
        }
        // Dates and decimals.
        _ => json!(arrow::util::display::array_value_to_string(column, row).unwrap()),
    }
}
