-- COMMENTs on the functions that inspect flows. scripts/reference.sql prints them into docs/sql-reference.md and expects
-- this form: a line "name: …" describes an argument or a result column, a line with an indent of two blanks continues it,
-- and lines with an indent of four blanks are an example.

comment on function coco.preview is $doc$Shows what coco.update in this mode would change. Writes nothing, and also runs in a read-only transaction.

The call reads the whole of each source, captured or not, and compares the rows of each item with the target as it is now.
It does not simulate how items pass target keys to each other. It does not look at lookups.

flow: name of the flow.
mode: as in coco.update.
max_rows: maximum number of changes to return.

target: name of the target.
change: insert, update or delete for a row; fail for an item that cannot be evaluated.
key: target key of the row; NULL for fail.
old: row as it is now; NULL for insert, and for targets outside this database.
new: row as it would become; NULL for delete. For fail, an object with sqlstate, message and detail.

    SELECT * FROM coco.preview('doc_chunks', max_rows => 10);

Errors: 22023: mode or max_rows is not valid. 42P01: a target was dropped. 22004, 21000: as in coco.update.$doc$;

comment on function coco.evaluate is $doc$Evaluates one item of a flow and returns the rows that the flow's queries return for it now. Nothing stays written: coco rolls back what functions of a query write, and stores no results of memoized functions. The call also runs in a read-only transaction.

The queries run as the flow's owner and under the flow's settings, as in an update. Notices reach the caller, and an error in
a query is an error of the call. coco does not compare the rows with the target: it also returns rows that the target would
reject. An item that its source does not have has no rows.

flow: name of the flow.
source_key: JSON object {"column": value} with each column of the source key. For a group, the key that its rows share.
source_name: name of the source. NULL: each source of the flow whose key has these columns.
item: content of the item, instead of its content in the source: a JSON object {"column": value}, or for a group a JSON array
  of such objects. The item need not exist. A column that is not given is NULL; the columns of the key come from source_key.
memo: true: memoized functions return stored results; coco computes the missing ones, which may send requests to providers.
  false: each call computes its result.
explain: true: instead of the rows, returns the plan of each query with the measured times, as EXPLAIN (ANALYZE) prints it.

source: name of the source in the flow.
target: name of the target, as in coco.targets.
key: target key of the row; NULL with explain.
output: row with all its columns; NULL with explain.
plan: with explain, text of the plan; otherwise NULL.

    SELECT target, output FROM coco.evaluate('doc_chunks', '{"id": 1}');

Errors: 22023: source_key or item is not a JSON object, or a value is missing. 42703: source_key or item has another column.
42704: the flow or the source does not exist. 42501: the flow is not yours. Also the errors that the queries raise.$doc$;

comment on function coco.estimate is $doc$Estimates what the next update of a flow would evaluate, write, request and spend, as things are now, or with another query. Writes nothing, and sends no request to a provider.

The call determines the items that the update would look at, and evaluates a sample of them, as the owner of the flow. If
the sample contains all items, the numbers of items, rows and calls are exact: low, estimate and high are equal. Otherwise,
the true number lies between low and high for 95 of 100 samples. The sample is the same for each call: it contains the items
whose keys have the smallest fingerprints. A missing result of a memoized function counts as NULL while coco evaluates the
sample; a query that turns one result into several rows therefore writes more rows than estimated.

flow: name of the flow.
query: query as in coco.set_query: coco estimates the next update as if this query were set. NULL: with the queries that the
  flow has. After CREATE OR REPLACE FUNCTION, for example, that is the cost of the replacement.
target: target of query, as in coco.set_query; NULL: the flow's only target.
item: as in coco.set_query.
mode: as in coco.update.
sample: number of items of each source that coco evaluates, at most; at least 100.

measure: evaluated, upserted, deleted and failed are numbers as in the result of coco.update. rows: rows that the queries
  return for the evaluated items. memo_hits: calls of memoized functions with a stored result. memo_misses: results that are
  missing. requests, tokens_in, tokens_out and cost: what providers would be asked for these results. The rows from memo_hits
  to cost exist only if the queries call memoized functions. wal_bytes: write-ahead log. seconds: time of the update.
estimate: estimated value; cost is in the unit of the prices that the options of the servers name.
low: lower bound.
high: upper bound.
unit: unit of the three values.
basis: what coco computed the value from.

    SELECT measure, estimate, low, high FROM coco.estimate('doc_chunks');

Errors: 22023: mode or sample is not valid, or query is missing. 55000: the flow has no target yet. Also the errors of
coco.set_query about query and target.$doc$;

comment on function coco.verify is $doc$Compares each target of a flow with the result of its query over all items, row by row and byte by byte. Returns no row if there is nothing to report.

A change since the last update also appears as a difference. coco excludes failing items and their rows from the
comparison, and returns one row for each such item. For a target outside this database, coco compares the ledger, which
says which rows the target should have, not which rows it has. With outside, coco reads the target itself.

