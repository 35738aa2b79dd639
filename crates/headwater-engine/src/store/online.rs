//! Online reads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Field as ArrowField, Schema};
use bytes::Bytes;
use futures::future::try_join_all;
use headwater_core::{Error, Micros, Result};
use rustc_hash::FxHashMap;

use super::features::{Features, Selected, select};
use super::json::{Cells, EntityColumns, format_time, read_key};
use super::metrics::Metrics;
use super::windows::{self, EpochCache};
use crate::cast;
use crate::project::Project;
use crate::rows::{KeyColumns, RowDecoder, Serving, values_table};
use crate::view::{Key, View};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

/// How long a reader may go on with the serving generation that it knows.
const SERVING_TTL: Micros = 1_000_000;

/// What became of one value of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FeatureStatus {
    /// There is a value.
    Present,
    /// The newest row of the entity holds a null.
    NullValue,
    /// The entity has no row.
    NotFound,
    /// The newest row of the entity is older than the view's ttl.
    OutsideMaxAge,
}

/// The entities that an online read is about: one column for each join key, one row for each entity.
#[derive(Debug, Clone)]
pub enum Entities {
    /// As JSON has them. The type of each value has to be the join key's.
    Json(EntityColumns),
    /// As Arrow has them, cast to the types of the join keys without loss.
    Rows(RecordBatch),
}

impl From<EntityColumns> for Entities {
    fn from(columns: EntityColumns) -> Self {
        Self::Json(columns)
    }
}

impl From<RecordBatch> for Entities {
    fn from(rows: RecordBatch) -> Self {
        Self::Rows(rows)
    }
}

/// A column of an answer: a join key or a feature.
#[derive(Debug, Clone)]
pub struct OnlineColumn {
    /// Its name.
    pub name: String,
    /// Its values, one for each entity row, in the request's order.
    pub values: ArrayRef,
    /// What became of each.
    pub statuses: Vec<FeatureStatus>,
    /// The event time of the row that each came from; zero where there is none.
    pub event_timestamps: Arc<[Micros]>,
}

/// The answer to an online read: the join keys, then the features.
///
/// It serialises to the JSON of Feast's feature server.
#[derive(Debug, Clone)]
pub struct OnlineFeatures {
    /// The columns.
    pub columns: Vec<OnlineColumn>,
    rows: usize,
}

impl OnlineFeatures {
    /// How many entity rows were asked for.
    pub fn num_rows(&self) -> usize {
        self.rows
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&OnlineColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The values as a batch.
    ///
    /// # Errors
    /// None that this type can hold; Arrow checks.
    pub fn to_record_batch(&self) -> Result<RecordBatch> {
        let fields: Vec<ArrowField> = self
            .columns
            .iter()
            .map(|column| ArrowField::new(&column.name, column.values.data_type().clone(), true))
            .collect();
        let columns = self.columns.iter().map(|column| Arc::clone(&column.values)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
    }
}

impl Serialize for OnlineFeatures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Metadata<'a> {
            feature_names: Vec<&'a str>,
        }

        struct Results<'a>(&'a [OnlineColumn]);

        impl Serialize for Results<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut results = serializer.serialize_seq(Some(self.0.len()))?;
                for column in self.0 {
                    results.serialize_element(column)?;
                }
                results.end()
            }
        }

        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("results", &Results(&self.columns))?;
        let feature_names = self.columns.iter().map(|column| column.name.as_str()).collect();
        map.serialize_entry("metadata", &Metadata { feature_names })?;
        map.end()
    }
}

impl Serialize for OnlineColumn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("values", &Cells(&self.values))?;
        map.serialize_entry("statuses", &self.statuses)?;
        let times: Vec<String> = self.event_timestamps.iter().map(|time| format_time(*time)).collect();
        map.serialize_entry("event_timestamps", &times)?;
        map.end()
    }
}

/// What a reader remembers between reads: the serving generations, read again when they are older than a second, and
/// the epochs of windowed views.
#[derive(Debug, Default)]
pub(crate) struct ServingCache {
    generations: Mutex<Option<(Micros, ServingViews)>>,
    epochs: EpochCache,
    metrics: Arc<Metrics>,
}

type ServingViews = Arc<BTreeMap<String, Serving>>;

impl ServingCache {
    /// An empty one that counts here.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// The epochs of windowed views.
    pub(crate) fn epochs(&self) -> &EpochCache {
        &self.epochs
    }

