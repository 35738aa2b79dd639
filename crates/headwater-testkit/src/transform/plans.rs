//! Planning and applying.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, Int64Builder, ListBuilder, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use headwater_core::transform::{PlannedTransform, Transformed};
use headwater_core::{Error, ErrorKind};

use super::{Case, TransformFixture, input};
use crate::clause::{applicable, ensure, same};
use crate::rows::{name_of, time_of};
use crate::{Random, Stop, Verdict, seeds};

/// One input row.
#[derive(Debug, Clone)]
struct Row {
    id: i64,
    value: Option<f64>,
    divisor: i64,
    items: Option<Vec<Option<i64>>>,
}

/// Random rows: values of either sign and null, lists that are null, empty and hold nulls.
fn some_rows(seed: u64, count: i64) -> Vec<Row> {
    let mut random = Random::new(seed);
    (0..count)
        .map(|id| Row {
            id,
            value: [None, Some(-1.5), Some(0.0), Some(2.25)][random.below(4)],
            divisor: [1, 2, 5][random.below(3)],
            items: match random.below(4) {
                0 => None,
                length => Some((1..length).map(|_| [None, Some(id), Some(-id)][random.below(3)]).collect()),
            },
        })
        .collect()
}

fn batch(rows: &[Row]) -> Verdict<RecordBatch> {
    let mut items = ListBuilder::new(Int64Builder::new());
    for row in rows {
        match &row.items {
            None => items.append_null(),
            Some(list) => items.append_value(list.clone()),
        }
    }
    let times = rows.iter().map(|row| time_of(row.id));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.id).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| Some(name_of(row.id))).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.value).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|row| row.divisor).collect::<Int64Array>()),
        Arc::new(items.finish()),
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")),
    ];
    Ok(RecordBatch::try_new(input(), columns)?)
}

fn planned<F: TransformFixture>(fixture: &F, case: Case) -> Verdict<Arc<dyn PlannedTransform>> {
    Ok(applicable(fixture.transform(case))?.plan(&input())?)
}

/// Why the fixture or the plan refuses a case.
fn refused<F: TransformFixture>(fixture: &F, case: Case) -> Verdict<Error> {
    let refused = match fixture.transform(case) {
        Ok(transform) => transform.plan(&input()).err(),
        Err(error) if error.kind() == ErrorKind::Unsupported => return Err(Stop::Skipped(error.to_string())),
        Err(error) => Some(error),
    };
    let Some(error) = refused else { return Err(Stop::Failed(format!("{case:?} was planned"))) };
    same!(error.kind(), ErrorKind::Invalid, "the kind of the error for {case:?}: `{error}`");
    Ok(error)
}

/// The input row of each output row.
fn inputs_of(transformed: &Transformed) -> Verdict<Vec<usize>> {
    match &transformed.inputs {
        None => Ok((0..transformed.rows.num_rows()).collect()),
        Some(inputs) => Ok(inputs.iter().flatten().map(usize::try_from).collect::<Result<_, _>>()?),
    }
}

fn integers(rows: &RecordBatch, column: &str) -> Verdict<Vec<Option<i64>>> {
    let column = rows.column_by_name(column).ok_or_else(|| Stop::Failed(format!("no column `{column}`")))?;
    Ok(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().iter().collect())
}

fn floats(rows: &RecordBatch, column: &str) -> Verdict<Vec<Option<f64>>> {
    let column = rows.column_by_name(column).ok_or_else(|| Stop::Failed(format!("no column `{column}`")))?;
    Ok(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().iter().collect())
}

/// The cases whose rows come out.
const COMPUTED: [Case; 5] = [Case::Everything, Case::Project, Case::Filter, Case::Unnest, Case::FilterAndUnnest];

/// Plans each computed case that can be said; skips where there is none.
fn computed<F: TransformFixture>(fixture: &F) -> Verdict<Vec<(Case, Arc<dyn PlannedTransform>)>> {
    let mut plans = Vec::new();
    for case in COMPUTED {
        match planned(fixture, case) {
            Ok(plan) => plans.push((case, plan)),
            Err(Stop::Skipped(_)) => {}
            Err(failed) => return Err(failed),
        }
    }
    if plans.is_empty() {
        return Err(Stop::Skipped("the fixture makes no transform".into()));
    }
    Ok(plans)
}

pub(super) async fn output<F: TransformFixture>(fixture: Arc<F>) -> Verdict {
    for (case, plan) in computed(fixture.as_ref())? {
        let rows = plan.apply(&batch(&some_rows(1, 50))?)?.rows;
        same!(rows.schema().fields(), plan.output().fields(), "the columns of {case:?}");
    }
    let plan = planned(fixture.as_ref(), Case::Project)?;
    let names = plan.output().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    same!(names, vec!["doubled".to_owned(), "id".to_owned()], "the columns' names");
    Ok(())
}

