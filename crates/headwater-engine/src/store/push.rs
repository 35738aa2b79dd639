//! Rows that callers give: pushes and direct writes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field as ArrowField, Schema};
use headwater_core::definitions::{Definitions, Source, SourceKind};
use headwater_core::offline::{Append, LogRange};
use headwater_core::{Error, Origin, Position, Result, SplitId};
use serde::{Deserialize, Serialize};
use uuid::Builder;

use crate::cast::{Failure, cast_batch};
use crate::project::{Project, suggest};
use crate::rows::{RowEncoder, log_rows, values_table};
use crate::view::{StreamInput, View, ViewRows};

/// How many faulty rows an error names.
const NAMED_FAULTS: usize = 5;

/// Where pushed rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushTarget {
    /// To the online store.
    #[default]
    Online,
    /// To the logs of views with `offline: true`.
    Offline,
    /// To both.
    OnlineAndOffline,
}

impl PushTarget {
    fn online(self) -> bool {
        self != Self::Offline
    }

    fn offline(self) -> bool {
        self != Self::Online
    }
}

impl FromStr for PushTarget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "online" => Ok(Self::Online),
            "offline" => Ok(Self::Offline),
            "online_and_offline" => Ok(Self::OnlineAndOffline),
            _ => Err(Error::invalid(format!(
                "`{text}` is nowhere to push to; there are `online`, `offline` and `online_and_offline`"
            ))),
        }
    }
}

impl fmt::Display for PushTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::OnlineAndOffline => "online_and_offline",
        })
    }
}

/// What a push or a direct write did to one view.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Pushed {
    /// The view.
    pub view: String,
    /// Rows that the view's transform made of what was given.
    pub rows: u64,
    /// Newest rows of their entities that were written online.
    pub written: u64,
    /// Newest rows of their entities that lost to a newer value online.
    pub stale: u64,
    /// Rows that were logged.
    pub logged: u64,
}

/// Transforms rows of a source and writes them to the views that it feeds.
pub(crate) async fn push(
    project: &Project,
    source: &str,
    rows: &[RecordBatch],
    target: PushTarget,
) -> Result<Vec<Pushed>> {
    let source = project.source(source)?;
    if source.kind == SourceKind::Batch {
        return Err(Error::invalid(format!(
            "source `{}` is a batch source; rows are pushed to push and stream sources",
            source.name
        )));
    }
    let fed: Vec<(&Arc<View>, &StreamInput)> = project
        .views
        .iter()
        .filter_map(|view| Some((view, view.stream.as_ref().filter(|stream| stream.source == source.name)?)))
        .collect();
    if fed.is_empty() {
        return Err(Error::invalid(format!("source `{}` feeds no feature view", source.name)));
    }
    for (wanted, has, what) in [
        (target.online(), fed.iter().any(|(view, _)| view.online), "online: true"),
        (target.offline(), fed.iter().any(|(view, _)| view.offline), "offline: true"),
    ] {
        if wanted && !has {
            let names = fed.iter().map(|(view, _)| format!("`{}`", view.name)).collect::<Vec<_>>().join(", ");
            return Err(Error::invalid(format!(
                "source `{}` is pushed to `{target}`, but no view of it says `{what}`: {names}",
                source.name
            )));
        }
    }
    // All or nothing: a push that left out some of the views would part their histories.
    fed.iter().try_for_each(|(view, _)| refuse_windows(view))?;
    let split = push_split(project);
    let rows = one_batch(rows)?;
    let input = renamed(&rows, field_mapping(&project.definitions, source))?;
    let mut writes = Vec::new();
    for (view, stream) in fed {
        let (online, offline) = (target.online() && view.online, target.offline() && view.offline);
        if online || offline {
            writes.push((Arc::clone(view), transformed(view, stream, &input, &split)?, online, offline));
        }
    }
    write(project, writes).await
}

