//! The servers of one run of tests: given in the environment, or started here.

use std::ffi::OsString;
use std::path::PathBuf;

use xtask::services::{Kafka, KinesisLocal, Result};

use crate::run::Context;

const KAFKA: &str = "KAFKA_BOOTSTRAP_SERVERS";
const KINESIS: &str = "AWS_ENDPOINT_URL_KINESIS";

/// What tests that need a server are given. The servers end with it.
pub(crate) struct Servers {
    /// Variables for the tests' environment.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// What could not be started, and why.
    pub(crate) missing: Vec<String>,
    _kafka: Option<Kafka>,
    _kinesis: Option<KinesisLocal>,
}

impl Servers {
    /// Starts what the environment does not give.
    pub(crate) fn start(context: &Context) -> Self {
        let (mut environment, mut missing) = (Vec::new(), Vec::new());
        let empty = |name: &str| -> Result<PathBuf> {
            let folder = context.folder(name)?;
            // What a run that was killed left behind.
            std::fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            Ok(folder)
        };
        let kafka =
            given_or(std::env::var_os(KAFKA), "Apache Kafka", &mut missing, || Kafka::start(&empty("kafka")?, 1));
        if let Some(kafka) = &kafka {
            environment.push((KAFKA, kafka.bootstrap_servers().to_owned()));
        }
        let kinesis = given_or(std::env::var_os(KINESIS), "kinesis-local", &mut missing, || {
            KinesisLocal::start(&empty("kinesis")?)
        });
        if let Some(kinesis) = &kinesis {
            environment.push((KINESIS, kinesis.endpoint().to_owned()));
            // It takes any, but a client insists on having some.
            environment.extend([("AWS_ACCESS_KEY_ID", "test".into()), ("AWS_SECRET_ACCESS_KEY", "test".into())]);
        }
        Self { environment, missing, _kafka: kafka, _kinesis: kinesis }
    }
}

/// Starts a server, unless the environment gives one. One that does not start is missing.
fn given_or<T>(
    given: Option<OsString>,
    name: &str,
    missing: &mut Vec<String>,
    start: impl FnOnce() -> Result<T>,
) -> Option<T> {
    if let Some(given) = given {
        println!("{name}: {} is given", given.display());
        return None;
    }
    match start() {
        Ok(server) => {
            println!("{name}: started");
            Some(server)
        }
        Err(why) => {
            println!("{name}: {why}");
            missing.push(format!("{name}: {why}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_given_is_not_started_and_one_that_does_not_start_is_missing() {
        let mut missing = Vec::new();
        let none: Option<()> = given_or(Some("localhost:9092".into()), "Kafka", &mut missing, || panic!("started"));
        assert_eq!((none, missing.as_slice()), (None, &[][..]));
        assert_eq!(given_or(None, "Kafka", &mut missing, || Ok(1)), Some(1));
        assert!(missing.is_empty());
        let none: Option<()> = given_or(None, "Kafka", &mut missing, || Err("there is no Java".into()));
        assert_eq!((none, missing), (None, vec!["Kafka: there is no Java".to_owned()]));
    }
}
