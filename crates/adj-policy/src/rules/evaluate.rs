//! Evaluates the part of Starlark that declares things, with a bound on work and memory.
//!
//! A general evaluator cannot promise one: `"a" * 2147483647`, or the text of a list that holds itself twice, thirty levels deep,
//! are single steps to it. So texts, lists, names, `+`, comparisons, formats, conditions, loops and functions are evaluated here, each
//! for a price, and the rest of the language is refused by name.

use super::{Fault, RuleSet, build::Builder};
use starlark::syntax::ast::{
    ArgumentP, AssignOp, AssignTarget, AssignTargetP, AstExpr, AstLiteral, AstStmt, BinOp, Clause, ClauseP, Expr,
    ExprP, ForClause, ParameterP, Stmt, StmtP,
};
use std::{collections::BTreeMap, rc::Rc};

/// How much work a file may be: steps, list items, and sixteenths of bytes.
const MAX_WORK: usize = 4_000_000;
const MAX_CALLS: usize = 16;
/// How deep lists may stand in one another.
const MAX_LISTS: usize = 8;

/// What an expression comes to.
#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    Number(i64),
    Text(Rc<str>),
    List { items: Rc<Vec<Value>>, depth: usize },
    Function(usize),
}

impl Value {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a truth value",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List { .. } => "a list",
            Self::Function(_) => "a function",
        }
    }

    fn is_true(&self) -> bool {
        match self {
            Self::None => false,
            Self::Bool(value) => *value,
            Self::Number(value) => *value != 0,
            Self::Text(text) => !text.is_empty(),
            Self::List { items, .. } => !items.is_empty(),
            Self::Function(_) => true,
        }
    }
}

/// What follows after a statement.
enum Flow {
    Next,
    Break,
    Continue,
    Return(Value),
}

struct Function<'a> {
    parameters: Vec<(&'a str, Option<Value>)>,
    body: &'a AstStmt,
}

struct Evaluator<'a> {
    builder: Builder,
    work: usize,
    globals: BTreeMap<&'a str, Value>,
    /// The names of each function that is being called.
    calls: Vec<BTreeMap<&'a str, Value>>,
    functions: Vec<Function<'a>>,
}

/// Runs a file and returns its rules, after their examples have been tested.
pub(super) fn evaluate(file: &AstStmt, text: &str) -> Result<RuleSet, Fault> {
    let mut evaluator = Evaluator {
        builder: Builder::new(text),
        work: 0,
        globals: BTreeMap::new(),
        calls: Vec::new(),
        functions: Vec::new(),
    };
    evaluator.statement(file)?;
    evaluator.builder.finish()
}

fn begin<T>(spanned: &starlark::codemap::Spanned<T>) -> usize {
    spanned.span.begin().get() as usize
}

fn unsupported<T>(at: usize, what: &str) -> Result<T, Fault> {
    Err(Fault::new(at, format!("{what} is not supported in a file of rules")))
}

impl<'a> Evaluator<'a> {
    fn spend(&mut self, at: usize, work: usize) -> Result<(), Fault> {
        self.work += 1 + work;
        if self.work > MAX_WORK {
            return Err(Fault::new(at, "the file takes too much work to evaluate"));
        }
        Ok(())
    }

