//! What is not left to chance: NaN, zeros, overflow, bounds of errors and sizes, and which column a function takes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use headwater_core::definitions::{AggregateFunction as F, ValueType as T};
use headwater_core::{Origin, Position, RowVersion, SplitId};

use super::super::percentile::Percentile;
use super::super::{
    DISTINCT_STANDARD_ERROR, Layout, PERCENTILE_RELATIVE_ERROR, State, Window, check_type, output_type,
};
use super::oracle::{Value, value};
use super::{MINUTE, windows};

const HOUR: Option<Window> = Some(Window { length: 60 * MINUTE, hop: 5 * MINUTE });

/// What these functions of one column give over its values, all of one minute.
fn over(column: ArrayRef, dtype: T, functions: &[F]) -> Vec<Value> {
    let features: Vec<_> = functions.iter().map(|function| (*function, Some(0), HOUR)).collect();
    let layout = Layout::new(&windows(&[("x", dtype)], &features)).unwrap();
    let rows = RecordBatch::try_from_iter([("x", column)]).unwrap();
    let bound = layout.bind(&rows).unwrap();
    let mut state = State::new();
    for row in 0..rows.num_rows() {
        state.update(&layout, &bound, row, MINUTE, &u64::try_from(row).unwrap().to_be_bytes());
    }
    let state = State::decode(&layout, &state.encode(&layout)).unwrap();
    let mut finisher = layout.finisher(1);
    finisher.push(&layout, &state, MINUTE);
    finisher.finish().unwrap().iter().map(|column| value(column, 0)).collect()
}

fn floats(values: &[f64], functions: &[F]) -> Vec<Value> {
    over(Arc::new(Float64Array::from(values.to_vec())), T::Float64, functions)
}

fn is_nan(value: &Value) -> bool {
    matches!(value, Value::Float(float) if float.is_nan())
}

#[test]
fn nan_is_a_value_and_the_greatest() {
    let functions = [F::Sum, F::Mean, F::Stddev, F::Max, F::ApproxPercentile { percentile: 1.0 }, F::Last];
    assert!(floats(&[1.0, 3.0, f64::NAN], &functions).iter().all(is_nan));
    let functions = [F::Count, F::Min, F::ApproxCountDistinct, F::ApproxPercentile { percentile: 0.0 }];
    let negative = f64::from_bits(f64::NAN.to_bits() | 1 << 63);
    let got = floats(&[f64::NAN, 0.0, negative], &functions);
    assert_eq!(got, [Value::Int(3), Value::Float(0.0), Value::Int(2), Value::Float(0.0)]);
    let list = floats(&[f64::NAN, 1.0, negative], &[F::LastDistinctN { n: 5 }]);
    assert!(matches!(&list[0], Value::List(values) if values[0] == Value::Float(1.0) && is_nan(&values[1])));
    assert!(is_nan(&floats(&[f64::NAN, f64::NAN], &[F::Min])[0]));
}

#[test]
fn infinities_are_values() {
    let functions = [F::Sum, F::Mean, F::Min, F::Max, F::ApproxPercentile { percentile: 1.0 }];
    let infinite = Value::Float(f64::INFINITY);
    let want = [infinite.clone(), infinite.clone(), Value::Float(1.0), infinite.clone(), infinite];
    assert_eq!(floats(&[1.0, f64::INFINITY, 2.0], &functions), want);
    assert!(floats(&[f64::NEG_INFINITY, f64::INFINITY, 2.0], &[F::Sum, F::Stddev]).iter().all(is_nan));
}

#[test]
fn what_leaves_its_type_on_the_way_is_infinite_or_nan() {
    let sum = |values: &[f64]| floats(values, &[F::Sum])[0].clone();
    assert_eq!(sum(&[1e308, 1e308, -1e308]), Value::Float(f64::INFINITY));
    assert_eq!(sum(&[1e308, -1e308, 1e308]), Value::Float(1e308));
    assert!(is_nan(&floats(&[-1e155, 1e155], &[F::Stddev])[0]));
    let Value::Float(deviation) = floats(&[-1e153, 1e153], &[F::Stddev])[0] else { panic!() };
    assert!((deviation / 2.0_f64.sqrt() - 1e153).abs() < 1e144, "{deviation}");
}

