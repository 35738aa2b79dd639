#!/usr/bin/env python3
"""Compares the point-in-time join with DuckDB, row for row.

    compare.py --join BIN [--work DIR]
        generates data, joins it with BIN (the binary `join-files`) and with DuckDB, and compares
    compare.py --join BIN --flights flights-3m.parquet
        the same with 200,000 of the flights in npm's vega-datasets
    compare.py --request REQUEST.json
        compares what is in the request's `out` already, whoever wrote it
    compare.py --traffic DATA
        compares the windows that `examples/flights` wrote to its folder DATA, joined and served

The rule, for each entity row and view: among the view's rows with the same keys, `time <= t`, `time >= t - ttl` where
there is a ttl, and `created <= t` where that is asked for (a null passes), the greatest by (time, created, origin,
file, row in it), a null created being least. None: nulls. Entity rows come out in their order, all of them, unchanged.

A view with windows has another rule: of each entity row, all rows with the same keys and `floor(t - window, hop) <= time
<= t` (and `created <= t` where that is asked for) count, those of batch files before `log_from` and those of logs from it
on; without a `log_from` those of batch files alone. Exact functions must give the same, floats to 1e-9, approximate ones
must be within what they promise.

DuckDB is told the rule in two ways. `pairs` states it as it stands: all pairs of entity rows and rows, the greatest
of each. `asof` first keeps the greatest row of each key and time, after which no tie is left for ASOF JOIN to decide;
it is for data with too many pairs.

Prints the rows compared and the differences. The exit code is 0 only where there are rows and no difference.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import duckdb

# Nothing is left behind in the source tree.
sys.dont_write_bytecode = True
from rule import agrees, by_asof, by_pairs, load, quoted, windows_as


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--join", help="the binary `join-files`")
    parser.add_argument("--work", help="a folder for the data; by default one that is removed afterwards")
    parser.add_argument("--flights", help="`data/flights-3m.parquet` of npm's vega-datasets")
    parser.add_argument("--request", help="compare the output of this request")
    parser.add_argument("--traffic", help="the data folder of `examples/flights`")
    args = parser.parse_args()
    totals = Totals()
    if args.request:
        with open(args.request) as file:
            request = json.load(file)
        totals.add(os.path.basename(args.request), request, connect(), pairs=False)
    elif args.traffic:
        for name, entities, out in [("joined", "rows", "set"), ("served", "now", "online")]:
            data = Data(args.traffic)
            request = {
                "entities": data.path(f"traffic_{entities}.parquet"), "out": data.path(f"traffic_{out}.parquet"),
                "short_names": True, "views": [traffic(data.path(FLIGHTS))],
            }
            totals.add(f"windows, {name}", request, connect(), pairs=False)
    elif args.join:
        with tempfile.TemporaryDirectory() as scratch:
            work = args.work or scratch
            os.makedirs(work, exist_ok=True)
            real = [
                ("flights", lambda con, data: flights(con, data, args.flights)),
                ("flights in windows", lambda con, data: flights_in_windows(con, data, args.flights)),
            ]
            cases = real if args.flights else CASES
            for name, make in cases:
                con, data = connect(), Data(os.path.join(work, name.replace(" ", "_")))
                request = make(con, data)
                run(args.join, request, data)
                totals.add(name, request, con, pairs=name != "flights")
    else:
        parser.error("one of --join, --request and --traffic")
    print(f"{totals.rows} rows compared, {totals.differences} differences")
    sys.exit(0 if totals.rows > 0 and totals.differences == 0 else 1)


def connect():
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    # Numbers below `n` that depend on `i` and `salt` alone.
    con.execute("CREATE MACRO rnd(i, salt, n) AS (hash(i * 1000003 + salt) % n)::BIGINT")
    con.execute("CREATE MACRO moment(us) AS make_timestamp(us)::TIMESTAMPTZ")
    return con


def run(binary, request, data):
    path = data.path("request.json")
    with open(path, "w") as file:
        json.dump(request, file, indent=2)
    done = subprocess.run([binary, path], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{path}: {done.stderr}")


class Totals:
    def __init__(self):
        self.rows = 0
        self.differences = 0

    def add(self, name, request, con, pairs):
        rows, answered, differences, example = compare(con, request, pairs)
        self.rows += rows
        self.differences += differences
        print(f"{name}: {rows} rows, {answered} of them answered, {differences} differences", flush=True)
        if answered == 0:
            self.differences += 1
            print("  nothing was answered: the comparison says nothing")
        if example:
            print(f"  for example {example}")


# ---- comparing ----


def compare(con, request, pairs):
    """Returns the rows compared, how many of them were answered, the differences, and one of them."""
    load(con, request)
    con.execute(f"CREATE OR REPLACE TEMP TABLE o AS FROM read_parquet('{request['out']}', file_row_number = true)")
    entity_columns = [name for (name,) in con.execute("SELECT column_name FROM (DESCRIBE e)").fetchall()]
    entity_columns = [name for name in entity_columns if name not in ("file_row_number", "__t")]
    rows = answered = differences = 0
    example = None
    for number, view in enumerate(request["views"]):
        by_created = request.get("filter_by_created", False)
        # `--request` may also name an output whose features have no prefix.
        out = lambda name: name if request.get("short_names") else f"{view['name']}__{name}"
        if "windows" in view:
            counts = compare_windows(con, number, view, by_created, out, entity_columns)
            rows, answered, differences = rows + counts[0], answered + counts[1], differences + counts[2]
            example = example or counts[3]
            continue
        methods = [by_pairs(number, view, by_created)] if pairs or by_created else []
        methods += [by_asof(number, view)] if not by_created else []
        for method in methods:
            con.execute(f"CREATE OR REPLACE TEMP TABLE x AS {method}")
            same = [f"e.{quoted(name)} IS NOT DISTINCT FROM o.{quoted(name)}" for name in entity_columns]
            same += [f"x.{quoted('v_' + name)} IS NOT DISTINCT FROM o.{quoted(out(name))}" for name in view["features"]]
            # A row that only one side has compares as different: its entity row is missing on the other.
            joined = (
                "FROM e JOIN x ON x.__e = e.file_row_number FULL JOIN o ON o.file_row_number = e.file_row_number"
            )
            both = ["e.file_row_number IS NOT NULL", "o.file_row_number IS NOT NULL"]
            good = f"coalesce({' AND '.join(both + same)}, false)"
            counts = con.execute(f"SELECT count(*), count(x.__found), count(*) FILTER (NOT {good}) {joined}").fetchone()
            if counts[2] and example is None:
                wrong = f"SELECT e.*, x.*, o.* {joined} WHERE NOT {good} LIMIT 1"
                row = con.execute(f"SELECT COLUMNS(*)::VARCHAR FROM ({wrong})")
                example = list(zip([column[0] for column in row.description], row.fetchone()))
            differences += counts[2]
        rows += counts[0]
        answered += counts[1]
    return rows, answered, differences, example


def compare_windows(con, number, view, by_created, out, entity_columns):
    """As `compare`, of one view."""
    rows = answered = differences = 0
    example = None
    same_rows = [f"e.{quoted(name)} IS NOT DISTINCT FROM o.{quoted(name)}" for name in entity_columns]
    for table, features in windows_as(con, number, view, by_created):
        same = same_rows + [
            agrees(view, window, f"x.{quoted(name)}", f"o.{quoted(out(name))}") for name, window in features
        ]
        joined = (
            f"FROM e JOIN {table} x ON x.__e = e.file_row_number"
            " FULL JOIN o ON o.file_row_number = e.file_row_number"
        )
        both = ["e.file_row_number IS NOT NULL", "o.file_row_number IS NOT NULL"]
        good = f"coalesce({' AND '.join(both + same)}, false)"
        some = " OR ".join(f"coalesce(x.{quoted(name)}::VARCHAR, '0') <> '0'" for name, _ in features)
        counts = con.execute(
            f"SELECT count(*), count(*) FILTER ({some}), count(*) FILTER (NOT {good}) {joined}"
        ).fetchone()
        if counts[2] and example is None:
            wrong = f"SELECT e.*, x.*, o.* {joined} WHERE NOT {good} LIMIT 1"
            row = con.execute(f"SELECT COLUMNS(*)::VARCHAR FROM ({wrong})")
            example = list(zip([column[0] for column in row.description], row.fetchone()))
        rows, answered, differences = rows + counts[0], answered + counts[1], differences + counts[2]
    return rows, answered, differences, example


# ---- data ----


class Data:
    """A folder for one case."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)

    def path(self, name):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def write(self, con, name, query, group=20_000):
        path = self.path(name)
        con.execute(f"COPY ({query}) TO '{path}' (FORMAT PARQUET, ROW_GROUP_SIZE {group})")
        return path


