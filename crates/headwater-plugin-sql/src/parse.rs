//! From text to the parts of one `SELECT`; every clause that is not row-wise is refused by its name.

use std::fmt;
use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, ObjectName, ObjectNamePart, Query, SelectItem, SetExpr, SetOperator, Statement,
    TableFactor, TableWithJoins, Visit, Visitor,
};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Token, Tokenizer};
use headwater_core::{Error, Result};

use crate::error::syntax;

/// More than any transform needs, and few enough that an expression of as many operators fits [`STACK`].
const MAX_TOKENS: usize = 10_000;

/// How deep an expression may be: it is planned, evaluated and dropped by recursion, on whatever thread that happens.
const MAX_DEPTH: usize = 200;

/// What parsing and planning may use. Address space, not memory, unless an expression needs it.
const STACK: usize = 256 << 20;

/// Runs `work` with a stack that no text within the limits exhausts.
pub(crate) fn with_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("headwater-sql".into()).stack_size(STACK);
        let thread = thread
            .spawn_scoped(scope, work)
            .map_err(|error| Error::unexpected("no thread for planning").with_source(error))?;
        thread.join().unwrap_or_else(|_| Err(Error::invalid("the SQL planner gave up on this text")))
    })
}

/// What is left of a statement when everything else has been refused.
#[derive(Debug)]
pub(crate) struct Select {
    /// The select list.
    pub(crate) items: Vec<SelectItem>,
    /// The condition of `WHERE`.
    pub(crate) filter: Option<Expr>,
    /// What columns may be qualified with: the table's alias, or its name where it has none.
    pub(crate) table: Ident,
}

/// Reads a text.
pub(crate) fn select(text: &str) -> Result<Select> {
    with_stack(|| {
        let select = statement(text)?;
        let mut depth = Depth::default();
        let expressions = select.items.visit(&mut depth).is_continue() && select.filter.visit(&mut depth).is_continue();
        if expressions {
            return Ok(select);
        }
        Err(Error::invalid(format!(
            "an expression is more than {MAX_DEPTH} operators deep; `IN`, `CASE` or a function may say the same"
        )))
    })
}

#[derive(Default)]
struct Depth(usize);

impl Visitor for Depth {
    type Break = ();

    fn pre_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<()> {
        self.0 += 1;
        if self.0 > MAX_DEPTH { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn post_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<()> {
        self.0 -= 1;
        ControlFlow::Continue(())
    }
}

fn statement(text: &str) -> Result<Select> {
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, text)
        .tokenize_with_location()
        .map_err(|error| syntax(ParserError::TokenizerError(error.to_string())))?;
    let count = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).count();
    if count > MAX_TOKENS {
        return Err(Error::invalid(format!("the text has {count} words and signs; {MAX_TOKENS} are allowed")));
    }
    let mut statements =
        Parser::new(&dialect).with_tokens_with_locations(tokens).parse_statements().map_err(syntax)?.into_iter();
    let statement = statements.next().ok_or_else(|| Error::invalid("the text is empty; it takes one `SELECT`"))?;
    if statements.next().is_some() {
        return Err(Error::invalid("the text holds several statements; it takes one `SELECT`"));
    }
    match statement {
        Statement::Query(query) => query_body(*query),
        other => {
            let text = other.to_string();
            let word = text.split_whitespace().next().unwrap_or_default();
            Err(Error::invalid(format!("`{word}` cannot be a transform; it takes one `SELECT`")))
        }
    }
}

fn refuse(present: bool, clause: impl fmt::Display) -> Result<()> {
    if present { Err(refused(clause)) } else { Ok(()) }
}

/// The refusal of a clause.
pub(crate) fn refused(clause: impl fmt::Display) -> Error {
    Error::invalid(format!(
        "`{clause}` is not row-wise: a transform makes rows of one record at a time, by a select list, `WHERE` and \
         `unnest(list)`"
    ))
}

// The structs are taken apart field by field, so that a clause which a newer parser knows cannot slip through.

fn query_body(query: Query) -> Result<Select> {
    let Query { with, body, order_by, limit_clause, fetch, locks, for_clause, settings, format_clause, pipe_operators } =
        query;
    refuse(with.is_some(), "WITH")?;
    refuse(order_by.is_some(), "ORDER BY")?;
    refuse(limit_clause.is_some(), "LIMIT")?;
    refuse(fetch.is_some(), "FETCH")?;
    refuse(!locks.is_empty() || for_clause.is_some(), "FOR")?;
    refuse(settings.is_some(), "SETTINGS")?;
    refuse(format_clause.is_some(), "FORMAT")?;
    refuse(!pipe_operators.is_empty(), "|>")?;
    match *body {
        SetExpr::Select(select) => select_parts(*select),
        SetExpr::Query(inner) => query_body(*inner),
        SetExpr::SetOperation { op, .. } => Err(refused(match op {
            SetOperator::Union => "UNION",
            SetOperator::Except => "EXCEPT",
            SetOperator::Intersect => "INTERSECT",
            SetOperator::Minus => "MINUS",
        })),
        SetExpr::Values(_) => Err(refused("VALUES")),
        SetExpr::Table(_) => Err(refused("TABLE")),
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            Err(Error::invalid("only `SELECT` can be a transform"))
        }
    }
}

