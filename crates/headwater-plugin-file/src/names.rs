//! Which names under a directory are data.

/// Whether a file of this name may be data: not hidden, not a writer's marker (`_SUCCESS`) or checksum, not in progress.
pub(crate) fn is_data_file(name: &str) -> bool {
    const UNFINISHED: [&str; 6] = [".tmp", ".temp", ".part", ".partial", ".inprogress", ".crc"];
    let lower = name.to_ascii_lowercase();
    !is_hidden(name) && !UNFINISHED.iter().any(|suffix| lower.ends_with(suffix))
}

/// Whether a directory of this name may hold data. A Hive partition may begin with `_`.
pub(crate) fn is_data_directory(name: &str) -> bool {
    !is_hidden(name) || (name.contains('=') && !name.starts_with('.'))
}

fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}