flow: name of the flow.
repair: true: coco repairs the differences that it returns. It first runs an update. If rows are then still missing or
  different, it evaluates every item again; if rows are left that no item produces, it deletes them. With outside, coco
  sends the missing and different rows to the target again, and deletes the extra rows there.
outside: true: a worker updates the flow, delivers all queued changes, and compares the rows that each target outside this
  database holds with the ledger. It returns and repairs at most 10,000 differences of a target in one call; a WARNING says
  if more are left. It leaves out rows that the target has rejected. It compares only the key of a row that a failing item
  owns. Nothing else is delivered to a target meanwhile.

target: name of the target; NULL for failing, because coco excludes the item from all targets.
difference: missing: the query returns the row, but the target lacks it. extra: the target has the row, but the query does
  not return it, or returns it fewer times. different: both have the key, but other values differ. failing: the item's last
  evaluation failed; its target rows come from an earlier evaluation, and coco did not compare them. repair does not fix a
  failing item.
key: target key of the row; for failing, source key of the item.
source: for failing, name of the source in the flow; otherwise NULL.
since: for failing, time of the item's first failure after its last success; otherwise NULL.

    SELECT * FROM coco.verify('doc_chunks');

Errors: 42P01: a target was dropped. With outside: 0A000: the connector cannot read the rows of a target. 22023: the flow
has no target outside this database. 42704: the target does not exist on its server. 55000: the flow is paused. Errors of
the server have the SQLSTATE that a delivery error would have.$doc$;

comment on function coco.lineage is $doc$Returns the origin of a target row: one row for each source item that has produced it, or that claims its key. All values are as of the last update.

target: name of the target as coco.targets shows it, or the name of a table without its schema.
key: JSON object {"column": value} with each column of the target key.
flow_name: name of the flow; needed if several flows have a target of that name.

flow: name of the flow.
source: name of the source in the flow.
source_relation: relation that is the source.
source_key: source key of the item, which is a row, or the group of rows that share the key.
state: produced: the item's last evaluation produced the row. failing: the item's last evaluation failed; if the row exists,
  it comes from an earlier evaluation. waiting_for_key: another item owns the key, and this item waits for it.
ordinal: ordinal of the last version evaluated successfully; NULL if there is none, or the source has no ordinal.
content_fingerprint: fingerprint of the last content evaluated successfully; NULL if there is none.
logic_fingerprint: fingerprint of the logic used for that evaluation; if no evaluation has succeeded, of the logic that
  failed.
query: text of the target's query in that logic.
functions: JSON list of the functions that this logic reaches. Each element is an object with function, fingerprint (of its
  code), and comment (as it was when the logic first ran). A memoized function also has version, and memoized: the
  fingerprint of everything that the function reaches.
label: label that coco.alter_flow had given the flow at the time of the evaluation. If there was none: coco.label of the first
  session that set it and declared or updated the flow with this logic.
process_ordinal: number of the attempt, in microseconds since 1970.
process_time: process_ordinal as a timestamp.
memo: JSON list of the memoized results that the item uses. Each element is an object with function, fingerprint (of its
  code), input (the fingerprint of the input, in hexadecimal) and made (the time at which the result was computed).
byte_range: byte range of the source's text from which the row comes. It requires integer columns byte_start and byte_end in
  the target, as coco.split_text returns them; for a target outside this database, in its key. Otherwise NULL.
failure: last failure of the item, as an object with sqlstate, message, detail, hint, attempts, failed_at and next_retry.
source_columns: columns of the source that the flow's queries use now.
lookups: JSON list of the lookups of the source. Each element is an object with lookup (its name), relation, and rows: the keys
  of the lookup's rows whose change would now evaluate the item, at most 100. rows is null if indexes do not find them from
  the item's key, or the lookup was declared without affects: then all of its rows may have fed the row.

    SELECT source, source_key, state, label FROM coco.lineage('doc_chunks', '{"doc_id": 1, "n": 1}');

If the target key contains the source key, the call needs a few searches by primary key. If tracking rows list the target
keys, the call uses the index that coco.alter_flow(…, lineage_index => true) creates. Without this index it reads all
tracking rows, and a NOTICE reports it.

Errors: 42704: the target does not exist. 22023: several flows have a target of that name, or key lacks a column or is not
an object. 42703: the target key has no such column. 42P01: the target was dropped.$doc$;

comment on function coco.outputs is $doc$Returns the target rows of a source item: the inverse of coco.lineage. Returns no row for an item that coco does not track.

flow: name of the flow.
source_key: JSON object {"column": value} with each column of the source key.
source_name: name of the source, if several sources of the flow have such a key; NULL: all of them.

source: name of the source in the flow.
target: name of the target.
key: target key of the row, as coco.lineage accepts it.
owned_by_list: true if the item's tracking row lists the target key; false if the target key contains the source key.

    SELECT * FROM coco.outputs('doc_chunks', '{"id": 1}');

The call reads the whole of an adopted target whose unique index does not begin with the columns of the source key.

