#!/usr/bin/env bash
# What docs/sizing.md says in bytes and counts: each figure by its formula, and as a throw-away server measures it.
# Nothing here is a time. docs/sizing.md says which formulas are derived, and which are fitted to these measurements.
# BENCH_ITEMS: rows of each source. Each figure is measured once, because sizes hardly vary.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
items=${BENCH_ITEMS:-100000}
# WAL as a server without logical replication writes it. No vacuum and no checkpoint besides those of this script.
start_server "wal_level = replica" "autovacuum = off" "checkpoint_timeout = 1h" \
  "max_wal_size = 8GB" "full_page_writes = off"

# The formulas of docs/sizing.md. All widths are bytes of data, with the alignment between columns.

# tuple WIDTH [COLUMNS]: length of a heap tuple. COLUMNS: if a column is NULL, how many there are (a bitmap).
tuple() { awk -v w="$1" -v c="${2:-0}" 'BEGIN {h = 23 + int((c + 7) / 8); print int((h + 7) / 8) * 8 + w}'; }
# heap TUPLE [FILLFACTOR]: bytes of the table for each row.
heap() {
  awk -v t="$1" -v f="${2:-100}" 'BEGIN {
    t = int((t + 7) / 8) * 8
    printf "%.1f\n", 8192 / int((8168 - int(8192 * (100 - f) / 100)) / (t + 4))}'
}
# btree WIDTH: bytes of an index for each entry, if keys arrive in order, or the index was built of all rows.
btree() { awk -v w="$1" 'BEGIN {printf "%.1f\n", 8192 / int(7333 / (12 + int((w + 7) / 8) * 8))}'; }
# scattered WIDTH: the same of an index whose keys arrived in any order: its pages are 69% full.
scattered() { awk -v w="$1" 'BEGIN {printf "%.1f\n", (12 + int((w + 7) / 8) * 8) * 8192 / 8152 / 0.69}'; }
# entry_wal WIDTH: WAL of one more index entry.
entry_wal() { awk -v w="$1" 'BEGIN {print 56 + int((w + 7) / 8) * 8}'; }
# many_wal TUPLE: WAL of a row that is written with many others, besides its index entries.
many_wal() { awk -v t="$1" 'BEGIN {print int((t - 23 + 7 + 1) / 2) * 2}'; }
# moved_wal TUPLE: WAL of a new row version on another page, besides its index entries.
moved_wal() { awk -v t="$1" 'BEGIN {print int((73 + t - 23 + 7) / 8) * 8 + 56}'; }
# pages_hit PAGES ITEMS: how many pages ITEMS rows at random places are on.
pages_hit() { awk -v p="$1" -v n="$2" 'BEGIN {printf "%.0f\n", p * (1 - exp(-n / p))}'; }
sum() { awk 'BEGIN {for (i = 1; i < ARGC; i++) s += ARGV[i]; printf "%.1f\n", s}' "$@"; }
times() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.1f\n", a * b}'; }

