//! Benchmarks of streams and windows, run by hand; each prints one line of JSON. See `tests/README.md`.

// A benchmark ends at the first thing that goes wrong.
#![allow(clippy::unwrap_used)]

mod fill;
mod kinesis;
mod latency;
mod measure;
mod project;
mod source;
mod throughput;
mod windows;

use std::collections::BTreeMap;

/// As the command has it.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const USAGE: &str = "\
Usage: headwater-bench WHAT [--OPTION VALUE …]

  fill        --topic T [--records 2000000] [--keys 100000] [--partitions 4] [--seed 1]
              makes a topic of driver records, 176 bytes of JSON each, event times over the day before, 1 % of them late
  throughput  --topic T       from the topic to both stores, newest value per key
  source      --topic T | --shards 4 [--records 200000]
              the path of records to columns, without stores, beside a bare loop over the records and arrow-json alone:
              of a Kafka topic, or of a Kinesis stream, by polling
  latency     --source kafka|polling|fan_out [--rate 1000] [--seconds 40] [--keys 100000] [--linger-ms 0] [--shards 4]
              from a record that is sent to its value that is read online
  windows     [--topic T | --records 1000000] [--keys 100000] [--reads 20000]
              through a view with ten windows to the online store, from a topic, filled not long before, or from a file
              that is made for it; then reads of all ten features of one entity

A run that finds other values than those of the records, or fewer, fails.
CPU seconds are those of this process, user and system. Kafka is that of KAFKA_BOOTSTRAP_SERVERS; `cargo xtask servers` starts one. Kinesis is an emulator in a process of its own;
give the plugin any credentials: AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test.
";

/// The options of a command line.
pub(crate) struct Options(BTreeMap<String, String>);

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = BTreeMap::new();
        while let Some(name) = words.next() {
            options.insert(name.strip_prefix("--")?.to_owned(), words.next()?);
        }
        Some(Self(options))
    }

    /// A number, or what it is without the option.
    pub(crate) fn number(&self, name: &str, default: usize) -> usize {
        self.0.get(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("--{name} {value}")))
    }

    /// Whether an option is given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A text that has to be given.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("--{name} is missing"))
    }
}

/// The brokers.
pub(crate) fn servers() -> String {
    std::env::var("KAFKA_BOOTSTRAP_SERVERS").unwrap_or_else(|_| panic!("KAFKA_BOOTSTRAP_SERVERS is not set"))
}

fn main() {
    let mut words = std::env::args().skip(1);
    let what = words.next().unwrap_or_default();
    let Some(options) = Options::read(words) else {
        eprint!("{USAGE}");
        std::process::exit(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match what.as_str() {
        "fill" => runtime.block_on(fill::run(&options)),
        "throughput" => runtime.block_on(throughput::run(&options)),
        "source" if options.has("topic") => source::kafka(&options, &runtime),
        "source" => runtime.block_on(source::kinesis(&options)),
        "serve" => runtime.block_on(kinesis::serve()),
        "windows" => runtime.block_on(windows::run(&options)),
        "latency" => runtime.block_on(latency::run(&options)),
        _ => {
            eprint!("{USAGE}");
            std::process::exit(2);
        }
    }
}
