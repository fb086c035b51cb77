#!/usr/bin/env bash
# bench/update.sql on a release build and a throw-away server; BENCH_ITEMS sets the source's size.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"
"$ROOT/scripts/setup.sh"
use_server
install_extension release
work=$(mktemp -d "${TMPDIR:-/tmp}/coco.XXXXXX")
chmod 755 "$work"   # the server's user passes through
trap '"$ROOT/scripts/cluster.sh" stop "$work/pg" || true; rm -rf "$work"' EXIT
url=$("$ROOT/scripts/cluster.sh" start "$work/pg")
"$PG_BIN/psql" -X -d "$url" -v items="${BENCH_ITEMS:-1000000}" -f "$ROOT/bench/update.sql"
