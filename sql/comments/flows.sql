-- What the SQL reference says of functions that declare and run flows: docs/sql-reference.md is made of these COMMENTs. A line
-- "name: …" is about an argument or a result column, one that begins with two blanks goes on with it,
-- and lines that begin with four are an example.

comment on function coco.create_flow is $doc$Declares a flow: a query that is evaluated once for each item of a source, and whose result is kept in a target.

With source, query, target and key it does in one call what coco.add_source and coco.add_target do. With the
flow's name alone it makes an empty flow, for these two. The flow belongs to the role that calls; its queries run as
that role. It also keeps the caller's TimeZone, default_text_search_config, lc_time and lc_monetary.

flow: its name, 1 to 63 bytes, unique in the database.
source: what the flow reads; see coco.add_source.
query: one SELECT, as it would be run once over everything; see coco.add_target.
target: where its rows go; see coco.add_target.
key: columns of the query that name one row of the target.
name: what the query calls the source; NULL: the relation's own name.
source_key: the columns that name an item: key of coco.add_source.
ordinal: see coco.add_source.
fingerprint: see coco.add_source.
capture: see coco.add_source.
refresh_interval: see coco.add_source.
search_path: the search path under which the flow's queries are analysed and run, always.
server: see coco.add_target.
options: see coco.add_target.
item: see coco.add_target.

    SELECT coco.create_flow('doc_chunks',
      source => 'documents',
      query  => $$ SELECT d.id AS doc_id, c.n, c.chunk
                     FROM documents d, coco.split_text(d.body, 20) AS c $$,
      target => 'doc_chunks',
      key    => '{doc_id,n}');

Errors: 42710 the name is taken, maybe by a flow that you do not see; 22023 and 42622 a name that is none; and those of
coco.add_source and coco.add_target. An error leaves nothing behind.$doc$;

comment on function coco.add_source is $doc$Adds a source to a flow that has no target yet.

flow: its name.
source: a table (not a temporary one), partitioned table, view, materialized view or foreign table.
name: what the query calls it; NULL: the relation's own name.
key: the columns that name an item; NULL: the primary key. Where a unique index stands on exactly these columns an item
  is a row. Where none does, the rows that share the key are one item, a group. For a view, materialized view or
  foreign table the key must be given, and items are groups unless there is an ordinal.
ordinal: an expression over the source's columns that grows with each version of an item: smallint, integer, bigint,
  date, timestamp or timestamptz. An item whose ordinal is known is skipped, its content unread; so a change that
  leaves the ordinal as it was is not seen. NULL skips nothing. For a view, materialized view or foreign table it says
  that each key names one row. Not for groups of a table.
fingerprint: an expression over the source's columns whose value stands for an item's content; NULL: the columns that the
  flow's queries use. Two versions with the same value are the same: the query is not evaluated. For a group it is
  computed for each row.
capture: how changes are found. trigger: triggers note the keys of changed rows, and an update looks at these. always:
  the same, also for rows that logical replication applies, or that are written with session_replication_role =
  replica. scan: each update reads all of the source, or, with an ordinal, all of its ordinals. auto, or NULL: trigger
  where that can be (a logged table on which the owner may put triggers), otherwise scan.
refresh_interval: how often a live flow reads a source that is not captured; NULL: a minute; '0': as often as its worker
  looks.

All flows on a table share its triggers and its change log. To make them, the declaration waits for those who are
writing to the table, and holds off others until its transaction ends.

    CREATE TABLE sales (id int PRIMARY KEY, cust int NOT NULL, amount numeric NOT NULL);
    SELECT coco.create_flow('totals', 'sales', source_key => '{cust}',
      query  => $$ SELECT cust, count(*) AS n, sum(amount) AS total FROM sales GROUP BY cust $$,
      target => 'totals', key => '{cust}');

Errors: 55000 the flow has a target already; 42501 the owner may not read the source; 42P16 there is no key, or a column
of it is nullable; 42703, 42804 and 42601 a key, ordinal or fingerprint that does not fit; 0A000 a temporary table, an
ordinal of groups, or a table that cannot be captured where capture asks for it; 22023 another argument is wrong.$doc$;

comment on function coco.add_lookup is $doc$Has changes of a relation that a flow's query reads besides its source evaluate again the items that they affect.

Give lookups after the source and before the target: then coco.add_target does not warn of them. A row of the lookup
has changed if a column that the flow's queries use has, or its key.

flow: its name.
lookup: a table (not a temporary one), partitioned table, view, materialized view or foreign table.
name: what affects calls it; NULL: the relation's own name.
affects: one SELECT, from changed keys of the lookup to keys of the source. In it name is a relation of the key columns
  of the rows that were inserted, updated or deleted. NULL: a change affects every item.
