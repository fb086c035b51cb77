#!/usr/bin/env bash
# Licenses, duplicates, sources and known weaknesses of the dependencies, as deny.toml allows them. The list of weaknesses
# is a repository on GitHub: without it, the other checks run, and the script says so. In CI, that is an error.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
version=0.20.2
deny=$ROOT/.tools/deny-$version/bin/cargo-deny
[ -x "$deny" ] || cargo install cargo-deny --locked --version "$version" --root "$ROOT/.tools/deny-$version" \
  --target-dir "$ROOT/target/tools"

"$deny" check licenses bans sources
if "$deny" fetch db >/dev/null 2>&1; then
  "$deny" check advisories
elif [ -n "${CI:-}" ]; then
  die "could not fetch the list of known weaknesses"
else
  say "the list of known weaknesses cannot be reached: not checked"
fi