T0 = 1_767_225_600_000_000
STRING_KEY = "CASE rnd({i}, 1, {n}) WHEN 0 THEN '' WHEN 1 THEN 'Zürich ✈' ELSE 'airport ' || rnd({i}, 1, {n}) END"


def features(con, data, name="f.parquet", rows=100_000, key="rnd(i, 1, 1000) AS driver", span=3_000_000_000, step=1,
             salt=0, order="", group=20_000):
    """Rows in no order: a key, a time from T0 on, a created time a little later or none, values or nulls."""
    i = f"(range + {salt * 10_000_000})"
    return data.write(con, name, f"""
        WITH r AS (SELECT {i} AS i FROM range({rows})),
        t AS (SELECT *, {T0} + rnd(i, 2, {span // step}) * {step} AS us FROM r)
        SELECT {key}, moment(us) AS event_timestamp,
               CASE WHEN rnd(i, 3, 10) > 0 THEN moment(us + rnd(i, 4, 5) * {step}) END AS created,
               CASE WHEN rnd(i, 5, 8) > 0 THEN rnd(i, 6, 1000000) / 7.0 END AS rate,
               CASE WHEN rnd(i, 7, 8) > 0 THEN rnd(i, 8, 1000000) END AS trips,
               CASE WHEN rnd(i, 9, 8) > 0 THEN 'note ' || rnd(i, 10, 500) END AS note
        FROM t {order}""", group)


