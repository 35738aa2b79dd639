//! Online reads of windowed views.
//!
//! An entity's state is one row for each split that had events of it. A read fetches them all in one call of the store,
//! merges them, and computes the windows at the time of the read, or at the entity's newest event where that is later.
//!
//! A new epoch of the state takes over at one instant, by one row of the store, and the old one's rows go some time
//! after. So rows are believed only if the epoch they were read from still serves *after* they were read; else they are
//! read again. The check is a point read, and makes every read see a switch at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::take;
use bytes::Bytes;
use headwater_core::online::OnlineRow;
use headwater_core::{Error, ErrorKind, Micros, Result};

use super::features::Selected;
use super::metrics::Metrics;
use super::online::{Asked, FeatureStatus, OnlineColumn};
use crate::ingest::windows::is_of;
use crate::project::Project;
use crate::view::View;
use crate::windows::{Layout, State, Windows, epoch};

/// How often a read begins anew because the epoch changed under it.
const TRIES: usize = 10;

/// The serving epoch of each view, as last seen.
#[derive(Debug, Default)]
pub(crate) struct EpochCache(Mutex<BTreeMap<String, Arc<Reading>>>);

/// How to read a view's state.
#[derive(Debug)]
pub(super) struct Reading {
    /// The generation whose epochs are looked at.
    generation: String,
    /// The epoch that serves, as its row says; `None` where there is none.
    epoch: Option<Bytes>,
    /// The table with its state.
    table: String,
    layout: Layout,
    /// Whether it holds the aggregations that are defined now.
    current: bool,
    /// For each feature of the view its place among those of the epoch, whose aggregations may be older ones.
    places: Vec<Option<usize>>,
}

/// The state rows of entities.
#[derive(Debug)]
pub(super) struct Fetched {
    reading: Arc<Reading>,
    /// For each entity its rows: keys, versions and states.
    pub(super) rows: Vec<Vec<OnlineRow>>,
}

/// The features of entities.
#[derive(Debug)]
pub(super) struct Finished {
    /// A column for each feature of the view, a row for each entity, and at the end one of an entity that has no events.
    pub(super) columns: Vec<ArrayRef>,
    /// The time that each row is of.
    pub(super) times: Vec<Micros>,
    /// How many rows were merged.
    merged: u64,
    /// How many rows the entity with the most rows has.
    most: u64,
    /// How many values are null because they are beyond their type.
    overflows: u64,
}

impl EpochCache {
    fn get(&self, view: &View, generation: &str) -> Option<Arc<Reading>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&view.name).filter(|reading| reading.generation == generation).cloned()
    }

    fn put(&self, view: &View, reading: &Arc<Reading>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(view.name.clone(), Arc::clone(reading));
    }
}

impl Reading {
    async fn load(project: &Project, view: &View, windows: &Windows, generation: &str) -> Result<Self> {
        let name = &project.definitions.project;
        let epoch = epoch::serving(project.online.as_ref(), name, &view.name, generation).await?;
        let held = match &epoch {
            // Names may have changed, and types been narrowed: neither is part of the state.
            Some(epoch) if epoch.fingerprint != windows.fingerprint => &epoch.windows,
            _ => windows,
        };
        let place = |index: usize| {
            if std::ptr::eq(held, windows) {
                return Some(index);
            }
            let wanted = view.features.get(index)?;
            held.features.iter().position(|f| f.field.name == wanted.name && f.field.dtype == wanted.dtype)
        };
        Ok(Self {
            generation: generation.to_owned(),
            table: epoch.as_ref().map_or(String::new(), |epoch| epoch::table(name, &view.name, epoch)),
            current: epoch.as_ref().is_some_and(|epoch| is_of(view, epoch)),
            layout: Layout::new(held)?,
            places: (0..view.features.len()).map(place).collect(),
            epoch: epoch.map(|epoch| Bytes::from(epoch.id)),
        })
    }
}

