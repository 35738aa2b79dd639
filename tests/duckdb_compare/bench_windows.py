#!/usr/bin/env python3
"""Times windows at entity rows beside DuckDB, on the same files, in the same run.

    bench_windows.py --join BIN [--rows 2000000] [--entities 200000] [--drivers 2000] [--rounds 3] [--sorted]

Needs a Python with duckdb. The rows are those of `bench.py`; asked are count, sum, mean and greatest value over the last
hour and the last day, as sawteeth of 5 minutes and 2 hours. DuckDB is asked in two ways: `duckdb` states it as it stands,
a join by key and range, grouped by entity row; `duckdb sums` goes by sums up to each row and two ASOF joins for each
window, which leaves out the greatest value, as that cannot be taken back. Each round runs every engine once, one after
the other, each in a process of its own. Timed: from Parquet to Parquet. Prints for each engine its best time, its memory,
and sums over the output that must agree.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import bench

HOUR = 3_600_000_000
WINDOWS = {"1h": (HOUR, HOUR // 12), "24h": (24 * HOUR, 2 * HOUR)}
FUNCTIONS = {"count": "count({})", "sum": "sum({})", "mean": "avg({})", "max": "max({})"}


def headwater(args, f, e, out):
    windows = {
        f"{function}_{name}": {"function": function, "column": "conv_rate", "window_us": length, "hop_us": hop}
        for name, (length, hop) in WINDOWS.items()
        for function in FUNCTIONS
    }
    request = {
        "entities": e, "out": out, "memory_limit": args.memory_limit,
        "views": [{
            "name": "v", "sources": [f], "keys": {"driver_id": "int64"}, "event_time": "event_timestamp",
            "created": "created", "features": {"conv_rate": "float64"}, "windows": windows,
        }],
    }
    path = out + ".json"
    with open(path, "w") as file:
        json.dump(request, file)
    report = json.loads(subprocess.run([args.join, path], check=True, capture_output=True, text=True).stdout)
    return report["seconds"]["written"], report["peak_mb"], report["seconds"]


def start(length, hop):
    """The beginning of a window at `e.t`, which is after 1970."""
    return f"(e.t - {length} - (e.t - {length}) % {hop})"


def tables(con, f, e):
    con.execute("SET TimeZone = 'UTC'")
    con.execute(f"CREATE TEMP VIEW e AS SELECT *, epoch_us(event_timestamp) AS t FROM read_parquet('{e}')")
    con.execute(f"""CREATE TEMP VIEW f AS
        SELECT driver_id, epoch_us(event_timestamp) AS t, conv_rate FROM read_parquet('{f}')""")


def duckdb(f, e, out):
    import duckdb as db

    con = db.connect()
    begun = time.perf_counter()
    tables(con, f, e)
    longest = max(WINDOWS.values())
    columns = ", ".join(
        f"{sql.format('f.conv_rate')} FILTER (f.t >= {start(*WINDOWS[name])}) AS v__{function}_{name}"
        for name in WINDOWS
        for function, sql in FUNCTIONS.items()
    )
    con.execute(f"""
        COPY (SELECT e.order_id, any_value(e.driver_id), any_value(e.event_timestamp), {columns}
              FROM e LEFT JOIN f ON e.driver_id = f.driver_id AND f.t <= e.t AND f.t >= {start(*longest)}
              GROUP BY e.order_id)
        TO '{out}' (FORMAT PARQUET)""")
    return time.perf_counter() - begun


def duckdb_sums(f, e, out):
    import duckdb as db

    con = db.connect()
    begun = time.perf_counter()
    tables(con, f, e)
    # The last of the rows of a moment has all of them.
    con.execute("""CREATE TEMP TABLE s AS
        SELECT driver_id, t, max(n) AS n, arg_max(total, n) AS total FROM (
            SELECT driver_id, t, row_number() OVER w AS n, sum(conv_rate) OVER w AS total FROM f
            WINDOW w AS (PARTITION BY driver_id ORDER BY t ROWS UNBOUNDED PRECEDING))
        GROUP BY ALL""")
    con.execute("""CREATE TEMP TABLE upto AS
        SELECT e.*, coalesce(s.n, 0) AS n, coalesce(s.total, 0) AS total
        FROM e ASOF LEFT JOIN s ON e.driver_id = s.driver_id AND e.t >= s.t""")
    columns = []
    for at, (name, (length, hop)) in enumerate(WINDOWS.items()):
        con.execute(f"""CREATE TEMP TABLE before{at} AS
            SELECT e.order_id, coalesce(s.n, 0) AS n, coalesce(s.total, 0) AS total
            FROM (SELECT *, {start(length, hop)} AS first FROM upto e) e
            ASOF LEFT JOIN s ON e.driver_id = s.driver_id AND e.first > s.t""")
        n, total = f"(u.n - b{at}.n)", f"(u.total - b{at}.total)"
        columns.append(f"{n} AS v__count_{name}, CASE WHEN {n} > 0 THEN {total} END AS v__sum_{name}")
        columns.append(f"CASE WHEN {n} > 0 THEN {total} / {n} END AS v__mean_{name}")
    joins = " ".join(f"JOIN before{at} b{at} ON b{at}.order_id = u.order_id" for at in range(len(WINDOWS)))
    con.execute(f"""
        COPY (SELECT u.order_id, u.driver_id, u.event_timestamp, {', '.join(columns)} FROM upto u {joins})
        TO '{out}' (FORMAT PARQUET)""")
    return time.perf_counter() - begun


PEERS = {"duckdb": duckdb, "duckdb sums": duckdb_sums}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--join", help="the release binary `join-files`")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--entities", type=int, default=200_000)
    parser.add_argument("--drivers", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-limit", type=int, help="bytes for Headwater")
    parser.add_argument("--sorted", action="store_true", help="rows in order of time, as a log has them")
    parser.add_argument("--peer", nargs=4, metavar=("NAME", "ROWS", "ENTITIES", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        name, *files = args.peer
        seconds = PEERS[name](*files)
        print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024]))
        return
    if not args.join:
        parser.error("--join is missing")
    with tempfile.TemporaryDirectory() as folder:
        f, e = bench.generate(folder, args)
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
        machine = f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
        print(f"{args.rows} rows, {args.entities} entity rows, best of {args.rounds}, {machine}")
        for name, (seconds, memory, laps) in best.items():
            out = os.path.join(folder, name + ".parquet")
            columns = "count(*), sum(v__count_1h), sum(v__count_24h), round(sum(v__sum_24h), 2), round(sum(v__mean_1h), 3)"
            sums = db.connect().execute(f"SELECT {columns} FROM read_parquet('{out}')").fetchone()
            print(f"{name:12} {seconds:6.2f} s  {seconds / ours:5.2f} x  {memory:6} MB  {sums}  {laps or ''}")


if __name__ == "__main__":
    main()
