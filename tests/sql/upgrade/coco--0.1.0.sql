-- The schema and the functions of version 0.1.0, without comments, views and two functions that later libraries do not
-- have. As CREATE EXTENSION ran them; tests/sql/upgrade.rs makes an extension of them.
create schema coco;

create table coco.flow (
  flow        text primary key check (flow <> '' and octet_length(flow) <= 63),
  id          int generated always as identity unique,
  owner       regrole not null,
  search_path text not null,
  settings    jsonb not null,
  live        boolean not null default false,
  memo        regclass,
  label       text,
  batch_size  int check (batch_size > 0),
  paused      boolean not null default false,
  lineage_index boolean not null default false,
  created     timestamptz not null default pg_catalog.now()
);

create table coco.capture (
  id       int generated always as identity primary key,
  relation regclass not null unique,
  columns  text[] not null,
  always   boolean not null,
  segment  int not null default 0,
  since    xid8
);

create table coco.source (
  id          int generated always as identity primary key,
  flow        text not null references coco.flow on delete cascade,
  name        text not null,
  relation    regclass not null,
  key         text[] not null,
  grouped     boolean not null,
  ordinal     text,
  ordinal_sql text,
  fingerprint text,
  used        text[] not null default '{}',
  tracking    regclass not null,
  capture     text not null default 'scan' check (capture in ('scan', 'trigger', 'always')),
  refresh_interval interval,
  lookup_of   int references coco.source on delete cascade,
  affects     text,
  unique (flow, name)
);
create table coco.cursor (
  source    int primary key references coco.source on delete cascade,
  snapshot  pg_snapshot not null,
  logic     int not null,
  signature uuid not null,
  taken     timestamptz not null default pg_catalog.clock_timestamp()
) with (fillfactor = 50);

create table coco.target (
  id          int generated always as identity primary key,
  flow        text not null references coco.flow on delete cascade,
  schema      text not null,
  name        text not null,
  relation    regclass not null,
  query       text not null,
  key         text[] not null,
  covered     text[],
  made        boolean not null,
  incarnation int not null default 1,
  query_view  regclass,
  server      text,
  external    text,
  options     jsonb,
  outbox      regclass,
  columns     text[],
  unique (schema, name),
  unique (server, external)
);
create table coco.delivery (
  target     int primary key references coco.target on delete cascade,
  sent       bigint not null default 0,
  filling    bigint,
  sent_at    timestamptz,
  attempts   int not null default 0,
  of_server  boolean not null default false,
  failed_at  timestamptz,
  next_retry timestamptz,
  sqlstate   text,
  message    text,
  detail     text,
  hint       text
) with (fillfactor = 50);
create table coco.run (
  id       bigint primary key,
  ended    timestamptz not null default pg_catalog.clock_timestamp(),
  counts   jsonb,
  sqlstate text,
  message  text,
  detail   text,
  hint     text
);
create table coco.trouble (
  flow       int primary key references coco.flow (id) on delete cascade,
  attempts   int not null,
  failed_at  timestamptz not null default pg_catalog.clock_timestamp(),
  next_retry timestamptz not null,
  sqlstate   text not null,
  message    text not null,
  detail     text,
  hint       text
);
create table coco.history_entry (
  run       bigint generated always as identity,
  flow      int not null references coco.flow (id) on delete cascade,
  started   timestamptz not null,
  elapsed   interval not null,
  reason    text not null,
  by        text not null check (by in ('session', 'worker')),
  seen      bigint not null,
  skipped   bigint not null,
  unchanged bigint not null,
  evaluated bigint not null,
  upserted  bigint not null,
  deleted   bigint not null,
  failed    bigint not null,
  error     text,
  label     text,
  primary key (flow, run)
);
create table coco.label (
  flow  int not null references coco.flow (id) on delete cascade,
  since bigint not null,
  label text,
  primary key (flow, since)
);
create table coco.run_total (
  flow      int primary key references coco.flow (id) on delete cascade,
  runs      bigint not null,
  errors    bigint not null,
  seen      bigint not null,
  skipped   bigint not null,
  unchanged bigint not null,
  evaluated bigint not null,
  upserted  bigint not null,
  deleted   bigint not null,
  failed    bigint not null,
  elapsed   interval not null,
  ended     timestamptz not null
) with (fillfactor = 50);
create table coco.memoised (
  function   text primary key,
  version    text,
  batch      text,
  batch_size int check (batch_size > 0)
);
create table coco.memo (
  id          int generated always as identity primary key,
  flow        text not null references coco.flow on delete cascade,
  function    text not null,
  fingerprint uuid not null,
  calls       bigint not null default 0,
  misses      bigint not null default 0,
  errors      bigint not null default 0,
  requests    bigint not null default 0,
  tokens_in   bigint not null default 0,
  tokens_out  bigint not null default 0,
  cost        float8 not null default 0,
  bytes       bigint not null default 0,
  elapsed     interval not null default '0',
  recorded    timestamptz not null default pg_catalog.now(),
  unique (flow, function, fingerprint)
);

