//! The join against the rule, word for word: every entity row looks at every row.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, StringArray};
use headwater_core::definitions::ValueType;
use headwater_core::memory::MemoryBatchSource;
use headwater_core::{Micros, Origin, Position, RowVersion, SplitId};
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};

use crate::view::View;

use super::{Odd, batch, column, entities, input, times, view, wanted};
use crate::history::{
    EntityRows, HistoryInput, HistoryOptions, HistoryRequest, InputKind, JoinView, RequestedFeature, join,
};

pub(super) static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).build().unwrap());

/// What a view is keyed by.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keyed {
    Nothing,
    /// Numbers close together.
    Near,
    /// Numbers far apart.
    Far,
    Text,
    Pair,
}

impl Keyed {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            1 => Just(Self::Nothing),
            3 => Just(Self::Near),
            2 => Just(Self::Far),
            2 => Just(Self::Text),
            2 => Just(Self::Pair)
        ]
    }
}

/// A view with these keys.
pub(super) fn key_view(name: &str, keyed: Keyed, ttl: Micros, fields: &[(&str, ValueType)]) -> Arc<View> {
    let keys: &[(&str, ValueType)] = match keyed {
        Keyed::Nothing => &[],
        Keyed::Near => &[("near", ValueType::Int64)],
        Keyed::Far => &[("far", ValueType::Int64)],
        Keyed::Text => &[("text", ValueType::String)],
        Keyed::Pair => &[("left", ValueType::Int64), ("right", ValueType::String)],
    };
    view(name, keys, ttl, fields)
}

/// Whether a row with key `row` answers an entity row with key `asked`. A null is no key, and equals none.
pub(super) fn same_key(keyed: Keyed, row: Option<i64>, asked: Option<i64>) -> bool {
    matches!(keyed, Keyed::Nothing) || (asked.is_some() && row == asked)
}

#[derive(Debug, Clone)]
struct Row {
    key: Option<i64>,
    time: Option<Micros>,
    created: Option<Micros>,
    value: Option<i64>,
}

#[derive(Debug, Clone)]
struct Split {
    kind: InputKind,
    name: &'static str,
    rows: Vec<Row>,
}

#[derive(Debug, Clone)]
struct Table {
    keyed: Keyed,
    ttl: Micros,
    splits: Vec<Split>,
    fragment_rows: usize,
    batch_rows: usize,
    no_statistics: bool,
}

#[derive(Debug, Clone)]
struct Case {
    asked: Vec<(Option<i64>, Micros)>,
    tables: Vec<Table>,
    by_created: bool,
    threads: usize,
    memory_limit: Option<u64>,
    batch_rows: usize,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (proptest::option::weighted(0.9, 0..6_i64), proptest::option::weighted(0.95, 0..30_i64));
    let rest = (proptest::option::weighted(0.7, 0..35_i64), proptest::option::weighted(0.8, 0..1000_i64));
    let row = (row, rest).prop_map(|((key, time), (created, value))| Row { key, time, created, value });
    (proptest::collection::vec(row, 0..40), any::<bool>()).prop_map(|(mut rows, sorted)| {
        if sorted {
            rows.sort_by_key(|row| row.time);
        }
        rows
    })
}

