//! The functions a transform may call, and the planner that knows them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result as DataFusionResult, TableReference, plan_err};
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, Volatility, WindowUDF};
use datafusion_sql::planner::{ParserOptions, SqlToRel};
use headwater_core::{Error, Result};

/// The functions, found once.
pub(crate) static FUNCTIONS: LazyLock<Functions> = LazyLock::new(Functions::new);

/// What Spark calls otherwise, with the name it has here.
const SPARK_NAMES: [(&str, &str); 5] = [
    ("explode", "unnest"),
    ("explode_outer", "unnest_outer"),
    ("size", "cardinality"),
    ("unix_timestamp", "to_unixtime"),
    ("if", "CASE WHEN … THEN … ELSE … END"),
];

/// Built by the planner from other functions, so in no list.
const PLANNED: [&str; 1] = ["make_map"];

/// Scalar functions by name and alias.
#[derive(Debug)]
pub(crate) struct Functions {
    scalars: BTreeMap<String, Arc<ScalarUDF>>,
    aggregates: BTreeSet<String>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    options: ConfigOptions,
}

/// How a call of a function is meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// A value for each row.
    Scalar,
    /// A row for each element of a list.
    Unnest,
}

impl Functions {
    fn new() -> Self {
        let mut scalars = BTreeMap::new();
        let all = datafusion_functions::all_default_functions()
            .into_iter()
            .chain(datafusion_functions_nested::all_default_nested_functions());
        for function in all {
            for alias in function.aliases() {
                scalars.insert(alias.clone(), Arc::clone(&function));
            }
            scalars.insert(function.name().to_owned(), function);
        }
        // Its answer changes with the release, and so would the rows.
        scalars.remove("version");
        let aggregates = datafusion_functions_aggregate::all_default_aggregate_functions()
            .into_iter()
            .flat_map(|function| {
                function.aliases().iter().cloned().chain([function.name().to_owned()]).collect::<Vec<_>>()
            })
            .filter(|name| !scalars.contains_key(name))
            .collect();
        let planners: Vec<Arc<dyn ExprPlanner>> = vec![
            Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
            Arc::new(datafusion_functions_nested::planner::NestedFunctionPlanner),
            Arc::new(datafusion_functions_nested::planner::FieldAccessPlanner),
            Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
            Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
        ];
        Self { scalars, aggregates, planners, options: ConfigOptions::default() }
    }

    /// A planner of expressions. Names reach it resolved, so it leaves them alone; text is `Utf8`, as Arrow's JSON
    /// reader and the stores have it.
    pub(crate) fn planner(&self) -> SqlToRel<'_, Self> {
        let options =
            ParserOptions::new().with_enable_ident_normalization(false).with_map_string_types_to_utf8view(false);
        SqlToRel::new_with_options(self, options)
    }

    /// Whether the function may be called, and how. `place` says where it stands.
    pub(crate) fn check(&self, name: &str, place: &str) -> Result<Call> {
        match name {
            "unnest" | "unnest_outer" => return Ok(Call::Unnest),
            planned if PLANNED.contains(&planned) => return Ok(Call::Scalar),
            _ => {}
        }
        match self.scalars.get(name) {
            Some(function) if function.signature().volatility == Volatility::Immutable => Ok(Call::Scalar),
            Some(_) => Err(Error::invalid(format!(
                "`{name}()`{place} is not deterministic: a replay of the stream has to give the same rows"
            ))),
            None if self.aggregates.contains(name) => Err(Error::invalid(format!(
                "`{name}()`{place} is an aggregate function; a transform sees one record at a time"
            ))),
            None => Err(Error::invalid(format!("there is no function `{name}`{place}{}", self.suggestion(name)))),
        }
    }

    fn suggestion(&self, name: &str) -> String {
        if let Some((_, here)) = SPARK_NAMES.iter().find(|(spark, _)| *spark == name) {
            return format!("; write `{here}`");
        }
        let callable = self
            .scalars
            .iter()
            .filter(|(_, function)| function.signature().volatility == Volatility::Immutable)
            .map(|(name, _)| name.as_str());
        nearest(name, callable)
    }
}

/// ``; did you mean `a` or `b`?`` for the names that are like `name`; empty where none is.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let wanted = name.to_lowercase();
    let mut near = names
        .map(|known| (strsim::damerau_levenshtein(&wanted, &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= 1 + known.len().min(name.len()) / 4)
        .collect::<Vec<_>>();
    near.sort_unstable();
    let near = near.into_iter().take(3).map(|(_, known)| format!("`{known}`")).collect::<Vec<_>>();
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

impl ContextProvider for Functions {
    fn get_table_source(&self, name: TableReference) -> DataFusionResult<Arc<dyn TableSource>> {
        plan_err!("there is no table `{name}`")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalars.get(name).cloned()
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.scalars.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}