    fn statement(&mut self, statement: &'a AstStmt) -> Result<Flow, Fault> {
        let at = begin(statement);
        self.spend(at, 0)?;
        let node: &'a Stmt = &statement.node;
        match node {
            StmtP::Pass => {}
            StmtP::Break => return Ok(Flow::Break),
            StmtP::Continue => return Ok(Flow::Continue),
            StmtP::Return(value) => {
                let value = value.as_ref().map_or(Ok(Value::None), |value| self.expression(value))?;
                return Ok(Flow::Return(value));
            }
            StmtP::Expression(expression) => {
                self.expression(expression)?;
            }
            StmtP::Assign(assignment) => {
                if assignment.ty.is_some() {
                    return unsupported(at, "a type");
                }
                let value = self.expression(&assignment.rhs)?;
                self.assign(&assignment.lhs.node, value, at)?;
            }
            StmtP::AssignModify(target, AssignOp::Add, value) => {
                let AssignTargetP::Identifier(name) = &target.node else { return unsupported(at, "this assignment") };
                let left = self.lookup(&name.node.ident, at)?;
                let right = self.expression(value)?;
                let sum = self.add(&left, &right, at)?;
                self.bind(&name.node.ident, sum);
            }
            StmtP::AssignModify(..) => return unsupported(at, "this assignment"),
            StmtP::Statements(statements) => {
                for statement in statements {
                    match self.statement(statement)? {
                        Flow::Next => {}
                        other => return Ok(other),
                    }
                }
            }
            StmtP::If(condition, then) => {
                if self.expression(condition)?.is_true() {
                    return self.statement(then);
                }
            }
            StmtP::IfElse(condition, branches) => {
                let branch = if self.expression(condition)?.is_true() { &branches.0 } else { &branches.1 };
                return self.statement(branch);
            }
            StmtP::For(each) => {
                for item in self.items(&each.over)?.iter() {
                    self.assign(&each.var.node, item.clone(), at)?;
                    match self.statement(&each.body)? {
                        Flow::Next | Flow::Continue => {}
                        Flow::Break => break,
                        Flow::Return(value) => return Ok(Flow::Return(value)),
                    }
                }
            }
            StmtP::Def(definition) => {
                let mut parameters = Vec::new();
                for parameter in &definition.params {
                    let ParameterP::Normal(name, None, default) = &parameter.node else {
                        return unsupported(begin(parameter), "this parameter");
                    };
                    let default = default.as_ref().map(|default| self.expression(default)).transpose()?;
                    parameters.push((name.node.ident.as_str(), default));
                }
                if definition.return_type.is_some() || !self.calls.is_empty() {
                    return unsupported(at, "this function");
                }
                self.functions.push(Function { parameters, body: &definition.body });
                let function = Value::Function(self.functions.len() - 1);
                self.bind(&definition.name.node.ident, function);
            }
            StmtP::Load(_) => return unsupported(at, "`load`"),
        }
        Ok(Flow::Next)
    }

    fn bind(&mut self, name: &'a str, value: Value) {
        self.calls.last_mut().unwrap_or(&mut self.globals).insert(name, value);
    }

    fn lookup(&self, name: &str, at: usize) -> Result<Value, Fault> {
        let local = self.calls.last().and_then(|names| names.get(name));
        match (local.or_else(|| self.globals.get(name)), name) {
            (Some(value), _) => Ok(value.clone()),
            (None, "True") => Ok(Value::Bool(true)),
            (None, "False") => Ok(Value::Bool(false)),
            (None, "None") => Ok(Value::None),
            (None, _) => Err(Fault::new(at, format!("\"{}\" is not known here", shown(name)))),
        }
    }

    fn assign(&mut self, target: &'a AssignTarget, value: Value, at: usize) -> Result<(), Fault> {
        match target {
            AssignTargetP::Identifier(name) => self.bind(&name.node.ident, value),
            AssignTargetP::Tuple(targets) => {
                let Value::List { items, .. } = value else {
                    return Err(Fault::new(at, format!("{} cannot be taken apart", value.kind())));
                };
                if items.len() != targets.len() {
                    return Err(Fault::new(at, format!("the list does not have {} items", targets.len())));
                }
                self.spend(at, items.len())?;
                for (target, item) in targets.iter().zip(items.iter()) {
                    self.assign(&target.node, item.clone(), at)?;
                }
            }
            AssignTargetP::Index(_) | AssignTargetP::Dot(..) => return unsupported(at, "this assignment"),
        }
        Ok(())
    }

