//! The windows of the join against their definition, word for word: every entity row looks at every raw row.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use headwater_core::definitions::{AggregateFunction, Field, ValueType};
use headwater_core::memory::MemoryBatchSource;
use headwater_core::{Micros, Origin, Position, RowVersion, SplitId};
use proptest::prelude::*;

use super::oracle::{Keyed, RUNTIME, in_batches, key_view, keys, same_key};
use super::{Odd, batch, column, entities, input, times, wanted};
use crate::history::{HistoryInput, HistoryOptions, HistoryRequest, InputKind, JoinView, RequestedFeature, join};
use crate::view::View;
use crate::windows::{Window, WindowFeature, Windows};

#[derive(Debug, Clone)]
struct Row {
    key: Option<i64>,
    time: Option<Micros>,
    created: Option<Micros>,
    number: Option<i64>,
    amount: Option<f64>,
    word: Option<i64>,
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
    splits: Vec<Split>,
    log_from: Option<Micros>,
    features: Vec<WindowFeature>,
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

const COLUMNS: [(&str, ValueType); 3] =
    [("number", ValueType::Int64), ("amount", ValueType::Float64), ("word", ValueType::String)];

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let place = (proptest::option::weighted(0.9, 0..4_i64), proptest::option::weighted(0.95, 0..60_i64));
    let created = proptest::option::weighted(0.7, 0..70_i64);
    let number = proptest::option::weighted(0.8, -9..9_i64);
    let amount = proptest::option::weighted(0.8, (-80..80_i32).prop_map(|eighths| f64::from(eighths) / 8.0));
    let row = (place, created, number, amount, proptest::option::weighted(0.8, 0..5_i64))
        .prop_map(|((key, time), created, number, amount, word)| Row { key, time, created, number, amount, word });
    (proptest::collection::vec(row, 0..50), any::<bool>()).prop_map(|(mut rows, sorted)| {
        if sorted {
            rows.sort_by_key(|row| row.time);
        }
        rows
    })
}

fn feature() -> impl Strategy<Value = WindowFeature> {
    use AggregateFunction as F;
    let count = prop_oneof![Just(None), (0..3_usize).prop_map(Some)].prop_map(|column| (F::Count, column));
    let of_numbers = prop_oneof![Just(F::Sum), Just(F::Mean), Just(F::Stddev)];
    let of_numbers = (of_numbers, 0..2_usize).prop_map(|(function, column)| (function, Some(column)));
    let of_all = prop_oneof![
        Just(F::Min),
        Just(F::Max),
        Just(F::Last),
        (1..4_u32).prop_map(|n| F::LastN { n }),
        (1..4_u32).prop_map(|n| F::LastDistinctN { n }),
        Just(F::ApproxCountDistinct),
    ];
    let of_all = (of_all, 0..3_usize).prop_map(|(function, column)| (function, Some(column)));
    let window = (1..40_i64).prop_flat_map(|length| (Just(length), 1..=length));
    let window = proptest::option::weighted(0.8, window.prop_map(|(length, hop)| Window { length, hop }));
    (prop_oneof![1 => count, 1 => of_numbers, 2 => of_all], window).prop_map(|((function, column), window)| {
        let of_column = column.map_or(ValueType::Int64, |column| COLUMNS[column].1.clone());
        let dtype = match function {
            F::Count | F::ApproxCountDistinct => ValueType::Int64,
            F::Mean | F::Stddev | F::ApproxPercentile { .. } => ValueType::Float64,
            F::LastN { .. } | F::LastDistinctN { .. } => ValueType::Array(Box::new(of_column)),
            F::Sum | F::Min | F::Max | F::Last => of_column,
        };
        WindowFeature { field: Field::new("", dtype), function, column, window }
    })
}

