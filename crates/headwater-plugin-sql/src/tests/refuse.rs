use super::*;

#[test]
fn clauses_that_are_not_row_wise() {
    for (sql, clause) in [
        ("SELECT DISTINCT trips FROM t", "`DISTINCT`"),
        ("SELECT trips FROM t GROUP BY trips", "`GROUP BY`"),
        ("SELECT trips FROM t GROUP BY ALL", "`GROUP BY`"),
        ("SELECT trips FROM t HAVING trips > 1", "`HAVING`"),
        ("SELECT trips FROM t ORDER BY trips", "`ORDER BY`"),
        ("SELECT trips FROM t LIMIT 3", "`LIMIT`"),
        ("SELECT trips FROM t OFFSET 3", "`LIMIT`"),
        ("SELECT trips FROM t FETCH FIRST 3 ROWS ONLY", "`FETCH`"),
        ("SELECT TOP 3 trips FROM t", "`TOP`"),
        ("SELECT trips FROM t UNION ALL SELECT trips FROM t", "`UNION`"),
        ("SELECT trips FROM t EXCEPT SELECT trips FROM t", "`EXCEPT`"),
        ("SELECT trips FROM t INTERSECT SELECT trips FROM t", "`INTERSECT`"),
        ("WITH a AS (SELECT 1) SELECT trips FROM t", "`WITH`"),
        ("VALUES (1)", "`VALUES`"),
        ("SELECT trips FROM t, u", "`JOIN`"),
        ("SELECT trips FROM t JOIN u ON t.a = u.a", "`JOIN`"),
        ("SELECT trips FROM t LEFT JOIN u USING (a)", "`JOIN`"),
        ("SELECT trips FROM t QUALIFY row_number() OVER (ORDER BY trips) = 1", "`QUALIFY`"),
        ("SELECT trips FROM t TABLESAMPLE BERNOULLI (10)", "`TABLESAMPLE`"),
        ("SELECT trips FROM t CLUSTER BY trips", "`CLUSTER BY`"),
        ("SELECT trips FROM t SORT BY trips", "`SORT BY`"),
        ("SELECT trips INTO u FROM t", "`INTO`"),
        ("SELECT unnest(unnest([tags])) AS v FROM t", "`unnest(unnest(…))`"),
    ] {
        invalid(sql, &[clause, "row-wise"]);
    }
}

#[test]
fn what_is_not_one_select_over_one_table() {
    invalid("", &["empty", "one `SELECT`"]);
    invalid("  -- nothing\n ;", &["empty"]);
    invalid("SELECT trips FROM t; SELECT trips FROM t", &["several statements"]);
    invalid("DELETE FROM t", &["`DELETE`", "one `SELECT`"]);
    invalid("INSERT INTO t VALUES (1)", &["`INSERT`"]);
    invalid("DROP TABLE t", &["`DROP`"]);
    invalid("SELECT 1", &["`FROM` is missing"]);
    invalid("SELECT trips FROM (SELECT * FROM t) s", &["subquery in `FROM`"]);
    invalid("SELECT trips FROM range(3)", &["`range(…)`"]);
    invalid("SELECT trips FROM t AS s(a, b)", &["renamed in the select list"]);
    invalid("SELECT trips FROM t WHERE trips IN (SELECT 1)", &["a subquery is not row-wise"]);
    invalid("SELECT (SELECT 1) AS v FROM t", &["a subquery is not row-wise"]);
    invalid("SELECT trips FROM t WHERE EXISTS (SELECT 1)", &["a subquery is not row-wise"]);
    invalid("SELECT tag FROM t CROSS JOIN UNNEST(t.tags) AS u(tag)", &["`UNNEST` in `FROM`", "in the select list"]);
    invalid("SELECT tag FROM t LATERAL VIEW explode(tags) x AS tag", &["`LATERAL VIEW`", "unnest(list)"]);
}

#[test]
fn functions_that_look_further_than_one_record() {
    for name in ["sum", "avg", "COUNT", "min", "array_agg", "stddev", "approx_distinct", "first_value"] {
        let sql = format!("SELECT {name}(trips) AS v FROM t");
        invalid(&sql, &[&format!("`{}()`", name.to_lowercase()), "line 1, column 8", "aggregate"]);
    }
    invalid("SELECT count(*) AS v FROM t", &["`count()`", "aggregate"]);
    invalid("SELECT trips FROM t\nWHERE trips > avg(trips)", &["`avg()`", "line 2, column 15"]);
    invalid("SELECT row_number() OVER (ORDER BY trips) AS v FROM t", &["`row_number() OVER`", "window function"]);
    invalid("SELECT sum(trips) OVER () AS v FROM t", &["`sum() OVER`", "window function"]);
}

#[test]
fn functions_that_answer_differently_the_next_time() {
    for call in ["now()", "current_date()", "current_timestamp()", "random()", "uuid()", "today()"] {
        let name = call.trim_end_matches("()");
        invalid(&format!("SELECT {call} AS v FROM t"), &[&format!("`{name}()`"), "not deterministic"]);
    }
    invalid("SELECT CURRENT_TIMESTAMP AS v FROM t", &["`current_timestamp()`", "not deterministic"]);
    invalid("SELECT trips FROM t WHERE event_timestamp > now() - INTERVAL '1 day'", &["`now()`", "column 45"]);
    invalid("SELECT version() AS v FROM t", &["there is no function `version`"]);
}

