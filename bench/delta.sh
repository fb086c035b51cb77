#!/usr/bin/env bash
# That an update of a captured source costs what changed: bench/delta.sql.
# BENCH_ITEMS: rows of the large table; BENCH_RUNS: repetitions.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# Vacuum runs between repetitions, not within them.
start_server "autovacuum = off" "max_wal_size = 4GB"
"$PG_BIN/psql" -Xq -d "$url" -v items="${BENCH_ITEMS:-1000000}" -v runs="${BENCH_RUNS:-5}" -f "$ROOT/bench/delta.sql"
