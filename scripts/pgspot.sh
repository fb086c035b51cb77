#!/usr/bin/env bash
# pgspot over the SQL that CREATE EXTENSION runs. What it finds and
# scripts/pgspot/known.txt does not explain is an error, and so is an explanation of something that it finds no more.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
use_server

here=$ROOT/scripts/pgspot
tools=$ROOT/.tools/pgspot
mkdir -p "$ROOT/.tools"
# One at a time: several tests may start at once.
exec 9>"$ROOT/.tools/pgspot.lock"
flock 9
if ! cmp -s "$here/requirements.txt" "$tools/.fetched"; then
  say "fetching pgspot into $tools"
  rm -rf "$tools"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --only-binary=:all: \
    --target "$tools" --requirement "$here/requirements.txt" || die "pip could not fetch pgspot"
  # Written last, so that an interrupted fetch is done again.
  cp "$here/requirements.txt" "$tools/.fetched"
fi
exec 9>&-

version=$(sed -n "s/^default_version *= *'\(.*\)'/\1/p" "$ROOT/coco.control")
script=$ROOT/sql/install/coco--$version.sql
found=$(PYTHONPATH=$tools python3 -m pgspot "$script" 2>&1 || true)
grep -q '^ *Errors: ' <<<"$found" || die "pgspot did not finish: $found"
# Without the line, which moves.
found=$(grep -E '^PS[0-9]+:' <<<"$found" | sed -E 's/ at line [0-9]+$//' | sort -u || true)
known=$(grep -E '^PS[0-9]+:' "$here/known.txt" | sort -u || true)
new=$(comm -23 <(echo "$found") <(echo "$known"))
gone=$(comm -13 <(echo "$found") <(echo "$known"))
[ -z "$new" ] || die "pgspot finds in $script:"$'\n'"$new"
[ -z "$gone" ] || die "scripts/pgspot/known.txt explains what pgspot does not find any more:"$'\n'"$gone"
say "pgspot finds nothing that is not explained"