#[test]
fn unknown_names_come_with_their_place_and_the_nearest_that_exist() {
    invalid(
        "SELECT driver_id,\n  trip AS v FROM t",
        &["there is no column `trip`", "line 2, column 3", "did you mean `trips`?", "`vehicleType`"],
    );
    invalid("SELECT \"Trips\" FROM t", &["there is no column `Trips`", "single quotes", "`trips`"]);
    invalid(
        "SELECT uper(city) AS v FROM t",
        &["there is no function `uper`", "line 1, column 8", "did you mean `upper`"],
    );
    invalid("SELECT explode(tags) AS v FROM t", &["`explode`", "write `unnest`"]);
    invalid("SELECT size(tags) AS v FROM t", &["write `cardinality`"]);
    invalid("SELECT a.b.upper(city) AS v FROM t", &["functions have one name"]);
    invalid("SELECT u.trips FROM t", &["`u` is neither the table, which is called `t`, nor a column"]);
    invalid("SELECT t.trips FROM t AS s", &["which is called `s`"]);
    invalid("SELECT u.* FROM t", &["there is no table `u`", "`t`"]);
    invalid("SELECT place.lon FROM t", &["lon"]);
    invalid("SELECT * EXCEPT (trip) FROM t", &["`trip`", "did you mean `trips`?"]);
}

#[test]
fn ambiguous_names_ask_for_quotes() {
    let fields = ["userId", "UserID"].map(|name| Field::new(name, DataType::Int64, true));
    let input = Arc::new(Schema::new(fields.to_vec()));
    let plan = |sql: &str| SqlTransform::parse(sql).unwrap().plan(&input).map(|p| p.output().field(0).name().clone());
    assert_eq!(plan("SELECT userId FROM t").unwrap(), "userId");
    assert_eq!(plan("SELECT \"UserID\" FROM t").unwrap(), "UserID");
    let error = plan("SELECT userid FROM t").unwrap_err().to_string();
    assert!(error.contains("`userId`, `UserID`") && error.contains("double quotes"), "{error}");
}

#[test]
fn syntax_errors_say_where() {
    invalid("SELECT trips FORM t", &["line 1, column"]);
    invalid("SELECT trips,\nFROM t WHERE FROM", &["line 2"]);
    invalid("SELECT trips FROM t WHERE", &["expected: an expression"]);
    invalid("SELECT 'open FROM t", &["line 1, column 8"]);
    invalid("nonsense", &["nonsense", "line 1, column 1"]);
}

#[test]
fn types_that_do_not_fit() {
    invalid("SELECT city * 2.5 + tags AS v FROM t", &["column `v`"]);
    invalid("SELECT trips FROM t WHERE trips + 1", &["`WHERE` takes a condition", "Int64"]);
    invalid("SELECT upper(city, city) AS v FROM t", &["column `v`", "upper"]);
    invalid("SELECT unnest(trips) AS v FROM t", &["column `v`"]);
    invalid("SELECT unnest(place) AS v FROM t", &["takes a list"]);
    invalid("SELECT CAST(trips AS NONSENSE) AS v FROM t", &["column `v`"]);
    invalid("SELECT $1 AS v FROM t", &["there are no parameters"]);
}

#[test]
fn other_misuse() {
    invalid("SELECT trips, trips FROM t", &["two columns are called `trips`", "`AS`"]);
    invalid("SELECT *, city FROM t", &["two columns are called `city`"]);
    invalid("SELECT trips FROM t WHERE unnest(stops) > 1", &["`unnest()`", "select list alone"]);
    invalid("SELECT * REPLACE (1 AS trips) FROM t", &["`EXCEPT (…)`"]);
    invalid("SELECT array_transform(stops, x -> x + 1) AS v FROM t", &["array_transform"]);
}

#[test]
fn long_and_deep_texts_are_refused_before_they_exhaust_the_stack() {
    let sum = |terms: usize| format!("SELECT {} AS v FROM t", vec!["trips"; terms].join(" + "));
    let planned = plan(&sum(190)).unwrap();
    assert!(planned.apply(&batch(ROWS)).is_ok());
    invalid(&sum(300), &["operators deep"]);
    invalid(&sum(4_900), &["operators deep"]);
    invalid(&sum(20_000), &["words and signs"]);
    invalid(&format!("SELECT {}trips{} AS v FROM t", "(".repeat(4_000), ")".repeat(4_000)), &["nested too deeply"]);
    invalid(&format!("SELECT {} trips AS v FROM t", "NOT ".repeat(4_000)), &[]);
    invalid(&format!("SELECT {} trips AS v FROM t", "- ".repeat(4_000)), &[]);
    invalid(&format!("SELECT {} AS v FROM t", vec!["a"; 4_000].join(".")), &[]);
    invalid(&format!("SELECT trips{} AS v FROM t", "[1]".repeat(3_000)), &[]);
    invalid(&format!("SELECT trips{} AS v FROM t", "::int".repeat(4_000)), &["deep"]);
    invalid(&format!("SELECT trips FROM t {}", "UNION SELECT trips FROM t ".repeat(1_900)), &["`UNION`"]);
}

#[test]
fn no_text_panics() {
    // Every prefix of a statement that uses much of the grammar, and every statement with one byte taken out.
    let sql = "SELECT t.a[1].b AS \"x\", CASE WHEN rate::int > 1e3 THEN unnest(tags) ELSE CAST('1' AS INT) END y, \
               * EXCEPT (trips) FROM t AS t WHERE city LIKE 'a%' AND NOT active OR trips BETWEEN 1 AND 2;";
    for end in 0..sql.len() {
        let _ = plan(&sql[..end]);
        let mut without = sql.to_owned();
        without.remove(end);
        let _ = plan(&without);
    }
}