def entities(con, data, rows=30_000, key="rnd(i, 21, 1100) AS driver", span=3_300_000_000, step=1, time="moment(us)",
             start=T0):
    """Entity rows in no order, a tenth of them twice, some before all rows and some of keys that have none."""
    return data.write(con, "e.parquet", f"""
        WITH r AS (SELECT range AS i FROM range({rows})),
        t AS (SELECT *, {start} - {span // 20} + rnd(i, 22, {span // step}) * {step} AS us FROM r),
        e AS (SELECT {key}, {time} AS event_timestamp, i AS label FROM t)
        (FROM e) UNION ALL (FROM e WHERE label % 10 = 0)""")


def view(source, name="drivers", keys=None, **more):
    return {
        "name": name, "sources": [source], "keys": keys or {"driver": "int64"}, "event_time": "event_timestamp",
        "created": "created", "features": {"rate": "float64", "trips": "int64", "note": "string"}, **more,
    }


def request(data, entities, *views, **more):
    return {"entities": entities, "out": data.path("out.parquet"), "views": list(views), **more}


def ties(con, data):
    f = features(con, data, span=200_000_000, step=1_000_000)
    return request(data, entities(con, data, span=220_000_000, step=1_000_000), view(f))


def ttl_edges(con, data):
    f = features(con, data, span=400_000, key="rnd(i, 1, 3000) AS driver")
    e = data.write(con, "e.parquet", f"""
        SELECT driver, moment(epoch_us(event_timestamp) + age) AS event_timestamp, 'age ' || age AS label
        FROM read_parquet('{f}') CROSS JOIN (VALUES (-1), (0), (1), (4999), (5000), (5001)) ages(age)
        WHERE rnd(trips, 31, 10) = 0""")
    return request(data, e, view(f, ttl_us=5000))


def expired_and_future(con, data):
    f = features(con, data, span=86_400_000_000 * 30)
    return request(data, entities(con, data, span=86_400_000_000 * 40), view(f, ttl_us=86_400_000_000))


def string_keys(con, data):
    f = features(con, data, key=STRING_KEY.format(i="i", n=500) + " AS airport")
    e = entities(con, data, key=STRING_KEY.format(i="i", n=550) + " AS airport")
    return request(data, e, view(f, keys={"airport": "string"}))


PAIR = (
    "CASE WHEN rnd(i, 11, 50) > 0 THEN rnd(i, 12, 40) END AS a,"
    " CASE WHEN rnd(i, 13, 50) > 0 THEN 'b' || rnd(i, 14, 30) END AS b"
)


def composite_keys(con, data):
    f = features(con, data, key=PAIR)
    return request(data, entities(con, data, key=PAIR), view(f, keys={"a": "int64", "b": "string"}))


def several_files(con, data):
    for number, name in enumerate(["b/2.parquet", "a.parquet", "b/10.parquet", "c.parquet"]):
        features(con, data, "table/" + name, rows=30_000, salt=number, span=100_000_000, step=1_000_000)
    e = entities(con, data, span=110_000_000, step=1_000_000)
    return request(data, e, view(data.path("table")))


def batch_and_log(con, data):
    span = {"span": 100_000_000, "step": 1_000_000}
    table = features(con, data, "table/part.parquet", rows=30_000, **span)
    for number, name in enumerate(["push-1.parquet", "push-2.parquet", "shard-1.parquet", "zeta.parquet"]):
        features(con, data, "log/" + name, rows=20_000, salt=number + 1, **span)
    e = entities(con, data, span=110_000_000, step=1_000_000)
    return request(data, e, view(os.path.dirname(table), logs=[data.path("log")]))