create table coco.spending (
  id         bigint generated always as identity primary key,
  server     text not null,
  flow       int,
  spent_at   timestamptz not null default pg_catalog.clock_timestamp(),
  requests   bigint not null,
  tokens_in  bigint not null,
  tokens_out bigint not null,
  cost       float8 not null
);
create index on coco.spending (server);

create table coco.logic (
  id          int generated always as identity primary key,
  flow        text not null references coco.flow on delete cascade,
  fingerprint uuid not null,
  parts       jsonb not null,
  described   jsonb not null,
  recorded    timestamptz not null default pg_catalog.now(),
  unique (flow, fingerprint)
);

revoke all on coco.capture, coco.cursor, coco.trouble, coco.delivery, coco.run, coco.history_entry, coco.run_total, coco.label, coco.flow, coco.source, coco.target, coco.logic, coco.memoised, coco.memo, coco.spending from public;

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
  search_path text     default pg_catalog.current_setting('search_path'),
  server      text     default null,
  options     jsonb    default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'coco', 'create_flow_wrapper';

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
  as 'coco', 'add_source_wrapper';

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
  as 'coco', 'add_lookup_wrapper';

create function coco.add_target(
  flow    text,
  target  text,
  query   text,
  key     text[],
  server  text  default null,
  options jsonb default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'coco', 'add_target_wrapper';

create function coco.set_query(
  flow   text,
  target text,
  query  text
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'coco', 'set_query_wrapper';

create function coco.alter_flow(
  flow       text,
  owner      regrole default null,
  label      text    default null,
  batch_size int     default null,
  paused     boolean default null,
  lineage_index boolean default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'coco', 'alter_flow_wrapper';

create function coco.drop_flow(
  flow         text,
  keep_targets boolean default true
) returns void language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'drop_flow_wrapper';

create function coco.update(
  flow text,
  mode text default 'normal',
  out source text, out seen bigint, out skipped bigint, out unchanged bigint,
  out evaluated bigint, out upserted bigint, out deleted bigint, out failed bigint,
  out elapsed interval, out memo jsonb
) returns setof record language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'update_wrapper';

create function coco.retry(
  flow text,
  out source text, out seen bigint, out skipped bigint, out unchanged bigint,
  out evaluated bigint, out upserted bigint, out deleted bigint, out failed bigint,
  out elapsed interval, out memo jsonb
) returns setof record language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'retry_wrapper';

create function coco.start(flow text) returns void language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'start_wrapper';

create function coco.stop(flow text) returns void language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'stop_wrapper';

create function coco.wait(flow text, timeout interval default '1 minute') returns boolean
  language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'wait_wrapper';

create function coco.preview(
  flow     text,
  mode     text default 'normal',
  max_rows int  default 1000,
  out target text, out change text, out key jsonb, out old jsonb, out new jsonb
) returns setof record language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'preview_wrapper';

create function coco.verify(
  flow   text,
  repair boolean default false,
  out target text, out difference text, out key jsonb
) returns setof record language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'verify_wrapper';

create function coco.history(
  flow text,
  out run bigint, out started timestamptz, out elapsed interval, out reason text, out by text,
  out seen bigint, out skipped bigint, out unchanged bigint, out evaluated bigint,
  out upserted bigint, out deleted bigint, out failed bigint, out error text, out label text
) returns setof record language c stable strict
  rows 1000
  set search_path = pg_catalog, pg_temp
  as 'coco', 'history_wrapper';
create function coco.explain(
  flow text,
  out section text, out name text, out detail text, out hint text
) returns setof record language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'explain_wrapper';

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
  as 'coco', 'lineage_wrapper';

create function coco.outputs(
  flow       text,
  source_key jsonb,
  of_source  text default null,
  out source text, out target text, out key jsonb, out listed boolean
) returns setof record language c stable
  rows 10
  set search_path = pg_catalog, pg_temp
  as 'coco', 'outputs_wrapper';

create function coco.diagram(flow text default null) returns text
  language c volatile
  set search_path = pg_catalog, pg_temp
  as 'coco', 'diagram_wrapper';

create function coco.report() returns text
  language c volatile
  set search_path = pg_catalog, pg_temp
  as 'coco', 'report_wrapper';

create function coco.split_text(
  text     text,
  size     int,
  overlap  int  default 0,
  language text default null,
  out n int, out chunk text, out byte_start int, out byte_end int
) returns setof record language c immutable parallel safe
  rows 10 cost 1000
  set search_path = pg_catalog, pg_temp
  as 'coco', 'split_text_wrapper';

create function coco.normalize_text(text text) returns text
  language c immutable strict parallel safe
  set search_path = pg_catalog, pg_temp
  as 'coco', 'normalize_text_wrapper';
create function coco.fingerprint(variadic "any") returns uuid
  language c stable parallel safe
  cost 30
  as 'coco', 'coco_fingerprint';

create function coco.stable_uuid(variadic "any") returns uuid
  language c immutable parallel safe
  set search_path = pg_catalog, pg_temp
  as 'coco', 'coco_stable_uuid';

create function coco.embed(
  input      text,
  server     text,
  model      text,
  dimensions int default null
) returns real[] language c volatile parallel restricted
  cost 1000000
  set search_path = pg_catalog, pg_temp
  as 'coco', 'embed_wrapper';

create function coco.generate(
  prompt      text,
  server      text,
  model       text,
  json_schema jsonb default null
) returns text language c volatile parallel restricted
  cost 1000000
  set search_path = pg_catalog, pg_temp
  as 'coco', 'generate_wrapper';

create function coco.http_post(url text, body jsonb) returns jsonb
  language c volatile strict parallel restricted
  cost 1000000
  set search_path = pg_catalog, pg_temp
  as 'coco', 'http_post_wrapper';

create function coco.list_files(
  directory text,
  glob      text default '**/*',
  out path text, out modified timestamptz, out size bigint
) returns setof record language c stable parallel safe
  rows 10000 cost 10000
  set search_path = pg_catalog, pg_temp
  as 'coco', 'list_files_wrapper';

create function coco.read_file(directory text, path text) returns bytea
  language c stable parallel safe
  cost 10000
  set search_path = pg_catalog, pg_temp
  as 'coco', 'read_file_wrapper';
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
  as 'coco', 'tracking_rows_wrapper';

create function coco.error_rows(
  out flow text, out source text, out source_key jsonb, out sqlstate text, out message text,
  out detail text, out hint text, out attempts int, out failed_at timestamptz,
  out next_retry timestamptz, out target text, out target_key jsonb
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'coco', 'error_rows_wrapper';

create function coco.delivery_rows(
  out flow text, out target text, out server text, out unsent bigint, out refused bigint,
  out sent_at timestamptz, out attempts int, out next_retry timestamptz,
  out sqlstate text, out last_error text, out detail text, out hint text
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'coco', 'delivery_rows_wrapper';
create function coco.capture() returns trigger language c
  as 'coco', 'coco_capture';

create function coco.worker_rows(
  out pid int, out database oid, out seat int, out flow int, out source int,
  out done bigint, out total bigint, out since timestamptz, out turns bigint,
  out evaluated bigint, out upserted bigint, out deleted bigint, out failed bigint
) returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'coco', 'worker_rows_wrapper';

create function coco.progress_rows(
  out pid int, out database oid, out flow int, out source int, out done bigint, out total bigint,
  out since timestamptz, out ends_at timestamptz
) returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'coco', 'progress_rows_wrapper';

create function coco.pending_rows(out source int, out pending bigint, out at_least boolean)
  returns setof record language c volatile
  set search_path = pg_catalog, pg_temp
  as 'coco', 'pending_rows_wrapper';

create function coco.metric_rows(
  scope text,
  out metric text, out type text, out flow text, out name text, out server text,
  out value float8, out help text
) returns setof record language c volatile strict
  rows 100
  set search_path = pg_catalog, pg_temp
  as 'coco', 'metric_rows_wrapper';

create function coco.memoize(
  function   regprocedure,
  version    text default null,
  batch      regprocedure default null,
  batch_size int default 1000
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'coco', 'memoize_wrapper';

create function coco.unmemoize(function regprocedure) returns void
  language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'unmemoize_wrapper';

create function coco.recall(internal) returns internal
  language c stable parallel restricted cost 1000
  as 'coco', 'coco_recall';

create function coco.function_rows(
  out flow text, out function text, out fingerprint uuid, out current boolean,
  out calls bigint, out hits bigint, out misses bigint, out errors bigint, out requests bigint,
  out tokens_in bigint, out tokens_out bigint, out cost float8, out computed_bytes bigint,
  out elapsed interval, out entries bigint, out entry_bytes bigint
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'coco', 'function_rows_wrapper';

create function coco.postgres_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'postgres_validator_wrapper';
create foreign data wrapper coco_postgres validator coco.postgres_validator;

create function coco.qdrant_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'qdrant_validator_wrapper';
create foreign data wrapper coco_qdrant validator coco.qdrant_validator;

create function coco.neo4j_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'neo4j_validator_wrapper';
create foreign data wrapper coco_neo4j validator coco.neo4j_validator;

create function coco.kafka_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'kafka_validator_wrapper';
create foreign data wrapper coco_kafka validator coco.kafka_validator;

create function coco.http_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'http_validator_wrapper';
create foreign data wrapper coco_http validator coco.http_validator;

create function coco.openai_validator(options text[], catalog oid) returns void
  language c strict
  set search_path = pg_catalog, pg_temp
  as 'coco', 'openai_validator_wrapper';
create foreign data wrapper coco_openai validator coco.openai_validator;
