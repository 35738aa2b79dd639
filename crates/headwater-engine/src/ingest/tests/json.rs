use std::sync::Arc;

use arrow::array::{Array, BinaryArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use arrow::util::display::array_value_to_string;
use headwater_core::definitions::timestamp_type;

use crate::ingest::json::JsonDecoder;

/// Decodes one value of a column `x` and shows it, or why it failed.
fn check(data_type: &DataType, value: &str, expected: &str) {
    let fields = Fields::from(vec![Field::new("x", data_type.clone(), true)]);
    let decoder = JsonDecoder::new(fields, Some(TimeUnit::Millisecond), false).unwrap();
    let record = format!(r#"{{"y": 1, "x": {value}, "z": null}}"#);
    let good = br#"{"x": null}"#;
    let decoded = decoder.decode(&BinaryArray::from(vec![good.as_slice(), record.as_bytes(), good])).unwrap();
    let column = &decoded.columns[0];
    assert_eq!((column.len(), column.data_type()), (3, data_type));
    let shown = match decoded.failures.as_slice() {
        [] => array_value_to_string(column, 1).unwrap(),
        [failure] => {
            assert_eq!(failure.row, 1);
            failure.reason.strip_prefix("column `x`: ").unwrap().to_owned()
        }
        more => panic!("{more:?}"),
    };
    assert_eq!(shown, expected, "{value} as {data_type}");
}

#[test]
fn values_go_into_columns_without_loss_or_not_at_all() {
    use DataType::*;
    let naive = Timestamp(TimeUnit::Microsecond, None);
    let list = List(Arc::new(Field::new("item", Int32, true)));
    let object = Struct(Fields::from(vec![Field::new("a", Int64, true), Field::new("b", Utf8, true)]));
    for (data_type, value, expected) in [
        (&Int64, "9223372036854775807", "9223372036854775807"),
        (&Int64, "-9223372036854775808", "-9223372036854775808"),
        (&Int64, "9223372036854775808", "`9223372036854775808` does not go into int64 without loss"),
        (&Int64, "1e3", "1000"),
        (&Int64, "1.5", "`1.5` does not go into int64 without loss"),
        (&Int64, "\"12\"", "12"),
        (&Int64, "\"x\"", "text `x` does not go into int64 without loss"),
        (&Int64, "true", "`true` does not go into int64 without loss"),
        (&Int64, "[1]", "a list is not int64"),
        (&Int32, "2147483648", "`2147483648` does not go into int32 without loss"),
        (&Int8, "-128", "-128"),
        (&Float64, "0.1", "0.1"),
        (&Float64, "8.41e-5", "0.0000841"),
        (&Float64, "\"1e400\"", "text `1e400` does not go into float64 without loss"),
        (&Float32, "1e39", "`1000000000000000000000000000000000000000` does not go into float32 without loss"),
        (&Float32, "0.1", "0.1"),
        (&Float64, "18446744073709551615", "1.8446744073709552e19"),
        (&Boolean, "true", "true"),
        (&Boolean, "\"maybe\"", "text `maybe` does not go into bool without loss"),
        (&Utf8, "\"a\\u00e9\\n\"", "aé\n"),
        (&Utf8, "12", "12"),
        (&Utf8, "{}", "an object is not text"),
        (&Binary, "\"aGk=\"", "6869"),
        (&Binary, "\"?\"", "text `?` does not go into bytes (base64) without loss"),
        (&naive, "\"2021-04-12T10:59:42+02:00\"", "2021-04-12T08:59:42"),
        (&naive, "1618225182001", "2021-04-12T10:59:42.001"),
        (&naive, "0.0001", "`0.0001` is finer than a microsecond"),
        (&naive, "\"soon\"", "`soon` is not a time (RFC 3339)"),
        (&Date32, "\"2021-04-12\"", "2021-04-12"),
        (&Date32, "\"2021-04-12T01:00:00\"", "text `2021-04-12T01:00:00` does not go into a date without loss"),
        (&Decimal128(10, 2), "12.34", "12.34"),
        (&Decimal128(10, 2), "\"-0.5\"", "-0.50"),
        (&Decimal128(10, 2), "0.125", "`0.125` does not go into decimal(10,2) without loss"),
        (&Decimal128(3, 2), "10", "`10` does not go into decimal(3,2) without loss"),
        (&list, "[1, null, 3]", "[1, , 3]"),
        (&list, "[1, 2.5]", "element 1: `2.5` does not go into int32 without loss"),
        (&list, "7", "`7` does not go into a list without loss"),
        (&object, r#"{"b": "t", "c": 1, "a": 1, "a": 2}"#, "{a: 2, b: t}"),
        (&object, r#"{"a": "?"}"#, "field `a`: text `?` does not go into int64 without loss"),
    ] {
        check(data_type, value, expected);
    }
}

#[test]
fn numbers_are_times_only_with_a_unit() {
    let fields = Fields::from(vec![Field::new("t", timestamp_type(), true)]);
    let decoder = JsonDecoder::new(fields, None, false).unwrap();
    let decoded = decoder.decode(&BinaryArray::from(vec![br#"{"t": 5}"#.as_slice()])).unwrap();
    assert_eq!(
        decoded.failures[0].reason,
        "column `t`: number `5` is a time only where `timestamp_unit` says what it counts"
    );
}

#[test]
fn maps_columns_and_missing_keys_find_their_place() {
    let entries =
        Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int64, true)]);
    let map = DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false);
    let fields = Fields::from(vec![
        Field::new("m", map, true),
        Field::new("a", DataType::Int64, true),
        Field::new("needed", DataType::Int64, false),
    ]);
    let decoder = JsonDecoder::new(fields.clone(), None, false).unwrap();
    let records = [
        r#"{"needed": 1, "m": {"x": 1, "y": null}}"#,
        r#"{"a": 1, "a": 2, "needed": 2, "m": {}}"#,
        r#"{"a": 1}"#,
        r#"{"needed": 1} {"needed": 2}"#,
        "\u{feff}{}",
        "",
    ];
    let records = records.iter().map(|record| record.as_bytes()).collect::<Vec<_>>();
    let decoded = decoder.decode(&BinaryArray::from(records)).unwrap();
    assert_eq!(decoded.failures.iter().map(|failure| failure.row).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert_eq!(decoded.failures[0].reason, "column `needed`: must not be null");
    assert_eq!(array_value_to_string(&decoded.columns[0], 0).unwrap(), "{x: 1, y: }");
    assert_eq!(array_value_to_string(&decoded.columns[1], 1).unwrap(), "2", "of repeated keys the last counts");
    let fields = fields.iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), decoded.columns).unwrap();
}

#[test]
fn types_that_json_does_not_reach_are_refused() {
    let fields = Fields::from(vec![Field::new("x", DataType::Duration(TimeUnit::Second), true)]);
    let error = JsonDecoder::new(fields, None, false).unwrap_err();
    assert!(error.to_string().contains("column `x`: records are not decoded to type"), "{error}");
}

/// No bytes make the decoder panic, and it gives a row for each.
#[test]
fn any_bytes_are_decoded_or_refused() {
    let fields = Fields::from(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true),
    ]);
    let decoder = JsonDecoder::new(fields, None, false).unwrap();
    for seed in headwater_testkit::seeds(300) {
        let mut random = headwater_testkit::Random::new(seed);
        let mut record = br#"{"a": 12, "b": ["x", null, "\u0041"], "c": {"d": [1e5, true]}}"#.to_vec();
        for _ in 0..1 + random.below(4) {
            let at = random.below(record.len());
            record[at] = random.bytes(1)[0];
        }
        record.truncate(record.len() - random.below(3));
        let decoded = decoder.decode(&BinaryArray::from(vec![record.as_slice()])).unwrap();
        assert_eq!(decoded.columns[0].len(), 1);
        assert_eq!(decoded.columns[1].len(), 1);
    }
}
