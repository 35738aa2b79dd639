//! The allocator of the command.
//!
//! Jobs pass many small rows from thread to thread, of which the system's allocator and others keep as much again as is in
//! use. With these settings jemalloc held the least of those that were tried, and was as fast as any.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Where jemalloc looks for its settings. What is free goes back to the system after 0.2 s instead of 10; four arenas are
/// enough for the threads that are busy at once.
#[allow(unsafe_code)] // The name is jemalloc's own, so that nothing else can have it.
#[unsafe(export_name = "_rjem_malloc_conf")]
static SETTINGS: &[u8; 46] = b"dirty_decay_ms:200,muzzy_decay_ms:0,narenas:4\0";