pub(super) async fn everything<F: TransformFixture>(fixture: Arc<F>) -> Verdict {
    let plan = planned(fixture.as_ref(), Case::Everything)?;
    let rows = batch(&some_rows(2, 100))?;
    let out = plan.apply(&rows)?;
    same!(inputs_of(&out)?, (0..100).collect::<Vec<_>>(), "input rows");
    for field in input().fields() {
        ensure!(
            out.rows.column_by_name(field.name()) == rows.column_by_name(field.name()),
            "the column `{}` came out changed",
            field.name()
        );
    }
    Ok(())
}

pub(super) async fn projects<F: TransformFixture>(fixture: Arc<F>) -> Verdict {
    let plan = planned(fixture.as_ref(), Case::Project)?;
    let rows = some_rows(3, 100);
    let out = plan.apply(&batch(&rows)?)?;
    same!(integers(&out.rows, "id")?, rows.iter().map(|r| Some(r.id)).collect::<Vec<_>>(), "ids");
    let doubled = rows.iter().map(|r| r.value.map(|v| v * 2.0)).collect::<Vec<_>>();
    same!(floats(&out.rows, "doubled")?, doubled, "doubled values");
    same!(inputs_of(&out)?, (0..100).collect::<Vec<_>>(), "input rows");
    Ok(())
}

pub(super) async fn filters<F: TransformFixture>(fixture: Arc<F>) -> Verdict {
    let plan = planned(fixture.as_ref(), Case::Filter)?;
    for seed in seeds(5) {
        let rows = some_rows(seed, 60);
        let out = plan.apply(&batch(&rows)?)?;
        let kept = rows.iter().filter(|r| r.value.is_some_and(|v| v > 0.0)).map(|r| Some(r.id)).collect::<Vec<_>>();
        same!(integers(&out.rows, "id")?, kept, "seed {seed}: rows with a positive value");
    }
    Ok(())
}

pub(super) async fn unnests<F: TransformFixture>(fixture: Arc<F>) -> Verdict {
    for (case, positive) in [(Case::Unnest, false), (Case::FilterAndUnnest, true)] {
        let plan = planned(fixture.as_ref(), case)?;
        for seed in seeds(5) {
            let rows = some_rows(seed, 60);
            let out = plan.apply(&batch(&rows)?)?;
            let (mut ids, mut items) = (Vec::new(), Vec::new());
            for row in rows.iter().filter(|row| !positive || row.value.is_some_and(|v| v > 0.0)) {
                for item in row.items.iter().flatten() {
                    ids.push(Some(row.id));
                    items.push(*item);
                }
            }
            same!(integers(&out.rows, "id")?, ids, "seed {seed}: ids of {case:?}");
            same!(integers(&out.rows, "item")?, items, "seed {seed}: items of {case:?}");
        }
    }
    Ok(())
}

pub(super) async fn inputs<F: TransformFixture>(fixture: Arc<F>) -> Verdict {
    for (case, plan) in computed(fixture.as_ref())? {
        for seed in seeds(5) {
            let rows = some_rows(seed, 60);
            let out = plan.apply(&batch(&rows)?)?;
            let inputs = inputs_of(&out)?;
            let of = format!("seed {seed}, {case:?}");
            same!(inputs.len(), out.rows.num_rows(), "{of}: input rows named");
            for (input, id) in inputs.iter().zip(integers(&out.rows, "id")?) {
                same!(rows.get(*input).map(|row| row.id), id, "{of}: the input row of an output row");
            }
        }
    }
    Ok(())
}

pub(super) async fn order<F: TransformFixture>(fixture: Arc<F>) -> Verdict {
    for (case, plan) in computed(fixture.as_ref())? {
        let mut rows = some_rows(7, 60);
        rows.reverse();
        let out = plan.apply(&batch(&rows)?)?;
        ensure!(inputs_of(&out)?.is_sorted(), "{case:?}: indices of input rows do not ascend");
        let ids = integers(&out.rows, "id")?;
        ensure!(ids.is_sorted_by(|one, two| one >= two), "{case:?}: rows stand in another order than their input");
    }
    Ok(())
}

pub(super) async fn slices<F: TransformFixture>(fixture: Arc<F>) -> Verdict {
    for (case, plan) in computed(fixture.as_ref())? {
        for seed in seeds(5) {
            let rows = batch(&some_rows(seed, 64))?;
            let whole = plan.apply(&rows)?;
            let mut random = Random::new(seed);
            let (mut parts, mut inputs, mut first) = (Vec::new(), Vec::new(), 0);
            while first < rows.num_rows() {
                let length = (1 + random.below(20)).min(rows.num_rows() - first);
                let part = plan.apply(&rows.slice(first, length))?;
                inputs.extend(inputs_of(&part)?.into_iter().map(|input| input + first));
                parts.push(part.rows);
                first += length;
            }
            let parts = concat_batches(&whole.rows.schema(), &parts)?;
            ensure!(parts == whole.rows, "seed {seed}, {case:?}: slices give other rows than the whole");
            same!(inputs, inputs_of(&whole)?, "seed {seed}, {case:?}: input rows of slices");
        }
    }
    Ok(())
}

