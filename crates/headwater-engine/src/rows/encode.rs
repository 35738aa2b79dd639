//! Rows of a view as online rows.

use std::collections::BTreeMap;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use headwater_core::definitions::ValueType;
use headwater_core::online::OnlineRow;
use headwater_core::version::encode_version;
use headwater_core::{Error, Micros, Result};
use rustc_hash::FxHashMap;

use super::{DELETED, FORMAT_VERSION, KeyColumns, TOMBSTONE, name_hash, push_length, tag};
use crate::view::{Key, View, ViewRows};

/// Turns rows of a view into the rows of its online table: the newest version of each key.
///
/// A packed row is a format version, the event time, and for each feature the hash of its name, a type and the value.
/// Rows that were written before a column was added lack it, which reads as null; the order of columns does not
/// matter. A tombstone ([`DELETED`]) is packed as one.
#[derive(Debug, Clone)]
pub(crate) struct RowEncoder {
    keys: Vec<Key>,
    event_time: String,
    created: Option<String>,
    features: Vec<(u32, String, ValueType)>,
    ttl: Micros,
}

impl RowEncoder {
    /// An encoder for rows of this view.
    ///
    /// # Errors
    /// `Invalid` where two features have names that a packed row cannot tell apart.
    pub(crate) fn new(view: &View) -> Result<Self> {
        let mut names = BTreeMap::new();
        let mut features = Vec::with_capacity(view.features.len());
        for feature in &view.features {
            let hash = name_hash(&feature.name);
            if let Some(other) = names.insert(hash, &feature.name) {
                return Err(Error::invalid(format!(
                    "features `{other}` and `{}` of view `{}` have names of equal hash; rename one",
                    feature.name, view.name
                )));
            }
            features.push((hash, feature.name.clone(), feature.dtype.clone()));
        }
        Ok(Self {
            keys: view.keys.clone(),
            event_time: view.event_time.clone(),
            created: view.created.clone(),
            features,
            ttl: view.ttl,
        })
    }

    /// One row for each key in `rows`: the one of the greatest version. In order of first appearance.
    ///
    /// The caller guarantees the columns of [`View::schema`] without nulls in keys and event time.
    ///
    /// # Errors
    /// `Invalid` where a column is missing or has another type.
    pub(crate) fn encode(&self, rows: &ViewRows) -> Result<Vec<OnlineRow>> {
        let batch = &rows.rows;
        let keys = KeyColumns::new(&self.keys, batch)?;
        let column = |name: &str, value_type: &ValueType| -> Result<&ArrayRef> {
            let column =
                batch.column_by_name(name).ok_or_else(|| Error::invalid(format!("column `{name}` is missing")))?;
            if *column.data_type() != value_type.to_arrow() {
                return Err(Error::invalid(format!("column `{name}` is {}, not `{value_type}`", column.data_type())));
            }
            Ok(column)
        };
        let event_times =
            column(&self.event_time, &ValueType::UnixTimestamp)?.as_primitive::<TimestampMicrosecondType>();
        let created = match &self.created {
            Some(name) => Some(column(name, &ValueType::UnixTimestamp)?.as_primitive::<TimestampMicrosecondType>()),
            None => None,
        };
        let features = self
            .features
            .iter()
            .map(|(hash, name, value_type)| Ok((*hash, Values::new(column(name, value_type)?, value_type))))
            .collect::<Result<Vec<_>>>()?;

        let deleted = batch.column_by_name(DELETED).and_then(|column| column.as_boolean_opt());
        let created_at = |row: usize| created.filter(|column| column.is_valid(row)).map(|column| column.value(row));
        let ordinal = |row: usize| rows.ordinals.as_ref().map_or(0, |ordinals| ordinals.value(row));
        let version = |row: usize| (event_times.value(row), created_at(row), rows.positions.value(row), ordinal(row));

        // Only the newest row of each key is packed.
        let mut newest: FxHashMap<Vec<u8>, usize> = FxHashMap::default();
        let mut winners: Vec<usize> = Vec::new();
        let mut key_bytes: Vec<Bytes> = Vec::new();
        let mut key = Vec::new();
        for row in 0..batch.num_rows() {
            key.clear();
            keys.encode(row, &mut key);
            match newest.get(&key) {
                Some(&slot) => {
                    if let Some(best) = winners.get_mut(slot)
                        && version(row) >= version(*best)
                    {
                        *best = row;
                    }
                }
                None => {
                    newest.insert(key.clone(), winners.len());
                    winners.push(row);
                    key_bytes.push(Bytes::copy_from_slice(&key));
                }
            }
        }

        let mut scratch = Vec::new();
        let mut out = Vec::with_capacity(winners.len());
        for (row, key) in winners.into_iter().zip(key_bytes) {
            let event_time = event_times.value(row);
            scratch.clear();
            encode_version(
                &mut scratch,
                event_time,
                created_at(row),
                rows.origin,
                rows.split.as_bytes(),
                rows.positions.value(row),
                ordinal(row),
            );
            let version = Bytes::copy_from_slice(&scratch);
            scratch.clear();
            let is_deleted = deleted.is_some_and(|deleted| deleted.value(row));
            scratch.push(if is_deleted { TOMBSTONE } else { FORMAT_VERSION });
            scratch.extend_from_slice(&event_time.to_le_bytes());
            for (hash, values) in features.iter().filter(|_| !is_deleted) {
                scratch.extend_from_slice(&hash.to_le_bytes());
                values.push(row, &mut scratch);
            }
            out.push(OnlineRow {
                key,
                version,
                value: Bytes::copy_from_slice(&scratch),
                expiry: (self.ttl > 0).then(|| event_time.saturating_add(self.ttl.saturating_mul(2))),
            });
        }
        Ok(out)
    }
}

