//! The README's tables name every option, with its type, default and meaning.

use headwater_core::options::OptionSpec;
use headwater_plugin_file::PLUGIN;

const README: &str = include_str!("../README.md");

fn shown_default(spec: &OptionSpec) -> String {
    match (spec.name, spec.default) {
        (_, None) => "required".into(),
        ("format", Some("None")) => "by name".into(),
        ("poll_interval", Some("Duration(250_000)")) => "`250ms`".into(),
        (_, Some(default)) => {
            format!("`{}`", default.trim_start_matches("String::from(\"").trim_end_matches("\")"))
        }
    }
}

fn table(options: &[OptionSpec]) -> String {
    let mut table = String::from("| option | type | default | meaning |\n| --- | --- | --- | --- |\n");
    for spec in options {
        let meaning = spec.doc.split_whitespace().collect::<Vec<_>>().join(" ");
        table += &format!("| `{}` | {} | {} | {meaning} |\n", spec.name, spec.kind.describe(), shown_default(spec));
    }
    table
}

#[test]
fn readme_lists_the_options_of_every_role() {
    for options in [PLUGIN.stream.unwrap().options, PLUGIN.batch.unwrap().options] {
        let table = table(options);
        assert!(README.contains(&table), "the README does not have this table:\n{table}");
    }
}

#[test]
fn the_producer_takes_the_options_of_the_stream() {
    let names = |options: &'static [OptionSpec]| options.iter().map(|spec| spec.name).collect::<Vec<_>>();
    assert_eq!(names(PLUGIN.producer.unwrap().options), names(PLUGIN.stream.unwrap().options));
}
