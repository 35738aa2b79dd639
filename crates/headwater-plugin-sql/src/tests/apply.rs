use arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, MapBuilder, MapFieldNames, StringBuilder, TimestampMicrosecondArray,
};

use super::*;

#[test]
fn columns_keep_their_order_names_and_types() {
    let planned = plan("SELECT rate * 100.0 AS pct, driver_id, trips + 1 AS n, city FROM t").unwrap();
    let fields = planned.output();
    let fields = fields.fields().iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect::<Vec<_>>();
    assert_eq!(
        fields,
        [("pct", DataType::Float64), ("driver_id", DataType::Int64), ("n", DataType::Int64), ("city", DataType::Utf8)]
    );
}

#[test]
fn design_example() {
    check(
        "SELECT driver_id, event_timestamp, rate * 100.0 AS conv_percentage FROM driver_stats_stream",
        &[
            r#"{"driver_id":1001,"event_timestamp":"2026-08-01T10:20:30.123456Z","conv_percentage":50.0}"#,
            r#"{"driver_id":1002,"event_timestamp":"2026-08-01T11:00:00Z","conv_percentage":null}"#,
            r#"{"driver_id":1003,"event_timestamp":"2026-08-02T00:00:00Z","conv_percentage":-225.0}"#,
        ],
    );
}

