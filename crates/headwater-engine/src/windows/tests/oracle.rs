//! Streams of events, and what the functions give over them when they are computed from the events themselves.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use headwater_core::definitions::{AggregateFunction as F, ValueType};
use headwater_core::{Micros, Origin, Position, RowVersion, SplitId};

use super::super::{DISTINCT_STANDARD_ERROR, PERCENTILE_RELATIVE_ERROR, Window, Windows};

/// The columns of the rows: of each a name and a type.
pub(super) const COLUMNS: [(&str, ValueType); 4] = [
    ("float", ValueType::Float64),
    ("int", ValueType::Int64),
    ("text", ValueType::String),
    ("time", ValueType::UnixTimestamp),
];

/// A value of a column or a feature.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Value>),
}

/// One row of an entity.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) time: Micros,
    /// Which split it came from.
    pub(super) split: u8,
    /// Its values, in order of [`COLUMNS`].
    pub(super) float: Option<f64>,
    pub(super) int: Option<i64>,
    pub(super) text: Option<String>,
    pub(super) instant: Option<i64>,
}

impl Event {
    fn value(&self, column: usize) -> Value {
        match column {
            0 => self.float.map_or(Value::Null, Value::Float),
            1 => self.int.map_or(Value::Null, |value| Value::Int(value.into())),
            2 => self.text.clone().map_or(Value::Null, Value::Text),
            _ => self.instant.map_or(Value::Null, |value| Value::Int(value.into())),
        }
    }
}

/// The version of the event at this index.
pub(super) fn order(events: &[Event], index: usize) -> Vec<u8> {
    let event = &events[index];
    let version = RowVersion {
        event_time: event.time,
        created: None,
        origin: Origin::Stream,
        split: SplitId::new(vec![0, 0, 0, event.split]),
        position: Position::from_u64(u64::try_from(index).unwrap() + 1),
        ordinal: 0,
    };
    version.encode().to_vec()
}

/// The events as rows.
pub(super) fn rows(events: &[Event]) -> RecordBatch {
    let columns: [ArrayRef; 4] = [
        Arc::new(events.iter().map(|event| event.float).collect::<Float64Array>()),
        Arc::new(events.iter().map(|event| event.int).collect::<Int64Array>()),
        Arc::new(events.iter().map(|event| event.text.clone()).collect::<StringArray>()),
        Arc::new(events.iter().map(|event| event.instant).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
    ];
    RecordBatch::try_from_iter(COLUMNS.iter().map(|(name, _)| *name).zip(columns)).unwrap()
}

/// A value out of a column of features.
pub(crate) fn value(column: &dyn Array, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Int64 => Value::Int(column.as_primitive::<Int64Type>().value(row).into()),
        DataType::Float64 => Value::Float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => Value::Text(column.as_string::<i32>().value(row).to_owned()),
        DataType::Timestamp(..) => Value::Int(column.as_primitive::<TimestampMicrosecondType>().value(row).into()),
        DataType::List(_) => {
            let list = column.as_list::<i32>().value(row);
            Value::List((0..list.len()).map(|at| value(&list, at)).collect())
        }
        other => panic!("no feature here is {other}"),
    }
}

/// The features at `t`, from the events themselves.
pub(super) fn features(windows: &Windows, events: &[Event], t: Micros) -> Vec<Value> {
    let mut past: Vec<usize> = (0..events.len()).filter(|at| events[*at].time <= t).collect();
    past.sort_by_cached_key(|at| order(events, *at));
    let feature = |function: F, column: Option<usize>, window: Option<Window>| {
        let from = window.map_or(Micros::MIN, |window| window.start(t));
        let inside = past.iter().map(|at| &events[*at]).filter(|event| event.time >= from);
        let values = inside.map(|event| column.map_or(Value::Int(1), |column| event.value(column)));
        aggregate(function, values.filter(|value| *value != Value::Null).collect())
    };
    windows.features.iter().map(|f| feature(f.function, f.column, f.window)).collect()
}

