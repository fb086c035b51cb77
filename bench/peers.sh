#!/usr/bin/env bash
# The same flow by coco, by CocoIndex (from PyPI) and by plain statements, on one server: documents of 1 kB
# in a table, four chunks each in another. A first run, one when nothing has changed, one after 1% has.
# BENCH_ITEMS: documents; BENCH_RUNS: repetitions, in turns.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
documents=${BENCH_ITEMS:-100000} runs=${BENCH_RUNS:-3}
start_server "max_wal_size = 4GB"

here=$ROOT/bench/peers packages=$ROOT/.tools/peers
if ! cmp -s "$here/requirements.txt" "$packages/requirements.txt"; then
  python3 -m pip --version >/dev/null 2>&1 || apt_install python3 python3-pip || die "python3 with pip is missing, please install it"
  say "fetching CocoIndex into $packages"
  rm -rf "$packages"
  python3 -m pip install --quiet --no-deps --only-binary=:all: --disable-pip-version-check \
    --root-user-action=ignore --target "$packages" --requirement "$here/requirements.txt" >&2
  cp "$here/requirements.txt" "$packages/requirements.txt"
fi

# cocoindex NAME each|whole: one update; notes its time without that of starting Python, and its memory.
cocoindex() {
  local figures
  figures=$(PYTHONPATH=$packages PYTHONDONTWRITEBYTECODE=1 COCOINDEX_DB=$work/cocoindex_$2 \
    COCOINDEX_DISABLE_USAGE_TRACKING=1 python3 "$here/cocoindex_flow.py" "$work/pg" "chunks_$2" "$2" 2>"$work/cocoindex.err") ||
    { tail -n 20 "$work/cocoindex.err" >&2; die "CocoIndex failed"; }
  note "$1" "$(tail -n 1 <<<"$figures" | cut -d ' ' -f 1)"
  note "memory.$2" "$(tail -n 1 <<<"$figures" | cut -d ' ' -f 2)"
}

query="select d.id as doc_id, n, substr(d.body, 1 + 250 * n, 250) as chunk from documents d, generate_series(0, 3) n"
sql "create table documents (id bigint primary key, body text not null)" \
    "insert into documents select i, (select string_agg(md5(i || ' ' || j), '') from generate_series(1, 32) j) from generate_series(1, $documents) i" \
    "vacuum analyze documents" "create table plain (doc_id bigint, n int, chunk text, primary key (doc_id, n))"

# same TABLE: it holds what the query gives.
same() {
  [ "$(sql "select count(*) from (select doc_id, n, chunk from $1) t full join ($query) q using (doc_id, n) where t.chunk is distinct from q.chunk")" = 0 ] ||
    die "$1 differs from the query"
}

for ((n = 1; n <= runs; n++)); do
  say "$n of $runs: a first run"
  rm -rf "$work"/cocoindex_*
  sql "drop table if exists chunks_each, chunks_whole" "truncate plain" "checkpoint" \
      "select coco.create_flow('f', 'documents', \$\$ $query \$\$, 'chunks', '{doc_id,n}')" >/dev/null
  timed first.plain "insert into plain $query"
  timed first.coco "select * from coco.update('f')"
  cocoindex first.whole whole
  cocoindex first.each each
  for table in chunks plain chunks_whole chunks_each; do same "$table"; done

  say "$n of $runs: nothing changed"
  timed nothing.coco "select * from coco.update('f')" -- "select * from coco.update('f')"
  cocoindex nothing.whole whole
  cocoindex nothing.each each

  say "$n of $runs: 1% changed"
  timed percent.coco "select * from coco.update('f')" \
    "update documents set body = 'changed ' || $n || body where id % 100 = $n" \
    -- "select * from coco.update('f')"
  timed percent.plain "begin" "delete from plain where doc_id % 100 = $n" \
    "insert into plain select * from ($query) q where doc_id % 100 = $n" "commit"
  cocoindex percent.whole whole
  cocoindex percent.each each
  for table in chunks plain chunks_whole chunks_each; do same "$table"; done
  verify f
  sql "select coco.drop_flow('f', keep_targets => false)" >/dev/null
done

result "first run, CocoIndex, a component a document (ms; coco)" "$(of first.each)" "$(of first.coco)" ">= 15"
result "first run, CocoIndex, one component (ms; coco)" "$(of first.whole)" "$(of first.coco)" ">= 5"
result "first run, coco (ms; INSERT … SELECT)" "$(of first.coco)" "$(of first.plain)" "<= 1.5"
result "nothing changed, CocoIndex, a component a document (ms; coco)" "$(of nothing.each)" "$(of nothing.coco)" ">= 100"
result "nothing changed, CocoIndex, one component (ms; coco)" "$(of nothing.whole)" "$(of nothing.coco)"
result "1% changed, CocoIndex, a component a document (ms; coco)" "$(of percent.each)" "$(of percent.coco)" ">= 20"
result "1% changed, CocoIndex, one component (ms; coco)" "$(of percent.whole)" "$(of percent.coco)" ">= 20"
result "1% changed, coco (ms; DELETE and INSERT by hand)" "$(of percent.coco)" "$(of percent.plain)"
plain "peak memory of CocoIndex's process, MB" "$(div "$(of memory.each)" 1024 %.0f)"
report "Documents to chunks: $documents of 1 kB, 4 each"
