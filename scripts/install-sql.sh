#!/usr/bin/env bash
# Generates sql/install/coco--VERSION.sql, the script that CREATE EXTENSION runs, from the files of sql/ in the order in
# which src/lib.rs names them.
#   install-sql.sh           write it
#   install-sql.sh --check   compare it with what would be written
#   install-sql.sh --pgrx    compare its statements with those that cargo-pgrx generates from the library
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
version=$(sed -n "s/^default_version *= *'\(.*\)'/\1/p" coco.control)
script=sql/install/coco--$version.sql

generate() {
  local file
  printf '%s\n' '\echo Use "CREATE EXTENSION coco" to load this file. \quit' \
    '-- Generated from sql/ by make install-sql. Change the files there.' ''
  # The statement that creates the schemas comes first; it is a string in src/lib.rs.
  sed -n 's/^ *"\(create schema .*\)",$/\1/p' src/lib.rs
  while read -r file; do
    printf '\n-- sql/%s\n\n' "$file"
    cat "sql/$file"
  done < <(grep -o '"\.\./sql/[a-z_/]*\.sql"' src/lib.rs | tr -d '"' | sed 's|^\.\./sql/||')
}

# Statements alone, sorted: cargo-pgrx chooses an order of its own.
statements() { grep -vE '^ *(--|/\*|\*/)|^\\echo|^ *$|^This file is auto|^The ordering of items' "$1" | sort; }

case ${1:-} in
  "") generate >"$script" ;;
  --check) diff -u "$script" <(generate) || die "$script is not what sql/ says: run 'make install-sql'" ;;
  --pgrx)
    "$ROOT/scripts/setup.sh"
    use_server
    pgrx=$(sed -n 's/^pgrx = "=\(.*\)"$/\1/p' Cargo.toml)
    if [ "$(cargo pgrx --version 2>/dev/null)" != "cargo-pgrx $pgrx" ]; then
      say "installing cargo-pgrx $pgrx (some minutes)"
      cargo install cargo-pgrx --version "$pgrx" --locked
    fi
    theirs=$(mktemp)
    trap 'rm -f "$theirs"' EXIT
    cargo pgrx schema --no-default-features --features "$PG_FEATURE connectors documents code" --out "$theirs" "$PG_FEATURE"
    diff -u <(statements "$script") <(statements "$theirs") || die "$script is not what cargo-pgrx generates"
    ;;
  *) die "unknown option $1" ;;
esac
