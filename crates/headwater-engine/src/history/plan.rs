//! What is to be read, in which order, before any of it is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use headwater_core::batch::{Fragment, KeyBounds, KeyRange, ScanRequest, TimeRange};
use headwater_core::{BatchSource, Error, ErrorKind, Micros, Origin, Result};

use super::asked::Asked;
use super::entities::names;
use super::row::RowId;
use super::windowed::{self, Windowed};
use super::{EntityRows, HistoryInput, HistoryRequest, InputKind, JoinView, Progress, memory};
use crate::view::View;

/// Rows of an output batch where nothing else is said.
const BATCH_ROWS: usize = 32_768;
/// Splits of pushed rows are called so.
const PUSH_PREFIX: &[u8] = b"push-";

/// A join that is ready to run.
#[derive(Debug)]
pub(super) struct Plan {
    /// The entity rows.
    pub(super) entities: Arc<EntityRows>,
    /// The output's columns.
    pub(super) schema: SchemaRef,
    /// The views of which features are wanted. Of a windowed one nothing is to be read yet: see [`Plan::windowed`].
    pub(super) views: Vec<ViewPlan>,
    /// How the features of windowed views come to be.
    pub(super) windowed: Vec<Windowed>,
    /// Of those, by name, how many results are beyond their type; known when they are computed.
    pub(super) overflows: BTreeMap<String, u64>,
    /// For each feature column of the output: its view, and its place among the view's features.
    pub(super) columns: Vec<(usize, usize)>,
    /// The order in which fragments are read: (view, number of the fragment).
    pub(super) reading: Vec<(usize, usize)>,
    /// Bytes for what waits.
    pub(super) memory: u64,
    /// Rows answer from their created time on.
    pub(super) by_created: bool,
    /// Workers, and fragments read at once.
    pub(super) threads: usize,
    /// Where runs are written.
    pub(super) folder: Option<PathBuf>,
    /// Rows of an output batch at most.
    pub(super) batch_rows: usize,
    /// Who wants to know.
    pub(super) progress: Arc<Reporter>,
}

/// A view in a join.
#[derive(Debug)]
pub(super) struct ViewPlan {
    /// The view.
    pub(super) view: Arc<View>,
    /// The entity rows by its keys.
    pub(super) asked: Arc<Asked>,
    /// The types of its join keys.
    pub(super) key_types: Vec<DataType>,
    /// The features wanted: name and type.
    pub(super) features: Vec<(String, DataType)>,
    /// The tables.
    pub(super) inputs: Vec<InputPlan>,
    /// The fragments, by number.
    pub(super) fragments: Vec<FragmentPlan>,
    /// The earliest time of each fragment, ascending.
    pub(super) starts: Arc<[Micros]>,
}

/// A table in a join.
#[derive(Debug)]
pub(super) struct InputPlan {
    /// The table.
    pub(super) source: Arc<dyn BatchSource>,
    /// What it is.
    pub(super) kind: InputKind,
    /// What to ask for when searching.
    pub(super) search: ScanRequest,
    /// Where the join keys, event time and created time are among the columns asked for.
    pub(super) keys: Vec<usize>,
    pub(super) time: usize,
    pub(super) created: Option<usize>,
    /// The columns of the features wanted; `None` where the table has no such column.
    pub(super) features: Vec<Option<String>>,
}

/// A fragment in a join.
#[derive(Debug)]
pub(super) struct FragmentPlan {
    /// Its table, among the view's.
    pub(super) input: usize,
    /// The fragment.
    pub(super) fragment: Fragment,
    /// Its first row.
    pub(super) first: RowId,
    /// No row in it is earlier.
    pub(super) start: Micros,
    /// Its place in the order in which the view's fragments are read.
    pub(super) turn: usize,
}

