//! Tokens read into a tree, by Go's rules (`text/template/parse/parse.go`).

use super::ast::{Branch, Command, Kind, Node, Number, Operand, Pipe, Trees};
use super::functions;
use super::lex::{Item, Token, lex};
use super::quote::{quote, unquote};
use crate::promql::number::parse_go_float;

/// Blocks and parentheses may nest this deep.
const MAX_DEPTH: usize = 100;

/// Reads `text` as the template `name`, with all that it defines.
pub(super) fn parse(name: &str, text: &str) -> Result<Trees, String> {
    let mut parser = Parser {
        name,
        items: lex(text),
        next: 0,
        furthest: 0,
        variables: vec!["$".to_owned()],
        trees: Trees::new(),
        depth: 0,
        loops: 0,
        action_line: 0,
    };
    let root = parser.top()?;
    parser.add(name.to_owned(), root)?;
    Ok(parser.trees)
}

/// How a list ends.
enum End {
    End,
    /// The token after `else`: `if`, `with`, or the end of the action.
    Else(Option<Token>),
}

impl End {
    fn cited(&self) -> &'static str {
        match self {
            End::End => "{{end}}",
            End::Else(_) => "{{else}}",
        }
    }
}

enum Step {
    Node(Node),
    End(End),
}

struct Parser<'n> {
    name: &'n str,
    items: Vec<Item>,
    next: usize,
    furthest: usize,
    variables: Vec<String>,
    trees: Trees,
    depth: usize,
    loops: usize,
    action_line: usize,
}

type Parsed<T> = Result<T, String>;

