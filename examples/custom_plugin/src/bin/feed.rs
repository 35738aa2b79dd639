//! Serves the lines of a file as channel `0` of a feed: `feed ADDRESS NAME FILE`. More lines can be added to it from outside.

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use custom_plugin::feed::Feeds;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [address, name, file] = <[String; 3]>::try_from(std::env::args().skip(1).collect::<Vec<_>>())
        .map_err(|_| "what to serve: `feed ADDRESS NAME FILE`")?;
    #[allow(clippy::disallowed_methods)] // A server of its own, with the wall's clock.
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
    let feeds = Feeds::default();
    for line in std::fs::read_to_string(file)?.lines() {
        feeds.add(&name, "0", now, line);
    }
    let listener = TcpListener::bind(&address).await?;
    println!("serving `{name}` at {}", listener.local_addr()?);
    Ok(feeds.serve(listener).await?)
}
