//! The suites of `headwater-testkit`, run on the plugin.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use custom_plugin::PLUGIN;
use custom_plugin::feed::Feeds;
use headwater_core::plugin::OpenContext;
use headwater_core::{Error, Result, SplitId, StreamSource};
use headwater_testkit::stream::{Record, StreamFixture};
use headwater_testkit::{Installed, plugin, run, stream};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A feed on a server of its own, on loopback.
struct Served {
    feeds: Feeds,
    name: String,
    address: String,
    channels: Mutex<usize>,
    /// Ends with it.
    _server: JoinSet<std::io::Result<()>>,
}

struct Feed;

/// Names sort in order of creation.
fn channel(index: usize) -> String {
    format!("{index:03}")
}

#[async_trait]
impl StreamFixture for Feed {
    type Stream = Served;

    async fn create(&self, splits: usize) -> Result<Served> {
        static CREATED: AtomicUsize = AtomicUsize::new(0);
        let fault = |error| Error::unexpected("cannot listen").with_source(error);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?.to_string();
        let feeds = Feeds::default();
        let mut server = JoinSet::new();
        server.spawn(feeds.clone().serve(listener));
        let name = format!("events-{}", CREATED.fetch_add(1, Ordering::Relaxed));
        let stream = Served { feeds, name, address, channels: Mutex::new(0), _server: server };
        for _ in 0..splits {
            self.add_split(&stream).await?;
        }
        Ok(stream)
    }

    async fn open(&self, stream: &Served, context: &OpenContext) -> Result<Arc<dyn StreamSource>> {
        let mut config = installed().config(".".as_ref());
        config.options.insert("address".into(), stream.address.as_str().into());
        config.options.insert("feed".into(), stream.name.as_str().into());
        let role = PLUGIN.stream.ok_or_else(|| Error::unsupported("no stream source"))?;
        (role.open)(&config, context)
    }

    fn split(&self, _: &Served, index: usize) -> SplitId {
        SplitId::from(channel(index).as_str())
    }

    async fn produce(&self, stream: &Served, split: usize, records: &[Record]) -> Result<()> {
        for record in records {
            stream.feeds.add(&stream.name, &channel(split), record.time, &record.json());
        }
        Ok(())
    }

    async fn add_split(&self, stream: &Served) -> Result<usize> {
        let mut channels = stream.channels.lock().map_err(|_| Error::unexpected("poisoned"))?;
        stream.feeds.open(&stream.name, &channel(*channels));
        *channels += 1;
        Ok(*channels - 1)
    }

    fn stores_times(&self) -> bool {
        true
    }
}

fn installed() -> Installed {
    Installed::new(&PLUGIN, |_| json!({ "address": "127.0.0.1:9", "feed": "events" }))
}

fn main() -> ExitCode {
    run(plugin::suite(installed()).into_iter().chain(stream::suite(Feed)))
}