#[test]
fn zeros_are_equal_but_ordered() {
    let functions = [F::Min, F::Max, F::ApproxCountDistinct, F::LastDistinctN { n: 2 }, F::Last];
    let got = floats(&[0.0, -0.0], &functions);
    let want = "[Float(-0.0), Float(0.0), Int(1), List([Float(0.0)]), Float(-0.0)]";
    assert_eq!(format!("{got:?}"), want);
}

#[test]
fn one_value_has_no_deviation() {
    assert_eq!(floats(&[5.0], &[F::Stddev, F::Mean]), [Value::Null, Value::Float(5.0)]);
    assert_eq!(floats(&[5.0, 5.0, 5.0], &[F::Stddev]), [Value::Float(0.0)]);
}

#[test]
fn sums_do_not_lose_what_cancels() {
    assert_eq!(floats(&[1e16, 1.0, -1e16], &[F::Sum, F::Mean]), [Value::Float(1.0), Value::Float(1.0 / 3.0)]);
    // Apart by 1, around 1e15: their squares differ in the thirtieth digit.
    let Value::Float(deviation) = floats(&[1e15, 1e15 + 1.0, 1e15 + 2.0], &[F::Stddev])[0] else { panic!() };
    assert!((deviation - 1.0).abs() < 1e-9, "{deviation}");
}

#[test]
fn a_sum_beyond_its_type_is_null_and_counted() {
    let windows = |dtype: T| {
        let mut windows = windows(&[("x", T::Int64)], &[(F::Sum, Some(0), None), (F::Last, Some(0), None)]);
        windows.features[0].field.dtype = dtype;
        windows
    };
    let rows = RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![i64::MAX, 1, -2])) as ArrayRef)]);
    let rows = rows.unwrap();
    let sums = |dtype: T| -> (Vec<String>, u64) {
        let layout = Layout::new(&windows(dtype)).unwrap();
        let bound = layout.bind(&rows).unwrap();
        let (mut state, mut finisher) = (State::new(), layout.finisher(3));
        for row in 0..3 {
            state.update(&layout, &bound, row, 0, &[u8::try_from(row).unwrap()]);
            state = State::decode(&layout, &state.encode(&layout)).unwrap();
            finisher.push(&layout, &state, 0);
        }
        let overflows = finisher.overflows();
        let column = finisher.finish().unwrap().remove(0);
        let values = arrow::util::display::ArrayFormatter::try_new(&column, &Default::default()).unwrap();
        ((0..3).map(|row| values.value(row).to_string()).collect(), overflows)
    };
    let most = "9223372036854775807";
    assert_eq!(sums(T::Int64), (vec![most.to_owned(), String::new(), "9223372036854775806".to_owned()], 1));
    assert_eq!(sums(T::Int32), (vec![String::new(); 3], 3));
    assert_eq!(sums(T::Float64).1, 0);
}

#[test]
fn a_late_event_counts_where_a_window_still_reaches_it() {
    let windows = windows(&[("x", T::Int64)], &[(F::Count, None, HOUR), (F::Count, None, None)]);
    let layout = Layout::new(&windows).unwrap();
    let rows = RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    let bound = layout.bind(&rows).unwrap();
    // At 100 minutes the hour reaches back to 40.
    for (late, counted) in [(40 * MINUTE, 2), (40 * MINUTE - 1, 1)] {
        let mut state = State::new();
        state.update(&layout, &bound, 0, 100 * MINUTE, &[]);
        state.update(&layout, &bound, 0, late, &[]);
        let mut finisher = layout.finisher(1);
        finisher.push(&layout, &state, 100 * MINUTE);
        let features = finisher.finish().unwrap();
        assert_eq!((value(&features[0], 0), value(&features[1], 0)), (Value::Int(counted), Value::Int(2)));
    }
}

#[test]
fn the_ends_of_time() {
    let windows = windows(&[("x", T::Int64)], &[(F::Count, None, HOUR), (F::Last, Some(0), None)]);
    let layout = Layout::new(&windows).unwrap();
    let rows = RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    let bound = layout.bind(&rows).unwrap();
    let mut state = State::new();
    for time in [i64::MIN, 0, i64::MAX] {
        state.update(&layout, &bound, 0, time, &time.to_be_bytes());
        state = State::decode(&layout, &state.encode(&layout)).unwrap();
        let mut finisher = layout.finisher(1);
        finisher.push(&layout, &state, time);
        assert_eq!(value(&finisher.finish().unwrap()[0], 0), Value::Int(1), "{time}");
    }
}