/// Writes transformed rows of one view.
pub(crate) async fn write_to_store(
    project: &Project,
    view: &str,
    rows: &[RecordBatch],
    target: PushTarget,
) -> Result<Pushed> {
    let view = project.view(view)?;
    refuse_windows(view)?;
    if target.online() && !view.online {
        return Err(Error::invalid(format!("view `{}` is not served online: it says `online: false`", view.name)));
    }
    if target.offline() && !view.offline {
        return Err(Error::invalid(format!("view `{}` is not logged: it does not say `offline: true`", view.name)));
    }
    let rows = one_batch(rows)?;
    if rows.num_rows() == 0 && rows.num_columns() == 0 {
        return Ok(Pushed { view: view.name.clone(), ..Pushed::default() });
    }
    let schema = view.schema();
    complete(&rows, schema.fields().iter().map(|field| field.name().as_str()), &format!("view `{}`", view.name))?;
    let (columns, failures) = cast_batch(&rows, &schema, None)?;
    refuse(&failures, |row| row)?;
    let rows = ViewRows {
        positions: (1..=rows.num_rows() as u64).map(|row| Some(row.to_be_bytes())).collect(),
        rows: RecordBatch::try_new(schema, columns)?,
        origin: Origin::Push,
        split: push_split(project),
        ordinals: None,
    };
    let written = write(project, vec![(Arc::clone(view), rows, target.online(), target.offline())]).await?;
    Ok(written.into_iter().next().unwrap_or_default())
}

/// Refuses rows for a view with aggregations: the state of its windows follows from the positions of a stream.
fn refuse_windows(view: &View) -> Result<()> {
    match view.windows {
        None => Ok(()),
        Some(_) => Err(Error::invalid(format!(
            "view `{}` has aggregations, and takes rows from its stream and its batch source alone; send them there",
            view.name
        ))),
    }
}

/// Writes rows that are known to be good: first to the logs, so that nothing is served that history lacks.
async fn write(project: &Project, writes: Vec<(Arc<View>, ViewRows, bool, bool)>) -> Result<Vec<Pushed>> {
    // Packing can refuse too: nothing is written before all of it is done.
    let mut ready = Vec::with_capacity(writes.len());
    for (view, rows, online, offline) in writes {
        let packed = if online { RowEncoder::new(&view)?.encode(&rows)? } else { Vec::new() };
        let logged = if offline && rows.rows.num_rows() > 0 { Some(log_rows(&rows)?) } else { None };
        ready.push((view, rows, packed, logged));
    }
    let mut out = Vec::with_capacity(ready.len());
    for (view, rows, _, logged) in &mut ready {
        let mut pushed = Pushed { view: view.name.clone(), rows: rows.rows.num_rows() as u64, ..Pushed::default() };
        if let Some(logged) = logged.take() {
            let last = rows.positions.value(rows.positions.len().saturating_sub(1));
            let range = LogRange { after: Position::START, through: Position::new(last.to_vec()) };
            pushed.logged = logged.num_rows() as u64;
            let log = view.log();
            match project.offline.append(&log, &rows.split, logged, range, BTreeMap::new()).await? {
                Append::Published => {}
                Append::Conflict => {
                    return Err(Error::unexpected(format!("log `{log}` has the new split `{}` already", rows.split)));
                }
            }
        }
        out.push(pushed);
    }
    for ((view, _, packed, _), pushed) in ready.into_iter().zip(&mut out) {
        if !packed.is_empty() {
            let table = values_table(&project.definitions.project, &view.name, &view.generation);
            let put = project.online.put(&table, packed).await?;
            (pushed.written, pushed.stale) = (put.written, put.stale);
        }
    }
    project.online.sync().await?;
    Ok(out)
}

/// A split for one call. Its uuid begins with the time, so that of two pushes of one version the later wins.
fn push_split(project: &Project) -> SplitId {
    let random = uuid::Uuid::new_v4().into_bytes();
    let now = u64::try_from(project.clock.now()).unwrap_or(0);
    let (millis, micros) = (now / 1000, now % 1000);
    let mut tail = [0; 10];
    for (to, from) in tail.iter_mut().zip(random) {
        *to = from;
    }
    // The twelve bits after the milliseconds hold the microseconds.
    if let ([high, low, ..], Ok(micros)) = (&mut tail, u16::try_from(micros)) {
        [*high, *low] = micros.to_be_bytes();
    }
    SplitId::from(format!("push-{}", Builder::from_unix_timestamp_millis(millis, &tail).into_uuid()).as_str())
}

/// All batches as one: a call is written whole or not at all.
fn one_batch(rows: &[RecordBatch]) -> Result<RecordBatch> {
    match rows {
        [] => Ok(RecordBatch::new_empty(Arc::new(Schema::empty()))),
        [one] => Ok(one.clone()),
        [first, ..] => concat_batches(&first.schema(), rows)
            .map_err(|error| Error::invalid("the batches have different columns").with_source(error)),
    }
}