/// A function of values from oldest to newest, none of them null.
pub(crate) fn aggregate(function: F, values: Vec<Value>) -> Value {
    let wide = |n: u32| usize::try_from(n).unwrap();
    let newest = |n: usize, values: &[Value]| Value::List(values[values.len().saturating_sub(n)..].to_vec());
    match function {
        F::Count => return Value::Int(i128::try_from(values.len()).unwrap()),
        _ if values.is_empty() => return Value::Null,
        F::Last => return values.last().unwrap().clone(),
        F::LastN { n } => return newest(wide(n), &values),
        F::LastDistinctN { n } => {
            let mut distinct: Vec<Value> = Vec::new();
            for value in values {
                // Zeros are equal, and come out as the positive one.
                let value = if value == Value::Float(0.0) { Value::Float(0.0) } else { value };
                distinct.retain(|other| *other != value && !(is_nan(other) && is_nan(&value)));
                distinct.push(value);
            }
            return newest(wide(n), &distinct);
        }
        F::ApproxCountDistinct => {
            let distinct: HashSet<String> =
                values.iter().map(|v| format!("{v:?}").replace("(-0.0)", "(0.0)")).collect();
            return Value::Int(i128::try_from(distinct.len()).unwrap());
        }
        F::Min | F::Max if matches!(values[0], Value::Text(_)) => {
            let mut texts: Vec<String> =
                values.iter().map(|v| if let Value::Text(t) = v { t.clone() } else { panic!() }).collect();
            texts.sort();
            return Value::Text(if function == F::Min { texts[0].clone() } else { texts.last().unwrap().clone() });
        }
        _ => {}
    }
    if let Value::Int(first) = values[0] {
        let ints: Vec<i128> = values.iter().map(|v| if let Value::Int(i) = v { *i } else { panic!() }).collect();
        let sum: i128 = ints.iter().sum();
        return match function {
            F::Sum => i64::try_from(sum).map_or(Value::Null, |sum| Value::Int(sum.into())),
            F::Min => Value::Int(*ints.iter().min().unwrap()),
            F::Max => Value::Int(*ints.iter().max().unwrap()),
            F::Mean => Value::Float(sum as f64 / ints.len() as f64),
            // Near the first the differences are exact.
            F::Stddev => stddev(&ints.iter().map(|int| (int - first) as f64).collect::<Vec<_>>()),
            _ => percentile(function, ints.iter().map(|int| *int as f64).collect()),
        };
    }
    let floats: Vec<f64> = values.iter().map(|v| if let Value::Float(f) = v { *f } else { panic!() }).collect();
    match function {
        F::Sum => Value::Float(exact_sum(&floats)),
        F::Mean => Value::Float(exact_sum(&floats) / floats.len() as f64),
        F::Min => Value::Float(*floats.iter().min_by(|a, b| a.total_cmp(b)).unwrap()),
        F::Max => Value::Float(*floats.iter().max_by(|a, b| a.total_cmp(b)).unwrap()),
        F::Stddev => stddev(&floats),
        _ => percentile(function, floats),
    }
}

/// NaN, which is not equal to itself, is one value.
fn is_nan(value: &Value) -> bool {
    matches!(value, Value::Float(value) if value.is_nan())
}

fn percentile(function: F, mut values: Vec<f64>) -> Value {
    let F::ApproxPercentile { percentile } = function else { panic!("{function}") };
    values.sort_by(f64::total_cmp);
    Value::Float(values[rank(percentile, values.len()) - 1])
}

/// The rank, from 1, that at least this share of so many values does not exceed: of the decimal number that the share is
/// written as.
fn rank(share: f64, count: usize) -> usize {
    let text = share.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    // Of a share that takes more digits than that, no count here makes a whole one.
    let Some(one) = 10_u128.checked_pow(u32::try_from(fraction.len()).unwrap()) else { return 1 };
    let share: u128 = format!("{whole}{fraction}").parse().unwrap();
    usize::try_from((share * u128::try_from(count).unwrap()).div_ceil(one)).unwrap().max(1)
}

/// Two passes, the second with the rounding of the mean put right.
fn stddev(values: &[f64]) -> Value {
    if values.len() < 2 {
        return Value::Null;
    }
    if !values.iter().all(|value| value.is_finite()) {
        return Value::Float(f64::NAN);
    }
    let count = values.len() as f64;
    let mean = exact_sum(values) / count;
    let distances: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let squares: Vec<f64> = distances.iter().map(|distance| distance * distance).collect();
    let variance = (exact_sum(&squares) - exact_sum(&distances).powi(2) / count) / (count - 1.0);
    // Rounding may leave less than nothing; NaN stays what it is.
    Value::Float(if variance < 0.0 { 0.0 } else { variance.sqrt() })
}

/// The sum, rounded once: partial sums that do not overlap take in one term after another.
fn exact_sum(values: &[f64]) -> f64 {
    if !values.iter().all(|value| value.is_finite()) {
        return values.iter().sum();
    }
    let mut partials: Vec<f64> = Vec::new();
    for value in values {
        let mut carry = *value;
        let mut kept = Vec::new();
        for partial in partials {
            let (large, small) = if carry.abs() > f64::abs(partial) { (carry, partial) } else { (partial, carry) };
            let sum = large + small;
            let rest = small - (sum - large);
            if rest != 0.0 {
                kept.push(rest);
            }
            carry = sum;
        }
        kept.push(carry);
        partials = kept;
    }
    partials.iter().rev().sum()
}

/// Whether a feature is what it should be: exactly, floats to 1e-9, approximate ones within their bound.
pub(crate) fn agrees(function: F, got: &Value, want: &Value) -> bool {
    match (function, got, want) {
        (F::ApproxCountDistinct, Value::Int(got), Value::Int(want)) => {
            // Of few values two may share a hash.
            (got - want).abs() as f64 <= (4.0 * DISTINCT_STANDARD_ERROR * *want as f64).max(1.0)
        }
        (F::ApproxPercentile { .. }, Value::Float(got), Value::Float(want)) if want.is_finite() => {
            (got - want).abs() <= want.abs() * (PERCENTILE_RELATIVE_ERROR + 1e-12)
        }
        (F::Sum | F::Mean | F::Stddev, Value::Float(got), Value::Float(want)) if want.is_finite() => {
            (got - want).abs() <= want.abs() * 1e-9
        }
        _ => format!("{got:?}") == format!("{want:?}"),
    }
}
