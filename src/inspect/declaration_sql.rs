//! Writes calls of coco's functions as SQL: the statements of `coco.flow_definition`.

use std::fmt::Write as _;

use crate::pg::spi::literal;

/// A call of a function of coco's, with named arguments.
pub struct FunctionCall {
    function: &'static str,
    /// Names of arguments, with their values as SQL.
    arguments: Vec<(&'static str, String)>,
}

impl FunctionCall {
    /// A call for a flow.
    pub fn new(function: &'static str, flow: &str) -> FunctionCall {
        FunctionCall { function, arguments: vec![("flow", literal(flow))] }
    }

    /// Adds an argument, whose value is SQL.
    pub fn add_sql(&mut self, argument: &'static str, value: impl Into<String>) {
        self.arguments.push((argument, value.into()));
    }

    /// Adds an argument of a text or of another type with such a literal.
    pub fn add_text(&mut self, argument: &'static str, value: &str) {
        self.add_sql(argument, literal(value));
    }

    /// Adds an argument that contains SQL.
    pub fn add_query(&mut self, argument: &'static str, text: &str) {
        self.add_sql(argument, dollar_quoted(text));
    }

    /// Adds an argument of type text[].
    pub fn add_names(&mut self, argument: &'static str, names: &[String]) {
        self.add_text(argument, &array_text(names));
    }

    /// Reports whether the call has an argument besides the flow.
    pub fn has_arguments(&self) -> bool {
        self.arguments.len() > 1
    }

    /// Returns the call as a statement.
    pub fn to_sql(&self) -> String {
        let mut sql = format!("SELECT coco.{}(", self.function);
        for (n, (name, value)) in self.arguments.iter().enumerate() {
            let separator = if n == 0 { "" } else { ",\n  " };
            // Writing to a String does not fail.
            let _ = write!(sql, "{separator}{name} => {value}");
        }
        sql + ");\n"
    }
}

/// Quotes a text with a tag that does not end the quotes early.
fn dollar_quoted(text: &str) -> String {
    let tags = std::iter::once("$$".to_owned()).chain((1..).map(|n| format!("$q{n}$")));
    let mut fitting = tags.filter(|tag| format!("{text}{tag}").find(tag) == Some(text.len()));
    let tag = fitting.next().unwrap_or_default();
    format!("{tag}{text}{tag}")
}

/// Returns an array of texts as PostgreSQL reads it.
fn array_text(names: &[String]) -> String {
    let element = |name: &String| {
        let is_plain = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.eq_ignore_ascii_case("null");
        match is_plain {
            true => name.clone(),
            false => format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")),
        }
    };
    let elements: Vec<String> = names.iter().map(element).collect();
    format!("{{{}}}", elements.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_does_not_occur_in_the_text() {
        assert_eq!(dollar_quoted("select 1"), "$$select 1$$");
        assert_eq!(dollar_quoted("select $$a$$"), "$q1$select $$a$$$q1$");
        assert_eq!(dollar_quoted("select a$"), "$q1$select a$$q1$");
        assert_eq!(dollar_quoted("$$ $q1$"), "$q2$$$ $q1$$q2$");
        assert_eq!(dollar_quoted("$$ $q1"), "$q2$$$ $q1$q2$");
    }

    #[test]
    fn names_of_an_array_are_quoted() {
        let names = ["id", "a b", "null", "", "q\"\\"].map(str::to_owned);
        assert_eq!(array_text(&names), r#"{id,"a b","null","","q\"\\"}"#);
    }
}
