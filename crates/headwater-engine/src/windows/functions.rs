//! Which function takes which column, and what comes out.

use headwater_core::definitions::{AggregateFunction, ValueType};
use headwater_core::{Error, Result};

/// How many values `last_n` and `last_distinct_n` keep at most: each tile of a window keeps as many.
pub const MAX_N: u32 = 1000;

/// The type of a function's result over a column of this type; `None` stands for `count` without a column.
///
/// | function | columns | result |
/// | --- | --- | --- |
/// | `count` | every type, or no column | `int64` |
/// | `sum` | `int32`, `int64` | `int64` |
/// | `sum` | `float32`, `float64` | `float64` |
/// | `mean`, `stddev`, `approx_percentile` | numbers | `float64` |
/// | `min`, `max` | every type but lists | the column's |
/// | `last` | every type | the column's |
/// | `last_n`, `last_distinct_n` | every type but lists | a list of the column's |
/// | `approx_count_distinct` | every type but lists | `int64` |
///
/// # Errors
/// `Invalid` where the function does not take such a column, `n` is not in `1..=1000` or a percentile not in `0..=1`.
pub fn output_type(function: AggregateFunction, column: Option<&ValueType>) -> Result<ValueType> {
    use AggregateFunction as F;
    let Some(column) = column else {
        return match function {
            F::Count => Ok(ValueType::Int64),
            _ => Err(Error::invalid(format!("`{function}` needs a `column`; only `count` goes without one"))),
        };
    };
    let numbers = matches!(column, ValueType::Int32 | ValueType::Int64 | ValueType::Float32 | ValueType::Float64);
    let list = matches!(column, ValueType::Array(_));
    let unfit = |fit: &str| Err(Error::invalid(format!("`{function}` takes {fit}, not `{column}`")));
    match function {
        F::Sum | F::Mean | F::Stddev | F::ApproxPercentile { .. } if !numbers => {
            return unfit("`int32`, `int64`, `float32` and `float64` columns");
        }
        F::Min | F::Max | F::LastN { .. } | F::LastDistinctN { .. } | F::ApproxCountDistinct if list => {
            return unfit("columns that are no lists");
        }
        F::LastN { n } | F::LastDistinctN { n } if !(1..=MAX_N).contains(&n) => {
            return Err(Error::invalid(format!("`{function}` has `n: {n}`; it goes from 1 to {MAX_N}")));
        }
        F::ApproxPercentile { percentile } if !(0.0..=1.0).contains(&percentile) => {
            return Err(Error::invalid(format!(
                "`{function}` has `percentile: {percentile}`; it goes from 0 to 1, such as 0.95"
            )));
        }
        _ => {}
    }
    Ok(match function {
        F::Count | F::ApproxCountDistinct => ValueType::Int64,
        F::Sum if matches!(column, ValueType::Int32 | ValueType::Int64) => ValueType::Int64,
        F::Sum | F::Mean | F::Stddev | F::ApproxPercentile { .. } => ValueType::Float64,
        F::Min | F::Max | F::Last => column.clone(),
        F::LastN { .. } | F::LastDistinctN { .. } => ValueType::Array(Box::new(column.clone())),
    })
}

/// Whether a feature of type `declared` can hold results of type `natural`, as [`output_type`] gives it.
///
/// Whole numbers go into every number type and floats into both float types; a result that is then out of range is
/// null. Everything else has to be declared as what it is.
///
/// # Errors
/// `Invalid`, naming the types that would do.
pub fn check_type(natural: &ValueType, declared: &ValueType) -> Result<()> {
    use ValueType as T;
    let fits: &[ValueType] = match natural {
        T::Int32 | T::Int64 => &[T::Int32, T::Int64, T::Float32, T::Float64],
        T::Float32 | T::Float64 => &[T::Float32, T::Float64],
        other => std::slice::from_ref(other),
    };
    if fits.contains(declared) {
        return Ok(());
    }
    let names: Vec<String> = fits.iter().map(|fit| format!("`{fit}`")).collect();
    Err(Error::invalid(format!("its values are `{natural}`: declare {} instead of `{declared}`", names.join(" or "))))
}
