-- What the SQL reference says of functions that look at flows: docs/sql-reference.md is made of these COMMENTs. A line
-- "name: …" is about an argument or a result column, one that begins with two blanks goes on with it,
-- and lines that begin with four are an example.

comment on function coco.preview is $doc$What coco.update in this mode would change. Writes nothing; runs in a read-only transaction too.

It reads all of each source, captured or not, compares each item with the target as it stands, and does not play through
what items do to each other's keys. It does not look at lookups.

flow: its name.
mode: as in coco.update.
max_rows: how many changes, at most.

target: where.
change: insert, update or delete of a row; or fail, of an item that cannot be evaluated.
key: the row's key; NULL of fail.
old: the row as it is; NULL of insert, and outside this database.
new: the row as it will be; NULL of delete. Of fail: sqlstate, message and detail.

    SELECT * FROM coco.preview('doc_chunks', max_rows => 10);

Errors: 22023 mode or max_rows; 42P01 a target was dropped; 22004 and 21000 as of coco.update.$doc$;

comment on function coco.verify is $doc$Compares each target of a flow with its query over everything, row by row and byte by byte. No row when all is well.

What has changed since the last update shows as a difference too. Items that fail are left out of the comparison, with
their rows; a row for each of them says so. Of a target outside this database the ledger is compared: what it is to
have, not what it has.

flow: its name.
repair: mend what is returned: by an update; then, where differences are left, by evaluating everything again, and by
  deleting rows that no item produces.

target: where; NULL of failing, since an item is left out of all targets.
difference: missing: the query gives the row, the target lacks it. extra: the target has it, the query does not give it,
  or not so often. different: both have the key, with other values. failing: an item whose last evaluation failed; what
  it has at the targets is of before, and was not compared. repair does not mend it.
key: the row's key; of failing the item's source key.
source: of failing the source's name in the flow.
since: of failing when the item failed for the first time since it last went through.

    SELECT * FROM coco.verify('doc_chunks');

Errors: 42P01 a target was dropped.$doc$;

comment on function coco.lineage is $doc$Where a target row comes from: a row for each source item that has produced it, or that claims its key. All is as of the last update.

target: its name as coco.targets shows it, or a table's name alone.
key: {"column": value} for each column of the target key.
of_flow: the flow, where several have a target of that name.

flow: the flow's name.
source: the source's name in it.
source_relation: the source.
source_key: the item: a row, or the group of the rows that share the key.
state: produced: the row is that of the item's last evaluation. failing: that failed, and the row, if there is one, is of
  before. claims: another item has the key, and this one waits for it.
ordinal: the version that was evaluated; NULL without an ordinal, and where none was evaluated to the end.
content_fingerprint: the content that was evaluated; NULL where none was to the end.
logic_fingerprint: the logic with which; of an item that was never evaluated to the end, with which it failed.
query: the target's query then.
functions: the functions that the logic reached, a list of objects: function, the fingerprint of its code, its comment as it
  was when the logic was first run; of a memoised one its version, and the fingerprint of all that it reaches (memoised).
label: what coco.alter_flow had labelled the flow with by then.
process_ordinal: which attempt: microseconds since 1970.
process_time: the same as a time.
memo: the memoised results that the item rests on, a list of objects: function, fingerprint of its code, input (the
  fingerprint of the input, in hexadecimal), and when it was made.
byte_range: where in the source's text the row comes from, if the target has the integer columns byte_start and byte_end, as
  coco.split_text returns them; of a target outside this database, if they are in its key. Otherwise NULL.
failure: why it failed: sqlstate, message, detail, hint, attempts, failed_at, next_retry.

    SELECT source, source_key, state, label FROM coco.lineage('doc_chunks', '{"doc_id": 1, "n": 1}');

Where the target key has the source key in it, that takes a few look-ups by primary keys. Where keys are listed, a look-up
by an index, if coco.alter_flow(…, lineage_index => true) has made one; otherwise all tracking rows are read, and a NOTICE
says so.

Errors: 42704 no such target; 22023 several of that name, or a key that lacks a column or is no object; 42703 the key has
no such column; 42P01 the target was dropped.$doc$;

