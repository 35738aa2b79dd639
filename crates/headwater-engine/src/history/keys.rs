//! Join keys as small dense numbers.
//!
//! The distinct keys of the entity rows are numbered 0, 1, 2 … in order of their first appearance. A view's rows are
//! looked up here once; those whose key is not among them have nobody to answer.

use std::hash::{BuildHasher, Hash};

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use arrow::row::{RowConverter, SortField};
use hashbrown::HashTable;
use headwater_core::{Error, Result};
use rustc_hash::FxBuildHasher;

/// The number of a key that nobody asks for, or that is null.
pub(super) const NO_KEY: u32 = u32::MAX;

/// Distinct keys and their numbers.
#[derive(Debug)]
pub(super) struct KeyIndex {
    lookup: Lookup,
    count: u32,
}

#[derive(Debug)]
enum Lookup {
    /// Views without join keys: everything is one entity.
    Unit,
    /// Integers that lie close together: a table from `value - min` to number. No hashing, and mostly in cache.
    Near { min: i64, numbers: Vec<u32> },
    /// Integers.
    Int(HashTable<(i64, u32)>),
    /// Text or bytes.
    Bytes(ByteKeys),
    /// Several columns, or one of another type, in Arrow's row format: equal rows have equal bytes.
    Rows(RowConverter, ByteKeys),
}

/// A table of integers may have this many entries for each key in it, beside a few for nothing.
const NEAR_SPREAD: u64 = 8;
const NEAR_FREE: u64 = 1 << 16;

impl KeyIndex {
    /// Numbers the keys of `batches`, each one the key columns of some rows, with the types of the view. Returns the
    /// number of each row beside the index; [`NO_KEY`] where a part of its key is null.
    pub(super) fn build(types: &[DataType], batches: &[(Vec<ArrayRef>, usize)]) -> Result<(Self, Vec<u32>)> {
        let rows = batches.iter().map(|(_, rows)| rows).sum();
        let mut numbers = Vec::with_capacity(rows);
        let mut index = Self { lookup: Lookup::for_types(types)?, count: 0 };
        if let Lookup::Int(_) = index.lookup
            && let Some((min, span)) = int_span(batches)
            && span <= (rows as u64).saturating_mul(NEAR_SPREAD).saturating_add(NEAR_FREE)
            && let Ok(entries) = usize::try_from(span + 1)
        {
            index.lookup = Lookup::Near { min, numbers: vec![NO_KEY; entries] };
        }
        for (columns, rows) in batches {
            index.add(columns, *rows, &mut numbers)?;
        }
        Ok((index, numbers))
    }

    /// How many distinct keys there are.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    fn add(&mut self, columns: &[ArrayRef], rows: usize, out: &mut Vec<u32>) -> Result<()> {
        let count = &mut self.count;
        let mut next = || {
            let number = *count;
            // There are at most `NO_KEY` entity rows, so the numbers end before it.
            *count += 1;
            number
        };
        match (&mut self.lookup, columns) {
            (Lookup::Unit, _) => {
                if *count == 0 && rows > 0 {
                    *count = 1;
                }
                out.extend(std::iter::repeat_n(0, rows));
            }
            (Lookup::Near { min, numbers }, [column]) => each_int(column, |value| {
                let slot = value.and_then(|value| near(*min, value)).and_then(|at| numbers.get_mut(at));
                out.push(slot.map_or(NO_KEY, |slot| {
                    if *slot == NO_KEY {
                        *slot = next();
                    }
                    *slot
                }));
            })?,
            (Lookup::Int(table), [column]) => each_int(column, |value| {
                out.push(value.map_or(NO_KEY, |value| {
                    let hash = hash_of(&value);
                    table
                        .entry(hash, |(known, _)| *known == value, |(known, _)| hash_of(known))
                        .or_insert_with(|| (value, next()))
                        .get()
                        .1
                }));
            })?,
            (Lookup::Bytes(keys), [column]) => each_bytes(column, |value| {
                out.push(value.map_or(NO_KEY, |value| keys.number(value, &mut next)));
            })?,
            (Lookup::Rows(converter, keys), _) => {
                let nulls = null_keys(columns);
                for (row, bytes) in converter.convert_columns(columns)?.iter().enumerate() {
                    let null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                    out.push(if null { NO_KEY } else { keys.number(bytes.as_ref(), &mut next) });
                }
            }
            _ => return Err(shape()),
        }
        Ok(())
    }

    /// Looks up the keys of some rows, given as their key columns, in place of what `out` held.
    pub(super) fn find(&self, columns: &[ArrayRef], rows: usize, out: &mut Vec<u32>) -> Result<()> {
        out.clear();
        match (&self.lookup, columns) {
            (Lookup::Unit, _) => out.resize(rows, if self.count == 0 { NO_KEY } else { 0 }),
            (Lookup::Near { min, numbers }, [column]) => each_int(column, |value| {
                let at = value.and_then(|value| near(*min, value));
                out.push(at.and_then(|at| numbers.get(at)).copied().unwrap_or(NO_KEY));
            })?,
            (Lookup::Int(table), [column]) => each_int(column, |value| {
                let found = value.and_then(|value| table.find(hash_of(&value), |(known, _)| *known == value));
                out.push(found.map_or(NO_KEY, |(_, number)| *number));
            })?,
            (Lookup::Bytes(keys), [column]) => {
                each_bytes(column, |value| out.push(value.map_or(NO_KEY, |value| keys.find(value))))?;
            }
            (Lookup::Rows(converter, keys), _) => {
                let nulls = null_keys(columns);
                for (row, bytes) in converter.convert_columns(columns)?.iter().enumerate() {
                    let null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                    out.push(if null { NO_KEY } else { keys.find(bytes.as_ref()) });
                }
            }
            _ => return Err(shape()),
        }
        Ok(())
    }
}

