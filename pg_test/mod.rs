//! Suites that run inside a backend; each test rolls back.
