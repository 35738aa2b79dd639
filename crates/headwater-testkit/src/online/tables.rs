//! Tables: made by the first put, apart from one another, listed and dropped.

use std::sync::Arc;

use super::{OnlineFixture, Opened, row, some};
use crate::Verdict;
use crate::clause::same;

/// Names that a store must not mix up, fold or choke on.
const ODD: [&str; 14] = [
    "plain",
    "PLAIN",
    "plain ",
    "project/view/0a1b2c",
    "project/view",
    "project_view",
    "project/_checkpoints",
    "with 'single' and \"double\" quotes; drop table plain; --",
    "100%",
    "100_",
    "sqlite_master",
    "select",
    "größe",
    "日本",
];

pub(super) async fn put_creates<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    same!(opened.store.tables().await?, Vec::<String>::new(), "the tables of an empty store");
    for table in ODD {
        opened.store.put(table, vec![row("a", "1", table)]).await?;
        same!(opened.value(table, "a").await?, some(table), "`a` of the table `{table}`");
    }
    let long = "a/long name ".repeat(30);
    opened.store.put(&long, vec![row("a", "1", "long")]).await?;
    same!(opened.value(&long, "a").await?, some("long"), "`a` of a table with a long name");
    Ok(())
}

pub(super) async fn apart<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    for (index, table) in ODD.iter().enumerate() {
        // Lower versions later: a table that is not apart would take them for stale.
        let version = [200 - u8::try_from(index)?];
        opened.store.put(table, vec![row("a", version, table), row(table, version, "own")]).await?;
    }
    for table in ODD {
        same!(opened.value(table, "a").await?, some(table), "`a` of the table `{table}`");
        for other in ODD {
            let expected = (other == table).then(|| "own".to_owned());
            same!(opened.value(table, other).await?, expected, "the key `{other}` of the table `{table}`");
        }
    }
    opened.store.delete("plain", &super::keys(["a"])).await?;
    same!(opened.value("PLAIN", "a").await?, some("PLAIN"), "`a` of `PLAIN` after it was deleted from `plain`");
    Ok(())
}

pub(super) async fn listed<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    for table in ODD {
        opened.store.put(table, vec![row("a", "1", table)]).await?;
    }
    let mut expected = ODD.map(str::to_owned);
    expected.sort();
    same!(opened.store.tables().await?, expected.to_vec(), "the tables");
    Ok(())
}

pub(super) async fn drop_removes<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let tables = ["plain", "plain too", "PLAIN THREE", "a/b/c"];
    for table in tables {
        opened.store.put(table, vec![row("a", "1", table)]).await?;
    }
    opened.store.drop_table("plain").await?;
    opened.store.drop_table("a/b/c").await?;
    opened.store.drop_table("was never there").await?;
    for table in tables {
        let expected = (table != "plain" && table != "a/b/c").then(|| table.to_owned());
        same!(opened.value(table, "a").await?, expected, "`a` of `{table}` after other tables were dropped");
    }
    let tables = opened.store.tables().await?;
    same!(tables.contains(&"plain".to_owned()), false, "whether `plain` is listed among {tables:?} when dropped");
    Ok(())
}

pub(super) async fn begins_anew<F: OnlineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    opened.store.put("t", vec![row("a", "9", "old"), row("b", "9", "old")]).await?;
    opened.store.drop_table("t").await?;
    let put = opened.store.put("t", vec![row("a", "1", "new")]).await?;
    same!(put.written, 1, "rows written into the dropped table");
    same!(opened.value("t", "a").await?, some("new"), "`a` of the dropped table, put at a lower version");
    same!(opened.value("t", "b").await?, None, "`b` of the dropped table");
    Ok(())
}
