use arrow::array::{AsArray, Int64Array, ListArray, StringArray, TimestampSecondArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use headwater_core::ErrorKind;

use super::*;

fn list(name: &str, element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new(name, element, true)))
}

fn time(unit: TimeUnit, zone: Option<&str>) -> DataType {
    DataType::Timestamp(unit, zone.map(Arc::from))
}

#[test]
fn the_wider_type_counts() {
    use DataType::{
        Boolean, Date32, Float32, Float64, Int8, Int16, Int32, Int64, LargeUtf8, Null, UInt32, UInt64, Utf8,
    };
    use TimeUnit::{Microsecond, Millisecond, Nanosecond};
    let dictionary = DataType::Dictionary(Box::new(Int32), Box::new(Utf8));
    let cases = [
        (Int32, Int64, Some(Int64)),
        (Int16, Int8, Some(Int16)),
        (UInt32, Int8, Some(Int64)),
        (UInt64, Int64, None),
        (Int64, Float64, Some(Float64)),
        (Float32, Float32, Some(Float32)),
        (Float32, Float64, Some(Float64)),
        (Float64, DataType::Decimal128(10, 2), None),
        (Null, Boolean, Some(Boolean)),
        (Utf8, LargeUtf8, Some(Utf8)),
        (DataType::Utf8View, dictionary.clone(), Some(Utf8)),
        (dictionary.clone(), dictionary.clone(), Some(dictionary)),
        (time(Millisecond, None), time(Microsecond, None), Some(time(Microsecond, None))),
        (time(Nanosecond, Some("+01:00")), time(Millisecond, None), Some(time(Nanosecond, Some("UTC")))),
        (Date32, time(Millisecond, None), None),
        (Utf8, Int64, None),
        (Boolean, Int8, None),
        (list("item", Int32), list("element", Int64), Some(list("item", Int64))),
        (list("item", Utf8), list("item", Int64), None),
    ];
    for (left, right, expected) in cases {
        assert_eq!(common_type(&left, &right), expected, "{left} and {right}");
        let back = common_type(&right, &left);
        assert_eq!(back.is_some(), expected.is_some(), "{right} and {left}");
    }
}

#[test]
fn a_conflict_names_column_types_and_both_files() {
    let schema =
        |data_type| Schema::new(vec![Field::new("a", DataType::Int8, true), Field::new("x", data_type, false)]);
    let mut union = Union::default();
    union.add(&schema(DataType::Int32), "one").unwrap();
    union.add(&schema(DataType::Int64), "two").unwrap();
    let error = union.add(&schema(DataType::Boolean), "three").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.message(), "column `x` is Int64 in `two` and Boolean in `three`");
}

#[test]
fn a_column_that_a_file_lacks_is_nullable() {
    let mut union = Union::default();
    union.add(&Schema::new(vec![Field::new("a", DataType::Int8, false)]), "one").unwrap();
    let both = vec![Field::new("b", DataType::Int8, false), Field::new("a", DataType::Int8, false)];
    union.add(&Schema::new(both), "two").unwrap();
    assert!(union.contains("b") && !union.contains("c"));
    let nullable: Vec<_> = union.finish().iter().map(|field| (field.name().clone(), field.is_nullable())).collect();
    assert_eq!(nullable, [("a".to_owned(), false), ("b".to_owned(), true)]);
}

#[test]
fn batches_are_brought_into_the_form_of_the_table() {
    let wanted: Vec<FieldRef> = vec![
        Arc::new(Field::new("k", DataType::Utf8, true)),
        Arc::new(Field::new("at", time(TimeUnit::Microsecond, Some("UTC")), true)),
        Arc::new(Field::new("gone", DataType::Int64, true)),
        Arc::new(Field::new("list", list("item", DataType::Int64), true)),
    ];
    let at: ArrayRef = Arc::new(TimestampSecondArray::from(vec![1, 2]));
    let numbers = vec![Some(vec![Some(1)]), None];
    let numbers: ArrayRef = Arc::new(ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>(numbers));
    let unused: ArrayRef = Arc::new(Int64Array::from(vec![0, 0]));
    let file = RecordBatch::try_from_iter([("unused", unused), ("list", numbers), ("at", at)]).unwrap();
    let constants = HashMap::from([("k".to_owned(), Arc::new(StringArray::from(vec!["v"])) as ArrayRef)]);
    let alignment = Alignment::new(&wanted, &file.schema(), &constants, "f");
    assert_eq!(alignment.decode(), [1, 2]);
    let rows = alignment.apply(&file.project(alignment.decode()).unwrap()).unwrap();
    assert_eq!(rows["k"].as_string::<i32>().value(1), "v");
    assert_eq!(rows["at"].as_primitive::<TimestampMicrosecondType>().values(), &[1_000_000, 2_000_000]);
    assert_eq!(rows["gone"].null_count(), 2);
    assert_eq!(rows["list"].as_list::<i32>().value(0).as_primitive::<Int64Type>().values(), &[1]);
}

#[test]
fn a_value_that_does_not_fit_is_an_error_that_names_the_file_and_column() {
    let wanted: Vec<FieldRef> = vec![Arc::new(Field::new("at", time(TimeUnit::Nanosecond, None), true))];
    let at: ArrayRef = Arc::new(TimestampSecondArray::from(vec![i64::MAX / 2]));
    let file = RecordBatch::try_from_iter([("at", at)]).unwrap();
    let error = Alignment::new(&wanted, &file.schema(), &HashMap::new(), "f.parquet").apply(&file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("f.parquet") && error.to_string().contains("at"), "{error}");
}
