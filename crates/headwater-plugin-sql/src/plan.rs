//! From a parsed `SELECT` and an input schema to physical expressions, once.
//!
//! The planner of DataFusion's SQL crate plans single expressions here, not whole statements: what a statement may be
//! is decided in [`parse`](crate::parse), so filter, unnest and projection are the only steps there can be.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, DFSchemaRef, DataFusionError, ScalarValue};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{Expr, Operator, col};
use datafusion_optimizer::analyzer::type_coercion::TypeCoercionRewriter;
use datafusion_physical_expr::expressions::{BinaryExpr, Literal, NegativeExpr, cast};
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::planner::PlannerContext;
use datafusion_sql::sqlparser::ast::{
    ExcludeSelectItem, Expr as SqlExpr, ExprWithAlias, Ident, SelectItem, SelectItemQualifiedWildcardKind, VisitMut,
    VisitorMut, WildcardAdditionalOptions,
};
use headwater_core::transform::Fingerprint;
use headwater_core::{Error, Result};

use crate::error::planning;
use crate::functions::FUNCTIONS;
use crate::parse::{Select, last_part, refused};
use crate::resolve::{Resolved, Resolver};
use crate::run::{Output, PlannedSql, Unnest};

/// Plans a statement for one input schema.
pub(crate) fn plan(select: &Select, input: &SchemaRef) -> Result<PlannedSql> {
    let resolver = Resolver { input, table: &select.table };
    let filter = select.filter.clone().map(|filter| resolver.expr(filter, false)).transpose()?;
    let mut columns: Vec<(String, Resolved)> = Vec::new();
    for item in &select.items {
        for (name, column) in expand(item, &resolver)? {
            if columns.iter().any(|(other, _)| *other == name) {
                return Err(Error::invalid(format!("two columns are called `{name}`; name one of them with `AS`")));
            }
            columns.push((name, column));
        }
    }

    // Expressions see only the columns that some of them read, so that a filter does not copy the others.
    let used = filter.iter().chain(columns.iter().map(|(_, column)| column)).flat_map(|e| e.columns.iter().copied());
    let used = used.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
    let narrow = Schema::new(used.iter().map(|index| plan_field(&input.fields()[*index])).collect::<Vec<_>>());

    let mut fingerprint = Fingerprint::default();
    let mut rows = Vec::new();
    let unnested = columns.iter().flat_map(|(_, column)| column.unnests.iter().cloned()).collect::<BTreeSet<_>>();
    let scope = Scope::new(narrow)?;
    let filter = match filter {
        None => None,
        Some(resolved) => {
            rows.push(format!("where {}", resolved.text));
            Some(scope.condition(&resolved)?)
        }
    };
    let mut unnests = Vec::new();
    let mut logical = Vec::with_capacity(columns.len());
    for (name, resolved) in &columns {
        fingerprint.columns.insert(name.clone(), resolved.text.clone());
        logical.push(scope.take_unnests(name, resolved, &mut unnests)?);
    }
    rows.extend(unnested);
    fingerprint.rows = rows.join("; ");

    let scope = scope.with_elements(&unnests)?;
    let mut outputs = Vec::with_capacity(columns.len());
    let mut fields = Vec::with_capacity(columns.len());
    for ((name, _), expr) in columns.into_iter().zip(logical) {
        let what = format!("column `{name}`");
        let expr = scope.physical(&what, expr)?;
        let kind = expr.data_type(scope.arrow()).map_err(|error| planning(&what, &error))?;
        let plain = plain_type(&kind);
        let expr = if plain == kind {
            expr
        } else {
            cast(expr, scope.arrow(), plain.clone()).map_err(|error| planning(&what, &error))?
        };
        fields.push(Field::new(&name, plain, true));
        outputs.push(Output { what, expr });
    }
    Ok(PlannedSql {
        input: Arc::clone(input),
        used,
        filter,
        unnests: unnests.into_iter().map(|unnest| unnest.planned).collect(),
        scope: Arc::new(scope.arrow().clone()),
        outputs,
        schema: Arc::new(Schema::new(fields)),
        fingerprint,
    })
}

/// The columns of one item of the select list, with their names.
fn expand(item: &SelectItem, resolver: &Resolver<'_>) -> Result<Vec<(String, Resolved)>> {
    match item {
        SelectItem::ExprWithAlias { expr, alias } => {
            Ok(vec![(alias.value.clone(), resolver.expr(expr.clone(), true)?)])
        }
        SelectItem::UnnamedExpr(expr) => {
            let resolved = resolver.expr(expr.clone(), true)?;
            let name = match resolved.columns.first() {
                // A column alone keeps the name it has in the input.
                Some(index) if resolved.text == *resolver.input.field(*index).name() => resolved.text.clone(),
                _ => expr.to_string(),
            };
            Ok(vec![(name, resolved)])
        }
        SelectItem::ExprWithAliases { expr, .. } => {
            Err(Error::invalid(format!("`{expr}` takes one name; several are not supported")))
        }
        SelectItem::Wildcard(options) => wildcard(options, resolver),
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
            let table = last_part(name)?;
            if !resolver.is_table(&table) {
                return Err(Error::invalid(format!(
                    "`{name}.*`: there is no table `{table}`; it is called `{}`",
                    resolver.table.value
                )));
            }
            wildcard(options, resolver)
        }
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(expr), _) => {
            Err(Error::invalid(format!("`{expr}.*` is not supported; name the fields")))
        }
    }
}

