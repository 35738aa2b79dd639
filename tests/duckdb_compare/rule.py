"""The rules of the point-in-time join and of windows in SQL, for entity rows `e` and rows `f0`, `f1` … of views."""

import os


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def micros(con, table, column):
    """An expression for a time column's microseconds since the epoch; what has no zone is UTC."""
    rows = con.execute(f"SELECT column_type FROM (DESCRIBE {table}) WHERE column_name = ?", [column]).fetchall()
    zoned = rows[0][0] in ("VARCHAR", "TIMESTAMP WITH TIME ZONE")
    return f"epoch_us({quoted(column)}::{'TIMESTAMPTZ' if zoned else 'TIMESTAMP'})"


def files(path):
    return f"{path}/**/*.parquet" if os.path.isdir(path) else path


def event_time(con, table):
    columns = con.execute(f"SELECT column_name, column_type FROM (DESCRIBE {table})").fetchall()
    if any(name == "event_timestamp" for name, _ in columns):
        return "event_timestamp"
    [only] = [name for name, of in columns if of.startswith("TIMESTAMP")]
    return only


def load(con, request):
    """Makes the tables `e`, of entity rows, and `f0`, `f1` …, of the views' rows."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE e AS FROM read_parquet('{request['entities']}', file_row_number = true)")
    time = request.get("event_time") or event_time(con, "e")
    con.execute("ALTER TABLE e ADD COLUMN __t BIGINT")
    con.execute(f"UPDATE e SET __t = {micros(con, 'e', time)}")
    for number, view in enumerate(request["views"]):
        named = lambda column: view.get("columns", {}).get(column, column)
        parts = []
        for kind, paths in (("source", view.get("sources", [])), ("log", view.get("logs", []))):
            for path in paths:
                raw = f"raw_{number}_{len(parts)}"
                con.execute(
                    f"CREATE OR REPLACE TEMP TABLE {raw} AS FROM read_parquet('{files(path)}', filename = true,"
                    " file_row_number = true, union_by_name = true)"
                )
                relative = f"substr(filename, {len(path.rstrip('/')) + 2})"
                origin = "0" if kind == "source" else f"CASE WHEN {relative} LIKE 'push-%' THEN 2 ELSE 1 END"
                columns = [
                    f"{quoted(named(key))}::{SQL_TYPES[of]} AS {quoted('k_' + key)}" for key, of in view["keys"].items()
                ]
                columns += [f"{quoted(named(name))} AS {quoted('v_' + name)}" for name in view["features"]]
                columns.append(f"{micros(con, raw, named(view['event_time']))} AS __time")
                created = view.get("created")
                columns.append(f"{micros(con, raw, named(created)) if created else 'NULL::BIGINT'} AS __created")
                columns += [f"{origin} AS __origin", "filename AS __file", "file_row_number AS __row"]
                parts.append(f"SELECT {', '.join(columns)} FROM {raw}")
        con.execute(f"CREATE OR REPLACE TEMP TABLE f{number} AS {' UNION ALL '.join(parts)}")


SQL_TYPES = {"int32": "INTEGER", "int64": "BIGINT", "string": "VARCHAR", "bool": "BOOLEAN", "float64": "DOUBLE"}

NEWEST = "f.__created DESC NULLS LAST, f.__origin DESC, f.__file DESC, f.__row DESC"


def equal_keys(view):
    return [f"e.{quoted(key)}::{SQL_TYPES[of]} = f.{quoted('k_' + key)}" for key, of in view["keys"].items()]


def by_pairs(number, view, by_created):
    on = equal_keys(view) + ["f.__time <= e.__t"]
    if view.get("ttl_us", 0) > 0:
        on.append(f"f.__time >= e.__t - {view['ttl_us']}")
    if by_created:
        on.append("(f.__created IS NULL OR f.__created <= e.__t)")
    values = ", ".join(f"f.{quoted('v_' + name)}" for name in view["features"])
    return (
        f"SELECT e.file_row_number AS __e, f.__time AS __found, {values}"
        f" FROM e LEFT JOIN f{number} f ON {' AND '.join(on)}"
        f" QUALIFY row_number() OVER (PARTITION BY e.file_row_number ORDER BY f.__time DESC NULLS LAST, {NEWEST}) = 1"
    )


def by_asof(number, view):
    keys = ", ".join([quoted("k_" + key) for key in view["keys"]] + ["__time"])
    on = equal_keys(view) + ["e.__t >= f.__time"]
    alive = f"f.__time >= e.__t - {view['ttl_us']}" if view.get("ttl_us", 0) > 0 else "true"
    names = [quoted("v_" + name) for name in view["features"]]
    values = ", ".join(f"CASE WHEN {alive} THEN f.{name} END AS {name}" for name in names)
    return (
        f"SELECT e.file_row_number AS __e, CASE WHEN {alive} THEN f.__time END AS __found, {values}"
        " FROM e ASOF LEFT JOIN"
        f" (FROM f{number} f QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {NEWEST}) = 1) f"
        f" ON {' AND '.join(on)}"
    )


# ---- windows in SQL ----

# As the documentation of the functions says: four times the standard error of a count of many, next to none below a
# hundred, and the distance from the value of exactly that rank.
DISTINCT_ERROR, FEW, PERCENTILE_ERROR = 4 * 0.02298, 100, 1 / 129


def function(window):
    """The name of a window's function and its argument."""
    of = window["function"]
    return (of, {}) if isinstance(of, str) else next(iter(of.items()))


