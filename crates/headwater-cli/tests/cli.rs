//! The command itself, run as users run it.
#![allow(clippy::unwrap_used)] // Helpers of tests.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

struct Project(TempDir);

impl Project {
    fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The project that `headwater init` writes, applied.
    fn applied() -> Self {
        let project = Self::empty();
        project.ok(&["init"]);
        project.ok(&["apply"]);
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} has no {from}");
        self.write(name, &text.replace(from, to));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        command.args(args).current_dir(self.0.path()).env_remove("RUST_LOG");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What it prints; it has to succeed.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?} failed: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(&[&["--output", "json"], args].concat());
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// What it complains of; it has to fail and to print nothing else.
    fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?} succeeded");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The values of one feature for these drivers.
    fn online(&self, feature: &str, drivers: &Value) -> Value {
        let entities = json!({ "driver_id": drivers }).to_string();
        let answer = self.json(&["get-online-features", "--features", feature, "--entities", &entities]);
        answer["results"][1]["values"].clone()
    }
}

#[test]
fn the_starter_project_works_from_end_to_end() {
    let project = Project::empty();
    assert!(project.ok(&["init"]).contains("headwater apply"));
    let plan = project.json(&["plan"]);
    assert_eq!(plan["project"], "drivers");
    assert!(!project.path("data/registry.json").exists(), "a plan changes nothing");
    project.ok(&["apply"]);
    assert_eq!(project.json(&["plan"])["changes"], json!([]));

    project.ok(&["ingest", "--until-caught-up"]);
    let answer = project.json(&[
        "get-online-features",
        "--feature-service",
        "driver_activity",
        "--entities",
        r#"{"driver_id": [1001, 1002, 1003, 7]}"#,
    ]);
    let epoch = "1970-01-01T00:00:00Z";
    let times = json!(["2026-01-02T09:00:00Z", "2026-01-02T08:00:00Z", "2026-01-02T09:30:00Z", epoch]);
    assert_eq!(
        answer,
        json!({
            "metadata": {"feature_names": ["driver_id", "conv_percentage", "trips"]},
            "results": [
                {
                    "values": [1001, 1002, 1003, 7],
                    "statuses": ["PRESENT", "PRESENT", "PRESENT", "PRESENT"],
                    "event_timestamps": [epoch, epoch, epoch, epoch],
                },
                {
                    "values": [75.0, 25.0, null, null],
                    "statuses": ["PRESENT", "PRESENT", "NULL_VALUE", "NOT_FOUND"],
                    "event_timestamps": times,
                },
                {
                    "values": [14, 7, 0, null],
                    "statuses": ["PRESENT", "PRESENT", "PRESENT", "NOT_FOUND"],
                    "event_timestamps": times,
                },
            ],
        })
    );

    let historical = |out: &str| {
        project.json(&[
            "get-historical-features",
            "--feature-service",
            "driver_activity",
            "--entity-df",
            "sample/trips.csv",
            "--out",
            out,
        ])
    };
    assert_eq!(historical("training.parquet")["rows"], 6);
    historical("training.csv");
    let lines = project.read("training.csv");
    let mut lines = lines.lines();
    assert_eq!(lines.next(), Some("driver_id,event_timestamp,tip,conv_percentage,trips"));
    let ends: Vec<&str> = lines.map(|line| line.splitn(3, ',').nth(2).unwrap()).collect();
    assert_eq!(ends, ["2.5,40.0,10", "0.0,50.0,12", "1.0,75.0,14", "3.0,25.0,7", "0.5,,", "4.0,60.0,9"]);
    // A Parquet file can be the entity rows of another.
    project.ok(&[
        "get-historical-features",
        "--features",
        "driver_stats:trips",
        "--full-feature-names",
        "--entity-df",
        "training.parquet",
        "--out",
        "again.csv",
    ]);
    let header = "driver_id,event_timestamp,tip,conv_percentage,trips,driver_stats__trips\n";
    assert!(project.read("again.csv").starts_with(header));

    let status = project.json(&["status"]);
    assert_eq!(status["jobs"][0]["state"], "stopped");
    assert_eq!(status["jobs"][0]["splits"][0]["rows"], 5);
    for text in [project.ok(&["status"]), project.ok(&["plugins"]), project.ok(&["compact"])] {
        assert!(text.starts_with("project drivers") || text.starts_with('+'), "{text}");
    }

    let removed = project.json(&["teardown"]);
    assert_eq!(removed["logs"].as_array().unwrap().len(), 1);
    assert!(project.fails(&["status"]).contains("nothing was applied yet for project `drivers`"));
}

