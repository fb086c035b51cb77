-- What the SQL reference says of functions: docs/sql-reference.md is made of these COMMENTs. A line
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
affects: one SELECT, from changed keys of the lookup to keys of the source. In it name, without a schema, is a relation
  of the key columns of the rows that were inserted, updated or deleted. NULL: a change affects every item.
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
query: one SELECT, as it would be run once over everything. A source's name, without a schema, is a relation that holds
  just the item; all else that the query reads is visible in full.
key: columns of the query that name one row of the target.
server: the name of a foreign server of coco_postgres, coco_qdrant, coco_neo4j, coco_kafka or coco_http; NULL: a table of
  this database.
options: a JSON object of what the connector is to know of the target; coco.wrapper_options() lists them.

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

Errors: 42601 the query is not exactly one SELECT; 22023 it does not read a source; 0A000 it joins two sources; 42611,
42701 and 42703 its columns; 42804 and 42P16 a table that does not fit; 55006 a target that belongs to another flow; 42501
missing rights; HV00D, HV024 and HV00J an option of the connector. WARNING 01000 says what of the query is not followed.$doc$;

comment on function coco.set_query is $doc$Changes the query of a flow's target; the key stays.

A table that coco made is altered to the new columns: those that are gone are dropped, new ones added, a column whose
type changes loses its values until the next update; if a key column changes its type the table is emptied. An adopted
table must fit already. The next update evaluates every item and writes the rows that came out different. What a target
outside this database has is not altered: if the columns change, all its rows are sent again.

flow: its name.
target: the table's present name, or what a target outside this database was declared as; NULL: the flow's only target.
query: as in coco.add_target.

    SELECT coco.set_query('doc_chunks', NULL,
      $$ SELECT d.id AS doc_id, c.n, c.chunk, length(c.chunk) AS length
           FROM documents d, coco.split_text(d.body, 20) AS c $$);

Errors: those of coco.add_target about query, key and fit; 22023 and 42704 which target is meant; 0A000 the key of a target
outside this database would change its type.$doc$;

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

comment on function coco.stop is $doc$Makes a flow live no more; waits until whoever works on it has finished. No error for one that is not live.

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

What has changed since the last update shows as a difference too. Items that fail are left out, with their rows, under a
WARNING. Of a target outside this database the ledger is compared: what it is to have, not what it has.

flow: its name.
repair: mend what is returned: by an update; then, where differences are left, by evaluating everything again, and by
  deleting rows that no item produces.

target: where.
difference: missing: the query gives the row, the target lacks it. extra: the target has it, the query does not give it.
  different: both have the key, with other values.
key: the row's key.

    SELECT * FROM coco.verify('doc_chunks');

Errors: 42P01 a target was dropped.$doc$;

comment on function coco.split_text is $doc$Splits a text into chunks at the largest boundaries that fit: paragraphs, sentences, words.

text: the text; NULL gives no rows.
size: characters of a chunk, at most.
overlap: characters that a chunk repeats of the one before, at most.
language: plain (also NULL), or markdown, which prefers the boundaries of its elements.

n: counts from 1.
chunk: the part of the text.
byte_start: where it begins in the text in UTF-8, from 0.
byte_end: where it ends, exclusive.

    SELECT * FROM coco.split_text(E'# Head\n\nOne two three four. Five six.', 12, 0, 'markdown');

Errors: 22023 size below 1, overlap not below size, or another language.$doc$;

comment on function coco.normalize_text is $doc$A text without what is no change of content: line endings become newlines, runs of blanks one space; blanks at line ends and blank lines at the end go. Meant for the argument fingerprint.

text: the text.

    SELECT coco.normalize_text(E'One  two. \r\n\r\nThree.\r\n');$doc$;

comment on function coco.fingerprint is $doc$128 bits of the BLAKE3 hash of its arguments, of any types: values, NULLs, records. At least one argument.

The arguments are kept apart: ('a','bc'), ('ab','c') and ('a',NULL,'bc') differ. Types of extensions and those that hold
an oid count as text.

    SELECT coco.fingerprint(1, 'a'::text, null::int);$doc$;

comment on function coco.stable_uuid is $doc$A UUID of version 8 (RFC 9562) that is the same for the same arguments, whenever and in whichever database: of the BLAKE3 hash of the names of their types and their values. At least one argument.

NULL is a value of its own, 1 is another than 1::bigint, and a domain counts as the type that it is of.

    SELECT coco.stable_uuid('contracts'::text, 17, 'section 3'::text);$doc$;

comment on function coco.embed is $doc$The embedding of a text by a model of a server of coco_openai. pgvector casts it to vector by itself. Takes USAGE on the server; the key is that of the user mapping of the current role, or of PUBLIC. Inside a flow it is memoised.

input: the text; NULL gives NULL.
server: the name of the foreign server.
model: as the server calls it.
dimensions: how many numbers the vector is to have, where the model leaves that open.

Errors: 22004 server or model is NULL; 22023 dimensions, or a parameter that the server does not take; 42704, 42809 and
42501 the server; 53400 its limits, or the spending cap; others as docs/functions.md says.$doc$;

comment on function coco.generate is $doc$What a model of a server of coco_openai answers to a prompt, at temperature 0. Takes USAGE on the server; the key is that of the user mapping of the current role, or of PUBLIC. Inside a flow it is memoised.

