-- The functions. Each (but one) pins its search_path; what a user wrote runs under the flow's own.

create function coco.create_flow(
  flow        text,
  source      regclass default null,
  query       text     default null,
  target      text     default null,
  key         text[]   default null,
  name        text     default null,
  source_key  text[]   default null,
  ordinal     text     default null,
  fingerprint text     default null,
  capture     text     default null,
  refresh_interval interval default null,
  -- evaluated where the caller stands, before the function pins its own
  search_path text     default pg_catalog.current_setting('search_path'),
  server      text     default null,
  options     jsonb    default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'create_flow_wrapper';
comment on function coco.create_flow is
'Declares a flow. In one call: source, query, target and key (the columns that name a row of the target); name is what the query calls the source (default: the relation''s name), source_key, ordinal, fingerprint, capture and refresh_interval are those of coco.add_source; server and options those of coco.add_target. With the flow''s name alone: an empty flow, for coco.add_source and coco.add_target. The flow belongs to the calling role; its queries run as that role, under search_path.';

create function coco.add_source(
  flow        text,
  source      regclass,
  name        text   default null,
  key         text[] default null,
  ordinal     text   default null,
  fingerprint text   default null,
  capture     text   default null,
  refresh_interval interval default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'add_source_wrapper';
comment on function coco.add_source is
'Adds a source to a flow. name: what the query calls it (default: the relation''s name). key: columns that name an item (default: the primary key); if no unique index stands on them, the rows that share a key are one item. ordinal: an expression (integer or time) that grows with each version of an item; an item with a known ordinal is skipped unread; for a view, materialized view or foreign table it says that the key names one row. fingerprint: an expression whose value stands for the item''s content, in place of the columns that the query uses. capture: how changes are found: trigger (triggers note the keys of changed rows), always (the same for rows that logical replication applies), scan (each update reads all of the source); by default, trigger where the owner may put triggers on the table. refresh_interval: how often a live flow reads a source that is not captured (default: a minute).';

create function coco.add_lookup(
  flow        text,
  lookup      regclass,
  name        text   default null,
  affects     text   default null,
  source      text   default null,
  key         text[] default null,
  capture     text   default null,
  refresh_interval interval default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'add_lookup_wrapper';
comment on function coco.add_lookup is
'Has changes of a relation that a flow''s query reads besides its source evaluate again the items they affect. affects: a query from changed keys of the lookup to keys of the source; in it name (default: the relation''s name) is a relation that holds the keys of the rows that were inserted, updated or deleted, for example SELECT d.id FROM documents d JOIN authors a ON a.id = d.author. Without it a change affects every item. source: which source, where the flow has several. key, capture and refresh_interval: as in coco.add_source.';

create function coco.add_target(
  flow    text,
  target  text,
  query   text,
  key     text[],
  server  text  default null,
  options jsonb default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'add_target_wrapper';
comment on function coco.add_target is
'Adds a target table to a flow: what query returns for each source item is kept in it, rows named by key (columns of the query). The table is made if it does not exist, and adopted if its columns fit and a unique index stands on the key. With server, a foreign server of one of coco''s wrappers, the target is what its connector calls so there; options are the connector''s.';

create function coco.set_query(
  flow   text,
  target text,
  query  text
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'set_query_wrapper';
comment on function coco.set_query is
'Changes the query of a flow''s target (NULL: its only one). A table that coco made is altered to the query''s columns; an adopted one must fit. The next update evaluates every item and writes the rows that came out different.';

create function coco.drop_flow(
  flow         text,
  keep_targets boolean default true
) returns void language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'drop_flow_wrapper';
comment on function coco.drop_flow is
'Drops a flow and its tracking tables. With keep_targets false, the targets that coco made are dropped too, also those outside this database, which a rollback does not bring back; adopted ones never are.';

create function coco.update(
  flow text,
  mode text default 'normal',
  out source text, out seen bigint, out skipped bigint, out unchanged bigint,
  out evaluated bigint, out upserted bigint, out deleted bigint, out failed bigint,
  out elapsed interval, out memo jsonb
) returns setof record language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'update_wrapper';
comment on function coco.update is
'Brings a flow''s targets up to date: in the caller''s transaction; or, where one of them is outside this database, by a worker that is waited for, and that sees what is committed. Modes: normal; retry (failed items do not wait for their next retry); full_reprocess (evaluate every item, write the rows that differ); reexport (evaluate every item, write every row). A row per source: items seen, skipped (by ordinal and logic), unchanged (by content), evaluated, failed; target rows upserted and deleted.';

create function coco.retry(
  flow text,
  out source text, out seen bigint, out skipped bigint, out unchanged bigint,
  out evaluated bigint, out upserted bigint, out deleted bigint, out failed bigint,
  out elapsed interval, out memo jsonb
) returns setof record language sql volatile strict
  set search_path = pg_catalog, pg_temp
  as $$ select * from coco.update(flow, 'retry') $$;
comment on function coco.retry is
'As coco.update, but failed items are evaluated again without waiting for their next retry.';

create function coco.start(flow text) returns void language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'start_wrapper';
comment on function coco.start is
'Makes a flow live: from the commit on, a background worker keeps its targets up to date. Sees to it that changes of its sources are captured. With coco in shared_preload_libraries live flows go on after a restart of the server.';

create function coco.stop(flow text) returns void language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'stop_wrapper';
comment on function coco.stop is
'Makes a flow that is live so no more. Waits until the worker has finished what it is doing for it. Changes go on being captured, for the next coco.update or coco.start.';

create function coco.wait(flow text, timeout interval default '1 minute') returns boolean
  language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'wait_wrapper';
comment on function coco.wait is
'Waits until everything that was committed before the call is in the targets of a live flow: true; or until the timeout: false.';

create function coco.preview(
  flow     text,
  mode     text default 'normal',
  max_rows int  default 1000,
  out target text, out change text, out key jsonb, out old jsonb, out new jsonb
) returns setof record language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'preview_wrapper';
comment on function coco.preview is
'What coco.update in this mode would change, at most max_rows changes: insert, update or delete with the row''s key, its old and its new value, or fail for an item that cannot be evaluated. Writes nothing.';

create function coco.verify(
  flow   text,
  repair boolean default false,
  out target text, out difference text, out key jsonb
) returns setof record language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'verify_wrapper';
comment on function coco.verify is
'Compares each target of a flow with its query over everything: missing, extra and different rows; no row when all is well. Items that fail, and their rows, are left out. With repair, mends what it returns.';

create function coco.history(
  flow text,
  out run bigint, out started timestamptz, out elapsed interval, out reason text, out by text,
  out seen bigint, out skipped bigint, out unchanged bigint, out evaluated bigint,
  out upserted bigint, out deleted bigint, out failed bigint, out error text, out label text
) returns setof record language c stable strict
  rows 1000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'history_wrapper';
comment on function coco.history is
'The last runs of a flow, at most coco.history_size, the newest first. reason: first (nothing was tracked yet), logic (the query or what it reaches had changed), change (sources or lookups may have), retry, full (full_reprocess) or reexport. by: session (coco.update) or worker: of a live flow a row is what its worker did in up to a minute. elapsed: time spent. Counts are sums over the flow''s sources; error says why a run failed as a whole (one that failed in the caller''s transaction was rolled back with its row); label is that of the flow when it ran.';
create function coco.explain(
  flow text,
  out section text, out name text, out detail text, out hint text
) returns setof record language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'explain_wrapper';
comment on function coco.explain is
'How a flow works, a row for each thing that is to be known: its sources, lookups and targets; what the content and logic fingerprints cover; which change leads to what; the statement that evaluates a batch, its plans for one item and for coco.batch_size items, whether they are set-based, and indexes that they would want; warnings. Plans are made as the flow''s owner; nothing of the flow is executed. For the flow''s owner (else 42501); 55000 where its query is broken.';

create function coco.diagram(flow text default null) returns text
  language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'diagram_wrapper';
comment on function coco.diagram is
'A flow, or by default all flows that you may see, as a flowchart in Mermaid''s language: sources, lookups (dotted), memoised functions, targets, by server where they are outside this database; flows in the colour of their state. A table that is the target of one flow and the source of another stands there once. 42704 where there is no such flow, 42501 where it is another''s.';

create function coco.report() returns text
  language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'report_wrapper';
comment on function coco.report is
'A page of HTML about your flows, which needs nothing but itself: psql -At -c ''select coco.report()'' > report.html. What feeds what, states, lag, errors with hints, the last runs, targets, memoised functions and workers, in the time zone of the session.';

create function coco.split_text(
  text     text,
  size     int,
  overlap  int  default 0,
  language text default null,
  out n int, out chunk text, out byte_start int, out byte_end int
) returns setof record language c immutable parallel safe
  rows 10 cost 1000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'split_text_wrapper';
comment on function coco.split_text is
'Splits a text into chunks of at most size characters at the largest boundaries that fit (paragraphs, sentences, words; with language markdown its elements), each repeating at most overlap characters of the one before. n counts from 1; the chunk is bytes byte_start (inclusive, from 0) to byte_end (exclusive) of the text.';

create function coco.normalize_text(text text) returns text
  language c immutable strict parallel safe
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'normalize_text_wrapper';
comment on function coco.normalize_text is
'A text without what is no change of content: line endings become newlines, runs of blanks one space; blanks at line ends and blank lines at the end go.';

create function coco.fingerprint(variadic "any") returns uuid
  language c stable parallel safe
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'coco_fingerprint';
comment on function coco.fingerprint is
'128 bits of the BLAKE3 hash of its arguments, of any types: values, NULLs, records.';

create function coco.stable_uuid(variadic "any") returns uuid
  language c immutable parallel safe
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'coco_stable_uuid';
comment on function coco.stable_uuid is
'A UUID (version 8) that is the same for the same arguments, in every database and at any time: of the BLAKE3 hash of their types'' names and their values. NULL is a value of its own.';

-- Volatile: who asks again may hear something else. Not in parallel workers: each process keeps to
-- the limits of a server by itself.

create function coco.embed(
  input      text,
  server     text,
  model      text,
  dimensions int default null
) returns real[] language c volatile parallel restricted
  cost 1000000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'embed_wrapper';
comment on function coco.embed is
'The embedding of a text by a model of a server of coco_openai; NULL of NULL. dimensions: how many numbers it is to have, where the model leaves that open. Takes USAGE on the server; the key is that of the user mapping of the current role.';

create function coco.generate(
  prompt      text,
  server      text,
  model       text,
  json_schema jsonb default null
) returns text language c volatile parallel restricted
  cost 1000000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'generate_wrapper';
comment on function coco.generate is
'What a model of a server of coco_openai answers to a prompt, at temperature 0; NULL of NULL. With json_schema, a JSON text that the server holds to that schema. Takes USAGE on the server; the key is that of the user mapping of the current role.';

create function coco.http_post(url text, body jsonb) returns jsonb
  language c volatile strict parallel restricted
  cost 1000000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'http_post_wrapper';
comment on function coco.http_post is
'What a service of your own answers to a POST of this JSON. The URL must lie under that of a server of coco_http which the current role has USAGE on: the longest counts, and its user mapping is what the service is asked with.';

create function coco.list_files(
  directory text,
  glob      text default '**/*',
  out path text, out modified timestamptz, out size bigint
) returns setof record language c stable parallel safe
  rows 10000 cost 10000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'list_files_wrapper';
comment on function coco.list_files is
'The files below a directory of the server that a glob matches: path below the directory, time of the last change, bytes. For superusers and members of pg_read_server_files.';

create function coco.read_file(directory text, path text) returns bytea
  language c stable parallel safe
  cost 10000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'read_file_wrapper';
comment on function coco.read_file is
'The content of a file below a directory of the server; NULL if there is none. For superusers and members of pg_read_server_files.';

-- Without a search_path of its own: a function that sets one is never inlined, and then every file
-- would be read whenever one is listed. It needs none: a body in SQL's standard form is bound to
-- what it names here and now. Stable, and so are both that it calls, or it would not be inlined.
create function coco.local_files(
  directory text,
  glob      text default '**/*'
) returns table (path text, modified timestamptz, size bigint, content bytea)
  language sql stable parallel safe
  begin atomic
    select f.path, f.modified, f.size, coco.read_file(local_files.directory, f.path)
      from coco.list_files(local_files.directory, local_files.glob) as f;
  end;
comment on function coco.local_files is
'The files below a directory of the server that a glob matches, as rows: path below the directory, time of the last change, bytes, content. A file is read only for a row whose content is asked for. For superusers and members of pg_read_server_files.';

create function coco.tracking_rows(
  out flow text, out source text, out source_key jsonb, out source_ordinal bigint,
  out content_fingerprint uuid, out logic_fingerprint uuid, out process_ordinal bigint,
  out process_time timestamptz, out target_keys jsonb
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'tracking_rows_wrapper';
comment on function coco.tracking_rows is 'The rows of coco.tracking.';

create function coco.error_rows(
  out flow text, out source text, out source_key jsonb, out sqlstate text, out message text,
  out detail text, out hint text, out attempts int, out failed_at timestamptz,
  out next_retry timestamptz, out target text, out target_key jsonb
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'error_rows_wrapper';
comment on function coco.error_rows is 'The rows of coco.errors.';

create function coco.delivery_rows(
  out flow text, out target text, out server text, out unsent bigint, out refused bigint,
  out sent_at timestamptz, out attempts int, out next_retry timestamptz,
  out sqlstate text, out last_error text, out detail text, out hint text
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'delivery_rows_wrapper';
comment on function coco.delivery_rows is 'The rows of coco.deliveries.';

-- No SET clause: it would cost every writer more than the rest. The function finds nothing by name,
-- but for one look-up a backend in coco's catalog, for which it takes the extension owner's rights.
create function coco.capture() returns trigger language c
  as 'MODULE_PATHNAME', 'coco_capture';
comment on function coco.capture is
'Trigger function: appends the keys of changed rows to the change log of their table. coco creates its triggers itself.';

create function coco.worker_rows(
  out pid int, out database oid, out seat int, out flow int, out source int,
  out done bigint, out total bigint, out since timestamptz, out turns bigint,
  out evaluated bigint, out upserted bigint, out deleted bigint, out failed bigint
) returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'worker_rows_wrapper';
comment on function coco.worker_rows is 'What workers of all databases are doing; no row without coco in shared_preload_libraries.';

create function coco.pending_rows(out source int, out pending bigint, out at_least boolean)
  returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'pending_rows_wrapper';
comment on function coco.pending_rows is 'Captured changes that your flows have not followed yet; counted up to 100,000 a source.';

create function coco.metric_rows(
  scope text,
  out metric text, out type text, out flow text, out name text, out server text,
  out value float8, out help text
) returns setof record language c volatile strict
  rows 100
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'metric_rows_wrapper';
comment on function coco.metric_rows is 'The rows of coco.metrics of one scope: flow, source, target, function, log or worker.';

create function coco.memoize(
  function   regprocedure,
  version    text default null,
  batch      regprocedure default null,
  batch_size int default 1000
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'memoize_wrapper';
comment on function coco.memoize is
'Has a function be memoised inside flows: where a flow''s query, or a view that it reads, calls it, results are kept by the content of its arguments, and are computed again only for arguments that no item of the flow has had, or when the function''s code, or what it reaches, or version changes. batch names a function over arrays, ''my_function(text[])'', that computes at most batch_size results at once. For the function''s owner.';

create function coco.unmemoize(function regprocedure) returns void
  language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'unmemoize_wrapper';
comment on function coco.unmemoize is 'Has a function be memoised no more.';

create function coco.forget(flow text, function regprocedure default null) returns bigint
  language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'forget_wrapper';
comment on function coco.forget is
'Deletes the results that a flow keeps of a memoised function, or of all; returns how many. What is evaluated afterwards computes them again; nothing is evaluated for that.';

-- Takes internal, so that no query can call it: the planner puts it in the place of calls of memoised
-- functions, with their own arguments and types. Neither immutable nor volatile: within a statement
-- equal arguments have equal results, by definition.
create function coco.recall(internal) returns internal
  language c stable parallel restricted cost 1000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'coco_recall';
comment on function coco.recall is 'Stands for the call of a memoised function in a flow''s query.';

create function coco.function_rows(
  out flow text, out function text, out fingerprint uuid, out current boolean,
  out calls bigint, out hits bigint, out misses bigint, out errors bigint, out requests bigint,
  out tokens_in bigint, out tokens_out bigint, out cost float8, out computed_bytes bigint,
  out elapsed interval, out entries bigint, out entry_bytes bigint
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'function_rows_wrapper';
comment on function coco.function_rows is 'The rows of coco.functions.';

-- Connectors, as foreign data wrappers: their servers and user mappings hold options. They read
-- nothing, so they have no handler.

create function coco.postgres_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'postgres_validator_wrapper';
comment on function coco.postgres_validator is 'Checks the options of servers and user mappings of coco_postgres.';
create foreign data wrapper coco_postgres validator coco.postgres_validator;
comment on foreign data wrapper coco_postgres is 'Targets of coco in another Postgres.';

create function coco.qdrant_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'qdrant_validator_wrapper';
comment on function coco.qdrant_validator is 'Checks the options of servers and user mappings of coco_qdrant.';
create foreign data wrapper coco_qdrant validator coco.qdrant_validator;
comment on foreign data wrapper coco_qdrant is 'Targets of coco in Qdrant.';

create function coco.neo4j_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'neo4j_validator_wrapper';
comment on function coco.neo4j_validator is 'Checks the options of servers and user mappings of coco_neo4j.';
create foreign data wrapper coco_neo4j validator coco.neo4j_validator;
comment on foreign data wrapper coco_neo4j is 'Targets of coco in Neo4j.';

create function coco.kafka_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'kafka_validator_wrapper';
comment on function coco.kafka_validator is 'Checks the options of servers and user mappings of coco_kafka.';
create foreign data wrapper coco_kafka validator coco.kafka_validator;
comment on foreign data wrapper coco_kafka is 'Targets of coco in Kafka.';

create function coco.http_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'http_validator_wrapper';
comment on function coco.http_validator is 'Checks the options of servers and user mappings of coco_http.';
create foreign data wrapper coco_http validator coco.http_validator;
comment on foreign data wrapper coco_http is 'Targets of coco in an HTTP endpoint, and services that coco.http_post asks.';

create function coco.openai_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'openai_validator_wrapper';
comment on function coco.openai_validator is 'Checks the options of servers and user mappings of coco_openai.';
create foreign data wrapper coco_openai validator coco.openai_validator;
comment on foreign data wrapper coco_openai is 'Servers that coco.embed and coco.generate ask.';