/// The mapping of a source, or what it inherits.
pub(crate) fn field_mapping<'a>(definitions: &'a Definitions, source: &'a Source) -> &'a BTreeMap<String, String> {
    let batch = match &source.kind {
        SourceKind::Stream(settings) => Some(&settings.batch_source),
        SourceKind::Push { batch_source } => batch_source.as_ref(),
        SourceKind::Batch => None,
    };
    let inherited = || {
        batch
            .and_then(|name| definitions.sources.iter().find(|source| source.name == *name))
            .map_or(&source.field_mapping, |source| &source.field_mapping)
    };
    if source.field_mapping.is_empty() { inherited() } else { &source.field_mapping }
}

fn renamed(rows: &RecordBatch, mapping: &BTreeMap<String, String>) -> Result<RecordBatch> {
    if mapping.is_empty() || rows.num_columns() == 0 {
        return Ok(rows.clone());
    }
    let schema = rows.schema();
    let fields: Vec<ArrowField> = schema
        .fields()
        .iter()
        .map(|field| {
            let name = mapping.get(field.name()).unwrap_or(field.name());
            ArrowField::new(name, field.data_type().clone(), true)
        })
        .collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), rows.columns().to_vec())?)
}

/// Refuses rows that lack columns, naming all that are missing. Extra ones are of no concern.
fn complete<'a>(rows: &RecordBatch, needed: impl Iterator<Item = &'a str>, of: &str) -> Result<()> {
    let schema = rows.schema();
    let given: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let missing: Vec<String> = needed
        .filter(|name| !given.contains(name))
        .map(|name| format!("`{name}`{}", suggest(name, given.iter().copied())))
        .collect();
    if rows.num_rows() == 0 && given.is_empty() || missing.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(format!("the rows lack columns of {of}: {}", missing.join("; "))))
}

/// Refuses the call where some row cannot be cast, naming the first ones, counted from 1.
fn refuse(failures: &[Failure], row_of: impl Fn(usize) -> usize) -> Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = failures
        .iter()
        .take(NAMED_FAULTS)
        .map(|failure| format!("row {}: {}", row_of(failure.row) + 1, failure.reason))
        .collect();
    let more = failures.len().saturating_sub(NAMED_FAULTS);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    Err(Error::data(format!("nothing was written: {}{more}", named.join("; "))))
}

/// Rows of the source as rows of the view.
fn transformed(view: &View, stream: &StreamInput, input: &RecordBatch, split: &SplitId) -> Result<ViewRows> {
    let needed = stream.input.fields().iter().map(|field| field.name().as_str()).filter(|name| !name.starts_with("__"));
    complete(input, needed, &format!("source `{}`", stream.source))?;
    // What the stream says of a record beside its value is not known of a pushed row.
    let mut fields: Vec<ArrowField> = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for field in stream.input.fields() {
        let missing = || new_null_array(field.data_type(), input.num_rows());
        let column = input.column_by_name(field.name()).map_or_else(missing, Arc::clone);
        fields.push(ArrowField::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    let given = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let (columns, failures) = cast_batch(&given, &stream.input, None)?;
    refuse(&failures, |row| row)?;
    let decoded = RecordBatch::try_new(Arc::clone(&stream.input), columns)?;
    let made = stream.transform.apply(&decoded)?;
    let inputs: Vec<u32> = match &made.inputs {
        Some(inputs) => inputs.values().to_vec(),
        None => (0..).take(made.rows.num_rows()).collect(),
    };
    let schema = view.schema();
    let (columns, failures) = cast_batch(&made.rows, &schema, None)?;
    refuse(&failures, |row| inputs.get(row).map_or(row, |input| *input as usize))?;

    let mut ordinals: Vec<u32> = Vec::with_capacity(inputs.len());
    for (row, input) in inputs.iter().enumerate() {
        let before = row.checked_sub(1).filter(|before| inputs.get(*before) == Some(input));
        ordinals.push(before.and_then(|before| ordinals.get(before)).map_or(0, |ordinal| ordinal + 1));
    }
    let unnested = ordinals.iter().any(|ordinal| *ordinal > 0);
    Ok(ViewRows {
        rows: RecordBatch::try_new(schema, columns)?,
        origin: Origin::Push,
        split: split.clone(),
        positions: inputs.iter().map(|input| Some((u64::from(*input) + 1).to_be_bytes())).collect::<BinaryArray>(),
        ordinals: unnested.then(|| UInt32Array::from(ordinals)),
    })
}