# figure WHAT FORMULA MEASURED: a row of the table at the end; - for a figure without a formula.
figure() { printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$([ "$2" = - ] && echo - || div "$3" "$2")" >>"$work/figures"; }
heading() { printf '\n%s\t\t\t\n' "$1" >>"$work/figures"; say "$1"; }

# table_bytes ROWS TABLE, index_bytes ROWS TABLE: bytes for each row.
table_bytes() { sql "select round(pg_relation_size('$2') / $1.0, 1)"; }
index_bytes() { sql "select round(pg_indexes_size('$2') / $1.0, 1)"; }
internal() { sql "select tracking_table from coco.sources where flow = '$1'"; }
# external_table KIND FLOW: the ledger or the outbox.
external_table() { sql "select 'coco_internal.$1_' || id from coco_internal.target where flow = '$2'"; }
capture_of() { sql "select 'coco_internal.log_' || id from coco_internal.capture where relation = '$1'::regclass"; }
# log_bytes ROWS TABLE, log_index_bytes ROWS TABLE: the same of its change log.
log_sum() {
  sql "select round(sum($3(c.oid)) / $1.0, 1) from pg_class c
        where c.oid::regclass::text like '$(capture_of "$2")\_%' and c.relkind = 'r'"
}
log_bytes() { log_sum "$1" "$2" pg_relation_size; }
log_index_bytes() { log_sum "$1" "$2" pg_indexes_size; }

lsn() { sql "select pg_current_wal_insert_lsn()"; }
# wal ROWS COMMAND…: bytes of WAL for each row.
wal() {
  local rows=$1 before; shift
  before=$(lsn)
  "$@" >/dev/null
  sql "select round((pg_current_wal_insert_lsn() - '$before'::pg_lsn) / $rows.0, 1)"
}
images() { sql "alter system set full_page_writes = $1" "select pg_reload_conf()" >/dev/null; sleep 1; }

heading "Change log, for each entry"
# logged LABEL WIDTH COLUMNS EXPRESSIONS: a key of these columns, whose values these expressions make of i.
logged() {
  local label=$1 width=$2 columns=$3 expressions=$4 length names written bare
  length=$(tuple $((8 + width)))
  names=$(sed -E 's/ [a-z]+//g' <<<"$columns")
  for table in bare captured; do
    sql "create table $table (${columns//,/ not null,} not null, n int not null, primary key ($names))" \
        "insert into $table select $expressions, 0 from generate_series(1, $items) i"
  done
  sql "select coco.create_flow('logged', 'captured', 'select * from captured', 'logged_target', '{$names}')" \
      "select count(*) from coco.update('logged')" "vacuum analyze" >/dev/null
  figure "$label, table" "$(heap "$length")" "$(
    sql "update captured set n = n + 1"; log_bytes "$items" captured)"
  figure "$label, index, all rows in one transaction" 6.7 "$(log_index_bytes "$items" captured)"
  sql "vacuum bare, captured" "update bare set n = n + 1" "vacuum bare, captured"
  bare=$(wal "$items" sql "update bare set n = n + 1")
  written=$(wal "$items" sql "update captured set n = n + 1")
  figure "$label, WAL, all rows in one transaction" "$(sum "$(many_wal "$length")" "$(entry_wal 8)")" \
    "$(awk -v a="$written" -v b="$bare" 'BEGIN {print a - b}')"
  sql "set coco.log_segment_size = '64kB'" "select count(*) from coco.update('logged')" "vacuum bare, captured" >/dev/null
  sql "select coco.drop_flow('logged', keep_targets => false)" "drop table captured" >/dev/null
  sql "create table captured (like bare including all)" "insert into captured select * from bare" \
      "select coco.create_flow('logged', 'captured', 'select * from captured', 'logged_target', '{$names}')" \
      "select count(*) from coco.update('logged')" "vacuum bare, captured" >/dev/null
  each() { sql "set synchronous_commit = off" "do \$\$ declare r record; begin for r in select * from $1 limit 30000 loop
                update $1 set n = n + 1 where ($names) = ($(sed -E 's/([a-z]+)/r.\1/g' <<<"$names")); commit; end loop; end \$\$"; }
  bare=$(wal 30000 each bare)
  written=$(wal 30000 each captured)
  figure "$label, index, each row in a transaction of its own" "$(btree 8)" "$(log_index_bytes 30000 captured)"
  figure "$label, WAL, each row in a transaction of its own" \
    "$(awk -v t="$length" 'BEGIN {print int((59 + t - 23 + 7) / 8) * 8 + 64}')" "$(awk -v a="$written" -v b="$bare" 'BEGIN {print a - b}')"
  sql "select coco.drop_flow('logged', keep_targets => false)" "drop table bare, captured" >/dev/null
}
logged "bigint" 8 "a bigint" "i"
logged "uuid" 16 "a uuid" "md5(i::text)::uuid"
logged "two bigint" 16 "a bigint,b bigint" "i, i"
logged "text of 20 characters" 21 "a text" "lpad(i::text, 20, 'k')"

# A partitioned table has row triggers, which append each entry by itself.
for table in bare captured; do
  sql "create table $table (id bigint primary key, n int not null) partition by range (id)" \
      "create table ${table}_all partition of $table default" "insert into $table select i, 0 from generate_series(1, $items) i"
done
sql "select coco.create_flow('logged', 'captured', 'select * from captured', 'logged_target', '{id}')" \
    "select count(*) from coco.update('logged')" "vacuum bare, captured" >/dev/null
bare=$(wal "$items" sql "update bare set n = n + 1")
written=$(wal "$items" sql "update captured set n = n + 1")
figure "bigint, WAL, row triggers, all rows in one transaction" 144 "$(awk -v a="$written" -v b="$bare" 'BEGIN {print a - b}')"
sql "select coco.drop_flow('logged', keep_targets => false)" "drop table bare, captured" >/dev/null

# How many entries a segment takes until the log goes on in the next one.
sql "create table s (id bigint primary key, n int not null)" "insert into s select i, 0 from generate_series(1, 1000) i" \
    "select coco.create_flow('s', 's', 'select id, n from s', 's_target', '{id}')" "select count(*) from coco.update('s')" >/dev/null
entries=0
while [ "$(sql "select segment from coco_internal.capture where relation = 's'::regclass")" = 0 ]; do
  entries=$((entries + 1000))
  sql "set coco.log_segment_size = '1MB'" "update s set n = n + 1" "select count(*) from coco.update('s')" >/dev/null
done
figure "entries in a segment, coco.log_segment_size 1MB" "$(awk -v e="$(heap "$(tuple 16)")" 'BEGIN {printf "%.0f\n", 1048576 / e}')" "$entries"
sql "select coco.drop_flow('s', keep_targets => false)" "drop table s" >/dev/null

heading "Tracking table, for each item"
# A row has nine columns: the key, a version (NULL without an ordinal), a process ordinal, a fingerprint, a logic, and
# four that are NULL for most items.
sql "create table by_bigint (id bigint primary key, body text not null)" \
    "insert into by_bigint select i, md5(i::text) from generate_series(1, $items) i" \
    "create table by_uuid (id uuid primary key, body text not null)" \
    "insert into by_uuid select md5(i::text)::uuid, md5(i::text) from generate_series(1, $items) i" \
    "create table by_text (id text primary key, body text not null)" \
    "insert into by_text select lpad(i::text, 20, 'k'), md5(i::text) from generate_series(1, $items) i"
# tracked LABEL FLOW SOURCE KEY_WIDTH WIDTH ARGUMENTS: an item's row has WIDTH bytes of data.
tracked() {
  sql "select coco.create_flow('$2', '$3', $6)" >/dev/null
  if [ -n "${7:-}" ]; then sql "$7" >/dev/null; fi
  sql "select count(*) from coco.update('$2')" >/dev/null
  local table; table=$(internal "$2")
  figure "$1, table" "$(heap "$(tuple "$5" 9)" 90)" "$(table_bytes "$items" "$table")"
  figure "$1, index" "${8:-$(btree "$4")}" "$(index_bytes "$items" "$table")"
}
tracked "bigint" t_bigint by_bigint 8 36 "'select id, body from by_bigint', 't_bigint', '{id}'"
tracked "bigint, with an ordinal" t_ordinal by_bigint 8 44 \
  "'select id, body from by_bigint', 't_ordinal', '{id}', ordinal => 'id'"
tracked "uuid" t_uuid by_uuid 16 44 "'select id, body from by_uuid', 't_uuid', '{id}'"
tracked "text of 20 characters" t_text by_text 21 52 "'select id, body from by_text', 't_text', '{id}'"
# Listed target keys are a jsonb object, 20 bytes and for each key 8 and its length. A parked row with a key of one column
# is 101 bytes of jsonb, and has an entry in the index of failing items.
tracked "bigint, one listed key of 20 characters" t_list by_bigint 8 $((36 + 1 + 28 + 24)) \
  "'select lpad(id::text, 20, ''k'') as code, body from by_bigint', 't_list', '{code}'" "" "$(scattered 8)"
tracked "bigint, three listed keys of 20 characters" t_lists by_bigint 8 $((36 + 1 + 20 + 3 * 32)) \
  "'select lpad(id::text, 18, ''k'') || ''-'' || n as code, body from by_bigint, generate_series(1, 3) n', 't_lists', '{code}'" "" "$(scattered 8)"
tracked "bigint, one parked row" t_parked by_bigint 8 $((36 + 101)) "'select id, body from by_bigint', 't_parked', '{id}'" \
  "select coco.expect('t_parked', 'body is null')" "$(times "$(btree 8)" 2)"
sql "select coco.drop_flow(flow, keep_targets => false) from coco.flows where flow like 't\\_%' and flow <> 't_bigint'" \
    "drop table by_uuid, by_text" >/dev/null

heading "WAL of an update, for each item of which one target row changes"
# The target has 44 bytes of data: bigint, int, text of 32 characters.
sql "create table w (id bigint primary key, n int not null, body text not null)" \
    "insert into w select i, 0, md5(i::text) from generate_series(1, $items) i" \
    "select coco.create_flow('w', 'w', 'select id, n, body from w', 'w_target', '{id}')" \
    "select count(*) from coco.update('w')" "vacuum analyze" >/dev/null
# changed CONDITION: lets the log name these items; prints how many.
changed() {
  sql "with changed as (update w set n = n + 1 where $1 returning 1) select count(*) from changed"
  sql "vacuum w"
}
follow() { sql "select count(*) from coco.update('${1:-w}')"; }
target_row=$(tuple 45)
apart=$(changed "id % 10 = 0")
figure "items apart, no free space in the target" "$(sum 104 "$(moved_wal "$target_row")" "$(entry_wal 8)")" "$(wal "$apart" follow)"
sql vacuum
apart=$(changed "id % 10 = 1")
figure "items apart, free space on each page of the target" "$(sum 104 72)" "$(wal "$apart" follow)"
sql vacuum
beside=$(changed "id <= $items / 5")
figure "neighbours, more than fit into the free space" \
  "$(sum "$(moved_wal "$(tuple 36 9)")" "$(entry_wal 8)" "$(moved_wal "$target_row")" "$(entry_wal 8)")" "$(wal "$beside" follow)"
sql vacuum
images on
table=$(internal w)
pages_tracking=$(sql "select pg_relation_size('$table') / 8192") pages_target=$(sql "select pg_relation_size('w_target') / 8192")
pages_index=$(sql "select pg_indexes_size('w_target') / 8192")
# The rows of the target move to other pages here, as pg_walinspect shows.
moves=$(sum 104 "$(moved_wal "$target_row")" "$(entry_wal 8)")
random=$(changed "abs(hashint8(id) % 100) = 7")
sql checkpoint
images=$(awk -v a="$(pages_hit "$pages_tracking" "$random")" -v b="$(pages_hit "$pages_target" "$random")" \
  -v c="$(pages_hit "$pages_index" "$random")" -v n="$random" 'BEGIN {printf "%.0f\n", (a + b + c) * 8192 / n}')
figure "1% at random, rows move, with images of pages after a checkpoint" "$(sum "$moves" "$images")" "$(wal "$random" follow)"
sql "vacuum $table, w_target"
again=$(changed "abs(hashint8(id) % 100) = 7")
figure "the same items again before the next checkpoint, rows move" "$moves" "$(wal "$again" follow)"
images off
verify w

heading "Groups by deltas"
groups=$((items / 20))
sql "create table sales (id bigint primary key, customer int not null, amount numeric(12,2) not null)" \
    "insert into sales select i, i % $groups, (i * 7919 % 100000) / 100.0 from generate_series(1::bigint, $items) i" >/dev/null
grouped() {
  sql "select coco.create_flow('$1', 'sales', 'select customer, $2 from sales group by customer', '$1', '{customer}',
         source_key => '{customer}', aggregate => 'delta')" "select count(*) from coco.update('$1')" "vacuum analyze" >/dev/null
  id=$(sql "select id from coco_internal.source where flow = '$1'")
  contributions=coco_internal.contributions_$id states=coco_internal.groups_$id
}
grouped g_sum "sum(amount) as amount, count(*) as sales"
# bigint, int, numeric of 4 or 5 decimal digits in groups of four (7 bytes with its header).
figure "contribution of a row, table" "$(heap "$(tuple 19 4)" 90)" "$(table_bytes "$items" "$contributions")"
figure "contribution of a row, index" "$(btree 8)" "$(index_bytes "$items" "$contributions")"
# int, two counts, five parts of type bigint, and a sum of type numeric with its padding.
figure "state of a group, table" "$(heap "$(tuple 72 10)" 80)" "$(table_bytes "$groups" "$states")"
figure "state of a group, index" "$(scattered 4)" "$(index_bytes "$groups" "$states")"
# coco locks a contribution and a state before it writes their next versions.
each_group=$(sum 144 104 "$(moved_wal "$(tuple 24)")" "$(entry_wal 4)")
sql "update sales set amount = amount + 1 where id % 211 = 3" "vacuum sales" >/dev/null
figure "WAL of a changed row, rows apart, each in a group of its own" "$(sum 136 "$each_group")" "$(wal "$((items / 211))" follow g_sum)"
sql vacuum "update sales set amount = amount + 1 where customer < $groups / 25" "vacuum sales" >/dev/null
figure "WAL of a changed row, neighbours, twenty in each group" \
  "$(sum 56 "$(moved_wal "$(tuple 19 4)")" "$(entry_wal 8)" "$(times "$(sum 144 104 88)" 0.05)")" "$(wal "$((items / 25))" follow g_sum)"