impl Lookup {
    fn for_types(types: &[DataType]) -> Result<Self> {
        Ok(match types {
            [] => Self::Unit,
            [DataType::Int32 | DataType::Int64] => Self::Int(HashTable::new()),
            [DataType::Utf8 | DataType::Binary] => Self::Bytes(ByteKeys::default()),
            several => Self::Rows(
                RowConverter::new(several.iter().map(|of| SortField::new(of.clone())).collect())?,
                ByteKeys::default(),
            ),
        })
    }
}

/// Byte strings and their numbers: the strings one after the other in one buffer, and a table of their numbers.
#[derive(Debug, Default)]
struct ByteKeys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    table: HashTable<u32>,
}

impl ByteKeys {
    fn get<'a>(bytes: &'a [u8], ends: &[usize], number: u32) -> &'a [u8] {
        let at = number as usize;
        let start = at.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
        ends.get(at).and_then(|end| bytes.get(start..*end)).unwrap_or_default()
    }

    fn find(&self, key: &[u8]) -> u32 {
        let same = |number: &u32| Self::get(&self.bytes, &self.ends, *number) == key;
        self.table.find(hash_of(key), same).copied().unwrap_or(NO_KEY)
    }

    /// The number of `key`, which is `next()` where it is new. Numbers count from 0.
    fn number(&mut self, key: &[u8], next: impl FnOnce() -> u32) -> u32 {
        let Self { bytes, ends, table } = self;
        let hash = hash_of(key);
        if let Some(number) = table.find(hash, |number| Self::get(bytes, ends, *number) == key) {
            return *number;
        }
        let number = next();
        bytes.extend_from_slice(key);
        ends.push(bytes.len());
        table.insert_unique(hash, number, |number| hash_of(Self::get(bytes, ends, *number)));
        number
    }
}

fn hash_of<T: Hash + ?Sized>(key: &T) -> u64 {
    FxBuildHasher.hash_one(key)
}

/// The place of `value` in a table that begins at `min`.
#[inline]
fn near(min: i64, value: i64) -> Option<usize> {
    usize::try_from(value.checked_sub(min)?).ok()
}

/// The smallest of the keys and how far the greatest is from it.
fn int_span(batches: &[(Vec<ArrayRef>, usize)]) -> Option<(i64, u64)> {
    let (mut min, mut max) = (i64::MAX, i64::MIN);
    for (columns, _) in batches {
        each_int(columns.first()?, |value| {
            if let Some(value) = value {
                min = min.min(value);
                max = max.max(value);
            }
        })
        .ok()?;
    }
    (min <= max).then(|| (min, max.abs_diff(min)))
}

fn each_int(column: &ArrayRef, each: impl FnMut(Option<i64>)) -> Result<()> {
    match column.data_type() {
        DataType::Int64 => each_of(column.as_primitive::<Int64Type>(), each),
        DataType::Int32 => each_of(column.as_primitive::<Int32Type>(), each),
        _ => return Err(shape()),
    }
    Ok(())
}

fn each_of<T: ArrowPrimitiveType<Native: Into<i64>>>(values: &PrimitiveArray<T>, mut each: impl FnMut(Option<i64>)) {
    if values.null_count() == 0 {
        values.values().iter().for_each(|value| each(Some((*value).into())));
    } else {
        values.iter().for_each(|value| each(value.map(Into::into)));
    }
}

fn each_bytes(column: &ArrayRef, mut each: impl FnMut(Option<&[u8]>)) -> Result<()> {
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().iter().for_each(|value| each(value.map(str::as_bytes))),
        DataType::Binary => column.as_binary::<i32>().iter().for_each(each),
        _ => return Err(shape()),
    }
    Ok(())
}

/// Where any part of a key is null.
fn null_keys(columns: &[ArrayRef]) -> Option<NullBuffer> {
    columns.iter().fold(None, |nulls, column| NullBuffer::union(nulls.as_ref(), column.nulls()))
}

fn shape() -> Error {
    Error::unexpected("key columns do not have the types of their index")
}
