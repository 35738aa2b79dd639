//! The servers of one run of tests: given in the environment, or started here.

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
        let kafka = given_or(KAFKA, "Apache Kafka", &mut missing, || Kafka::start(&empty("kafka")?, 1));
        if let Some(kafka) = &kafka {
            environment.push((KAFKA, kafka.bootstrap_servers().to_owned()));
        }
        let kinesis = given_or(KINESIS, "kinesis-local", &mut missing, || KinesisLocal::start(&empty("kinesis")?));
        if let Some(kinesis) = &kinesis {
            environment.push((KINESIS, kinesis.endpoint().to_owned()));
            // It takes any, but a client insists on having some.
            environment.extend([("AWS_ACCESS_KEY_ID", "test".into()), ("AWS_SECRET_ACCESS_KEY", "test".into())]);
        }
        Self { environment, missing, _kafka: kafka, _kinesis: kinesis }
    }
}

fn given_or<T>(variable: &str, name: &str, missing: &mut Vec<String>, start: impl FnOnce() -> Result<T>) -> Option<T> {
    if let Ok(given) = std::env::var(variable) {
        println!("{name}: {variable}={given} is given");
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
