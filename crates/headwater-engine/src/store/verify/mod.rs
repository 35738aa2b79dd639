//! Whether what is served online is what history says.
//!
//! Entities are drawn from the view's history, read online, and computed again by the point-in-time join at the very time
//! that the online answer is of. The two see the same events only where history has them all and nothing comes between
//! the two reads, and that is checked, not hoped for:
//!
//! - A job publishes its log a while after it writes online. An entity is compared when the log has got as far as each of
//!   its online rows says it is; it is waited for, with a bound, as long as a job runs that will publish.
//! - It may publish events first and write them online a while after. After the join, checkpoints are waited for that say
//!   of everything in the log that it is online. Without them an entity that differs is left out.
//! - An entity whose online rows have changed by then had events meanwhile, and is left out.
//!
//! Entities left out for one of these reasons are counted.

mod compare;
mod sample;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field as ArrowField, Schema};
use bytes::Bytes;
use headwater_core::definitions::timestamp_type;
use headwater_core::offline::LogEnd;
use headwater_core::online::OnlineRow;
use headwater_core::{Error, ErrorKind, Micros, Origin, Position, Result, RowVersion, SplitId};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::features::Features;
use super::history::get_historical_features;
use super::json::{Cell, format_time};
use super::online::Asked;
use super::windows::{self, EpochCache};
use crate::history::{EntityRows, HistoryOptions, JoinView};
use crate::ingest::{self, JobState};
use crate::project::Project;
use crate::rows::{RowDecoder, Serving, read_materialized, values_table};
use crate::view::View;

/// Differences that are listed.
const LISTED: usize = 10;
/// How often the log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What to verify, and how patiently.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// How many entities are compared at most. Memory grows with it.
    pub sample: usize,
    /// What draws them: the same seed draws the same entities of the same history. `None` = another one each time.
    pub seed: Option<u64>,
    /// How long to wait for a running job to publish the log, and to write online what the log has.
    pub wait: Duration,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { sample: 1000, seed: None, wait: Duration::from_secs(90) }
    }
}

/// What a verification found. An entity is counted once: as matching, mismatching, missing or not compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verified {
    /// The view.
    pub view: String,
    /// What drew the entities.
    pub seed: u64,
    /// How many were drawn.
    pub sampled: u64,
    /// All features are equal; floats up to 1e-9 of their size.
    pub matches: u64,
    /// Some feature differs.
    pub mismatches: u64,
    /// History has values, and the online store knows nothing of the entity.
    pub missing: u64,
    /// Not compared: the log lacks events that the online store has.
    pub unpublished: u64,
    /// Not compared, as it differs: the log may have events that the online store lacks.
    pub unwritten: u64,
    /// Not compared: events came in while it was looked at.
    pub changed: u64,
    /// The largest difference of two numbers that were compared, in relation to the larger one.
    pub largest_difference: f64,
    /// The first differences, at most ten.
    pub differences: Vec<Difference>,
}

impl Verified {
    /// Whether nothing differs and nothing is missing.
    pub fn is_consistent(&self) -> bool {
        self.mismatches == 0 && self.missing == 0
    }
}

/// A feature of an entity that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The join keys.
    pub entity: serde_json::Map<String, Value>,
    /// The time that both values are of.
    pub time: String,
    /// The feature.
    pub feature: String,
    /// What is served.
    pub online: Value,
    /// What history says.
    pub offline: Value,
}

/// Entities as the online store has them at one moment.
struct Snapshot {
    /// A column for each feature of the view, a row for each entity.
    columns: Vec<ArrayRef>,
    /// The time that each row is of.
    times: Vec<Micros>,
    /// The rows behind each entity: keys and versions.
    rows: Vec<Vec<(Bytes, Bytes)>>,
    /// How far the log has to be for each entity.
    needs: Vec<Vec<(SplitId, Position)>>,
    /// The epoch of windows.
    epoch: Option<Bytes>,
}