#[test]
fn init_never_overwrites() {
    let project = Project::empty();
    project.write("headwater.yaml", "mine");
    assert!(project.fails(&["init"]).contains("`headwater.yaml` is there already; nothing was written"));
    assert_eq!(project.read("headwater.yaml"), "mine");
    assert!(!project.path("sample").exists());
    project.ok(&["-c", "elsewhere/store.yaml", "init"]);
    project.ok(&["-c", "elsewhere/store.yaml", "apply"]);
    assert!(project.path("elsewhere/data/registry.json").exists());
}

#[test]
fn materialised_history_is_served_and_never_replaces_newer_values() {
    let project = Project::applied();
    let done = project.json(&["materialize", "2026-01-01", "2026-01-02T00:00:00Z", "--views", "driver_stats"]);
    assert_eq!((&done[0]["rows"], &done[0]["written"]), (&json!(3), &json!(3)));
    assert_eq!(project.online("driver_stats:trips", &json!([1001, 1004])), json!([10, 9]));
    project.ok(&["ingest", "--until-caught-up"]);
    let done = project.json(&["materialize-incremental", "2026-01-03"]);
    assert_eq!(done[0]["rows"], 0);
    project.ok(&["materialize", "2026-01-01", "2026-01-03"]);
    assert_eq!(project.online("driver_stats:trips", &json!([1001, 1004])), json!([14, 9]));
    let error = project.fails(&["materialize", "2026-01-02", "2026-01-01"]);
    assert!(error.contains("the interval ends before it begins"), "{error}");
    let error = project.fails(&["materialize", "yesterday", "2026-01-01"]);
    assert!(error.contains("`yesterday` is not a time"), "{error}");
}

#[test]
fn pushed_rows_are_transformed() {
    let project = Project::applied();
    let row = r#"{"driver_id": 1001, "event_timestamp": "2026-02-01T00:00:00Z", "conv_rate": 0.5, "trips": 99, "created": null}"#;
    project.write("rows.ndjson", &format!("{row}\n"));
    let pushed = project.json(&["push", "driver_events", "--file", "rows.ndjson", "--to", "online_and_offline"]);
    assert_eq!(pushed[0]["logged"], 1);
    assert_eq!(project.online("driver_stats:conv_percentage", &json!([1001])), json!([50.0]));
    project.write("bad.csv", "driver_id,event_timestamp,conv_rate,trips,created\nx,2026-02-01T00:00:00Z,0.5,1,\n");
    let error = project.fails(&["push", "driver_events", "--file", "bad.csv"]);
    assert!(error.contains("nothing was written: row 1: column `driver_id`"), "{error}");
    let error = project.fails(&["push", "driver_events", "--file", "bad.csv", "--to", "nowhere"]);
    assert!(error.contains("`nowhere` is nowhere to push to"), "{error}");
    let error = project.fails(&["push", "driver_history", "--file", "rows.ndjson"]);
    assert!(error.contains("source `driver_history` is a batch source"), "{error}");
}