/// Checks a request, numbers its keys and lists the fragments to read.
pub(super) async fn plan(request: HistoryRequest) -> Result<Plan> {
    let HistoryRequest { entities, views, features, options } = request;
    let schema = output_schema(&entities, &views, &features)?;
    let threads = options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into)).max(1);

    // Views that nothing is wanted of are not read.
    let mut wanted: BTreeMap<usize, Vec<(String, DataType)>> = BTreeMap::new();
    let mut columns = Vec::with_capacity(features.len());
    for feature in &features {
        let list = wanted.entry(feature.view).or_default();
        let place = list.iter().position(|(name, _)| *name == feature.feature).unwrap_or(list.len());
        if place == list.len() {
            list.push((feature.feature.clone(), feature_type(&views, feature)?));
        }
        columns.push((feature.view, place));
    }
    let numbers: BTreeMap<usize, usize> = wanted.keys().enumerate().map(|(new, old)| (*old, new)).collect();
    for (view, _) in &mut columns {
        *view = numbers.get(view).copied().unwrap_or_default();
    }

    let entities = Arc::new(entities);
    let mut plans: Vec<ViewPlan> = Vec::with_capacity(wanted.len());
    let mut windowed = Vec::new();
    for (number, features) in wanted {
        let Some(JoinView { view, inputs, log_from }) = views.get(number) else { continue };
        let shared = plans.iter().find(|plan| plan.asked.keys == view.keys).map(|plan| Arc::clone(&plan.asked));
        let asked = match shared {
            Some(asked) => asked,
            None => {
                let (entities, view) = (Arc::clone(&entities), Arc::clone(view));
                let asked = on_a_thread(move || Asked::new(&entities, &view, threads)).await?;
                Arc::new(asked)
            }
        };
        if let Some(windows) = &view.windows {
            windowed.push(windowed::plan(plans.len(), view, windows, inputs, *log_from, &asked, &features).await?);
            plans.push(ViewPlan::without_tables(view, asked, features));
        } else {
            let from = asked.earliest.iter().min().filter(|_| view.ttl > 0);
            let reach = Reach {
                from: from.map(|first| first.saturating_sub(view.ttl)),
                to: asked.latest.iter().max().copied(),
            };
            plans.push(view_plan(view, inputs, asked, features, |_| reach).await?);
        }
    }
    let mut reading: Vec<(Micros, usize, usize)> = Vec::new();
    for (number, view) in plans.iter().enumerate() {
        reading.extend(view.fragments.iter().enumerate().map(|(at, fragment)| (fragment.start, number, at)));
    }
    // All views move on through time together.
    reading.sort_unstable();

    let fragments = reading.len() + windowed.iter().map(|view| view.rows.fragments.len()).sum::<usize>();
    let progress = Arc::new(Reporter::new(options.progress, fragments as u64, entities.len() as u64));
    Ok(Plan {
        memory: memory(options.memory_limit.unwrap_or_else(memory::default_limit), &entities, &plans),
        entities,
        schema,
        views: plans,
        windowed,
        overflows: BTreeMap::new(),
        columns,
        reading: reading.into_iter().map(|(_, view, fragment)| (view, fragment)).collect(),
        by_created: options.filter_by_created_timestamp,
        threads,
        folder: options.temp_dir,
        batch_rows: options.batch_rows.unwrap_or(BATCH_ROWS).max(1),
        progress,
    })
}

/// What is left of the limit for rows and features that wait.
fn memory(limit: u64, entities: &EntityRows, views: &[ViewPlan]) -> u64 {
    let mut fixed = entities.len() as u64 * 8;
    let mut counted: Vec<&Arc<Asked>> = Vec::new();
    for view in views {
        if !counted.iter().any(|asked| Arc::ptr_eq(asked, &view.asked)) {
            fixed += view.asked.bytes();
            counted.push(&view.asked);
        }
        fixed += entities.len() as u64 * 8 + view.asked.earliest.len() as u64 * 24;
    }
    limit.saturating_sub(fixed).max(limit / 8)
}

