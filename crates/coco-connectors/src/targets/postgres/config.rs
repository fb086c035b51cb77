//! The options of a server and its user mappings.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::targets::options::{Access, OptionScope, OptionSpec, check_boolean};
use coco_core::change::DeliveryError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// The server's timeouts are 32-bit integers, in milliseconds.
const LONGEST_TIMEOUT: u32 = i32::MAX as u32 / 1000;

pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "host",
        OptionScope::Server,
        "Host name or address, or the directory of a Unix socket.",
    )
    .required()
    .check(host),
    OptionSpec::new("port", OptionScope::Server, "Port; 5432 by default.").check(port),
    OptionSpec::new("dbname", OptionScope::Server, "Database; by default, the name of the user.")
        .check(name),
    OptionSpec::new(
        "sslmode",
        OptionScope::Server,
        "disable, prefer (the default), require, verify-ca or verify-full.",
    )
    .check(sslmode),
    OptionSpec::new(
        "sslrootcert",
        OptionScope::Server,
        "Root certificates (PEM) to trust instead of the system's.",
    )
    .check(certificates),
    OptionSpec::new(
        "connect_timeout",
        OptionScope::Server,
        "Connection timeout in seconds; 10 by default.",
    )
    .check(seconds),
    OptionSpec::new(
        "statement_timeout",
        OptionScope::Server,
        "Timeout of one statement on the server, in seconds; 60 by default.",
    )
    .check(seconds),
    OptionSpec::new("user", OptionScope::UserMapping, "Role to connect as.").required().check(name),
    OptionSpec::new("password", OptionScope::UserMapping, "Password of the role.")
        .secret()
        .check(name),
    OptionSpec::new(
        "password_required",
        OptionScope::UserMapping,
        "false allows owners who are not superusers to connect without a password.",
    )
    .superuser()
    .check(check_boolean),
];

/// The TLS mode of a connection, as in libpq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    fn parse(text: &str) -> Option<SslMode> {
        Some(match text {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => return None,
        })
    }
}

/// The address, database and role of a connection. It contains a password, so it has no `Debug`.
pub struct Config {
    pub host: String,
    pub port: u16,
    pub dbname: String,
    pub sslmode: SslMode,
    /// Root certificates to trust instead of the system's.
    pub roots: Option<Vec<CertificateDer<'static>>>,
    pub connect_timeout: Duration,
    pub statement_timeout: Duration,
    pub user: String,
    pub password: Option<String>,
    /// Whether the server must ask for the password.
    pub must_authenticate: bool,
}

impl Config {
    pub fn new(access: &Access) -> Result<Config, DeliveryError> {
        let Access { server, user: mapping, trusted } = access;
        let missing = |option: &str, of: &str| {
            DeliveryError::server("HV00B", format!("{of} has no option \"{option}\""))
        };
        let wrong = |option: &str| {
            DeliveryError::server(
                "HV024",
                format!("invalid value for the server's option \"{option}\""),
            )
        };
        let timeout = |option: &str, default: Duration| match server.get(option) {
            None => Ok(default),
            Some(text) => {
                seconds(text).map_err(|_| wrong(option))?;
                text.parse().map(Duration::from_secs).map_err(|_| wrong(option))
            }
        };
        let user = mapping.get("user").ok_or_else(|| missing("user", "the user mapping"))?;
        let roots = server.get("sslrootcert").map(parse_certificates).transpose();
        let config = Config {
            host: server.get("host").ok_or_else(|| missing("host", "the server"))?.to_owned(),
            port: server.get("port").map_or(Ok(5432), str::parse).map_err(|_| wrong("port"))?,
            dbname: server.get("dbname").unwrap_or(user).to_owned(),
            sslmode: SslMode::parse(server.get("sslmode").unwrap_or("prefer"))
                .ok_or_else(|| wrong("sslmode"))?,
            roots: roots.map_err(|_| wrong("sslrootcert"))?,
            connect_timeout: timeout("connect_timeout", CONNECT_TIMEOUT)?,
            statement_timeout: timeout("statement_timeout", STATEMENT_TIMEOUT)?,
            user: user.to_owned(),
            password: mapping.get("password").map(str::to_owned),
            must_authenticate: !trusted && mapping.get("password_required") != Some("false"),
        };
        config.checked()
    }

