//! Parses names as Postgres does, and quotes them.

/// Maximum bytes of a name. Postgres truncates longer names without an error.
const LONGEST: usize = 63;

/// A target's name: a table, and its schema if given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub schema: Option<String>,
    pub table: String,
}

/// Parses `table` or `schema.table`. Unquoted names are folded to lower case.
pub fn target(given: &str) -> Result<Name, String> {
    let wrong = || {
        format!(
            "target {given:?} is not a table's name: write table or schema.table, and names with other than lower-case letters, digits and _ in double quotes"
        )
    };
    let (first, rest) = identifier(given.trim_start()).ok_or_else(wrong)?;
    let name = match rest.trim_start().strip_prefix('.') {
        None if rest.trim().is_empty() => Name { schema: None, table: first },
        None => return Err(wrong()),
        Some(rest) => {
            let (second, rest) = identifier(rest.trim_start()).ok_or_else(wrong)?;
            if !rest.trim().is_empty() {
                return Err(wrong());
            }
            Name { schema: Some(first), table: second }
        }
    };
    for part in name.schema.iter().chain([&name.table]) {
        if part.len() > LONGEST {
            return Err(format!("target name {} is over {LONGEST} bytes", quoted(part)));
        }
    }
    Ok(name)
}

/// Returns the identifier at the beginning of a text, and the text after it.
pub fn identifier(text: &str) -> Option<(String, &str)> {
    match text.strip_prefix('"') {
        Some(text) => quoted_identifier(text),
        None => {
            let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
            let part = |c: char| letter(c) || c.is_ascii_digit() || c == '$';
            let (name, rest) = text.split_at(text.find(|c| !part(c)).unwrap_or(text.len()));
            name.starts_with(letter).then(|| (name.to_ascii_lowercase(), rest))
        }
    }
}

/// Parses the rest of an identifier after its opening quote.
fn quoted_identifier(mut text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    loop {
        let (before, after) = text.split_once('"')?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                text = after;
            }
            None => return (!name.is_empty() && !name.contains('\0')).then_some((name, after)),
        }
    }
}

/// Returns an identifier in double quotes.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(schema: Option<&str>, table: &str) -> Result<Name, String> {
        Ok(Name { schema: schema.map(str::to_owned), table: table.to_owned() })
    }

    #[test]
    fn names_are_read_as_in_sql() {
        assert_eq!(target("Docs"), name(None, "docs"));
        assert_eq!(target(" app . Docs_2 "), name(Some("app"), "docs_2"));
        assert_eq!(target(r#""My App"."a.b""#), name(Some("My App"), "a.b"));
        assert_eq!(target(r#""say ""hi""""#), name(None, r#"say "hi""#));
        assert_eq!(target("größe$1"), name(None, "größe$1"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in [
            "", ".", "a.", ".a", "a b", "a.b.c", "1a", "a-b", r#"""#, r#""""#, r#""a"#, r#""a"b"#,
            "a;",
        ] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
        assert!(target(&"x".repeat(63)).is_ok());
        assert!(target(&"x".repeat(64)).is_err());
        assert!(target(&format!("{}.t", "ä".repeat(32))).is_err());
    }

    #[test]
    fn quoting_comes_back_the_same() {
        for odd in ["a", "A b", "\"", "a\"\"b", "ü.ö"] {
            assert_eq!(identifier(&quoted(odd)), Some((odd.to_owned(), "")));
        }
    }
}