#[test]
fn expressions() {
    value("rate * trips", ["5.0", "null", "null"]);
    value("trips / 4", ["2", "0", "null"]);
    value("trips % 4", ["2", "0", "null"]);
    value("-trips", ["-10", "0", "null"]);
    // JSON has no infinity and shows it as null.
    value("rate / 0 > 1e308", ["true", "null", "false"]);
    value("rate > 0 AND active", ["true", "false", "false"]);
    value("rate IS NULL OR trips IN (10, 20)", ["true", "true", "null"]);
    value("trips BETWEEN 1 AND 10", ["true", "false", "null"]);
    value("NOT active", ["false", "true", "null"]);
    value(
        "CASE WHEN trips > 5 THEN 'many' WHEN trips = 0 THEN 'none' ELSE 'unknown' END",
        [r#""many""#, r#""none""#, r#""unknown""#],
    );
    value("CASE WHEN trips <> 0 THEN 100 / trips END", ["10", "null", "null"]);
    value("coalesce(trips, -1)", ["10", "0", "-1"]);
    value("coalesce(city, vehicleType, 'x')", [r#""Bern""#, r#""basel""#, r#""car""#]);
    value("nullif(trips, 0)", ["10", "null", "null"]);
    value("nvl(rate, 1)", ["0.5", "1.0", "-2.25"]);
    value("nvl2(rate, 1, 2)", ["1.0", "2.0", "1.0"]);
    value("abs(rate)", ["0.5", "null", "2.25"]);
    value("round(rate)", ["1.0", "null", "-2.0"]);
    value("power(trips, 2)", ["100.0", "0.0", "null"]);
    value("greatest(trips, 5)", ["10", "5", "5"]);
    value("1", ["1", "1", "1"]);
    value("NULL", ["null", "null", "null"]);
}

#[test]
fn text() {
    value("upper(city)", [r#""BERN""#, r#""BASEL""#, "null"]);
    value("city || '-' || trips", [r#""Bern-10""#, r#""basel-0""#, "null"]);
    value("concat(city, '/', vehicleType)", [r#""Bern/van""#, r#""basel/""#, r#""/car""#]);
    value("substring(city, 1, 2)", [r#""Be""#, r#""ba""#, "null"]);
    value("substring(city FROM 2 FOR 2)", [r#""er""#, r#""as""#, "null"]);
    value("trim('  a ')", [r#""a""#, r#""a""#, r#""a""#]);
    value("position('e' IN city)", ["2", "4", "null"]);
    value("length(city)", ["4", "5", "null"]);
    value("city LIKE 'B%'", ["true", "false", "null"]);
    value("city ILIKE 'b%'", ["true", "true", "null"]);
    value("starts_with(city, 'Be')", ["true", "false", "null"]);
    value("regexp_like(city, '^[a-z]+$')", ["false", "true", "null"]);
    value("regexp_replace(city, 'a', 'o')", [r#""Bern""#, r#""bosel""#, "null"]);
    value("split_part(city, 'e', 1)", [r#""B""#, r#""bas""#, "null"]);
    value("lpad(city, 6, '.')", [r#""..Bern""#, r#"".basel""#, "null"]);
}

#[test]
fn text_is_utf8_whatever_the_function_works_with() {
    for expr in ["substr(city, 2)", "CAST(trips AS STRING)", "CAST(trips AS VARCHAR)", "'x'", "concat(city, 'x')"] {
        let planned = plan(&format!("SELECT {expr} AS v FROM t")).unwrap();
        assert_eq!(*planned.output().field(0).data_type(), DataType::Utf8, "{expr}");
    }
}

#[test]
fn time() {
    value(
        "date_trunc('hour', event_timestamp)",
        [r#""2026-08-01T10:00:00Z""#, r#""2026-08-01T11:00:00Z""#, r#""2026-08-02T00:00:00Z""#],
    );
    value("EXTRACT(HOUR FROM event_timestamp)", ["10", "11", "0"]);
    value("date_part('day', event_timestamp)", ["1", "1", "2"]);
    value("event_timestamp > '2026-08-01T10:30:00Z'", ["false", "true", "true"]);
    value("event_timestamp >= TIMESTAMP '2026-08-01 11:00:00'", ["false", "true", "true"]);
    value("event_timestamp - INTERVAL '1 day' < '2026-07-31T10:30:00Z'", ["true", "false", "false"]);
    value("to_timestamp(trips)", [r#""1970-01-01T00:00:10""#, r#""1970-01-01T00:00:00""#, "null"]);
    value(
        "to_timestamp_micros(driver_id)",
        [r#""1970-01-01T00:00:00.001001""#, r#""1970-01-01T00:00:00.001002""#, r#""1970-01-01T00:00:00.001003""#],
    );
    value("CAST(event_timestamp AS DATE)", [r#""2026-08-01""#, r#""2026-08-01""#, r#""2026-08-02""#]);
    value("to_unixtime(event_timestamp)", ["1785579630", "1785582000", "1785628800"]);
}

#[test]
fn casts() {
    value("CAST(rate AS STRING)", [r#""0.5""#, "null", r#""-2.25""#]);
    value("rate::float", ["0.5", "null", "-2.25"]);
    value("CAST(trips AS DOUBLE)", ["10.0", "0.0", "null"]);
    value("arrow_cast(trips, 'Int8')", ["10", "0", "null"]);
    value("TRY_CAST(city AS INT)", ["null", "null", "null"]);
    value("TRY_CAST('12' AS BIGINT)", ["12", "12", "12"]);
}

#[test]
fn lists_and_structs() {
    value("tags[1]", [r#""new""#, "null", r#""slow""#]);
    value("t.stops[2]", ["4", "null", "null"]);
    value("stops[2:3]", ["[4,5]", "null", "[]"]);
    value("cardinality(stops)", ["3", "null", "1"]);
    value("array_length(tags)", ["2", "0", "1"]);
    value("array_has(tags, 'fast')", ["true", "false", "false"]);
    value("array_to_string(tags, ',')", [r#""new,fast""#, r#""""#, r#""slow""#]);
    value("[trips, 1]", ["[10,1]", "[0,1]", "[null,1]"]);
    value("place.lat", ["46.9", "null", "null"]);
    value("t.place.name", [r#""Wankdorf""#, r#""SBB""#, "null"]);
    value("place['name']", [r#""Wankdorf""#, r#""SBB""#, "null"]);
    value("upper(place.name)", [r#""WANKDORF""#, r#""SBB""#, "null"]);
}

/// What Kafka shows beside a record: the headers are a map of text to bytes, the key is bytes.
#[test]
fn maps_and_bytes_are_read_as_text() {
    let entry = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
    let mut headers = MapBuilder::new(Some(entry), StringBuilder::new(), BinaryBuilder::new());
    for row in [&[("trace", "t-1"), ("source", "app")][..], &[("trace", "t-2")]] {
        for (name, value) in row {
            headers.keys().append_value(name);
            headers.values().append_value(value);
        }
        headers.append(true).unwrap();
    }
    headers.append(false).unwrap();
    let columns: [(_, ArrayRef); 3] = [
        ("__timestamp", Arc::new(TimestampMicrosecondArray::from(vec![Some(1), None, Some(3)]).with_timezone("UTC"))),
        ("__key", Arc::new(BinaryArray::from(vec![Some(&b"1001"[..]), Some(b"1002"), None]))),
        ("__headers", Arc::new(headers.finish())),
    ];
    let input = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    for (expr, kind, expected) in [
        ("CAST(__headers['source'] AS VARCHAR)", DataType::Utf8, [r#""app""#, "null", "null"]),
        ("upper(CAST(t.__headers['trace'] AS STRING))", DataType::Utf8, [r#""T-1""#, r#""T-2""#, "null"]),
        ("CAST(__key AS VARCHAR)", DataType::Utf8, [r#""1001""#, r#""1002""#, "null"]),
        ("CAST(CAST(__key AS VARCHAR) AS BIGINT)", DataType::Int64, ["1001", "1002", "null"]),
        ("__timestamp IS NULL", DataType::Boolean, ["false", "true", "false"]),
        ("CAST(__timestamp AS BIGINT)", DataType::Int64, ["1", "null", "3"]),
    ] {
        let sql = format!("SELECT {expr} AS v FROM t");
        let planned = SqlTransform::parse(&sql).unwrap().plan(&input.schema());
        let planned = planned.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(*planned.output().field(0).data_type(), kind, "{sql}");
        let rows = planned.apply(&input).unwrap_or_else(|error| panic!("{sql}: {error}")).rows;
        assert_eq!(json(&rows), expected.map(|value| format!(r#"{{"v":{value}}}"#)), "{sql}");
    }
    let filtered = "SELECT __key FROM t WHERE CAST(__headers['source'] AS VARCHAR) = 'app'";
    let planned = SqlTransform::parse(filtered).unwrap().plan(&input.schema()).unwrap();
    assert_eq!(planned.apply(&input).unwrap().inputs, Some(UInt32Array::from(vec![0])));
}

#[test]
fn unquoted_names_are_found_in_any_case() {
    value("VEHICLETYPE", [r#""van""#, "null", r#""car""#]);
    value("vehicletype", [r#""van""#, "null", r#""car""#]);
    value("T.VehicleType", [r#""van""#, "null", r#""car""#]);
    value(r#""vehicleType""#, [r#""van""#, "null", r#""car""#]);
    value("`vehicleType`", [r#""van""#, "null", r#""car""#]);
    value("UPPER(City)", [r#""BERN""#, r#""BASEL""#, "null"]);
    check("SELECT TRIPS, Trips AS TripCount FROM t WHERE DRIVER_ID = 1001", &[r#"{"trips":10,"TripCount":10}"#]);
}

#[test]
fn columns_have_any_name() {
    for name in ["@timestamp", "a.b", "with space", "select", "Größe", "a\"b", "__timestamp", "t"] {
        let input = Arc::new(Schema::new(vec![Field::new(name, DataType::Int64, true)]));
        let quoted = name.replace('"', "\"\"");
        let sql = format!("SELECT \"{quoted}\", \"{quoted}\" + 1 AS more FROM t WHERE t.\"{quoted}\" > 0");
        let planned = SqlTransform::parse(&sql).unwrap().plan(&input).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(planned.output().field(0).name(), name);
        let column = Arc::new(arrow::array::Int64Array::from(vec![0, 5]));
        let batch = RecordBatch::try_new(input, vec![column]).unwrap();
        assert_eq!(planned.apply(&batch).unwrap().rows.column(1).as_ref(), &arrow::array::Int64Array::from(vec![6]));
    }
}

#[test]
fn the_table_has_any_name_and_alias() {
    let expected: &[&str] = &[r#"{"trips":10}"#];
    for sql in [
        "SELECT trips FROM anything WHERE trips > 1",
        "SELECT s.trips FROM anything AS s WHERE s.trips > 1",
        "SELECT s.trips FROM anything s WHERE trips > 1;",
        "SELECT stream.trips FROM project.stream WHERE STREAM.trips > 1",
        "select /* all */ trips -- here\nfrom t where (trips > 1)",
        "(SELECT trips FROM t WHERE trips > 1)",
    ] {
        check(sql, expected);
    }
}

#[test]
fn star_expands() {
    let names = |sql: &str| plan(sql).unwrap().output().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    assert_eq!(names("SELECT * FROM t").len(), 10);
    assert_eq!(names("SELECT t.*, trips + 1 AS more FROM t").len(), 11);
    assert_eq!(
        names("SELECT * EXCEPT (place, tags, stops, vehicleType) FROM t"),
        ["driver_id", "event_timestamp", "rate", "trips", "city", "active"]
    );
    assert_eq!(names("SELECT * EXCLUDE (TRIPS) FROM t").len(), 9);
    let batch = batch(ROWS);
    assert_eq!(plan("SELECT * FROM t").unwrap().apply(&batch).unwrap().rows.columns(), batch.columns());
}

#[test]
fn filter_keeps_what_is_true_and_says_which() {
    check("SELECT driver_id FROM t WHERE active", &[r#"{"driver_id":1001}"#]);
    check("SELECT driver_id FROM t WHERE active AND NULL", &[]);
    check("SELECT 7 AS seven FROM t WHERE driver_id > 1001", &[r#"{"seven":7}"#, r#"{"seven":7}"#]);
    let inputs = |sql: &str| plan(sql).unwrap().apply(&batch(ROWS)).unwrap().inputs;
    assert_eq!(inputs("SELECT city FROM t WHERE rate IS NOT NULL"), Some(UInt32Array::from(vec![0, 2])));
    assert_eq!(inputs("SELECT city FROM t WHERE false"), Some(UInt32Array::from(Vec::<u32>::new())));
    assert_eq!(inputs("SELECT city FROM t WHERE driver_id > 0"), None);
    assert_eq!(inputs("SELECT city FROM t"), None);
}

#[test]
fn filtered_rows_are_not_computed() {
    check("SELECT 100 / trips AS v FROM t WHERE trips <> 0", &[r#"{"v":10}"#]);
}

#[test]
fn unnest_gives_a_row_for_each_element() {
    check(
        "SELECT driver_id, unnest(tags) AS tag FROM t",
        &[
            r#"{"driver_id":1001,"tag":"new"}"#,
            r#"{"driver_id":1001,"tag":"fast"}"#,
            r#"{"driver_id":1003,"tag":"slow"}"#,
        ],
    );
    check(
        "SELECT driver_id, unnest_outer(tags) AS tag FROM t",
        &[
            r#"{"driver_id":1001,"tag":"new"}"#,
            r#"{"driver_id":1001,"tag":"fast"}"#,
            r#"{"driver_id":1002,"tag":null}"#,
            r#"{"driver_id":1003,"tag":"slow"}"#,
        ],
    );
    check(
        "SELECT upper(unnest(tags)) || '!' AS tag FROM t WHERE trips > 0",
        &[r#"{"tag":"NEW!"}"#, r#"{"tag":"FAST!"}"#],
    );
}

#[test]
fn unnested_lists_of_one_record_run_side_by_side() {
    check(
        "SELECT unnest(stops) AS stop, unnest(tags) AS tag, unnest(stops) * 2 AS twice FROM t",
        &[
            r#"{"stop":3,"tag":"new","twice":6}"#,
            r#"{"stop":4,"tag":"fast","twice":8}"#,
            r#"{"stop":5,"tag":null,"twice":10}"#,
            r#"{"stop":7,"tag":"slow","twice":14}"#,
        ],
    );
}

#[test]
fn unnested_rows_name_their_record() {
    let inputs = |sql: &str| plan(sql).unwrap().apply(&batch(ROWS)).unwrap().inputs;
    assert_eq!(inputs("SELECT unnest(tags) AS tag FROM t"), Some(UInt32Array::from(vec![0, 0, 2])));
    assert_eq!(inputs("SELECT unnest(stops) AS stop FROM t WHERE driver_id > 1001"), Some(UInt32Array::from(vec![2])));
}

#[test]
fn what_cannot_be_computed_is_a_data_error_that_names_the_column() {
    let fails = |expr: &str, part: &str| {
        let planned = plan(&format!("SELECT driver_id, {expr} AS v FROM t")).unwrap_or_else(|e| panic!("{expr}: {e}"));
        let error = planned.apply(&batch(ROWS)).map(|t| json(&t.rows)).expect_err(expr);
        assert_eq!(error.kind(), ErrorKind::Data, "{expr}: {error}");
        let text = error.to_string();
        assert!(text.contains("column `v`") && text.contains(part), "{expr}: {text}");
    };
    fails("100 / trips", "divide by zero");
    fails("100 % trips", "divide by zero");
    fails("9223372036854775807 + trips", "verflow");
    fails("driver_id * 9223372036854775807", "verflow");
    fails("-9223372036854775807 - driver_id", "verflow");
    fails("-(driver_id - 1001 - 9223372036854775807 - 1)", "verflow");
    fails("CAST(city AS INT)", "Bern");
    fails("CAST(driver_id AS TINYINT)", "1001");
    fails("arrow_cast(driver_id, 'Int8')", "1001");
    fails("CAST(city AS TIMESTAMP)", "Bern");
}

#[test]
fn an_error_goes_with_its_row() {
    let planned = plan("SELECT 100 / trips AS v FROM t").unwrap();
    let batch = batch(ROWS);
    assert!(planned.apply(&batch.slice(1, 1)).is_err());
    assert_eq!(json(&planned.apply(&batch.slice(0, 1)).unwrap().rows), [r#"{"v":10}"#]);
    assert_eq!(json(&planned.apply(&batch.slice(2, 1)).unwrap().rows), [r#"{"v":null}"#]);
}

#[test]
fn a_function_that_panics_is_a_data_error() {
    let planned = plan("SELECT repeat(city, 9223372036854775807) AS v FROM t").unwrap();
    assert_eq!(planned.apply(&batch(ROWS)).map(|_| ()).unwrap_err().kind(), ErrorKind::Data);
}

#[test]
fn an_empty_batch_stays_empty() {
    for sql in ["SELECT rate * 2 AS v FROM t", "SELECT unnest(tags) AS v FROM t WHERE active", "SELECT 1 AS v FROM t"] {
        let transformed = plan(sql).unwrap().apply(&batch(ROWS).slice(0, 0)).unwrap();
        assert_eq!(transformed.rows.num_rows(), 0, "{sql}");
    }
}

#[test]
fn a_batch_of_other_columns_is_refused() {
    let planned = plan("SELECT trips FROM t").unwrap();
    assert!(planned.apply(&batch(ROWS).project(&[0, 1]).unwrap()).is_err());
}

const STATEMENTS: [&str; 6] = [
    "SELECT * FROM t",
    "SELECT driver_id, rate * trips AS v, upper(city) AS c FROM t WHERE trips > 3 OR city LIKE '%a%'",
    "SELECT unnest(tags) AS tag, unnest(stops) AS stop, trips FROM t",
    "SELECT unnest_outer(stops) + driver_id AS v FROM t WHERE active IS NOT NULL",
    "SELECT CASE WHEN trips <> 0 THEN 100 / trips ELSE -1 END AS v, place.name AS n FROM t",
    "SELECT coalesce(rate, trips, 0) AS v, array_length(tags) AS n, tags[2] AS s FROM t WHERE cardinality(stops) > 1",
];

prop_compose! {
    fn row()(
        id in any::<i32>(),
        micros in 0_i64..4_000_000_000_000_000,
        rate in proptest::option::of(-1e6..1e6_f64),
        trips in proptest::option::of(-20..20_i32),
        city in proptest::option::of("[a-c]{0,3}"),
        active in any::<Option<bool>>(),
        tags in proptest::option::of(proptest::collection::vec("[a-c]{0,2}", 0..4)),
        stops in proptest::option::of(proptest::collection::vec(any::<i32>(), 0..4)),
    ) -> String {
        serde_json::json!({
            "driver_id": id, "event_timestamp": micros, "rate": rate, "trips": trips, "city": city, "active": active,
            "tags": tags, "stops": stops, "place": {"lat": rate, "name": city}, "vehicleType": null,
        })
        .to_string()
    }
}

proptest! {
    #[test]
    fn apply_of_a_slice_is_the_slice_of_apply(
        rows in proptest::collection::vec(row(), 1..30),
        statement in 0..STATEMENTS.len(),
        cut in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let batch = batch(&rows.join("\n"));
        let planned = plan(STATEMENTS[statement]).unwrap();
        let (a, b) = (cut.0.index(batch.num_rows() + 1), cut.1.index(batch.num_rows() + 1));
        let (from, to) = (a.min(b), a.max(b));
        let whole = planned.apply(&batch).unwrap();
        let part = planned.apply(&batch.slice(from, to - from)).unwrap();
        let inputs = |inputs: Option<UInt32Array>, rows: usize| {
            inputs.map_or_else(|| (0..rows).collect::<Vec<_>>(), |i| i.values().iter().map(|v| *v as usize).collect())
        };
        let whole_inputs = inputs(whole.inputs, whole.rows.num_rows());
        let part_inputs = inputs(part.inputs, part.rows.num_rows());
        prop_assert!(whole_inputs.is_sorted());
        let first = whole_inputs.partition_point(|input| *input < from);
        let last = whole_inputs.partition_point(|input| *input < to);
        prop_assert_eq!(part_inputs, whole_inputs[first..last].iter().map(|i| i - from).collect::<Vec<_>>());
        prop_assert_eq!(json(&part.rows), json(&whole.rows.slice(first, last - first)));
    }
}
