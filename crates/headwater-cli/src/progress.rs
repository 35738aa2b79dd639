//! How long work goes on: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::tell;

/// Plain lines come no oftener than this.
const PAUSE: Duration = Duration::from_secs(5);

/// Tells on stderr how far a piece of work is.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    last: Mutex<Option<Instant>>,
}

impl Progress {
    /// Work of `total` steps; `None` where nobody knows.
    pub(crate) fn new(total: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| match total {
            Some(total) => ProgressBar::new(total).with_style(style("{bar:30} {percent:>3}% {msg}")),
            None => {
                let bar = ProgressBar::new_spinner().with_style(style("{spinner} {msg}"));
                bar.enable_steady_tick(Duration::from_millis(100));
                bar
            }
        });
        Self { bar, last: Mutex::new(None) }
    }

    /// `done` of `total` steps are behind us.
    pub(crate) fn step(&self, done: u64, total: u64, message: String) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(message);
            }
            None => self.plain(&message, done == total),
        }
    }

    /// This is what is going on.
    pub(crate) fn tell(&self, message: String) {
        match &self.bar {
            Some(bar) => bar.set_message(message),
            None => self.plain(&message, false),
        }
    }

    fn plain(&self, message: &str, always: bool) {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if always || last.is_none_or(|last| last.elapsed() >= PAUSE) {
            *last = Some(Instant::now());
            tell(message);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template that does not parse would be a fault of ours; the plain bar is no harm.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