/// Compares entities of a view.
pub(crate) async fn verify(
    project: &Project,
    epochs: &EpochCache,
    view: &str,
    options: &VerifyOptions,
) -> Result<Verified> {
    let view = project.view(view)?;
    let bound = comparable(project, view).await?;
    let seed = options.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0 >> 11);
    let inputs = JoinView::open(project, view).await?.inputs;
    let keys = sample::sample(view, &inputs, options.sample, seed).await?;
    let mut found = Verified {
        view: view.name.clone(),
        seed,
        sampled: keys.num_rows() as u64,
        matches: 0,
        mismatches: 0,
        missing: 0,
        unpublished: 0,
        unwritten: 0,
        changed: 0,
        largest_difference: 0.0,
        differences: Vec::new(),
    };
    if keys.num_rows() == 0 {
        return Ok(found);
    }
    let entities = Asked::new(view, &keys)?.unique;
    let before = Snapshot::take(project, epochs, view, &entities, bound).await?;
    let published = wait(project, view, &before.needs, options.wait).await?;
    let offline = offline(project, view, &keys, &before.times).await?;
    let written = wait_for_online(project, view, options.wait).await?;
    let after = Snapshot::take(project, epochs, view, &entities, bound).await?;
    if before.epoch != after.epoch {
        let message = format!("the windows of view `{}` were replaced while they were verified", view.name);
        return Err(Error::new(ErrorKind::Conflict, message).temporary());
    }

    for row in 0..keys.num_rows() {
        if !published.get(row).copied().unwrap_or(false) {
            found.unpublished += 1;
            continue;
        }
        if before.rows.get(row) != after.rows.get(row) {
            found.changed += 1;
            continue;
        }
        let mut differs = false;
        let look = |(online, offline): (&ArrayRef, &ArrayRef)| compare::compare(online, offline, row);
        if !written && !before.columns.iter().zip(&offline).map(look).all(|compared| compared.equal) {
            found.unwritten += 1;
            continue;
        }
        for ((field, online), offline) in view.features.iter().zip(&before.columns).zip(&offline) {
            let compared = look((online, offline));
            found.largest_difference = found.largest_difference.max(compared.difference);
            if !compared.equal {
                differs = true;
                if found.differences.len() < LISTED {
                    found.differences.push(Difference {
                        entity: entity(&keys, row)?,
                        time: format_time(before.times.get(row).copied().unwrap_or_default()),
                        feature: field.name.clone(),
                        online: value(online, row)?,
                        offline: value(offline, row)?,
                    });
                }
            }
        }
        if !differs {
            found.matches += 1;
        } else if before.rows.get(row).is_some_and(Vec::is_empty) {
            found.missing += 1;
        } else {
            found.mismatches += 1;
        }
    }
    Ok(found)
}

/// Checks that online store and history speak of the same rows. The time up to which they should agree: `None` = now.
async fn comparable(project: &Project, view: &View) -> Result<Option<Micros>> {
    let refuse = |why: String| Err(Error::invalid(format!("view `{}` cannot be verified: {why}", view.name)));
    if !view.online {
        return refuse("it is not served online, it says `online: false`".into());
    }
    if view.stream.is_some() && !view.offline {
        return refuse("without `offline: true` there is no history of what came by its stream".into());
    }
    let (online, name) = (project.online.as_ref(), &project.definitions.project);
    let serving = Serving::read(online, name).await?;
    if let Some(serving) = serving.get(&view.name).filter(|serving| serving.generation != view.generation) {
        return refuse(format!(
            "generation {} serves, and history is of generation {}, which has not caught up yet",
            serving.generation, view.generation
        ));
    }
    if view.stream.is_some() {
        return Ok(None);
    }
    match read_materialized(online, name, &view.name, &view.generation).await? {
        Some(end) => Ok(Some(end)),
        None => refuse("it was never materialised".into()),
    }
}

impl Snapshot {
    async fn take(
        project: &Project,
        epochs: &EpochCache,
        view: &View,
        entities: &[Bytes],
        bound: Option<Micros>,
    ) -> Result<Self> {
        let now = bound.unwrap_or_else(|| project.clock.now());
        if view.windows.is_some() {
            Self::of_windows(project, epochs, view, entities, now).await
        } else {
            Self::of_values(project, view, entities, now).await
        }
    }

    async fn of_windows(
        project: &Project,
        epochs: &EpochCache,
        view: &View,
        entities: &[Bytes],
        now: Micros,
    ) -> Result<Self> {
        let Some(windows) = &view.windows else { return Err(Error::unexpected("a view without windows")) };
        let fetched = windows::fetch(project, epochs, view, windows, &view.generation, entities).await?;
        if !fetched.is_current() {
            return Err(Error::invalid(format!(
                "view `{}` cannot be verified: its windows have not been built yet as they are defined now; \
                 `headwater status` says how far they are",
                view.name
            )));
        }
        let finished = fetched.finish(view, now)?;
        let count = entities.len();
        let mut needs = Vec::with_capacity(count);
        for (entity, rows) in entities.iter().zip(&fetched.rows) {
            let split = |row: &OnlineRow| match row.key.get(entity.len()..)?.split_first()? {
                (1, split) => Some((SplitId::new(split.to_vec()), Position::new(row.version.clone()))),
                _ => None,
            };
            needs.push(rows.iter().filter_map(split).collect());
        }
        Ok(Self {
            columns: finished.columns.iter().map(|column| column.slice(0, count)).collect(),
            times: finished.times.get(..count).unwrap_or_default().to_vec(),
            rows: fetched.rows.iter().map(|rows| rows.iter().map(stamp).collect()).collect(),
            needs,
            epoch: fetched.epoch().cloned(),
        })
    }

