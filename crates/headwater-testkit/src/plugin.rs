//! What every plugin promises, whatever its roles.

use std::fmt::Debug;
use std::sync::Arc;

use headwater_core::options::{Config, OptionSpec, OptionType};
use headwater_core::plugin::{OpenContext, SourceContext};
use headwater_core::time::ManualClock;
use headwater_core::{ErrorKind, Result};
use serde_json::Value;

use crate::clause::{ensure, same, skip, suite};
use crate::rows::time_of;
use crate::{Clause, Installed, Stop, Verdict, context};

/// The secret that is planted in every secret option. Nothing may print it.
const CANARY: &str = "canary-7f3d9a51c2";

/// The clauses that every plugin keeps: of its name, its options and its secrets.
pub fn suite(installed: Installed) -> Vec<Clause> {
    suite! { installed;
        "plugin::name-is-one-word" name,
            "The `type:` in definition files and the facade's cargo feature.";
        "plugin::options-are-documented" documented,
            "Its documentation.";
        "plugin::all-faults-at-once" faults,
            "Reads the struct, reporting every wrong, missing and unknown key at once.";
        "plugin::secrets-never-show" secrets,
            "`Debug` and `Display` show `***`; it does not serialise.";
    }
}

type Open = Box<dyn Fn(&Config, &OpenContext) -> Result<Box<dyn Debug>> + Send + Sync>;

/// Every role of the plugin that has options, with its factory.
fn roles(installed: &Installed) -> Vec<(&'static str, &'static [OptionSpec], Open)> {
    fn shown<T: Debug + 'static>(opened: Result<T>) -> Result<Box<dyn Debug>> {
        opened.map(|opened| Box::new(opened) as Box<dyn Debug>)
    }
    let plugin = installed.plugin();
    let mut roles: Vec<(&'static str, &'static [OptionSpec], Open)> = Vec::new();
    macro_rules! role {
        ($field:ident, $name:literal) => {
            if let Some(role) = plugin.$field {
                roles.push(($name, role.options, Box::new(move |config, context| shown((role.open)(config, context)))));
            }
        };
    }
    role!(stream, "stream source");
    role!(producer, "producer");
    role!(batch, "batch source");
    role!(online, "online store");
    role!(offline, "offline store");
    roles
}

fn a_context() -> OpenContext {
    let source = SourceContext {
        timestamp_field: "event_timestamp".into(),
        created_timestamp_column: None,
        record_format: Some("json".into()),
    };
    OpenContext { source: Some(source), ..context(Arc::new(ManualClock::new(time_of(0)))) }
}

async fn name(installed: Arc<Installed>) -> Verdict {
    let plugin = installed.plugin();
    let word = plugin.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    ensure!(word && !plugin.name.is_empty(), "`{}` is not one lowercase word", plugin.name);
    ensure!(!plugin.version.is_empty(), "the plugin `{}` has no version", plugin.name);
    ensure!(!plugin.roles().is_empty(), "the plugin `{}` has no role", plugin.name);
    Ok(())
}

async fn documented(installed: Arc<Installed>) -> Verdict {
    for (role, options, _) in roles(&installed) {
        for option in options {
            let word = option.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            ensure!(word, "the option `{}` of the {role} is not in snake_case", option.name);
            ensure!(!option.doc.trim().is_empty(), "the option `{}` of the {role} is not documented", option.name);
        }
        let mut names = options.iter().map(|option| option.name).collect::<Vec<_>>();
        names.sort_unstable();
        names.dedup();
        same!(names.len(), options.len(), "distinct options of the {role}");
    }
    Ok(())
}

async fn faults(installed: Arc<Installed>) -> Verdict {
    let folder = tempfile::tempdir()?;
    let roles = roles(&installed);
    if roles.is_empty() {
        skip!("the plugin has no role with options");
    }
    for (role, options, open) in roles {
        let mut config = Config { options: Default::default(), ..installed.config(folder.path()) };
        config.options.insert("no_such_option".into(), Value::from(1));
        config.options.insert("nor_this".into(), Value::from("x"));
        let mut expected = vec!["no_such_option", "nor_this"];
        for option in options {
            // A list is no option's type.
            config.options.insert(option.name.into(), Value::Array(Vec::new()));
            expected.push(option.name);
        }
        let Err(error) = open(&config, &a_context()) else {
            return Err(Stop::Failed(format!("the {role} opened with unknown options")));
        };
        same!(error.kind(), ErrorKind::Invalid, "the kind of the error `{error}`");
        for name in expected {
            ensure!(error.to_string().contains(name), "the {role} does not report `{name}`: `{error}`");
        }
    }
    Ok(())
}

async fn secrets(installed: Arc<Installed>) -> Verdict {
    let mut planted = 0;
    for (role, options, open) in roles(&installed) {
        let secret = |option: &&OptionSpec| matches!(option.kind, OptionType::Secret);
        let names = options.iter().filter(secret).map(|option| option.name).collect::<Vec<_>>();
        if names.is_empty() {
            continue;
        }
        planted += names.len();
        let folder = tempfile::tempdir()?;
        let mut config = installed.config(folder.path());
        for name in &names {
            config.options.insert((*name).to_owned(), CANARY.into());
        }
        let mut wrong_type = config.clone();
        for name in &names {
            wrong_type.options.insert((*name).to_owned(), vec![CANARY].into());
        }
        let mut wrong_key = config.clone();
        wrong_key.options.insert("no_such_option".into(), 1.into());
        for config in [config, wrong_type, wrong_key] {
            let shown = match open(&config, &a_context()) {
                Ok(opened) => format!("{opened:?} {opened:#?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            ensure!(!shown.contains(CANARY), "the {role} shows a secret: {}", shown.replace(CANARY, "<the secret>"));
            let shown = format!("{config:?}");
            ensure!(!shown.contains(CANARY), "the options of the {role} show a secret when they are printed");
        }
    }
    if planted == 0 {
        skip!("the plugin has no secret option");
    }
    Ok(())
}