/// Reads the state of entities, all of it of the epoch that serves.
///
/// # Errors
/// The store's; `Conflict`, temporary, where one epoch after the other takes over.
pub(super) async fn fetch(
    project: &Project,
    cache: &EpochCache,
    view: &View,
    windows: &Windows,
    generation: &str,
    entities: &[Bytes],
) -> Result<Fetched> {
    let online = project.online.as_ref();
    for _ in 0..TRIES {
        let reading = match cache.get(view, generation) {
            Some(reading) => reading,
            None => {
                let reading = Arc::new(Reading::load(project, view, windows, generation).await?);
                cache.put(view, &reading);
                reading
            }
        };
        let rows = match &reading.epoch {
            Some(_) if !entities.is_empty() => online.get_prefixes(&reading.table, entities).await?,
            _ => vec![Vec::new(); entities.len()],
        };
        let serving = epoch::serving_id(online, &project.definitions.project, &view.name, generation).await?;
        if serving == reading.epoch {
            return Ok(Fetched { reading, rows });
        }
        let reading = Arc::new(Reading::load(project, view, windows, generation).await?);
        cache.put(view, &reading);
    }
    let message = format!("the state of view `{}` was replaced {TRIES} times while it was read", view.name);
    Err(Error::new(ErrorKind::Conflict, message).temporary())
}

impl Fetched {
    /// The epoch that the rows are of.
    pub(super) fn epoch(&self) -> Option<&Bytes> {
        self.reading.epoch.as_ref()
    }

    /// Whether there is an epoch, and it holds the aggregations that are defined now.
    pub(super) fn is_current(&self) -> bool {
        self.reading.current
    }

    /// Computes the windows of each entity at `now`, or at its newest event where that is later.
    ///
    /// # Errors
    /// `FormatVersion` and `Corrupt` for rows that cannot be read.
    pub(super) fn finish(&self, view: &View, now: Micros) -> Result<Finished> {
        let layout = &self.reading.layout;
        let mut finisher = layout.finisher(self.rows.len() + 1);
        let mut times = Vec::with_capacity(self.rows.len() + 1);
        let (mut merged, mut most) = (0, 0);
        for rows in &self.rows {
            let mut state: Option<State> = None;
            for row in rows {
                let other = State::decode(layout, &row.value).map_err(|error| {
                    error.with_context("view", &view.name).with_context("table", &self.reading.table)
                })?;
                match &mut state {
                    Some(state) => state.merge(layout, &other),
                    None => state = Some(other),
                }
            }
            let state = state.unwrap_or_else(State::new);
            let time = state.newest().map_or(now, |newest| newest.max(now));
            finisher.push(layout, &state, time);
            times.push(time);
            let count = rows.len() as u64;
            merged += count;
            most = count.max(most);
        }
        finisher.push(layout, &State::new(), now);
        times.push(now);
        let overflows = finisher.overflows();
        let held = finisher.finish()?;
        let columns = view.features.iter().zip(&self.reading.places).map(|(field, place)| {
            match place.and_then(|place| held.get(place)) {
                Some(column) => Arc::clone(column),
                // The epoch that serves does not have the feature yet.
                None => new_null_array(&field.dtype.to_arrow(), times.len()),
            }
        });
        Ok(Finished { columns: columns.collect(), times, merged, most, overflows })
    }
}

/// Answers what an online read asks of a windowed view.
pub(super) async fn read(
    project: &Project,
    (cache, metrics): (&EpochCache, &Metrics),
    (view, windows, generation): (&View, &Windows, &str),
    features: &[&Selected],
    asked: &Asked,
    now: Micros,
) -> Result<Vec<OnlineColumn>> {
    let fetched = fetch(project, cache, view, windows, generation, &asked.unique).await?;
    let finished = fetched.finish(view, now)?;
    let entities = asked.unique.len();
    metrics.read(&view.name, entities as u64, finished.merged, finished.most, finished.overflows);

    let rows = asked.slots.iter().map(|slot| slot.unwrap_or(entities));
    let straight = asked.slots.iter().enumerate().all(|(row, slot)| *slot == Some(row));
    let times: Arc<[Micros]> = rows.clone().map(|row| finished.times.get(row).copied().unwrap_or(now)).collect();
    let indices: UInt32Array = rows.map(|row| u32::try_from(row).unwrap_or(u32::MAX)).collect();
    features
        .iter()
        .map(|selected| {
            let Some(column) = finished.columns.get(selected.feature) else {
                return Err(Error::unexpected(format!("feature `{}` has no column", selected.name)));
            };
            let values = if straight { column.slice(0, entities) } else { take(column, &indices, None)? };
            let status = |row| if values.is_null(row) { FeatureStatus::NullValue } else { FeatureStatus::Present };
            Ok(OnlineColumn {
                name: selected.name.clone(),
                statuses: (0..values.len()).map(status).collect(),
                values,
                event_timestamps: Arc::clone(&times),
            })
        })
        .collect()
}
