//! Names in expressions: columns are found, functions are judged, and the normal form of an expression is written.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use arrow::datatypes::Schema;
use datafusion_sql::sqlparser::ast::{
    AccessExpr, CastKind, Expr, Function, Ident, ObjectName, Subscript, Value, VisitMut, VisitorMut,
};
use headwater_core::{Error, Result};

use crate::error::at;
use crate::functions::{Call, FUNCTIONS, nearest};

/// An expression whose columns are written as the input has them, each quoted and without its table.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// The expression.
    pub(crate) expr: Expr,
    /// The input columns it reads, by index.
    pub(crate) columns: BTreeSet<usize>,
    /// Its normal form: the same for every way of writing it that differs in white space, case of keywords and of
    /// unquoted names, qualifiers, comments and redundant parentheses alone.
    pub(crate) text: String,
    /// The calls of `unnest` in it, in normal form.
    pub(crate) unnests: BTreeSet<String>,
}

/// Resolves expressions over one table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolver<'a> {
    /// The columns.
    pub(crate) input: &'a Schema,
    /// What they may be qualified with.
    pub(crate) table: &'a Ident,
}

impl Resolver<'_> {
    /// Resolves an expression. `unnest` says whether it may call `unnest`.
    pub(crate) fn expr(&self, mut expr: Expr, unnest: bool) -> Result<Resolved> {
        let mut visitor = Visitor { resolver: self, unnest, columns: BTreeSet::new() };
        if let ControlFlow::Break(error) = expr.visit(&mut visitor) {
            return Err(error);
        }
        let columns = visitor.columns;
        let mut normalise = Normalise { unnests: BTreeSet::new() };
        let mut normal = expr.clone();
        // This visitor never breaks.
        let _ = normal.visit(&mut normalise);
        let text = normal_text(&normal, &columns, self.input);
        Ok(Resolved { expr, columns, text, unnests: normalise.unnests })
    }

    /// The input's column of this name, by index.
    ///
    /// A quoted name is exact. An unquoted one is exact where that finds something, else in any case, as Spark has it.
    pub(crate) fn column(&self, ident: &Ident) -> Result<usize> {
        let fields = self.input.fields();
        if let Some(index) = fields.iter().position(|field| *field.name() == ident.value) {
            return Ok(index);
        }
        let mut found = Vec::new();
        if ident.quote_style.is_none() {
            found.extend(fields.iter().enumerate().filter(|(_, field)| same_word(field.name(), &ident.value)));
        }
        match found.as_slice() {
            [(index, _)] => Ok(*index),
            [] => {
                let hint = nearest(&ident.value, fields.iter().map(|field| field.name().as_str()));
                let quoted = if ident.quote_style == Some('"') { " (text goes in single quotes)" } else { "" };
                Err(Error::invalid(format!(
                    "there is no column `{}`{}{quoted}{hint}; the columns are {}",
                    ident.value,
                    at(ident.span),
                    list(fields.iter().map(|field| field.name().as_str()))
                )))
            }
            several => Err(Error::invalid(format!(
                "`{}`{} may be {}; put the one that is meant in double quotes",
                ident.value,
                at(ident.span),
                list(several.iter().map(|(_, field)| field.name().as_str()))
            ))),
        }
    }

    /// Whether `ident` is the name of the table.
    pub(crate) fn is_table(&self, ident: &Ident) -> bool {
        same_word(&ident.value, &self.table.value)
    }

    /// An expression for a column.
    pub(crate) fn reference(&self, index: usize) -> Expr {
        Expr::Identifier(Ident::with_quote('"', self.input.field(index).name()))
    }
}

fn same_word(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names = names.map(|name| format!("`{name}`")).collect::<Vec<_>>();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

struct Visitor<'a> {
    resolver: &'a Resolver<'a>,
    unnest: bool,
    columns: BTreeSet<usize>,
}

