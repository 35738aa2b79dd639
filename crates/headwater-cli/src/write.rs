//! Writing features: materialisation and pushes.

use std::sync::Arc;

use crate::api::{FeatureStore, MaterializeProgress, Materialized, Reporter, Result};
use crate::args::{Format, MaterializeArgs, MaterializeIncrementalArgs, PushArgs};
use crate::files::read;
use crate::output::{print, table};
use crate::progress::Progress;

pub(crate) async fn materialize(format: Format, store: &FeatureStore, args: &MaterializeArgs) -> Result<()> {
    let report = reporter();
    report_on(format, &store.materialize(args.start, args.end, views(&args.views), Some(&report)).await?)
}

pub(crate) async fn materialize_incremental(
    format: Format,
    store: &FeatureStore,
    args: &MaterializeIncrementalArgs,
) -> Result<()> {
    let report = reporter();
    report_on(format, &store.materialize_incremental(args.end, views(&args.views), Some(&report)).await?)
}

fn views(names: &[String]) -> Option<&[String]> {
    (!names.is_empty()).then_some(names)
}

fn reporter() -> Reporter {
    let progress = Arc::new(Progress::new(Some(0)));
    Reporter::new(move |at: &MaterializeProgress| {
        progress.step(at.done as u64, at.total as u64, format!("{}: {} rows read", at.view, at.rows));
    })
}

fn report_on(format: Format, done: &[Materialized]) -> Result<()> {
    let rows: Vec<_> = done
        .iter()
        .map(|view| {
            let note = match (&view.note, view.skipped) {
                (Some(note), _) => note.clone(),
                (None, 0) => String::new(),
                (None, skipped) => format!("{skipped} rows without key or time left out"),
            };
            [view.view.clone(), view.rows.to_string(), view.written.to_string(), view.stale.to_string(), note]
        })
        .collect();
    let text =
        table(["view", "rows read", "written", "older than stored", "note"], &rows, "no view has a batch source")?;
    print(format, done, || text)
}

pub(crate) async fn push(format: Format, store: &FeatureStore, args: &PushArgs) -> Result<()> {
    let (_, rows) = read(store, &args.file).await?;
    let pushed = store.push(&args.source, &rows, args.to).await?;
    let cells: Vec<_> = pushed
        .iter()
        .map(|view| {
            [
                view.view.clone(),
                view.rows.to_string(),
                view.written.to_string(),
                view.stale.to_string(),
                view.logged.to_string(),
            ]
        })
        .collect();
    let text = table(["view", "rows", "written online", "older than stored", "logged"], &cells, "no view was written")?;
    print(format, &pushed, || text)
}