#[test]
fn a_bad_record_is_put_aside_and_brought_in_after_a_fix() {
    let project = Project::applied();
    let event = |driver: u32, trips: u64| {
        format!(
            r#"{{"driver_id": {driver}, "event_timestamp": "2026-01-02T10:00:00Z", "conv_rate": 0.5, "trips": {trips}}}"#
        )
    };
    let mut events = project.read("sample/driver_events.ndjson");
    events.push_str(&format!("{}\nnot json\n{}\n", event(1009, 3_000_000_000), event(1010, 4)));
    project.write("sample/driver_events.ndjson", &events);
    project.ok(&["ingest", "--until-caught-up"]);
    assert_eq!(project.online("driver_stats:trips", &json!([1009, 1010])), json!([null, 4]));
    let letters = project.json(&["dead-letters", "list"]);
    assert_eq!(letters.as_array().unwrap().len(), 2, "{letters}");
    assert!(letters[0]["record"].as_str().unwrap().contains("3000000000"), "{letters}");
    assert_eq!(letters[1]["record"], "not json");
    assert!(project.ok(&["dead-letters", "list"]).contains("not json"));

    // With a wider type the first is good.
    project.edit("headwater.yaml", "trips int,", "trips bigint,");
    project.edit("headwater.yaml", "name: trips,           dtype: int32", "name: trips,           dtype: int64");
    let output = project.run(&["dead-letters", "list"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("warning: the definitions differ"), "{output:?}");
    project.ok(&["apply"]);
    project.ok(&["ingest", "--until-caught-up"]);
    project.ok(&["dead-letters", "replay"]);
    assert_eq!(project.online("driver_stats:trips", &json!([1009, 1010])), json!([3_000_000_000_i64, 4]));
    let letters = project.json(&["dead-letters", "list"]);
    let mut open = letters.as_array().unwrap().iter().filter(|letter| letter["resolved"] == false);
    assert!(open.all(|letter| letter["record"] == "not json"), "{letters}");
}

#[test]
fn a_followed_ingest_stops_in_good_order_when_it_is_told_to() {
    let project = Project::applied();
    let path = "path: sample/driver_events.ndjson";
    project.edit("headwater.yaml", path, &format!("{path}\n    follow: true"));
    project.ok(&["apply"]);
    let mut child = project.command(&["ingest"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Its progress tells when the records are in.
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut lines = stderr.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("driver_events: 5 rows")), "it ended before it read");
    let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert!(child.wait().unwrap().success());
    assert_eq!(project.online("driver_stats:trips", &json!([1001])), json!([14]));
    // What it had read is published and committed: nothing is read twice, what was added is.
    let mut events = fs::OpenOptions::new().append(true).open(project.path("sample/driver_events.ndjson")).unwrap();
    writeln!(events, r#"{{"driver_id": 1001, "event_timestamp": "2026-01-03T00:00:00Z", "trips": 21}}"#).unwrap();
    project.ok(&["ingest", "--until-caught-up"]);
    assert_eq!(project.online("driver_stats:trips", &json!([1001])), json!([21]));
    assert_eq!(project.json(&["status"])["jobs"][0]["splits"][0]["rows"], 6);
}

#[test]
fn resets_go_forward_and_back() {
    let project = Project::applied();
    project.ok(&["reset", "driver_events", "--to", "latest"]);
    project.ok(&["ingest", "--until-caught-up"]);
    assert_eq!(project.online("driver_stats:trips", &json!([1001])), json!([null]));
    let done = project.json(&["reset", "driver_events", "--to", "earliest"]);
    assert_eq!(done["views"][0]["what"], "back");
    project.ok(&["ingest", "--until-caught-up"]);
    assert_eq!(project.online("driver_stats:trips", &json!([1001])), json!([14]));
    let error = project.fails(&["reset", "driver_events", "--to", "sometime"]);
    assert!(error.contains("write `earliest`, `latest` or a time"), "{error}");
}

#[test]
fn mistakes_are_named() {
    let project = Project::empty();
    assert!(project.fails(&["plan"]).contains("there is no definition file `headwater.yaml`"));
    project.ok(&["init"]);
    project.ok(&["apply"]);
    for (features, entities, expected) in [
        ("driver_stat:trips", "{}", "did you mean `driver_stats`?"),
        ("driver_stats:trip", "{}", "did you mean `trips`?"),
        ("driver_stats", "{}", "view `driver_stats` needs the join key `driver_id`"),
        ("driver_stats", r#"{"driver_id": ["x"]}"#, "join key `driver_id`, row 0: `\"x\"` is no `int64`"),
        ("driver_stats", "[1]", "`--entities` takes JSON such as"),
        ("driver_stats", "@missing.json", "`missing.json` cannot be read"),
    ] {
        let error = project.fails(&["get-online-features", "--features", features, "--entities", entities]);
        assert!(error.starts_with("error: ") && error.contains(expected), "{error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    }
    project.write("entities.json", r#"{"driver_id": [1001]}"#);
    project.ok(&["get-online-features", "--features", "driver_stats", "--entities", "@entities.json"]);

    let historical = |df: &str, out: &str| {
        project.fails(&["get-historical-features", "--features", "driver_stats", "--entity-df", df, "--out", out])
    };
    assert!(historical("none.csv", "out.csv").contains("there is no file `none.csv`"));
    assert!(historical("sample/trips.csv", "out.txt").contains("there are `.parquet` and `.csv`"));
    assert!(!project.path("out.txt").exists());

    assert!(project.fails(&["ingest", "driver_event"]).contains("did you mean `driver_events`?"));
    assert!(project.fails(&["ingest", "driver_history"]).contains("`driver_history`"));
    project.edit("headwater.yaml", "entities: [driver]", "entities: [drivr]");
    let error = project.fails(&["apply"]);
    assert!(error.contains("headwater.yaml:") && error.contains("`driver`"), "{error}");
}

#[cfg(not(feature = "kafka"))]
#[test]
fn a_source_without_its_client_is_named() {
    let project = Project::empty();
    project.ok(&["init"]);
    project.edit(
        "headwater.yaml",
        "type: file\n    path: sample/driver_events.ndjson",
        "type: kafka\n    bootstrap_servers: localhost:9092\n    topic: drivers",
    );
    let applied = project.run(&["apply"]);
    let text = if applied.status.success() {
        project.fails(&["ingest"])
    } else {
        String::from_utf8_lossy(&applied.stderr).into_owned()
    };
    assert!(text.contains("`kafka`") && text.contains("cargo feature"), "{text}");
}

#[test]
fn plugins_say_whether_they_are_in_this_build() {
    let project = Project::empty();
    let plugins = project.json(&["plugins"]);
    let enabled = |name: &str| {
        plugins.as_array().unwrap().iter().find(|plugin| plugin["name"] == name).map(|plugin| plugin["enabled"].clone())
    };
    assert_eq!(enabled("kafka"), Some(json!(cfg!(feature = "kafka"))));
    assert_eq!(enabled("sqlite"), Some(json!(true)));
}

/// The starter project with windows over its events, at the end of its stream views.
fn windowed() -> Project {
    let project = Project::empty();
    project.ok(&["init"]);
    project.edit(
        "headwater.yaml",
        "# What one model asks for.",
        r"  - name: driver_windows
    entities: [driver]
    source: driver_events
    mode: sql
    transform: >
      SELECT driver_id, event_timestamp, created,
             conv_rate * 100.0 AS conv_percentage, trips
      FROM driver_events
    offline: true
    aggregations:
      - { function: count, time_window: 36500d }
      - { column: trips, function: sum, name: trips_sum }
      - { column: conv_percentage, function: last_n, n: 2 }

# What one model asks for.",
    );
    project.ok(&["apply"]);
    project
}

#[test]
fn windows_are_planned_built_served_and_verified() {
    let project = windowed();
    let view = |status: Value| {
        let views = status["views"].as_array().unwrap().clone();
        views.into_iter().find(|view| view["view"] == "driver_windows").unwrap()
    };
    assert_eq!(view(project.json(&["status"]))["windows"]["epoch"], Value::Null);
    assert!(project.ok(&["status"]).contains("no epoch yet"));
    assert!(project.fails(&["verify", "driver_windows"]).contains("its windows have not been built yet"));
    // Nothing was ever seen.
    assert_eq!(project.online("driver_windows:count_3153600000s", &json!([1001])), json!([0]));

    project.ok(&["ingest", "--until-caught-up"]);
    let windows = view(project.json(&["status"]))["windows"].clone();
    assert!(windows["epoch"].is_string() && windows["log_from"].is_i64(), "{windows}");
    assert_eq!((&windows["current"], &windows["next"]), (&json!(true), &Value::Null));
    let text = project.ok(&["status"]);
    assert!(text.contains("log from 20") && !text.contains("older events"), "{text}");
    // Batch rows stand for the time of this one.
    let mut events = project.read("sample/driver_events.ndjson");
    events.push_str("{\"driver_id\": 1001, \"event_timestamp\": \"2026-01-01T07:00:00Z\", \"trips\": 3}\n");
    project.write("sample/driver_events.ndjson", &events);
    project.ok(&["ingest", "--until-caught-up"]);
    assert!(project.ok(&["status"]).contains("older events, which change no window: 1"));

    let found = project.json(&["verify", "driver_windows", "--sample", "100", "--seed", "7"]);
    assert_eq!(found["sampled"], found["matches"], "{found}");
    assert_eq!((&found["seed"], &found["mismatches"], &found["missing"]), (&json!(7), &json!(0), &json!(0)));
    assert!(found["sampled"].as_u64().unwrap() >= 3, "{found}");
    assert_eq!(project.json(&["verify", "driver_windows", "--sample", "2"])["sampled"], 2);
    let text = project.ok(&["verify", "driver_windows"]);
    assert!(text.contains("mismatches          0") && text.contains("largest difference  0e0"), "{text}");

    // Another window is another epoch of the same rows.
    project.edit("headwater.yaml", "36500d", "400d");
    let plan = project.ok(&["plan"]);
    assert!(plan.contains("rows: stay, generation ") && plan.contains("windows: new epoch of"), "{plan}");
    project.ok(&["apply"]);
    assert!(project.ok(&["status"]).contains("of older aggregations"));
    assert!(project.fails(&["verify", "driver_windows"]).contains("have not been built yet as they are defined now"));
    project.ok(&["ingest", "--until-caught-up"]);
    assert_eq!(view(project.json(&["status"]))["windows"]["current"], true);
    assert!(project.ok(&["verify", "driver_windows"]).contains("missing             0"));

    // History is not what it was.
    let history = project.read("sample/driver_history.csv");
    let mut lines: Vec<String> = history.lines().map(str::to_owned).collect();
    let first = lines[1].clone();
    lines.push(first);
    project.write("sample/driver_history.csv", &format!("{}\n", lines.join("\n")));
    let output = project.run(&["verify", "driver_windows"]);
    assert!(!output.status.success());
    let (text, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(text.contains("mismatches          1") && text.contains("count_34560000s is "), "{text}");
    assert!(text.contains("largest difference  2.5e-1"), "{text}");
    assert!(error.contains("1 differ and 0 are missing"), "{error}");
}

#[test]
fn status_tells_how_far_the_next_windows_are() {
    let project = windowed();
    project.ok(&["ingest", "--until-caught-up"]);
    // The log lacks what a job that was killed did not publish: windows that are built of it wait for the next job.
    fs::remove_dir_all(project.path("data/offline/driver_windows")).unwrap();
    let materialize = ["materialize", "2026-01-01", "2026-01-03", "--views", "driver_windows"];
    let text = project.ok(&materialize);
    assert!(text.contains("serve as soon as a job has caught up with them"), "{text}");
    let text = project.ok(&["status"]);
    assert!(text.contains("log from 2026-01-03T00:00:00Z: 0 of 0 splits have caught up"), "{text}");
    project.ok(&["ingest", "--until-caught-up"]);
    let text = project.ok(&["status"]);
    assert!(text.contains("log from 2026-01-03T00:00:00Z") && !text.contains("next "), "{text}");

    // A build that breaks off.
    let mut history = project.read("sample/driver_history.csv");
    history.push_str("1001,2026-01-01T06:00:00Z,,50.0,many\n");
    project.write("sample/driver_history.csv", &history);
    assert!(project.fails(&materialize).contains("`many`"));
    let text = project.ok(&["status"]);
    assert!(text.contains("0 of 0 pieces built, 0 rows"), "{text}");
}

#[test]
fn newest_values_are_verified() {
    let project = Project::applied();
    project.ok(&["ingest", "--until-caught-up"]);
    project.ok(&["materialize", "2000-01-01", "2100-01-01"]);
    let found = project.json(&["verify", "driver_stats"]);
    assert_eq!(found["sampled"], found["matches"], "{found}");
    assert!(project.fails(&["verify", "driver_stat"]).contains("did you mean `driver_stats`?"));
    // A driver whom history alone knows.
    let history = project.read("sample/driver_history.csv");
    let line = history.lines().nth(1).unwrap().replacen(char::is_numeric, "9", 1);
    project.write("sample/driver_history.csv", &format!("{}\n{line}\n", history.trim_end()));
    let output = project.run(&["--output", "json", "verify", "driver_stats"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!output.status.success());
    assert_eq!((&found["missing"], &found["mismatches"]), (&json!(1), &json!(0)), "{found}");
}