    /// Where reads are counted.
    #[cfg(test)]
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Forgets which generations serve: this process has changed it.
    pub(crate) fn clear(&self) {
        *self.generations.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn get(&self, project: &Project) -> Result<ServingViews> {
        let now = project.clock.now();
        if let Some((read, serving)) = &*self.generations.lock().unwrap_or_else(PoisonError::into_inner)
            && (0..SERVING_TTL).contains(&now.saturating_sub(*read))
        {
            return Ok(Arc::clone(serving));
        }
        let serving = Arc::new(Serving::read(project.online.as_ref(), &project.definitions.project).await?);
        *self.generations.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, Arc::clone(&serving)));
        Ok(serving)
    }
}

/// Answers an online read: one call of the store for each view.
pub(crate) async fn get_online_features(
    project: &Project,
    serving: &ServingCache,
    features: &Features,
    entities: &Entities,
    full_feature_names: bool,
) -> Result<OnlineFeatures> {
    let selected = select(project, features, full_feature_names)?;
    let mut views: Vec<(Arc<View>, Vec<&Selected>)> = Vec::new();
    for feature in &selected {
        match views.iter_mut().find(|(view, _)| view.name == feature.view.name) {
            Some((_, features)) => features.push(feature),
            None => views.push((Arc::clone(&feature.view), vec![feature])),
        }
    }
    if let Some((view, _)) = views.iter().find(|(view, _)| !view.online) {
        return Err(Error::invalid(format!("view `{}` is not served online: it says `online: false`", view.name)));
    }

    let request = Request::new(entities, &views)?;
    let generations = serving.get(project).await?;
    let now = project.clock.now();
    let answers = try_join_all(views.iter().map(|(view, features)| {
        let generation = generations.get(&view.name).map_or(&view.generation, |serving| &serving.generation);
        read_view(project, serving, (view, generation), features, &request, now)
    }))
    .await?;
    let mut columns = request.columns;
    columns.extend(answers.into_iter().flatten());
    Ok(OnlineFeatures { columns, rows: request.rows })
}

/// The join keys of a request.
struct Request {
    rows: usize,
    /// The join keys, in the request's order, as the answer repeats them.
    columns: Vec<OnlineColumn>,
}

impl Request {
    fn new(entities: &Entities, views: &[(Arc<View>, Vec<&Selected>)]) -> Result<Self> {
        let given: Vec<(&str, usize)> = match entities {
            Entities::Json(columns) => columns.0.iter().map(|(name, cells)| (name.as_str(), cells.len())).collect(),
            Entities::Rows(rows) => {
                rows.schema_ref().fields().iter().map(|field| (field.name().as_str(), rows.num_rows())).collect()
            }
        };
        let mut keys: Vec<&Key> = Vec::new();
        for (view, _) in views {
            for key in &view.keys {
                if !given.iter().any(|(name, _)| *name == key.name) {
                    let names = given.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                    let names = if names.is_empty() { "none".into() } else { names };
                    return Err(Error::invalid(format!(
                        "view `{}` needs the join key `{}`; given are {names}",
                        view.name, key.name
                    )));
                }
                match keys.iter().find(|known| known.name == key.name) {
                    Some(known) if known.value_type != key.value_type => {
                        return Err(Error::invalid(format!(
                            "join key `{}` is `{}` in one view and `{}` in another; ask for them apart",
                            key.name, known.value_type, key.value_type
                        )));
                    }
                    Some(_) => {}
                    None => keys.push(key),
                }
            }
        }
        // Columns that are no join key are ignored, as Feast does, but for the number of rows.
        let rows = given.first().map_or(1, |(_, rows)| *rows);
        if let Some((name, other)) = given.iter().find(|(_, other)| *other != rows) {
            return Err(Error::invalid(format!(
                "entity columns differ in length: `{}` has {rows} values, `{name}` has {other}",
                given.first().map_or("", |(first, _)| *first)
            )));
        }
        let epoch: Arc<[Micros]> = vec![0; rows].into();
        let mut columns = Vec::with_capacity(keys.len());
        for (name, _) in given {
            let Some(key) = keys.iter().find(|key| key.name == name) else { continue };
            let values = match entities {
                Entities::Json(columns) => {
                    let cells = columns.0.iter().find(|(known, _)| known == name).map(|(_, cells)| cells.as_slice());
                    read_key(name, &key.value_type, cells.unwrap_or_default())?
                }
                Entities::Rows(rows) => cast_key(key, rows.column_by_name(name))?,
            };
            let status = |row| if values.is_null(row) { FeatureStatus::NullValue } else { FeatureStatus::Present };
            columns.push(OnlineColumn {
                name: name.to_owned(),
                statuses: (0..rows).map(status).collect(),
                values,
                event_timestamps: Arc::clone(&epoch),
            });
        }
        Ok(Self { rows, columns })
    }

