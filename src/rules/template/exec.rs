//! Walks a template's tree and writes its output (`text/template/exec.go`).

use super::ast::{At, Branch, Command, Kind, Node, Operand, Pipe, Trees};
use super::functions::{self, Param, World};
use super::quote::quote;
use super::value::{Alert, Value};
use super::{Data, Limits, Queries, methods, printf};
use std::rc::Rc;
use std::time::Instant;

/// Lists and pipelines may nest this deep, over all templates that call each other.
const MAX_DEPTH: usize = 200;

/// Who works on longer texts looks at the clock each time; others only now and then, so that what is short
/// does not fail because the machine is busy.
const LONG_TEXT_BYTES: usize = 1 << 10;

/// Expands the template `name`; the error's text names the place.
pub(super) fn run(
    name: &str,
    text: &str,
    trees: &Trees,
    data: &Data,
    queries: &mut Queries<'_>,
    limits: Limits,
) -> Result<String, String> {
    let alert = Rc::new(Alert {
        labels: functions::labels(&data.labels),
        external_labels: functions::labels(&data.external_labels),
        external_url: Rc::from(data.external_url.as_str()),
        value: data.value,
        now_ms: data.now_ms,
    });
    let dot = Value::Alert(alert.clone());
    let mut run = Run {
        parsed_as: name,
        template: name,
        text,
        trees,
        at: None,
        variables: vec![("$", dot.clone())],
        out: String::new(),
        world: World { alert, queries, limits },
        steps: 0,
        depth: 0,
    };
    let list = trees.get(name).map(Vec::as_slice).unwrap_or_default();
    run.list(&dot, list)?;
    Ok(run.out)
}

/// How a list ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Through,
    Break,
    Continue,
}

struct Run<'t, 'w, 'q> {
    /// The name the whole text was parsed as.
    parsed_as: &'t str,
    /// The template that runs.
    template: &'t str,
    text: &'t str,
    trees: &'t Trees,
    /// What errors cite.
    at: Option<At<'t>>,
    variables: Vec<(&'t str, Value)>,
    out: String,
    world: World<'w, 'q>,
    steps: u64,
    depth: usize,
}

/// A failed evaluation: its whole text.
type Evaluated<T> = Result<T, String>;

