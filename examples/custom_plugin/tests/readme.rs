//! The README shows every file as it is.

#[test]
fn every_file_is_shown_whole() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(here.join(file)).unwrap();
    let readme = read("README.md");
    for file in [
        "src/feed.rs",
        "src/bin/feed.rs",
        "src/lib.rs",
        "src/source.rs",
        "src/reader.rs",
        "src/connection.rs",
        "tests/conformance.rs",
        "app/src/main.rs",
        "app/headwater.yaml",
        "app/history.csv",
        "app/rides.ndjson",
    ] {
        let shown = readme.split(&format!("`{file}`")).skip(1).any(|rest| {
            let block = rest.split_once("\n```").and_then(|(_, block)| block.split_once('\n'));
            block.is_some_and(|(_, block)| block.strip_prefix(&read(file)).is_some_and(|end| end.starts_with("```")))
        });
        assert!(shown, "the README shows another `{file}`");
    }
}