fn feature_type(views: &[JoinView], wanted: &super::RequestedFeature) -> Result<DataType> {
    let Some(JoinView { view, .. }) = views.get(wanted.view) else {
        return Err(Error::invalid(format!(
            "feature `{}` is wanted of view number {}, and there are {} views",
            wanted.feature,
            wanted.view,
            views.len()
        )));
    };
    let field = view.features.iter().find(|field| field.name == wanted.feature).ok_or_else(|| {
        let there: Vec<String> = view.features.iter().map(|field| format!("`{}`", field.name)).collect();
        Error::invalid(format!(
            "view `{}` has no feature `{}`; there are {}",
            view.name,
            wanted.feature,
            if there.is_empty() { "none".into() } else { there.join(", ") }
        ))
    })?;
    Ok(field.dtype.to_arrow())
}

fn output_schema(entities: &EntityRows, views: &[JoinView], features: &[super::RequestedFeature]) -> Result<SchemaRef> {
    let mut fields: Vec<Arc<Field>> = entities.schema().fields().iter().map(Arc::clone).collect();
    let mut origins: BTreeMap<&str, String> = BTreeMap::new();
    for field in entities.schema().fields() {
        origins.insert(field.name(), "a column of the entity rows".into());
    }
    for feature in features {
        let dtype = feature_type(views, feature)?;
        let view = views.get(feature.view).map_or("", |view| view.view.name.as_str());
        let origin = format!("`{view}:{}`", feature.feature);
        if let Some(other) = origins.get(feature.output.as_str()) {
            return Err(Error::invalid(format!(
                "two columns of the training set would be called `{}`: {other} and {origin}; full feature names keep \
                 them apart",
                feature.output
            )));
        }
        origins.insert(&feature.output, origin);
        fields.push(Arc::new(Field::new(&feature.output, dtype, true)));
    }
    Ok(Arc::new(Schema::new_with_metadata(fields, entities.schema().metadata().clone())))
}

/// The times that can matter, both inclusive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// From here on; `None` = from the beginning.
    pub(super) from: Option<Micros>,
    /// Up to here; `None` = to the end.
    pub(super) to: Option<Micros>,
}

/// Lists what is to be read of a view's tables for `features`, columns of its rows.
pub(super) async fn view_plan(
    view: &Arc<View>,
    inputs: &[HistoryInput],
    asked: Arc<Asked>,
    features: Vec<(String, DataType)>,
    reach: impl Fn(InputKind) -> Reach,
) -> Result<ViewPlan> {
    let mut tables = Vec::with_capacity(inputs.len());
    let mut found: Vec<(Origin, usize, Fragment)> = Vec::new();
    // Where no entity row has a key, nothing can answer.
    let inputs = if asked.earliest.is_empty() { &[] } else { inputs };
    for input in inputs {
        let Some(table) = input_plan(view, input, &asked, &features, reach(input.kind)).await? else { continue };
        for fragment in table.source.fragments(&table.search).await? {
            let origin = match input.kind {
                InputKind::Batch => Origin::Batch,
                InputKind::Log if fragment.split.as_bytes().starts_with(PUSH_PREFIX) => Origin::Push,
                InputKind::Log => Origin::Stream,
            };
            found.push((origin, tables.len(), fragment));
        }
        tables.push(table);
    }
    // Stable: fragments of one split stay in the order of position in which the source lists them.
    found.sort_by(|(a, _, left), (b, _, right)| (a, &left.split).cmp(&(b, &right.split)));
    let mut fragments = Vec::with_capacity(found.len());
    for (number, (_, input, fragment)) in found.into_iter().enumerate() {
        let start = fragment.time.map_or(Micros::MIN, |(earliest, _)| earliest);
        fragments.push(FragmentPlan { input, fragment, first: RowId::first_of(number)?, start, turn: 0 });
    }
    let mut order: Vec<usize> = (0..fragments.len()).collect();
    order.sort_by_key(|number| fragments[*number].start);
    for (turn, number) in order.iter().enumerate() {
        fragments[*number].turn = turn;
    }
    Ok(ViewPlan {
        inputs: tables,
        starts: order.iter().map(|number| fragments[*number].start).collect(),
        fragments,
        ..ViewPlan::without_tables(view, asked, features)
    })
}