def several_views(con, data):
    both = "rnd(i, 1, 1000) AS driver, " + STRING_KEY.format(i="i", n=500) + " AS airport, " + PAIR
    sources = [features(con, data, f"{number}.parquet", rows=50_000, key=both, salt=number) for number in range(4)]
    views = [
        view(sources[0], "drivers"),
        view(sources[1], "airports", keys={"airport": "string"}, ttl_us=60_000_000),
        view(sources[2], "pairs", keys={"a": "int64", "b": "string"}),
        view(sources[3], "again", ttl_us=500_000_000),
    ]
    return request(data, entities(con, data, key=both), *views)


def created_filter(con, data):
    f = features(con, data, span=100_000_000, step=1_000_000)
    e = entities(con, data, span=110_000_000, step=1_000_000)
    return request(data, e, view(f), view(f, "young", ttl_us=3_000_000), filter_by_created=True)


def other_types(con, data):
    plain = features(con, data, "plain.parquet", span=86_400_000_000 * 20, step=1_000_000)
    views = []
    types = [
        ("s", "TIMESTAMP_S", "INTEGER"),
        ("ms", "TIMESTAMP_MS", "SMALLINT"),
        ("ns", "TIMESTAMP_NS", "VARCHAR"),
        ("us", "TIMESTAMP", "DOUBLE"),
    ]
    for name, of, key in types:
        f = data.write(con, f"{name}.parquet", f"""
            SELECT driver::{key} AS id, event_timestamp::TIMESTAMP::{of} AS happened, created::TIMESTAMP::{of} AS made,
                   rate, trips::INTEGER AS trips, note FROM read_parquet('{plain}')""")
        columns = {"driver": "id", "event_timestamp": "happened", "created": "made"}
        views.append(view(f, name, columns=columns))
    e = entities(con, data, span=86_400_000_000 * 22, step=1_000_000, time="moment(us)::TIMESTAMP::DATE",
                 key="rnd(i, 21, 1100)::INTEGER AS driver")
    return request(data, e, *views)


def text_times(con, data):
    f = features(con, data)
    text = "strftime(moment(us)::TIMESTAMP, '%Y-%m-%dT%H:%M:%S.%fZ')"
    return request(data, entities(con, data, time=text), view(f))


def spilled(con, data):
    f = features(con, data, rows=1_000_000, key="rnd(i, 1, 20000) AS driver", span=50_000_000, step=10_000)
    e = entities(con, data, rows=100_000, key="rnd(i, 21, 22000) AS driver", span=55_000_000, step=10_000)
    return request(data, e, view(f), memory_limit=8_000_000)


def in_order(con, data):
    f = features(con, data, rows=500_000, key="rnd(i, 1, 20000) AS driver", order="ORDER BY us", group=10_000)
    later = T0 + 1_000_000_000
    e = entities(con, data, rows=10_000, key="rnd(i, 21, 50) + 500 AS driver", span=200_000_000, start=later)
    return request(data, e, view(f, ttl_us=300_000_000), view(f, "always"))


def flights(con, data, path):
    """The newest earlier departure from the same airport: a microsecond before one's own."""
    e = data.write(con, "e.parquet", f"""
        SELECT file_row_number AS flight, origin, date - INTERVAL 1 MICROSECOND AS event_timestamp, delay AS target
        FROM read_parquet('{path}', file_row_number = true) ORDER BY hash(file_row_number) LIMIT 200000""")
    airports = {
        "name": "airports", "sources": [path], "keys": {"origin": "string"}, "event_time": "date",
        "features": {"delay": "int64", "distance": "int64", "destination": "string"},
    }
    return request(data, e, airports)


SECOND = 1_000_000


def windowed(source, name="windows", **more):
    """A view with every function over columns of every kind, in windows of several lengths and hops."""
    windows = {"rows": {"function": "count"}}
    for length, hop in [(60, None), (600, 7), (3600, 3600), (None, None)]:
        window = {"window_us": length * SECOND} if length else {}
        window |= {"hop_us": hop * SECOND} if hop else {}
        name_of = lambda function, column: f"{function}_{column}_{length or 'ever'}"
        for function in ["count", "sum", "mean", "stddev", "min", "max", "last"]:
            for column in ["rate", "trips"]:
                windows[name_of(function, column)] = {"function": function, "column": column, **window}
        for function in ["count", "min", "max", "last", "approx_count_distinct"]:
            windows[name_of(function, "note")] = {"function": function, "column": "note", **window}
        for function, n in [("last_n", 5), ("last_distinct_n", 3)]:
            windows[name_of(function, "note")] = {"function": {function: {"n": n}}, "column": "note", **window}
        windows[name_of("p95", "rate")] = {
            "function": {"approx_percentile": {"percentile": 0.95}}, "column": "rate", **window,
        }
    return view(source, name, windows=windows, **more)


