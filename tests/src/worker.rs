//! Processes of the command that ingest.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use headwater::FeatureStore;
use tokio::runtime::Runtime;

use crate::outcome;

/// A project in a folder of its own, and the program that works on it.
#[derive(Debug)]
pub struct Project {
    /// The program.
    pub program: PathBuf,
    /// The folder.
    pub folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Project {
    /// A project with these definitions, applied; its processes have these variables too.
    ///
    /// # Panics
    /// Where the definitions cannot be applied.
    pub fn new(program: &str, definitions: &str, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("headwater.yaml"), definitions).unwrap();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = environment.iter().map(owned).collect();
        let project = Self { program: program.into(), folder, environment };
        project.ok(&["apply"]);
        project
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the command to its successful end.
    ///
    /// # Panics
    /// Where it fails, with what it printed.
    pub fn ok(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {}\n{out}\n{error}", output.status);
    }

    /// Runs the command to its end, and gives what it printed on the way to failing.
    ///
    /// # Panics
    /// Where it succeeds.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        assert!(!output.status.success(), "{arguments:?} succeeds:\n{printed}");
        printed
    }

    /// Runs the command to its end, whatever that is.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts a worker that ingests until it is told to stop. What it prints goes to a file that is named after it.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start(&self, name: &str) -> Worker {
        let log = self.path().join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = self.command(&["ingest"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        Worker { child: command.spawn().unwrap(), log }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A process that ingests. Dropped, it is killed.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    /// Kills it with SIGKILL, and returns when it is gone.
    ///
    /// # Panics
    /// Where it had ended by itself: then it was not this that ended it.
    pub fn kill(mut self) {
        self.alive();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it with SIGTERM to stop, and returns when it has.
    ///
    /// # Panics
    /// Where it had ended by itself, or does not end with success.
    pub fn stop(mut self) {
        self.alive();
        let pid = self.child.id().to_string();
        Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid]).status().unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.printed());
    }

    /// Checks that it still runs.
    ///
    /// # Panics
    /// Where it does not.
    pub fn alive(&mut self) {
        let ended: Option<ExitStatus> = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended with {ended:?}: {}", self.printed());
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks at a project while its workers run.
#[derive(Debug)]
pub struct Observer {
    runtime: Runtime,
    /// The project.
    pub store: FeatureStore,
}

impl Observer {
    /// Opens a project.
    ///
    /// # Panics
    /// Where it does not open.
    pub fn new(project: &Project) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let store = runtime.block_on(outcome::open(project.path()));
        Self { runtime, store }
    }

    /// Waits for what the store answers.
    pub fn wait<F: Future>(&self, answer: F) -> F::Output {
        self.runtime.block_on(answer)
    }

    /// How far the splits of the first view are, counting records from one, as the workers last reported it: split → offset.
    ///
    /// # Panics
    /// Where the status cannot be read.
    pub fn offsets(&self) -> BTreeMap<String, u64> {
        let status = self.wait(self.store.status()).unwrap();
        let view = &status.views[0].view;
        let splits = status.jobs.iter().flat_map(|job| &job.splits).filter(|split| split.view == *view);
        let mut offsets = BTreeMap::new();
        for split in splits {
            let offset: &mut u64 = offsets.entry(split.split.clone()).or_default();
            *offset = split.offset.map_or(0, |offset| offset + 1).max(*offset);
        }
        offsets
    }

    /// How many records were read, as the workers last reported it.
    pub fn read(&self) -> u64 {
        self.offsets().values().sum()
    }

    /// How many rows of the first view all workers have dealt with, as they last reported it: those that one read again
    /// after another was killed count again.
    ///
    /// # Panics
    /// Where the status cannot be read.
    pub fn rows(&self) -> u64 {
        let status = self.wait(self.store.status()).unwrap();
        let view = &status.views[0].view;
        let splits = status.jobs.iter().flat_map(|job| &job.splits).filter(|split| split.view == *view);
        splits.map(|split| split.counts.rows).sum()
    }
}