#[test]
fn last_keeps_lists() {
    let lists =
        ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), Some(vec![None, Some(2)]), None]);
    let dtype = T::Array(Box::new(T::Int32));
    let layout = Layout::new(&windows(&[("x", dtype)], &[(F::Last, Some(0), None)])).unwrap();
    let rows = RecordBatch::try_from_iter([("x", Arc::new(lists.clone()) as ArrayRef)]).unwrap();
    let bound = layout.bind(&rows).unwrap();
    let mut state = State::new();
    for row in [1, 0, 2] {
        state.update(&layout, &bound, row, 0, &[u8::try_from(row).unwrap()]);
    }
    let mut finisher = layout.finisher(1);
    finisher.push(&layout, &state, 0);
    assert_eq!(finisher.finish().unwrap()[0].to_data(), lists.slice(1, 1).to_data());
}

#[test]
fn distinct_counts_stay_within_their_error() {
    for distinct in [1_u32, 10, 100, 1000, 20_000, 300_000] {
        let names: StringArray = (0..distinct).map(|number| Some(format!("name {number}"))).collect();
        let Value::Int(got) = over(Arc::new(names), T::String, &[F::ApproxCountDistinct])[0] else { panic!() };
        let error = (got as f64 - f64::from(distinct)).abs() / f64::from(distinct);
        assert!(error <= 3.0 * DISTINCT_STANDARD_ERROR, "{got} of {distinct}");
        assert!(distinct > 100 || error == 0.0, "{got} of {distinct}");
    }
}

#[test]
fn percentiles_stay_within_their_error() {
    let values: Vec<f64> = (1..=10_000).map(|rank| (f64::from(rank) / 1000.0).exp() - 5.0).collect();
    for rank in [0, 10, 700, 2_500, 5_000, 5_500, 9_000, 9_900, 9_999, 10_000] {
        let got = floats(&values, &[F::ApproxPercentile { percentile: f64::from(rank) / 10_000.0 }]);
        let want = (f64::from(rank.max(1)) / 1000.0).exp() - 5.0;
        let Value::Float(got) = got[0] else { panic!() };
        assert!((got - want).abs() <= want.abs() * (PERCENTILE_RELATIVE_ERROR + 1e-12), "{got}, not {want}");
    }
}

#[test]
fn percentiles_are_of_the_rank_that_their_decimals_say() {
    for count in 1..=200_u32 {
        let mut percentile = Percentile::default();
        // Each in a bucket of its own.
        (1..=count).for_each(|rank| percentile.update(f64::from(rank).exp2()));
        for thousandths in 0..=1000 {
            let got = percentile.finalize(f64::from(thousandths) / 1000.0).unwrap().log2().round();
            let rank = (thousandths * count).div_ceil(1000).max(1);
            assert_eq!(got, f64::from(rank), "{thousandths} thousandths of {count}");
        }
    }
}

/// How long the row of an entity is that had an event in each second of a day, over windows of an hour, six and a day in
/// steps of a twelfth, and how much of that a tile takes. The values have digits enough to fill every number, and as texts
/// 12 bytes. `placed` rows have what makes their orders and their position.
fn day(chosen: &[(F, Option<usize>)], placed: bool) -> (usize, usize) {
    let hour = 60 * MINUTE;
    let spans = [1, 6, 24].map(|hours| Window { length: hours * hour, hop: hours * 5 * MINUTE });
    let features: Vec<_> = spans
        .iter()
        .flat_map(|window| chosen.iter().map(|(function, column)| (*function, *column, Some(*window))))
        .collect();
    let types = [("x", T::Float64), ("y", T::Float64), ("z", T::Int64), ("s", T::String)];
    let layout = Layout::new(&windows(&types, &features)).unwrap();
    let seconds = 0..86_400_u32;
    let sine = |shift: f64| {
        Arc::new(seconds.clone().map(|second| Some((f64::from(second) + shift).sin())).collect::<Float64Array>())
    };
    let large = |second: u32| i64::from(second).wrapping_mul(6_364_136_223_846_793_005) >> 8;
    let columns: [(&str, ArrayRef); 4] = [
        ("x", sine(0.1)),
        ("y", sine(0.2)),
        ("z", Arc::new(seconds.clone().map(large).collect::<Int64Array>())),
        (
            "s",
            Arc::new(
                seconds.clone().map(|second| Some(format!("item {:07}", second % 5_000))).collect::<StringArray>(),
            ),
        ),
    ];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let bound = layout.bind(&rows).unwrap();
    let mut state = State::new();
    for row in 0..86_400 {
        let time = i64::try_from(row).unwrap() * 1_000_000;
        let position = Position::from_u64(u64::try_from(row).unwrap() * 977);
        let order = if placed { order(time, &position) } else { Vec::new() };
        state.update(&layout, &bound, row, time, &order);
        if placed {
            state.set_position(position);
        }
    }
    // Of each window 13 steps.
    let bytes = state.encode(&layout).len();
    (bytes, bytes / 39)
}