impl<'t> Run<'t, '_, '_> {
    fn error<T>(&self, text: impl std::fmt::Display) -> Evaluated<T> {
        let Some(at) = self.at else {
            return Err(format!("template: {}: {text}", self.template));
        };
        let before = self.text.get(..at.pos()).unwrap_or_default();
        let line = 1 + before.bytes().filter(|b| *b == b'\n').count();
        let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1);
        Err(format!(
            "template: {}:{line}:{column}: executing {} at <{at}>: {text}",
            self.parsed_as,
            quote(self.template)
        ))
    }

    fn step(&mut self) -> Evaluated<()> {
        self.steps += 1;
        if self.steps > self.world.limits.steps {
            return self.error(format!("exceeded {} steps", self.world.limits.steps));
        }
        if self.steps.is_multiple_of(128) { self.look_at_the_clock() } else { Ok(()) }
    }

    fn look_at_the_clock(&self) -> Evaluated<()> {
        let late = |deadline: Instant| Instant::now() >= deadline;
        match self.world.limits.deadline.is_some_and(late) {
            true => self.error("exceeded the time for templates"),
            false => Ok(()),
        }
    }

    fn write(&mut self, text: &str) -> Evaluated<()> {
        if self.out.len() + text.len() > self.world.limits.output_bytes {
            return self.error(format!("the output exceeds {} bytes", self.world.limits.output_bytes));
        }
        self.out.push_str(text);
        Ok(())
    }

    /// Walks the nodes; variables they declare last until the list ends.
    fn list(&mut self, dot: &Value, list: &'t [Node]) -> Evaluated<Flow> {
        self.enter()?;
        let mut flow = Flow::Through;
        for node in list {
            flow = self.node(dot, node)?;
            if flow != Flow::Through {
                break;
            }
        }
        self.depth -= 1;
        Ok(flow)
    }

    /// Goes one level deeper. An error ends the expansion, so that only success comes back up.
    fn enter(&mut self) -> Evaluated<()> {
        if self.depth == MAX_DEPTH {
            return self.error(format!("exceeded maximum template depth ({MAX_DEPTH})"));
        }
        self.depth += 1;
        Ok(())
    }

    fn node(&mut self, dot: &Value, node: &'t Node) -> Evaluated<Flow> {
        self.step()?;
        match node {
            Node::Text(text) => self.write(text)?,
            Node::Action { pipe, .. } => {
                self.at = Some(At::Node(node));
                let value = self.pipe(dot, pipe)?;
                if pipe.variables.is_empty() {
                    self.at = Some(At::Node(node));
                    match &value {
                        Value::Text(text) => self.write(text)?,
                        value => self.write(&printf::shown(std::slice::from_ref(value)))?,
                    }
                }
            }
            Node::If(branch) | Node::With(branch) => {
                self.at = Some(At::Node(node));
                let mark = self.variables.len();
                let value = self.pipe(dot, &branch.pipe)?;
                let flow = match (&branch.otherwise, value.truth()) {
                    (_, true) if matches!(node, Node::With(_)) => self.list(&value, &branch.list)?,
                    (_, true) => self.list(dot, &branch.list)?,
                    (Some(otherwise), false) => self.list(dot, otherwise)?,
                    (None, false) => Flow::Through,
                };
                self.variables.truncate(mark);
                return Ok(flow);
            }
            Node::Range(branch) => {
                self.at = Some(At::Node(node));
                let mark = self.variables.len();
                let flow = self.range(dot, branch)?;
                self.variables.truncate(mark);
                return Ok(flow);
            }
            Node::Template { name, pipe, .. } => {
                self.at = Some(At::Node(node));
                self.call_template(dot, name, pipe.as_ref())?;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Through)
    }

    fn range(&mut self, dot: &Value, branch: &'t Branch) -> Evaluated<Flow> {
        let value = self.pipe(dot, &branch.pipe)?;
        let mark = self.variables.len();
        let elements: Box<dyn Iterator<Item = (Value, Value)>> = match &value {
            Value::Samples(samples) => {
                Box::new((0i64..).map(Value::Int).zip(samples.iter().cloned().map(Value::Sample)))
            }
            Value::Labels(map) => {
                let pairs: Vec<_> = map.iter().map(|(k, v)| (Value::text(k), Value::text(v))).collect();
                Box::new(pairs.into_iter())
            }
            Value::Args(args) => {
                let pairs: Vec<_> = args.values.iter().map(|(k, v)| (Value::text(k), v.clone())).collect();
                Box::new(pairs.into_iter())
            }
            Value::Int(_) if branch.pipe.variables.len() > 1 => {
                let shown = printf::print(&[value]);
                return self.error(format!("can't use {shown} to iterate over more than one variable"));
            }
            Value::Int(count) => Box::new((0..*count).map(|i| (Value::Int(i), Value::Int(i)))),
            Value::Nil => Box::new(std::iter::empty()),
            other => {
                let shown = printf::print(std::slice::from_ref(other));
                return self.error(format!("range can't iterate over {shown}"));
            }
        };
        let mut ran = false;
        for (index, element) in elements {
            ran = true;
            self.step()?;
            match branch.pipe.variables.as_slice() {
                [] => {}
                [only] => self.loop_variable(branch, only, 1, element.clone())?,
                [first, second, ..] => {
                    self.loop_variable(branch, second, 1, element.clone())?;
                    self.loop_variable(branch, first, 2, index)?;
                }
            }
            let flow = self.list(&element, &branch.list)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        match &branch.otherwise {
            Some(otherwise) if !ran => self.list(dot, otherwise),
            _ => Ok(Flow::Through),
        }
    }

    /// Sets a variable of a loop: by name with `=`, the `from_top`-th of the stack with `:=`.
    fn loop_variable(&mut self, branch: &Branch, name: &str, from_top: usize, value: Value) -> Evaluated<()> {
        if branch.pipe.assign {
            return self.assign(name, value);
        }
        if let Some(slot) = self.variables.iter_mut().rev().nth(from_top - 1) {
            slot.1 = value;
        }
        Ok(())
    }

    fn call_template(&mut self, dot: &Value, name: &'t str, pipe: Option<&'t Pipe>) -> Evaluated<()> {
        let Some(list) = self.trees.get(name) else {
            return self.error(format!("template {} not defined", quote(name)));
        };
        let dot = match pipe {
            Some(pipe) => self.pipe(dot, pipe)?,
            None => Value::Nil,
        };
        let variables = std::mem::replace(&mut self.variables, vec![("$", dot.clone())]);
        let template = std::mem::replace(&mut self.template, name);
        self.list(&dot, list)?;
        (self.variables, self.template) = (variables, template);
        Ok(())
    }

    fn assign(&mut self, name: &str, value: Value) -> Evaluated<()> {
        match self.variables.iter_mut().rev().find(|(known, _)| *known == name) {
            Some(slot) => {
                slot.1 = value;
                Ok(())
            }
            None => self.error(format!("undefined variable: {name}")),
        }
    }

    fn pipe(&mut self, dot: &Value, pipe: &'t Pipe) -> Evaluated<Value> {
        self.at = Some(At::Pipe(pipe));
        self.enter()?;
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(dot, command, value)?);
        }
        self.depth -= 1;
        let value = value.unwrap_or(Value::Nil);
        for name in &pipe.variables {
            if pipe.assign {
                self.assign(name, value.clone())?;
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    fn command(&mut self, dot: &Value, command: &'t Command, last: Option<Value>) -> Evaluated<Value> {
        self.step()?;
        let Some((first, args)) = command.args.split_first() else { return Ok(Value::Nil) };
        match &first.kind {
            Kind::Field(names) => {
                self.at = Some(At::Operand(first));
                self.fields(dot, dot.clone(), first, names, args, last)
            }
            Kind::Chain(base, names) => {
                self.at = Some(At::Operand(first));
                let receiver = self.argument(dot, Param::Any, base)?;
                self.fields(dot, receiver, first, names, args, last)
            }
            Kind::Function(name) => {
                self.at = Some(At::Operand(first));
                self.call(dot, name, At::Command(command), args, last)
            }
            Kind::Pipe(pipe) => {
                self.no_function(first, args, &last)?;
                self.pipe(dot, pipe)
            }
            Kind::Variable(name, names) => self.variable(dot, first, name, names, args, last),
            Kind::Nil => {
                self.at = Some(At::Operand(first));
                self.no_function(first, args, &last)?;
                self.error("nil is not a command")
            }
            Kind::Bool(_) | Kind::Dot | Kind::Number(_) | Kind::Text(..) => {
                self.at = Some(At::Operand(first));
                self.no_function(first, args, &last)?;
                self.literal(dot, first)
            }
        }
    }

    fn no_function(&self, first: &Operand, args: &[Operand], last: &Option<Value>) -> Evaluated<()> {
        if args.is_empty() && last.is_none() {
            return Ok(());
        }
        self.error(format!("can't give argument to non-function {first}"))
    }

    fn variable(
        &mut self,
        dot: &Value,
        operand: &'t Operand,
        name: &str,
        names: &'t [String],
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Evaluated<Value> {
        self.at = Some(At::Operand(operand));
        let Some(value) = self.variables.iter().rev().find(|(known, _)| *known == name) else {
            return self.error(format!("undefined variable: {name}"));
        };
        let value = value.1.clone();
        if names.is_empty() {
            self.no_function(operand, args, &last)?;
            return Ok(value);
        }
        self.fields(dot, value, operand, names, args, last)
    }

    fn literal(&mut self, dot: &Value, operand: &'t Operand) -> Evaluated<Value> {
        Ok(match &operand.kind {
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Dot => dot.clone(),
            Kind::Text(_, text) => Value::text(text),
            Kind::Number(number) => {
                let text = number.text.as_str();
                let hexadecimal = text.starts_with("0x") || text.starts_with("0X");
                let fraction = !text.starts_with('\'')
                    && (!hexadecimal || text.contains(['p', 'P']))
                    && text.contains(['.', 'e', 'E', 'p', 'P']);
                match (number.int, number.float) {
                    (_, Some(float)) if fraction => Value::Float(float),
                    (Some(int), _) => Value::Int(int),
                    _ => return self.error(format!("{text} overflows int")),
                }
            }
            _ => Value::Nil,
        })
    }

    /// `.A.B args`: the last field gets the arguments.
    fn fields(
        &mut self,
        dot: &Value,
        mut receiver: Value,
        operand: &'t Operand,
        names: &'t [String],
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Evaluated<Value> {
        let Some((final_name, names)) = names.split_last() else { return Ok(receiver) };
        for name in names {
            receiver = self.field(dot, receiver, operand, name, &[], None)?;
        }
        self.field(dot, receiver, operand, final_name, args, last)
    }

    fn field(
        &mut self,
        dot: &Value,
        receiver: Value,
        operand: &'t Operand,
        name: &'t str,
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Evaluated<Value> {
        if let Some((params, method)) = methods::method(&receiver, name) {
            let args = self.arguments(dot, name, params, false, args, last)?;
            return Ok(method(&receiver, &args));
        }
        let has_arguments = !args.is_empty() || last.is_some();
        let found = match (&receiver, name) {
            (Value::Nil, _) => return Ok(Value::Nil),
            (Value::Alert(alert), "Labels") => Value::Labels(alert.labels.clone()),
            (Value::Alert(alert), "ExternalLabels") => Value::Labels(alert.external_labels.clone()),
            (Value::Alert(alert), "ExternalURL") => Value::Text(alert.external_url.clone()),
            (Value::Alert(alert), "Value") => Value::Float(alert.value),
            (Value::Sample(sample), "Labels") => Value::Labels(sample.labels.clone()),
            (Value::Sample(sample), "Value") => Value::Float(sample.value),
            (Value::Labels(_) | Value::Args(_), _) if has_arguments => {
                self.at = Some(At::Operand(operand));
                return self.error(format!("{name} is not a method but has arguments"));
            }
            // A key that is missing gives the zero value (`missingkey=zero`).
            (Value::Labels(map), _) => return Ok(Value::text(map.get(name).map_or("", String::as_str))),
            (Value::Args(map), _) => return Ok(map.values.get(name).cloned().unwrap_or(Value::Nil)),
            (other, _) => {
                let name_of_type = other.type_name();
                return self.error(format!("can't evaluate field {name} in type {name_of_type}"));
            }
        };
        if has_arguments {
            return self.error(format!("{name} has arguments but cannot be invoked as function"));
        }
        Ok(found)
    }

    fn call(
        &mut self,
        dot: &Value,
        name: &'t str,
        cited: At<'t>,
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Evaluated<Value> {
        let Some(function) = functions::find(name) else {
            return self.error(format!("{} is not a defined function", quote(name)));
        };
        if matches!(name, "and" | "or") {
            if args.is_empty() && last.is_none() {
                return self.error(format!("wrong number of args for {name}: want at least 1 got 0"));
            }
            let mut value = Value::Nil;
            for arg in args {
                value = self.argument(dot, Param::Any, arg)?;
                if value.truth() == (name == "or") {
                    return Ok(value);
                }
            }
            return Ok(last.unwrap_or(value));
        }
        let args = self.arguments(dot, name, function.params, function.variadic, args, last)?;
        let is_long = |value: &Value| matches!(value, Value::Text(text) if text.len() > LONG_TEXT_BYTES);
        if matches!(name, "query" | "match" | "reReplaceAll") || args.iter().any(is_long) {
            self.look_at_the_clock()?;
        }
        let value = match (function.run)(&mut self.world, &args) {
            Ok(value) => value,
            Err(error) => {
                self.at = Some(cited);
                return self.error(format!("error calling {name}: {error}"));
            }
        };
        let limit = self.world.limits.output_bytes;
        if matches!(&value, Value::Text(text) if text.len() > limit) {
            self.at = Some(cited);
            return self.error(format!("error calling {name}: the text exceeds {limit} bytes"));
        }
        Ok(value)
    }

    fn arguments(
        &mut self,
        dot: &Value,
        name: &str,
        params: &'static [Param],
        variadic: bool,
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Evaluated<Vec<Value>> {
        let given = args.len() + usize::from(last.is_some());
        let fixed = params.len() - usize::from(variadic);
        if variadic && given < fixed {
            let got = args.len();
            return self.error(format!("wrong number of args for {name}: want at least {fixed} got {got}"));
        }
        if !variadic && given != fixed {
            return self.error(format!("wrong number of args for {name}: want {fixed} got {given}"));
        }
        let param = |i: usize| params.get(i).or(params.last()).copied().unwrap_or(Param::Any);
        let mut values = Vec::with_capacity(given);
        for (i, arg) in args.iter().enumerate() {
            values.push(self.argument(dot, param(i), arg)?);
        }
        if let Some(last) = last {
            values.push(self.check(last, param(args.len()))?);
        }
        Ok(values)
    }

    fn argument(&mut self, dot: &Value, param: Param, arg: &'t Operand) -> Evaluated<Value> {
        self.step()?;
        self.at = Some(At::Operand(arg));
        let value = match &arg.kind {
            Kind::Dot => dot.clone(),
            Kind::Nil if param.takes_nil() => return Ok(Value::Nil),
            Kind::Nil => return self.error(format!("cannot assign nil to {}", param.type_name())),
            Kind::Field(names) => self.fields(dot, dot.clone(), arg, names, &[], None)?,
            Kind::Variable(name, names) => self.variable(dot, arg, name, names, &[], None)?,
            Kind::Pipe(pipe) => {
                // Variables declared in parentheses stay until the enclosing list ends, as in Go.
                self.pipe(dot, pipe)?
            }
            Kind::Function(name) => self.call(dot, name, At::Operand(arg), &[], None)?,
            Kind::Chain(base, names) => {
                let receiver = self.argument(dot, Param::Any, base)?;
                self.fields(dot, receiver, arg, names, &[], None)?
            }
            Kind::Bool(_) | Kind::Number(_) | Kind::Text(..) => {
                return match (param, &arg.kind) {
                    (Param::Any, _) | (Param::Text, Kind::Text(..)) => self.literal(dot, arg),
                    (Param::Text, _) => self.error(format!("expected string; found {arg}")),
                    _ => self.error(format!("can't handle {arg} for arg of type {}", param.type_name())),
                };
            }
        };
        self.check(value, param)
    }

    /// Checks a value against a parameter's type.
    fn check(&self, value: Value, param: Param) -> Evaluated<Value> {
        match (param, &value) {
            (Param::Any, _)
            | (Param::Text, Value::Text(_))
            | (Param::Samples, Value::Samples(_))
            | (Param::Sample, Value::Sample(_)) => Ok(value),
            (_, Value::Nil) if param.takes_nil() => Ok(value),
            (_, Value::Nil) => self.error(format!("invalid value; expected {}", param.type_name())),
            (_, other) => self.error(format!(
                "wrong type for value; expected {}; got {}",
                param.type_name(),
                other.type_name()
            )),
        }
    }
}
