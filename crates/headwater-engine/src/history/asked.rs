//! The entity rows as the walk meets them: by key number and in order of time.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{max_string, min_string};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use headwater_core::batch::KeyBounds;
use headwater_core::{Error, Micros, Result};

use super::entities::{EntityRows, names};
use super::keys::{KeyIndex, NO_KEY};
use crate::cast::cast;
use crate::view::{Key, View};

/// The entity rows for one set of join keys. Views with equal keys share it.
#[derive(Debug)]
pub(super) struct Asked {
    /// The join keys.
    pub(super) keys: Vec<Key>,
    /// Key → number. The keys are dealt out: worker `number % workers` has it as its key `number / workers`.
    pub(super) index: KeyIndex,
    /// For each key number the earliest time it is asked for.
    pub(super) earliest: Vec<Micros>,
    /// For each key number the latest time it is asked for.
    pub(super) latest: Vec<Micros>,
    /// For the first key that is an integer or text, its place among the keys and its bounds.
    pub(super) bounds: Option<(usize, KeyBounds)>,
    /// The entity rows of each worker.
    pub(super) shares: Vec<Share>,
}

/// The entity rows of the keys of one worker.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// How many keys it has.
    pub(super) keys: usize,
    /// The rows, ascending by time.
    pub(super) rows: Vec<AskedRow>,
}

/// An entity row, 16 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct AskedRow {
    /// Its event time.
    pub(super) time: Micros,
    /// Its key's number at this worker.
    pub(super) key: u32,
    /// Its place among all entity rows.
    pub(super) row: u32,
}

impl Asked {
    /// Numbers the keys of `entities` that `view` joins on and deals them out to `workers`.
    ///
    /// # Errors
    /// `Invalid` where a key column is missing, `Data` where a key cannot be cast to its entity's type.
    pub(super) fn new(entities: &EntityRows, view: &View, workers: usize) -> Result<Self> {
        let types: Vec<DataType> = view.keys.iter().map(|key| key.value_type.to_arrow()).collect();
        let columns = key_columns(entities, view, &types)?;
        let (index, numbers) = KeyIndex::build(&types, &columns)?;
        let count = index.count() as usize;
        let (mut earliest, mut latest) = (vec![Micros::MAX; count], vec![Micros::MIN; count]);
        let mut shares: Vec<Share> = Vec::new();
        shares.resize_with(workers, Share::default);
        for (worker, share) in shares.iter_mut().enumerate() {
            share.keys = count.saturating_sub(worker).div_ceil(workers);
            share.rows.reserve(numbers.len() / workers + numbers.len() / 16);
        }
        let mut row = 0u32;
        for (number, time) in numbers.iter().zip(entities.times()) {
            if *number != NO_KEY {
                let at = *number as usize;
                earliest[at] = earliest[at].min(*time);
                latest[at] = latest[at].max(*time);
                let (worker, key) = deal(*number, workers);
                shares[worker].rows.push(AskedRow { time: *time, key, row });
            }
            row = row.saturating_add(1);
        }
        std::thread::scope(|scope| {
            for share in &mut shares {
                scope.spawn(|| {
                    if !share.rows.is_sorted_by_key(|row| row.time) {
                        share.rows.sort_unstable_by_key(|row| row.time);
                    }
                });
            }
        });
        Ok(Self { keys: view.keys.clone(), index, earliest, latest, bounds: bounds(&columns), shares })
    }

    /// The bytes it takes for each entity row and key, for the accounts.
    pub(super) fn bytes(&self) -> u64 {
        let rows: usize = self.shares.iter().map(|share| share.rows.capacity()).sum();
        (rows * size_of::<AskedRow>() + self.earliest.len() * 2 * size_of::<Micros>()) as u64
    }
}

/// Which worker a key goes to, and its number there.
#[inline]
#[allow(clippy::cast_possible_truncation)] // Both are at most `number`.
pub(super) fn deal(number: u32, workers: usize) -> (usize, u32) {
    let number = number as usize;
    (number % workers, (number / workers) as u32)
}

fn key_columns(entities: &EntityRows, view: &View, types: &[DataType]) -> Result<Vec<(Vec<ArrayRef>, usize)>> {
    let mut places = Vec::with_capacity(view.keys.len());
    for key in &view.keys {
        places.push(entities.schema().index_of(&key.name).map_err(|_| {
            Error::invalid(format!(
                "the entity rows lack the join key `{}` of view `{}`; they have {}",
                key.name,
                view.name,
                names(entities.schema())
            ))
        })?);
    }
    let mut before = 0;
    let mut out = Vec::with_capacity(entities.batches().len());
    for batch in entities.batches() {
        let mut columns = Vec::with_capacity(places.len());
        for ((place, to), key) in places.iter().zip(types).zip(&view.keys) {
            let casted = cast(batch.column(*place), to, None)?;
            if let Some(failure) = casted.failures.first() {
                return Err(Error::data(format!(
                    "join key `{}` of entity row {}: {}",
                    key.name,
                    before + failure.row + 1,
                    failure.reason
                )));
            }
            columns.push(casted.array);
        }
        before += batch.num_rows();
        out.push((columns, batch.num_rows()));
    }
    Ok(out)
}

/// Bounds of the first key column that has some, for pruning fragments.
fn bounds(batches: &[(Vec<ArrayRef>, usize)]) -> Option<(usize, KeyBounds)> {
    let width = batches.first()?.0.len();
    (0..width).find_map(|place| {
        let mut all: Option<KeyBounds> = None;
        for (columns, _) in batches {
            let column = columns.get(place)?;
            if column.null_count() == column.len() {
                continue;
            }
            let next = match column.data_type() {
                DataType::Int64 => {
                    let values = column.as_primitive::<Int64Type>();
                    KeyBounds::Int(arrow::compute::min(values)?, arrow::compute::max(values)?)
                }
                DataType::Int32 => {
                    let values = column.as_primitive::<Int32Type>();
                    KeyBounds::Int(arrow::compute::min(values)?.into(), arrow::compute::max(values)?.into())
                }
                DataType::Utf8 => {
                    let values = column.as_string::<i32>();
                    KeyBounds::Text(min_string(values)?.to_owned(), max_string(values)?.to_owned())
                }
                _ => return None,
            };
            all = Some(match (all, next) {
                (Some(KeyBounds::Int(a, b)), KeyBounds::Int(c, d)) => KeyBounds::Int(a.min(c), b.max(d)),
                (Some(KeyBounds::Text(a, b)), KeyBounds::Text(c, d)) => KeyBounds::Text(a.min(c), b.max(d)),
                (_, next) => next,
            });
        }
        all.map(|bounds| (place, bounds))
    })
}
