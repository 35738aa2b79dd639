use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, StringArray,
};
use arrow::datatypes::Float64Type;
use headwater_core::definitions::ValueType;
use serde_json::{Value, json};

use super::super::json::{Cells, EntityColumns, format_time, parse_time, read_key};
use super::times;

#[test]
fn values_are_written_as_feast_writes_them() {
    let list = ListArray::from_iter_primitive::<Float64Type, _, _>([Some(vec![Some(0.5), None]), None, Some(vec![])]);
    let cases: Vec<(ArrayRef, Value)> = vec![
        (Arc::new(Int64Array::from(vec![Some(i64::MAX), None])), json!([9_223_372_036_854_775_807_i64, null])),
        (Arc::new(Int32Array::from(vec![-1])), json!([-1])),
        (Arc::new(Float32Array::from(vec![0.1, f32::NAN])), json!([0.100_000_001_490_116_12_f64, "NaN"])),
        (
            Arc::new(Float64Array::from(vec![0.1, 1.0, f64::INFINITY, f64::NEG_INFINITY])),
            json!([0.1, 1.0, "Infinity", "-Infinity"]),
        ),
        (Arc::new(StringArray::from(vec!["", "a\"b"])), json!(["", "a\"b"])),
        (Arc::new(BinaryArray::from(vec![&b""[..], &[0xff, 0]])), json!(["", "/wA="])),
        (Arc::new(BooleanArray::from(vec![true, false])), json!([true, false])),
        (
            times(&[Some(0), Some(1_000), Some(-1), None]),
            json!(["1970-01-01T00:00:00Z", "1970-01-01T00:00:00.001Z", "1969-12-31T23:59:59.999999Z", null]),
        ),
        (Arc::new(list), json!([[0.5, null], null, []])),
    ];
    for (column, expected) in cases {
        assert_eq!(serde_json::to_value(Cells(&column)).unwrap(), expected);
    }
}

#[test]
fn times_are_read_and_written() {
    for (text, expected) in [
        ("1970-01-01", 0),
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1970-01-01T00:00:01", 1_000_000),
        ("1970-01-01 01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
    ] {
        assert_eq!(parse_time(text).unwrap(), expected, "{text}");
    }
    for text in ["", "tomorrow", "1970-13-01", "1970-01-01T00:00:00.0000001Z"] {
        let error = parse_time(text).unwrap_err().to_string();
        assert!(error.contains(&format!("`{text}`")), "{error}");
    }
    assert_eq!(format_time(i64::MAX), format!("{}us", i64::MAX));
}

#[test]
fn keys_are_read_strictly() {
    for (value_type, good) in [
        ("int64", json!([1, 1001.0, null, -9_223_372_036_854_775_808_i64])),
        ("int32", json!([2_147_483_647])),
        ("string", json!(["1", ""])),
        ("bytes", json!(["/wA="])),
        ("bool", json!([true])),
        ("float32", json!([1, 0.1])),
        ("float64", json!([1, 0.1])),
        ("unix_timestamp", json!(["2026-01-01T00:00:00Z"])),
    ] {
        let value_type = ValueType::parse(value_type).unwrap();
        read_key("k", &value_type, good.as_array().unwrap()).unwrap();
    }
    for (value_type, wrong) in [
        ("int64", json!("1")),
        ("int64", json!(1.5)),
        ("int64", json!(1e300)),
        ("int64", json!(9_223_372_036_854_775_808_u64)),
        ("int64", json!(true)),
        ("int32", json!(2_147_483_648_i64)),
        ("string", json!(1)),
        ("bytes", json!("not base64!")),
        ("bool", json!(1)),
        ("float32", json!(1e300)),
        ("float64", json!("1")),
        ("unix_timestamp", json!(0)),
        ("int64", json!([1])),
        ("string", json!({})),
    ] {
        let parsed = ValueType::parse(value_type).unwrap();
        let error = read_key("k", &parsed, &[Value::Null, wrong.clone()]).unwrap_err().to_string();
        assert_eq!(error, format!("join key `k`, row 1: `{wrong}` is no `{value_type}`"));
    }
}

#[test]
fn entity_columns_keep_their_order_and_refuse_repeats() {
    let columns: EntityColumns = serde_json::from_str(r#"{"b": [1], "a": ["x"]}"#).unwrap();
    assert_eq!(columns, EntityColumns::default().column("b", [1]).column("a", ["x"]));
    let error = serde_json::from_str::<EntityColumns>(r#"{"a": [1], "a": [2]}"#).unwrap_err().to_string();
    assert!(error.starts_with("`a` is given twice"), "{error}");
    let error = serde_json::from_str::<EntityColumns>("[1]").unwrap_err().to_string();
    assert!(error.contains("an object of arrays"), "{error}");
}