impl Parser<'_> {
    fn take(&mut self) -> Item {
        // The last item is an end or an error, which stays.
        let index = self.next.min(self.items.len() - 1);
        self.furthest = self.furthest.max(index);
        self.next = index + 1;
        self.items[index].clone()
    }

    fn back(&mut self) {
        self.next -= 1;
    }

    fn peek(&mut self) -> Token {
        let item = self.take();
        self.back();
        item.token
    }

    fn take_word(&mut self) -> Item {
        loop {
            let item = self.take();
            if item.token != Token::Space {
                return item;
            }
        }
    }

    fn peek_word(&mut self) -> Item {
        let item = self.take_word();
        self.back();
        item
    }

    fn error<T>(&self, text: impl std::fmt::Display) -> Parsed<T> {
        Err(format!("template: {}:{}: {text}", self.name, self.items[self.furthest].line))
    }

    fn unexpected<T>(&self, item: &Item, context: &str) -> Parsed<T> {
        if item.token != Token::Error {
            return self.error(format!("unexpected {} in {context}", item.cited()));
        }
        let mut where_ = String::new();
        if self.action_line != 0 && self.action_line != item.line {
            let word = if item.text.ends_with(" action") { "" } else { " in action" };
            where_ = format!("{word} started at {}:{}", self.name, self.action_line);
        }
        self.error(format!("{}{where_}", item.text))
    }

    fn expect(&mut self, token: Token, context: &str) -> Parsed<Item> {
        let item = self.take_word();
        if item.token == token { Ok(item) } else { self.unexpected(&item, context) }
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == MAX_DEPTH {
            return self.error("template nests too deeply");
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn add(&mut self, name: String, list: Vec<Node>) -> Parsed<()> {
        let empty = |list: &[Node]| {
            list.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
        };
        match self.trees.get(&name) {
            Some(old) if !empty(old) => {
                if empty(&list) {
                    return Ok(());
                }
                self.error(format!("template: multiple definition of template {}", quote(&name)))
            }
            _ => {
                self.trees.insert(name, list);
                Ok(())
            }
        }
    }

    fn top(&mut self) -> Parsed<Vec<Node>> {
        let mut list = Vec::new();
        while self.peek() != Token::Eof {
            let start = self.next;
            if self.take().token == Token::LeftDelim && self.take_word().token == Token::Define {
                self.definition()?;
                continue;
            }
            self.next = start;
            match self.text_or_action()? {
                Step::Node(node) => list.push(node),
                Step::End(end) => return self.error(format!("unexpected {}", end.cited())),
            }
        }
        Ok(list)
    }

    /// Runs `read` in a template of its own: no variables, no loops around it.
    fn own_template<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let loops = std::mem::take(&mut self.loops);
        let read = read(self);
        (self.variables, self.loops) = (variables, loops);
        read
    }

    fn definition(&mut self) -> Parsed<()> {
        let context = "define clause";
        let item = self.take_word();
        let name = self.template_name(&item, context)?;
        self.expect(Token::RightDelim, context)?;
        let (list, end) = self.own_template(Self::list)?;
        if !matches!(end, End::End) {
            return self.error(format!("unexpected {} in {context}", end.cited()));
        }
        self.add(name, list)
    }

    fn template_name(&mut self, item: &Item, context: &str) -> Parsed<String> {
        match item.token {
            Token::String | Token::RawString => match unquote(&item.text) {
                Some(name) => Ok(name),
                None => self.error("invalid syntax"),
            },
            _ => self.unexpected(item, context),
        }
    }

    fn list(&mut self) -> Parsed<(Vec<Node>, End)> {
        let mut list = Vec::new();
        while self.peek_word().token != Token::Eof {
            match self.text_or_action()? {
                Step::Node(node) => list.push(node),
                Step::End(end) => return Ok((list, end)),
            }
        }
        self.error("unexpected EOF")
    }

    fn text_or_action(&mut self) -> Parsed<Step> {
        let item = self.take_word();
        match item.token {
            Token::Text => Ok(Step::Node(Node::Text(item.text))),
            Token::LeftDelim => {
                self.action_line = item.line;
                let step = self.nested(Self::action);
                self.action_line = 0;
                step
            }
            _ => self.unexpected(&item, "input"),
        }
    }

    fn action(&mut self) -> Parsed<Step> {
        let item = self.take_word();
        let node = match item.token {
            Token::Block => self.block()?,
            Token::Break | Token::Continue => {
                let word = if item.token == Token::Break { "break" } else { "continue" };
                let end = self.take_word();
                if end.token != Token::RightDelim {
                    return self.unexpected(&end, &format!("{{{{{word}}}}}"));
                }
                if self.loops == 0 {
                    return self.error(format!("{{{{{word}}}}} outside {{{{range}}}}"));
                }
                if item.token == Token::Break { Node::Break } else { Node::Continue }
            }
            Token::Else => {
                let next = self.peek_word();
                if matches!(next.token, Token::If | Token::With) {
                    return Ok(Step::End(End::Else(Some(next.token))));
                }
                self.expect(Token::RightDelim, "else")?;
                return Ok(Step::End(End::Else(None)));
            }
            Token::End => {
                self.expect(Token::RightDelim, "end")?;
                return Ok(Step::End(End::End));
            }
            Token::If => Node::If(self.branch("if")?),
            Token::Range => Node::Range(self.branch("range")?),
            Token::With => Node::With(self.branch("with")?),
            Token::Template => {
                let context = "template clause";
                let item = self.take_word();
                let name = self.template_name(&item, context)?;
                let mut pipe = None;
                if self.take_word().token != Token::RightDelim {
                    self.back();
                    pipe = Some(self.pipe(context, Token::RightDelim)?);
                }
                Node::Template { pos: item.pos, name, pipe }
            }
            _ => {
                self.back();
                let pos = item.pos;
                Node::Action { pos, pipe: self.pipe("command", Token::RightDelim)? }
            }
        };
        Ok(Step::Node(node))
    }

    fn block(&mut self) -> Parsed<Node> {
        let context = "block clause";
        let item = self.take_word();
        let name = self.template_name(&item, context)?;
        let pipe = self.pipe(context, Token::RightDelim)?;
        let (list, end) = self.own_template(Self::list)?;
        if !matches!(end, End::End) {
            return self.error(format!("unexpected {} in {context}", end.cited()));
        }
        self.add(name.clone(), list)?;
        Ok(Node::Template { pos: item.pos, name, pipe: Some(pipe) })
    }

    fn branch(&mut self, context: &str) -> Parsed<Branch> {
        let known = self.variables.len();
        let pipe = self.pipe(context, Token::RightDelim)?;
        self.loops += usize::from(context == "range");
        let list = self.list();
        self.loops -= usize::from(context == "range");
        let (list, end) = list?;
        let mut otherwise = None;
        if let End::Else(next) = end {
            let chained = match (context, next) {
                ("if", Some(Token::If)) => Some("if"),
                ("with", Some(Token::With)) => Some("with"),
                _ => None,
            };
            otherwise = Some(match chained {
                // One `end` closes the whole chain.
                Some(word) => {
                    self.take_word();
                    let branch = self.nested(|parser| parser.branch(word))?;
                    vec![if word == "if" { Node::If(branch) } else { Node::With(branch) }]
                }
                None => {
                    let (list, end) = self.list()?;
                    if !matches!(end, End::End) {
                        return self.error(format!("expected end; found {}", end.cited()));
                    }
                    list
                }
            });
        }
        self.variables.truncate(known);
        Ok(Branch { pos: pipe.pos, pipe, list, otherwise })
    }

    fn pipe(&mut self, context: &str, end: Token) -> Parsed<Pipe> {
        let mut pipe =
            Pipe { pos: self.peek_word().pos, assign: false, variables: Vec::new(), commands: Vec::new() };
        loop {
            let variable = self.peek_word();
            if variable.token != Token::Variable {
                break;
            }
            let start = self.next;
            self.take_word();
            let next = self.peek_word();
            match next.token {
                Token::Assign | Token::Declare => {
                    pipe.assign = next.token == Token::Assign;
                    self.take_word();
                    self.variables.push(variable.text.clone());
                    pipe.variables.push(variable.text);
                    break;
                }
                Token::Char if next.text == "," => {
                    self.take_word();
                    self.variables.push(variable.text.clone());
                    pipe.variables.push(variable.text);
                    if context != "range" || pipe.variables.len() >= 2 {
                        return self.error(format!("too many declarations in {context}"));
                    }
                    let next = self.peek_word().token;
                    if !matches!(next, Token::Variable | Token::RightDelim | Token::RightParen) {
                        return self.error("range can only initialize variables");
                    }
                }
                _ => {
                    self.next = start;
                    break;
                }
            }
        }
        loop {
            let item = self.take_word();
            match item.token {
                token if token == end => break,
                Token::Bool
                | Token::CharConstant
                | Token::Complex
                | Token::Dot
                | Token::Field
                | Token::Identifier
                | Token::Number
                | Token::Nil
                | Token::RawString
                | Token::String
                | Token::Variable
                | Token::LeftParen => {
                    self.back();
                    let command = self.command()?;
                    pipe.commands.push(command);
                }
                _ => return self.unexpected(&item, context),
            }
        }
        if pipe.commands.is_empty() {
            return self.error(format!("missing value for {context}"));
        }
        for (i, command) in pipe.commands.iter().enumerate().skip(1) {
            let kind = &command.args[0].kind;
            if matches!(kind, Kind::Bool(_) | Kind::Dot | Kind::Nil | Kind::Number(_) | Kind::Text(..)) {
                return self.error(format!("non executable command in pipeline stage {}", i + 1));
            }
        }
        Ok(pipe)
    }

    fn command(&mut self) -> Parsed<Command> {
        let mut command = Command { pos: self.peek_word().pos, args: Vec::new() };
        loop {
            self.peek_word();
            if self.peek() == Token::Space {
                self.take();
                continue;
            }
            if let Some(operand) = self.operand()? {
                command.args.push(operand);
            }
            let item = self.take();
            match item.token {
                Token::Space => continue,
                Token::RightDelim | Token::RightParen => self.back(),
                Token::Pipe => {}
                _ => return self.unexpected(&item, "operand"),
            }
            break;
        }
        if command.args.is_empty() {
            return self.error("empty command");
        }
        Ok(command)
    }

    fn operand(&mut self) -> Parsed<Option<Operand>> {
        let Some(mut operand) = self.term()? else { return Ok(None) };
        if self.peek() != Token::Field {
            return Ok(Some(operand));
        }
        let (mut pos, mut fields) = (None, Vec::new());
        while self.peek() == Token::Field {
            let item = self.take();
            pos = pos.or(Some(item.pos));
            fields.push(item.text.trim_start_matches('.').to_owned());
        }
        let pos = pos.unwrap_or(operand.pos);
        match &mut operand.kind {
            Kind::Field(names) | Kind::Variable(_, names) => {
                names.append(&mut fields);
                operand.pos = pos;
            }
            Kind::Bool(_) | Kind::Text(..) | Kind::Number(_) | Kind::Nil | Kind::Dot => {
                return self.error(format!("unexpected . after term {}", quote(&operand.to_string())));
            }
            Kind::Function(_) | Kind::Pipe(_) | Kind::Chain(..) => {
                operand = Operand { pos, kind: Kind::Chain(Box::new(operand), fields) };
            }
        }
        Ok(Some(operand))
    }

    fn term(&mut self) -> Parsed<Option<Operand>> {
        let item = self.take_word();
        let kind = match item.token {
            Token::Identifier => {
                if !functions::exists(&item.text) {
                    return self.error(format!("function {} not defined", quote(&item.text)));
                }
                Kind::Function(item.text)
            }
            Token::Dot => Kind::Dot,
            Token::Nil => Kind::Nil,
            Token::Variable => {
                if !self.variables.contains(&item.text) {
                    return self.error(format!("undefined variable {}", quote(&item.text)));
                }
                Kind::Variable(item.text, Vec::new())
            }
            Token::Field => Kind::Field(vec![item.text.trim_start_matches('.').to_owned()]),
            Token::Bool => Kind::Bool(item.text == "true"),
            Token::CharConstant | Token::Complex | Token::Number => match number(&item) {
                Ok(number) => Kind::Number(number),
                Err(error) => return self.error(error),
            },
            Token::LeftParen => {
                let pipe = self.nested(|parser| parser.pipe("parenthesized pipeline", Token::RightParen))?;
                return Ok(Some(Operand { pos: pipe.pos, kind: Kind::Pipe(pipe) }));
            }
            Token::String | Token::RawString => match unquote(&item.text) {
                Some(text) => Kind::Text(item.text, text),
                None => return self.error("invalid syntax"),
            },
            _ => {
                self.back();
                return Ok(None);
            }
        };
        Ok(Some(Operand { pos: item.pos, kind }))
    }
}