fn table() -> impl Strategy<Value = Table> {
    let names = [
        (InputKind::Batch, "2021/b.parquet"),
        (InputKind::Batch, "2020/a.parquet"),
        (InputKind::Log, "shard-1"),
        (InputKind::Log, "zeta"),
    ];
    let splits = proptest::collection::vec(rows(), 4).prop_map(move |all| {
        let named = names.into_iter().zip(all);
        named.map(|((kind, name), rows)| Split { kind, name, rows }).collect::<Vec<_>>()
    });
    let log_from = prop_oneof![1 => Just(None), 1 => Just(Some(Micros::MIN)), 3 => (-1..62_i64).prop_map(Some)];
    let features = proptest::collection::vec(feature(), 1..7).prop_map(|mut features| {
        for (number, feature) in features.iter_mut().enumerate() {
            feature.field.name = format!("f{number}");
        }
        features
    });
    let reading = (1..20_usize, 1..9_usize, any::<bool>());
    (Keyed::any(), splits, log_from, features, reading).prop_map(
        |(keyed, splits, log_from, features, (fragment_rows, batch_rows, no_statistics))| Table {
            keyed,
            splits,
            log_from,
            features,
            fragment_rows,
            batch_rows,
            no_statistics,
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let asked = proptest::collection::vec((proptest::option::weighted(0.9, 0..6_i64), -2..110_i64), 0..40);
    let limit = prop_oneof![Just(None), Just(Some(1)), (100..50_000_u64).prop_map(Some)];
    (asked, proptest::collection::vec(table(), 1..3), any::<bool>(), 1..4_usize, limit, 1..9_usize).prop_map(
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

fn word(number: i64) -> String {
    "ß".repeat(usize::try_from(number).unwrap())
}

fn view(table: &Table, number: usize) -> Arc<View> {
    let mut view = View::clone(&key_view(&format!("v{number}"), table.keyed, 0, &[]));
    view.features = table.features.iter().map(|feature| feature.field.clone()).collect();
    view.windows = Some(Arc::new(Windows {
        columns: COLUMNS.iter().map(|(name, of)| Field::new(*name, of.clone())).collect(),
        features: table.features.clone(),
        fingerprint: "w".into(),
    }));
    Arc::new(view)
}

fn source(table: &Table, kind: InputKind) -> HistoryInput {
    let inner = MemoryBatchSource::new("t").with_fragment_rows(table.fragment_rows);
    for split in table.splits.iter().filter(|split| split.kind == kind) {
        let mut columns = keys(|| split.rows.iter().map(|row| row.key).collect());
        columns.push(("event_timestamp", times(split.rows.iter().map(|row| row.time))));
        columns.push(("created", times(split.rows.iter().map(|row| row.created))));
        columns.push(("number", Arc::new(split.rows.iter().map(|row| row.number).collect::<Int64Array>())));
        columns.push(("amount", Arc::new(split.rows.iter().map(|row| row.amount).collect::<Float64Array>())));
        columns.push(("word", Arc::new(split.rows.iter().map(|row| row.word.map(word)).collect::<StringArray>())));
        inner.add(SplitId::from(split.name), batch(columns));
    }
    let odd = Odd { no_statistics: table.no_statistics, batch_rows: table.batch_rows, ..Odd::new(inner) };
    input(odd, kind)
}

fn request(case: &Case) -> HistoryRequest {
    let mut asked = keys(|| case.asked.iter().map(|(key, _)| *key).collect());
    asked.push(("event_timestamp", times(case.asked.iter().map(|(_, time)| *time))));
    asked.push(("ask", Arc::new((0i64..).take(case.asked.len()).collect::<Int64Array>()) as ArrayRef));
    let (mut views, mut features) = (Vec::new(), Vec::new());
    for (number, table) in case.tables.iter().enumerate() {
        let inputs = [InputKind::Log, InputKind::Batch].map(|kind| source(table, kind));
        let inputs = inputs.into_iter().collect();
        views.push(JoinView { view: view(table, number), inputs, log_from: table.log_from });
        // In another order than the view has them.
        features.extend(table.features.iter().rev().map(|feature| RequestedFeature {
            output: format!("v{number}.{}", feature.field.name),
            ..wanted(number, &feature.field.name)
        }));
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

/// A value of any type, in a form that can be compared.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Null,
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Value>),
}

impl Value {
    fn of(array: &dyn Array, row: usize) -> Self {
        if array.is_null(row) {
            return Self::Null;
        }
        match array.data_type() {
            DataType::Int64 => Self::Int(array.as_primitive::<Int64Type>().value(row)),
            DataType::Float64 => Self::Float(array.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => Self::Text(array.as_string::<i32>().value(row).into()),
            DataType::List(_) => {
                let list = array.as_list::<i32>().value(row);
                Self::List((0..list.len()).map(|at| Self::of(&list, at)).collect())
            }
            other => panic!("no feature is {other}"),
        }
    }

    /// Floats to 1e-9, relative. Values are eighths, whose sums are exact: where they cancel out nothing is left, and the
    /// squares of `stddev` are of distances from a mean that is no more than rounded.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(left), Self::Float(right)) => (left - right).abs() <= 1e-9 * right.abs(),
            (left, right) => left == right,
        }
    }

    fn number(&self) -> f64 {
        match self {
            Self::Int(value) => i32::try_from(*value).unwrap().into(),
            Self::Float(value) => *value,
            other => panic!("{other:?} is no number"),
        }
    }

    fn compare(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => left.cmp(right),
            (Self::Float(left), Self::Float(right)) => left.total_cmp(right),
            (Self::Text(left), Self::Text(right)) => left.cmp(right),
            other => panic!("{other:?} cannot be compared"),
        }
    }
}

/// The rows that count for a key at a time, in order of version.
fn rows_of(table: &Table, by_created: bool, key: Option<i64>, t: Micros) -> Vec<(Micros, &Row)> {
    let mut found = Vec::new();
    for split in &table.splits {
        for (row, number) in split.rows.iter().zip(1u64..) {
            let Some(time) = row.time else { continue };
            let of_table = match (split.kind, table.log_from) {
                (InputKind::Batch, Some(meeting)) => time < meeting,
                (InputKind::Log, Some(meeting)) => time >= meeting,
                (InputKind::Batch, None) => true,
                (InputKind::Log, None) => false,
            };
            let known = !by_created || row.created.is_none_or(|created| created <= t);
            if of_table && known && time <= t && same_key(table.keyed, row.key, key) {
                let version = RowVersion {
                    event_time: time,
                    created: row.created,
                    origin: if split.kind == InputKind::Batch { Origin::Batch } else { Origin::Stream },
                    split: SplitId::from(split.name),
                    position: Position::from_u64(number),
                    ordinal: 0,
                };
                found.push((version, time, row));
            }
        }
    }
    found.sort_by(|(left, ..), (right, ..)| left.cmp(right));
    found.into_iter().map(|(_, time, row)| (time, row)).collect()
}

fn expected(rows: &[(Micros, &Row)], feature: &WindowFeature, t: Micros) -> Value {
    use AggregateFunction as F;
    let start = feature.window.map_or(Micros::MIN, |Window { length, hop }| (t - length).div_euclid(hop) * hop);
    let in_window: Vec<&Row> = rows.iter().filter(|(time, _)| *time >= start).map(|(_, row)| *row).collect();
    let int = |count: usize| Value::Int(i64::try_from(count).unwrap());
    let Some(column) = feature.column else { return int(in_window.len()) };
    let values: Vec<Value> = in_window
        .iter()
        .filter_map(|row| match column {
            0 => row.number.map(Value::Int),
            1 => row.amount.map(Value::Float),
            _ => row.word.map(|number| Value::Text(word(number))),
        })
        .collect();
    let distinct = || values.iter().map(|value| format!("{value:?}")).collect::<BTreeSet<_>>().len();
    let newest = |n: u32, of: &[Value]| {
        let n = usize::try_from(n).unwrap();
        Value::List(of[of.len().saturating_sub(n)..].to_vec())
    };
    if feature.function == F::Count {
        return int(values.len());
    }
    if feature.function == F::ApproxCountDistinct && !values.is_empty() {
        return int(distinct());
    }
    let Some(last) = values.last() else {
        return Value::Null;
    };
    let numbers = || values.iter().map(Value::number).collect::<Vec<f64>>();
    let count = f64::from(u32::try_from(values.len()).unwrap());
    let mean = |of: &[f64]| of.iter().sum::<f64>() / count;
    match feature.function {
        F::Sum => match last {
            Value::Int(_) => {
                let each = values.iter().map(|value| if let Value::Int(value) = value { *value } else { 0 });
                Value::Int(each.sum())
            }
            _ => Value::Float(numbers().iter().sum()),
        },
        F::Mean => Value::Float(mean(&numbers())),
        F::Stddev if values.len() < 2 => Value::Null,
        F::Stddev => {
            let numbers = numbers();
            let mean = mean(&numbers);
            let squares: f64 = numbers.iter().map(|value| (value - mean).powi(2)).sum();
            Value::Float((squares / (count - 1.0)).sqrt())
        }
        F::Min => values.iter().min_by(|left, right| left.compare(right)).cloned().unwrap(),
        F::Max => values.iter().max_by(|left, right| left.compare(right)).cloned().unwrap(),
        F::Last => last.clone(),
        F::LastN { n } => newest(n, &values),
        F::LastDistinctN { n } => {
            let mut seen: Vec<Value> = Vec::new();
            for value in &values {
                seen.retain(|other| other != value);
                seen.push(value.clone());
            }
            newest(n, &seen)
        }
        F::Count | F::ApproxCountDistinct | F::ApproxPercentile { .. } => unreachable!("answered before"),
    }
}

fn found(batches: &[RecordBatch], name: &str) -> Vec<Value> {
    let of = |batch: &RecordBatch| {
        let column = batch.column_by_name(name).unwrap();
        (0..column.len()).map(|row| Value::of(column, row)).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn windows_of_the_join_are_their_definition(case in case()) {
        let set = RUNTIME.block_on(async { join(request(&case)).await?.collect().await }).unwrap();
        let asks: Vec<Option<i64>> = (0i64..).take(case.asked.len()).map(Some).collect();
        prop_assert_eq!(column(&set, "ask"), asks);
        for (number, table) in case.tables.iter().enumerate() {
            let of_table: Vec<_> =
                case.asked.iter().map(|(key, time)| (rows_of(table, case.by_created, *key, *time), *time)).collect();
            for feature in &table.features {
                let name = format!("v{number}.{}", feature.field.name);
                for ((rows, t), found) in of_table.iter().zip(found(&set, &name)) {
                    let expected = expected(rows, feature, *t);
                    prop_assert!(found.is(&expected), "{} at {}: {:?}, not {:?}: {:?}", name, t, found, expected, feature);
                }
            }
        }
    }
}