fn wildcard(options: &WildcardAdditionalOptions, resolver: &Resolver<'_>) -> Result<Vec<(String, Resolved)>> {
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude,
        opt_except,
        opt_replace,
        opt_rename,
        opt_alias,
    } = options;
    let others = opt_ilike.is_some() || opt_replace.is_some() || opt_rename.is_some() || opt_alias.is_some();
    if others {
        return Err(Error::invalid("`*` takes `EXCEPT (…)` or `EXCLUDE (…)` alone; write other changes as columns"));
    }
    let mut without: Vec<Ident> = Vec::new();
    match opt_exclude {
        None => {}
        Some(ExcludeSelectItem::Single(name)) => without.push(last_part(name)?),
        Some(ExcludeSelectItem::Multiple(names)) => {
            for name in names {
                without.push(last_part(name)?);
            }
        }
    }
    if let Some(except) = opt_except {
        without.push(except.first_element.clone());
        without.extend(except.additional_elements.iter().cloned());
    }
    let without = without.iter().map(|ident| resolver.column(ident)).collect::<Result<BTreeSet<_>>>()?;
    (0..resolver.input.fields().len())
        .filter(|index| !without.contains(index))
        .map(|index| {
            let name = resolver.input.field(index).name().clone();
            Ok((name, resolver.expr(resolver.reference(index), false)?))
        })
        .collect()
}

/// The planner takes an identifier that begins with `@` for a variable, so such columns have another name in plans.
fn plan_name(column: &str) -> Option<String> {
    column.starts_with('@').then(|| format!("column {column}"))
}

fn plan_field(field: &FieldRef) -> FieldRef {
    match plan_name(field.name()) {
        Some(name) => Arc::new(field.as_ref().clone().with_name(name)),
        None => Arc::clone(field),
    }
}

struct PlanNames;

impl VisitorMut for PlanNames {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<()> {
        if let SqlExpr::Identifier(ident) = expr
            && let Some(name) = plan_name(&ident.value)
        {
            ident.value = name;
        }
        ControlFlow::Continue(())
    }
}

/// A list that is unnested, while planning.
struct PlannedUnnest {
    argument: Expr,
    element: FieldRef,
    planned: Unnest,
}

/// The name by which expressions read the elements of an unnested list.
fn element_name(index: usize) -> String {
    format!("__unnest_{index}")
}

/// The columns that expressions can see.
struct Scope(DFSchemaRef);

impl Scope {
    fn new(schema: Schema) -> Result<Self> {
        let schema = DFSchema::try_from(schema).map_err(|error| planning("the input", &error))?;
        Ok(Self(Arc::new(schema)))
    }

    fn arrow(&self) -> &Schema {
        self.0.as_arrow()
    }

    /// The same and a column for the elements of each unnested list.
    fn with_elements(&self, unnests: &[PlannedUnnest]) -> Result<Self> {
        let mut fields = self.arrow().fields().to_vec();
        fields.extend(unnests.iter().map(|unnest| Arc::clone(&unnest.element)));
        Self::new(Schema::new(fields))
    }

    fn logical(&self, what: &str, resolved: &Resolved) -> Result<Expr> {
        let mut expr = resolved.expr.clone();
        // This visitor never breaks.
        let _ = expr.visit(&mut PlanNames);
        // The planner knows this door only; it looks at the expression alone.
        let item = ExprWithAlias { expr, alias: None };
        FUNCTIONS
            .planner()
            .sql_to_expr_with_alias(item, &self.0, &mut PlannerContext::new())
            .map_err(|error| planning(what, &error))
    }

    fn condition(&self, resolved: &Resolved) -> Result<Arc<dyn PhysicalExpr>> {
        let what = "`WHERE`";
        let expr = self.physical(what, self.logical(what, resolved)?)?;
        match expr.data_type(self.arrow()).map_err(|error| planning(what, &error))? {
            DataType::Boolean => Ok(expr),
            other => Err(Error::invalid(format!("`WHERE` takes a condition, and this is {other}"))),
        }
    }

