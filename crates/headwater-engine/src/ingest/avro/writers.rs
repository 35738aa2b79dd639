//! What is known of the schemas that records name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::BinaryArray;
use futures::{StreamExt, TryStreamExt};
use headwater_core::Result;
use headwater_core::stream::SchemaRegistry;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::{Writer, schema};
use crate::ingest::framing;

/// The most schemas that are kept in memory between batches.
const MOST: usize = 1_000;
/// As many questions are under way at once.
const AT_ONCE: usize = 8;
const UNKNOWN_FOR: Duration = Duration::from_secs(10);

/// A writer, or why records that name it cannot be read.
type Found = Result<Arc<Writer>, String>;

/// The writers that the records of a batch name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writers(FxHashMap<u32, Found>);

impl Writers {
    pub(super) fn get(&self, id: u32) -> Result<&Arc<Writer>, &str> {
        match self.0.get(&id) {
            Some(found) => found.as_ref().map_err(String::as_str),
            None => Err("the record's schema was not asked for"),
        }
    }
}

/// What the registry has said.
#[derive(Debug)]
pub(super) struct Known {
    schemas: FxHashMap<u32, (Found, Option<Instant>)>,
    /// How long the answer holds that there is no such schema.
    pub(super) unknown_for: Duration,
}

impl Default for Known {
    fn default() -> Self {
        Self { schemas: FxHashMap::default(), unknown_for: UNKNOWN_FOR }
    }
}

impl Known {
    fn get(&self, id: u32) -> Option<&Found> {
        let (found, until) = self.schemas.get(&id)?;
        until.is_none_or(|until| Instant::now() < until).then_some(found)
    }

    /// Those of these schemas that have to be asked for.
    pub(super) fn missing(&self, ids: &BTreeSet<u32>) -> Vec<u32> {
        ids.iter().copied().filter(|id| self.get(*id).is_none()).collect()
    }

    /// All of these schemas, if they are known.
    pub(super) fn of(&self, ids: &BTreeSet<u32>) -> Option<Writers> {
        ids.iter().map(|id| Some((*id, self.get(*id)?.clone()))).collect::<Option<_>>().map(Writers)
    }

    /// Remembers what was found, and gives all of these schemas.
    pub(super) fn learn(&mut self, ids: &BTreeSet<u32>, found: Vec<(u32, Found, bool)>) -> Writers {
        let mut writers: FxHashMap<u32, Found> = FxHashMap::default();
        for id in ids {
            writers.extend(self.schemas.get(id).map(|(found, _)| (*id, found.clone())));
        }
        if self.schemas.len() + found.len() > MOST {
            // Ids that mean nothing: the next batch asks again for those that it needs.
            self.schemas.clear();
        }
        for (id, found, lasts) in found {
            writers.insert(id, found.clone());
            self.schemas.insert(id, (found, (!lasts).then(|| Instant::now() + self.unknown_for)));
        }
        Writers(writers)
    }
}

/// The schemas that records name.
pub(super) fn named(records: &BinaryArray) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let mut last = None;
    for (id, _) in records.iter().flatten().filter_map(framing::open) {
        if last != Some(id) {
            ids.insert(id);
            last = Some(id);
        }
    }
    ids
}

/// Asks the registry for schemas. True where the answer holds for ever.
///
/// # Errors
/// The registry's.
pub(super) async fn ask(registry: &dyn SchemaRegistry, ids: Vec<u32>, reader: &str) -> Result<Vec<(u32, Found, bool)>> {
    futures::stream::iter(ids.into_iter().map(|id| async move {
        let Some(schema) = registry.schema(id).await? else {
            return Ok((id, Err(format!("the schema registry knows no schema `{id}`")), false));
        };
        if schema.kind != "avro" {
            return Ok((id, Err(format!("schema `{id}` is one of {}, not of Avro", schema.kind)), true));
        }
        let writer = schema::whole(&schema.text, &schema.references)
            .and_then(|text| Writer::new(text, reader))
            .map_err(|reason| format!("schema `{id}` cannot be read as the source's `schema` says: {reason}"));
        Ok((id, writer.map(Arc::new), true))
    }))
    .buffer_unordered(AT_ONCE)
    .try_collect()
    .await
}