    fn checked(self) -> Result<Config, DeliveryError> {
        if self.roots.is_some() && matches!(self.sslmode, SslMode::Disable | SslMode::Prefer) {
            // These modes do not check the certificate, so the option would have no effect.
            return Err(DeliveryError::server(
                "HV024",
                "the server's option \"sslrootcert\" has no effect with this sslmode",
            )
            .hint("Set sslmode to verify-full, or remove sslrootcert."));
        }
        if self.must_authenticate && self.password.is_none() {
            return Err(DeliveryError::server("2F003", "password is required")
                .detail(
                    "The flow's owner is not a superuser, and the user mapping has no password.",
                )
                .hint(
                    "Set a password with ALTER USER MAPPING … OPTIONS (ADD password '…'), or ask a \
                     superuser to set password_required to false there.",
                ));
        }
        Ok(self)
    }

    /// Reports whether `host` is the directory of a Unix socket.
    pub fn is_local(&self) -> bool {
        self.host.starts_with('/')
    }
}

fn host(value: &str) -> Result<(), String> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | ',');
    match value {
        // A directory may have any name.
        path if path.starts_with('/') && !path.contains('\0') => Ok(()),
        name if name.is_empty() || name.contains(odd) || name.contains('/') => {
            Err("must be one host name, address or directory, not a URL".to_owned())
        }
        _ => Ok(()),
    }
}

fn port(value: &str) -> Result<(), String> {
    match value.parse::<u16>() {
        Ok(port) if port > 0 => Ok(()),
        _ => Err("must be a port, from 1 to 65535".to_owned()),
    }
}

fn name(value: &str) -> Result<(), String> {
    match value.is_empty() || value.contains('\0') {
        true => Err("must not be empty".to_owned()),
        false => Ok(()),
    }
}

fn sslmode(value: &str) -> Result<(), String> {
    SslMode::parse(value)
        .map(|_| ())
        .ok_or_else(|| "must be disable, prefer, require, verify-ca or verify-full".to_owned())
}

fn seconds(value: &str) -> Result<(), String> {
    match value.parse::<u32>() {
        Ok(n) if (1..=LONGEST_TIMEOUT).contains(&n) => Ok(()),
        _ => Err(format!("must be a whole number of seconds, from 1 to {LONGEST_TIMEOUT}")),
    }
}

fn certificates(value: &str) -> Result<(), String> {
    parse_certificates(value).map(|_| ())
}

fn parse_certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match parsed {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err("must be certificates in PEM, as text: -----BEGIN CERTIFICATE----- …".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::options::Options;

    fn options(pairs: &[(&str, &str)]) -> Options {
        Options(pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    fn config(
        server: &[(&str, &str)],
        user: &[(&str, &str)],
        trusted: bool,
    ) -> Result<Config, DeliveryError> {
        Config::new(&Access { server: options(server), user: options(user), trusted })
    }

    #[test]
    fn there_are_defaults() {
        let made = config(&[("host", "db")], &[("user", "ada")], true).expect("a config");
        assert_eq!((made.port, made.dbname.as_str(), made.sslmode), (5432, "ada", SslMode::Prefer));
        assert_eq!((made.connect_timeout.as_secs(), made.statement_timeout.as_secs()), (10, 60));
        assert!(!made.must_authenticate);
    }

    #[test]
    fn who_is_no_superuser_needs_a_password() {
        let host = [("host", "db")];
        let lacking = config(&host, &[("user", "ada")], false).err().expect("an error");
        assert_eq!(lacking.sqlstate, "2F003");
        let with = config(&host, &[("user", "ada"), ("password", "x")], false);
        assert!(with.expect("a config").must_authenticate);
        let excused = config(&host, &[("user", "ada"), ("password_required", "false")], false);
        assert!(!excused.expect("a config").must_authenticate);
    }

    #[test]
    fn options_are_checked() {
        for wrong in ["", "a b", "postgres://db", "ada:secret@db", "a,b"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
        for right in ["db", "db.example.com", "::1", "127.0.0.1", "/var/run/postgresql"] {
            assert!(host(right).is_ok(), "{right}");
        }
        assert!(port("0").is_err() && port("65536").is_err() && port("5433").is_ok());
        assert!(seconds("0").is_err() && seconds("2147484").is_err() && seconds("1").is_ok());
        assert!(sslmode("allow").is_err() && sslmode("verify-full").is_ok());
        assert!(certificates("/etc/ssl/certs/ca.pem").is_err());
        let empty = "-----BEGIN CERTIFICATE-----\n@\n-----END CERTIFICATE-----";
        assert!(certificates(empty).is_err());
    }
}