comment on function coco.outputs is $doc$The target rows that come of a source item; the other way of coco.lineage. No row of an item that is not tracked.

flow: its name.
source_key: {"column": value} for each column of the source key.
of_source: which source, where the flow has several with such a key; NULL: all of them.

source: the source's name in the flow.
target: the target.
key: the row's key, as coco.lineage takes it.
listed: whether the item's tracking row lists the key; otherwise the row has the item's key in it.

    SELECT * FROM coco.outputs('doc_chunks', '{"id": 1}');

An adopted target whose unique index does not begin with the columns of the source key is read as a whole.

Errors: as of coco.lineage about the key; 42704 no such flow or source.$doc$;

comment on function coco.history is $doc$The last runs of a flow, the newest first: as many as coco.history_size says.

A coco.update is a row each time, committed with it; one that fails in the caller's transaction leaves none. A live flow's
turns are taken together: a row is what a worker did in up to a minute; turns that evaluated and wrote nothing make none.
What is not noted yet is lost with the worker: its last minute.

flow: its name.

run: grows with each run of any flow.
started: when it began.
elapsed: the time that was spent on it.
reason: first: nothing was tracked yet. logic: the query, or what it reaches, was another than before, or a target was lost.
  change: to find what changed, also where nothing had. retry, full, reexport: the mode of the coco.update that asked.
by: session: a coco.update, also where a worker made it. worker: one that follows a live flow.
seen: the counts of coco.update, summed over the flow's sources.
skipped: as of coco.update.
unchanged: as of coco.update.
evaluated: as of coco.update.
upserted: as of coco.update.
deleted: as of coco.update.
failed: evaluations that failed; of a session's update also items that wait.
error: why the run failed as a whole; otherwise NULL.
label: the flow's label when it ran.

    SELECT reason, by, evaluated, upserted, deleted, failed FROM coco.history('doc_chunks');

Errors: 42704 no such flow; 42501 it is not yours.$doc$;

comment on function coco.explain is $doc$How a flow works, before it is trusted: a row for each thing that is to be known. Nothing of the flow is executed, and nothing is written; plans are made as the flow's owner and under its settings.

flow: its name.

section: source, lookup, target; content fingerprint, logic fingerprint: what they cover; memoised function; change: what
  leads to what, and when; query: the statement that evaluates a batch; plan for one item, plan for a batch; set-based:
  whether no table is read again for each item; index: one that a plan would want; warning.
name: what it is about.
detail: what is to be known of it.
hint: what to do, where there is something; of index the statement that makes it.

    SELECT section, name, detail FROM coco.explain('doc_chunks') WHERE section IN ('content fingerprint', 'set-based', 'index');

Set-based is a plan that reads no table as a whole again for each item; a table of at most 64 kB is let pass. Indexes are
named where the plan for one item reads all of a table of 1 MB or more, and where the rows of an item are looked for in a
target whose indexes do not begin with the item's key. What a function does inside stands in no plan.

Errors: 42704 no such flow; 42501 it is not yours; 55000 its query is broken.$doc$;

comment on function coco.diagram is $doc$A flow, or all flows that you may see, as a flowchart in the language of Mermaid (https://mermaid.js.org), which many documents and code hosts draw.

flow: its name; NULL: all of them.

Sources, lookups (dotted), memoised functions (hexagons) and targets, those outside this database by their server. A flow
has the colour of its state, and says what of it is pending or failing. A table that is the target of one flow and the
source of another stands there once.

    SELECT coco.diagram('doc_chunks');

Errors: 42704 no such flow; 42501 it is not yours.$doc$;

comment on function coco.report is $doc$A page of HTML about your flows: what feeds what, the state, lag and last error of each with what to do, items that fail, the last 60 runs of each on a line of time, targets, memoised functions and workers.

It is one file that loads nothing and runs no script, light or dark as its reader has it, for wide screens and narrow ones.
Times are in the session's time zone. At most 100 errors are shown; who reads the page reads their keys and messages.

    -- psql -At -c 'select coco.report()' > report.html
    SELECT length(coco.report()) > 1000 AS is_a_page;$doc$;