/// One column of rows, by its type.
#[derive(Debug)]
pub(crate) enum Values<'a> {
    Bytes(&'a BinaryArray),
    Text(&'a StringArray),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Bool(&'a BooleanArray),
    Time(&'a TimestampMicrosecondArray),
    List(&'a ListArray, Box<Values<'a>>, u8),
}

impl<'a> Values<'a> {
    /// The caller has compared the column's type with `value_type`.
    pub(crate) fn new(column: &'a ArrayRef, value_type: &ValueType) -> Self {
        match value_type {
            ValueType::Bytes => Self::Bytes(column.as_binary()),
            ValueType::String => Self::Text(column.as_string()),
            ValueType::Int32 => Self::Int32(column.as_primitive::<Int32Type>()),
            ValueType::Int64 => Self::Int64(column.as_primitive::<Int64Type>()),
            ValueType::Float32 => Self::Float32(column.as_primitive::<Float32Type>()),
            ValueType::Float64 => Self::Float64(column.as_primitive::<Float64Type>()),
            ValueType::Bool => Self::Bool(column.as_boolean()),
            ValueType::UnixTimestamp => Self::Time(column.as_primitive::<TimestampMicrosecondType>()),
            ValueType::Array(inner) => {
                let list = column.as_list::<i32>();
                Self::List(list, Box::new(Self::new(list.values(), inner)), tag::of(value_type))
            }
        }
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bytes(column) => column.is_null(row),
            Self::Text(column) => column.is_null(row),
            Self::Int32(column) => column.is_null(row),
            Self::Int64(column) => column.is_null(row),
            Self::Float32(column) => column.is_null(row),
            Self::Float64(column) => column.is_null(row),
            Self::Bool(column) => column.is_null(row),
            Self::Time(column) => column.is_null(row),
            Self::List(column, ..) => column.is_null(row),
        }
    }

    fn tag(&self) -> u8 {
        tag::of(match self {
            Self::Bytes(_) => &ValueType::Bytes,
            Self::Text(_) => &ValueType::String,
            Self::Int32(_) => &ValueType::Int32,
            Self::Int64(_) => &ValueType::Int64,
            Self::Float32(_) => &ValueType::Float32,
            Self::Float64(_) => &ValueType::Float64,
            Self::Bool(_) => &ValueType::Bool,
            Self::Time(_) => &ValueType::UnixTimestamp,
            Self::List(_, _, tag) => return *tag,
        })
    }

    /// Appends the type and the value of a row.
    fn push(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.push(tag::NULL);
        } else {
            out.push(self.tag());
            self.push_value(row, out);
        }
    }

    /// Appends the value of a row that is not null, without its type.
    pub(crate) fn push_value(&self, row: usize, out: &mut Vec<u8>) {
        let mut delimited = |bytes: &[u8]| {
            push_length(out, bytes.len());
            out.extend_from_slice(bytes);
        };
        match self {
            Self::Bytes(column) => delimited(column.value(row)),
            Self::Text(column) => delimited(column.value(row).as_bytes()),
            Self::Int32(column) => out.extend_from_slice(&column.value(row).to_le_bytes()),
            Self::Int64(column) => out.extend_from_slice(&column.value(row).to_le_bytes()),
            Self::Float32(column) => out.extend_from_slice(&column.value(row).to_le_bytes()),
            Self::Float64(column) => out.extend_from_slice(&column.value(row).to_le_bytes()),
            Self::Bool(column) => out.push(u8::from(column.value(row))),
            Self::Time(column) => out.extend_from_slice(&column.value(row).to_le_bytes()),
            Self::List(column, inner, _) => {
                let offsets = column.value_offsets();
                let (Some(&from), Some(&to)) = (offsets.get(row), offsets.get(row + 1)) else { return };
                let elements = usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0);
                // Length in bytes first, so that a reader that does not want the list steps over it.
                let mut list = Vec::new();
                push_length(&mut list, elements.len());
                let nulls: Vec<bool> = elements.clone().map(|element| inner.is_null(element)).collect();
                list.push(u8::from(nulls.contains(&true)));
                if nulls.contains(&true) {
                    for eight in nulls.chunks(8) {
                        list.push(eight.iter().enumerate().fold(0, |byte, (bit, null)| byte | u8::from(*null) << bit));
                    }
                }
                for (element, null) in elements.zip(nulls) {
                    if !null {
                        inner.push_value(element, &mut list);
                    }
                }
                push_length(out, list.len());
                out.extend_from_slice(&list);
            }
        }
    }
}
