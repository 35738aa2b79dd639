//! Materialisation: from batch sources to the online store.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{Field as ArrowField, Schema, TimestampMicrosecondType};
use futures::TryStreamExt;
use headwater_core::batch::{Fragment, Positions, ScanBatch, ScanRequest, TimeRange};
use headwater_core::definitions::timestamp_type;
use headwater_core::online::OnlineRow;
use headwater_core::{Error, ErrorKind, Micros, Origin, Position, Result};
use serde::Serialize;

use super::json::format_time;
use crate::cast::{cast, cast_batch};
use crate::project::Project;
use crate::rows::{RowEncoder, Serving, read_materialized, values_table, write_materialized};
use crate::view::{BatchInput, View, ViewRows};

/// Rows of one put: large enough for a transaction to pay, small enough for memory.
const PUT_ROWS: usize = 16_384;

/// What a materialisation did to one view.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Materialized {
    /// The view.
    pub view: String,
    /// The first event time that was read, inclusive; `None` = from the beginning.
    pub start: Option<Micros>,
    /// The last event time that was read, inclusive.
    pub end: Micros,
    /// Rows of the interval.
    pub rows: u64,
    /// Newest rows of their entities that were written.
    pub written: u64,
    /// Newest rows of their entities that lost to a newer value in the store.
    pub stale: u64,
    /// Rows without a join key or event time, which belong to nobody.
    pub skipped: u64,
    /// Why nothing was read, where nothing was.
    pub note: Option<String>,
}

/// How far a materialisation has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaterializeProgress {
    /// The view.
    pub view: String,
    /// Pieces of its batch source that are done.
    pub done: usize,
    /// Pieces in all.
    pub total: usize,
    /// Rows read so far.
    pub rows: u64,
}

/// Is told how far a long piece of work has come.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(&MaterializeProgress) + Send + Sync>);

