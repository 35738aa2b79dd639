//! Whether two values are the same.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};

/// How far apart two floats may be, in relation to the larger: sums of the same numbers in another order.
const TOLERANCE: f64 = 1e-9;

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Compared {
    /// Whether the two count as equal.
    pub(super) equal: bool,
    /// How far two numbers are apart, in relation to the larger one; zero where they are no numbers.
    pub(super) difference: f64,
}

/// Compares a row of two columns.
pub(super) fn compare(left: &ArrayRef, right: &ArrayRef, row: usize) -> Compared {
    cells(left, row, right, row)
}

fn cells(left: &ArrayRef, left_row: usize, right: &ArrayRef, right_row: usize) -> Compared {
    let as_is = |equal| Compared { equal, difference: 0.0 };
    if left.data_type() != right.data_type() {
        return as_is(false);
    }
    match (left.is_null(left_row), right.is_null(right_row)) {
        (true, true) => return as_is(true),
        (false, false) => {}
        _ => return as_is(false),
    }
    match left.data_type() {
        DataType::Float64 => floats(
            left.as_primitive::<Float64Type>().value(left_row),
            right.as_primitive::<Float64Type>().value(right_row),
        ),
        DataType::Float32 => floats(
            left.as_primitive::<Float32Type>().value(left_row).into(),
            right.as_primitive::<Float32Type>().value(right_row).into(),
        ),
        DataType::Int32 => integers(
            left.as_primitive::<Int32Type>().value(left_row).into(),
            right.as_primitive::<Int32Type>().value(right_row).into(),
        ),
        DataType::Int64 => integers(
            left.as_primitive::<Int64Type>().value(left_row),
            right.as_primitive::<Int64Type>().value(right_row),
        ),
        DataType::List(_) => {
            let (left, right) = (left.as_list::<i32>().value(left_row), right.as_list::<i32>().value(right_row));
            if left.len() != right.len() {
                return as_is(false);
            }
            (0..left.len()).map(|at| cells(&left, at, &right, at)).fold(as_is(true), |all, one| Compared {
                equal: all.equal && one.equal,
                difference: all.difference.max(one.difference),
            })
        }
        _ => as_is(left.slice(left_row, 1).to_data() == right.slice(right_row, 1).to_data()),
    }
}

fn floats(left: f64, right: f64) -> Compared {
    if left == right || left.is_nan() && right.is_nan() {
        return Compared { equal: true, difference: 0.0 };
    }
    let difference = (left - right).abs() / left.abs().max(right.abs());
    // Of infinities and NaN nothing is near.
    let difference = if difference.is_finite() { difference } else { 1.0 };
    Compared { equal: difference <= TOLERANCE, difference }
}

fn integers(left: i64, right: i64) -> Compared {
    let apart = left.abs_diff(right);
    let larger = left.unsigned_abs().max(right.unsigned_abs());
    #[allow(clippy::cast_precision_loss)] // A ratio to look at.
    let difference = if apart == 0 { 0.0 } else { apart as f64 / larger as f64 };
    Compared { equal: apart == 0, difference }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Float64Array, Int64Array, ListArray, StringArray};

    use super::*;

    fn both(left: ArrayRef, right: ArrayRef) -> Vec<(bool, f64)> {
        let compared = (0..left.len()).map(|row| compare(&left, &right, row));
        compared.map(|compared| (compared.equal, compared.difference)).collect()
    }

    #[test]
    fn floats_are_compared_in_relation_to_their_size() {
        let left = [Some(1.0), Some(1e300), Some(f64::NAN), Some(0.0), Some(f64::INFINITY), None, None, Some(2.0)];
        let right =
            [Some(1.0 + 1e-12), Some(1.1e300), Some(f64::NAN), Some(-0.0), Some(1.0), None, Some(0.0), Some(-2.0)];
        let found = both(Arc::new(Float64Array::from(left.to_vec())), Arc::new(Float64Array::from(right.to_vec())));
        let equal: Vec<bool> = found.iter().map(|found| found.0).collect();
        assert_eq!(equal, [true, false, true, true, false, true, false, false]);
        assert!(found[0].1 > 0.0 && found[0].1 < 1e-11);
        assert!((found[1].1 - 0.0909).abs() < 1e-3);
        assert_eq!([found[3].1, found[4].1, found[7].1], [0.0, 1.0, 2.0]);
    }

    #[test]
    fn everything_else_is_equal_or_not() {
        let ints = both(Arc::new(Int64Array::from(vec![3, i64::MIN])), Arc::new(Int64Array::from(vec![4, i64::MIN])));
        assert_eq!(ints, [(false, 0.25), (true, 0.0)]);
        let texts = both(Arc::new(StringArray::from(vec!["a", "b"])), Arc::new(StringArray::from(vec!["a", "c"])));
        assert_eq!(texts, [(true, 0.0), (false, 0.0)]);
        assert!(!both(Arc::new(BooleanArray::from(vec![true])), Arc::new(StringArray::from(vec!["true"])))[0].0);
        let list = |rows: Vec<Vec<f64>>| {
            let rows = rows.into_iter().map(|row| Some(row.into_iter().map(Some).collect::<Vec<_>>()));
            Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(rows)) as ArrayRef
        };
        let lists = both(list(vec![vec![1.0, 2.0], vec![1.0], vec![]]), list(vec![vec![1.0, 4.0], vec![], vec![]]));
        assert_eq!(lists, [(false, 0.5), (false, 0.0), (true, 0.0)]);
    }
}