grouped g_max "max(amount) as most"
figure "contribution with an extreme, index of the primary key and of the value" "$(sum "$(btree 8)" "$(btree 12)")" \
  "$(index_bytes "$items" "$contributions")"
verify g_sum
sql "select coco.drop_flow(flow, keep_targets => false) from coco.flows where flow like 'g\\_%'" "drop table sales" >/dev/null

heading "Ledger and outbox of an external target, for each row"
sql "create table docs (id bigint primary key, body text not null)" \
    "insert into docs select i, repeat(md5(i::text), 6) from generate_series(1, $items) i" \
    "create server nowhere foreign data wrapper coco_postgres options (host '$work/nowhere', dbname 'postgres', sslmode 'disable')" \
    "create user mapping for current_user server nowhere options (user 'postgres')" \
    "select coco.create_flow('x', 'docs', 'select id, body from docs', 'docs', '{id}', server => 'nowhere')" >/dev/null
# Nothing listens there: what is evaluated stays in the outbox, and the call says so.
queue() { sql "select count(*) from coco.update('x')" 2>/dev/null || true; }
queue
ledger=$(external_table ledger x) outbox=$(external_table outbox x)
[ "$(sql "select count(*) from $outbox")" = "$items" ] || die "the outbox lacks rows"
figure "ledger, bigint key, table" "$(heap "$(tuple 24)" 90)" "$(table_bytes "$items" "$ledger")"
figure "ledger, bigint key, index" "$(btree 8)" "$(index_bytes "$items" "$ledger")"
# position, version, upsert with its padding; refused is NULL; the row.
queued=$(tuple $((24 + 8 + 4 + 192)) 6)
figure "outbox, a row of 204 bytes, table" "$(heap "$queued")" "$(table_bytes "$items" "$outbox")"
figure "outbox, index" "$(btree 8)" "$(index_bytes "$items" "$outbox")"
sql "vacuum analyze" "update docs set body = 'x' || substr(body, 2) where id % 10 = 0" "vacuum docs" >/dev/null
figure "WAL of a changed row: tracking row, ledger, outbox" \
  "$(sum 104 96 "$(many_wal "$queued")" "$(entry_wal 8)")" "$(wal "$((items / 10))" queue)"
