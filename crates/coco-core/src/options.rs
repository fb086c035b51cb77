//! Options of servers, user mappings and targets: which there are, and what they must look like.

use std::collections::BTreeMap;
use std::fmt;

/// Where an option is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionScope {
    /// `CREATE SERVER … OPTIONS (…)`
    Server,
    /// `CREATE USER MAPPING … OPTIONS (…)`: where secrets belong.
    UserMapping,
    /// `coco.add_target(…, options => '{…}')`
    Target,
}

/// An option.
pub struct OptionSpec {
    pub name: &'static str,
    pub scope: OptionScope,
    pub required: bool,
    /// Never shown in a message.
    pub secret: bool,
    /// Can be given by a superuser alone.
    pub superuser: bool,
    /// What is wrong with a value, if anything is: a part of a sentence after the option's name,
    /// such as "must be a URL". A target option that is no JSON string is given as JSON text.
    pub check: fn(&str) -> Result<(), String>,
    /// What it is for, in a sentence.
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

    pub const fn check(mut self, check: fn(&str) -> Result<(), String>) -> OptionSpec {
        self.check = check;
        self
    }
}

fn accept_any(_: &str) -> Result<(), String> {
    Ok(())
}

/// `true` or `false`.
pub fn check_boolean(value: &str) -> Result<(), String> {
    match value {
        "true" | "false" => Ok(()),
        _ => Err("must be true or false".to_owned()),
    }
}

/// A whole number that is at least 1.
pub fn check_positive(value: &str) -> Result<(), String> {
    match value.parse::<u32>() {
        Ok(n) if n > 0 => Ok(()),
        _ => Err("must be a whole number above 0".to_owned()),
    }
}

/// A whole number up to 100.
pub fn check_at_most_100(value: &str) -> Result<(), String> {
    match value.parse::<u32>() {
        Ok(n) if n <= 100 => Ok(()),
        _ => Err("must be a whole number from 0 to 100".to_owned()),
    }
}

/// Values of options, by name.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Options(pub BTreeMap<String, String>);

impl Options {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Values may be secrets: the names alone are shown.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a role may reach a server with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    pub server: Options,
    pub user: Options,
    /// The role is a superuser. Of others a connector asks that they prove who they are to the
    /// server: they must not be let in for where the connection comes from.
    pub trusted: bool,
}