source: the source whose items are affected, by its name in the flow; needed where the flow has several.
key: the columns that name a row of the lookup, or a group of rows; NULL: the primary key. Where items are found by a
  column that may change, or by rows that are deleted, make that column the key.
capture: as in coco.add_source.
refresh_interval: as in coco.add_source.

    CREATE TABLE authors (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE books (id int PRIMARY KEY, author int NOT NULL, title text NOT NULL);
    SELECT coco.create_flow('cards');
    SELECT coco.add_source('cards', 'books');
    SELECT coco.add_lookup('cards', 'authors',
      affects => $$ SELECT b.id FROM authors a JOIN books b ON b.author = a.id $$);
    SELECT coco.add_target('cards', 'cards',
      $$ SELECT b.id, b.title || ', by ' || a.name AS card
           FROM books b JOIN authors a ON a.id = b.author $$,
      '{id}');

Errors: 42601, 22023 and 42804 affects is no SELECT, does not read the lookup, or does not return the source's key; 42710
the name is taken; 55000 the flow has no source yet; and those of coco.add_source about relation, key and capture.$doc$;

comment on function coco.add_target is $doc$Adds a target to a flow: what query returns for each source item is kept in it.

flow: its name.
target: table or schema.table, quoted as in SQL; without a schema, the table found on the flow's search path, or else in
  the schema where it would be made. With server: what the connector calls so there, as it is written.
query: one SELECT, as it would be run once over everything. A source's name is a relation that holds just the item; all
  else that the query reads is visible in full. What it names is bound now, as in a view.
key: columns of the query that name one row of the target.
server: the name of a foreign server of coco_postgres, coco_qdrant, coco_neo4j, coco_kafka or coco_http; NULL: a table of
  this database.
options: a JSON object of what the connector is to know of the target; coco.wrapper_options() lists them.
item: the alias under which the query reads the item, where it reads the source in several places, always with its
  schema. NULL: the places that name it without a schema, or else the only one.

A table that does not exist is made with the query's columns and a primary key on key, and belongs to the flow's owner.
One that exists is adopted if its columns fit and a unique index stands on exactly the key: it is never altered and
never dropped; rows that are there already stay until coco.verify(flow, repair => true) deletes them. A row belongs to the
item that produced it. With several sources, collect them with UNION ALL: the query is evaluated for an item of one
source while the others are empty. With several targets an item is written to all of them or to none.

    SELECT coco.create_flow('everything');
    SELECT coco.add_source('everything', 'documents');
    SELECT coco.add_source('everything', 'letters');
    SELECT coco.add_target('everything', 'all_texts',
      $$ SELECT 'letter' AS kind, id, body FROM letters
         UNION ALL
         SELECT 'document', id, body FROM documents $$,
      '{kind,id}');

Errors: 42601 the query is not exactly one SELECT; 22023 it does not read a source; 0A000 it joins two sources,
or reads one in a way that an item cannot be read; 42P09 it reads a source in several places; 42611,
42701 and 42703 its columns; 42804 and 42P16 a table that does not fit; 55006 a target that belongs to another flow; 42501
missing rights; HV00D, HV024 and HV00J an option of the connector. WARNING 01000 says what of the query is not followed.$doc$;

comment on function coco.set_query is $doc$Changes the query of a flow's target; the key stays.

A table that coco made is altered to the new columns: those that are gone are dropped, new ones added, a column whose
type changes loses its values until the next update; if a key column changes its type the table is emptied. An adopted
table must fit already. The next update evaluates every item and writes the rows that came out different. What a target
outside this database has is not altered: if the columns change, all its rows are sent again.

flow: its name.
target: the table's present name, or what a target outside this database was declared as; NULL: the flow's only target.
query: as in coco.add_target. It is bound anew, also where its text is the same.
item: as in coco.add_target.

    SELECT coco.set_query('doc_chunks', NULL,
      $$ SELECT d.id AS doc_id, c.n, c.chunk, length(c.chunk) AS length
           FROM documents d, coco.split_text(d.body, 20) AS c $$);

Errors: those of coco.add_target about query, key and fit; 22023 and 42704 which target is meant; 0A000 the key of a target
outside this database would change its type.$doc$;

comment on function coco.alter_flow is $doc$Changes a flow; what is NULL stays as it is. Waits until what a worker, or another session, is doing for the flow is done.

flow: its name.
owner: the role that owns the flow from now on, with its tables and views in the schema coco, and the targets in this
  database that coco made. The caller must be able to be that role, and the role needs CREATE on the schemas of these
  targets, as for ALTER TABLE … OWNER TO. Nothing else is granted: if it may not read the sources, the next update says so.
label: a version, a commit, or what else tells the code: shown by coco.lineage for what is evaluated, and by coco.history
  for what is run, from now on. An empty one takes it away. It is no part of the logic: nothing is evaluated for it.
batch_size: source items evaluated and written as one batch, 1 to 1000000, in place of the setting coco.batch_size; 0 goes
  back to the setting.
paused: true: nothing is updated or sent until it is false again. coco.update is refused, workers leave the flow alone,
  changes go on being captured, so that its change log grows.
lineage_index: true makes an index on each of the flow's tracking tables by which coco.lineage finds target keys that are
  listed; it costs writes. false drops them.

    SELECT coco.alter_flow('doc_chunks', label => 'v1.2', batch_size => 500);

Errors: 22023 batch_size; 42501 the flow is not yours, or you cannot be the new owner.$doc$;

comment on function coco.drop_flow is $doc$Drops a flow, its tracking tables, its query views and what it keeps of memoised functions; of a target outside this database also its ledger and its outbox, with what was not sent yet.

flow: its name.
keep_targets: false: the targets that coco made are dropped too; adopted ones never are. Outside this database, what the
  connector has made is removed, by a worker that the call waits for and that a ROLLBACK does not undo. Stop a live flow
  before that.

With the last flow that captures a table go its triggers and its change log. A table that is in use keeps its triggers,
which then do nothing, under a WARNING.

Errors: 42704 no such flow; 42501 it is not yours; with keep_targets false, what hinders the connector.$doc$;

comment on function coco.update is $doc$Brings a flow's targets up to date.

In the caller's transaction: it sees the transaction's own changes, and goes if that rolls back. A flow with a target
outside this database, or whose query calls coco.embed, coco.generate or coco.http_post, is updated by a worker that the
call starts and waits for, in transactions of its own: it sees what is committed, returns when all that was to be sent has
arrived or was refused, and can be cancelled. Two updates of one flow wait for each other.

flow: its name.
mode: normal: items whose version, content or logic changed, and failed ones that are due; rows that came out different are
  written. retry: the same, and all failed items and refused rows. full_reprocess: every item is evaluated. reexport:
  every item is evaluated, and every row written.

A row is returned for each source:

source: its name in the flow.
seen: items that the source has now; where only changes are looked at, of these alone.
skipped: of these, left as they are because of their ordinal and the logic.
unchanged: of these, left because of their content fingerprint and the logic.
evaluated: items for which the query was evaluated, successfully or not.
upserted: target rows inserted or updated, of all targets; or, outside this database, that are to be sent.
deleted: target rows deleted; or that are to be deleted there.
failed: items that failed now or wait for their next retry, and rows that a target outside this database refused.
elapsed: time spent on the source.
memo: what the calls of memoised functions came to, by their names; NULL where there were none. Each is an object: calls,
  hits, misses, errors, requests, tokens_in, tokens_out, cost, bytes, milliseconds.

    SELECT source, seen, evaluated, upserted, deleted, failed FROM coco.update('doc_chunks');

Errors: 55000 no target yet, something that the flow reads is gone, or, for a worker, the flow is not committed; 22023 the
mode; 22004 and 21000 a view's key is NULL or names several rows; 40001 a snapshot from before another update; 42501 a right
is missing; 55006 the worker waits for the calling transaction; 25006 a standby; 53400 no worker could be started; or what
a connector or provider says. An item that fails is no error: see coco.errors.$doc$;

comment on function coco.retry is $doc$As coco.update(flow, 'retry'): failed items are evaluated again without waiting for their next retry, and rows that a target outside this database has refused are sent again.

flow: its name.

Its result is that of coco.update.$doc$;

comment on function coco.start is $doc$Makes a flow live: from the commit on, a worker keeps its targets up to date. No error for a flow that is live: one that has failed is tried at once.

With coco in shared_preload_libraries writers wake the worker as they commit, and live flows go on after a restart.
Without it the worker looks for changes every 100 ms and ends with the server. Triggers and change logs of its sources
that are missing are made, which waits for those who are writing.

flow: its name.

    SELECT coco.start('doc_chunks');

Errors: 55000 the flow has no target yet. WARNING 53400: no worker could be started, all of max_worker_processes are
taken.$doc$;

comment on function coco.stop is $doc$Makes a flow live no more; cancels what a worker is doing for it, and waits for a session that updates it. No error for one that is not live.

Changes go on being captured, for the next coco.update or coco.start; until then the change log grows. To targets outside
this database nothing more is sent, but for a batch that is on its way already.

flow: its name.

    SELECT coco.stop('doc_chunks');

Errors: 42704 no such flow; 42501 it is not yours.$doc$;

comment on function coco.wait is $doc$Waits until all that was committed before the call is in the targets of a live flow: true; or until the time is over: false.

What the calling transaction itself has changed is not waited for. A source that is not captured must have been read
since, so the wait can last its refresh_interval. Targets outside this database must have been sent to; rows that they
refused are not waited for.

flow: its name.
timeout: how long, at most.

Errors: 55000 the flow is not live.$doc$;
