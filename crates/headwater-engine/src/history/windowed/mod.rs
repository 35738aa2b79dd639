//! The features of windowed views: aggregates of what lay in the windows of an entity row's time.
//!
//! A plain view's answer is one row, found first and read later. Here every row of a window counts, so the columns that
//! are aggregated are read at once, in the same pass that sifts keys and times:
//!
//! 1. Fragments are read, as many at once as there are threads (`scan`). A row stays only where its key is asked for and
//!    its time lies between the start of the longest window at the earliest time that this key is asked for and the
//!    latest such time. Batch rows count before [`JoinView::log_from`](super::JoinView::log_from), log rows from it on.
//! 2. Workers, to each of which keys were dealt out, sort what is left by key and by the time from which it counts
//!    (`sort`); what does not fit into memory goes to a temporary file as sorted runs, which are merged (`runs`).
//! 3. Then each worker goes through its rows, key after key, with the state of one entity (`walk`): the same state that
//!    ingestion keeps online. A row updates it; an entity row whose time is passed reads it.
//! 4. What was read becomes a table (`results`), of which a row answers each entity row as if it were a plain view's.
//!
//! A row counts from its event time on or, where it also has to be made by then, from the later of event and created
//! time. Once it counts it stays: so one walk in this order meets each entity row with exactly the rows that count for
//! it, and the state does not mind that event times go back.

mod results;
mod runs;
mod scan;
mod sort;
mod walk;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use headwater_core::batch::ScanRequest;
use headwater_core::{BatchSource, Micros, Result};

use super::asked::Asked;
use super::memory::Budget;
use super::plan::{FragmentPlan, InputPlan, Plan, Reach, ViewPlan, view_plan};
use super::row::RowId;
use super::scan::Answers;
use super::{HistoryInput, InputKind};
use crate::view::View;
use crate::windows::{Layout, State, Window, Windows};
use results::{Piece, Results};

/// A windowed view in a join.
#[derive(Debug)]
pub(super) struct Windowed {
    /// Its place among the views of the plan.
    view: usize,
    /// What is read: the features of this plan are the columns that are aggregated.
    pub(super) rows: ViewPlan,
    /// The aggregations wanted.
    layout: Layout,
    reaches: Reaches,
    /// For each key number the earliest event time that counts for any of its entity rows.
    since: Vec<Micros>,
    /// Batch rows count before it, log rows from it on; `None`: nothing was logged.
    log_from: Option<Micros>,
    /// The table of the answers: a column for each feature wanted.
    schema: SchemaRef,
}

/// How far the windows of a view reach back.
#[derive(Debug, Clone)]
struct Reaches {
    /// One of them reaches back to the first row.
    lifetime: bool,
    windows: Vec<Window>,
}

impl Reaches {
    fn new(windows: &Windows) -> Self {
        let mut lengths: Vec<Window> = windows.features.iter().filter_map(|feature| feature.window).collect();
        lengths.sort_unstable();
        lengths.dedup();
        Self { lifetime: windows.features.iter().any(|feature| feature.window.is_none()), windows: lengths }
    }

    /// The earliest event time that counts at `t`.
    fn start(&self, t: Micros) -> Micros {
        if self.lifetime {
            return Micros::MIN;
        }
        self.windows.iter().map(|window| window.start(t)).min().unwrap_or(Micros::MIN)
    }
}

/// Lists what is to be read for `features` of a windowed view, number `place` of the plan.
pub(super) async fn plan(
    place: usize,
    view: &Arc<View>,
    windows: &Windows,
    inputs: &[HistoryInput],
    log_from: Option<Micros>,
    asked: &Arc<Asked>,
    features: &[(String, DataType)],
) -> Result<Windowed> {
    let windows = only(windows, features);
    let reaches = Reaches::new(&windows);
    let since: Vec<Micros> = asked.earliest.iter().map(|first| reaches.start(*first)).collect();
    let (first, last) = (since.iter().min().copied(), asked.latest.iter().max().copied());
    let reach = |kind| match (kind, log_from) {
        (InputKind::Batch, Some(meeting)) => {
            Reach { from: first, to: last.map(|last| last.min(meeting.saturating_sub(1))) }
        }
        (InputKind::Log, Some(meeting)) => Reach { from: first.map(|first| first.max(meeting)), to: last },
        (_, None) => Reach { from: first, to: last },
    };
    let counts = |input: &&HistoryInput| match (input.kind, log_from) {
        (InputKind::Batch, Some(meeting)) => meeting > Micros::MIN,
        (InputKind::Log, None) => false,
        _ => true,
    };
    let inputs: Vec<HistoryInput> = inputs.iter().filter(counts).cloned().collect();
    let columns = windows.columns.iter().map(|column| (column.name.clone(), column.dtype.to_arrow())).collect();
    let mut rows = view_plan(view, &inputs, Arc::clone(asked), columns, reach).await?;
    // The columns are read in the same pass.
    for input in &mut rows.inputs {
        let read = input.search.columns.get_or_insert_default();
        for column in input.features.iter().flatten() {
            if !read.contains(column) {
                read.push(column.clone());
            }
        }
    }
    let fields: Vec<Field> = features.iter().map(|(name, of)| Field::new(name, of.clone(), true)).collect();
    Ok(Windowed {
        view: place,
        rows,
        layout: Layout::new(&windows)?,
        reaches,
        since,
        log_from,
        schema: Arc::new(Schema::new(fields)),
    })
}