    fn expression(&mut self, expression: &'a AstExpr) -> Result<Value, Fault> {
        let at = begin(expression);
        self.spend(at, 0)?;
        let node: &'a Expr = &expression.node;
        match node {
            ExprP::Literal(AstLiteral::String(text)) => {
                self.spend(at, text.node.len() / 16)?;
                Ok(Value::Text(text.node.as_str().into()))
            }
            ExprP::Literal(AstLiteral::Int(number)) => match number.node.to_string().parse() {
                Ok(number) => Ok(Value::Number(number)),
                Err(_) => Err(Fault::new(at, "the number is too large")),
            },
            ExprP::Identifier(name) => self.lookup(&name.node.ident, at),
            ExprP::List(items) | ExprP::Tuple(items) => {
                let items: Result<Vec<Value>, Fault> = items.iter().map(|item| self.expression(item)).collect();
                self.list(items?, at)
            }
            ExprP::Not(value) => Ok(Value::Bool(!self.expression(value)?.is_true())),
            ExprP::If(parts) => {
                let (condition, then, otherwise) = &**parts;
                if self.expression(condition)?.is_true() { self.expression(then) } else { self.expression(otherwise) }
            }
            ExprP::Op(left, operator, right) => self.operation(left, *operator, right, at),
            ExprP::Index(parts) => {
                let (list, index) = (self.expression(&parts.0)?, self.expression(&parts.1)?);
                let (Value::List { items, .. }, Value::Number(index)) = (&list, &index) else {
                    return Err(Fault::new(at, format!("{} cannot index {}", index.kind(), list.kind())));
                };
                let item = usize::try_from(*index).ok().and_then(|index| items.get(index));
                item.cloned().ok_or_else(|| Fault::new(at, format!("there is no item {index}")))
            }
            ExprP::FString(format) => {
                let mut text = String::new();
                let mut values = format.node.expressions.iter();
                let mut rest = format.node.format.node.as_str();
                while let Some(brace) = rest.find(['{', '}']) {
                    text.push_str(&rest[..brace]);
                    if let Some(after) = rest[brace..].strip_prefix("{}") {
                        let value = match values.next() {
                            Some(value) => self.expression(value)?,
                            None => return unsupported(at, "this format"),
                        };
                        match value {
                            Value::Text(value) => text.push_str(&value),
                            Value::Number(value) => text.push_str(&value.to_string()),
                            other => return Err(Fault::new(at, format!("{} cannot stand in a format", other.kind()))),
                        }
                        rest = after;
                    } else if rest[brace..].starts_with("{{") || rest[brace..].starts_with("}}") {
                        text.push_str(&rest[brace..=brace]);
                        rest = &rest[brace + 2..];
                    } else {
                        return unsupported(at, "this format");
                    }
                    self.spend(at, text.len() / 16)?;
                }
                text.push_str(rest);
                Ok(Value::Text(text.into()))
            }
            ExprP::ListComprehension(item, first, clauses) => {
                let mut items = Vec::new();
                self.comprehension(item, first, clauses, &mut items)?;
                self.list(items, at)
            }
            ExprP::Call(function, arguments) => {
                let ExprP::Identifier(name) = &function.node else { return unsupported(at, "a method") };
                let mut given = Vec::new();
                for argument in &arguments.args {
                    match &argument.node {
                        ArgumentP::Positional(value) => given.push((None, self.expression(value)?)),
                        ArgumentP::Named(name, value) => {
                            given.push((Some(name.node.as_str()), self.expression(value)?))
                        }
                        ArgumentP::Args(_) | ArgumentP::KwArgs(_) => {
                            return unsupported(begin(argument), "this argument");
                        }
                    }
                }
                self.call(&name.node.ident, given, at)
            }
            ExprP::Lambda(_) => unsupported(at, "`lambda`"),
            ExprP::Dot(..) => unsupported(at, "an attribute"),
            ExprP::Dict(_) | ExprP::DictComprehension(..) => unsupported(at, "a dictionary"),
            _ => unsupported(at, "this expression"),
        }
    }

    fn list(&mut self, items: Vec<Value>, at: usize) -> Result<Value, Fault> {
        self.spend(at, items.len())?;
        let depths = items.iter().map(|item| if let Value::List { depth, .. } = item { *depth } else { 0 });
        let depth = 1 + depths.max().unwrap_or_default();
        if depth > MAX_LISTS {
            return Err(Fault::new(at, format!("lists stand more than {MAX_LISTS} deep in one another")));
        }
        Ok(Value::List { items: Rc::new(items), depth })
    }

    fn items(&mut self, expression: &'a AstExpr) -> Result<Rc<Vec<Value>>, Fault> {
        match self.expression(expression)? {
            Value::List { items, .. } => Ok(items),
            other => Err(Fault::new(begin(expression), format!("{} has no items", other.kind()))),
        }
    }

    fn operation(&mut self, left: &'a AstExpr, operator: BinOp, right: &'a AstExpr, at: usize) -> Result<Value, Fault> {
        let first = self.expression(left)?;
        match (operator, first.is_true()) {
            (BinOp::And, false) | (BinOp::Or, true) => return Ok(first),
            (BinOp::And | BinOp::Or, _) => return self.expression(right),
            _ => {}
        }
        let second = self.expression(right)?;
        match operator {
            BinOp::Add => self.add(&first, &second, at),
            BinOp::Equal => Ok(Value::Bool(self.equal(&first, &second, at)?)),
            BinOp::NotEqual => Ok(Value::Bool(!self.equal(&first, &second, at)?)),
            BinOp::In | BinOp::NotIn => {
                let Value::List { items, .. } = &second else {
                    return Err(Fault::new(at, format!("{} has no items", second.kind())));
                };
                let mut is_in = false;
                for item in items.iter() {
                    is_in = is_in || self.equal(&first, item, at)?;
                }
                Ok(Value::Bool(is_in == (operator == BinOp::In)))
            }
            other => unsupported(at, &format!("`{}`", other.to_string().trim())),
        }
    }