fn select_parts(select: datafusion_sql::sqlparser::ast::Select) -> Result<Select> {
    let datafusion_sql::sqlparser::ast::Select {
        select_token: _,
        optimizer_hints,
        distinct,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection,
        exclude,
        into,
        from,
        lateral_views,
        prewhere,
        selection,
        connect_by,
        group_by,
        cluster_by,
        distribute_by,
        sort_by,
        having,
        named_window,
        qualify,
        window_before_qualify: _,
        value_table_mode,
        flavor: _,
    } = select;
    refuse(!optimizer_hints.is_empty(), "a hint")?;
    refuse(distinct.is_some(), "DISTINCT")?;
    refuse(select_modifiers.is_some(), "a modifier of SELECT")?;
    refuse(top.is_some(), "TOP")?;
    refuse(exclude.is_some(), "EXCLUDE")?;
    refuse(into.is_some(), "INTO")?;
    refuse(prewhere.is_some(), "PREWHERE")?;
    refuse(!connect_by.is_empty(), "CONNECT BY")?;
    refuse(!cluster_by.is_empty(), "CLUSTER BY")?;
    refuse(!distribute_by.is_empty(), "DISTRIBUTE BY")?;
    refuse(!sort_by.is_empty(), "SORT BY")?;
    refuse(having.is_some(), "HAVING")?;
    refuse(!named_window.is_empty(), "WINDOW")?;
    refuse(qualify.is_some(), "QUALIFY")?;
    refuse(value_table_mode.is_some(), "SELECT AS")?;
    match group_by {
        GroupByExpr::Expressions(by, modifiers) => refuse(!by.is_empty() || !modifiers.is_empty(), "GROUP BY")?,
        GroupByExpr::All(_) => return Err(refused("GROUP BY")),
    }
    if !lateral_views.is_empty() {
        return Err(Error::invalid("`LATERAL VIEW` is not supported; write `unnest(list) AS name` in the select list"));
    }
    if projection.is_empty() {
        return Err(Error::invalid("the select list is empty"));
    }
    Ok(Select { items: projection, filter: selection, table: table(from)? })
}

fn table(from: Vec<TableWithJoins>) -> Result<Ident> {
    let mut tables = from.into_iter();
    let TableWithJoins { relation, joins } =
        tables.next().ok_or_else(|| Error::invalid("`FROM` is missing: a transform reads its source"))?;
    let joined = tables.next().map(|table| table.relation).or(joins.into_iter().next().map(|join| join.relation));
    if let Some(joined) = joined {
        return Err(match joined {
            TableFactor::UNNEST { .. } => {
                Error::invalid("`UNNEST` in `FROM` is not supported; write `unnest(list) AS name` in the select list")
            }
            _ => refused("JOIN"),
        });
    }
    match relation {
        TableFactor::Table {
            name,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            refuse(args.is_some(), format!("{name}(…)"))?;
            refuse(sample.is_some(), "TABLESAMPLE")?;
            refuse(
                !with_hints.is_empty()
                    || version.is_some()
                    || with_ordinality
                    || !partitions.is_empty()
                    || json_path.is_some()
                    || !index_hints.is_empty(),
                format!("an option of table {name}"),
            )?;
            match alias {
                Some(alias) if !alias.columns.is_empty() || alias.at.is_some() => {
                    Err(Error::invalid("columns are renamed in the select list, with `AS`, not after the table"))
                }
                Some(alias) => Ok(alias.name),
                None => last_part(&name),
            }
        }
        TableFactor::Derived { .. } => Err(Error::invalid("a subquery in `FROM` is not supported; write one `SELECT`")),
        TableFactor::UNNEST { .. } => {
            Err(Error::invalid("`UNNEST` in `FROM` is not supported; write `unnest(list) AS name` in the select list"))
        }
        other => Err(refused(other)),
    }
}

/// What qualifies columns of the table `name`: its own name, without those of catalogue and schema.
pub(crate) fn last_part(name: &ObjectName) -> Result<Ident> {
    match name.0.last() {
        Some(ObjectNamePart::Identifier(ident)) => Ok(ident.clone()),
        _ => Err(Error::invalid(format!("`{name}` is not the name of a table"))),
    }
}