prompt: one message of a user; NULL gives NULL.
server: the name of the foreign server.
model: as the server calls it.
json_schema: a JSON schema that the server is told to hold the answer to; the result is then a JSON text.

Errors: as of coco.embed; 22000 the model refuses, or its answer was cut off.$doc$;

comment on function coco.http_post is $doc$What a service of your own answers to a POST of a JSON body. Inside a flow it is memoised. NULL for a NULL argument.

url: must lie under that of a server of coco_http which the current role has USAGE on: scheme, host and port the same, and
  the path below it, by whole parts. The longest counts, and its user mapping is what the service is asked with.
body: what is posted.

Errors: 22023 the URL is none; 42501 it lies under that of no server which may be used; others as docs/functions.md
says.$doc$;

comment on function coco.memoize is $doc$Has a function be memoised inside all flows: where a flow's query, or a view that it reads, calls it, results are kept by the content of its arguments, and computed again only for other arguments or by other code. Called again it replaces version, batch and batch_size. For the function's owner and its members.

function: with its argument types, 'subject(text)'. It is noted by name: one that is renamed or moved is to be memoized again.
version: any text; with another, all is computed again. For what coco does not see, such as a model's file.
batch: a function over arrays, 'subjects_of(text[])', that computes many results at once: it takes an array for each
  argument and returns an array of the results, in the same order.
batch_size: how many inputs it is given, at most.

    CREATE FUNCTION subject(t text) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT lower((regexp_match(t, '^(?:The )?(\w+)'))[1]) $$;
    SELECT coco.memoize('subject(text)');

Errors: 42501 the function, or the batch function, is not yours; 42809 it returns a set or a record, or is a procedure,
an aggregate or a window function; 42P13 batch does not fit; 22023 it is memoised always, or batch_size is below 1.$doc$;

comment on function coco.unmemoize is $doc$Has a function be memoised no more: the next update of a flow that calls it evaluates every item, and lets go of its results. For the function's owner and its members.

function: with its argument types.

    SELECT coco.unmemoize('subject(text)');

Errors: 42704 it is not memoised; 42501 it is not yours.$doc$;

comment on function coco.forget is $doc$Deletes the results that a flow keeps of a memoised function, under whatever version, or of all; returns how many. Nothing is evaluated for that: an item that is evaluated later has them computed again.

flow: its name.
function: with its argument types; NULL: all.

    SELECT coco.forget('doc_chunks');

Errors: 22004 flow is NULL; 42704 no such flow; 42501 it is not yours.$doc$;

comment on function coco.local_files is $doc$The files below a directory of the server's machine that a glob matches, a row for each. A file is read only for a row whose content is asked for. For superusers and members of pg_read_server_files; in a flow its owner must be one.

directory: an absolute path, as the operating system user of the server sees it.
glob: matched against path. * and ? are any characters, or one, but /; ** as a whole part of the path any number of
  directories; {a,b} one of several; [a-z] and [!a-z] a character; \ takes the meaning from the sign that follows. A dot
  at the beginning is a character as any other. ? and […] stand for one byte.

path: below directory, without a slash before it.
modified: time of the last change of the content (mtime), in microseconds. Meant as ordinal; a file that is replaced by one
  with an older time is then not seen.
size: bytes.
content: the file; NULL if it has vanished since it was listed.

Listed are ordinary files, and symbolic links to such. A directory below that cannot be read is an error: without its
rows its files would count as deleted.

    CREATE VIEW files AS SELECT * FROM coco.local_files('/etc', 'host*');
    SELECT coco.create_flow('file_lines', 'files', source_key => '{path}', ordinal => 'modified',
      query  => $$ SELECT path, n, line
                     FROM files, regexp_split_to_table(convert_from(content, 'UTF8'), '\n')
                                 WITH ORDINALITY AS t (line, n) $$,
      target => 'file_lines', key => '{path,n}');

Errors: 42501 the role, or the operating system, does not allow it; 22004 and 22023 the arguments; 58P01 and 42809 no such
directory; 38000 and 58030 a file cannot be read; 54000 it has more than 1 GB. WARNING 22021: a file's name is no text in
the database's encoding.$doc$;

comment on function coco.list_files is $doc$What coco.local_files lists, without the content.

directory: as of coco.local_files.
glob: as of coco.local_files.

path: below directory.
modified: time of the last change of the content.
size: bytes.

Errors: as of coco.local_files.$doc$;

comment on function coco.read_file is $doc$The content of a file below a directory of the server's machine; NULL if there is none, or it is no ordinary file. For superusers and members of pg_read_server_files.

directory: an absolute path.
path: below it.

Errors: as of coco.local_files.$doc$;

comment on function coco.wrapper_options is $doc$The options of coco's foreign data wrappers: what CREATE SERVER, CREATE USER MAPPING and the argument options of coco.add_target take. Those of connectors that a build leaves out are not there.

wrapper: the foreign data wrapper.
place: server, user mapping or target.
option: its name.
required: whether it must be given.
secret: whether its value is kept out of all messages. Secrets belong in user mappings.
superuser: whether superusers alone may set it.
about: what it is for, with units and default.

    SELECT option, about FROM coco.wrapper_options() WHERE wrapper = 'coco_kafka' AND place = 'target';$doc$;
