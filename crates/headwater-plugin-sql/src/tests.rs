//! What statements give, what they are refused for, and what is recognised as the same.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::json::writer::{LineDelimited, WriterBuilder};
use headwater_core::transform::{Fingerprint, PlannedTransform};
use headwater_core::{ErrorKind, Result, Transform};
use proptest::prelude::*;

use crate::SqlTransform;

mod apply;
mod fingerprint;
mod refuse;

fn schema() -> SchemaRef {
    let list = |kind| DataType::List(Arc::new(Field::new("item", kind, true)));
    let place = vec![Field::new("lat", DataType::Float64, true), Field::new("name", DataType::Utf8, true)];
    Arc::new(Schema::new(vec![
        Field::new("driver_id", DataType::Int64, false),
        Field::new("event_timestamp", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        Field::new("rate", DataType::Float64, true),
        Field::new("trips", DataType::Int32, true),
        Field::new("city", DataType::Utf8, true),
        Field::new("active", DataType::Boolean, true),
        Field::new("tags", list(DataType::Utf8), true),
        Field::new("stops", list(DataType::Int64), true),
        Field::new("place", DataType::Struct(place.into()), true),
        Field::new("vehicleType", DataType::Utf8, true),
    ]))
}

const ROWS: &str = r#"
{"driver_id":1001,"event_timestamp":"2026-08-01T10:20:30.123456Z","rate":0.5,"trips":10,"city":"Bern","active":true,"tags":["new","fast"],"stops":[3,4,5],"place":{"lat":46.9,"name":"Wankdorf"},"vehicleType":"van"}
{"driver_id":1002,"event_timestamp":"2026-08-01T11:00:00Z","rate":null,"trips":0,"city":"basel","active":false,"tags":[],"stops":null,"place":{"lat":null,"name":"SBB"},"vehicleType":null}
{"driver_id":1003,"event_timestamp":"2026-08-02T00:00:00Z","rate":-2.25,"trips":null,"city":null,"active":null,"tags":["slow"],"stops":[7],"place":null,"vehicleType":"car"}
"#;

/// `lines` as a batch of the columns of [`schema`].
fn batch(lines: &str) -> RecordBatch {
    let reader = arrow::json::ReaderBuilder::new(schema()).build(lines.trim().as_bytes()).unwrap();
    let batches = reader.collect::<Result<Vec<_>, _>>().unwrap();
    concat_batches(&schema(), &batches).unwrap()
}

fn plan(sql: &str) -> Result<Arc<dyn PlannedTransform>> {
    SqlTransform::parse(sql)?.plan(&schema())
}

fn json(rows: &RecordBatch) -> Vec<String> {
    let mut out = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut out);
    writer.write(rows).unwrap();
    writer.finish().unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

/// Runs `sql` over [`ROWS`] and compares the rows, as JSON.
#[track_caller]
fn check(sql: &str, expected: &[&str]) {
    let planned = plan(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let transformed = planned.apply(&batch(ROWS)).unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(transformed.rows.schema(), planned.output(), "{sql}");
    assert_eq!(json(&transformed.rows), expected, "{sql}");
    if let Some(inputs) = transformed.inputs {
        assert_eq!(inputs.len(), transformed.rows.num_rows(), "{sql}");
    }
}

/// The same for one expression: its value in each row.
#[track_caller]
fn value(expr: &str, expected: [&str; 3]) {
    let rows = expected.map(|value| format!(r#"{{"v":{value}}}"#));
    check(&format!("SELECT {expr} AS v FROM t"), &rows.each_ref().map(String::as_str));
}

#[track_caller]
fn invalid(sql: &str, parts: &[&str]) {
    let shown = sql.chars().take(200).collect::<String>();
    let error = plan(sql).map(|_| ()).expect_err(&shown);
    assert_eq!(error.kind(), ErrorKind::Invalid, "{shown}: {error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{shown}: `{error}` does not say `{part}`");
    }
}