    /// Plans a column and puts the elements of lists in the place of its calls of `unnest`.
    fn take_unnests(&self, name: &str, resolved: &Resolved, unnests: &mut Vec<PlannedUnnest>) -> Result<Expr> {
        let what = format!("column `{name}`");
        let expr = self.logical(&what, resolved)?;
        let mut fault = None;
        let replaced = expr.transform_up(|expr| match expr {
            Expr::Unnest(unnest) => match self.unnest(&what, *unnest.expr, unnest.outer, unnests) {
                Ok(element) => Ok(Transformed::yes(element)),
                Err(error) => {
                    fault = Some(error);
                    Err(DataFusionError::Plan("unnest".into()))
                }
            },
            other => Ok(Transformed::no(other)),
        });
        match (replaced, fault) {
            (_, Some(error)) => Err(error),
            (Ok(replaced), None) => Ok(replaced.data),
            (Err(error), None) => Err(planning(&what, &error)),
        }
    }

    fn unnest(&self, what: &str, argument: Expr, outer: bool, unnests: &mut Vec<PlannedUnnest>) -> Result<Expr> {
        let known = unnests.iter().position(|known| known.argument == argument && known.planned.outer == outer);
        let index = match known {
            Some(index) => index,
            None => {
                if argument.column_refs().iter().any(|column| !self.0.has_column(column)) {
                    return Err(refused("unnest(unnest(…))"));
                }
                let call = if outer { "unnest_outer" } else { "unnest" };
                let list = self.physical(what, argument.clone())?;
                let kind = list.data_type(self.arrow()).map_err(|error| planning(what, &error))?;
                let item = match &kind {
                    DataType::List(item)
                    | DataType::LargeList(item)
                    | DataType::FixedSizeList(item, _)
                    | DataType::ListView(item)
                    | DataType::LargeListView(item) => Arc::clone(item),
                    other => {
                        return Err(Error::invalid(format!("{what}: `{call}()` takes a list, and this is {other}")));
                    }
                };
                let list = cast(list, self.arrow(), DataType::List(Arc::clone(&item)))
                    .map_err(|error| planning(what, &error))?;
                let element = Arc::new(Field::new(element_name(unnests.len()), item.data_type().clone(), true));
                unnests.push(PlannedUnnest { argument, element, planned: Unnest { list, outer } });
                unnests.len() - 1
            }
        };
        Ok(col(element_name(index)))
    }

    /// A physical expression with the types made to fit, as DataFusion's analyzer would.
    fn physical(&self, what: &str, expr: Expr) -> Result<Arc<dyn PhysicalExpr>> {
        self.plan_physical(expr).map_err(|error| planning(what, &error))
    }

    fn plan_physical(&self, expr: Expr) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let info = SimplifyContext::builder().with_schema(Arc::clone(&self.0)).build();
        let mut expr = self.coerce(expr)?;
        // Some functions are written in terms of others (`coalesce` is a CASE) and cannot run themselves. Once more
        // for each layer; a function that never settles would be the library's fault, and fails when it runs.
        for _ in 0..8 {
            let simplified = expr.transform_up(|expr| match expr {
                Expr::ScalarFunction(call) => match call.func.simplify(call.args, &info)? {
                    ExprSimplifyResult::Simplified(simpler) => Ok(Transformed::yes(simpler)),
                    ExprSimplifyResult::Original(args) => Ok(Transformed::no(call.func.call(args))),
                },
                other => Ok(Transformed::no(other)),
            })?;
            expr = self.coerce(simplified.data)?;
            if !simplified.transformed {
                break;
            }
        }
        let physical =
            create_physical_expr(&expr, &self.0, &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
        checked(physical, self.arrow())
    }

    fn coerce(&self, expr: Expr) -> Result<Expr, DataFusionError> {
        Ok(expr.rewrite(&mut TypeCoercionRewriter::new(&self.0))?.data)
    }
}

/// Makes arithmetic fail where it overflows: DataFusion's wraps around, and would write a wrong feature.
fn checked(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let checked = expr.transform_up(|expr| {
        if let Some(binary) = expr.downcast_ref::<BinaryExpr>()
            && matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply)
        {
            return Ok(Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>));
        }
        if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
            let kind = negative.arg().data_type(schema)?;
            if kind.is_signed_integer() {
                let zero = Arc::new(Literal::new(ScalarValue::new_zero(&kind)?));
                let minus = BinaryExpr::new(zero, Operator::Minus, Arc::clone(negative.arg()));
                return Ok(Transformed::yes(Arc::new(minus.with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>));
            }
        }
        Ok(Transformed::no(expr))
    })?;
    Ok(checked.data)
}

/// Views are an optimisation inside DataFusion; what comes out is what everybody else has.
fn plain_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) if plain_type(item.data_type()) != *item.data_type() => {
            DataType::List(Arc::new(item.as_ref().clone().with_data_type(plain_type(item.data_type()))))
        }
        other => other.clone(),
    }
}
