#!/usr/bin/env bash
# That an update of a captured source costs what changed: bench/delta.sql.
# BENCH_ITEMS: rows of the large table; BENCH_RUNS: repetitions; BENCH_CACHE: shared_buffers, by default the
# server's own, of which the tables are several times the size.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# Vacuum runs between repetitions, not within them.
start_server "autovacuum = off" "max_wal_size = 4GB" "shared_buffers = ${BENCH_CACHE:-128MB}"
"$PG_BIN/psql" -Xq -d "$url" -v items="${BENCH_ITEMS:-1000000}" -v runs="${BENCH_RUNS:-6}" -f "$ROOT/bench/delta.sql"