Errors: 42704: the flow or the source does not exist. Also the errors of coco.lineage about the key.$doc$;

comment on function coco.history is $doc$Returns the last runs of a flow, newest first. The setting coco.history_limit limits their number.

Each coco.update adds one row and commits it with its other changes; if it fails in the caller's transaction, it leaves no
row. For a live flow, one row covers up to a minute of a worker's transactions. Transactions that evaluated and wrote nothing
add no row. If a worker is lost, so is its work that is not recorded yet, up to the last minute.

flow: name of the flow.

run_id: number of the run, which grows with each run of any flow.
started: time at which the run began.
elapsed: time spent on the run.
reason: initial: coco tracked no item yet. logic_change: the query, or an object that it reaches, had changed, or a target was
  lost. data_change: coco looked for changes, and possibly found none. retry, full_reprocess, refresh, reexport: the
  coco.update asked for this mode.
initiator: session: a coco.update, even if a worker ran it. worker: a worker that follows a live flow.
seen: number of items as in coco.update, summed over the flow's sources.
skipped: number of items as in coco.update, summed over the flow's sources.
unchanged: number of items as in coco.update, summed over the flow's sources.
evaluated: number of items as in coco.update, summed over the flow's sources.
upserted: number of rows as in coco.update, summed over the flow's sources.
deleted: number of rows as in coco.update, summed over the flow's sources.
failed: number of failed evaluations; for an update by a session, also of items that wait for a retry.
error: error that ended the whole run; NULL if there was none.
label: coco.label of the session that called coco.update; if it was not set, label of the flow at the time of the run.

    SELECT reason, initiator, evaluated, upserted, deleted, failed FROM coco.history('doc_chunks');

Errors: 42704: the flow does not exist. 42501: the flow is not yours.$doc$;

comment on function coco.explain is $doc$Explains how a flow works, one row for each fact. The call executes no part of the flow and writes nothing; it makes plans as the flow's owner and under the flow's settings.

flow: name of the flow.

section: kind of fact. source, lookup, target: an object of the flow. derived: what coco found in the queries of a flow
  that derives its lookups, and why. content fingerprint, logic fingerprint: what the
  fingerprint covers. memoized function: a function that the flow calls and whose results coco stores. change: which
  change causes which work, and when. query: the statement that evaluates a batch. plan for one item, plan for a batch:
  the plan of that statement. set-based: whether the plan reads no table again for each item. index: an index that a
  plan needs. warning: a problem.
name: name of the object that the fact concerns.
detail: the fact itself.
hint: action to take, if any; for index, the statement that creates it.

    SELECT section, name, detail FROM coco.explain('doc_chunks') WHERE section IN ('content fingerprint', 'set-based', 'index');

A plan is set-based if it does not read a whole table again for each item; coco ignores tables of at most 64 kB here. coco
names an index if the plan for one item reads the whole of a table of 1 MB or more. It also names an index if it looks for
the rows of an item in a target whose indexes do not begin with the item's key. Plans do not show what happens inside
functions.

Errors: 42704: the flow does not exist. 42501: the flow is not yours. 55000: the flow's query is broken.$doc$;

comment on function coco.diagram is $doc$Draws a flow, or all flows that you may see, as a flowchart. Returns it in the Mermaid language (https://mermaid.js.org), which many document formats and code hosts can display.

flow: name of the flow; NULL: all flows that you may see.

The chart shows sources, lookups (dotted), memoized functions (hexagons) and targets; a target outside this database appears
with its server. The color of a flow shows its state, and its text says what is pending or failing. A table that is the
target of one flow and the source of another appears once.

    SELECT coco.diagram('doc_chunks');

Errors: 42704: the flow does not exist. 42501: the flow is not yours.$doc$;

comment on function coco.report is $doc$Returns an HTML page about your flows. For each flow it shows the sources and targets, the state, the lag, the last error with a hint, and the last 60 runs on a time line. It also shows failing items, memoized functions and workers.

The page is one file that loads no other file and runs no script. It adapts to a light or dark color scheme, and to wide and
narrow screens. Times are in the session's time zone. The page shows at most 100 errors. Everyone who can read the page can
read the keys and messages in it.

    -- psql -At -c 'select coco.report()' > report.html
    SELECT length(coco.report()) > 1000 AS is_a_page;$doc$;

comment on function coco.diff is $doc$Returns rows that differ between the targets of a flow and those of its new version; after a swap, of its old version.

Compares the tables as they are now, row by row and byte by byte. For each target, a NOTICE contains the numbers of all such
rows. coco does not compare columns that only one version has, and a NOTICE names them.

flow: name of the flow.
max_rows: largest number of rows returned for each target.
difference: missing: only the older version has the row; extra: only the newer one; different: both have a row with this key,
  and the rows differ.
key: target key of the row.
old: row of the older version.
new: row of the newer version.

    SELECT * FROM coco.diff('doc_chunks');

Errors: 55000: the flow has no other version. 0A000: the versions have different keys. 22023: max_rows is below 1.$doc$;