impl Reporter {
    /// Calls `report` with each step.
    pub fn new(report: impl Fn(&MaterializeProgress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}

/// Which rows are wanted.
pub(crate) enum Interval {
    /// Both ends inclusive.
    Between(Micros, Micros),
    /// From where the last materialisation ended.
    Until(Micros),
}

/// Writes the newest batch rows of an interval to the online store.
pub(crate) async fn materialize(
    project: &Project,
    interval: Interval,
    views: Option<&[String]>,
    report: Option<&Reporter>,
) -> Result<Vec<Materialized>> {
    if let Interval::Between(start, end) = interval
        && start > end
    {
        return Err(Error::invalid(format!(
            "the interval ends before it begins: `{}` to `{}`",
            format_time(start),
            format_time(end)
        )));
    }
    let views = choose(project, views)?;
    let mut out = Vec::with_capacity(views.len());
    for view in views {
        out.push(materialize_view(project, &view, &interval, report).await?);
    }
    project.online.sync().await?;
    for done in &out {
        // What lies after now may still come: a later run begins there again.
        let view = project.view(&done.view)?;
        let (online, name) = (project.online.as_ref(), &project.definitions.project);
        let end = done.end.min(project.clock.now());
        if done.note.is_none() {
            write_materialized(online, name, &view.name, &view.generation, end).await?;
        }
        // A view that no job feeds has caught up when its batch rows are there.
        if !project.fed_by_job(view) {
            Serving { view: view.name.clone(), generation: view.generation.clone(), applied: project.clock.now() }
                .write(online, name)
                .await?;
        }
    }
    project.online.sync().await?;
    Ok(out)
}

fn choose(project: &Project, names: Option<&[String]>) -> Result<Vec<Arc<View>>> {
    let Some(names) = names else {
        return Ok(project.views.iter().filter(|view| view.online && view.batch.is_some()).cloned().collect());
    };
    names
        .iter()
        .map(|name| {
            let view = project.view(name)?;
            if !view.online {
                return Err(Error::invalid(format!("view `{name}` is not served online: it says `online: false`")));
            }
            if view.batch.is_none() {
                return Err(Error::invalid(format!("view `{name}` has no batch source to materialise from")));
            }
            Ok(Arc::clone(view))
        })
        .collect()
}

async fn materialize_view(
    project: &Project,
    view: &Arc<View>,
    interval: &Interval,
    report: Option<&Reporter>,
) -> Result<Materialized> {
    let (start, end) = match *interval {
        Interval::Between(start, end) => (Some(start), end),
        Interval::Until(end) => {
            let (online, name) = (project.online.as_ref(), &project.definitions.project);
            let last = read_materialized(online, name, &view.name, &view.generation).await?;
            (last.or_else(|| (view.ttl > 0).then(|| end.saturating_sub(view.ttl))), end)
        }
    };
    let mut done = Materialized { view: view.name.clone(), start, end, ..Materialized::default() };
    if let Some(start) = start.filter(|start| *start > end) {
        done.note = Some(format!("already materialised up to {}", format_time(start)));
        return Ok(done);
    }
    let Some(input) = &view.batch else { return Ok(done) };
    let source = project.batch_source(&input.source)?;
    match source.schema().await {
        Ok(schema) => {
            let missing: Vec<String> = view
                .schema()
                .fields()
                .iter()
                .map(|field| input.column(field.name()))
                .filter(|column| schema.field_with_name(column).is_err())
                .map(|column| format!("`{column}`"))
                .collect();
            if !missing.is_empty() {
                return Err(Error::invalid(format!(
                    "source `{}` of view `{}` has no column {}",
                    input.source,
                    view.name,
                    missing.join(", ")
                )));
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            done.note =
                Some(format!("source `{}` has no rows yet: {} does not exist", input.source, source.identity()));
            return Ok(done);
        }
        Err(error) => return Err(error),
    }

    let request = ScanRequest {
        columns: Some(view.schema().fields().iter().map(|f| input.column(f.name()).to_owned()).collect()),
        time: Some(TimeRange { column: input.column(&view.event_time).to_owned(), from: start, to: Some(end) }),
        keys: None,
    };
    let encoder = RowEncoder::new(view)?;
    let table = values_table(&project.definitions.project, &view.name, &view.generation);
    let fragments = source.fragments(&request).await?;
    let mut waiting: Vec<OnlineRow> = Vec::new();
    let mut read = 0;
    for (index, fragment) in fragments.iter().enumerate() {
        let mut batches = source.read(fragment, &request).await?;
        while let Some(batch) = batches.try_next().await? {
            read += batch.rows.num_rows() as u64;
            let rows = rows_between(view, input, fragment, batch, start, end, &mut done)?;
            waiting.extend(encoder.encode(&rows)?);
            if waiting.len() >= PUT_ROWS {
                put(project, &table, std::mem::take(&mut waiting), &mut done).await?;
            }
        }
        if let Some(Reporter(report)) = report {
            report(&MaterializeProgress {
                view: view.name.clone(),
                done: index + 1,
                total: fragments.len(),
                rows: read,
            });
        }
    }
    put(project, &table, waiting, &mut done).await?;
    Ok(done)
}

async fn put(project: &Project, table: &str, rows: Vec<OnlineRow>, done: &mut Materialized) -> Result<()> {
    if !rows.is_empty() {
        let put = project.online.put(table, rows).await?;
        done.written += put.written;
        done.stale += put.stale;
    }
    Ok(())
}

/// The rows of a batch that lie in the interval and belong to somebody, in the view's columns.
fn rows_between(
    view: &View,
    input: &BatchInput,
    fragment: &Fragment,
    batch: ScanBatch,
    start: Option<Micros>,
    end: Micros,
    done: &mut Materialized,
) -> Result<ViewRows> {
    let schema = view.schema();
    let positions = match batch.positions {
        Positions::Each(positions) => positions,
        Positions::Consecutive(first) => {
            (first..).take(batch.rows.num_rows()).map(|position| Some(position.to_be_bytes())).collect::<BinaryArray>()
        }
    };
    let mut fields = Vec::with_capacity(schema.fields().len());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let name = input.column(field.name());
        let column = batch.rows.column_by_name(name).ok_or_else(|| {
            Error::unexpected(format!("source `{}` left out the column `{name}` that was asked for", input.source))
        })?;
        fields.push(ArrowField::new(field.name(), column.data_type().clone(), true));
        columns.push(Arc::clone(column));
    }
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let fault = |positions: &BinaryArray, row: usize, reason: &str| {
        let position = Position::new(positions.value(row).to_vec());
        let position = position.to_u64().map_or_else(|| position.to_string(), |number| number.to_string());
        Error::data(format!(
            "source `{}`, `{}`, row {position}: {reason}",
            input.source,
            String::from_utf8_lossy(fragment.split.as_bytes())
        ))
    };

    let time = rows.column_by_name(&view.event_time).map_or_else(
        || Err(Error::unexpected("a view's rows have its event time")),
        |column| cast(column, &timestamp_type(), None),
    )?;
    if let Some(failure) = time.failures.first() {
        return Err(fault(&positions, failure.row, &format!("column `{}`: {}", view.event_time, failure.reason)));
    }
    let times = time.array.as_primitive::<TimestampMicrosecondType>();
    let keys: Vec<&ArrayRef> = view.keys.iter().filter_map(|key| rows.column_by_name(&key.name)).collect();
    let wanted: BooleanArray = (0..rows.num_rows())
        .map(|row| {
            if times.is_null(row) || keys.iter().any(|key| key.is_null(row)) {
                done.skipped += 1;
                return Some(false);
            }
            let time = times.value(row);
            Some(start.is_none_or(|start| time >= start) && time <= end)
        })
        .collect();
    let rows = filter_record_batch(&rows, &wanted)?;
    let positions = filter(&positions, &wanted)?.as_binary::<i32>().clone();
    done.rows += rows.num_rows() as u64;
    let (columns, failures) = cast_batch(&rows, &schema, None)?;
    if let Some(failure) = failures.first() {
        return Err(fault(&positions, failure.row, &failure.reason));
    }
    Ok(ViewRows {
        rows: RecordBatch::try_new(schema, columns)?,
        origin: Origin::Batch,
        split: fragment.split.clone(),
        positions,
        ordinals: None,
    })
}
