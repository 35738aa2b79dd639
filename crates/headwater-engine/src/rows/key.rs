//! Entity keys as bytes.

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use headwater_core::definitions::ValueType;
use headwater_core::{Error, Result};

use super::{FORMAT_VERSION, push_length, tag};
use crate::view::Key;

/// The join keys of a batch, ready to be written as entity keys, row by row.
///
/// An entity key is a format version, then for each join key, in order of their names, a type and the value, each
/// delimited. So the order in which a view names its entities does not matter, no two tuples share bytes, and no key
/// is a prefix of another.
#[derive(Debug)]
pub(crate) struct KeyColumns<'a> {
    columns: Vec<Column<'a>>,
}

#[derive(Debug)]
enum Column<'a> {
    Bytes(&'a BinaryArray),
    Text(&'a StringArray),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Bool(&'a BooleanArray),
    Time(&'a TimestampMicrosecondArray),
}

impl<'a> KeyColumns<'a> {
    /// The columns of `rows` that are called like `keys` and have their types.
    ///
    /// # Errors
    /// `Invalid` for a missing column, one of another type, and for lists, which cannot be keys.
    pub(crate) fn new(keys: &[Key], rows: &'a RecordBatch) -> Result<Self> {
        let mut sorted: Vec<&Key> = keys.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        let columns = sorted
            .into_iter()
            .map(|key| {
                let column = rows
                    .column_by_name(&key.name)
                    .ok_or_else(|| Error::invalid(format!("join key `{}` is missing", key.name)))?;
                Column::new(key, column.as_ref())
            })
            .collect::<Result<_>>()?;
        Ok(Self { columns })
    }

    /// Whether some join key is null in this row: it names no entity.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.columns.iter().any(|column| column.is_null(row))
    }

    /// Appends the entity key of a row. None of its join keys may be null.
    pub(crate) fn encode(&self, row: usize, out: &mut Vec<u8>) {
        out.push(FORMAT_VERSION);
        for column in &self.columns {
            column.encode(row, out);
        }
    }
}

impl<'a> Column<'a> {
    fn new(key: &Key, column: &'a dyn Array) -> Result<Self> {
        if *column.data_type() != key.value_type.to_arrow() {
            return Err(Error::invalid(format!(
                "join key `{}` is {}, not `{}`",
                key.name,
                column.data_type(),
                key.value_type
            )));
        }
        Ok(match key.value_type {
            ValueType::Bytes => Self::Bytes(column.as_binary()),
            ValueType::String => Self::Text(column.as_string()),
            ValueType::Int32 => Self::Int32(column.as_primitive::<Int32Type>()),
            ValueType::Int64 => Self::Int64(column.as_primitive::<Int64Type>()),
            ValueType::Float32 => Self::Float32(column.as_primitive::<Float32Type>()),
            ValueType::Float64 => Self::Float64(column.as_primitive::<Float64Type>()),
            ValueType::Bool => Self::Bool(column.as_boolean()),
            ValueType::UnixTimestamp => Self::Time(column.as_primitive::<TimestampMicrosecondType>()),
            ValueType::Array(_) => {
                return Err(Error::invalid(format!("join key `{}` is a list; lists cannot be keys", key.name)));
            }
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bytes(column) => column.is_null(row),
            Self::Text(column) => column.is_null(row),
            Self::Int32(column) => column.is_null(row),
            Self::Int64(column) => column.is_null(row),
            Self::Float32(column) => column.is_null(row),
            Self::Float64(column) => column.is_null(row),
            Self::Bool(column) => column.is_null(row),
            Self::Time(column) => column.is_null(row),
        }
    }

    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        let mut fixed = |value_type: &ValueType, bytes: &[u8]| {
            out.push(tag::of(value_type));
            out.extend_from_slice(bytes);
        };
        match self {
            Self::Bytes(column) => push_text(out, &ValueType::Bytes, column.value(row)),
            Self::Text(column) => push_text(out, &ValueType::String, column.value(row).as_bytes()),
            Self::Int32(column) => fixed(&ValueType::Int32, &column.value(row).to_be_bytes()),
            Self::Int64(column) => fixed(&ValueType::Int64, &column.value(row).to_be_bytes()),
            // Equal floats are one key: the two zeros are, and so is every NaN.
            Self::Float32(column) => {
                let value = column.value(row);
                let value = if value.is_nan() { f32::NAN } else { value + 0.0 };
                fixed(&ValueType::Float32, &value.to_bits().to_be_bytes());
            }
            Self::Float64(column) => {
                let value = column.value(row);
                let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
                fixed(&ValueType::Float64, &value.to_bits().to_be_bytes());
            }
            Self::Bool(column) => fixed(&ValueType::Bool, &[u8::from(column.value(row))]),
            Self::Time(column) => fixed(&ValueType::UnixTimestamp, &column.value(row).to_be_bytes()),
        }
    }
}

fn push_text(out: &mut Vec<u8>, value_type: &ValueType, bytes: &[u8]) {
    out.push(tag::of(value_type));
    push_length(out, bytes.len());
    out.extend_from_slice(bytes);
}