sql "select coco.drop_flow('x')" "drop table docs" >/dev/null

heading "Results of memoized functions, for each result"
results=$((items / 5))
sql "create function vector_of(t text) returns real[] language sql stable
       return (select array_agg((ascii(substr(t, 1 + i % 32, 1)) / 128.0)::real) from generate_series(1, 384) as i)" \
    "create function length_of(t text) returns int language sql stable return length(t)" \
    "select coco.memoize('vector_of(text)'), coco.memoize('length_of(text)')" \
    "create table texts (id int primary key, body text not null)" \
    "insert into texts select i, left(md5(i::text), 20) from generate_series(1, $results) i" >/dev/null
for name in vector length; do
  sql "select coco.create_flow('$name', 'texts', 'select id, ${name}_of(body) as v from texts', '$name', '{id}')" \
      "select count(*) from coco.update('$name')" >/dev/null
done
memo() { sql "select memo_table from coco_internal.flow where flow = '$1'"; }
# Nine columns, of which kept_until is NULL; the input has 28 bytes, a list of 384 numbers 1,537, an int 4.
figure "384 numbers (real[]) for a text of 20 characters, table" "$(heap "$(tuple $((40 + 29 + 3 + 4 + 1537)) 9)" 90)" \
  "$(table_bytes "$results" "$(memo vector)")"