    fn add(&mut self, left: &Value, right: &Value, at: usize) -> Result<Value, Fault> {
        match (left, right) {
            (Value::Text(left), Value::Text(right)) => {
                self.spend(at, (left.len() + right.len()) / 16)?;
                Ok(Value::Text(format!("{left}{right}").into()))
            }
            (Value::List { items: left, .. }, Value::List { items: right, .. }) => {
                self.spend(at, left.len() + right.len())?;
                self.list([left.as_slice(), right.as_slice()].concat(), at)
            }
            (Value::Number(left), Value::Number(right)) => {
                let sum = left.checked_add(*right).map(Value::Number);
                sum.ok_or_else(|| Fault::new(at, "the number is too large"))
            }
            _ => Err(Fault::new(at, format!("{} cannot be added to {}", right.kind(), left.kind()))),
        }
    }

    fn equal(&mut self, left: &Value, right: &Value, at: usize) -> Result<bool, Fault> {
        self.spend(at, 0)?;
        match (left, right) {
            (Value::None, Value::None) => Ok(true),
            (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
            (Value::Number(left), Value::Number(right)) => Ok(left == right),
            (Value::Text(left), Value::Text(right)) => {
                self.spend(at, left.len().min(right.len()) / 16)?;
                Ok(left == right)
            }
            (Value::List { items: left, .. }, Value::List { items: right, .. }) => {
                let mut is_equal = left.len() == right.len();
                for (left, right) in left.iter().zip(right.iter()) {
                    is_equal = is_equal && self.equal(left, right, at)?;
                }
                Ok(is_equal)
            }
            _ => Ok(false),
        }
    }

    fn comprehension(
        &mut self,
        item: &'a AstExpr,
        first: &'a ForClause,
        clauses: &'a [Clause],
        items: &mut Vec<Value>,
    ) -> Result<(), Fault> {
        let at = begin(&first.over);
        for value in self.items(&first.over)?.iter() {
            self.assign(&first.var.node, value.clone(), at)?;
            self.clauses(item, clauses, items)?;
        }
        Ok(())
    }

    fn clauses(&mut self, item: &'a AstExpr, clauses: &'a [Clause], items: &mut Vec<Value>) -> Result<(), Fault> {
        match clauses {
            [] => {
                let value = self.expression(item)?;
                items.push(value);
                Ok(())
            }
            [ClauseP::If(condition), rest @ ..] => {
                if self.expression(condition)?.is_true() {
                    self.clauses(item, rest, items)
                } else {
                    Ok(())
                }
            }
            [ClauseP::For(next), rest @ ..] => self.comprehension(item, next, rest, items),
        }
    }

    fn call(&mut self, name: &str, given: Vec<(Option<&'a str>, Value)>, at: usize) -> Result<Value, Fault> {
        let is_own = self.globals.contains_key(name) || self.calls.last().is_some_and(|names| names.contains_key(name));
        if !is_own {
            self.builder.call(name, given, at)?;
            return Ok(Value::None);
        }
        let number = match self.lookup(name, at)? {
            Value::Function(number) => number,
            other => return Err(Fault::new(at, format!("{} cannot be called", other.kind()))),
        };
        if self.calls.len() >= MAX_CALLS {
            return Err(Fault::new(at, format!("functions call one another more than {MAX_CALLS} deep")));
        }
        let function = &self.functions[number];
        let body = function.body;
        let defaults = function.parameters.iter().filter_map(|(name, default)| Some((*name, default.clone()?)));
        let mut names: BTreeMap<&'a str, Value> = BTreeMap::new();
        for (position, (named, value)) in given.into_iter().enumerate() {
            let known = match named {
                None => function.parameters.get(position),
                Some(named) => function.parameters.iter().find(|(known, _)| *known == named),
            };
            let Some((parameter, _)) = known else {
                return Err(Fault::new(at, format!("\"{}\" is called with too much", shown(name))));
            };
            if names.insert(*parameter, value).is_some() {
                return Err(Fault::new(at, format!("\"{}\" is given twice", shown(parameter))));
            }
        }
        for (parameter, default) in defaults {
            names.entry(parameter).or_insert(default);
        }
        if let Some((missing, _)) = function.parameters.iter().find(|(parameter, _)| !names.contains_key(parameter)) {
            return Err(Fault::new(at, format!("\"{}\" is missing", shown(missing))));
        }
        self.spend(at, names.len())?;
        self.calls.push(names);
        let flow = self.statement(body);
        self.calls.pop();
        match flow? {
            Flow::Return(value) => Ok(value),
            _ => Ok(Value::None),
        }
    }
}

/// Cuts a text of somebody's for a message.
pub(super) fn shown(text: &str) -> String {
    let visible = |character: char| if character.is_control() { '\u{fffd}' } else { character };
    let short: String = text.chars().take(60).map(visible).collect();
    if text.chars().nth(60).is_some() { format!("{short}…") } else { short }
}
