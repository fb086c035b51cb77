-- The functions. Each function sets its search_path, unless a comment at the function says why it does not. Code that a
-- user wrote runs under the flow's search_path. The COMMENTs on the functions that users call are in comments/.

create function coco.create_flow(
  flow        text,
  -- a relation's name, or a query
  source      text     default null,
  query       text     default null,
  target      text     default null,
  key         text[]   default null,
  name        text     default null,
  source_key  text[]   default null,
  ordinal     text     default null,
  fingerprint text     default null,
  capture     text     default null,
  refresh_interval interval default null,
  -- PostgreSQL evaluates the default under the caller's search_path, before the function sets its own
  search_path text     default pg_catalog.current_setting('search_path'),
  server      text     default null,
  options     jsonb    default null,
  item        text     default null,
  if_not_exists boolean default false,
  or_replace  boolean default false,
  settings    jsonb   default null,
  lookups     text    default null,
  refresh     text    default null,
  fill_order  text    default null,
  aggregate   text    default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'create_flow_wrapper';

-- For a source of type regclass. PostgreSQL resolves a literal to the form above.
create function coco.create_flow(
  flow        text,
  source      regclass,
  query       text     default null,
  target      text     default null,
  key         text[]   default null,
  name        text     default null,
  source_key  text[]   default null,
  ordinal     text     default null,
  fingerprint text     default null,
  capture     text     default null,
  refresh_interval interval default null,
  -- PostgreSQL evaluates the default under the caller's search_path, before the function sets its own
  search_path text     default pg_catalog.current_setting('search_path'),
  server      text     default null,
  options     jsonb    default null,
  item        text     default null,
  if_not_exists boolean default false,
  or_replace  boolean default false,
  settings    jsonb   default null,
  lookups     text    default null,
  refresh     text    default null,
  fill_order  text    default null,
  aggregate   text    default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'create_flow_over_wrapper';

create function coco.plan(
  flow        text,
  -- a relation's name, or a query
  source      text     default null,
  query       text     default null,
  target      text     default null,
  key         text[]   default null,
  name        text     default null,
  source_key  text[]   default null,
  ordinal     text     default null,
  fingerprint text     default null,
  capture     text     default null,
  refresh_interval interval default null,
  -- as in coco.create_flow
  search_path text     default pg_catalog.current_setting('search_path'),
  server      text     default null,
  options     jsonb    default null,
  item        text     default null,
  settings    jsonb    default null,
  lookups     text     default null,
  refresh     text     default null,
  fill_order  text     default null,
  aggregate   text     default null,
  out object text, out name text, out change text, out effect text
) returns setof record language c volatile
  rows 3
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'plan_wrapper';

-- For a source of type regclass. PostgreSQL resolves a literal to the form above.
create function coco.plan(
  flow        text,
  source      regclass,
  query       text     default null,
  target      text     default null,
  key         text[]   default null,
  name        text     default null,
  source_key  text[]   default null,
  ordinal     text     default null,
  fingerprint text     default null,
  capture     text     default null,
  refresh_interval interval default null,
  -- as in coco.create_flow
  search_path text     default pg_catalog.current_setting('search_path'),
  server      text     default null,
  options     jsonb    default null,
  item        text     default null,
  settings    jsonb    default null,
  lookups     text     default null,
  refresh     text     default null,
  fill_order  text     default null,
  aggregate   text     default null,
  out object text, out name text, out change text, out effect text
) returns setof record language c volatile
  rows 3
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'plan_over_wrapper';

create function coco.flow_definition(flow text) returns text
  language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'flow_definition_wrapper';

create function coco.definitions(out flow text, out definition text) returns setof record
  language c volatile
  rows 100
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'definitions_wrapper';

create function coco.add_source(
  flow        text,
  source      regclass,
  name        text   default null,
  key         text[] default null,
  ordinal     text   default null,
  fingerprint text   default null,
  capture     text   default null,
  refresh_interval interval default null,
  if_not_exists boolean default false
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
  refresh_interval interval default null,
  if_not_exists boolean default false
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
  item    text  default null,
  if_not_exists boolean default false
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'add_target_wrapper';

create function coco.set_query(
  flow     text,
  target   text,
  query    text,
  item     text     default null,
  gapless  boolean  default false,
  swap     text     default 'auto',
  keep_old interval default '0',
  key      text[]   default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'set_query_wrapper';

create function coco.expect(
  flow      text,
  condition text,
  action    text   default 'park',
  max_share float8 default null,
  name      text   default null,
  target    text   default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'expect_wrapper';

create function coco.drop_expectation(
  flow   text,
  name   text,
  target text default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'drop_expectation_wrapper';

create function coco.swap(flow text) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'swap_wrapper';

create function coco.rollback(flow text) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'rollback_wrapper';

create function coco.discard(flow text) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'discard_wrapper';

create function coco.diff(
  flow     text,
  max_rows int default 100,
  out difference text, out key jsonb, out old jsonb, out new jsonb
) returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'diff_wrapper';

create function coco.alter_flow(
  flow       text,
  owner      regrole default null,
  label      text    default null,
  batch_size int     default null,
  paused     boolean default null,
  lineage_index boolean default null,
  source      text   default null,
  ordinal     text   default null,
  fingerprint text   default null,
  capture     text   default null,
  refresh_interval interval default null,
  search_path text   default null,
  settings    jsonb  default null,
  target      text   default null,
  options     jsonb  default null,
  verify_interval interval default null,
  max_rows    bigint default null,
  max_cost    double precision default null,
  refresh     text   default null,
  fill_order  text   default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'alter_flow_wrapper';

create function coco.allow(flow text) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'allow_wrapper';

create function coco.rename_flow(
  flow     text,
  new_name text
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'rename_flow_wrapper';

create function coco.drop_flow(
  flow         text,
  keep_targets boolean default true,
  if_exists    boolean default false
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'drop_flow_wrapper';

create function coco.update(
  flow     text,
  mode     text    default 'normal',
  upstream boolean default false,
  out source text, out seen bigint, out skipped bigint, out unchanged bigint,
  out evaluated bigint, out upserted bigint, out deleted bigint, out failed bigint,
  out elapsed interval, out memo jsonb, out flow_name text
) returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'update_wrapper';

create function coco.update_all(
  flows text[] default null,
  out flow text, out source text, out seen bigint, out skipped bigint, out unchanged bigint,
  out evaluated bigint, out upserted bigint, out deleted bigint, out failed bigint,
  out elapsed interval, out memo jsonb
) returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'update_all_wrapper';

create function coco.retry(
  flow text,
  out source text, out seen bigint, out skipped bigint, out unchanged bigint,
  out evaluated bigint, out upserted bigint, out deleted bigint, out failed bigint,
  out elapsed interval, out memo jsonb
) returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'retry_wrapper';

create function coco.start(flow text) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'start_wrapper';

create function coco.stop(flow text) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'stop_wrapper';

create function coco.wait(flow text, timeout interval default '1 minute') returns boolean
  language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'wait_wrapper';

create function coco.preview(
  flow     text,
  mode     text default 'normal',
  max_rows int  default 1000,
  out target text, out change text, out key jsonb, out old jsonb, out new jsonb
) returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'preview_wrapper';

create function coco.evaluate(
  flow        text,
  source_key  jsonb,
  source_name text    default null,
  item        jsonb   default null,
  memo        boolean default true,
  explain     boolean default false,
  out source text, out target text, out key jsonb, out output jsonb, out plan text
) returns setof record language c volatile
  rows 10
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'evaluate_wrapper';

create function coco.create_search(
  search        text,
  source        regclass,
  text          text,
  server        text      default null,
  model         text      default null,
  dimensions    int       default null,
  size          int       default 1000,
  overlap       int       default 100,
  language      text      default null,
  configuration regconfig default pg_catalog.get_current_ts_config(),
  text_prefix   text      default null,
  query_prefix  text      default null,
  if_not_exists boolean   default false,
  -- PostgreSQL evaluates the default under the caller's search_path, before the function sets its own
  search_path   text      default pg_catalog.current_setting('search_path')
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'create_search_wrapper';

create function coco.search(
  search      text,
  query       text,
  max_results int  default 10,
  mode        text default 'hybrid',
  out source_key jsonb, out chunk_no int, out chunk text, out score float8
) returns setof record language c volatile
  rows 10 cost 100000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'search_wrapper';

create function coco.estimate(
  flow   text,
  query  text default null,
  target text default null,
  item   text default null,
  mode   text default 'normal',
  sample int  default 1000,
  out measure text, out estimate double precision, out low double precision, out high double precision,
  out unit text, out basis text
) returns setof record language c volatile
  rows 13
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'estimate_wrapper';

create function coco.verify(
  flow    text,
  repair  boolean default false,
  outside boolean default false,
  out target text, out difference text, out key jsonb, out source text, out since timestamptz
) returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'verify_wrapper';

create function coco.history(
  flow text,
  out run_id bigint, out started timestamptz, out elapsed interval, out reason text, out initiator text,
  out seen bigint, out skipped bigint, out unchanged bigint, out evaluated bigint,
  out upserted bigint, out deleted bigint, out failed bigint, out error text, out label text
) returns setof record language c stable
  rows 1000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'history_wrapper';
create function coco.explain(
  flow text,
  out section text, out name text, out detail text, out hint text
) returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'explain_wrapper';

create function coco.lineage(
  target text,
  key    jsonb,
  flow_name text default null,
  out flow text, out source text, out source_relation regclass, out source_key jsonb, out state text,
  out ordinal bigint, out content_fingerprint uuid, out logic_fingerprint uuid, out query text,
  out functions jsonb, out label text, out process_ordinal bigint, out process_time timestamptz,
  out memo jsonb, out byte_range int8range, out failure jsonb,
  out source_columns text[], out lookups jsonb
) returns setof record language c stable
  rows 1
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'lineage_wrapper';

create function coco.outputs(
  flow       text,
  source_key jsonb,
  source_name  text default null,
  out source text, out target text, out key jsonb, out owned_by_list boolean
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

create function coco.extract_text(content bytea, media_type text default null) returns text
  language c immutable parallel safe
  cost 100000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'extract_text_wrapper';

create function coco.extract_pages(
  content    bytea,
  media_type text default null,
  out page int, out text text
) returns setof record language c immutable parallel safe
  rows 10 cost 100000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'extract_pages_wrapper';

create function coco.split_file(
  text      text,
  size      int,
  overlap   int  default 0,
  language  text default null,
  file_name text default null,
  out n int, out chunk text, out byte_start int, out byte_end int,
  out line_start int, out line_end int, out path text[]
) returns setof record language c immutable parallel safe
  rows 10 cost 100000
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'split_file_wrapper';

create function coco.normalize_text(text text) returns text
  language c immutable strict parallel safe
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'normalize_text_wrapper';

-- Has no SET clause because it runs for each item. Its code sets the search path where it calls a type's functions.
create function coco.fingerprint(variadic "any") returns uuid
  language c stable parallel safe
  cost 30
  as 'MODULE_PATHNAME', 'coco_fingerprint';

create function coco.stable_uuid(variadic "any") returns uuid
  language c immutable parallel safe
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'coco_stable_uuid';

-- These functions are volatile, because a second call may return another answer. They do not run in parallel workers,
-- because each process applies the limits of a server by itself.

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

-- Sets no search_path: PostgreSQL never inlines a function that sets one, and without inlining each listing would read
-- every file. The function needs none, because PostgreSQL binds the names in a SQL-standard body at creation. PostgreSQL
-- inlines the function only if it and the functions that it calls are stable.
create function coco.local_files(
  directory text,
  glob      text default '**/*'
) returns table (path text, modified timestamptz, size bigint, content bytea)
  language sql stable parallel safe
  begin atomic
    select f.path, f.modified, f.size, coco.read_file(local_files.directory, f.path)
      from coco.list_files(local_files.directory, local_files.glob) as f;
  end;

create function coco_internal.tracking_rows(
  out flow text, out source text, out source_key jsonb, out source_ordinal bigint,
  out content_fingerprint uuid, out logic_fingerprint uuid, out process_ordinal bigint,
  out process_time timestamptz, out target_keys jsonb
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'tracking_rows_wrapper';
comment on function coco_internal.tracking_rows is 'Returns the rows of the view coco.tracking.';

create function coco_internal.error_rows(
  out flow text, out source text, out source_key jsonb, out sqlstate text, out message text,
  out detail text, out hint text, out attempts int, out failed_at timestamptz,
  out next_retry timestamptz, out target text, out target_key jsonb
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'error_rows_wrapper';
comment on function coco_internal.error_rows is 'Returns the rows of the view coco.errors.';

create function coco_internal.expectation_rows(
  out flow text, out target text, out name text, out condition text, out action text,
  out max_share float8, out checked bigint, out failed bigint, out parked bigint
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'expectation_rows_wrapper';
comment on function coco_internal.expectation_rows is 'Returns the rows of the view coco.expectations.';

create function coco_internal.delivery_rows(
  out flow text, out target text, out server text, out queued bigint, out rejected bigint,
  out sent_at timestamptz, out attempts int, out next_retry timestamptz,
  out sqlstate text, out last_error text, out detail text, out hint text, out verified_at timestamptz
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'delivery_rows_wrapper';
comment on function coco_internal.delivery_rows is 'Returns the rows of the view coco.delivery_status.';

-- Has no SET clause: the clause would cost every writer more than the rest of the function. The function looks up no
-- names, except once for each backend in coco's catalog; for this it acts as the extension's owner.
create function coco_internal.capture() returns trigger language c
  as 'MODULE_PATHNAME', 'coco_capture';
comment on function coco_internal.capture is
'Appends the keys of changed rows to the change log of their table. It is a trigger function, and coco creates its triggers itself.';

create function coco_internal.check_server_version() returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'check_server_version_wrapper';
comment on function coco_internal.check_server_version is
'Raises a WARNING if the server is an older minor release than coco needs. CREATE EXTENSION calls it.';

create function coco_internal.before_drop() returns event_trigger language c
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'coco_before_drop';
comment on function coco_internal.before_drop is
'Event trigger function: before DROP EXTENSION coco, locks captured tables before change logs, as writers do.';
create event trigger coco_before_drop on ddl_command_start when tag in ('DROP EXTENSION')
  execute function coco_internal.before_drop();
comment on event trigger coco_before_drop is 'Keeps DROP EXTENSION coco out of deadlocks with writers.';

create function coco_internal.worker_rows(
  out pid int, out database oid, out worker_no int, out flow int, out source int,
  out items_done bigint, out items_total bigint, out since timestamptz, out transactions bigint,
  out evaluated bigint, out upserted bigint, out deleted bigint, out failed bigint
) returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'worker_rows_wrapper';
comment on function coco_internal.worker_rows is 'Returns the current work of the workers of all databases. Returns no row unless coco is in shared_preload_libraries.';

create function coco_internal.progress_rows(
  out pid int, out database oid, out flow int, out source int, out items_done bigint, out items_total bigint,
  out since timestamptz, out estimated_end timestamptz
) returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'progress_rows_wrapper';
comment on function coco_internal.progress_rows is 'Returns the progress of current updates by workers and sessions of all databases. Returns no row unless coco is in shared_preload_libraries.';

create function coco_internal.pending_rows(out source int, out pending bigint, out is_lower_bound boolean)
  returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'pending_rows_wrapper';
comment on function coco_internal.pending_rows is 'Returns the number of captured changes that your flows have not followed yet, counted up to 100,000 for each source.';

create function coco_internal.pending_flow_rows(
  out flow text, out sources bigint, out pending bigint, out behind_since timestamptz
) returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'pending_flow_rows_wrapper';
comment on function coco_internal.pending_flow_rows is 'Returns for each of your flows the number of captured changes that the flow, or one that feeds it, has not followed yet, and since when. The column sources is the number of the flow''s own sources and lookups whose changes are counted.';

create function coco_internal.restore_is_complete() returns boolean language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'restore_is_complete_wrapper';
comment on function coco_internal.restore_is_complete is 'Reports whether workers may follow live flows. They may not while a dump is being restored, because they would find tables that are still empty.';

create function coco_internal.failure_rows(
  out flow text, out failed_items bigint, out next_retry timestamptz, out last_error text
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'failure_rows_wrapper';
comment on function coco_internal.failure_rows is 'Returns the number of failed items, parked rows and rejected rows of each of your flows, their earliest retry, and the newest message. Returns no row for a flow whose failures cannot be read.';

create function coco_internal.session_error_rows(
  out flow int, out failed_at timestamptz, out sqlstate text, out message text, out hint text
) returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'session_error_rows_wrapper';
comment on function coco_internal.session_error_rows is 'Returns the errors that ended the last update of your flows, where a session ran that update. Returns no row unless coco is in shared_preload_libraries.';

create function coco_internal.schedule_rows(out flow int, out next_update timestamptz)
  returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'schedule_rows_wrapper';
comment on function coco_internal.schedule_rows is 'Returns your live flows that have a schedule, with the time of the next update. The time is NULL if no update by the schedule has ended, or if there is no next one.';

create function coco_internal.metric_rows(
  scope text,
  out metric text, out type text, out flow text, out name text, out server text,
  out value float8, out help text
) returns setof record language c volatile
  rows 100
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'metric_rows_wrapper';
comment on function coco_internal.metric_rows is 'Returns the rows of the view coco.metrics for one scope: flow, source, target, function, expectation, log or worker.';

create function coco.memoize(
  function   regprocedure,
  version    text default null,
  batch      regprocedure default null,
  batch_size int default 1000,
  ttl        interval default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'memoize_wrapper';

create function coco.unmemoize(function regprocedure) returns void
  language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'unmemoize_wrapper';

create function coco.clear_memo(flow text default null, function regprocedure default null) returns bigint
  language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'clear_memo_wrapper';

-- Takes internal, so that no query can call it. The planner replaces calls of memoized functions by calls of this one, and
-- keeps their arguments and types. The function is stable: within a statement, equal arguments have equal results by
-- definition. It sets no search_path, because the functions that it calls must run under the flow's search_path.
create function coco_internal.memo_call(internal) returns internal
  language c stable parallel restricted cost 1000
  as 'MODULE_PATHNAME', 'coco_recall';
comment on function coco_internal.memo_call is 'Replaces the call of a memoized function in a flow''s query.';

create function coco_internal.function_rows(
  out flow text, out function text, out fingerprint uuid, out current boolean,
  out calls bigint, out hits bigint, out reused bigint, out misses bigint, out errors bigint, out requests bigint,
  out tokens_in bigint, out tokens_out bigint, out cost float8, out computed_bytes bigint,
  out elapsed interval, out entries bigint, out entry_bytes bigint, out ttl interval, out expired bigint
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'function_rows_wrapper';
comment on function coco_internal.function_rows is 'Returns the rows of the view coco.functions.';

create function coco.connector_options(
  out wrapper text, out scope text, out option text, out required boolean,
  out secret boolean, out superuser boolean, out description text
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'connector_options_wrapper';

-- Connectors are foreign data wrappers, because their servers and user mappings can hold options. The wrappers have no
-- handler, because nobody reads through them.

create function coco_internal.postgres_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'postgres_validator_wrapper';
comment on function coco_internal.postgres_validator is 'Checks the options of servers and user mappings of coco_postgres.';
create foreign data wrapper coco_postgres validator coco_internal.postgres_validator;
comment on foreign data wrapper coco_postgres is 'Connector for targets in another PostgreSQL database.';

create function coco_internal.qdrant_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'qdrant_validator_wrapper';
comment on function coco_internal.qdrant_validator is 'Checks the options of servers and user mappings of coco_qdrant.';
create foreign data wrapper coco_qdrant validator coco_internal.qdrant_validator;
comment on foreign data wrapper coco_qdrant is 'Connector for targets in Qdrant.';

create function coco_internal.neo4j_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'neo4j_validator_wrapper';
comment on function coco_internal.neo4j_validator is 'Checks the options of servers and user mappings of coco_neo4j.';
create foreign data wrapper coco_neo4j validator coco_internal.neo4j_validator;
comment on foreign data wrapper coco_neo4j is 'Connector for targets in Neo4j.';

create function coco_internal.kafka_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'kafka_validator_wrapper';
comment on function coco_internal.kafka_validator is 'Checks the options of servers and user mappings of coco_kafka.';
create foreign data wrapper coco_kafka validator coco_internal.kafka_validator;
comment on foreign data wrapper coco_kafka is 'Connector for targets in Kafka.';

create function coco_internal.http_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'http_validator_wrapper';
comment on function coco_internal.http_validator is 'Checks the options of servers and user mappings of coco_http.';
create foreign data wrapper coco_http validator coco_internal.http_validator;
comment on foreign data wrapper coco_http is 'Connector for targets at an HTTP endpoint, and for services that coco.http_post calls.';

create function coco_internal.openai_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'openai_validator_wrapper';
comment on function coco_internal.openai_validator is 'Checks the options of servers and user mappings of coco_openai.';
create foreign data wrapper coco_openai validator coco_internal.openai_validator;
comment on foreign data wrapper coco_openai is 'Connector for servers that coco.embed and coco.generate call.';
