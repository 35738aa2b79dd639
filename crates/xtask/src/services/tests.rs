use super::*;

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("headwater-xtask-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn lives(pid: u32) -> bool {
    Command::new("sh").args(["-c", "kill -0 \"$1\" 2>/dev/null", "sh", &pid.to_string()]).status().unwrap().success()
}

fn sleeper(log: &Path) -> Server {
    let mut command = Command::new("sh");
    command.args(["-c", "echo \"$WORD\"; exec sleep 600"]).env("WORD", "hello");
    Server::start(&command, log).unwrap()
}

#[test]
fn a_server_ends_with_the_value_that_stands_for_it() {
    let folder = folder("drop");
    let server = sleeper(&folder.join("log"));
    let pid = server.pid;
    assert!(lives(pid));
    drop(server);
    assert!(!lives(pid));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_server_ends_with_the_process_that_started_it() {
    let folder = folder("orphan");
    let mut server = sleeper(&folder.join("log"));
    let pid = server.pid;
    // What the end of a process does to its pipes.
    drop(server.guard.stdin.take());
    server.guard.wait().unwrap();
    assert!(!lives(pid));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_a_server_prints_is_kept() {
    let folder = folder("log");
    let log = folder.join("log");
    let server = sleeper(&log);
    let begin = Instant::now();
    while tail(&log) != "hello" && begin.elapsed() < PATIENCE {
        std::thread::sleep(LOOK);
    }
    assert_eq!(tail(&log), "hello");
    drop(server);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn ports_differ() {
    let ports = free_ports(20).unwrap();
    assert_eq!(ports.iter().collect::<std::collections::BTreeSet<_>>().len(), 20);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let error = run(&mut Command::new("no-such-program-of-ours")).unwrap_err();
    assert!(error.contains("`no-such-program-of-ours`"), "{error}");
    let error = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
    assert!(error.contains("why") && error.contains('3'), "{error}");
}
