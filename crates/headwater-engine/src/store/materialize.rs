//! Materialisation: from batch sources to the online store.

use std::fmt;
use std::sync::Arc;

use headwater_core::online::OnlineRow;
use headwater_core::{Error, Micros, Result};
use serde::Serialize;

use super::batch::{BatchRows, Scanned};
use super::epochs;
use super::json::format_time;
use crate::ingest::Tuning;
use crate::project::Project;
use crate::rows::{RowEncoder, Serving, read_materialized, values_table, write_materialized};
use crate::view::View;

/// Rows of one put: large enough for a transaction to pay, small enough for memory.
const PUT_ROWS: usize = 16_384;

/// What a materialisation did to one view.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Materialized {
    /// The view.
    pub view: String,
    /// The first event time that was read, inclusive; `None` = from the beginning.
    pub start: Option<Micros>,
    /// The last event time that was read, inclusive; of windows exclusive: the log has the rest.
    pub end: Micros,
    /// Rows of the interval. Those of windows for training sets alone are not read.
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
pub struct Reporter(pub(super) Arc<dyn Fn(&MaterializeProgress) + Send + Sync>);

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

/// Writes the newest batch rows of an interval to the online store; of windowed views, builds an epoch.
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
    // What is refused for one view is refused before anything is written of another.
    let mut plans = Vec::with_capacity(views.len());
    for view in &views {
        plans.push(match view.windows {
            Some(_) => Some(epochs::plan(project, view, &interval).await?),
            None => None,
        });
    }
    let mut out = Vec::with_capacity(views.len());
    for (view, plan) in views.iter().zip(plans) {
        let done = match plan {
            Some(plan) => epochs::materialize(project, view, plan, report, &Tuning::default()).await?,
            None => materialize_view(project, view, &interval, report).await?,
        };
        record(project, view, &done).await?;
        out.push(done);
    }
    Ok(out)
}

/// Remembers durably what was done to a view.
async fn record(project: &Project, view: &View, done: &Materialized) -> Result<()> {
    let (online, name) = (project.online.as_ref(), &project.definitions.project);
    online.sync().await?;
    if done.note.is_none() {
        // What lies after now may still come: a later run begins there again.
        let end = done.end.min(project.clock.now());
        write_materialized(online, name, &view.name, &view.generation, end).await?;
    }
    // A view that no job feeds has caught up when its batch rows are there.
    if !project.fed_by_job(view) {
        Serving { view: view.name.clone(), generation: view.generation.clone(), applied: project.clock.now() }
            .write(online, name)
            .await?;
    }
    online.sync().await
}

/// Whether there is something to materialise: what is served, or where batch rows and log of windows meet, which training
/// sets go by too.
fn is_materialized(view: &View) -> bool {
    view.online || view.offline && view.windows.is_some()
}

fn choose(project: &Project, names: Option<&[String]>) -> Result<Vec<Arc<View>>> {
    let Some(names) = names else {
        let views = project.views.iter().filter(|view| is_materialized(view) && view.batch.is_some());
        return Ok(views.cloned().collect());
    };
    names
        .iter()
        .map(|name| {
            let view = project.view(name)?;
            if !is_materialized(view) {
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
    let mut batch = match BatchRows::open(project, view, start, Some(end)).await? {
        Ok(batch) => batch,
        Err(none) => {
            done.note = Some(none);
            return Ok(done);
        }
    };
    let encoder = RowEncoder::new(view)?;
    let table = values_table(&project.definitions.project, &view.name, &view.generation);
    let mut waiting: Vec<OnlineRow> = Vec::new();
    while let Some(scanned) = batch.next().await? {
        match scanned {
            Scanned::Rows(rows) => {
                waiting.extend(encoder.encode(&rows)?);
                if waiting.len() >= PUT_ROWS {
                    put(project, &table, std::mem::take(&mut waiting), &mut done).await?;
                }
            }
            Scanned::Fragment => {
                if let Some(Reporter(report)) = report {
                    report(&MaterializeProgress {
                        view: view.name.clone(),
                        done: batch.done,
                        total: batch.total(),
                        rows: batch.read,
                    });
                }
            }
        }
    }
    put(project, &table, waiting, &mut done).await?;
    (done.rows, done.skipped) = (batch.rows, batch.skipped);
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
