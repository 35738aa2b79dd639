//! Warnings, as tests hear them.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

thread_local! {
    /// What this thread has warned of. Tests have a thread each.
    static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Hears what this thread warns of from now on.
pub(crate) fn listen() {
    static LISTENER: Once = Once::new();
    LISTENER.call_once(|| {
        // For all threads. Whether a place in the code is heard is decided by the thread that comes to it first, maybe
        // that of another test: with a subscriber of one thread alone the place might never be heard.
        tracing::subscriber::set_global_default(Listener).unwrap();
        // What others have come to before.
        tracing::callsite::rebuild_interest_cache();
    });
    HEARD.set(Vec::new());
}

/// What was heard since, each with its fields as `name=value`.
pub(crate) fn heard() -> Vec<String> {
    HEARD.take()
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        // Never asked for: no span is enabled.
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(Vec::new());
        event.record(&mut fields);
        let line = fields.0.join(" ");
        // A thread that is ending has nobody to listen.
        let _ = HEARD.try_with(|heard| heard.borrow_mut().push(line));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Fields(Vec<String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push(format!("{field}={value:?}"));
    }
}