figure "int for a text of 20 characters, table" "$(heap "$(tuple $((40 + 29 + 5)) 9)" 90)" "$(table_bytes "$results" "$(memo length)")"
figure "indexes" "$(sum "$(btree 8)" "$(scattered 16)")" "$(index_bytes "$results" "$(memo vector)")"
figure "tracking row of an item with one result, table" "$(heap "$(tuple $((36 + 29)) 9)" 90)" "$(table_bytes "$results" "$(internal vector)")"
figure "tracking row of an item with one result, index" "$(btree 4)" "$(index_bytes "$results" "$(internal vector)")"
sql "select coco.drop_flow('vector', keep_targets => false), coco.drop_flow('length', keep_targets => false)" "drop table texts" >/dev/null

heading "First update, for each item"
first=$((items * 3))
sql "create table big (id bigint primary key, n int not null, body text not null)" \
    "insert into big select i, 0, md5(i::text) from generate_series(1, $first) i" "vacuum analyze big" \
    "create table inserted (like big including all)" \
    "select coco.create_flow('big', 'big', 'select id, n, body from big', 'big_target', '{id}')" >/dev/null
tracking_row=$(tuple 36 9)
first_wal=$(sum "$(many_wal "$target_row")" "$(many_wal "$tracking_row")" "$(times "$(btree 8)" 1.8)")
temporary() { sql "select pg_stat_force_next_flush()" "select temp_bytes from pg_stat_database where datname = current_database()" | tail -n 1; }
before=$(temporary)
figure "WAL" "$first_wal" "$(wal "$first" sql "select count(*) from coco.update('big')")"
figure "temporary files, work_mem too small" "$(times 20 2)" "$(sql "select round(($(temporary) - $before) / $first.0, 1)")"
figure "WAL of INSERT ... SELECT of the same rows" "$(sum "$(awk -v t="$target_row" 'BEGIN {print int((31 + t + 7) / 8) * 8}')" "$(entry_wal 8)")" \
  "$(wal "$first" sql "insert into inserted select id, n, body from big")"

