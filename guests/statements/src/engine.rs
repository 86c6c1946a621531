//! The template engine with what [`crate::outline`] offers, and nothing else registered.

use handlebars::{
    Context, Handlebars, Helper, HelperDef, JsonValue, RenderContext, RenderError, RenderErrorReason, ScopedJson,
    TemplateError, no_escape,
};
use serde_json::Map;

use crate::position;

/// Longer names are cut off by PostgreSQL, and then the lease would name a role that does not exist.
const IDENTIFIER_MAX: usize = 63;

/// What went wrong, and at which byte of the template.
#[derive(Debug)]
pub struct EngineError {
    pub why: String,
    pub offset: usize,
}

/// Renders `text`, which has passed [`crate::outline`], with `values`.
///
/// # Errors
/// What the engine or one of the helpers refuses. The message names no value.
pub fn render(text: &str, values: &[(String, String)]) -> Result<String, EngineError> {
    let mut context = Map::new();
    // The first of two equal keys counts, as in the plain dialect.
    for (key, value) in values.iter().rev() {
        context.insert(key.clone(), JsonValue::String(value.clone()));
    }
    let mut engine = engine();
    engine.register_template_string("statement", text).map_err(|error| unparsed(text, &error))?;
    engine.render("statement", &JsonValue::Object(context)).map_err(|error| unrendered(text, &error))
}

fn engine() -> Handlebars<'static> {
    let mut engine = Handlebars::new();
    engine.register_escape_fn(no_escape);
    engine.set_strict_mode(true);
    for helper in ["each", "with", "lookup", "raw", "log", "len", "ne", "gt", "gte", "lt", "lte"] {
        engine.unregister_helper(helper);
    }
    engine.register_helper("ident", Box::new(Writer(ident)));
    engine.register_helper("literal", Box::new(Writer(literal)));
    engine.register_helper("dollar", Box::new(Writer(dollar)));
    engine
}

fn unparsed(text: &str, error: &TemplateError) -> EngineError {
    let (line, column) = error.pos().unwrap_or((1, 1));
    // `Display` of the error itself would print the lines around it.
    EngineError { why: error.reason().to_string(), offset: position::offset_of(text, line, column) }
}

fn unrendered(text: &str, error: &RenderError) -> EngineError {
    let (line, column) = (error.line_no.unwrap_or(1), error.column_no.unwrap_or(1));
    let why = match error.reason() {
        RenderErrorReason::MissingVariable(Some(name)) => format!("unknown variable `{name}`"),
        RenderErrorReason::Other(why) => why.clone(),
        other => other.to_string(),
    };
    EngineError { why, offset: position::offset_of(text, line, column) }
}

type Write = fn(&str) -> Result<String, &'static str>;

/// A helper that writes its one argument in another form. It answers with a value, so it also works in parentheses.
struct Writer(Write);

impl HelperDef for Writer {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let refused = |why: &str| RenderErrorReason::Other(format!("`{}`: {why}", helper.name()));
        let text = helper
            .param(0)
            .and_then(|parameter| parameter.value().as_str())
            .ok_or_else(|| refused("the argument is not a text"))?;
        let written = (self.0)(text).map_err(refused)?;
        Ok(ScopedJson::Derived(JsonValue::String(written)))
    }
}

/// `"a ""quoted"" name"`.
fn ident(name: &str) -> Result<String, &'static str> {
    match name.len() {
        0 => Err("PostgreSQL knows no empty identifier"),
        1..=IDENTIFIER_MAX if name.contains('\0') => Err("NUL cannot be in an identifier"),
        1..=IDENTIFIER_MAX => Ok(format!("\"{}\"", name.replace('"', "\"\""))),
        _ => Err("PostgreSQL cuts an identifier off after 63 bytes"),
    }
}

/// `'it''s'`, or ` E'a\\b'` when there is a backslash: right whatever `standard_conforming_strings` says. The space
/// keeps the `E` from becoming part of a word before it.
fn literal(text: &str) -> Result<String, &'static str> {
    if text.contains('\0') {
        return Err("NUL cannot be in a text");
    }
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { Ok(format!(" E'{}'", quoted.replace('\\', "\\\\"))) } else { Ok(format!("'{quoted}'")) }
}

/// `$$text$$`, with a tag that the text does not hold when there is a `$` in it.
fn dollar(text: &str) -> Result<String, &'static str> {
    if text.contains('\0') {
        return Err("NUL cannot be in a text");
    }
    if !text.contains('$') {
        return Ok(format!("$${text}$$"));
    }
    // One of more tags than the text has dollar signs is free.
    let signs = text.bytes().filter(|&byte| byte == b'$').count();
    (0..=signs)
        .map(|number| format!("$q{number}"))
        .find(|tag| !text.contains(tag.as_str()))
        .map(|tag| format!("{tag}${text}{tag}$"))
        .ok_or("no free tag")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_quoted_and_never_cut_off() {
        assert_eq!(ident("a\"b").as_deref(), Ok("\"a\"\"b\""));
        assert!(ident("").is_err() && ident("a\0").is_err() && ident(&"x".repeat(64)).is_err());
        assert!(ident(&"x".repeat(63)).is_ok());
    }

    #[test]
    fn a_literal_ends_where_it_should() {
        assert_eq!(literal("it's").as_deref(), Ok("'it''s'"));
        assert_eq!(literal(r"a\'b").as_deref(), Ok(r" E'a\\''b'"));
        assert!(literal("\0").is_err());
    }

    #[test]
    fn a_dollar_tag_is_never_in_the_text() {
        assert_eq!(dollar("a").as_deref(), Ok("$$a$$"));
        assert_eq!(dollar("a$").as_deref(), Ok("$q0$a$$q0$"));
        assert_eq!(dollar("$q0$ $q1").as_deref(), Ok("$q2$$q0$ $q1$q2$"));
    }
}
