//! Options of servers, user mappings and targets, with their checks.

use std::collections::BTreeMap;
use std::fmt;

/// The object that an option belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionScope {
    /// `CREATE SERVER … OPTIONS (…)`
    Server,
    /// `CREATE USER MAPPING … OPTIONS (…)`: the place for secrets.
    UserMapping,
    /// `coco.add_target(…, options => '{…}')`
    Target,
}

/// The specification of an option.
pub struct OptionSpec {
    pub name: &'static str,
    pub scope: OptionScope,
    pub required: bool,
    /// The value never appears in a message.
    pub secret: bool,
    /// Only a superuser may set the option.
    pub superuser: bool,
    /// The option of a target decides which objects the target writes to, so it cannot be altered.
    pub fixed: bool,
    /// Checks a value. The error continues the sentence after the option's name, such as "must be a
    /// URL". If a target option is not a JSON string, the value is its JSON text.
    pub check: fn(&str) -> Result<(), String>,
    /// The purpose of the option, in one sentence.
    pub description: &'static str,
}

impl OptionSpec {
    pub const fn new(
        name: &'static str,
        scope: OptionScope,
        description: &'static str,
    ) -> OptionSpec {
        OptionSpec {
            name,
            scope,
            required: false,
            secret: false,
            superuser: false,
            fixed: false,
            check: accept_any,
            description,
        }
    }

    pub const fn required(mut self) -> OptionSpec {
        self.required = true;
        self
    }

    pub const fn secret(mut self) -> OptionSpec {
        self.secret = true;
        self
    }

    pub const fn superuser(mut self) -> OptionSpec {
        self.superuser = true;
        self
    }

    pub const fn fixed(mut self) -> OptionSpec {
        self.fixed = true;
        self
    }

    pub const fn check(mut self, check: fn(&str) -> Result<(), String>) -> OptionSpec {
        self.check = check;
        self
    }
}

fn accept_any(_: &str) -> Result<(), String> {
    Ok(())
}

/// Checks for `true` or `false`.
pub fn check_boolean(value: &str) -> Result<(), String> {
    match value {
        "true" | "false" => Ok(()),
        _ => Err("must be true or false".to_owned()),
    }
}

/// Checks for a whole number of at least 1.
pub fn check_positive(value: &str) -> Result<(), String> {
    match value.parse::<u32>() {
        Ok(n) if n > 0 => Ok(()),
        _ => Err("must be a whole number greater than 0".to_owned()),
    }
}

/// Checks for a whole number from 0 to 100.
pub fn check_at_most_100(value: &str) -> Result<(), String> {
    match value.parse::<u32>() {
        Ok(n) if n <= 100 => Ok(()),
        _ => Err("must be a whole number from 0 to 100".to_owned()),
    }
}

/// The values of options, by name.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Options(pub BTreeMap<String, String>);

impl Options {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Shows only the names: values may be secrets.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The options and credentials that a role uses for a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    pub server: Options,
    pub user: Options,
    /// Whether the role is a superuser. For other roles, a connector requires that the server
    /// authenticates them. The server must not accept a role because of where the connection comes
    /// from.
    pub trusted: bool,
}