fn table() -> impl Strategy<Value = Table> {
    let names = [
        (InputKind::Batch, "2021/b.parquet"),
        (InputKind::Batch, "2020/a.parquet"),
        (InputKind::Log, "shard-1"),
        (InputKind::Log, "push-7"),
        (InputKind::Log, "zeta"),
    ];
    let splits = proptest::collection::vec(rows(), 5).prop_map(move |all| {
        let named = names.into_iter().zip(all);
        named.map(|((kind, name), rows)| Split { kind, name, rows }).collect::<Vec<_>>()
    });
    (Keyed::any(), prop_oneof![Just(0), 1..12_i64], splits, 1..20_usize, 1..9_usize, any::<bool>()).prop_map(
        |(keyed, ttl, splits, fragment_rows, batch_rows, no_statistics)| Table {
            keyed,
            ttl,
            splits,
            fragment_rows,
            batch_rows,
            no_statistics,
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let asked = proptest::collection::vec((proptest::option::weighted(0.9, 0..8_i64), -2..40_i64), 0..40);
    let limit = prop_oneof![Just(None), Just(Some(1)), (100..20_000_u64).prop_map(Some)];
    (asked, proptest::collection::vec(table(), 1..4), any::<bool>(), 1..5_usize, limit, 1..9_usize).prop_map(
        |(asked, tables, by_created, threads, memory_limit, batch_rows)| Case {
            asked,
            tables,
            by_created,
            threads,
            memory_limit,
            batch_rows,
        },
    )
}

fn far(key: i64) -> i64 {
    (key - 3).wrapping_mul(i64::MAX / 4)
}

/// The key columns: each test key as a value of each kind.
pub(super) fn keys(of: impl Fn() -> Vec<Option<i64>>) -> Vec<(&'static str, ArrayRef)> {
    let text = |key: i64| if key == 0 { String::new() } else { format!("k{key}") };
    vec![
        ("near", Arc::new(of().into_iter().collect::<Int64Array>())),
        ("far", Arc::new(of().into_iter().map(|key| key.map(far)).collect::<Int64Array>())),
        ("text", Arc::new(of().into_iter().map(|key| key.map(text)).collect::<StringArray>())),
        // Pairs (0, a), (1, a), (0, b) …: neither part alone tells the keys apart.
        ("left", Arc::new(of().into_iter().map(|key| key.map(|key| key % 2)).collect::<Int64Array>())),
        ("right", Arc::new(of().into_iter().map(|key| key.map(|key| text(key / 2))).collect::<StringArray>())),
    ]
}

fn request(case: &Case) -> HistoryRequest {
    let mut asked = keys(|| case.asked.iter().map(|(key, _)| *key).collect());
    asked.push(("event_timestamp", times(case.asked.iter().map(|(_, time)| *time))));
    asked.push(("ask", Arc::new((0i64..).take(case.asked.len()).collect::<Int64Array>())));
    let (mut views, mut features) = (Vec::new(), Vec::new());
    for (number, table) in case.tables.iter().enumerate() {
        let fields = [("value", ValueType::Int64), ("row", ValueType::Int64)];
        let inputs = [InputKind::Log, InputKind::Batch].map(|kind| source(table, kind));
        views.push(JoinView {
            view: key_view(&format!("v{number}"), table.keyed, table.ttl, &fields),
            inputs: inputs.into_iter().collect(),
            log_from: None,
        });
        features.push(RequestedFeature { output: format!("row{number}"), ..wanted(number, "row") });
    }
    for number in 0..case.tables.len() {
        features.insert(0, RequestedFeature { output: format!("value{number}"), ..wanted(number, "value") });
    }
    HistoryRequest {
        entities: in_batches(entities(batch(asked)), 11),
        views,
        features,
        options: HistoryOptions {
            memory_limit: case.memory_limit,
            filter_by_created_timestamp: case.by_created,
            threads: Some(case.threads),
            batch_rows: Some(case.batch_rows),
            ..HistoryOptions::default()
        },
    }
}

pub(super) fn in_batches(rows: EntityRows, size: usize) -> EntityRows {
    let whole = &rows.batches()[0];
    let starts = (0..whole.num_rows()).step_by(size);
    let batches = starts.map(|at| whole.slice(at, size.min(whole.num_rows() - at))).collect();
    EntityRows::new(Arc::clone(rows.schema()), batches).unwrap()
}

fn source(table: &Table, kind: InputKind) -> HistoryInput {
    let inner = MemoryBatchSource::new("t").with_fragment_rows(table.fragment_rows);
    for split in table.splits.iter().filter(|split| split.kind == kind) {
        let mut columns = keys(|| split.rows.iter().map(|row| row.key).collect());
        columns.push(("event_timestamp", times(split.rows.iter().map(|row| row.time))));
        columns.push(("created", times(split.rows.iter().map(|row| row.created))));
        columns.push(("value", Arc::new(split.rows.iter().map(|row| row.value).collect::<Int64Array>())));
        columns.push(("row", Arc::new((0i64..).take(split.rows.len()).collect::<Int64Array>())));
        inner.add(SplitId::from(split.name), batch(columns));
    }
    let odd = Odd { no_statistics: table.no_statistics, batch_rows: table.batch_rows, ..Odd::new(inner) };
    input(odd, kind)
}

/// (value, row in its split) of the row that answers.
fn answer(table: &Table, by_created: bool, key: Option<i64>, time: Micros) -> (Option<i64>, Option<i64>) {
    let mut best: BTreeMap<RowVersion, (Option<i64>, Option<i64>)> = BTreeMap::new();
    for split in &table.splits {
        for (row, number) in split.rows.iter().zip(0i64..) {
            let Some(event_time) = row.time else { continue };
            let known = !by_created || row.created.is_none_or(|created| created <= time);
            let alive = table.ttl == 0 || event_time >= time - table.ttl;
            if same_key(table.keyed, row.key, key) && known && alive && event_time <= time {
                let version = RowVersion {
                    event_time,
                    created: row.created,
                    origin: match (split.kind, split.name) {
                        (InputKind::Batch, _) => Origin::Batch,
                        (InputKind::Log, "push-7") => Origin::Push,
                        (InputKind::Log, _) => Origin::Stream,
                    },
                    split: SplitId::from(split.name),
                    position: Position::from_u64(u64::try_from(number).unwrap() + 1),
                    ordinal: 0,
                };
                best.insert(version, (row.value, Some(number)));
            }
        }
    }
    best.pop_last().map_or((None, None), |(_, found)| found)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_join_is_the_rule(case in case()) {
        let set = RUNTIME.block_on(async { join(request(&case)).await?.collect().await }).unwrap();
        let asks: Vec<Option<i64>> = (0i64..).take(case.asked.len()).map(Some).collect();
        prop_assert_eq!(column(&set, "ask"), asks);
        for (number, table) in case.tables.iter().enumerate() {
            let (values, rows): (Vec<_>, Vec<_>) =
                case.asked.iter().map(|(key, time)| answer(table, case.by_created, *key, *time)).unzip();
            prop_assert_eq!(column(&set, &format!("row{number}")), rows, "rows of view {}", number);
            prop_assert_eq!(column(&set, &format!("value{number}")), values, "values of view {}", number);
        }
    }
}