heading "Memory of a process that updates, kB"
# peak STATEMENT…: the peak of the memory that is a session's own, which runs them; anonymous TEXT: at its end.
peak() {
  {
    echo "select pg_backend_pid() \\g $work/pid"
    printf '%s \\g /dev/null\n' "$@"
    echo "\\! awk '/^VmHWM|^RssShmem|^RssFile/ {v[\$1] = \$2} END {print v[\"VmHWM:\"] - v[\"RssShmem:\"] - v[\"RssFile:\"]}' /proc/\$(cat $work/pid)/status"
  } | "$PG_BIN/psql" -XAtq -v ON_ERROR_STOP=1 -d "$url"
}
sql "create table wide (id bigint primary key, n int not null, body text not null)" \
    "alter table wide alter body set storage plain" \
    "insert into wide select i, 0, repeat(md5(i::text), 31) from generate_series(1, 20000) i" \
    "select coco.create_flow('wide', 'wide', 'select id, n, body from wide', 'wide_target', '{id}')" \
    "select count(*) from coco.update('wide')" "vacuum analyze wide" >/dev/null
# No derivation: 1,500 kB and two lists of 128 bytes for each item were fitted to these measurements.
idle=$(peak "select * from coco.update('wide')")
figure "an update that finds nothing" - "$idle"
for setting in "100 4MB" "1000 4MB" "10000 4MB" "10000 64MB"; do
  read -r batch memory <<<"$setting"
  sql "update wide set n = n + 1 where id <= 10000" "vacuum wide, wide_target" >/dev/null
  figure "10,000 rows of 1 kB, coco.batch_size $batch, work_mem $memory" \
    "$(awk -v i="$idle" -v b="$batch" -v w="${memory%MB}" 'BEGIN {s = b / 8; if (s > w * 1024) s = w * 1024; print i + 1500 + 2 * s}')" \
    "$(peak "set work_mem = '$memory'" "set coco.batch_size = $batch" "select * from coco.update('wide')")"