    /// The join keys of one view.
    fn keys(&self, view: &View) -> Result<RecordBatch> {
        let columns = self.columns.iter().filter(|column| view.keys.iter().any(|key| key.name == column.name));
        let (fields, arrays): (Vec<ArrowField>, Vec<ArrayRef>) = columns
            .map(|column| {
                let field = ArrowField::new(&column.name, column.values.data_type().clone(), true);
                (field, Arc::clone(&column.values))
            })
            .unzip();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
    }
}

fn cast_key(key: &Key, column: Option<&ArrayRef>) -> Result<ArrayRef> {
    let Some(column) = column else { return Ok(new_null_array(&key.value_type.to_arrow(), 0)) };
    let casted = cast::cast(column, &key.value_type.to_arrow(), None)?;
    match casted.failures.first() {
        None => Ok(casted.array),
        Some(failure) => {
            Err(Error::invalid(format!("join key `{}`, row {}: {}", key.name, failure.row, failure.reason)))
        }
    }
}

/// What became of an entity row in one view.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    No,
    Expired,
    Yes,
}

/// The entities that are asked of one view.
pub(super) struct Asked {
    /// Their keys: each entity is read once, however often it is asked for.
    pub(super) unique: Vec<Bytes>,
    /// For each row of the request its entity; a null names none.
    pub(super) slots: Vec<Option<usize>>,
}

impl Asked {
    /// The entities of rows with the join keys of a view.
    pub(super) fn new(view: &View, rows: &RecordBatch) -> Result<Self> {
        let keys = KeyColumns::new(&view.keys, rows)?;
        let (mut unique, mut slots) = (Vec::new(), Vec::with_capacity(rows.num_rows()));
        let mut known: FxHashMap<Bytes, usize> = FxHashMap::default();
        let mut key = Vec::new();
        for row in 0..rows.num_rows() {
            if keys.is_null(row) {
                slots.push(None);
                continue;
            }
            key.clear();
            keys.encode(row, &mut key);
            let slot = match known.get(key.as_slice()) {
                Some(slot) => *slot,
                None => {
                    let key = Bytes::copy_from_slice(&key);
                    known.insert(key.clone(), unique.len());
                    unique.push(key);
                    unique.len() - 1
                }
            };
            slots.push(Some(slot));
        }
        Ok(Self { unique, slots })
    }
}

async fn read_view(
    project: &Project,
    serving: &ServingCache,
    (view, generation): (&View, &str),
    features: &[&Selected],
    request: &Request,
    now: Micros,
) -> Result<Vec<OnlineColumn>> {
    let asked = Asked::new(view, &request.keys(view)?)?;
    if let Some(windows) = &view.windows {
        let counted = (&serving.epochs, serving.metrics.as_ref());
        return windows::read(project, counted, (view, windows, generation), features, &asked, now).await;
    }
    let Asked { unique, slots } = asked;
    let table = values_table(&project.definitions.project, &view.name, generation);
    let rows = if unique.is_empty() { Vec::new() } else { project.online.get(&table, &unique).await? };

    let indices: Vec<usize> = features.iter().map(|selected| selected.feature).collect();
    let decoder = RowDecoder::new(view, &indices, generation == view.generation);
    let mut columns = decoder.columns(request.rows);
    let mut found = Vec::with_capacity(request.rows);
    let mut times = Vec::with_capacity(request.rows);
    let oldest = if view.ttl > 0 { now.saturating_sub(view.ttl) } else { Micros::MIN };
    for slot in slots {
        let row = slot.and_then(|slot| rows.get(slot)).and_then(Option::as_ref);
        let Some(row) = row.filter(|row| !RowDecoder::is_tombstone(&row.value)) else {
            columns.append_null();
            found.push(Found::No);
            times.push(0);
            continue;
        };
        let event_time = RowDecoder::event_time(&row.value)?;
        times.push(event_time);
        if event_time >= oldest {
            columns.append(&row.value)?;
            found.push(Found::Yes);
        } else {
            columns.append_null();
            found.push(Found::Expired);
        }
    }
    let times: Arc<[Micros]> = times.into();
    Ok(columns
        .finish()
        .into_iter()
        .zip(features)
        .map(|(values, selected)| {
            let status = |(row, found): (usize, &Found)| match found {
                Found::No => FeatureStatus::NotFound,
                Found::Expired => FeatureStatus::OutsideMaxAge,
                Found::Yes if values.is_null(row) => FeatureStatus::NullValue,
                Found::Yes => FeatureStatus::Present,
            };
            OnlineColumn {
                name: selected.name.clone(),
                statuses: found.iter().enumerate().map(status).collect(),
                values,
                event_timestamps: Arc::clone(&times),
            }
        })
        .collect())
}
