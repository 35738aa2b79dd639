//! Entities of a history, drawn without bias by how often they occur in it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use arrow::array::{ArrayRef, RecordBatch, UInt32Array, new_empty_array};
use arrow::compute::{concat_batches, take_record_batch};
use futures::TryStreamExt;
use headwater_core::batch::ScanRequest;
use headwater_core::{Error, ErrorKind, Result};

use super::key_rows;
use crate::cast::cast;
use crate::history::HistoryInput;
use crate::rows::KeyColumns;
use crate::view::View;

/// At most `size` entities that these tables have rows of: those whose keys have the smallest hashes. Each is as likely as
/// any other, however many rows it has, and no more than `size` of them are in memory.
///
/// # Errors
/// `Data` where a key cannot be cast to its type; `Invalid` where a table has no such column; those of the tables.
pub(super) async fn sample(view: &View, inputs: &[HistoryInput], size: usize, seed: u64) -> Result<RecordBatch> {
    if view.keys.is_empty() {
        return key_rows(view, Vec::new(), size.min(1));
    }
    let mut best = Best { size, seed, rows: BTreeMap::new() };
    for input in inputs {
        let named = |key: &str| input.columns.get(key).map_or_else(|| key.to_owned(), Clone::clone);
        match input.source.schema().await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        let mut columns: Vec<String> = view.keys.iter().map(|key| named(&key.name)).collect();
        columns.sort_unstable();
        columns.dedup();
        let request = ScanRequest { columns: Some(columns), time: None, keys: None };
        for fragment in input.source.fragments(&request).await? {
            let mut batches = input.source.read(&fragment, &request).await?;
            while let Some(batch) = batches.try_next().await? {
                let mut columns: Vec<ArrayRef> = Vec::with_capacity(view.keys.len());
                for key in &view.keys {
                    let name = named(&key.name);
                    let column = batch.rows.column_by_name(&name).ok_or_else(|| {
                        Error::unexpected(format!("{} left out the column `{name}`", input.source.identity()))
                    })?;
                    let casted = cast(column, &key.value_type.to_arrow(), None)?;
                    if let Some(failure) = casted.failures.first() {
                        let table = input.source.identity();
                        return Err(Error::data(format!("{table}: column `{name}`: {}", failure.reason)));
                    }
                    columns.push(casted.array);
                }
                best.add(view, &key_rows(view, columns, batch.rows.num_rows())?)?;
            }
        }
    }
    let nothing = view.keys.iter().map(|key| new_empty_array(&key.value_type.to_arrow())).collect();
    let schema = key_rows(view, nothing, 0)?.schema();
    Ok(concat_batches(&schema, best.rows.values())?)
}

/// The keys with the smallest hashes so far, each with its row.
struct Best {
    size: usize,
    seed: u64,
    rows: BTreeMap<(u64, Vec<u8>), RecordBatch>,
}

impl Best {
    fn add(&mut self, view: &View, rows: &RecordBatch) -> Result<()> {
        let keys = KeyColumns::new(&view.keys, rows)?;
        let mut key = Vec::new();
        for row in 0..rows.num_rows() {
            if keys.is_null(row) {
                continue;
            }
            key.clear();
            keys.encode(row, &mut key);
            let mut hasher = DefaultHasher::new();
            (self.seed, &key).hash(&mut hasher);
            let hash = hasher.finish();
            let full = self.rows.len() >= self.size;
            if full && self.rows.last_key_value().is_none_or(|((last, _), _)| hash > *last) {
                continue;
            }
            let at = (hash, key.clone());
            if self.rows.contains_key(&at) {
                continue;
            }
            // A copy: a slice would keep the whole batch.
            let index = UInt32Array::from(vec![u32::try_from(row).unwrap_or(u32::MAX)]);
            self.rows.insert(at, take_record_batch(rows, &index)?);
            if self.rows.len() > self.size {
                self.rows.pop_last();
            }
        }
        Ok(())
    }
}
