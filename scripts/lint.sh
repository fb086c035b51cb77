#!/usr/bin/env bash
# Formatting, generated SQL, and clippy, warnings being errors.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
"$ROOT/scripts/setup.sh"
use_server
cd "$ROOT"
{ cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1 ||
  die "rustfmt or clippy is missing: rustup component add rustfmt clippy"
cargo fmt --all --check
scripts/install-sql.sh --check
cargo clippy --workspace --all-targets --no-default-features --features "$PG_FEATURE connectors documents code" -- -D warnings
