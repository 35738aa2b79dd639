#!/usr/bin/env python3
"""Times the point-in-time join beside Polars and DuckDB, on the same files, in the same run.

    bench.py --join BIN [--rows 10000000] [--entities 1000000] [--drivers 10000] [--rounds 3] [--sorted]

Needs a Python with duckdb, polars and pyarrow. Each round runs every engine once, one after the other, each in a process
of its own, so that a busy machine is busy for all of them. Timed: reading entity rows and features from Parquet, joining
(ttl one day, of equal times the later created), writing Parquet. Polars does not break ties in its join; its input is
sorted by created first. Prints for each engine its best time, its memory, and sums over the output that must agree.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

TTL_HOURS = 24
COLUMNS = ["conv_rate", "acc_rate", "avg_daily_trips"]
T0 = 1_767_225_600_000_000
SECONDS = 30 * 86_400


def generate(folder, args):
    import duckdb

    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.execute("CREATE MACRO rnd(i, salt, n) AS (hash(i * 1000003 + salt) % n)::BIGINT")
    con.execute(f"CREATE MACRO moment(seconds) AS make_timestamp({T0} + seconds * 1000000)::TIMESTAMPTZ")
    f, e = os.path.join(folder, "f.parquet"), os.path.join(folder, "e.parquet")
    # One row in a hundred is a correction: key and time of another, made later.
    con.execute(f"""
        COPY (WITH r AS (SELECT range AS id, CASE WHEN range % 100 = 99 THEN range - 50 ELSE range END AS i
                         FROM range({args.rows}))
              SELECT 1 + rnd(i, 1, {args.drivers}) AS driver_id, moment(rnd(i, 2, {SECONDS})) AS event_timestamp,
                     moment(rnd(i, 2, {SECONDS}) + 1 + rnd(i, 3, 60) + CASE WHEN id = i THEN 0 ELSE 3600 END) AS created,
                     rnd(id, 4, 1000000) / 1e6 AS conv_rate, rnd(id, 5, 1000000) / 1e6 AS acc_rate,
                     rnd(id, 6, 1000) AS avg_daily_trips
              FROM r ORDER BY {'2, 3' if args.sorted else 'hash(id + 7)'})
        TO '{f}' (FORMAT PARQUET, ROW_GROUP_SIZE 1000000)""")
    con.execute(f"""
        COPY (SELECT range AS order_id, 1 + rnd(range, 7, {args.drivers * 102 // 100}) AS driver_id,
                     moment(rnd(range, 8, {SECONDS})) AS event_timestamp FROM range({args.entities}))
        TO '{e}' (FORMAT PARQUET, ROW_GROUP_SIZE 1000000)""")
    return f, e


def headwater(args, f, e, out):
    request = {
        "entities": e, "out": out,
        "views": [{
            "name": "v", "ttl_us": TTL_HOURS * 3_600_000_000, "sources": [f], "keys": {"driver_id": "int64"},
            "event_time": "event_timestamp", "created": "created",
            "features": {"conv_rate": "float64", "acc_rate": "float64", "avg_daily_trips": "int64"},
        }],
    }
    path = out + ".json"
    with open(path, "w") as file:
        json.dump(request, file)
    report = json.loads(subprocess.run([args.join, path], check=True, capture_output=True, text=True).stdout)
    return report["seconds"]["written"], report["peak_mb"], report["seconds"]


def polars(f, e, out):
    from datetime import timedelta

    import polars as pl

    start = time.perf_counter()
    rows = pl.read_parquet(f).sort("event_timestamp", "created").drop("created")
    rows = rows.rename({column: f"v__{column}" for column in COLUMNS})
    asked = pl.read_parquet(e).sort("event_timestamp")
    asked.join_asof(rows, on="event_timestamp", by="driver_id", strategy="backward", check_sortedness=False,
                    tolerance=timedelta(hours=TTL_HOURS)).write_parquet(out)
    return time.perf_counter() - start


def duckdb(f, e, out):
    import duckdb as db

    con = db.connect()
    con.execute("SET TimeZone = 'UTC'")
    alive = f"v.event_timestamp >= e.event_timestamp - INTERVAL {TTL_HOURS} HOUR"
    values = ", ".join(f"CASE WHEN {alive} THEN v.{column} END AS v__{column}" for column in COLUMNS)
    start = time.perf_counter()
    con.execute(f"""
        COPY (SELECT e.*, {values} FROM read_parquet('{e}') e ASOF LEFT JOIN
              (FROM read_parquet('{f}')
               QUALIFY row_number() OVER (PARTITION BY driver_id, event_timestamp ORDER BY created DESC) = 1) v
              ON e.driver_id = v.driver_id AND e.event_timestamp >= v.event_timestamp)
        TO '{out}' (FORMAT PARQUET)""")
    return time.perf_counter() - start


PEERS = {"polars": polars, "duckdb": duckdb}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--join", help="the release binary `join-files`")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--entities", type=int, default=1_000_000)
    parser.add_argument("--drivers", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sorted", action="store_true", help="features in order of time, as a log has them")
    parser.add_argument("--peer", nargs=4, metavar=("NAME", "FEATURES", "ENTITIES", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        name, *files = args.peer
        seconds = PEERS[name](*files)
        print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024]))
        return
    if not args.join:
        parser.error("--join is missing")
    with tempfile.TemporaryDirectory() as folder:
        f, e = generate(folder, args)
        best = {}
        for _ in range(args.rounds):
            for name in ["headwater", *PEERS]:
                out = os.path.join(folder, name + ".parquet")
                if name == "headwater":
                    seconds, memory, laps = headwater(args, f, e, out)
                else:
                    command = [sys.executable, os.path.abspath(__file__), "--peer", name, f, e, out]
                    seconds, memory = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                    laps = None
                if name not in best or seconds < best[name][0]:
                    best[name] = (seconds, memory, laps)
        import duckdb as db

        ours = best["headwater"][0]
        load = os.getloadavg()[0]
        machine = f"load {load:.0f} on {os.cpu_count()} cores"
        print(f"{args.rows} rows, {args.entities} entity rows, best of {args.rounds}, {machine}")
        for name, (seconds, memory, laps) in best.items():
            out = os.path.join(folder, name + ".parquet")
            columns = "count(*), count(v__conv_rate), round(sum(v__conv_rate), 3), sum(v__avg_daily_trips)"
            sums = db.connect().execute(f"SELECT {columns} FROM read_parquet('{out}')").fetchone()
            print(f"{name:10} {seconds:6.2f} s  {seconds / ours:5.2f} x  {memory:6} MB  {sums}  {laps or ''}")


if __name__ == "__main__":
    main()
