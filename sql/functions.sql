-- The functions. Each (but two) pins its search_path; what a user wrote runs under the flow's own.
-- What users call is described in comments/.

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
  options     jsonb    default null,
  item        text     default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'create_flow_wrapper';

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

create function coco.add_target(
  flow    text,
  target  text,
  query   text,
  key     text[],
  server  text  default null,
  options jsonb default null,
  item    text  default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'add_target_wrapper';

create function coco.set_query(
  flow   text,
  target text,
  query  text,
  item   text default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'set_query_wrapper';

create function coco.alter_flow(
  flow       text,
  owner      regrole default null,
  label      text    default null,
  batch_size int     default null,
  paused     boolean default null,
  lineage_index boolean default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'alter_flow_wrapper';

create function coco.drop_flow(
  flow         text,
  keep_targets boolean default true
) returns void language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'drop_flow_wrapper';

create function coco.update(
  flow text,
  mode text default 'normal',
  out source text, out seen bigint, out skipped bigint, out unchanged bigint,
  out evaluated bigint, out upserted bigint, out deleted bigint, out failed bigint,
  out elapsed interval, out memo jsonb
) returns setof record language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'update_wrapper';

create function coco.retry(
  flow text,
  out source text, out seen bigint, out skipped bigint, out unchanged bigint,
  out evaluated bigint, out upserted bigint, out deleted bigint, out failed bigint,
  out elapsed interval, out memo jsonb
) returns setof record language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'retry_wrapper';

create function coco.start(flow text) returns void language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'start_wrapper';

create function coco.stop(flow text) returns void language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'stop_wrapper';

create function coco.wait(flow text, timeout interval default '1 minute') returns boolean
  language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'wait_wrapper';

create function coco.preview(
  flow     text,
  mode     text default 'normal',
  max_rows int  default 1000,
  out target text, out change text, out key jsonb, out old jsonb, out new jsonb
) returns setof record language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'preview_wrapper';

create function coco.verify(
  flow   text,
  repair boolean default false,
  out target text, out difference text, out key jsonb, out source text, out since timestamptz
) returns setof record language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'verify_wrapper';

create function coco.history(
  flow text,
  out run bigint, out started timestamptz, out elapsed interval, out reason text, out by text,
  out seen bigint, out skipped bigint, out unchanged bigint, out evaluated bigint,
  out upserted bigint, out deleted bigint, out failed bigint, out error text, out label text
) returns setof record language c stable strict
  rows 1000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'history_wrapper';
create function coco.explain(
  flow text,
  out section text, out name text, out detail text, out hint text
) returns setof record language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'explain_wrapper';

create function coco.lineage(
  target text,
  key    jsonb,
  of_flow text default null,
  out flow text, out source text, out source_relation regclass, out source_key jsonb, out state text,
  out ordinal bigint, out content_fingerprint uuid, out logic_fingerprint uuid, out query text,
  out functions jsonb, out label text, out process_ordinal bigint, out process_time timestamptz,
  out memo jsonb, out byte_range int8range, out failure jsonb
) returns setof record language c stable
  rows 1
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'lineage_wrapper';

create function coco.outputs(
  flow       text,
  source_key jsonb,
  of_source  text default null,
  out source text, out target text, out key jsonb, out listed boolean
) returns setof record language c stable
  rows 10
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'outputs_wrapper';

create function coco.diagram(flow text default null) returns text
  language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'diagram_wrapper';

create function coco.report() returns text
  language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'report_wrapper';

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

create function coco.normalize_text(text text) returns text
  language c immutable strict parallel safe
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'normalize_text_wrapper';

-- Runs for each item: it pins the search path by itself, where a type's functions run.
create function coco.fingerprint(variadic "any") returns uuid
  language c stable parallel safe
  cost 30
  as 'MODULE_PATHNAME', 'coco_fingerprint';

create function coco.stable_uuid(variadic "any") returns uuid
  language c immutable parallel safe
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'coco_stable_uuid';

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

create function coco.generate(
  prompt      text,
  server      text,
  model       text,
  json_schema jsonb default null
) returns text language c volatile parallel restricted
  cost 1000000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'generate_wrapper';

create function coco.http_post(url text, body jsonb) returns jsonb
  language c volatile strict parallel restricted
  cost 1000000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'http_post_wrapper';

create function coco.list_files(
  directory text,
  glob      text default '**/*',
  out path text, out modified timestamptz, out size bigint
) returns setof record language c stable parallel safe
  rows 10000 cost 10000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'list_files_wrapper';

create function coco.read_file(directory text, path text) returns bytea
  language c stable parallel safe
  cost 10000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'read_file_wrapper';

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

create function coco.progress_rows(
  out pid int, out database oid, out flow int, out source int, out done bigint, out total bigint,
  out since timestamptz, out ends_at timestamptz
) returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'progress_rows_wrapper';
comment on function coco.progress_rows is 'How far updates are that workers and sessions of all databases are making; no row without coco in shared_preload_libraries.';

create function coco.pending_rows(out source int, out pending bigint, out at_least boolean)
  returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'pending_rows_wrapper';
comment on function coco.pending_rows is 'Captured changes that your flows have not followed yet; counted up to 100,000 a source.';

create function coco.restore_is_complete() returns boolean language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'restore_is_complete_wrapper';
comment on function coco.restore_is_complete is 'Whether workers may follow live flows: not while a dump is being restored, since they would find tables that are not filled yet.';

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

create function coco.unmemoize(function regprocedure) returns void
  language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'unmemoize_wrapper';

create function coco.forget(flow text, function regprocedure default null) returns bigint
  language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'forget_wrapper';

-- Takes internal, so that no query can call it: the planner puts it in the place of calls of memoised
-- functions, with their own arguments and types. Neither immutable nor volatile: within a statement
-- equal arguments have equal results, by definition.
-- Functions that it calls find what they name under the flow's search_path: it pins none.
create function coco.recall(internal) returns internal
  language c stable parallel restricted cost 1000
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

create function coco.wrapper_options(
  out wrapper text, out place text, out option text, out required boolean,
  out secret boolean, out superuser boolean, out about text
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'wrapper_options_wrapper';

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
