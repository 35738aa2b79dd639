use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use headwater_core::definitions::{ValueType, timestamp_type};

use super::*;

/// Casts and shows: `Ok` values as text, failures as `row: reason`.
fn check(array: impl Array + 'static, to: &DataType, unit: Option<TimeUnit>, expected: &str) {
    let array: ArrayRef = Arc::new(array);
    let casted = cast(&array, to, unit).unwrap();
    assert_eq!(casted.array.data_type(), to);
    assert_eq!(casted.array.len(), array.len());
    let failed = casted.failures.iter().map(|f| f.row).collect::<Vec<_>>();
    assert!(failed.is_sorted(), "{failed:?}");
    let shown = (0..array.len())
        .map(|row| match casted.failures.iter().find(|f| f.row == row) {
            Some(_) => {
                assert!(casted.array.is_null(row), "a failed row is null");
                "!".to_owned()
            }
            None if casted.array.is_null(row) => "null".to_owned(),
            None => show(&casted.array, row),
        })
        .collect::<Vec<_>>();
    assert_eq!(shown.join(" "), expected, "{:?} to {to}: {:?}", array.data_type(), casted.failures);
}

#[test]
fn integers_overflow_into_failures() {
    let wide = Int64Array::from(vec![Some(1), None, Some(i64::from(i32::MAX) + 1), Some(-5)]);
    check(wide, &DataType::Int32, None, "1 null ! -5");
    check(UInt64Array::from(vec![1, u64::MAX]), &DataType::Int64, None, "1 !");
    check(Int16Array::from(vec![1, -1]), &DataType::Int64, None, "1 -1");
}

#[test]
fn a_fraction_does_not_go_into_an_integer() {
    let floats = Float64Array::from(vec![1.0, 1.5, -0.0, f64::NAN, f64::INFINITY, 1e30, 9_007_199_254_740_993.0]);
    check(floats, &DataType::Int64, None, "1 ! 0 ! ! ! 9007199254740992");
    let decimals = Decimal128Array::from(vec![100, 150]).with_precision_and_scale(10, 2).unwrap();
    check(decimals, &DataType::Int64, None, "1 !");
}

#[test]
fn rounding_to_a_float_is_no_loss_but_infinity_is() {
    let floats = Float64Array::from(vec![0.1, 1e39, f64::INFINITY, f64::NAN]);
    check(floats, &DataType::Float32, None, "0.1 ! inf NaN");
    check(Int64Array::from(vec![i64::MAX]), &DataType::Float32, None, "9.223372e18");
    check(StringArray::from(vec!["1.5", "1e400", "inf", "x"]), &DataType::Float64, None, "1.5 ! inf !");
    let decimals = Decimal128Array::from(vec![12345]).with_precision_and_scale(10, 2).unwrap();
    check(decimals, &DataType::Float64, None, "123.45");
}

#[test]
fn text_has_to_parse() {
    check(StringArray::from(vec![Some("7"), None, Some("7.5"), Some("seven")]), &DataType::Int64, None, "7 null ! !");
    check(LargeStringArray::from(vec!["7", ""]), &DataType::Int32, None, "7 !");
    check(StringViewArray::from(vec!["true", "false", "maybe"]), &DataType::Boolean, None, "true false !");
    check(Int64Array::from(vec![7]), &DataType::Utf8, None, "7");
    check(BinaryArray::from(vec![b"ok".as_slice(), b"\xff"]), &DataType::Utf8, None, "ok !");
}

#[test]
fn a_number_is_a_truth_value_only_as_zero_or_one() {
    check(Int64Array::from(vec![0, 1, 2]), &DataType::Boolean, None, "false true !");
}

#[test]
fn dictionaries_and_nulls_are_their_values() {
    let dictionary: DictionaryArray<Int32Type> = vec![Some("5"), None, Some("x"), Some("5")].into_iter().collect();
    check(dictionary, &DataType::Int64, None, "5 null ! 5");
    check(NullArray::new(2), &DataType::Int64, None, "null null");
}

#[test]
fn lists_fail_as_a_whole() {
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
        Some(vec![Some(1), None]),
        None,
        Some(vec![Some(1), Some(i64::MAX), Some(i64::MIN)]),
        Some(vec![]),
    ]);
    let to = ValueType::Array(Box::new(ValueType::Int32)).to_arrow();
    check(lists.clone(), &to, None, "[1, ] null ! []");
    let casted = cast(&(Arc::new(lists) as ArrayRef), &to, None).unwrap();
    assert_eq!(casted.failures[0].reason, "element 1: `9223372036854775807` does not go into Int32 without loss");
}

