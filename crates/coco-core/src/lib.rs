//! The rules coco decides by: pure Rust, without Postgres and without I/O.
