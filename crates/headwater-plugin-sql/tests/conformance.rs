//! The plugin against the contract of transforms, clause by clause.

use std::process::ExitCode;
use std::sync::Arc;

use headwater_core::{Error, Result, Transform};
use headwater_plugin_sql::{PLUGIN, SqlTransform};
use headwater_testkit::transform::{Case, TransformFixture};
use headwater_testkit::{Installed, plugin, run, transform};

struct Sql;

impl TransformFixture for Sql {
    fn transform(&self, case: Case) -> Result<Arc<dyn Transform>> {
        let text = match case {
            Case::Everything => "SELECT * FROM input",
            Case::Project => "SELECT value * 2 AS doubled, id FROM input",
            Case::Filter => "SELECT id, value FROM input WHERE value > 0",
            Case::Unnest => "SELECT id, unnest(items) AS item FROM input",
            Case::FilterAndUnnest => "SELECT id, unnest(items) AS item FROM input WHERE value > 0",
            Case::Divide => "SELECT id, 100 / divisor AS quotient FROM input",
            Case::UnknownColumn => "SELECT id, no_such_column FROM input",
            Case::UnknownFunction => "SELECT id, no_such_function(value) AS value FROM input",
            Case::Aggregate => "SELECT id, sum(value) AS value FROM input GROUP BY id",
            Case::Join => "SELECT a.id FROM input a JOIN input b ON a.id = b.id",
            Case::Window => "SELECT id, row_number() OVER (ORDER BY id) AS n FROM input",
            Case::Sort => "SELECT id FROM input ORDER BY id",
            Case::Limit => "SELECT id FROM input LIMIT 1",
            Case::Distinct => "SELECT DISTINCT id FROM input",
            Case::Now => "SELECT id, now() AS at FROM input",
            Case::Random => "SELECT id, random() AS chance FROM input",
            other => return Err(Error::unsupported(format!("no text for {other:?}"))),
        };
        Ok(Arc::new(SqlTransform::parse(text)?))
    }
}

fn main() -> ExitCode {
    let installed = Installed::new(&PLUGIN, |_folder| serde_json::json!({}));
    run(plugin::suite(installed).into_iter().chain(transform::suite(Sql)))
}