    async fn of_values(project: &Project, view: &View, entities: &[Bytes], now: Micros) -> Result<Self> {
        let table = values_table(&project.definitions.project, &view.name, &view.generation);
        let rows = project.online.get(&table, entities).await?;
        let features: Vec<usize> = (0..view.features.len()).collect();
        let decoder = RowDecoder::new(view, &features, true);
        let mut columns = decoder.columns(entities.len());
        let oldest = if view.ttl > 0 { now.saturating_sub(view.ttl) } else { Micros::MIN };
        let (mut times, mut needs) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for row in &rows {
            let (mut time, mut need) = (now, Vec::new());
            match row {
                Some(row) => {
                    let event_time = RowDecoder::event_time(&row.value)?;
                    if event_time >= oldest {
                        columns.append(&row.value)?;
                    } else {
                        columns.append_null();
                    }
                    // A clock behind the newest event is behind the answer too.
                    time = now.max(event_time);
                    let version = RowVersion::decode(&row.version)?;
                    if version.origin != Origin::Batch {
                        need.push((version.split, version.position));
                    }
                }
                None => columns.append_null(),
            }
            times.push(time);
            needs.push(need);
        }
        Ok(Self {
            columns: columns.finish(),
            times,
            rows: rows.iter().map(|row| row.iter().map(stamp).collect()).collect(),
            needs,
            epoch: None,
        })
    }
}

/// What tells a row from what it is after another write.
fn stamp(row: &OnlineRow) -> (Bytes, Bytes) {
    (row.key.clone(), row.version.clone())
}

/// Waits until the log has got as far as each entity needs, as long as a job runs that will publish. Says of each entity
/// whether it has.
async fn wait(
    project: &Project,
    view: &View,
    needs: &[Vec<(SplitId, Position)>],
    patience: Duration,
) -> Result<Vec<bool>> {
    if !view.offline {
        return Ok(vec![true; needs.len()]);
    }
    let begun = Instant::now();
    loop {
        let ends = project.offline.ends(&view.log()).await?;
        let reached =
            |(split, position): &(SplitId, Position)| ends.get(split).is_some_and(|end| end.through >= *position);
        let published: Vec<bool> = needs.iter().map(|needs| needs.iter().all(reached)).collect();
        if published.iter().all(|published| *published) || begun.elapsed() >= patience || !is_fed(project, view).await?
        {
            return Ok(published);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until the online store has all that the log has by now, as long as a job runs that will write it. Says whether
/// it has.
async fn wait_for_online(project: &Project, view: &View, patience: Duration) -> Result<bool> {
    if !view.offline {
        return Ok(true);
    }
    let ends = project.offline.ends(&view.log()).await?;
    let (online, name) = (project.online.as_ref(), &project.definitions.project);
    let begun = Instant::now();
    loop {
        let checkpoints = ingest::load_checkpoints(online, name, view).await?;
        // What was pushed has no checkpoint, and is written at once.
        let has = |(split, end): (&SplitId, &LogEnd)| {
            checkpoints.get(split).is_none_or(|checkpoint| checkpoint.through >= end.through)
        };
        let written = ends.iter().all(has);
        if written || begun.elapsed() >= patience || !is_fed(project, view).await? {
            return Ok(written);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether a job runs that feeds the view.
async fn is_fed(project: &Project, view: &View) -> Result<bool> {
    let Some(stream) = &view.stream else { return Ok(false) };
    let jobs = ingest::jobs(project).await?;
    Ok(jobs.iter().any(|job| job.source == stream.source && job.state == JobState::Running))
}

/// The features of these entities, each at its time, from history.
async fn offline(project: &Project, view: &View, keys: &RecordBatch, times: &[Micros]) -> Result<Vec<ArrayRef>> {
    // No join key is called so: columns of that kind are Headwater's own.
    const TIME: &str = "__time";
    let mut fields: Vec<ArrowField> = keys.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(ArrowField::new(TIME, timestamp_type(), false));
    let mut columns = keys.columns().to_vec();
    columns.push(Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC")));
    let schema = Arc::new(Schema::new(fields));
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    let entities = EntityRows::with_event_time(schema, vec![rows], TIME)?;
    let features = Features::names([view.name.as_str()]);
    let set = get_historical_features(project, entities, &features, true, HistoryOptions::default()).await?;
    let schema = set.schema();
    let rows = concat_batches(&schema, &set.collect().await?)?;
    view.features
        .iter()
        .map(|field| {
            let column = rows.column_by_name(&format!("{}__{}", view.name, field.name));
            column.cloned().ok_or_else(|| Error::unexpected(format!("the join left out feature `{}`", field.name)))
        })
        .collect()
}

fn entity(keys: &RecordBatch, row: usize) -> Result<serde_json::Map<String, Value>> {
    let schema = keys.schema();
    schema
        .fields()
        .iter()
        .zip(keys.columns())
        .map(|(field, column)| Ok((field.name().clone(), value(column, row)?)))
        .collect()
}

fn value(column: &ArrayRef, row: usize) -> Result<Value> {
    serde_json::to_value(Cell { array: column.as_ref(), row })
        .map_err(|error| Error::unexpected("a value cannot be shown").with_source(error))
}

/// Rows of join keys alone; their number where there is no key.
fn key_rows(view: &View, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let fields: Vec<ArrowField> =
        view.keys.iter().map(|key| ArrowField::new(&key.name, key.value_type.to_arrow(), true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}