/// The order of a row of a stream, made when it happened.
fn order(time: i64, position: &Position) -> Vec<u8> {
    let version = RowVersion {
        event_time: time,
        created: Some(time + 1_234),
        origin: Origin::Stream,
        split: SplitId::new(vec![0, 0, 0, 7]),
        position: position.clone(),
        ordinal: 0,
    };
    version.encode().to_vec()
}

#[test]
fn a_day_of_three_windows_and_four_functions_stays_under_8_kb() {
    let chosen = [F::Sum, F::Count, F::Stddev, F::Max].map(|function| (function, Some(0)));
    let (bytes, _) = day(&chosen, false);
    assert!(bytes < 8 * 1024, "{bytes} bytes");
    assert!(bytes < 2600, "{bytes} bytes: it was 2,200 once");
}

#[test]
fn a_day_of_costlier_functions_stays_under_8_kb_where_none_is_a_sketch_or_a_list() {
    // Of text the order of each value is kept too, and no two functions share anything.
    let chosen =
        [(F::Mean, 0), (F::Stddev, 1), (F::Min, 2), (F::Last, 3)].map(|(function, column)| (function, Some(column)));
    let (bytes, tile) = day(&chosen, true);
    assert!(bytes < 8 * 1024, "{bytes} bytes");
    assert!(bytes < 4000 && tile < 100, "{bytes} bytes, {tile} a tile: it was 3,500 once, and 90");
}

#[test]
fn sketches_and_lists_cost_per_tile_what_the_guide_says() {
    for (function, column, most) in [
        (F::ApproxCountDistinct, 0, 1100),
        (F::ApproxPercentile { percentile: 0.5 }, 0, 1100),
        (F::LastN { n: 10 }, 3, 350),
        (F::LastDistinctN { n: 10 }, 3, 350),
    ] {
        let (_, tile) = day(&[(function, Some(column))], true);
        assert!((most / 2..=most).contains(&tile), "{function}: {tile} bytes a tile");
    }
}

#[test]
fn each_function_says_what_it_takes() {
    let error = |function: F, column: Option<&T>| output_type(function, column).unwrap_err().message().to_owned();
    assert_eq!(
        error(F::Sum, Some(&T::String)),
        "`sum` takes `int32`, `int64`, `float32` and `float64` columns, not `string`"
    );
    assert_eq!(error(F::Mean, None), "`mean` needs a `column`; only `count` goes without one");
    let list = T::Array(Box::new(T::Int32));
    assert_eq!(error(F::LastN { n: 2 }, Some(&list)), "`last_n` takes columns that are no lists, not `array(int32)`");
    assert_eq!(error(F::LastN { n: 0 }, Some(&T::Bool)), "`last_n` has `n: 0`; it goes from 1 to 1000");
    assert_eq!(
        error(F::ApproxPercentile { percentile: 95.0 }, Some(&T::Int32)),
        "`approx_percentile` has `percentile: 95`; it goes from 0 to 1, such as 0.95"
    );
    assert_eq!(output_type(F::Last, Some(&list)).unwrap(), list);
    assert_eq!(output_type(F::Sum, Some(&T::Int32)).unwrap(), T::Int64);
    assert_eq!(output_type(F::LastN { n: 2 }, Some(&T::Bool)).unwrap(), T::Array(Box::new(T::Bool)));
}

#[test]
fn each_feature_says_what_it_holds() {
    assert!(check_type(&T::Int64, &T::Float32).is_ok());
    assert!(check_type(&T::Float64, &T::Float32).is_ok());
    let error = check_type(&T::Float64, &T::Int64).unwrap_err();
    assert_eq!(error.message(), "its values are `float64`: declare `float32` or `float64` instead of `int64`");
    let error = check_type(&T::String, &T::Bytes).unwrap_err();
    assert_eq!(error.message(), "its values are `string`: declare `string` instead of `bytes`");
}
