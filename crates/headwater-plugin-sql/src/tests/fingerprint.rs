use super::*;

fn fingerprint(sql: &str) -> Fingerprint {
    plan(sql).unwrap_or_else(|error| panic!("{sql}: {error}")).fingerprint()
}

#[track_caller]
fn same(a: &str, b: &str) {
    assert_eq!(fingerprint(a), fingerprint(b));
}

#[track_caller]
fn differ(a: &str, b: &str) {
    assert_ne!(fingerprint(a), fingerprint(b), "{a} and {b}");
}

#[test]
fn what_does_not_change_the_rows_changes_nothing() {
    let sql = "SELECT driver_id, rate * 100.0 AS pct FROM t WHERE trips > 1 AND active";
    same(sql, "select driver_id ,rate*100.0 pct from t where trips>1 and active;");
    same(sql, "SELECT rate * 100.0 AS pct, driver_id FROM t WHERE trips > 1 AND active");
    same(sql, "SELECT s.driver_id, s.rate * 100.0 AS pct FROM other AS s WHERE s.trips > 1 AND s.active");
    same(sql, "SELECT DRIVER_ID, (((Rate) * 100.0)) AS pct FROM t WHERE ((trips > 1) AND active)");
    same(sql, "SELECT driver_id, /* percent */ rate * 100.0 AS pct FROM t -- only\nWHERE trips > 1 AND active");
    same("SELECT UPPER(city) AS v FROM t", "SELECT upper(t.city) AS v FROM t");
    same("SELECT trips::bigint AS v FROM t", "SELECT CAST(trips AS BIGINT) AS v FROM t");
    same("SELECT place.lat AS v FROM t", "SELECT t.place['lat'] AS v FROM t");
    same("SELECT * FROM t", "SELECT t.* FROM t");
    same(
        "SELECT unnest(tags) AS a, unnest(stops) AS b FROM t",
        "SELECT unnest(stops) AS b, unnest(t.tags) AS a FROM t",
    );
}

#[test]
fn what_changes_the_rows_changes_the_fingerprint() {
    differ("SELECT rate * 100.0 AS v FROM t", "SELECT rate * 10.0 AS v FROM t");
    differ("SELECT (rate + 1) * 2 AS v FROM t", "SELECT rate + 1 * 2 AS v FROM t");
    differ("SELECT rate AS v FROM t", "SELECT trips AS v FROM t");
    differ("SELECT city AS v FROM t", "SELECT upper(city) AS v FROM t");
    differ("SELECT 'a' AS v FROM t", "SELECT 'A' AS v FROM t");
    differ("SELECT city FROM t", "SELECT city FROM t WHERE active");
    differ("SELECT city FROM t WHERE active", "SELECT city FROM t WHERE NOT active");
    differ("SELECT unnest(tags) AS v FROM t", "SELECT unnest_outer(tags) AS v FROM t");
    differ("SELECT 'tags' AS v FROM t", "SELECT tags AS v FROM t");
}

#[test]
fn a_column_more_leaves_the_others_and_the_rows() {
    let (a, b) = (fingerprint("SELECT driver_id FROM t"), fingerprint("SELECT driver_id, city FROM t"));
    assert_eq!(a.rows, b.rows);
    assert_eq!(a.columns["driver_id"], b.columns["driver_id"]);
}

#[test]
fn another_input_type_is_another_value_of_an_expression_alone() {
    let of = |kind: DataType| {
        let input = Arc::new(Schema::new(vec![Field::new("a", kind, true)]));
        SqlTransform::parse("SELECT a, a / 2 AS half FROM t").unwrap().plan(&input).unwrap().fingerprint()
    };
    let (ints, floats) = (of(DataType::Int64), of(DataType::Float64));
    assert_eq!(ints.columns["a"], floats.columns["a"]);
    assert_ne!(ints.columns["half"], floats.columns["half"]);
}

/// Generations of views hang on these texts: a release that changes one reads every stream again.
#[test]
fn the_text_is_pinned() {
    let found = fingerprint(
        "SELECT driver_id, Rate * 100.0 + 1 AS pct, CASE WHEN city IS NULL THEN 'x' ELSE lower(city) END AS c, \
         place.lat AS lat, unnest(tags) AS tag, date_trunc('day', event_timestamp) AS d \
         FROM t WHERE NOT active AND trips IN (1, 2)",
    );
    let columns = found.columns.iter().map(|(name, text)| format!("{name}: {text}")).collect::<Vec<_>>();
    assert_eq!(
        columns,
        [
            r#"c: CASE WHEN ("city" IS NULL) THEN 'x' ELSE lower("city") END of "city" Utf8"#,
            r#"d: date_trunc('day', "event_timestamp") of "event_timestamp" Timestamp(µs, "UTC")"#,
            "driver_id: driver_id",
            r#"lat: "place"['lat'] of "place" Struct("lat": Float64, "name": Utf8)"#,
            r#"pct: (("rate" * 100.0) + 1) of "rate" Float64"#,
            r#"tag: unnest("tags") of "tags" List(Utf8)"#,
        ]
    );
    assert_eq!(
        found.rows,
        r#"where ((NOT "active") AND ("trips" IN (1, 2))) of "trips" Int32, "active" Boolean; unnest("tags")"#
    );
}
