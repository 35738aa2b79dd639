//! The promise of the example: another stream is another source block, and nothing else.

use std::path::Path;

const FILES: [(&str, &str); 3] = [
    ("file", include_str!("../file.yaml")),
    ("kafka", include_str!("../kafka.yaml")),
    ("kinesis", include_str!("../kinesis.yaml")),
];

/// The lines of a file without the connection of its stream: what stands between `type:` of the stream source and the
/// comment that says that all else is the same.
fn without_connection(text: &str) -> (Vec<&str>, Vec<&str>) {
    let lines: Vec<&str> = text.lines().collect();
    let begin =
        lines.iter().position(|line| line.trim() == "- name: driver_stats_stream").expect("the stream source") + 1;
    let end =
        lines.iter().position(|line| line.contains("the three files of this example are the same")).expect("the mark");
    let (connection, rest) = (lines[begin..end].to_vec(), [&lines[..begin], &lines[end..]].concat());
    (connection, rest)
}

#[test]
fn the_files_differ_in_the_source_block_alone() {
    let (_, first) = without_connection(FILES[0].1);
    for (name, text) in FILES {
        let (connection, rest) = without_connection(text);
        assert_eq!(rest, first, "{name}.yaml differs outside of its connection");
        assert_eq!(connection[0].trim(), format!("type: {name}"));
    }
}

#[test]
fn every_file_is_valid_in_this_build() {
    let registry = headwater::registry().expect("no two plugins have one name");
    for (name, text) in FILES {
        let text = text
            .replace("${KAFKA_BOOTSTRAP_SERVERS}", "127.0.0.1:9092")
            .replace("${AWS_ENDPOINT_URL_KINESIS}", "http://127.0.0.1:4567");
        if let Err(faults) = headwater::definitions::parse(&text, Path::new("."), &registry) {
            panic!("{name}.yaml: {faults}");
        }
    }
}

#[test]
fn the_program_names_no_connector() {
    for source in [include_str!("../src/main.rs"), include_str!("../src/events.rs"), include_str!("../src/labels.rs")] {
        let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            let line = line.to_lowercase();
            assert!(!line.contains("kafka") && !line.contains("kinesis") && !line.contains("plugin"), "{line}");
        }
    }
}