/// Those of the aggregations that are wanted, in the order in which they are wanted, and the columns that they need.
fn only(windows: &Windows, features: &[(String, DataType)]) -> Windows {
    let mut columns = Vec::new();
    let mut wanted = Vec::with_capacity(features.len());
    for (name, _) in features {
        let Some(feature) = windows.features.iter().find(|feature| feature.field.name == *name) else { continue };
        let column = feature.column.and_then(|column| windows.columns.get(column)).map(|column| {
            columns.iter().position(|known| known == column).unwrap_or_else(|| {
                columns.push(column.clone());
                columns.len() - 1
            })
        });
        wanted.push(crate::windows::WindowFeature { column, ..feature.clone() });
    }
    Windows { columns, features: wanted, fingerprint: windows.fingerprint.clone() }
}

/// The answers of a windowed view: which row of its table each entity row gets.
#[derive(Debug)]
pub(super) struct Computed {
    view: usize,
    answers: Vec<RowId>,
    rows: Vec<u64>,
}

impl Computed {
    /// Puts the answers in their place among those of all views.
    pub(super) fn put(self, all: &mut Answers) {
        if let (Some(answers), Some(rows)) = (all.views.get_mut(self.view), all.rows.get_mut(self.view)) {
            *answers = self.answers;
            *rows = self.rows;
        }
    }
}

/// Computes the features of all windowed views, one view after the other, and gives the plan their tables to read from.
pub(super) async fn compute(plan: &mut Plan) -> Result<Vec<Computed>> {
    let mut out = Vec::with_capacity(plan.windowed.len());
    for view in std::mem::take(&mut plan.windowed) {
        let view = Arc::new(view);
        // Half for the rows that are sorted, a quarter for the answers; and what the answers take is gone for the rest
        // of the join.
        let kept = Arc::new(Budget::new(plan.memory / 4));
        let keeping = scan::Keeping {
            by_created: plan.by_created,
            rows: Arc::new(Budget::new(plan.memory / 2)),
            answers: Arc::clone(&kept),
            folder: plan.folder.clone(),
        };
        let shares = scan::search(&view, plan, &keeping).await?;
        let overflows: u64 = shares.iter().map(|share| share.overflows).sum();
        if overflows > 0 {
            let name = &view.rows.view.name;
            tracing::warn!(view = %name, "{overflows} results are beyond the types of their features, and null for it");
            plan.overflows.insert(name.clone(), overflows);
        }
        plan.memory -= kept.used().min(plan.memory / 2);
        let (table, computed) = table(&view, plan.entities.len(), shares)?;
        if let Some(of_plan) = plan.views.get_mut(view.view) {
            (of_plan.inputs, of_plan.fragments) = table.into_plan(&of_plan.features).await?;
        }
        out.push(computed);
    }
    Ok(out)
}

/// Puts the workers' answers in the order of the entity rows, and their pieces into one table.
fn table(view: &Windowed, entities: usize, shares: Vec<walk::Answered>) -> Result<(Results, Computed)> {
    // The first row is what entities get of which there is no row.
    let mut finisher = view.layout.finisher(1);
    finisher.push(&view.layout, &State::new(), Micros::MIN);
    let empty = RecordBatch::try_new(Arc::clone(&view.schema), finisher.finish()?)?;
    let mut pieces = vec![Piece::Here(empty)];
    let mut answers = vec![RowId::first_of(0)?; entities];
    for (share, answered) in view.rows.asked.shares.iter().zip(shares) {
        let before = pieces.len();
        for (asked, answer) in share.rows.iter().zip(answered.answers) {
            if answer != RowId::NONE {
                answers[asked.row as usize] = answer.moved(before)?;
            }
        }
        pieces.extend(answered.pieces);
    }
    let rows = pieces.iter().map(Piece::rows).collect();
    let name = format!("windows of view `{}`", view.rows.view.name);
    Ok((Results::new(name, Arc::clone(&view.schema), pieces), Computed { view: view.view, answers, rows }))
}

impl Results {
    /// What a plan says of a table with the features of a view.
    async fn into_plan(self, features: &[(String, DataType)]) -> Result<(Vec<InputPlan>, Vec<FragmentPlan>)> {
        let search = ScanRequest::default();
        let fragments = self.fragments(&search).await?;
        let input = InputPlan {
            source: Arc::new(self),
            kind: InputKind::Batch,
            search,
            keys: Vec::new(),
            time: 0,
            created: None,
            features: features.iter().map(|(name, _)| Some(name.clone())).collect(),
        };
        let fragments = fragments.into_iter().enumerate().map(|(number, fragment)| {
            let first = RowId::first_of(number)?;
            Ok(FragmentPlan { input: 0, fragment, first, start: Micros::MIN, turn: number })
        });
        Ok((vec![input], fragments.collect::<Result<_>>()?))
    }
}
