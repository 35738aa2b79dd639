//! Typed access to the columns that aggregations read.

use headwater_core::{Error, Result};

use arrow::array::RecordBatch;

use super::layout::Layout;
use super::numbers::{Number, float_key};
use crate::rows::Values;

/// Rows whose columns a [`Layout`] has found: what [`State::update`](super::State::update) reads.
#[derive(Debug)]
pub(crate) struct Bound<'a> {
    /// In order of the layout's columns.
    columns: Vec<Values<'a>>,
}

/// Room for a value's bytes, so that no row allocates.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    fixed: [u8; 8],
    list: Vec<u8>,
}

impl<'a> Bound<'a> {
    pub(super) fn new(layout: &'a Layout, rows: &'a RecordBatch) -> Result<Self> {
        let columns = layout
            .columns
            .iter()
            .map(|field| {
                let column = rows
                    .column_by_name(&field.name)
                    .ok_or_else(|| Error::invalid(format!("column `{}` is missing", field.name)))?;
                if *column.data_type() != field.dtype.to_arrow() {
                    return Err(Error::invalid(format!(
                        "column `{}` is {}, not `{}`",
                        field.name,
                        column.data_type(),
                        field.dtype
                    )));
                }
                Ok(Values::new(column, &field.dtype))
            })
            .collect::<Result<_>>()?;
        Ok(Self { columns })
    }

    /// A column of the layout, unless the row is null there.
    pub(super) fn column(&self, column: usize, row: usize) -> Option<&Values<'a>> {
        self.columns.get(column).filter(|values| !values.is_null(row))
    }
}

/// The value of a row as a number; `None` of types that have none.
pub(super) fn number(values: &Values<'_>, row: usize) -> Option<Number> {
    Some(match values {
        Values::Int32(column) => Number::Int(column.value(row).into()),
        Values::Int64(column) => Number::Int(column.value(row)),
        Values::Time(column) => Number::Int(column.value(row)),
        Values::Bool(column) => Number::Int(column.value(row).into()),
        Values::Float32(column) => Number::Float(column.value(row).into()),
        Values::Float64(column) => Number::Float(column.value(row)),
        Values::Bytes(_) | Values::Text(_) | Values::List(..) => return None,
    })
}

/// The value of a row as bytes: those of text, eight of a number in little-endian order, a packed list.
pub(super) fn bytes<'v>(values: &'v Values<'_>, row: usize, scratch: &'v mut Scratch) -> &'v [u8] {
    let word = match values {
        Values::Bytes(column) => return column.value(row),
        Values::Text(column) => return column.value(row).as_bytes(),
        Values::List(..) => {
            scratch.list.clear();
            values.push_value(row, &mut scratch.list);
            return &scratch.list;
        }
        _ => match number(values, row) {
            Some(Number::Float(value)) => value.to_bits().cast_signed(),
            Some(Number::Int(value)) => value,
            None => 0,
        },
    };
    scratch.fixed = word.to_le_bytes();
    &scratch.fixed
}

/// As [`bytes`], but the same for values that are equal: one zero, one NaN.
pub(super) fn equal_bytes<'v>(values: &'v Values<'_>, row: usize, scratch: &'v mut Scratch) -> &'v [u8] {
    let value = match values {
        Values::Float32(column) => f64::from(column.value(row)),
        Values::Float64(column) => column.value(row),
        _ => return bytes(values, row, scratch),
    };
    let value = if value == 0.0 { 0.0 } else { value };
    // By way of the key every NaN is the same.
    let value = if value.is_nan() { super::numbers::key_float(float_key(value)) } else { value };
    scratch.fixed = value.to_le_bytes();
    &scratch.fixed
}