pub(super) async fn deterministic<F: TransformFixture>(fixture: Arc<F>) -> Verdict {
    for (case, plan) in computed(fixture.as_ref())? {
        let rows = batch(&some_rows(9, 100))?;
        let first = plan.apply(&rows)?;
        for again in [plan.apply(&rows)?, planned(fixture.as_ref(), case)?.apply(&rows)?] {
            ensure!(again.rows == first.rows, "{case:?}: equal input gave other rows");
            same!(inputs_of(&again)?, inputs_of(&first)?, "{case:?}: input rows");
        }
    }
    Ok(())
}

pub(super) async fn empty<F: TransformFixture>(fixture: Arc<F>) -> Verdict {
    for (case, plan) in computed(fixture.as_ref())? {
        let out = plan.apply(&RecordBatch::new_empty(input()))?;
        same!(out.rows.num_rows(), 0, "{case:?}: rows of no rows");
        same!(out.rows.schema().fields(), plan.output().fields(), "{case:?}: columns of no rows");
        same!(out.inputs.as_ref().map_or(0, UInt32Array::len), 0, "{case:?}: input rows of no rows");
    }
    Ok(())
}

pub(super) async fn data_errors<F: TransformFixture>(fixture: Arc<F>) -> Verdict {
    let plan = planned(fixture.as_ref(), Case::Divide)?;
    let mut rows = some_rows(11, 16);
    let good = plan.apply(&batch(&rows)?)?;
    let quotients = rows.iter().map(|row| Some(100 / row.divisor)).collect::<Vec<_>>();
    same!(integers(&good.rows, "quotient")?, quotients, "quotients");
    rows[5].divisor = 0;
    rows[11].divisor = 0;
    let rows = batch(&rows)?;
    let kind = plan.apply(&rows).map_err(|error| error.kind()).err();
    same!(kind, Some(ErrorKind::Data), "the error of a batch with rows that cannot be computed");
    // Alone, the others can, and those at fault cannot.
    for row in 0..rows.num_rows() {
        let kind = plan.apply(&rows.slice(row, 1)).map_err(|error| error.kind()).err();
        same!(kind, (row == 5 || row == 11).then_some(ErrorKind::Data), "the error of row {row} alone");
    }
    Ok(())
}

pub(super) async fn fingerprints<F: TransformFixture>(fixture: Arc<F>) -> Verdict {
    let plans = computed(fixture.as_ref())?;
    for (case, plan) in &plans {
        let again = planned(fixture.as_ref(), *case)?;
        same!(again.fingerprint(), plan.fingerprint(), "the fingerprint of {case:?}, planned again");
        let columns = plan.fingerprint().columns.into_keys().collect::<Vec<_>>();
        let mut expected = plan.output().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        expected.sort();
        same!(columns, expected, "the columns in the fingerprint of {case:?}");
        let every_record = matches!(case, Case::Everything | Case::Project);
        same!(plan.fingerprint().rows.is_empty(), every_record, "whether the rows of {case:?} need no words");
    }
    for (index, (case, plan)) in plans.iter().enumerate() {
        for (other, other_plan) in plans.iter().skip(index + 1) {
            ensure!(plan.fingerprint() != other_plan.fingerprint(), "{case:?} and {other:?} have one fingerprint");
        }
    }
    Ok(())
}

pub(super) async fn unknown<F: TransformFixture>(fixture: Arc<F>) -> Verdict {
    for (case, name) in [(Case::UnknownColumn, "no_such_column"), (Case::UnknownFunction, "no_such_function")] {
        let error = refused(fixture.as_ref(), case)?;
        ensure!(error.to_string().contains(name), "the error for {case:?} does not name `{name}`: `{error}`");
    }
    Ok(())
}

pub(super) async fn not_row_wise<F: TransformFixture>(fixture: Arc<F>) -> Verdict {
    let named: [(Case, &[&str]); 6] = [
        (Case::Aggregate, &["sum", "aggregate", "group by"]),
        (Case::Join, &["join"]),
        (Case::Window, &["row_number", "window", "over"]),
        (Case::Sort, &["order by", "sort"]),
        (Case::Limit, &["limit"]),
        (Case::Distinct, &["distinct"]),
    ];
    for (case, words) in named {
        let error = refused(fixture.as_ref(), case)?;
        let text = error.to_string().to_lowercase();
        ensure!(words.iter().any(|word| text.contains(word)), "the error for {case:?} does not say so: `{error}`");
    }
    Ok(())
}

pub(super) async fn not_deterministic<F: TransformFixture>(fixture: Arc<F>) -> Verdict {
    for (case, name) in [(Case::Now, "now"), (Case::Random, "random")] {
        let error = refused(fixture.as_ref(), case)?;
        ensure!(error.to_string().contains(name), "the error for {case:?} does not name `{name}`: `{error}`");
    }
    Ok(())
}
