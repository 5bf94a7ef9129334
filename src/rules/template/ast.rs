//! The tree of a template, with positions, and its text as errors cite it.

use std::collections::BTreeMap;
use std::fmt;

/// The templates of one text, by name: the text itself and what it defines.
pub(super) type Trees = BTreeMap<String, Vec<Node>>;

/// A byte offset into the text.
pub(super) type Pos = usize;

/// A piece of a template that acts by itself.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action { pos: Pos, pipe: Pipe },
    If(Branch),
    With(Branch),
    Range(Branch),
    Template { pos: Pos, name: String, pipe: Option<Pipe> },
    Break,
    Continue,
}

/// A pipeline that decides which list runs.
#[derive(Debug)]
pub(super) struct Branch {
    pub pos: Pos,
    pub pipe: Pipe,
    pub list: Vec<Node>,
    pub otherwise: Option<Vec<Node>>,
}

/// `$x := a | b`
#[derive(Debug)]
pub(super) struct Pipe {
    pub pos: Pos,
    pub assign: bool,
    pub variables: Vec<String>,
    pub commands: Vec<Command>,
}

/// A function or value with its arguments.
#[derive(Debug)]
pub(super) struct Command {
    pub pos: Pos,
    /// Never empty.
    pub args: Vec<Operand>,
}

/// A word of a command.
#[derive(Debug)]
pub(super) struct Operand {
    pub pos: Pos,
    pub kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Bool(bool),
    Dot,
    Nil,
    Number(Number),
    /// As written, and as meant.
    Text(String, String),
    Function(String),
    /// `.A.B`
    Field(Vec<String>),
    /// `$x.A`: the name with its `$`, the fields.
    Variable(String, Vec<String>),
    Pipe(Pipe),
    /// `(pipe).A`, `function.A`
    Chain(Box<Operand>, Vec<String>),
}

/// A number in the forms that its text allows.
#[derive(Debug)]
pub(super) struct Number {
    pub text: String,
    pub int: Option<i64>,
    pub float: Option<f64>,
    /// It is an integer that only fits without a sign.
    pub unsigned: bool,
}

/// Where an error is: anything that has a position and a text.
#[derive(Clone, Copy)]
pub(super) enum At<'t> {
    Node(&'t Node),
    Pipe(&'t Pipe),
    Command(&'t Command),
    Operand(&'t Operand),
}

impl At<'_> {
    pub(super) fn pos(&self) -> Pos {
        match self {
            At::Node(Node::Action { pos, .. } | Node::Template { pos, .. }) => *pos,
            At::Node(Node::If(branch) | Node::With(branch) | Node::Range(branch)) => branch.pos,
            At::Node(Node::Text(_) | Node::Break | Node::Continue) => 0,
            At::Pipe(pipe) => pipe.pos,
            At::Command(command) => command.pos,
            At::Operand(operand) => operand.pos,
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Node(node) => node.fmt(f),
            At::Pipe(pipe) => pipe.fmt(f),
            At::Command(command) => command.fmt(f),
            At::Operand(operand) => operand.fmt(f),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut branch = |word: &str, branch: &Branch| {
            write!(f, "{{{{{word} {}}}}}", branch.pipe)?;
            branch.list.iter().try_for_each(|node| node.fmt(f))?;
            if let Some(otherwise) = &branch.otherwise {
                f.write_str("{{else}}")?;
                otherwise.iter().try_for_each(|node| node.fmt(f))?;
            }
            f.write_str("{{end}}")
        };
        match self {
            Node::If(b) => branch("if", b),
            Node::With(b) => branch("with", b),
            Node::Range(b) => branch("range", b),
            Node::Text(text) => f.write_str(text),
            Node::Action { pipe, .. } => write!(f, "{{{{{pipe}}}}}"),
            Node::Template { name, pipe, .. } => {
                write!(f, "{{{{template {}", super::quote::quote(name))?;
                if let Some(pipe) = pipe {
                    write!(f, " {pipe}")?;
                }
                f.write_str("}}")
            }
            Node::Break => f.write_str("{{break}}"),
            Node::Continue => f.write_str("{{continue}}"),
        }
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            f.write_str(&self.variables.join(", "))?;
            f.write_str(if self.assign { " = " } else { " := " })?;
        }
        for (i, command) in self.commands.iter().enumerate() {
            f.write_str(if i > 0 { " | " } else { "" })?;
            command.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, arg) in self.args.iter().enumerate() {
            f.write_str(if i > 0 { " " } else { "" })?;
            match &arg.kind {
                Kind::Pipe(pipe) => write!(f, "({pipe})")?,
                _ => arg.fmt(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = |f: &mut fmt::Formatter<'_>, fields: &[String]| {
            fields.iter().try_for_each(|field| write!(f, ".{field}"))
        };
        match &self.kind {
            Kind::Bool(value) => value.fmt(f),
            Kind::Dot => f.write_str("."),
            Kind::Nil => f.write_str("nil"),
            Kind::Number(number) => f.write_str(&number.text),
            Kind::Text(written, _) => f.write_str(written),
            Kind::Function(name) => f.write_str(name),
            Kind::Field(names) => fields(f, names),
            Kind::Variable(name, names) => {
                f.write_str(name)?;
                fields(f, names)
            }
            Kind::Pipe(pipe) => pipe.fmt(f),
            Kind::Chain(base, names) => {
                match &base.kind {
                    Kind::Pipe(pipe) => write!(f, "({pipe})")?,
                    _ => base.fmt(f)?,
                }
                fields(f, names)
            }
        }
    }
}