impl ViewPlan {
    /// A view of which nothing is read.
    fn without_tables(view: &Arc<View>, asked: Arc<Asked>, features: Vec<(String, DataType)>) -> Self {
        Self {
            view: Arc::clone(view),
            asked,
            key_types: view.keys.iter().map(|key| key.value_type.to_arrow()).collect(),
            features,
            inputs: Vec::new(),
            fragments: Vec::new(),
            starts: Arc::default(),
        }
    }
}

/// How a table is searched; `None` where it does not exist.
async fn input_plan(
    view: &View,
    input: &HistoryInput,
    asked: &Asked,
    features: &[(String, DataType)],
    reach: Reach,
) -> Result<Option<InputPlan>> {
    let schema = match input.source.schema().await {
        Ok(schema) => schema,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let named = |column: &str| input.columns.get(column).map_or_else(|| column.to_owned(), Clone::clone);
    let missing = |column: &str, what: &str| {
        Error::invalid(format!(
            "`{}` has no column `{column}`, {what} of view `{}`; there are {}",
            input.source.identity(),
            view.name,
            names(&schema)
        ))
    };
    let mut columns: Vec<String> = Vec::new();
    // A column may serve twice, and is asked for once.
    let mut ask = |column: String| {
        columns.iter().position(|known| *known == column).unwrap_or_else(|| {
            columns.push(column);
            columns.len() - 1
        })
    };
    let mut keys = Vec::with_capacity(view.keys.len());
    for key in &view.keys {
        let column = named(&key.name);
        schema.index_of(&column).map_err(|_| missing(&column, "a join key"))?;
        keys.push(ask(column));
    }
    let time_column = named(&view.event_time);
    let time_field = schema.field_with_name(&time_column).map_err(|_| missing(&time_column, "the event time"))?;
    let time = ask(time_column.clone());
    let mut created = None;
    if let Some(column) = view.created.as_deref().map(named) {
        if schema.index_of(&column).is_ok() {
            created = Some(ask(column));
        } else if input.kind == InputKind::Batch {
            return Err(missing(&column, "the created time"));
        }
    }
    let mut of_features = Vec::with_capacity(features.len());
    for (feature, _) in features {
        let column = named(feature);
        if schema.index_of(&column).is_ok() {
            of_features.push(Some(column));
        } else if input.kind == InputKind::Batch {
            return Err(missing(&column, "a feature"));
        } else {
            of_features.push(None);
        }
    }

    // Statistics are only asked of columns whose order is that of the values.
    let times = matches!(time_field.data_type(), DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
    let time_range = times.then_some(TimeRange { column: time_column, from: reach.from, to: reach.to });
    let key_range = asked.bounds.as_ref().and_then(|(place, bounds)| {
        let column = columns.get(*keys.get(*place)?)?;
        let of = schema.field_with_name(column).ok()?.data_type();
        let fits = match bounds {
            KeyBounds::Int(..) => of.is_integer(),
            KeyBounds::Text(..) => matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
        };
        fits.then(|| KeyRange { column: column.clone(), values: bounds.clone() })
    });
    Ok(Some(InputPlan {
        source: Arc::clone(&input.source),
        kind: input.kind,
        search: ScanRequest { columns: Some(columns), time: time_range, keys: key_range },
        keys,
        time,
        created,
        features: of_features,
    }))
}

/// Runs work that takes its time away from the runtime's own threads.
pub(super) async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(stopped)?
}

/// A task of the join that ended without a result.
pub(super) fn stopped(error: tokio::task::JoinError) -> Error {
    Error::unexpected("a task of the join stopped").with_source(error)
}

/// Tells how far the join has come.
pub(super) struct Reporter {
    callback: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    state: Mutex<Progress>,
}

impl Reporter {
    fn new(callback: Option<Arc<dyn Fn(Progress) + Send + Sync>>, fragments_total: u64, rows_total: u64) -> Self {
        Self { callback, state: Mutex::new(Progress { fragments_total, rows_total, ..Progress::default() }) }
    }

    pub(super) fn report(&self, change: impl FnOnce(&mut Progress)) {
        if let Some(callback) = &self.callback {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut state);
            // Called under the lock, so that what a listener hears never goes back.
            callback(*state);
        }
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").field("state", &self.state).finish_non_exhaustive()
    }
}
