//! The functions, and the state rows they are kept in.

mod damage;
mod distinct;
mod golden;
pub(crate) mod oracle;
mod properties;
mod rules;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int64Type};
use headwater_core::definitions::{AggregateFunction as F, Field, ValueType};

use super::{Layout, State, Window, WindowFeature, Windows, output_type};

const MINUTE: i64 = 60_000_000;

fn windows(columns: &[(&str, ValueType)], features: &[(F, Option<usize>, Option<Window>)]) -> Windows {
    let columns: Vec<Field> = columns.iter().map(|(name, dtype)| Field::new(*name, dtype.clone())).collect();
    let features = features
        .iter()
        .enumerate()
        .map(|(index, (function, column, window))| {
            let dtype = output_type(*function, column.map(|at| &columns[at].dtype)).unwrap();
            let field = Field::new(format!("f{index}"), dtype);
            WindowFeature { field, function: *function, column: *column, window: *window }
        })
        .collect();
    Windows { columns, features, fingerprint: String::new() }
}

#[test]
fn every_function_over_a_few_rows() {
    let hour = Some(Window { length: 60 * MINUTE, hop: 5 * MINUTE });
    let windows = windows(
        &[("x", ValueType::Float64), ("k", ValueType::Int64), ("s", ValueType::String)],
        &[
            (F::Sum, Some(0), hour),
            (F::Count, None, hour),
            (F::Mean, Some(0), None),
            (F::Stddev, Some(0), hour),
            (F::Min, Some(2), hour),
            (F::Max, Some(1), hour),
            (F::Last, Some(2), hour),
            (F::LastN { n: 2 }, Some(2), hour),
            (F::LastDistinctN { n: 2 }, Some(1), hour),
            (F::ApproxCountDistinct, Some(2), hour),
            (F::ApproxPercentile { percentile: 0.5 }, Some(0), hour),
        ],
    );
    let layout = Layout::new(&windows).unwrap();
    let columns: [(&str, ArrayRef); 3] = [
        ("x", Arc::new(Float64Array::from(vec![Some(1.0), Some(2.0), None, Some(4.0)]))),
        ("k", Arc::new(Int64Array::from(vec![7, 8, 7, 9]))),
        ("s", Arc::new(StringArray::from(vec![Some("b"), Some("a"), Some("c"), None]))),
    ];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let bound = layout.bind(&rows).unwrap();
    let mut state = State::new();
    for (row, minute) in [(0, 10), (2, 30), (1, 20), (3, 65)] {
        state.update(&layout, &bound, row, minute * MINUTE, &[u8::try_from(minute).unwrap()]);
        state = State::decode(&layout, &state.encode(&layout)).unwrap();
    }
    let mut finisher = layout.finisher(2);
    finisher.push(&layout, &state, 70 * MINUTE);
    finisher.push(&layout, &State::new(), 70 * MINUTE);
    let features = finisher.finish().unwrap();
    let float = |at: usize| features[at].as_primitive::<Float64Type>().value(0);
    let int = |at: usize| features[at].as_primitive::<Int64Type>().value(0);
    let text = |at: usize| features[at].as_string::<i32>().value(0);
    assert_eq!((float(0), int(1), int(5)), (7.0, 4, 9));
    assert!((float(2) - 7.0 / 3.0).abs() < 1e-15);
    assert!((float(3) - 1.527_525_231_651_946_7).abs() < 1e-15);
    assert_eq!((text(4), text(6)), ("a", "c"));
    assert_eq!(features[7].as_list::<i32>().value(0).as_string::<i32>(), &StringArray::from(vec!["a", "c"]));
    assert_eq!(features[8].as_list::<i32>().value(0).as_primitive::<Int64Type>(), &Int64Array::from(vec![7, 9]));
    assert_eq!(int(9), 3);
    assert!((float(10) - 2.0).abs() <= 2.0 / 128.999);
    // An entity never seen.
    assert_eq!(features[1].as_primitive::<Int64Type>().value(1), 0);
    assert!(features.iter().enumerate().all(|(at, feature)| at == 1 || feature.is_null(1)));
}