impl VisitorMut for Visitor<'_> {
    type Break = Error;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match self.resolve(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Visitor<'_> {
    fn resolve(&mut self, expr: &mut Expr) -> Result<()> {
        match expr {
            Expr::Identifier(ident) => {
                let index = self.resolver.column(ident)?;
                self.columns.insert(index);
                *expr = self.resolver.reference(index);
            }
            Expr::CompoundIdentifier(parts) => *expr = self.path(std::mem::take(parts), Vec::new())?,
            Expr::CompoundFieldAccess { root, access_chain } => {
                let chain = std::mem::take(access_chain);
                match root.as_mut() {
                    Expr::Identifier(ident) => {
                        let parts = vec![ident.clone()];
                        *expr = self.path(parts, chain)?;
                    }
                    Expr::CompoundIdentifier(parts) => {
                        let parts = std::mem::take(parts);
                        *expr = self.path(parts, chain)?;
                    }
                    _ => *access_chain = chain.into_iter().map(field_by_text).collect(),
                }
            }
            Expr::Function(function) => self.function(function)?,
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
                return Err(Error::invalid("a subquery is not row-wise: a transform sees one record at a time"));
            }
            Expr::Lambda(lambda) => {
                return Err(Error::invalid(format!("`{lambda}`: functions of functions are not supported")));
            }
            Expr::Value(value) => {
                if let Value::Placeholder(name) = &value.value {
                    return Err(Error::invalid(format!("`{name}`{}: there are no parameters", at(value.span))));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// `table.column.field[1].field`: takes off the table, finds the column, and leaves the fields to the planner.
    fn path(&self, mut parts: Vec<Ident>, chain: Vec<AccessExpr>) -> Result<Expr> {
        let mut chain = chain.into_iter().peekable();
        while let Some(AccessExpr::Dot(Expr::Identifier(ident))) = chain.peek() {
            parts.push(ident.clone());
            chain.next();
        }
        let qualified = match parts.as_slice() {
            [first, second, ..] => {
                self.resolver.is_table(first)
                    && (self.resolver.column(second).is_ok() || self.resolver.column(first).is_err())
            }
            _ => false,
        };
        if !qualified
            && let [first, second, ..] = parts.as_slice()
            && self.resolver.column(first).is_err()
        {
            return Err(Error::invalid(format!(
                "`{first}.{second}`{}: `{}` is neither the table, which is called `{}`, nor a column; the columns are {}",
                at(first.span),
                first.value,
                self.resolver.table.value,
                list(self.resolver.input.fields().iter().map(|field| field.name().as_str()))
            )));
        }
        let mut parts = parts.into_iter().skip(usize::from(qualified));
        let column = parts.next().ok_or_else(|| Error::unexpected("a path without a column"))?;
        let index = self.resolver.column(&column)?;
        let fields = parts.map(|field| AccessExpr::Dot(Expr::Identifier(field))).chain(chain).map(field_by_text);
        let access_chain = fields.collect::<Vec<_>>();
        let root = self.resolver.reference(index);
        // The column is visited again as the root of the result, and counted then.
        Ok(if access_chain.is_empty() { Expr::Nested(Box::new(root)) } else { access(root, access_chain) })
    }

    fn function(&self, function: &mut Function) -> Result<()> {
        let name = match function.name.0.as_slice() {
            [part] => part.as_ident().cloned(),
            _ => None,
        };
        let Some(name) = name else {
            return Err(Error::invalid(format!("there is no function `{}`; functions have one name", function.name)));
        };
        let place = at(name.span);
        if function.over.is_some() {
            return Err(Error::invalid(format!(
                "`{}() OVER`{place} is a window function; a transform sees one record at a time",
                name.value
            )));
        }
        let lower = name.value.to_lowercase();
        if FUNCTIONS.check(&lower, &place)? == Call::Unnest && !self.unnest {
            return Err(Error::invalid(format!("`{lower}()`{place} can stand in the select list alone")));
        }
        function.name = ObjectName::from(vec![Ident::new(lower)]);
        Ok(())
    }
}

fn access(root: Expr, access_chain: Vec<AccessExpr>) -> Expr {
    Expr::CompoundFieldAccess { root: Box::new(root), access_chain }
}

/// `.field` as `['field']`: the planner takes no names there, and both are to have one normal form.
fn field_by_text(step: AccessExpr) -> AccessExpr {
    match step {
        AccessExpr::Dot(Expr::Identifier(ident)) => {
            AccessExpr::Subscript(Subscript::Index { index: Expr::value(Value::SingleQuotedString(ident.value)) })
        }
        other => other,
    }
}

/// A bare column is its name. Anything else is the expression and the types of the columns it reads: `a / b` of
/// integers is another value than of floats.
fn normal_text(expr: &Expr, columns: &BTreeSet<usize>, input: &Schema) -> String {
    if let Expr::Identifier(ident) = expr {
        return ident.value.clone();
    }
    let types = columns
        .iter()
        .map(|index| input.field(*index))
        .map(|field| format!("{} {}", Ident::with_quote('"', field.name()), field.data_type()))
        .collect::<Vec<_>>();
    if types.is_empty() { expr.to_string() } else { format!("{expr} of {}", types.join(", ")) }
}

/// Puts exactly one pair of parentheses around every operator, and notes what is unnested.
struct Normalise {
    unnests: BTreeSet<String>,
}

impl VisitorMut for Normalise {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Nested(inner) => {
                let inner = std::mem::replace(inner.as_mut(), Expr::value(Value::Null));
                *expr = inner;
            }
            Expr::Function(call) => {
                let name = call.name.to_string();
                if name == "unnest" || name == "unnest_outer" {
                    self.unnests.insert(call.to_string());
                }
            }
            Expr::Cast { kind, .. } if *kind == CastKind::DoubleColon => *kind = CastKind::Cast,
            Expr::BinaryOp { .. }
            | Expr::UnaryOp { .. }
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::InList { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::SimilarTo { .. }
            | Expr::RLike { .. }
            | Expr::AnyOp { .. }
            | Expr::AllOp { .. }
            | Expr::AtTimeZone { .. } => {
                let inner = std::mem::replace(expr, Expr::value(Value::Null));
                *expr = Expr::Nested(Box::new(inner));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