/// A number or character constant. Complex numbers are refused: nothing in a template takes them.
fn number(item: &Item) -> Result<Number, String> {
    let text = item.text.as_str();
    let mut number = Number { text: text.to_owned(), int: None, float: None, unsigned: false };
    if item.token == Token::CharConstant {
        let value = unquote(text).filter(|value| !value.is_empty()).ok_or("invalid syntax")?;
        let mut chars = value.chars();
        let (Some(c), None) = (chars.next(), chars.next()) else {
            return Err(format!("malformed character constant: {text}"));
        };
        (number.int, number.float) = (Some(i64::from(c as u32)), Some(f64::from(c as u32)));
        return Ok(number);
    }
    let illegal = || format!("illegal number syntax: {}", quote(text));
    if item.token == Token::Complex || text.ends_with('i') && !text.contains(['x', 'X']) {
        return Err(illegal());
    }
    match integer(text) {
        Some(value) => {
            number.int = i64::try_from(value).ok();
            number.unsigned = number.int.is_none() && u64::try_from(value).is_ok();
            if number.int.is_some() || number.unsigned {
                number.float = Some(value as f64);
                return Ok(number);
            }
            Err(format!("integer overflow: {}", quote(text)))
        }
        None => {
            let value = parse_go_float(text).map_err(|_| illegal())?;
            if !text.contains(['.', 'e', 'E', 'p', 'P']) {
                return Err(format!("integer overflow: {}", quote(text)));
            }
            number.float = Some(value);
            if value as i64 as f64 == value {
                number.int = Some(value as i64);
            }
            Ok(number)
        }
    }
}

/// An integer as Go's `strconv.ParseInt(text, 0, 64)` reads it, before the check of its size.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    let well_placed = !digits.ends_with('_') && !digits.contains("__");
    let digits = digits.replace('_', "");
    if !well_placed || digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    let value = i128::from_str_radix(&digits, base).unwrap_or(i128::MAX);
    Some(if negative { -value } else { value })
}
