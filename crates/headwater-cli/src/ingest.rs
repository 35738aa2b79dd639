//! Jobs: running them, looking at them, and what they could not use.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::api::{
    Counts, Error, FeatureStore, IngestOptions, JobHandle, JobState, JobStatus, Result, SplitStatus, WindowStatus,
    format_time,
};
use crate::args::{DeadLetters, Format, IngestArgs, ResetArgs};
use crate::output::{known, print, table};
use crate::progress::Progress;

pub(crate) async fn ingest(format: Format, store: &FeatureStore, args: &IngestArgs) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let sources = if args.sources.is_empty() { store.stream_sources().await? } else { args.sources.clone() };
    if sources.is_empty() {
        return Err(Error::invalid("there is nothing to ingest: no stream source feeds a feature view"));
    }
    let mut jobs = Vec::with_capacity(sources.len());
    for source in &sources {
        let options = IngestOptions { until_caught_up: args.until_caught_up, ..IngestOptions::default() };
        jobs.push(store.ingest(source, options).await?);
    }

    let (stop, stopped) = watch::channel(false);
    let mut running: FuturesUnordered<_> = jobs.into_iter().map(|job| follow(job, stopped.clone())).collect();
    let mut done = Vec::with_capacity(sources.len());
    let mut failure = None;
    loop {
        tokio::select! {
            job = running.next() => match job {
                None => break,
                Some((status, outcome)) => {
                    done.push(status);
                    if let Err(error) = outcome {
                        // One job that cannot go on ends the command; the others leave in good order.
                        failure.get_or_insert(error);
                        stop.send_replace(true);
                    }
                }
            },
            _ = terminate.recv() => { stop.send_replace(true); }
            _ = interrupt.recv() => { stop.send_replace(true); }
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    done.sort_by(|a, b| a.source.cmp(&b.source));
    let text = jobs_table(&done)?;
    print(format, &done, || text)
}

fn no_signals(error: std::io::Error) -> Error {
    Error::unexpected("signals cannot be received").with_source(error)
}

/// Waits for a job to finish, or stops it when told to.
async fn follow(mut job: JobHandle, mut stop: watch::Receiver<bool>) -> (JobStatus, Result<()>) {
    let progress = Progress::new(None);
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let outcome = loop {
        tokio::select! {
            outcome = job.wait() => break outcome,
            _ = stop.wait_for(|stop| *stop) => break job.stop().await,
            _ = tick.tick() => progress.tell(summary(&job.status())),
        }
    };
    (job.status(), outcome)
}

fn summary(status: &JobStatus) -> String {
    let counts = total(&status.splits);
    let mut text = format!("{}: {} rows", status.source, counts.rows);
    if counts.dead_lettered > 0 {
        text.push_str(&format!(", {} dead letters", counts.dead_lettered));
    }
    if let Some(error) = &status.retrying {
        text.push_str(&format!(", trying again: {error}"));
    }
    text
}

fn total(splits: &[SplitStatus]) -> Counts {
    splits.iter().fold(Counts::default(), |mut sum, split| {
        sum.rows += split.counts.rows;
        sum.late += split.counts.late;
        sum.stale += split.counts.stale;
        sum.dead_lettered += split.counts.dead_lettered;
        sum.tombstones += split.counts.tombstones;
        sum.retries += split.counts.retries;
        sum
    })
}

fn jobs_table(jobs: &[JobStatus]) -> Result<String> {
    let rows: Vec<_> = jobs
        .iter()
        .map(|job| {
            let counts = total(&job.splits);
            let state = match job.state {
                JobState::Running => "running",
                JobState::Stopped => "stopped",
                JobState::Failed => "failed",
                JobState::Lost => "lost",
            };
            [
                job.source.clone(),
                state.to_owned(),
                counts.rows.to_string(),
                counts.late.to_string(),
                counts.stale.to_string(),
                counts.dead_lettered.to_string(),
                job.retries.to_string(),
                job.reason.clone().or_else(|| job.retrying.clone()).unwrap_or_default(),
            ]
        })
        .collect();
    table(["source", "job", "rows", "late", "stale", "dead letters", "retries", "why"], &rows, "no job has run yet")
}

pub(crate) async fn status(format: Format, store: &FeatureStore) -> Result<()> {
    let status = store.status().await?;
    let views: Vec<_> = status
        .views
        .iter()
        .map(|view| {
            let splits = status.jobs.iter().flat_map(|job| &job.splits);
            let splits = splits.filter(|split| split.view == view.view && split.generation == view.generation);
            let older = splits.map(|split| split.counts.before_log_from).sum();
            [
                view.view.clone(),
                view.generation.clone(),
                if view.serving.as_ref() == Some(&view.generation) {
                    "yes".into()
                } else {
                    known(view.serving.as_ref())
                },
                view.source.clone(),
                known(view.materialized_to.map(format_time)),
                view.windows.as_ref().map_or_else(|| "-".into(), |state| windows(state, older)),
                view.notes.join("; "),
            ]
        })
        .collect();
    let seconds = |micros: i64| format!("{} s", micros / 1_000_000);
    let splits: Vec<_> = status
        .jobs
        .iter()
        .flat_map(|job| &job.splits)
        .map(|split| {
            let lag = split.lag.as_ref();
            let lag = lag.and_then(|lag| {
                let records = lag.records.map(|records| format!("{records} records"));
                let bytes = lag.bytes.map(|bytes| format!("{bytes} bytes"));
                let time = lag.time_us.map(|time| format!("{} ms", time / 1000));
                records.or(bytes).or(time)
            });
            [
                split.view.clone(),
                split.split.clone(),
                known(split.offset.map(|offset| offset.to_string()).or_else(|| Some(split.position.clone()))),
                known(lag),
                known(split.watermark.map(format_time)),
                known(split.freshness.map(seconds)),
                known(split.age.map(seconds)),
                split.counts.rows.to_string(),
                split.counts.late.to_string(),
                split.counts.stale.to_string(),
                split.counts.dead_lettered.to_string(),
            ]
        })
        .collect();
    let text = [
        format!("project {}", status.project),
        table(
            ["view", "generation", "serving", "source", "materialised to", "windows", "notes"],
            &views,
            "there are no views",
        )?,
        jobs_table(&status.jobs)?,
        table(
            [
                "view",
                "split",
                "position",
                "lag",
                "watermark",
                "freshness",
                "age",
                "rows",
                "late",
                "stale",
                "dead letters",
            ],
            &splits,
            "no split has been read yet",
        )?,
    ]
    .join("\n");
    print(format, &status, || text)
}

/// The state of a view's windows, in words. `older` = events before `log_from`.
fn windows(windows: &WindowStatus, older: u64) -> String {
    let from = |log_from: Option<_>| log_from.map_or_else(|| "the beginning".to_owned(), format_time);
    let mut parts = match &windows.epoch {
        None => vec!["no epoch yet".to_owned()],
        Some(epoch) => {
            let older = if windows.current { "" } else { " of older aggregations" };
            vec![format!("epoch {epoch}{older}, log from {}", from(windows.log_from))]
        }
    };
    if older > 0 {
        parts.push(format!("older events, which change no window: {older}"));
    }
    if let Some(next) = &windows.next {
        let how_far = if next.built {
            format!("{} of {} splits have caught up", next.splits_caught_up, next.splits)
        } else {
            format!("{} of {} pieces built, {} rows", next.done, next.total, next.rows)
        };
        parts.push(format!("next {}, log from {}: {how_far}", next.epoch, from(next.log_from)));
    }
    parts.join("; ")
}

pub(crate) async fn reset(format: Format, store: &FeatureStore, args: &ResetArgs) -> Result<()> {
    let done = store.reset(&args.source, args.to).await?;
    let rows: Vec<_> = done
        .views
        .iter()
        .map(|view| [view.view.clone(), view.generation.clone(), view.what.to_string(), view.splits.to_string()])
        .collect();
    let text = table(["view", "generation", "reset", "splits"], &rows, "no view was reset")?;
    print(format, &done, || text)
}

pub(crate) async fn dead_letters(format: Format, store: &FeatureStore, command: &DeadLetters) -> Result<()> {
    match command {
        DeadLetters::List => {
            let letters = store.dead_letters().await?;
            let rows: Vec<_> = letters
                .iter()
                .map(|listed| {
                    let letter = &listed.letter;
                    [
                        letter.view.clone(),
                        letter.split.to_string(),
                        known(
                            letter
                                .position
                                .to_u64()
                                .map(|n| n.to_string())
                                .or_else(|| Some(letter.position.to_string())),
                        ),
                        if listed.resolved { "yes" } else { "no" }.to_owned(),
                        letter.reason.clone(),
                        letter.record(),
                    ]
                })
                .collect();
            let value: Vec<_> = letters
                .iter()
                .map(|listed| {
                    let letter = &listed.letter;
                    json!({
                        "source": letter.source,
                        "view": letter.view,
                        "generation": letter.generation,
                        "split": letter.split.to_string(),
                        "position": letter.position.to_string(),
                        "offset": letter.position.to_u64(),
                        "reason": letter.reason,
                        "time": format_time(letter.time),
                        "record": letter.record(),
                        "resolved": listed.resolved,
                    })
                })
                .collect();
            let text = table(
                ["view", "split", "position", "resolved", "reason", "record"],
                &rows,
                "there are no dead letters",
            )?;
            print(format, &value, || text)
        }
        DeadLetters::Replay => {
            let done = store.replay_dead_letters(None).await?;
            print(format, &done, || {
                format!(
                    "{} records brought in, {} failed again, {} were read since by their view, or will be by its next `ingest`",
                    done.brought_in, done.failed, done.skipped
                )
            })
        }
    }
}