def aggregate(view, window):
    """An expression for an aggregate over rows `f`, joined to entity rows."""
    name, options = function(window)
    if "column" not in window:
        return "count(f.__rank)"
    column = f"f.{quoted('v_' + window['column'])}"
    there = f"FILTER ({column} IS NOT NULL)"
    whole = view["features"][window["column"]] in ("int32", "int64")
    return {
        "count": lambda: f"count({column})",
        "sum": lambda: f"sum({column}){'::BIGINT' if whole else ''}",
        "mean": lambda: f"avg({column})",
        "stddev": lambda: f"stddev_samp({column})",
        "min": lambda: f"min({column})",
        "max": lambda: f"max({column})",
        "last": lambda: f"arg_max({column}, f.__rank) {there}",
        "last_n": lambda: f"list_reverse(arg_max({column}, f.__rank, {options['n']}) {there})",
        "approx_count_distinct": lambda: f"nullif(count(DISTINCT {column}), 0)",
        "approx_percentile": lambda: f"quantile_disc({column}, {options['percentile']})",
    }[name]()


def counting(view, window, by_created):
    """The conditions under which a row `f` counts for an entity row `e`."""
    on = equal_keys(view) + ["f.__time <= e.__t"]
    if "window_us" in window:
        length, hop = window["window_us"], window.get("hop_us", window["window_us"] // 12)
        start = f"(e.__t - {length})"
        on.append(f"f.__time >= {start} - (({start} % {hop}) + {hop}) % {hop}")
    if by_created:
        on.append("(f.__created IS NULL OR f.__created <= e.__t)")
    if view.get("log_from") is None:
        on.append("f.__origin = 0")
    else:
        on.append(f"(f.__time < {view['log_from']}) = (f.__origin = 0)")
    return " AND ".join(on)


def windows_as(con, number, view, by_created):
    """Makes a table for each window, and one for each list of distinct values. Returns them with their features."""
    oldest_first = "f.__time, f.__created NULLS FIRST, f.__origin, f.__file, f.__row"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE r{number} AS"
        f" SELECT *, row_number() OVER (ORDER BY {oldest_first}) AS __rank FROM f{number} f"
    )
    groups = {}
    for name, window in view["windows"].items():
        distinct = name if function(window)[0] == "last_distinct_n" else None
        groups.setdefault((window.get("window_us"), window.get("hop_us"), distinct), []).append((name, window))
    tables = []
    for at, ((_, _, distinct), features) in enumerate(groups.items()):
        _, window = features[0]
        rows = f"FROM e LEFT JOIN r{number} f ON {counting(view, window, by_created)}"
        if distinct:
            column, n = f"f.{quoted('v_' + window['column'])}", function(window)[1]["n"]
            query = (
                f"SELECT __e, list_reverse(arg_max(value, rank, {n}) FILTER (value IS NOT NULL)) AS {quoted(distinct)}"
                f" FROM (SELECT e.file_row_number AS __e, {column} AS value, max(f.__rank) AS rank {rows} GROUP BY ALL)"
                " GROUP BY __e"
            )
        else:
            columns = ", ".join(f"{aggregate(view, window)} AS {quoted(name)}" for name, window in features)
            query = f"SELECT e.file_row_number AS __e, {columns} {rows} GROUP BY e.file_row_number"
        con.execute(f"CREATE OR REPLACE TEMP TABLE w{number}_{at} AS {query}")
        tables.append((f"w{number}_{at}", features))
    return tables


def agrees(view, window, expected, found):
    name, _ = function(window)
    if name == "approx_count_distinct":
        bound = f"CASE WHEN {expected} <= {FEW} THEN 0 ELSE {DISTINCT_ERROR} * {expected} END"
        within = f"abs({expected} - {found}) <= {bound}"
    elif name == "approx_percentile":
        within = f"abs({expected} - {found}) <= {PERCENTILE_ERROR} * abs({expected}) + 1e-300"
    elif name in ("mean", "stddev") or (name == "sum" and view["features"][window["column"]].startswith("float")):
        within = f"abs({expected} - {found}) <= 1e-9 * greatest(1, abs({expected}))"
    else:
        return f"{expected} IS NOT DISTINCT FROM {found}"
    same = f"{expected} IS NOT DISTINCT FROM {found}"
    return f"CASE WHEN {expected} IS NULL OR {found} IS NULL THEN {same} ELSE {within} END"