#[test]
fn times_come_as_text_numbers_dates_and_other_units() {
    let us = timestamp_type();
    let micros = |array: ArrayRef, unit| {
        let casted = cast(&array, &timestamp_type(), unit).unwrap();
        let values = casted.array.as_primitive::<TimestampMicrosecondType>().iter().collect::<Vec<_>>();
        (values, casted.failures.len())
    };
    let t = 1_618_225_182_000_000_i64;
    let texts = StringArray::from(vec![
        "2021-04-12T10:59:42Z",
        "2021-04-12 10:59:42",
        "2021-04-12T12:59:42+02:00",
        "2021-04-12T10:59:42.000001Z",
        "2021-04-12T10:59:42.1234567Z",
        "2021-02-29",
        "yesterday",
    ]);
    let (values, failed) = micros(Arc::new(texts), None);
    assert_eq!(values, [Some(t), Some(t), Some(t), Some(t + 1), None, None, None]);
    assert_eq!(failed, 3);
    let seconds = Int64Array::from(vec![1_618_225_182, i64::MAX]);
    assert_eq!(micros(Arc::new(seconds.clone()), Some(TimeUnit::Second)), (vec![Some(t), None], 1));
    assert_eq!(micros(Arc::new(seconds), None), (vec![None, None], 2));
    let floats = Float64Array::from(vec![1_618_225_182.000_001, 1.000_000_1, f64::NAN]);
    assert_eq!(micros(Arc::new(floats), Some(TimeUnit::Second)), (vec![Some(t + 1), None, None], 2));
    let millis = TimestampMillisecondArray::from(vec![t / 1_000]).with_timezone("America/New_York");
    assert_eq!(micros(Arc::new(millis), None), (vec![Some(t)], 0));
    let nanos = TimestampNanosecondArray::from(vec![t * 1_000, t * 1_000 + 1]);
    assert_eq!(micros(Arc::new(nanos), None), (vec![Some(t), None], 1));
    assert_eq!(micros(Arc::new(TimestampMicrosecondArray::from(vec![t])), None), (vec![Some(t)], 0));
    assert_eq!(micros(Arc::new(Date32Array::from(vec![1])), None), (vec![Some(86_400_000_000)], 0));
    check(BooleanArray::from(vec![true]), &us, None, "!");
    let zoned = TimestampMicrosecondArray::from(vec![t]).with_timezone("UTC");
    check(zoned, &DataType::Utf8, None, "2021-04-12T10:59:42");
}

#[test]
fn every_day_has_its_number() {
    for (text, micros) in [
        ("1970-01-01", 0),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2000-02-29T00:00:00-00:30", 951_784_200_000_000),
        ("0001-01-01", -62_135_596_800_000_000),
        ("9999-12-31T23:59:59Z", 253_402_300_799_000_000),
    ] {
        assert_eq!(parse_time(text), Ok(micros), "{text}");
    }
    for text in [
        "",
        "2021",
        "2021-13-01",
        "2021-00-10",
        "2021-01-01T",
        "2021-01-01T24:00:00",
        "2021-01-01T10:00:00.Z",
        "2021-01-01T10:00:00+1",
        "2021-01-01T10:00:00ZZ",
        "२०२१-01-01T10:00:00",
    ] {
        assert!(parse_time(text).is_err(), "{text}");
    }
}

#[test]
fn a_batch_reports_the_first_fault_of_each_row() {
    let batch = RecordBatch::try_from_iter([
        ("value", Arc::new(StringArray::from(vec!["1", "x", "3", "y"])) as ArrayRef),
        ("key", Arc::new(Int64Array::from(vec![Some(1), Some(2), None, None])) as ArrayRef),
    ])
    .unwrap();
    let schema = Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("value", DataType::Int64, true),
    ]));
    let (columns, failures) = cast_batch(&batch, &schema, None).unwrap();
    let shown = failures.iter().map(|f| format!("{} {}", f.row, f.reason)).collect::<Vec<_>>();
    assert_eq!(
        shown,
        [
            "1 column `value`: `x` does not go into Int64 without loss",
            "2 column `key`: must not be null",
            "3 column `key`: must not be null",
        ]
    );
    let (kept, indices) = without(columns, &schema, 4, &failures).unwrap();
    assert_eq!((kept.num_rows(), indices.unwrap().values().to_vec()), (1, vec![0]));
    let missing = cast_batch(&batch.project(&[0]).unwrap(), &schema, None).unwrap_err();
    assert!(missing.to_string().contains("there is no column `key` among `value`"), "{missing}");
}
