//! The program prints what the purchases come to, and the stream can be swapped.

use std::path::Path;
use std::process::Command;

#[path = "../src/purchases.rs"]
mod purchases;

use purchases::{END, Purchase, USERS, purchases, rfc3339};

const FILES: [&str; 2] = [include_str!("../file.yaml"), include_str!("../kafka.yaml")];

/// What somebody bought last, of all kinds the last time: by brute force, from purchases in order of time.
fn last_distinct(purchases: &[(i64, String, String)], user: i64, until: &str) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for (_, _, category) in purchases.iter().filter(|(of, time, _)| *of == user && time.as_str() <= until) {
        seen.retain(|known| known != category);
        seen.push(category);
    }
    format!("[{}]", seen[seen.len().saturating_sub(3)..].join(", "))
}

#[test]
fn the_program_prints_the_last_distinct_categories() {
    let folder = tempfile::tempdir().expect("a folder");
    let example = Path::new(env!("CARGO_MANIFEST_DIR"));
    for needed in ["file.yaml", "history.csv"] {
        std::fs::copy(example.join(needed), folder.path().join(needed)).expect("a copy");
    }
    let program = Command::new(env!("CARGO_BIN_EXE_purchases")).arg(folder.path().join("file.yaml")).output();
    let output = program.expect("the program runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");

    let history = include_str!("../history.csv").lines().skip(1).map(|line| {
        let mut values = line.split(',');
        let mut next = || values.next().expect("a value").to_owned();
        (next().parse().expect("a user"), next(), next())
    });
    let streamed = purchases();
    assert!(streamed.is_sorted_by_key(|purchase| purchase.time).eq(&false), "some of them are late");
    assert!(streamed.iter().all(|purchase| purchase.cents > 0));
    let of_stream = |Purchase { user, time, category, .. }: &Purchase| (*user, rfc3339(*time), (*category).to_owned());
    let mut all: Vec<(i64, String, String)> = history.chain(streamed.iter().map(of_stream)).collect();
    all.sort_by(|(_, left, _), (_, right, _)| left.cmp(right));

    let (online, training) = stdout.split_once("A training set:").expect("a training set");
    let printed = |part: &str, begin: &str| -> String {
        let row = part.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("no `{begin}` in {part}"));
        row.split('|').map(str::trim).find(|value| value.starts_with('[')).unwrap_or_default().to_owned()
    };
    for user in USERS.into_iter().chain([5]) {
        let expected = last_distinct(&all, user, &rfc3339(END - 1));
        assert_eq!(printed(online, &format!("| {user} ")), expected, "user {user}: {stdout}");
    }
    for (user, until) in [(1, "2026-02-20T12:00:00Z"), (2, "2026-03-05T09:30:00Z"), (3, "2026-03-15T07:45:00Z")] {
        let expected = last_distinct(&all, user, until);
        assert_eq!(printed(training, &format!("| {user}       | {until}")), expected, "user {user}: {stdout}");
    }
}

#[test]
fn the_files_differ_in_the_source_block_alone() {
    let registry = headwater::registry().expect("no two plugins have one name");
    let rest = FILES.map(|text| {
        let named = text.replace("${KAFKA_BOOTSTRAP_SERVERS}", "127.0.0.1:9092");
        headwater::definitions::parse(&named, Path::new("."), &registry).expect("the file is valid");
        let (before, after) = text.split_once("  - name: purchases\n").expect("the stream source");
        (before, after.split_once("# Below this line").expect("the mark").1)
    });
    assert_eq!(rest[0], rest[1]);
}
