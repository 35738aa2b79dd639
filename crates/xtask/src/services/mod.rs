//! Real servers on 127.0.0.1, on free ports.
//!
//! Every server ends with the value that stands for it, and with the process that started it, however that ends: each is
//! the child of a shell which waits for the end of a pipe that only the starting process holds, and then ends the server
//! by its process id. Nothing outside of a folder that the caller names and the cache is written.
//!
//! Programs come from package registries, through their own clients, once: into `~/.cache/headwater-services`, or where
//! `HEADWATER_SERVICES_CACHE` says.

mod kafka;
mod kinesis;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use kafka::{Doors, Kafka, SecuredKafka};
pub use kinesis::KinesisLocal;

/// What can go wrong, as a message for people.
pub type Result<T> = std::result::Result<T, String>;

/// How long a server may take to open its port, and to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a server is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Starts a server, tells its process id, waits to be told how to end it or for the end of the pipe, and ends it.
/// The server's group is not the terminal's: Ctrl-C reaches the process that holds the pipe, and the server through it.
const GUARD: &str = r#"
log=$1; shift
"$@" >>"$log" 2>&1 </dev/null &
pid=$!
echo "$pid"
read -r signal
kill -"${signal:-KILL}" "$pid" 2>/dev/null
wait "$pid"
"#;

/// A server.
#[derive(Debug)]
struct Server {
    guard: Child,
    pid: u32,
    log: PathBuf,
}

impl Server {
    /// Starts a program, with what it prints in a file that is appended to.
    fn start(command: &Command, log: &Path) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |why: String| format!("`{program}` did not start: {why}");
        let mut shell = Command::new("sh");
        shell.args(["-c", GUARD, "sh"]).arg(log).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut guard = shell.spawn().map_err(|error| failed(error.to_string()))?;
        let mut line = String::new();
        if let Some(stdout) = guard.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(|error| failed(error.to_string()))?;
        }
        let pid = line.trim().parse().map_err(|_| failed(format!("the shell said `{}`", line.trim())))?;
        Ok(Self { guard, pid, log: log.to_owned() })
    }

    /// Waits until it takes connections.
    fn await_port(&self, port: u16) -> Result<()> {
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begin.elapsed() > PATIENCE {
                return Err(format!("port {port} did not open within {PATIENCE:?}; it printed: {}", tail(&self.log)));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Ends it, with `TERM` or `KILL`, and returns when it is gone; one that does not heed `TERM` is killed.
    fn end(&mut self, signal: &str) {
        if let Some(mut stdin) = self.guard.stdin.take() {
            // Where the shell is gone there is nothing left to end.
            let _ = writeln!(stdin, "{signal}");
        }
        let begin = Instant::now();
        let mut asked = false;
        // The shell ends after the server, whose exit it waits for.
        while matches!(self.guard.try_wait(), Ok(None)) {
            if begin.elapsed() > PATIENCE && !asked {
                asked = true;
                let _ = Command::new("sh").args(["-c", "kill -KILL \"$1\"", "sh", &self.pid.to_string()]).status();
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end("KILL");
    }
}

/// The end of a log.
fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Ports that nobody listens on now, all different.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listen = || TcpListener::bind(("127.0.0.1", 0)).map_err(|error| format!("127.0.0.1: {error}"));
    // All are held until the last is known, or one might be given twice.
    let listeners = (0..count).map(|_| listen()).collect::<Result<Vec<_>>>()?;
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    listeners.iter().map(port).collect::<std::io::Result<_>>().map_err(|error| format!("127.0.0.1: {error}"))
}

/// Where a program lies, fetched with its package manager if this is the first time: `fetch` is given the folder to fill.
fn cached(name: &str, fetch: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = match (std::env::var_os("HEADWATER_SERVICES_CACHE"), std::env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache/headwater-services"),
        (None, None) => return Err("neither `HEADWATER_SERVICES_CACHE` nor `HOME` is set".into()),
    };
    let folder = cache.join(name);
    let at = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(&cache).map_err(at)?;
    // Two runs of tests at once fetch one after the other. The lock goes with the process.
    let lock = File::create(cache.join(format!("{name}.lock"))).map_err(at)?;
    lock.lock().map_err(at)?;
    // What was not fetched to its end is fetched anew.
    let complete = folder.join(".complete");
    if !complete.exists() {
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(at)?;
        }
        std::fs::create_dir_all(&folder).map_err(at)?;
        fetch(&folder)?;
        File::create(complete).map_err(at)?;
    }
    Ok(folder)
}

/// Runs a program to its end.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("`{program}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("`{program}` ended with {}: {} {}", output.status, out.trim(), error.trim()))
}

#[cfg(test)]
mod tests;
