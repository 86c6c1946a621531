//! What a template makes.

use super::functions::{self, Random};
use super::parse::{Command, Operand, Piece, Pipeline, Place, Template, Term};

pub(super) struct Facts<'a> {
    pub display_name: String,
    pub role_name: String,
    pub now_millis: u64,
    pub randomness: &'a [u8],
}

pub(super) struct Name {
    pub text: String,
    /// What was drawn at random for it, in order.
    pub drawn: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Int(i64),
    Float(String),
}

impl Value {
    /// As Go prints it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) | Self::Float(text) => text.clone(),
            Self::Int(number) => number.to_string(),
        }
    }
}

/// Why a template makes nothing, and where, as Go says it.
#[derive(Debug)]
pub(super) struct Failed {
    pub line: usize,
    pub column: usize,
    pub source: String,
    pub why: String,
}

impl Failed {
    fn at(place: &Place, why: String) -> Self {
        Self { line: place.line, column: place.column, source: place.source.clone(), why }
    }
}

pub(super) fn evaluate(template: &Template, facts: &Facts<'_>) -> Result<Name, Failed> {
    let mut scene = Scene { facts, random: Random::new(facts.randomness) };
    let mut text = String::new();
    for piece in &template.pieces {
        match piece {
            Piece::Text(plain) => text.push_str(plain),
            Piece::Action(pipeline) => text.push_str(&scene.pipeline(pipeline)?.shown()),
        }
    }
    Ok(Name { text, drawn: scene.random.drawn })
}

struct Scene<'a> {
    facts: &'a Facts<'a>,
    random: Random<'a>,
}

impl Scene<'_> {
    fn pipeline(&mut self, pipeline: &Pipeline) -> Result<Value, Failed> {
        let mut result = None;
        for command in &pipeline.commands {
            result = Some(self.command(command, result)?);
        }
        Ok(result.unwrap_or(Value::Text(String::new())))
    }

    fn command(&mut self, command: &Command, piped: Option<Value>) -> Result<Value, Failed> {
        let Some((first, rest)) = command.operands.split_first() else { return Ok(Value::Text(String::new())) };
        let Term::Function(name) = &first.value else {
            return match rest.first() {
                Some(_) => {
                    Err(Failed::at(&first.place, format!("can't give argument to non-function {}", first.place.source)))
                }
                None => self.operand(first),
            };
        };
        let given = rest.len() + usize::from(piped.is_some());
        let (least, most) = functions::arity(name).unwrap_or((0, 0));
        if given < least || given > most {
            let wanted = if most == usize::MAX { format!("at least {least}") } else { least.to_string() };
            return Err(Failed::at(
                &first.place,
                format!("wrong number of args for {name}: want {wanted} got {given}"),
            ));
        }
        let mut arguments = Vec::with_capacity(given);
        for operand in rest {
            arguments.push((self.operand(operand)?, operand.place.clone()));
        }
        if let Some(piped) = piped {
            arguments.push((piped, command.place.clone()));
        }
        functions::call(name, &arguments, self.facts.now_millis, &mut self.random).map_err(|failed| match failed {
            functions::Failed::Argument(at, why) => {
                let place = arguments.get(at).map_or(&command.place, |(_, place)| place);
                Failed::at(place, why)
            }
            functions::Failed::Call(why) => Failed::at(&command.place, format!("error calling {name}: {why}")),
        })
    }

    fn operand(&mut self, operand: &Operand) -> Result<Value, Failed> {
        Ok(match &operand.value {
            Term::Text(text) => Value::Text(text.clone()),
            Term::Int(number) => Value::Int(*number),
            Term::Float(number) => Value::Float(number.clone()),
            Term::Nested(pipeline) => self.pipeline(pipeline)?,
            Term::Function(name) => {
                let command = Command {
                    operands: vec![Operand { value: Term::Function(name.clone()), place: operand.place.clone() }],
                    place: operand.place.clone(),
                };
                self.command(&command, None)?
            }
            Term::Field(names) => {
                let (first, more) =
                    names.split_first().map_or(("", None), |(first, rest)| (first.as_str(), rest.first()));
                let value = match first {
                    "DisplayName" => self.facts.display_name.clone(),
                    "RoleName" => self.facts.role_name.clone(),
                    other => {
                        let why = format!("can't evaluate field {other} in type dbplugin.UsernameMetadata");
                        return Err(Failed::at(&operand.place, why));
                    }
                };
                if let Some(more) = more {
                    // Go says where the last of the names begins.
                    let before: usize = names.iter().rev().skip(1).map(|name| name.len() + 1).sum();
                    let place = Place { column: operand.place.column + before, ..operand.place.clone() };
                    return Err(Failed::at(&place, format!("can't evaluate field {more} in type string")));
                }
                Value::Text(value)
            }
        })
    }
}