def windows(con, data):
    f = features(con, data, key="rnd(i, 1, 100) AS driver")
    return request(data, entities(con, data, rows=5_000, key="rnd(i, 21, 110) AS driver"), windowed(f), view(f))


def windows_of_batch_and_log(con, data):
    key = "rnd(i, 1, 60) AS a, 'b' || rnd(i, 14, 2) AS b"
    table = features(con, data, "table/part.parquet", rows=30_000, key=key)
    for number, name in enumerate(["shard-1.parquet", "zeta.parquet"]):
        features(con, data, "log/" + name, rows=20_000, key=key, salt=number + 1)
    both = {"logs": [data.path("log")], "keys": {"a": "int64", "b": "string"}}
    views = [windowed(os.path.dirname(table), "met", log_from=T0 + 1_234_567_890, **both)]
    views.append(windowed(os.path.dirname(table), "never_ingested", **both))
    return request(data, entities(con, data, rows=4_000, key=key), *views)


def windows_by_created(con, data):
    f = features(con, data, key="rnd(i, 1, 100) AS driver", span=3_000_000_000, step=100_000_000)
    e = entities(con, data, rows=5_000, key="rnd(i, 21, 110) AS driver", step=100_000_000)
    return request(data, e, windowed(f), filter_by_created=True)


def windows_spilled(con, data):
    f = features(con, data, rows=300_000, key="rnd(i, 1, 2000) AS driver")
    e = entities(con, data, rows=20_000, key="rnd(i, 21, 2100) AS driver")
    return request(data, e, windowed(f), memory_limit=4_000_000)


def flights_in_windows(con, data, path):
    """A hundred airports at a hundred instants: the definition of `examples/flights`."""
    e = data.write(con, "e.parquet", f"""
        WITH airports AS (SELECT origin FROM read_parquet('{path}') GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 100)
        SELECT origin, moment(978307200000000 + rnd(n * 1000 + i, 40, 181 * 86400) * 1000000) AS event_timestamp, n
        FROM (SELECT origin, row_number() OVER (ORDER BY origin) AS i FROM airports) CROSS JOIN range(100) t(n)
        ORDER BY hash(n * 1000 + i)""")
    return request(data, e, traffic(path))


def traffic(path):
    return {
        "name": "traffic", "sources": [path], "keys": {"origin": "string"}, "event_time": "date",
        "features": {"delay": "int64", "destination": "string"}, "windows": TRAFFIC,
    }


# Where in the data folder of `examples/flights` the package client puts the flights.
FLIGHTS = "node_modules/vega-datasets/data/flights-3m.parquet"

HOUR = 3_600_000_000
TRAFFIC = {
    **{f"flights_{name}": {"function": "count", "window_us": us} for name, us in [("1h", HOUR), ("24h", 24 * HOUR)]},
    "flights_7d": {"function": "count", "window_us": 168 * HOUR},
    "mean_delay_1h": {"function": "mean", "column": "delay", "window_us": HOUR},
    "mean_delay_24h": {"function": "mean", "column": "delay", "window_us": 24 * HOUR},
    "mean_delay_7d": {"function": "mean", "column": "delay", "window_us": 168 * HOUR},
    "last_5_destinations": {"function": {"last_n": {"n": 5}}, "column": "destination"},
    "destinations_7d": {"function": "approx_count_distinct", "column": "destination", "window_us": 168 * HOUR},
}


CASES = [
    ("ties", ties),
    ("ttl edges", ttl_edges),
    ("expired and future rows", expired_and_future),
    ("string keys", string_keys),
    ("composite keys", composite_keys),
    ("several files", several_files),
    ("batch and log", batch_and_log),
    ("several views", several_views),
    ("created filter", created_filter),
    ("other types", other_types),
    ("text times", text_times),
    ("unsorted and spilled", spilled),
    ("in order and pruned", in_order),
    ("windows", windows),
    ("windows of batch and log", windows_of_batch_and_log),
    ("windows by created time", windows_by_created),
    ("windows, spilled", windows_spilled),
]


if __name__ == "__main__":
    main()