done
sql "update big set n = n + 1 where id <= 100000" "vacuum big, big_target" >/dev/null
figure "100,000 rows of 70 bytes, coco.batch_size 100000, work_mem 4MB" "$((idle + 1500 + 2 * 4096))" \
  "$(peak "set work_mem = '4MB'" "set coco.batch_size = 100000" "select * from coco.update('big')")"
verify wide

heading "Processes, and what idle live flows do"
live() { sql "select coco.start('$1')" "select coco.wait('$1', '60 s')" >/dev/null; }
processes() { sql "select count(*) from pg_stat_activity where backend_type like 'coco%'"; }
for database in second third; do
  sql "create database $database"
  "$PG_BIN/psql" -Xq -d "${url/dbname=postgres/dbname=$database}" -c "create extension coco" \
    -c "create table s (id int primary key)" -c "select coco.create_flow('f', 's', 'select id from s', 't', '{id}')" \
    -c "select coco.start('f')" -c "select coco.wait('f', '60 s')" >/dev/null 2>&1
done
live w
sleep 3
figure "processes, three databases with a live flow each" 4 "$(processes)"
for database in second third; do
  "$PG_BIN/psql" -Xq -d "${url/dbname=postgres/dbname=$database}" -c "select coco.stop('f')" >/dev/null 2>&1
done
worker=$(sql "select pid from pg_stat_activity where backend_type = 'coco worker' and datname = 'postgres'")
figure "private memory of an idle worker (RssAnon), kB" - "$(awk '/^RssAnon/ {print $2}' "/proc/$worker/status")"
statements=
if [ -e "$("$PG_CONFIG" --pkglibdir)/pg_stat_statements.so" ]; then
  statements=yes
  printf '%s\n' "shared_preload_libraries = 'coco,pg_stat_statements'" "pg_stat_statements.track = all" |
    as_server_user tee -a "$work/pg/data/postgresql.conf" >/dev/null
  as_server_user "$PG_BIN/pg_ctl" restart -D "$work/pg/data" -l "$work/pg/log" -w -t 60 >/dev/null
  sql "create extension pg_stat_statements"
fi
# quiet FLOWS SECONDS: what that many live flows do without changes, a second. Four of the transactions are this script's.
quiet() {
  local before transactions calls
  sleep 10
  before=$(lsn)
  transactions=$(sql "select xact_commit from pg_stat_database where datname = current_database()")
  if [ -n "$statements" ]; then sql "select pg_stat_statements_reset()" >/dev/null; fi
  sleep "$2"
  if [ -n "$statements" ]; then
    calls=$(sql "select sum(calls) from pg_stat_statements where query !~ 'pg_stat_'")
    figure "statements a second, $1 idle live flows" - "$(div "$calls" "$2" %.1f)"
  fi
  figure "transactions a second, $1 idle live flows" - \
    "$(sql "select round((xact_commit - $transactions - 4) / $2.0, 1) from pg_stat_database where datname = current_database()")"
  figure "WAL bytes a second, $1 idle live flows" 0 "$(sql "select round((pg_current_wal_insert_lsn() - '$before'::pg_lsn) / $2.0, 1)")"
}
quiet 1 20
for ((n = 2; n <= 20; n++)); do
  sql "create table idle_$n (id bigint primary key, n int)" \
      "select coco.create_flow('idle_$n', 'idle_$n', 'select id, n from idle_$n', 'idle_target_$n', '{id}')" >/dev/null
  live "idle_$n"
  case $n in 5 | 20) quiet $n 20 ;; esac
done

printf '\nSizes, %s items (bytes where nothing else is said; ratio: measured / formula)\n' "$items"
awk -F '\t' 'BEGIN {printf "  %-76s %10s %10s %7s\n", "what", "formula", "measured", "ratio"}
  {printf "  %-76s %10s %10s %7s\n", $1, $2, $3, $4}' "$work/figures"
