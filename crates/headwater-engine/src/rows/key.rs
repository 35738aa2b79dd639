//! Entity keys as bytes.

use arrow::array::RecordBatch;
use headwater_core::definitions::ValueType;
use headwater_core::{Error, Result};

use super::{FORMAT_VERSION, Values, push_length, tag};
use crate::view::Key;

/// The join keys of a batch, ready to be written as entity keys, row by row.
///
/// An entity key is a format version, then for each join key, in order of their names, a type and the value, each
/// delimited. So the order in which a view names its entities does not matter, no two tuples share bytes, and no key
/// is a prefix of another.
#[derive(Debug)]
pub(crate) struct KeyColumns<'a> {
    columns: Vec<Values<'a>>,
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
                if *column.data_type() != key.value_type.to_arrow() {
                    return Err(Error::invalid(format!(
                        "join key `{}` is {}, not `{}`",
                        key.name,
                        column.data_type(),
                        key.value_type
                    )));
                }
                if matches!(key.value_type, ValueType::Array(_)) {
                    return Err(Error::invalid(format!("join key `{}` is a list; lists cannot be keys", key.name)));
                }
                Ok(Values::new(column, &key.value_type))
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
            push_key(column, row, out);
        }
    }
}

/// Appends the type and the value of a join key.
fn push_key(column: &Values<'_>, row: usize, out: &mut Vec<u8>) {
    let mut fixed = |value_type: &ValueType, bytes: &[u8]| {
        out.push(tag::of(value_type));
        out.extend_from_slice(bytes);
    };
    match column {
        Values::Bytes(column) => push_text(out, &ValueType::Bytes, column.value(row)),
        Values::Text(column) => push_text(out, &ValueType::String, column.value(row).as_bytes()),
        Values::Int32(column) => fixed(&ValueType::Int32, &column.value(row).to_be_bytes()),
        Values::Int64(column) => fixed(&ValueType::Int64, &column.value(row).to_be_bytes()),
        // Equal floats are one key: the two zeros are, and so is every NaN.
        Values::Float32(column) => {
            let value = column.value(row);
            let value = if value.is_nan() { f32::NAN } else { value + 0.0 };
            fixed(&ValueType::Float32, &value.to_bits().to_be_bytes());
        }
        Values::Float64(column) => {
            let value = column.value(row);
            let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
            fixed(&ValueType::Float64, &value.to_bits().to_be_bytes());
        }
        Values::Bool(column) => fixed(&ValueType::Bool, &[u8::from(column.value(row))]),
        Values::Time(column) => fixed(&ValueType::UnixTimestamp, &column.value(row).to_be_bytes()),
        // `KeyColumns::new` takes none.
        Values::List(..) => {}
    }
}

fn push_text(out: &mut Vec<u8>, value_type: &ValueType, bytes: &[u8]) {
    out.push(tag::of(value_type));
    push_length(out, bytes.len());
    out.extend_from_slice(bytes);
}
