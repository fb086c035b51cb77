\echo Use "CREATE EXTENSION coco" to load this file. \quit
-- Generated from sql/ by make install-sql. Change the files there.

create schema coco; create schema coco_internal;

-- sql/catalog.sql

-- The catalog: tables that hold the declarations. The objects that coco creates for a declaration are not members of the
-- extension, except change logs, so that a dump includes them. These objects are:
--   - tables in coco_internal, which belong to the extension's owner;
--   - views in coco through which a flow's owner reads these tables;
--   - views in coco that keep the flow's bound queries; they, too, belong to the extension's owner.
--
-- The catalog has almost no foreign keys, because CREATE EXTENSION creates the constraints first and a restore then writes
-- the rows of a dump in any order. coco deletes a flow's rows itself (declare/rows.rs), and ignores rows without a flow.

comment on schema coco_internal is 'Schema of coco''s own tables. Only the extension''s owner may use it.';

create table coco_internal.flow (
  flow        text primary key check (flow <> '' and octet_length(flow) <= 63),
  id          int generated always as identity unique,
  owner       regrole not null,
  search_path text not null,
  settings    jsonb not null,
  live        boolean not null default false,
  memo_table  regclass,
  memo_view   regclass,
  label       text,
  batch_size  int check (batch_size > 0),
  paused      boolean not null default false,
  lineage_index boolean not null default false,
  -- how often a worker compares the targets with what they should hold
  verify_interval interval check (verify_interval between '1 second' and '400 days'),
  -- what one update may write and spend, and whether the next update may pass these limits
  max_rows    bigint check (max_rows > 0),
  max_cost    float8 check (max_cost > 0),
  beyond_limits boolean not null default false,
  -- the interval or cron line by which workers update the flow; null: they update it after each commit
  refresh     text,
  -- newest or oldest: the order, by their ordinals, in which an update of all items evaluates them; null: any order
  fill_order  text,
  -- delta: coco keeps the groups of the source by deltas
  aggregate   text not null default 'group' check (aggregate in ('group', 'delta')),

  -- whether coco derives lookups from the flow's queries
  lookups     text not null default 'none' check (lookups in ('derive', 'none')),
  created     timestamptz not null default pg_catalog.now()
);
comment on table coco_internal.flow is 'Declared flows. Only coco''s functions write to this table.';

create table coco_internal.capture (
  id       int generated always as identity primary key,
  relation regclass not null unique,
  columns  text[] not null,
  always   boolean not null,
  segment  int not null default 0,
  complete_from_xid xid8
);
comment on table coco_internal.capture is 'Captured tables, with the columns that coco_internal.log_<id>_<segment> keeps of each changed row. Only coco''s functions write to this table.';

create table coco_internal.source (
  id          int generated always as identity primary key,
  flow        text not null,
  name        text not null,
  relation    regclass not null,
  key         text[] not null,
  -- for a key with expressions: the text of each, NULL for a column; and the view that keeps them as coco evaluates them
  key_expressions text[],
  key_view    regclass,
  grouped     boolean not null,
  ordinal     text,
  fingerprint text,
  -- the view that keeps ordinal and fingerprint as coco evaluates them
  expressions regclass,
  used        text[] not null default '{}',
  tracking    regclass not null,
  tracking_view regclass not null,
  capture     text not null default 'scan' check (capture in ('scan', 'trigger', 'always')),
  refresh_interval interval,
  -- for a lookup only: the source whose items it affects, and the query that finds these items
  lookup_of   int,
  affects     text,
  affects_view regclass,
  -- whether coco derived the lookup from the flow's queries
  derived     boolean not null default false,
  -- grows when coco.alter_flow changes the source in such a way that earlier cursors no longer count
  revision    int not null default 1,
  -- for groups that are kept by deltas: the columns that identify a row, the view that keeps the row part of the query,
  -- and the view of the table of groups (catalog/group_state.rs)
  row_key     text[],
  rows_view   regclass,
  groups_view regclass,
  unique (flow, name)
);
comment on table coco_internal.source is 'Sources and lookups of flows, with their tracking tables. Only coco''s functions write to this table.';

-- The snapshot up to which coco has followed a source's changes. A dump does not include this table, because snapshots
-- have no meaning in another cluster.
create table coco_internal.cursor (
  source    int primary key,
  snapshot  pg_snapshot not null,
  logic     int not null,
  signature uuid not null,
  -- whether coco followed lookups, or evaluated items, as of a later time than the snapshot
  behind    boolean not null default false,
  followed_at timestamptz not null default pg_catalog.clock_timestamp(),
  -- the transaction that stored the cursor, if the update read entries of it, and how many
  own_xid     xid8,
  own_entries bigint
) with (fillfactor = 50);
comment on table coco_internal.cursor is 'Position up to which coco has followed each captured source, and signature of its capture at that position. Only coco''s functions write to this table.';

create table coco_internal.target (
  id          int generated always as identity primary key,
  flow        text not null,
  schema      text not null,
  name        text not null,
  relation    regclass not null,
  query       text not null,
  key         text[] not null,
  item_key_columns text[],
  managed     boolean not null,
  epoch       int not null default 1,
  query_view  regclass,
  -- for each place where the query reads a source's relation, in order: the source whose item it stands for, or 0
  places      int[] not null default '{}',
  -- for a target outside this database: its server, its name on that server, and the connector's options. relation is
  -- then the ledger, and outbox the table of undelivered rows; schema and name are those of the ledger's view. Of a
  -- table in this database, schema and name follow ALTER TABLE … RENAME and SET SCHEMA (catalog/followed_names.rs).
  server      text,
  external    text,
  options     jsonb,
  outbox      regclass,
  ledger_view regclass,
  outbox_view regclass,
  columns     text[],
  -- the start of the transaction that declared the query
  changed     timestamptz not null default pg_catalog.now(),
  -- for a table that coco created: the columns that it declared NOT NULL, other than those of the key
  not_null    text[] not null default '{}',
  unique (server, external)
);
comment on table coco_internal.target is 'Targets of flows, with their queries and views. Only coco''s functions write to this table.';

-- Conditions that the rows of targets should satisfy.
create table coco_internal.expectation (
  id        int generated always as identity primary key,
  target    int not null,
  name      text not null,
  condition text not null,
  -- the view that keeps the condition as coco evaluates it
  condition_view regclass,
  action    text not null check (action in ('park', 'warn', 'fail')),
  max_share float8 check (max_share between 0 and 1),
  checked   bigint not null default 0,
  failed    bigint not null default 0,
  unique (target, name)
) with (fillfactor = 50);
comment on table coco_internal.expectation is 'Expectations of targets, with the numbers of rows that coco has checked. Only coco''s functions and workers write to this table.';

-- A row counts only for the recorded role, and only while this role owns the table.
create table coco_internal.made_target (
  relation regclass primary key,
  owner    regrole not null
);
comment on table coco_internal.made_target is 'Tables that coco made for targets whose flows were dropped without them. Only coco''s functions write to this table.';

-- One row for each target outside this database.
create table coco_internal.delivery_state (
  target     int primary key,
  sent       bigint not null default 0,
  initial_load_until bigint,
  sent_at    timestamptz,
  attempts   int not null default 0,
  server_wide boolean not null default false,
  failed_at  timestamptz,
  next_retry timestamptz,
  sqlstate   text,
  message    text,
  detail     text,
  hint       text,
  verified_at timestamptz
) with (fillfactor = 50);
comment on table coco_internal.delivery_state is 'Position up to which coco has sent the outbox of each target outside this database, and the current delivery error. Only coco''s functions write to this table.';

-- Results of updates that a worker ran for a session that called coco.update. A dump does not include this table.
create table coco_internal.worker_result (
  id       bigint primary key,
  ended    timestamptz not null default pg_catalog.clock_timestamp(),
  counts   jsonb,
  sqlstate text,
  message  text,
  detail   text,
  hint     text
);
comment on table coco_internal.worker_result is 'Results of updates that workers ran for a session, kept for an hour. Only coco''s workers write to this table.';

-- What the last verification of a live flow with a verify_interval has found. A dump does not include this table.
create table coco_internal.verification (
  flow         int primary key,
  attempted_at timestamptz not null default pg_catalog.clock_timestamp(), -- the end of the last one, or its begin
  elapsed      interval not null default '0',
  verified_at  timestamptz, -- the last time without a difference
  differing    bigint,      -- NULL: not known
  is_cut       boolean not null default false, -- whether more rows differ
  error        text
) with (fillfactor = 50);
comment on table coco_internal.verification is 'Last verification of each flow that workers verify from time to time. Only coco''s functions and workers write to this table.';
revoke all on coco_internal.verification from public;

-- One row for each live flow whose last run failed as a whole. A dump does not include this table.
create table coco_internal.flow_error (
  flow       int primary key,
  attempts   int not null,
  deaths     int not null default 0, -- consecutive processes that a signal terminated
  failed_at  timestamptz not null default pg_catalog.clock_timestamp(),
  next_retry timestamptz not null,
  sqlstate   text not null,
  message    text not null,
  detail     text,
  hint       text
);
comment on table coco_internal.flow_error is 'Live flows whose last run failed as a whole. Only coco''s workers write to this table.';

-- One row for each flow that a worker has updated by its schedule. A dump does not include this table, so a restored flow
-- is updated at once.
create table coco_internal.scheduled_run (
  flow  int primary key,
  began timestamptz not null
) with (fillfactor = 50);
comment on table coco_internal.scheduled_run is 'Beginning of the last update by its schedule of each scheduled flow. Only coco''s functions and workers write to this table.';

-- Failed items whose keys are too long for an index, so that they have no tracking row. A dump does not include this
-- table, because a scan finds these items again.
create table coco_internal.untracked (
  source     int not null references coco_internal.source (id) on delete cascade,
  item       uuid not null,  -- a digest of the key
  source_key jsonb not null, -- only a part of the key if it is long
  failure    jsonb not null,
  attempts   int not null default 1,
  failed_at  timestamptz not null default pg_catalog.clock_timestamp(),
  primary key (source, item)
);
comment on table coco_internal.untracked is 'Failed items that are not tracked: their keys are too long for an index, or NULL. Only coco''s functions and workers write to this table.';

-- One row for each run. For a live flow, a run is up to a minute of its worker's transactions.
create table coco_internal.run_history (
  run_id    bigint generated always as identity,
  flow      int not null,
  started   timestamptz not null,
  elapsed   interval not null,
  reason    text not null,
  initiator text not null check (initiator in ('session', 'worker')),
  seen      bigint not null,
  skipped   bigint not null,
  unchanged bigint not null,
  evaluated bigint not null,
  upserted  bigint not null,
  deleted   bigint not null,
  failed    bigint not null,
  error     text,
  label     text,
  primary key (flow, run_id)
);
comment on table coco_internal.run_history is 'Runs of flows: the last coco.history_limit of each flow. Only coco''s functions and workers write to this table.';

-- The label of a flow from a process ordinal on.
create table coco_internal.flow_label (
  flow  int not null,
  since bigint not null,
  label text,
  primary key (flow, since)
);
comment on table coco_internal.flow_label is 'Labels of flows, each with the process ordinal from which it applied. Only coco''s functions write to this table.';

-- Totals of a flow's runs that have been removed from coco_internal.run_history. Together with the remaining runs they give
-- totals that only grow.
create table coco_internal.run_total (
  flow      int primary key,
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
comment on table coco_internal.run_total is 'Totals of runs that have been removed from coco.history. Only coco''s functions and workers write to this table.';

-- Flows that are another version of a flow: for a change without a gap.
create table coco_internal.version (
  flow       int primary key, -- the version
  of         int not null,    -- the main flow
  role       text not null check (role in ('new', 'old')),
  swap       text not null check (swap in ('auto', 'manual')),
  keep_old   interval not null,
  keep_until timestamptz,
  declared   timestamptz not null default pg_catalog.now(),
  -- why the version was not updated or swapped at the last attempt
  waits_for  text,
  hint       text,
  unique (of, role)
);
comment on table coco_internal.version is 'Flows that are a new or an old version of another flow. Only coco''s functions and workers write to this table.';

-- The column function holds a name with schema and argument types, because pg_upgrade rejects tables with a column of type
-- regprocedure. A function of that name counts only while the recorded role owns it.
create table coco_internal.memo_function (
  function    text primary key,
  owner       regrole not null,
  version     text,
  batch       text,
  batch_owner regrole,
  batch_size  int check (batch_size > 0),
  -- how old a result may be when an item uses it; NULL: of any age
  ttl         interval
);
comment on table coco_internal.memo_function is 'Functions that coco memoizes inside flows. Only coco''s functions write to this table.';

-- The function IDs under which a flow's table of results keeps its results, with the cost of the results.
create table coco_internal.memo_stats (
  id          int generated always as identity primary key,
  flow        text not null,
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
  reused      bigint not null default 0,
  -- the owner of the function; NULL if the function has had several. Other flows reuse results only of the same owner
  function_owner regrole,
  -- the time of the last coco.clear_memo: the flow reuses no result from before it
  cleared     timestamptz,
  unique (flow, function, fingerprint)
);
create index on coco_internal.memo_stats (function, fingerprint);
comment on table coco_internal.memo_stats is 'Memoized functions of flows, one row for each fingerprint of their code, with statistics of their calls. Only coco''s functions write to this table.';

-- The tables of results that coco keeps of dropped flows, with the settings that the flows had.
create table coco_internal.kept_memo (
  id         int generated always as identity primary key,
  flow       text not null,
  owner      regrole not null,
  settings   jsonb not null,
  memo_table regclass not null,
  dropped    timestamptz not null default pg_catalog.clock_timestamp(),
  kept_until timestamptz not null
);
comment on table coco_internal.kept_memo is 'Tables of results that coco keeps of dropped flows for coco.memo_retention. Only coco''s functions and workers write to this table.';

-- The rows that coco_internal.memo_stats had for these flows.
create table coco_internal.kept_memo_function (
  kept_memo   int not null,
  function_id int not null,
  function    text not null,
  fingerprint uuid not null,
  function_owner regrole,
  entries     bigint not null,
  primary key (kept_memo, function_id)
);
create index on coco_internal.kept_memo_function (function, fingerprint);
comment on table coco_internal.kept_memo_function is 'Memoized functions whose results coco keeps of dropped flows, with the IDs under which the tables keep the results. Only coco''s functions and workers write to this table.';

create table coco_internal.provider_usage (
  id         bigint generated always as identity primary key,
  server     text not null,
  flow       int,
  spent_at   timestamptz not null default pg_catalog.clock_timestamp(),
  requests   bigint not null,
  tokens_in  bigint not null,
  tokens_out bigint not null,
  cost       float8 not null
);
create index on coco_internal.provider_usage (server);
comment on table coco_internal.provider_usage is 'Usage and cost of flows at the servers of providers, in the unit of the servers'' prices. Only coco''s functions write to this table.';

create table coco_internal.logic (
  id          int generated always as identity primary key,
  flow        text not null,
  fingerprint uuid not null,
  parts       jsonb not null,
  described   jsonb not null,
  recorded    timestamptz not null default pg_catalog.now(),
  -- coco.label of the first session that set it and declared or updated the flow with this logic
  label       text,
  unique (flow, fingerprint)
);
comment on table coco_internal.logic is 'Logic fingerprints under which flows have run, with the parts of each, and a description of its queries and functions. Only coco''s functions write to this table.';

-- The flows that coco.create_search has declared.
create table coco_internal.search (
  flow          int primary key,
  name          text not null unique, -- stays when the flow is renamed
  function      text not null,        -- the function that coco created: its name with schema and argument types
  key           text[] not null,      -- the key columns of the source
  configuration text not null,        -- the text search configuration, schema-qualified
  -- NULL: the search finds words alone
  server        text,
  model         text,
  requested     int,                  -- the argument dimensions of coco.embed
  dimensions    int,                  -- of the vectors
  query_prefix  text,                 -- what the model reads before a query
  check (pg_catalog.num_nulls(server, model, dimensions) operator(pg_catalog.=) any (array[0, 3]))
);
comment on table coco_internal.search is 'Flows that coco.create_search has declared, with the model and the text search configuration of each. Only coco''s functions write to this table.';

revoke all on coco_internal.search, coco_internal.capture, coco_internal.cursor, coco_internal.flow_error, coco_internal.scheduled_run, coco_internal.untracked, coco_internal.delivery_state, coco_internal.worker_result, coco_internal.run_history, coco_internal.run_total, coco_internal.flow_label, coco_internal.version, coco_internal.flow, coco_internal.source, coco_internal.target, coco_internal.expectation, coco_internal.made_target, coco_internal.logic, coco_internal.memo_function, coco_internal.memo_stats, coco_internal.kept_memo, coco_internal.kept_memo_function, coco_internal.provider_usage from public;

select pg_catalog.pg_extension_config_dump('coco_internal.capture', '');
select pg_catalog.pg_extension_config_dump('coco_internal.flow', '');
select pg_catalog.pg_extension_config_dump('coco_internal.source', '');
select pg_catalog.pg_extension_config_dump('coco_internal.target', '');
select pg_catalog.pg_extension_config_dump('coco_internal.expectation', '');
-- A table that no longer exists has no name that a restore could find it by.
select pg_catalog.pg_extension_config_dump('coco_internal.made_target', 'where exists (select from pg_catalog.pg_class c where c.oid operator(pg_catalog.=) relation)');
select pg_catalog.pg_extension_config_dump('coco_internal.delivery_state', '');
select pg_catalog.pg_extension_config_dump('coco_internal.logic', '');
select pg_catalog.pg_extension_config_dump('coco_internal.run_history', '');
select pg_catalog.pg_extension_config_dump('coco_internal.run_total', '');
select pg_catalog.pg_extension_config_dump('coco_internal.run_history_run_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco_internal.flow_label', '');
select pg_catalog.pg_extension_config_dump('coco_internal.version', '');
select pg_catalog.pg_extension_config_dump('coco_internal.search', '');
select pg_catalog.pg_extension_config_dump('coco_internal.memo_function', '');
select pg_catalog.pg_extension_config_dump('coco_internal.memo_stats', '');
select pg_catalog.pg_extension_config_dump('coco_internal.kept_memo', '');
select pg_catalog.pg_extension_config_dump('coco_internal.kept_memo_function', '');
select pg_catalog.pg_extension_config_dump('coco_internal.provider_usage', '');
select pg_catalog.pg_extension_config_dump('coco_internal.capture_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco_internal.memo_stats_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco_internal.kept_memo_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco_internal.provider_usage_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco_internal.flow_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco_internal.source_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco_internal.target_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco_internal.expectation_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco_internal.logic_id_seq', '');

-- sql/functions.sql

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

-- sql/views.sql

-- Views through which a role sees its flows: those that it owns, or whose owner is a role of which it is a member. The
-- COMMENTs on the views are in comments/views.sql.

create view coco.flows with (security_barrier) as
select f.flow, f.owner, f.live, f.search_path, f.settings, f.created, f.label, f.batch_size, f.paused,
       f.lineage_index, f.lookups, f.max_rows, f.max_cost, f.verify_interval, f.refresh,
       f.fill_order, f.aggregate
  from coco_internal.flow f
 where pg_catalog.pg_has_role(f.owner, 'usage');

create view coco.sources with (security_barrier) as
select s.flow, s.name as source, s.relation, s.key,
       case when s.grouped then 'group' else 'row' end as item,
       s.used as used_columns, s.ordinal, s.fingerprint, s.capture, s.refresh_interval,
       s.tracking as tracking_table, s.tracking_view, s.key_expressions
  from coco_internal.source s join coco_internal.flow f using (flow)
 where pg_catalog.pg_has_role(f.owner, 'usage') and s.lookup_of is null;

create view coco.lookups with (security_barrier) as
select s.flow, s.name as lookup, s.relation, s.key, o.name as source, s.affects,
       s.used as used_columns, s.capture, s.refresh_interval, s.tracking as tracking_table,
       s.tracking_view, s.derived
  from coco_internal.source s join coco_internal.source o on o.id = s.lookup_of join coco_internal.flow f on f.flow = s.flow
 where pg_catalog.pg_has_role(f.owner, 'usage');

create view coco.targets with (security_barrier) as
select t.flow,
       coalesce(t.external,
                (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                   from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where c.oid = t.relation),
                pg_catalog.format('%I.%I', t.schema, t.name)) as target,
       case when t.server is null then t.relation end as relation, t.key, t.query,
       t.managed, t.query_view, t.server, t.options,
       case when t.server is not null then t.relation end as ledger, t.outbox, t.ledger_view, t.outbox_view
  from coco_internal.target t join coco_internal.flow f using (flow)
 where pg_catalog.pg_has_role(f.owner, 'usage');

create view coco.versions with (security_barrier) as
select m.flow, f.flow as version, v.role, v.swap, v.declared, v.keep_old, v.keep_until, v.waits_for, v.hint
  from coco_internal.version v join coco_internal.flow f on f.id = v.flow join coco_internal.flow m on m.id = v.of
 where pg_catalog.pg_has_role(f.owner, 'usage') and pg_catalog.pg_has_role(m.owner, 'usage');

create view coco.logic_versions with (security_barrier) as
select l.flow, l.fingerprint as logic_fingerprint, l.recorded, l.label
  from coco_internal.logic l join coco_internal.flow f using (flow)
 where pg_catalog.pg_has_role(f.owner, 'usage');

create view coco.tracking as select * from coco_internal.tracking_rows();

create view coco.errors as select * from coco_internal.error_rows();

create view coco.expectations as select * from coco_internal.expectation_rows();

create view coco.functions as select * from coco_internal.function_rows();

create view coco.kept_results with (security_barrier) as
select m.flow, m.owner, m.dropped, m.kept_until,
       array(select distinct k.function from coco_internal.kept_memo_function k where k.kept_memo = m.id order by 1) as functions,
       (select pg_catalog.sum(k.entries)::bigint from coco_internal.kept_memo_function k where k.kept_memo = m.id) as entries,
       pg_catalog.pg_total_relation_size(c.oid) as bytes
  from coco_internal.kept_memo m join pg_catalog.pg_class c on c.oid = m.memo_table
 where m.kept_until > pg_catalog.clock_timestamp() and pg_catalog.pg_has_role(m.owner, 'usage')
   and exists (select from pg_catalog.pg_roles r where r.oid = m.owner);

-- Every role may see the workers of this database, but the flow of a worker only if the role may see that flow.
create view coco.workers as
select w.pid, w.worker_no, f.flow, s.name as source,
       case when w.flow is null then 'waiting' else 'working' end as state, w.since, w.transactions,
       w.evaluated, w.upserted, w.deleted, w.failed
  from coco_internal.worker_rows() w
  left join coco_internal.flow f on f.id = w.flow and pg_catalog.pg_has_role(f.owner, 'usage')
  left join coco_internal.source s on s.id = w.source and s.flow = f.flow
 where w.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database());

create view coco.progress as
select f.flow, s.name as source, p.pid, p.items_done, p.items_total, p.since, p.estimated_end
  from coco_internal.progress_rows() p
  join coco_internal.flow f on f.id = p.flow and pg_catalog.pg_has_role(f.owner, 'usage')
  join coco_internal.source s on s.id = p.source and s.flow = f.flow
 where p.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database());

create view coco.delivery_status as select * from coco_internal.delivery_rows();

-- Everything that coco knows of a flow's state. coco.status shows the part that fits on a screen.
create view coco.status_detail with (security_barrier) as
select g.flow, g.state,
       case when g.state in ('live', 'up to date', 'unknown') then 'well'
            when g.state in ('incomplete', 'paused', 'restoring', 'no worker', 'never updated', 'behind') then 'stale'
            when g.state = 'degraded' then 'degraded'
            else 'broken' end as health,
       g.live, g.pending,
       case when g.pending > 0 then pg_catalog.clock_timestamp() - g.behind_since
            when g.pending = 0 then interval '0' end as lag,
       g.followed_at, g.items_estimate, g.failed_items, g.next_retry,
       case when g.state = 'paused' then null
            else coalesce(g.message,
              case g.state
                when 'incomplete' then 'the flow has no target'
                when 'target dropped' then pg_catalog.format('target %s no longer exists', g.lost_target)
                when 'source dropped' then pg_catalog.format('source or lookup "%s" no longer exists', g.lost_source)
                when 'query broken' then 'an object that the flow reads no longer exists'
                when 'restoring' then 'a dump is being restored'
                when 'no worker' then 'no worker runs in this database'
                when 'degraded' then g.difference
              end, g.item_message) end as last_error,
       case when g.state = 'paused'
            then pg_catalog.format('Continue the flow: SELECT coco.alter_flow(%L, paused => false)', g.flow)
            else coalesce(g.message_hint,
              case g.state
                when 'incomplete' then 'Call coco.add_target; if the flow has no source yet, call coco.add_source first.'
                when 'target dropped' then case when g.live
                  then 'A worker creates and fills the target again. To drop it for good, call coco.drop_flow.'
                  else pg_catalog.format('To create and fill the target again: SELECT * FROM coco.update(%L)', g.flow) end
                when 'source dropped' then pg_catalog.format('Drop the flow, and declare it over another relation: SELECT coco.drop_flow(%L)', g.flow)
                when 'query broken' then 'Give the target a query that works: coco.set_query.'
                when 'set aside' then pg_catalog.format('The server''s log says how the processes ended. Correct the cause, then: SELECT coco.start(%L)', g.flow)
                when 'failed' then case when g.live
                  then pg_catalog.format('Correct the cause. coco tries again at next_retry, or at once: SELECT coco.start(%L)', g.flow)
                  else pg_catalog.format('Correct the cause, then: SELECT * FROM coco.update(%L)', g.flow) end
                when 'restoring' then 'Wait until the restore of the dump has ended. If it has ended, call coco.start, which allows workers to start.'
                when 'no worker' then pg_catalog.format('Add coco to shared_preload_libraries and restart the server, or: SELECT coco.start(%L). If the server''s log says "could not start a worker", increase max_worker_processes.', g.flow)
                when 'degraded' then case when g.difference is not null
                  then pg_catalog.format('To see the rows: SELECT * FROM coco.verify(%L%s). To mend them, add repair => true.', g.flow,
                                         case when g.is_external then ', outside => true' end)
                  else pg_catalog.format('SELECT * FROM coco.errors WHERE flow = %L shows why. To try again after a correction: SELECT * FROM coco.retry(%1$L)', g.flow) end
                when 'never updated' then pg_catalog.format('Update the flow once: SELECT * FROM coco.update(%L); or keep it up to date: SELECT coco.start(%1$L)', g.flow)
                when 'behind' then case when g.live
                  then 'A worker updates the flow as soon as it can. The view coco.workers shows what the workers do.'
                  else pg_catalog.format('Update the flow once: SELECT * FROM coco.update(%L); or keep it up to date: SELECT coco.start(%1$L)', g.flow) end
                when 'unknown' then pg_catalog.format('coco does not capture every source of the flow, so only an update finds their changes: SELECT * FROM coco.update(%L)', g.flow)
              end) end as hint,
       g.label, g.next_update, g.verified_at, g.differing_rows, g.verify_error
  from (
select f.flow, f.live,
       case when t.count = 0 then 'incomplete'
            when t.lost is not null then 'target dropped'
            when s.lost is not null then 'source dropped'
            when t.is_broken or s.is_broken then 'query broken'
            when f.paused then 'paused'
            when x.deaths >= 3 then 'set aside'
            when x.flow is not null or d.flow is not null or y.flow is not null then 'failed'
            when f.live and not r.complete then 'restoring'
            when f.live and not exists (select from pg_catalog.pg_locks l
                            where l.locktype = 'object' and l.classid = 'coco_internal.flow'::pg_catalog.regclass
                              and l.objid = 0 and l.granted and l.mode = 'ShareUpdateExclusiveLock'
                              and l.database = (select d.oid from pg_catalog.pg_database d
                                                 where d.datname = pg_catalog.current_database()))
              then 'no worker'
            when e.failed_items > 0 or v.differing > 0 then 'degraded'
            -- A worker that is a minute late has other work, or does not get on.
            when f.live and z.flow is not null
              then case when z.next_update > pg_catalog.clock_timestamp() - interval '1 minute' then 'up to date'
                        else 'behind' end
            when f.live then 'live'
            when k.followed_at is null
                 and not exists (select from coco_internal.run_history h where h.flow = f.id and h.error is null)
                 and not exists (select from coco_internal.run_total h where h.flow = f.id and h.runs > h.errors)
              then 'never updated'
            when p.pending > 0 or k.is_unfinished or t.changed > k.updated_at then 'behind'
            when p.sources = s.count then 'up to date'
            else 'unknown' end as state,
       -- what is known is a lower bound; 0 is an answer only if all sources are known
       case when p.sources = s.count or p.pending > 0 then p.pending end as pending,
       p.behind_since, k.followed_at, s.items_estimate, e.failed_items,
       least(e.next_retry, case when x.deaths >= 3 then null else x.next_retry end, d.next_retry) as next_retry,
       t.lost as lost_target, s.lost as lost_source,
       coalesce(x.message, d.message, y.message) as message,
       case when x.flow is not null then x.hint
            when d.flow is not null then d.hint
            else y.hint end as message_hint,
       v.verified_at, v.differing as differing_rows, v.error as verify_error, t.is_external,
       case when v.differing > 0 then pg_catalog.format('%s%s %s in the targets',
              case when v.is_cut then 'more than ' end, v.differing,
              case when v.differing = 1 then 'row differs' else 'rows differ' end) end as difference,
       e.last_error as item_message,
       (select h.label from coco_internal.run_history h where h.flow = f.id order by h.run_id desc limit 1) as label,
       z.next_update
  from coco_internal.flow f
 cross join coco_internal.restore_is_complete() as r (complete)
 cross join lateral (
   select pg_catalog.count(*) as count, pg_catalog.max(t.changed) as changed,
          pg_catalog.bool_or(t.server is not null) as is_external,
          pg_catalog.min(coalesce(t.external, pg_catalog.format('%I.%I', t.schema, t.name)))
            filter (where not exists (select from pg_catalog.pg_class c where c.oid = t.relation)
                       or t.outbox is not null
                          and not exists (select from pg_catalog.pg_class c where c.oid = t.outbox)) as lost,
          coalesce(pg_catalog.bool_or(not exists (select from pg_catalog.pg_class c where c.oid = t.query_view)
            or exists (select from coco_internal.expectation x
                        where x.target = t.id
                          and not exists (select from pg_catalog.pg_class c where c.oid = x.condition_view))),
                   false) as is_broken
     from coco_internal.target t where t.flow = f.flow) as t
 cross join lateral (
   select pg_catalog.count(*) as count,
          pg_catalog.min(s.name)
            filter (where not exists (select from pg_catalog.pg_class c where c.oid = s.relation)) as lost,
          coalesce(pg_catalog.bool_or(
            (s.ordinal is not null or s.fingerprint is not null)
              and not exists (select from pg_catalog.pg_class c where c.oid = s.expressions)
            or s.affects is not null
              and not exists (select from pg_catalog.pg_class c where c.oid = s.affects_view)
            or s.key_expressions is not null
              and not exists (select from pg_catalog.pg_class c where c.oid = s.key_view)
            or exists (select from pg_catalog.unnest(s.key) with ordinality as u(name, place)
                        where s.key_expressions[u.place] is null
                          and not exists (select from pg_catalog.pg_attribute a
                                           where a.attrelid = s.relation and a.attname = u.name
                                             and not a.attisdropped))), false) as is_broken,
          pg_catalog.sum((select c.reltuples::float8 from pg_catalog.pg_class c
                           where c.oid = s.tracking and c.reltuples >= 0))::bigint as items_estimate
     from coco_internal.source s where s.flow = f.flow) as s
  left join coco_internal.failure_rows() e on e.flow = f.flow
  left join coco_internal.verification v on v.flow = f.id
  left join coco_internal.flow_error x on x.flow = f.id
  left join coco_internal.schedule_rows() z on z.flow = f.id
  left join (select distinct on (t.flow) t.flow, d.next_retry, d.hint,
                    pg_catalog.format('target %I on server %I: %s', t.external, t.server, d.message) as message
               from coco_internal.delivery_state d join coco_internal.target t on t.id = d.target
              where d.message is not null order by t.flow, d.failed_at) d on d.flow = f.flow
  -- A worker of a live flow tells more than a session whose update has failed.
  left join coco_internal.session_error_rows() y on y.flow = f.id and not f.live
  -- The logic of a cursor is 0 while a worker evaluates a source in several transactions.
  left join (select s.flow, pg_catalog.min(k.followed_at) as followed_at,
                    pg_catalog.max(k.followed_at) filter (where s.lookup_of is null) as updated_at,
                    pg_catalog.bool_or(k.logic = 0) filter (where s.lookup_of is null) as is_unfinished
               from coco_internal.cursor k join coco_internal.source s on s.id = k.source group by s.flow) k on k.flow = f.flow
  left join coco_internal.pending_flow_rows() p on p.flow = f.flow
 where pg_catalog.pg_has_role(f.owner, 'usage')) as g;

-- At most 100 columns wide in psql if the flows are well. The flows that need attention come first.
create view coco.status with (security_barrier) as
select s.flow, s.state, s.pending, pg_catalog.date_trunc('second', s.lag) as lag, s.failed_items,
       pg_catalog.date_trunc('second', s.next_retry) as next_retry, s.last_error, s.hint
  from coco.status_detail s
 order by case s.health when 'broken' then 0 when 'degraded' then 1 when 'stale' then 2 else 3 end, s.flow;

-- One branch for each scope, so that a query with a condition on scope computes only that scope.
create view coco.metrics as
select 'flow' as scope, m.* from coco_internal.metric_rows('flow') m
union all
select 'source', m.* from coco_internal.metric_rows('source') m
union all
select 'target', m.* from coco_internal.metric_rows('target') m
union all
select 'function', m.* from coco_internal.metric_rows('function') m
union all
select 'expectation', m.* from coco_internal.metric_rows('expectation') m
union all
select 'log', m.* from coco_internal.metric_rows('log') m
union all
select 'worker', m.* from coco_internal.metric_rows('worker') m;

-- sql/comments/flow_functions.sql

-- COMMENTs on the functions that declare and run flows. scripts/reference.sql prints them into docs/sql-reference.md and
-- expects this form: a line "name: …" describes an argument or a result column, a line with an indent of two blanks
-- continues it, and lines with an indent of four blanks are an example.

comment on function coco.create_flow(text, text, text, text, text[], text, text[], text, text, text, interval, text, text, jsonb, text, boolean, boolean, jsonb, text, text, text, text) is $doc$Declares a flow: a query that coco evaluates once for each item of a source, and a target in which coco keeps the result.

With query, one call does the work of coco.add_source, coco.add_lookup and coco.add_target. coco finds what the call leaves
out: the source is the table whose primary key the query's columns contain, or the relation by whose columns the query
groups; then the groups are the items. The key consists of the query's columns that contain these columns, and the target
has the flow's name. In the place of the source, the query can also be the second argument. With flow alone, the
call declares an empty flow, to which these two functions then add sources and targets. The calling role owns the flow,
and the flow's queries run as that role. The flow also keeps the caller's TimeZone, default_text_search_config, lc_time
and lc_monetary.

flow: name of the flow, 1 to 63 bytes, unique in the database.
source: relation that the flow reads, see coco.add_source; or a query. A name is resolved under search_path.
query: one SELECT, written as if it were run once over the whole source; see coco.add_target.
target: table, or object on a server, that keeps the rows of the query; see coco.add_target.
key: columns of the query that identify one row of the target.
name: name that the query uses for the source; NULL: the relation's own name.
source_key: columns and expressions that identify an item; passed to coco.add_source as key.
ordinal: as in coco.add_source.
fingerprint: as in coco.add_source.
capture: as in coco.add_source.
refresh_interval: as in coco.add_source.
search_path: search path under which coco always analyzes and runs the flow's queries.
server: as in coco.add_target.
options: as in coco.add_target.
item: as in coco.add_target.
if_not_exists: true: if a flow has the name already, whoever owns it, the call changes nothing and raises a NOTICE.
or_replace: true: if you own a flow with this name, the call changes it to what is declared; see below.
settings: JSON object with values of TimeZone, default_text_search_config, lc_time and lc_monetary. A setting that it does
  not contain has the caller's value; with or_replace, it keeps the flow's value.
lookups: derive: coco derives lookups from the query's conditions, and raises a NOTICE if a change of a relation evaluates
  every item; none: it follows only the lookups of coco.add_lookup. NULL: none if the call gives source, target and key,
  or flow alone; otherwise derive.
refresh: when workers update the flow while it is live, as in coco.alter_flow. NULL: commit; with or_replace, the flow keeps
  its schedule.
fill_order: order in which an update of all items evaluates them, as in coco.alter_flow. NULL: any; with or_replace, the flow
  keeps its order.
aggregate: delta: coco keeps what each row of the source contributes to its group, and adds only the differences of changed
  rows to the group. The query then groups by the source key, reads nothing else, and calls only count, sum, avg, min, max,
  bool_and, every and bool_or, without ORDER BY, and with DISTINCT only count. group, or NULL: coco evaluates a changed group as a whole.

With or_replace, a call that changes nothing is silent, and waits for nobody. Otherwise a NOTICE lists the differences, and
coco does only what they need. coco compares what is bound, so a line break or a comment in the query is no difference. A
different query is changed as by coco.set_query. Another ordinal, fingerprint, capture, refresh_interval, search_path,
settings, options, refresh or fill_order are changed as by coco.alter_flow. If the source, its key or name, the target, its key or server,
or aggregate differs, coco drops the flow and declares it again. The tables, the owner, the label and the other properties of
coco.alter_flow stay, and a live flow stays live. coco then alters a target table that it created, and empties the table if
its key differs. A flow with several sources or targets can be replaced only by a call with flow alone, which changes its
search path, settings, lookups and schedule. coco.plan shows the differences in advance.

    SELECT coco.create_flow('doc_chunks',
      source => 'documents',
      query  => $$ SELECT d.id AS doc_id, c.n, c.chunk
                     FROM documents d, coco.split_text(d.body, 20) AS c $$,
      target => 'doc_chunks',
      key    => '{doc_id,n}');

Errors: 42710: the name is taken, possibly by a flow that you may not see. 22023, 42622: the name or settings are not
valid, or coco does not find the source or the key. 42P09: the query has several possible sources. 42501: the flow to replace is not yours. 0A000: the flow to replace has other parts, which it would lose; or coco has no rule to keep the query's groups by deltas. Also the
errors of coco.add_source and coco.add_target. A call that fails declares and changes nothing.$doc$;

comment on function coco.plan(text, text, text, text, text[], text, text[], text, text, text, interval, text, text, jsonb, text, jsonb, text, text, text, text) is $doc$Shows what coco.create_flow with the same arguments and or_replace => true would change, and what the next update would do because of it. Changes nothing.

flow: as in coco.create_flow, and so are the other arguments.

The call returns one row for each difference, and no row if there is none.

object: kind of the object that differs: flow, source or target.
name: as an argument, as in coco.create_flow; as a column, name of the object that differs.
change: what differs.
effect: what the next update does because of the difference.

    SELECT object, name, change, effect FROM coco.plan('doc_chunks',
      source => 'documents',
      query  => $$ SELECT d.id AS doc_id, c.n, c.chunk
                     FROM documents d, coco.split_text(d.body, 30) AS c $$,
      target => 'doc_chunks',
      key    => '{doc_id,n}');

Errors: those of coco.create_flow.$doc$;

comment on function coco.create_flow(text, regclass, text, text, text[], text, text[], text, text, text, interval, text, text, jsonb, text, boolean, boolean, jsonb, text, text, text, text) is
'The same as the other coco.create_flow, for a source of type regclass.';

comment on function coco.plan(text, regclass, text, text, text[], text, text[], text, text, text, interval, text, text, jsonb, text, jsonb, text, text, text, text) is
'The same as the other coco.plan, for a source of type regclass.';

comment on function coco.flow_definition is $doc$Returns SQL that declares a flow as it is: one or several statements that psql can run. Run it as the flow's owner.

flow: name of the flow.

The text contains only arguments that differ from their defaults. It names relations with their schemas, and contains the
flow's settings where they differ from those of the server and the database. It contains the text of each query as declared.
If that text no longer declares the same query, because a table or a column was renamed, the text contains the query as
PostgreSQL writes it. The text contains neither the flow's owner nor anything outside the flow, such as tables, functions
and servers.

    SELECT coco.flow_definition('doc_chunks');

Errors: 42704: the flow does not exist. 42501: the flow is not yours. Also the error with which an update of the flow would
fail, if the flow has lost a source or a key column.$doc$;

comment on function coco.definitions is $doc$Returns SQL that declares your flows, one row for each flow, in an order in which they can be declared.

flow: name of the flow.
definition: text of coco.flow_definition; a comment with the error if the flow has lost a part.

A flow that reads the target of another flow comes after the other flow. Apart from that, older flows come first. Versions of
flows (coco.versions) are left out.

    SELECT definition FROM coco.definitions();$doc$;

comment on function coco.add_source is $doc$Adds a source to a flow that has no target yet.

flow: name of the flow.
source: table (not a temporary one), partitioned table, view, materialized view or foreign table.
name: name that the query uses for the source; NULL: the relation's own name.
key: columns that identify an item; NULL: the primary key. If a unique index exists on exactly these columns, an item is
  a row. Otherwise an item is a group: all rows that share the key. A view, materialized view or foreign table needs an
  explicit key, and its items are groups unless it has an ordinal. If a key column of a table
  is nullable, the items are groups, and NULL is a value like any other, as in GROUP BY. An element that names no column is
  an immutable expression over the columns of one row, which can have a name (lower(city) AS city); items are then groups.
ordinal: expression over the source's columns that grows with each version of an item, of type smallint, integer, bigint,
  date, timestamp or timestamptz. coco skips an item whose ordinal it already knows, without reading the item's content.
  It therefore misses a change that leaves the ordinal as it was. coco never skips an item whose ordinal is NULL. For a
  view, materialized view or foreign table, an ordinal also declares that each key identifies one row. Groups of a table
  cannot have an ordinal.
fingerprint: expression over the source's columns whose value represents the content of an item; NULL: the columns that
  the flow's queries use. If two versions of an item have the same value, coco does not evaluate the query again. For a
  group, coco computes the value for each row.
capture: how coco finds changes. trigger: triggers record the keys of changed rows, and an update looks at these keys.
  always: as trigger, and also for rows that logical replication applies or that are written under
  session_replication_role = replica. scan: each update reads the whole source, or, with an ordinal, all of its ordinals.
  auto or NULL: trigger if possible (a logged table on which the owner may create triggers), otherwise scan.
refresh_interval: how often a live flow reads a source that is not captured; NULL: every minute; '0': each time its worker
  looks for changes.
if_not_exists: true: if the flow has a source of this name already, the call changes nothing and raises a NOTICE.

All flows on a table share its triggers and its change log. To create them, the declaration waits for transactions that
are writing to the table, and blocks other writers until its own transaction ends.

    CREATE TABLE sales (id int PRIMARY KEY, cust int NOT NULL, amount numeric NOT NULL);
    SELECT coco.create_flow('totals', 'sales', source_key => '{cust}',
      query  => $$ SELECT cust, count(*) AS n, sum(amount) AS total FROM sales GROUP BY cust $$,
      target => 'totals', key => '{cust}');

Errors: 55000: the flow already has a target. 42501: the owner may not read the source. 42P16: the source has no key. 42703, 42804, 42601: a key, ordinal or fingerprint does not fit the source. 0A000: the source is a
temporary table, an ordinal is given for groups, or capture requires triggers on a table that cannot be captured. 22023:
another argument is not valid.$doc$;

comment on function coco.add_lookup is $doc$Declares a lookup: a relation that the flow's query reads in addition to its source. When the lookup changes, coco re-evaluates the affected items.

Declare lookups after the source and before the target, so that coco.add_target does not warn about them. A row of the
lookup counts as changed if its key, or a column that the flow's queries use, has changed.

flow: name of the flow.
lookup: table (not a temporary one), partitioned table, view, materialized view or foreign table.
name: name that affects uses for the lookup; NULL: the relation's own name.
affects: one SELECT that maps changed keys of the lookup to keys of the source. In this query, name is a relation that
  holds the key columns of the inserted, updated or deleted rows. NULL: a change affects every item.
source: name, in the flow, of the source whose items are affected; required if the flow has several sources.
key: columns that identify a row of the lookup, or a group of rows; NULL: the primary key. If affects finds items by a
  column that may change, or by rows that may be deleted, make that column the key.
capture: as in coco.add_source.
refresh_interval: as in coco.add_source.
if_not_exists: true: if the flow has a lookup of this name already, the call changes nothing and raises a NOTICE.

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

Errors: 42601, 22023, 42804: affects is not a SELECT, does not read the lookup, or does not return the source's key. 42710:
the name is taken. 55000: the flow has no source yet. 42P16: a key column is nullable. 42P17: the flow would feed itself,
directly or through other flows. Also the errors of coco.add_source about relation, key and capture.$doc$;

comment on function coco.add_target is $doc$Adds a target to a flow: coco keeps in it the rows that query returns for each source item.

flow: name of the flow.
target: table, schema.table or database.schema.table, quoted as in SQL; the database is the current one. A name without a
  schema means the table found on the flow's search path; if there is none, coco creates it where CREATE TABLE under that
  search path would. With server: the name of the object on that server, taken literally.
query: one SELECT, written as if it were run once over the whole source. In it, the name of a source is a relation that
  holds only the item; the query sees all other relations in full. As for a view, coco binds all names at declaration.
key: columns of the query that identify one row of the target.
server: name of a foreign server of coco_postgres, coco_qdrant, coco_neo4j, coco_kafka or coco_http; NULL: the target is a
  table of this database.
options: JSON object with the connector's options for the target; coco.connector_options() lists them.
item: alias under which the query reads the item, if the query names the source in several places; the other places then
  read the whole source. NULL: the places that name the source without its schema; if there are none, the only place that
  names it.
if_not_exists: true: if the flow has this target already, the call changes nothing and raises a NOTICE.

If the table does not exist, coco creates it with the query's columns and a primary key on key; the flow's owner owns it.
Columns for which the query never returns NULL are NOT NULL; coco drops the NOT NULL if the query can return NULL later.
If a column of the source key is nullable, and the query can return NULL for a column of key, the table has a constraint
UNIQUE NULLS NOT DISTINCT instead of the primary key.
If the table exists, coco adopts it: its columns must fit, and it must have a unique index on exactly the key. coco never
alters and never drops an adopted table. If coco created the table for a flow of the same owner that was dropped since, and
this role still owns the table, coco manages it again. Rows already in the table stay until
coco.verify(flow, repair => true) deletes them.

A row belongs to the item that produced it. To collect rows from several sources, use UNION ALL: coco evaluates the query
for an item of one source while the other sources are empty. If a flow has several targets, coco writes an item to all of
them or to none.

    SELECT coco.create_flow('everything');
    SELECT coco.add_source('everything', 'documents');
    SELECT coco.add_source('everything', 'letters');
    SELECT coco.add_target('everything', 'all_texts',
      $$ SELECT 'letter' AS kind, id, body FROM letters
         UNION ALL
         SELECT 'document', id, body FROM documents $$,
      '{kind,id}');

Errors: 42601: the query is not exactly one SELECT. 22023: the query does not read a source. 0A000: the query joins two
sources, or reads a source in a way that does not work for a single item. 42P09: the query reads a source in several places,
and it is ambiguous which one is the item. 42611, 42701, 42703: the query's columns are not valid. 42804, 42P16: the table
does not fit. 55006: the target belongs to another flow. 42P17: the flow would feed itself, directly or through other flows.
42501: a right is missing. HV00D, HV024, HV00J: a connector option is
not valid. WARNING 01000: the query contains a part that coco does not follow.$doc$;

comment on function coco.set_query is $doc$Replaces the query of a flow's target.

coco alters a table that it created to fit the new columns: it drops columns that the query no longer has, and adds new
ones. A column whose type changes loses its values until the next update. If the type of a key column changes, coco empties
the table. An adopted table must already fit. The next update evaluates every item and writes the rows that differ. coco
does not alter an object outside this database; if the columns change, it sends all rows again.

flow: name of the flow.
target: current name of the table, or the name under which a target outside this database was declared; NULL: the flow's
  only target.
query: as in coco.add_target. coco binds the query anew, even if its text is the same.
item: as in coco.add_target.
gapless: true: coco declares the query as a new version of the flow, and leaves flow and targets as they are. It fills a
  table of the new version beside the target. Later, the new version replaces the flow in one transaction: see coco.swap.
swap: with gapless. auto: the first coco.update, or worker, that finds the new version up to date and without failed items
  replaces the flow. manual: only coco.swap does.
keep_old: with gapless. How long coco keeps the replaced version up to date for coco.rollback; '0': not at all.
key: with gapless. The new target key; NULL: the present one. Without gapless the key stays the same.

    SELECT coco.set_query('doc_chunks', NULL,
      $$ SELECT d.id AS doc_id, c.n, c.chunk, length(c.chunk) AS length
           FROM documents d, coco.split_text(d.body, 20) AS c $$);

Errors: 22023, 42704: target does not identify a target of the flow. 0A000: the key of a target outside this database would
change its type. Also the errors of coco.add_target about query, key and fit. 55000: the flow already has a new version. Of a
change with gapless: 2BP01: objects depend on the target that coco cannot move to another table; 0A000: a target is
outside this database, or a new key lacks a column of the partition key; 42501: the owner of the flow does not own the
target or a partition of it.$doc$;

comment on function coco.expect is $doc$Declares an expectation: a condition that every row of a target should satisfy. coco checks each row before it writes the row.

flow: name of the flow.
condition: boolean expression over the columns of the target, for example price > 0. As with a CHECK constraint, a row for
  which it is NULL satisfies it. It may call functions that are not volatile; it cannot contain a subquery.
action: what coco does with a row that does not satisfy the condition. park: coco does not write the row, deletes an
  earlier version of it, and lists it in coco.errors. warn: coco writes the row, and counts it. fail: the row's item fails,
  and keeps its earlier rows.
max_share: share of the rows of an update that may fail, from 0 to 1; NULL: any. An update in which more rows fail ends with
  an error, and is rolled back. An update of fewer than 100 rows counts as one of 100. A worker's transaction counts as an
  update.
name: name of the expectation; NULL: the condition, cut to 63 bytes. If the target has an expectation of this name, the
  call replaces it.
target: target of the expectation, as in coco.set_query; NULL: the flow's only target.

coco evaluates the condition as the flow's owner, under the flow's settings, in the statement that evaluates the query. It
binds the condition at declaration, and again when coco.set_query changes the query. If an evaluation raises an error, the
row's item fails. If an expectation with the action park or fail is added, changed or dropped, the next update evaluates
every item.

    SELECT coco.expect('doc_chunks', 'chunk <> ''''', name => 'not_empty', max_share => 0.01);

Errors: 42601, 42703, 42804, 0A000: the condition does not fit. 22023: an argument is not valid, or the condition calls a
volatile function. 42704: target does not identify a target of the flow. 55000: the flow has a new version. An update in
which too many rows fail raises 23514.$doc$;

comment on function coco.drop_expectation is $doc$Drops an expectation of a target.

flow: name of the flow.
name: name of the expectation, as in coco.expectations.
target: target of the expectation; NULL: the only one with an expectation of this name.

If the expectation parked rows or let items fail, the next update evaluates every item, and writes the rows.

    SELECT coco.drop_expectation('doc_chunks', 'not_empty');

Errors: 42704: the flow has no such expectation. 22023: several targets have an expectation of this name. 55000: the flow
has a new version.$doc$;

comment on function coco.swap is $doc$Replaces a flow by the new version that coco.set_query with gapless has declared.

First brings the new version up to date, then exchanges names in one transaction. The table of the new version gets the name
of the target, with its indexes, constraints, grants, comments, policies, triggers and publications. Views over the target
read the new table. Readers wait only for this exchange. If the flow calls providers, a worker updates the new version, so its
declaration must be committed.

flow: name of the flow.

The replaced version is dropped, or kept as <flow>@old with its table <target>@old for keep_old. coco never drops an adopted
table: it stays under the name <target>@old. The swap uses a new version although some of its items fail.

    SELECT coco.set_query('doc_chunks', NULL,
      $$ SELECT d.id AS doc_id, c.n, c.chunk FROM documents d, coco.split_text(d.body, 30) AS c $$,
      gapless => true, swap => 'manual', keep_old => '1 day');
    SELECT coco.swap('doc_chunks');

Errors: 55000: the flow has no new version, or the target has got an index or a constraint that the new table lacks. 2BP01:
objects depend on the target that coco cannot move. 55P03: a transaction that has read the target stays open for 10
seconds.$doc$;

comment on function coco.rollback is $doc$Replaces a flow by its old version, which the last swap has kept.

Works as coco.swap. The version that the flow had until now becomes the old version, so another call undoes the first one.

flow: name of the flow.

    SELECT coco.rollback('doc_chunks');

Errors: 55000: the flow has no old version. Also the errors of coco.swap.$doc$;

comment on function coco.discard is $doc$Gives up the new version of a flow, and drops its table.

flow: name of the flow.

    SELECT coco.set_query('doc_chunks', NULL,
      $$ SELECT d.id AS doc_id, c.n, c.chunk FROM documents d, coco.split_text(d.body, 40) AS c $$,
      gapless => true);
    SELECT coco.discard('doc_chunks');

Errors: 55000: the flow has no new version.$doc$;

comment on function coco.alter_flow is $doc$Changes properties of a flow; a property whose argument is NULL stays as it is. Waits until a worker, or another session, has finished its current work for the flow.

flow: name of the flow.
owner: new owner of the flow, and of the targets in this database that coco created. The new owner may then read the
  flow's views in the schema coco, and the previous owner no longer may. As for ALTER TABLE … OWNER TO, the caller must be
  able to SET ROLE to the new owner, and the new owner needs CREATE on the schemas of these targets. coco grants no other
  rights: if the new owner may not read the sources, the next update reports it.
label: version, commit or other name of the code. coco.lineage shows it with items evaluated from now on, and coco.history
  with runs from now on. An empty string removes the label. The label is not part of the logic: a new label does not
  cause any evaluation.
batch_size: number of source items that coco evaluates and writes as one batch, 1 to 1000000; overrides the setting
  coco.batch_size. 0: use the setting again.
paused: true: coco neither updates the flow nor sends its rows until paused is false again. coco.update raises an error,
  and workers skip the flow. Triggers still capture changes, so the flow's change log grows.
lineage_index: true: coco creates an index on each tracking table of the flow. coco.lineage uses the index to find target
  keys that tracking rows list; the index makes writes slower. false: coco drops these indexes.
source: name, in the flow, of the source or lookup that the next four arguments belong to; NULL: the flow's only source.
ordinal: as in coco.add_source; an empty string removes the ordinal. coco deletes the stored ordinals of the items, and the
  next update compares the content of every item.
fingerprint: as in coco.add_source; an empty string removes the fingerprint. The fingerprint is part of the logic, so the
  next update evaluates every item.
capture: as in coco.add_source. coco creates missing triggers, or ends the capture of a table that no flow needs any
  longer. The next update looks at every item once.
refresh_interval: as in coco.add_source.
search_path: search path of the flow. coco resolves no name of the flow's queries again; the search path serves functions
  that the queries call, and later calls of coco.set_query and coco.add_target.
settings: JSON object with new values of TimeZone, default_text_search_config, lc_time or lc_monetary, under which the flow
  runs. Other settings stay as they are. Search path and settings are part of the logic, so the next update evaluates every
  item.
target: name of the target outside this database that options belong to; NULL: the flow's only such target.
options: JSON object with the connector's options for the target, which replaces all previous options. They apply to rows
  that coco sends from now on. An option that decides which objects the target writes to cannot be altered.
verify_interval: time after which a worker verifies the targets of the live flow again, between 1 second and 1 year. The
  worker compares them as coco.verify does, outside this database too, in a process of its own. coco verifies one flow of a
  database at a time, and spends at most a tenth of the time on a flow. It repairs nothing: coco.status, coco.status_detail
  and coco.metrics show what differs. 0: workers verify nothing.
max_rows: number of target rows that one update may write and delete. coco estimates each update of the flow first, and
  raises an error, before it writes anything, if the update would pass the limit. 0: no limit. A new version of the flow
  (coco.set_query with gapless) has no such limit.
max_cost: amount that one update may spend at the servers of providers, in the unit of their prices. coco raises an error
  as for max_rows, before it sends a request. 0: no limit.
refresh: when workers update the flow while it is live. commit: after each commit that changes a source. An interval of at
  least one second, such as '5 minutes': so long after the beginning of the previous update. A cron line of five fields,
  such as '0 3 * * *', or a name such as '@daily': at the times that match the line in the flow's TimeZone. See below.
fill_order: order in which an update that looks at all items of a source evaluates them, such as the first one. newest: the
  items with the largest ordinals first; oldest: those with the smallest ordinals first; any: as coco reads them. A source
  without an ordinal has no order. See below.

Whatever an update evaluates again, it takes results of memoized functions from the store. If such a result depends on the
search path or on a setting, call coco.clear_memo.

A flow with a schedule follows all of its sources at these times only, also those that are not captured, whatever their
refresh_interval. A time that was missed, because the server was down or an update took long, counts once: the flow is
updated as soon as possible. In an interval, a day has 24 hours. If a change of local time skips a time of a cron line, the
update comes right after the change. If local time repeats, the time counts once. A line whose field for the hour begins
with * counts each minute that a local clock shows. Failed items are retried at the times of the schedule, too. Rows that
wait for a target outside this database are sent at once. coco.start updates the flow at once.

The order counts for items that coco evaluates in several batches: by workers for a live flow, and in updates of flows that
call memoized functions. Readers of a live flow see the rows of each transaction of its worker. The first coco.update of
another flow fills its targets with one statement, so all rows appear together.

    SELECT coco.alter_flow('doc_chunks', label => 'v1.2', batch_size => 500);

Errors: 22023: a value is not valid or out of range, or an argument that it belongs to is missing. 42501: the flow is not
yours, or you cannot SET ROLE to the new owner. 42704: the flow has no such source, lookup or target. 0A000: the source
cannot have the ordinal or lose it, its changes cannot be captured, or the option cannot be altered. 55000: the flow has a
new version, which has copies of sources and settings. Also the errors of coco.add_source about ordinal, fingerprint and
capture, and those of the connector about options.$doc$;

comment on function coco.allow is $doc$Lets the next update of a flow pass the limits max_rows and max_cost, once. The permission ends with the next update that evaluates items and leaves none for later. A worker that the limits have stopped retries the flow when the caller commits.

flow: name of the flow.

    SELECT coco.allow('doc_chunks');

Errors: 42501: the flow is not yours.$doc$;

comment on function coco.rename_flow is $doc$Gives a flow another name. The items, the history, the labels, the results of memoized functions and the targets stay as they are, and the next update evaluates nothing. A worker that follows the flow continues under the new name.

Views of the flow in the schema coco, whose names contain the flow's name, are renamed, too. A webhook, and the headers of
Kafka records, report the new name from now on. Waits until a worker, or another session, has finished its current work for
the flow. Versions of the flow (coco.versions) get names that belong to the new name.

flow: name of the flow.
new_name: new name, at most 63 bytes.

Errors: 42704: the flow does not exist. 42501: the flow is not yours. 42710: the name is taken. 22023, 42622: the name is
empty or too long. 42939: the new name ends with @new or @old. 55000: the flow is a version of another one. 55006: a worker is
updating the flow for another session.$doc$;

comment on function coco.drop_flow is $doc$Drops a flow, its tracking tables and its query views. For a target outside this database, it also drops the ledger and the outbox with all undelivered rows. coco keeps the stored results of memoized functions for coco.memo_retention, so that a flow that is declared again does not compute them again.

flow: name of the flow.
keep_targets: false: also drops the targets that coco created, but never adopted ones. Outside this database, a worker
  removes the objects that the connector created. The call waits for this worker, and a ROLLBACK does not undo the removal.
  Stop a live flow first.
if_exists: true: a NOTICE instead of an error if there is no flow of this name.

With the last flow that captures a table, coco drops the table's triggers and its change log. If the table is in use, its
triggers remain and do nothing, and coco raises a WARNING.

Errors: 42704: the flow does not exist. 42501: the flow is not yours. With keep_targets false, also the error that prevents
the connector from removing a target.$doc$;

comment on function coco.update is $doc$Brings a flow's targets up to date.

The update runs in the caller's transaction: it sees this transaction's own changes, and a rollback undoes it. If the flow
has a target outside this database, or its query calls coco.embed, coco.generate or coco.http_post, a worker runs the
update instead. The call starts the worker and waits for it; you can cancel the call. The worker uses transactions of its
own and sees only committed data. The call returns when each target has accepted or rejected all rows that were to be sent.
Two updates of one flow wait for each other.

flow: name of the flow.
mode: normal: evaluates items whose version, content or logic changed, and failed items whose retry is due; writes the rows
  that differ. retry: as normal, and also retries all failed items and all rejected rows. full_reprocess: evaluates every
  item, and computes results of memoized functions again. refresh: as full_reprocess, but takes stored results, except
  those that are older than the function's ttl. reexport: evaluates every item and writes every row. If coco has created a
  target outside this database and can read it, coco then deletes the rows of the target that no item has. A NOTICE says
  where such rows may be left.
upstream: true: first updates your flows that feed the flow, directly or through others, each after those that feed it. They
  run with mode normal. All of these flows read their sources under one snapshot, unless a worker must run one of them. The
  rows of the flows that feed the flow come first in the result.

A flow feeds another flow if it writes a table that the other flow follows as a source or a lookup. If a worker runs a flow,
workers also run the flows that feed it. Flows of other roles are left out, with a NOTICE.

The call returns one row for each source.

source: name of the source in the flow.
seen: number of items now in the source; if the update looks only at changes, number of items among these.
skipped: number of seen items that coco left as they are because of their ordinal and the logic.
unchanged: number of seen items that coco left as they are because of their content fingerprint and the logic.
evaluated: number of items for which coco evaluated the query, successfully or not.
upserted: number of rows inserted or updated in all targets; outside this database, number of rows to insert or update.
deleted: number of rows deleted from all targets; outside this database, number of rows to delete.
failed: number of items that failed now or wait for their next retry, and of rows that a target outside this database
  rejected.
elapsed: time spent on the source.
memo: JSON object with statistics of memoized functions, by function name; NULL if there were no calls. Each value is an
  object with calls, hits, reused, misses, errors, requests, tokens_in, tokens_out, cost, bytes and milliseconds.
flow_name: name of the flow that has the source.

    SELECT source, seen, evaluated, upserted, deleted, failed FROM coco.update('doc_chunks');

Errors: 55000: the flow has no target yet, an object that the flow reads no longer exists, or a worker cannot see the flow
because its declaration is not committed. 22023: the mode is not valid. 22004: a key of a lookup is NULL. 21000: a key identifies
several rows. 40001: the transaction's snapshot is older than another update. 42501: a right is missing. 55006: the worker
waits for the calling transaction. 25006: the server is a standby. 53400: no worker could be started. Also the errors of
connectors and providers. An item that fails does not raise an error: coco.errors lists it.$doc$;

comment on function coco.update_all is $doc$Brings several flows up to date, each after the flows that feed it.

The flows run with mode normal, in the caller's transaction and under one snapshot. If a flow has a target outside this
database, or its query calls coco.embed, coco.generate or coco.http_post, workers run that flow and the flows that feed it,
before all others. An error in one flow ends the call, and names the flow; what workers have committed until then remains.

flows: names of the flows. NULL: all of your flows, except flows that are paused or have no target.

The call returns one row for each source of each flow, in the order of the updates. The column flow is the name of the flow.
The other columns are those of coco.update.

    SELECT flow, source, evaluated, upserted, deleted, failed FROM coco.update_all();

Errors: 22004: flows contains NULL. 42704: a flow does not exist. 42501: a flow is not yours. Also the errors of coco.update.$doc$;

comment on function coco.retry is $doc$Updates a flow and retries its failures at once: the same as coco.update(flow, 'retry'). coco evaluates failed items without waiting for their next retry, and resends rows that a target outside this database rejected.

flow: name of the flow.

The result columns and the errors are those of coco.update.$doc$;

comment on function coco.start is $doc$Starts keeping a flow up to date: after this transaction commits, a background worker follows the flow's sources. If the flow is already live, this is not an error; coco retries a failed flow at once, and updates a flow that has a schedule at once.

If coco is in shared_preload_libraries, each commit that changes a source wakes the worker, and live flows continue after
a restart. Otherwise the worker looks for changes every 100 ms and ends with the server. If triggers or change logs of the
flow's sources are missing, coco creates them; for this it waits for transactions that are writing to the sources.

flow: name of the flow.

    SELECT coco.start('doc_chunks');

Errors: 55000: the flow has no target yet. WARNING 53400: no worker could be started, because all max_worker_processes are
in use.$doc$;

comment on function coco.stop is $doc$Stops keeping a flow up to date. Cancels the work of a worker for the flow, and waits for a session that is updating it. If the flow is not live, this is not an error.

Triggers still capture changes for the next coco.update or coco.start; until then the change log grows. coco sends nothing
more to targets outside this database, except a batch that is already in flight.

flow: name of the flow.

    SELECT coco.stop('doc_chunks');

Errors: 42704: the flow does not exist. 42501: the flow is not yours.$doc$;

comment on function coco.wait is $doc$Waits until the targets of a live flow contain all changes that were committed before the call. Returns true; or false if timeout has passed first.

If other flows feed the flow, directly or through others, the call first waits for these, each after those that feed it. The
targets then contain what a change of any of their sources causes. This includes flows of other roles.

The call does not wait for changes of its own transaction. A source that is not captured must be read after the call
began, so the wait can last as long as its refresh_interval. The changes must have been sent to targets outside this
database; the call does not wait for rows that these targets rejected.

If a flow has a schedule (refresh in coco.alter_flow), the call waits for its next update. It raises an error at once if this
update does not begin before the timeout. coco.update brings the flow up to date at once.

flow: name of the flow.
timeout: maximum time to wait.

Errors: 55000: the flow, or a flow that feeds it, is not live, is paused, or has a schedule whose next update is too far away.
22023: timeout is negative.$doc$;

-- sql/comments/inspect_functions.sql

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

-- sql/comments/query_functions.sql

-- COMMENTs on the functions that queries call, and on the functions for memoization and connectors. scripts/reference.sql
-- prints them into docs/sql-reference.md and expects this form: a line "name: …" describes an argument or a result column,
-- a line with an indent of two blanks continues it, and lines with an indent of four blanks are an example.

comment on function coco.split_text is $doc$Splits a text into chunks at the largest boundaries that fit: paragraphs, sentences, words.

text: text to split; NULL returns no rows.
size: maximum number of characters in a chunk.
overlap: maximum number of characters that a chunk repeats from the previous chunk, not counting indentation at its beginning.
language: plain or NULL; or markdown, which prefers the boundaries of Markdown elements.

n: number of the chunk, from 1.
chunk: part of the text.
byte_start: offset of the chunk in the text, in bytes of UTF-8, from 0.
byte_end: offset of the end of the chunk, exclusive.

    SELECT * FROM coco.split_text(E'# Head\n\nOne two three four. Five six.', 12, 0, 'markdown');

Errors: 22023: size is below 1, overlap is not below size, or language is not supported.$doc$;

comment on function coco.split_file is $doc$Splits the text of a file by the structure of its language: source code at the nodes of its syntax tree, Markdown at its elements, other texts at paragraphs, sentences and words.

text: text to split; NULL returns no rows.
size: maximum number of characters in a chunk.
overlap: maximum number of characters that a chunk repeats from the previous chunk, not counting indentation at its beginning.
language: plain, markdown, bash, c, cpp, csharp, css, go, html, java, javascript, json, kotlin, php, python, ruby, rust, sql,
  swift, typescript, tsx or yaml. NULL: the language of file_name.
file_name: name of the file, with or without directories. Its extension determines the language. A file with another
  extension is plain text.

n: number of the chunk, from 1.
chunk: part of the text. A chunk of source code or Markdown of several lines keeps the indentation of its first line.
byte_start: offset of the chunk in the text, in bytes of UTF-8, from 0.
byte_end: offset of the end of the chunk, exclusive.
line_start: number of the chunk's first line, from 1.
line_end: number of the chunk's last line.
path: names around the chunk, the outermost first. For Markdown these are the headings of the section in which the chunk
  begins. For source code they are the classes, functions and other declarations that contain the whole chunk.

A text with syntax errors is split by what the parser can read. The parser runs in a process of its own, for at most 60
seconds and with at most 1 GB of memory.

    SELECT n, line_start, line_end, path
      FROM coco.split_file(E'class Sea:\n    def pull(self):\n        return 1\n', 50, file_name => 'sea.py');

Errors: 22023: size is below 1, overlap is not below size, or language is not supported. 54000: parsing exceeds a limit.
0A000: coco was built without the feature code.$doc$;

comment on function coco.extract_text is $doc$Extracts the text of a file: PDF, HTML, DOCX, XLSX, PPTX, EPUB, e-mail, RTF and plain text. Headings, lists, tables and links become Markdown. Nothing in the file is executed, and no other file or address is read.

content: content of the file; NULL returns NULL.
media_type: media type, such as application/pdf or text/html; charset=utf-8. NULL, or application/octet-stream, determines
  the format from the content.

The result for HTML is the title and the main content, without navigation. The result for an e-mail message is its usual headers
and its text, and the names of attachments. The encoding of plain text is that of its byte order mark or of charset. Otherwise
coco determines the encoding from the bytes. The page of a scanned PDF file has no text. XLS, XLSB and ODS files are read like
XLSX files.

A library that reads a format runs in a process of its own, for at most 60 seconds and with at most 1 GB of memory. A text has
at most 256 MB.

    SELECT coco.extract_text('<html><title>Tides</title><p>The moon <a href="https://example.org/">pulls</a>.');

Errors: 22023: the media type is not supported, or the content has no supported format. 22P03: the content is damaged or
encrypted. 54000: reading the content exceeds a limit. 0A000: coco was built without the feature documents.$doc$;

comment on function coco.extract_pages is $doc$Extracts the text of a file, one row for each page. A page is a page of a PDF file, a slide of a PPTX file, a sheet of an XLSX file, or a chapter of an EPUB file. Any other file is one page.

content: content of the file; NULL returns no rows.
media_type: as in coco.extract_text.

page: number of the page, from 1.
text: text of the page; empty if the page has none.

    SELECT * FROM coco.extract_pages('One page.');

Errors: those of coco.extract_text.$doc$;

comment on function coco.normalize_text is $doc$Removes from a text differences that do not change its content. Line endings become newlines, and runs of blanks become one space. Blanks at line ends and blank lines at the end disappear. Use it in the argument fingerprint of a source.

text: text to normalize.

    SELECT coco.normalize_text(E'One  two. \r\n\r\nThree.\r\n');$doc$;

comment on function coco.fingerprint is $doc$Computes 128 bits of the BLAKE3 hash of its arguments. It takes one or more arguments of any type: values, NULLs, records.

The function keeps the arguments apart: ('a','bc'), ('ab','c') and ('a',NULL,'bc') differ. Values of types that belong to
an extension or contain an oid count as text.

    SELECT coco.fingerprint(1, 'a'::text, null::int);$doc$;

comment on function coco.stable_uuid is $doc$Computes a UUID of version 8 (RFC 9562) that depends only on the arguments: it is the same at any time and in any database. It is derived from the BLAKE3 hash of the arguments' type names and values. It takes one or more arguments.

NULL is a value of its own. 1 and 1::bigint give different UUIDs. A domain counts as its base type.

    SELECT coco.stable_uuid('contracts'::text, 17, 'section 3'::text);$doc$;

comment on function coco.local_files is $doc$Lists the files below a directory of the server's machine that match a glob, one row for each file. It reads a file only if the query asks for the content of its row. The caller must be a superuser or a member of pg_read_server_files; in a flow, the flow's owner must be one.

directory: absolute path, as the server's operating system user sees it.
glob: pattern for path. * matches any number of characters except /, and ? matches one of them. ** as a whole component of
  the path matches any number of directories. {a,b} matches one of several alternatives. [a-z] matches a character in the
  range, and [!a-z] a character outside it. \ removes the special meaning of the next character. A leading dot is like any
  other character. ? and […] match one byte.

path: path below directory, without a leading slash.
modified: time of the last change of the content (mtime), with microsecond precision. Intended as the ordinal of a source;
  coco then misses a file that is replaced by a file with an older time.
size: size of the file in bytes.
content: content of the file; NULL if the file has vanished since the function listed it.

The function lists ordinary files, and symbolic links to ordinary files. If it cannot read a subdirectory, it raises an
error. Without this error, the files in the subdirectory would count as deleted.

    CREATE VIEW files AS SELECT * FROM coco.local_files('/etc', 'host*');
    SELECT coco.create_flow('file_lines', 'files', source_key => '{path}', ordinal => 'modified',
      query  => $$ SELECT path, n, line
                     FROM files, regexp_split_to_table(convert_from(content, 'UTF8'), '\n')
                                 WITH ORDINALITY AS t (line, n) $$,
      target => 'file_lines', key => '{path,n}');

Errors: 42501: the role or the operating system does not allow it. 22004, 22023: an argument is NULL or not valid. 58P01,
42809: the directory does not exist or is not a directory. 38000, 58030: a file cannot be read. 54000: a file is larger than
1 GB. WARNING 22021: the name of a file is not valid in the database's encoding.$doc$;

comment on function coco.list_files is $doc$Lists the same files as coco.local_files, without their content.

directory: as in coco.local_files.
glob: as in coco.local_files.

path: path below directory, without a leading slash.
modified: time of the last change of the content (mtime), with microsecond precision.
size: size of the file in bytes.

Errors: those of coco.local_files.$doc$;

comment on function coco.read_file is $doc$Reads the content of a file below a directory of the server's machine. Returns NULL if the file does not exist or is not an ordinary file. The caller must be a superuser or a member of pg_read_server_files.

directory: absolute path.
path: path of the file below directory.

Errors: those of coco.local_files.$doc$;

comment on function coco.embed is $doc$Returns the embedding of a text, computed by a model of a coco_openai server. pgvector casts the result to vector automatically. The current role needs USAGE on the server; the API key is that of the user mapping of the current role, or of PUBLIC. Inside a flow, coco memoizes the function.

input: text to embed; NULL returns NULL.
server: name of the foreign server.
model: name of the model on that server.
dimensions: number of elements of the vector, for models that allow a choice.

Errors: 22004: server or model is NULL. 22023: dimensions is not valid, or the server does not accept a parameter. 42704,
42809, 42501: the foreign server does not exist, is of another wrapper, or you may not use it. 53400: the limits of the
server, or the spending cap, are reached. For other errors, see docs/functions.md.$doc$;

comment on function coco.create_search is $doc$Creates a search of the texts or files in a table. Declares a flow with this name, which splits each text into chunks and stores each chunk with its words (tsvector) and its embedding in a table of the same name. Also creates indexes on words and embeddings, a policy, and a function of the same name. By the policy, a role sees only the chunks of rows that it sees in the source. The function calls coco.search, and returns the key of the source in columns of its types. The flow is an ordinary one: coco.update fills the table, coco.start keeps it up to date, and coco.drop_flow also drops the function.

search: name of the search, the flow, the table and the function. The table and the function are created in the first schema of search_path.
source: table with a primary key.
text: column with the texts. If its type is bytea, the column contains files, whose text coco extracts.
server: foreign server of the wrapper coco_openai; NULL for a search by words alone.
model: name of the model on that server.
dimensions: number of elements to ask the model for. By default coco embeds a word to find out how many the model returns.
size: largest size of a chunk in characters.
overlap: number of characters that a chunk repeats of the one before it.
language: language of the texts, as in coco.split_text (plain, markdown) or coco.split_file (a programming language).
configuration: text search configuration.
text_prefix, query_prefix: what the model reads before each chunk, and before each query. Some models need this, such as
'passage: ' and 'query: '. The table contains the chunks without it.
if_not_exists: if a flow has this name, do nothing, with a NOTICE.
search_path: search path of the flow.

Errors: 22004: an argument is NULL. 22023: an argument is not valid. 42701: a key column has a name that the search uses
itself. 42703: the column does not exist. 42704: the extension vector or the server does not exist. 55000: the source has
no primary key. Also the errors of coco.create_flow and coco.embed.$doc$;

comment on function coco.search is $doc$Finds the chunks of texts that match a query, and returns the best ones first. The caller needs SELECT on the table of the search and on its source, and finds only chunks that its policies show. The owner of the search embeds the query, so the caller needs no rights on the model's server. A session keeps the embeddings of its last 100 queries for ten minutes.

search: name of a search that coco.create_search has created.
query: words or a question. The words are those of websearch_to_tsquery: "a phrase", or, -without. Chunks that contain all words come first; if the query has no operators, chunks that contain some of the words follow.
max_results: largest number of results, 1 to 1000.
mode: words, vectors, or hybrid (both, fused by their places in the two rankings).

source_key: key of the source row, as a JSON object.
chunk_no: number of the chunk in its text, from 1.
chunk: text of the chunk.
score: sum of 1 / (60 + place) over the rankings that contain the chunk (reciprocal rank fusion). Only chunks that the caller sees have a place.

Errors: 22004: an argument is NULL. 22023: max_results or mode is not valid. 42501: you may not read the table of the
search. 42704: the search does not exist. 55000: the search has no vectors. Also the errors of coco.embed.$doc$;

comment on function coco.generate is $doc$Returns the answer of a model of a coco_openai server to a prompt, at temperature 0. The current role needs USAGE on the server; the API key is that of the user mapping of the current role, or of PUBLIC. Inside a flow, coco memoizes the function.

prompt: message of a user; NULL returns NULL.
server: name of the foreign server.
model: name of the model on that server.
json_schema: JSON schema to which coco tells the server to restrict the answer; the result is then a JSON text.

Errors: 22000: the model refuses, or its answer was cut off. Also the errors of coco.embed.$doc$;

comment on function coco.http_post is $doc$Sends a JSON body to a service of your own in a POST request and returns its answer. Returns NULL for a NULL argument. Inside a flow, coco memoizes the function.

url: URL below that of a coco_http server on which the current role has USAGE. Scheme, host and port must be the same, and
  the path must begin with all components of the server's path. Among several such servers, the longest URL counts; coco
  uses the user mapping of that server.
body: JSON body of the request.

Errors: 22023: the URL is not valid. 42501: the URL is not below that of a server that you may use. For other errors, see
docs/functions.md.$doc$;

comment on function coco.memoize is $doc$Memoizes a function in all flows. When a flow's query, or a view that it reads, calls the function, coco stores the result by argument values and reuses it until the code changes. Another call for the same function replaces version, batch, batch_size and ttl. The caller must be the function's owner or a member of that role.

function: function with its argument types, as in 'subject(text)'. coco records its name and its owner. After the function
  was renamed, moved, or given to another role, memoize it again. Until then coco calls it like any other function, and
  coco.explain reports it.
version: any text; if it changes, coco computes all results again. Use it for changes that coco does not see, such as a
  new model file.
batch: function over arrays, as in 'subjects_of(text[])', that computes many results in one call. It takes an array for each
  argument and returns an array of the results, in the same order.
batch_size: maximum number of inputs in one call of batch.
ttl: maximum age of a result that an item uses; NULL for none. When coco evaluates an item, it computes older results again.
  The age alone evaluates no item: coco.update(flow, 'refresh') evaluates all. A month counts as 30 days.

    CREATE FUNCTION subject(t text) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT lower((regexp_match(t, '^(?:The )?(\w+)'))[1]) $$;
    SELECT coco.memoize('subject(text)');

Errors: 42501: the function, or the batch function, is not yours. 42809: the function returns a set or a record, or is a
procedure, an aggregate or a window function. 42P13: batch does not fit the function. 22023: coco always memoizes the
function, batch_size is below 1, or ttl is not greater than 0.$doc$;

comment on function coco.unmemoize is $doc$Stops memoizing a function. The next update of each flow that calls it re-evaluates every item and deletes the stored results. The caller must be the function's owner or a member of that role.

function: function with its argument types.

    SELECT coco.unmemoize('subject(text)');

Errors: 42704: the function is not memoized. 42501: the function is not yours.$doc$;

comment on function coco.clear_memo is $doc$Deletes stored results of memoized functions, for all versions of their code. Returns the number of deleted results. The call does not evaluate anything: coco computes a result again when it next evaluates an item that needs it. A flow whose results were deleted does not reuse older results of other flows either.

flow: name of the flow, which may be dropped: the call also deletes the results that coco keeps of dropped flows of this
  name, and those of the flow's versions. NULL: all flows that the current role owns, and all of its dropped flows.
function: function with its argument types; NULL: all memoized functions of the flow.

    SELECT coco.clear_memo('doc_chunks');

Errors: 22004: flow and function are NULL. 42704: the flow does not exist, and coco keeps no results of a dropped flow of that
name. 42883: the function does not exist. 42501: the flow is not yours.$doc$;

comment on function coco.connector_options is $doc$Lists the options of coco's foreign data wrappers: those that CREATE SERVER, CREATE USER MAPPING and the argument options of coco.add_target accept. It does not list options of connectors that are not part of the build.

wrapper: name of the foreign data wrapper.
scope: object that takes the option: server, user mapping or target.
option: name of the option.
required: whether the option is required.
secret: whether coco keeps the value out of all messages. Secrets belong in user mappings.
superuser: whether only superusers may set the option.
description: meaning of the option, with units and default.

    SELECT option, description FROM coco.connector_options() WHERE wrapper = 'coco_kafka' AND scope = 'target';$doc$;

-- sql/comments/views.sql

-- COMMENTs on the views and their columns. scripts/reference.sql prints them into docs/sql-reference.md.

comment on view coco.flows is 'Flows that you own, or whose owner is a role of which you are a member.';
comment on column coco.flows.flow is 'Name of the flow.';
comment on column coco.flows.owner is 'Role that owns the flow and runs its queries.';
comment on column coco.flows.live is 'Whether workers keep the flow up to date.';
comment on column coco.flows.search_path is 'Search path used to analyze and run the flow''s queries.';
comment on column coco.flows.settings is 'Settings from the declaration or coco.alter_flow, under which the flow always runs: search_path, TimeZone, default_text_search_config, lc_time, lc_monetary.';
comment on column coco.flows.created is 'Time of the declaration.';
comment on column coco.flows.label is 'Label set by coco.alter_flow.';
comment on column coco.flows.batch_size is 'Batch size of the flow, in items; NULL: the setting coco.batch_size applies.';
comment on column coco.flows.verify_interval is 'Shortest time between two verifications of the flow''s targets by a worker; NULL: workers verify nothing.';
comment on column coco.flows.max_rows is 'Number of target rows that one update may write and delete; NULL: no limit.';
comment on column coco.flows.max_cost is 'Amount that one update may spend at the servers of providers, in the unit of their prices; NULL: no limit.';
comment on column coco.flows.refresh is 'Interval or cron line by which workers update the flow, as in coco.alter_flow; NULL: they update it after each commit.';
comment on column coco.flows.fill_order is 'Order in which an update of all items evaluates them, as in coco.alter_flow; NULL: any order.';
comment on column coco.flows.aggregate is 'delta: coco keeps the groups of the source by deltas, as in coco.create_flow; group: it evaluates a changed group as a whole.';
comment on column coco.flows.paused is 'Whether the flow is paused.';
comment on column coco.flows.lineage_index is 'Whether coco.lineage uses an index to find target keys that tracking rows list.';
comment on column coco.flows.lookups is 'derive: coco derives lookups from the flow''s queries; none: it follows only declared lookups.';

comment on view coco.sources is 'Sources of your flows.';
comment on column coco.sources.flow is 'Name of the flow.';
comment on column coco.sources.source is 'Name that the query uses for the source.';
comment on column coco.sources.relation is 'Table, view, materialized view or foreign table that is the source.';
comment on column coco.sources.key is 'Source key: the columns and expressions that identify an item, by their names.';
comment on column coco.sources.key_expressions is 'Expressions of the source key, as declared, by their places in key; NULL for a column, and NULL as a whole if all are columns.';
comment on column coco.sources.item is 'Kind of item: row; or group, all rows that share the key.';
comment on column coco.sources.used_columns is 'Columns that the flow''s queries use and the content fingerprint covers.';
comment on column coco.sources.ordinal is 'Expression of the ordinal, as declared; NULL if there is none.';
comment on column coco.sources.fingerprint is 'Expression of the fingerprint, as declared; NULL if there is none.';
comment on column coco.sources.capture is 'Way in which coco finds changes: trigger, always or scan.';
comment on column coco.sources.refresh_interval is 'Refresh interval, as declared; NULL means a minute. It applies to sources that are not captured.';
comment on column coco.sources.tracking_table is 'Table with one row for each item and its last committed state. Only the extension''s owner can read it; the flow''s owner reads the tracking view.';
comment on column coco.sources.tracking_view is 'View of the tracking table. coco.tracking and coco.errors show the same information in readable form.';

comment on view coco.lookups is 'Lookups of your flows.';
comment on column coco.lookups.flow is 'Name of the flow.';
comment on column coco.lookups.lookup is 'Name that affects uses for the lookup.';
comment on column coco.lookups.relation is 'Table, view, materialized view or foreign table that is the lookup.';
comment on column coco.lookups.key is 'Columns that identify a row of the lookup, or a group of rows.';
comment on column coco.lookups.source is 'Source whose items the lookup affects.';
comment on column coco.lookups.affects is 'Query that maps changed keys of the lookup to keys of the source; NULL: a change affects every item.';
comment on column coco.lookups.used_columns is 'Columns whose changes count; empty: all columns.';
comment on column coco.lookups.capture is 'Way in which coco finds changes: trigger, always or scan.';
comment on column coco.lookups.refresh_interval is 'Refresh interval, as declared; NULL means a minute. It applies to lookups that are not captured.';
comment on column coco.lookups.tracking_table is 'Table with one row for each key and the content last seen for it. Only the extension''s owner can read it; the flow''s owner reads the tracking view.';
comment on column coco.lookups.tracking_view is 'View of the tracking table.';
comment on column coco.lookups.derived is 'Whether coco derived the lookup from the flow''s queries.';

comment on view coco.targets is 'Targets of your flows.';
comment on column coco.targets.flow is 'Name of the flow.';
comment on column coco.targets.target is 'Schema and name of the table, even after it was renamed; outside this database, name of the object on the server.';
comment on column coco.targets.relation is 'Table that is the target; NULL outside this database.';
comment on column coco.targets.key is 'Target key: the columns that identify a row of the target.';
comment on column coco.targets.query is 'Query of the target, as declared.';
comment on column coco.targets.managed is 'Whether coco created the target, and so alters and drops it; otherwise the target is adopted. Outside this database: whether the connector created the target, which is known after the first connection.';
comment on column coco.targets.query_view is 'View that keeps the query as bound at its declaration. Its rows are those of the query over all items.';
comment on column coco.targets.server is 'Foreign server of the target. In this database, this column and those after it are NULL.';
comment on column coco.targets.options is 'Options of the connector, as declared.';
comment on column coco.targets.ledger is 'Table with the keys that the target should have, and fingerprints of their rows. Only the extension''s owner can read it; the flow''s owner reads the ledger view.';
comment on column coco.targets.outbox is 'Table with the rows that coco has not delivered yet. Only the extension''s owner can read it; the flow''s owner reads the outbox view.';
comment on column coco.targets.ledger_view is 'View of the ledger.';
comment on column coco.targets.outbox_view is 'View of the outbox.';

comment on view coco.versions is 'New and old versions of your flows, for a change without a gap: see coco.set_query and coco.swap. Each version is also a flow in the other views.';
comment on column coco.versions.flow is 'Name of the flow.';
comment on column coco.versions.version is 'Name of the version as a flow.';
comment on column coco.versions.role is 'new: coco builds the version beside the flow. old: the version was the flow before the last swap.';
comment on column coco.versions.swap is 'Who swaps a new version in. auto: the first update or worker that finds the version ready. manual: coco.swap.';
comment on column coco.versions.declared is 'Time at which coco.set_query declared a new version, or at which an old one was replaced.';
comment on column coco.versions.keep_old is 'Interval for which the version that a swap replaces is kept.';
comment on column coco.versions.keep_until is 'Time until which coco keeps an old version; NULL for a new one.';
comment on column coco.versions.waits_for is 'Reason for which the version was not updated or swapped at the last attempt, if any.';
comment on column coco.versions.hint is 'Action that may remove that reason.';

comment on view coco.status is 'State of your flows, one row for each: what the flow is doing, what is wrong, and what to do about it. The flows that need attention come first. The view is at most 100 columns wide in psql if the flows are well and have names of up to 16 characters. coco.status_detail has more columns.';
comment on column coco.status.flow is 'Name of the flow.';
comment on column coco.status.state is 'First of these states that applies. incomplete: the flow has no target yet. target dropped: the next update creates and fills the target again. source dropped: a source or lookup no longer exists. query broken: an object that a query reads no longer exists. paused: coco.alter_flow paused the flow. set aside: three processes in a row died while they worked on the flow; workers skip it until coco.start or coco.retry. failed: an error ended the last update of the flow, or coco could not send to a target outside this database. restoring: the flow is live, and workers wait for the end of the restore of a dump. no worker: the flow is live, and no worker runs in this database. degraded: some items fail, an expectation parks rows, a target rejected rows, or the last verification (verify_interval of coco.alter_flow) found rows that differ. live: workers keep the flow up to date after each commit. The other states are those of a flow that is not live, or has a schedule. never updated: no update of the flow has succeeded yet. behind: changes are pending, or coco.set_query has changed a query since the last update. up to date: no change of a source or lookup is pending. A live flow that has a schedule is up to date until its next update is due, whatever is pending, and behind if a worker is more than a minute late. unknown: coco does not capture every source and lookup, so only an update finds their changes.';
comment on column coco.status.pending is 'Number of entries in change logs that the flow has not followed yet, over all sources and lookups, counted up to 100,000 for each. Includes the entries that your flows which feed the flow have not followed yet. NULL if no entry is known and coco cannot tell for every source and lookup: coco does not capture one of them, or there was no update yet.';
comment on column coco.status.lag is 'Time since the flow, and your flows that feed it, had last followed all changes, in whole seconds; 0 if no changes are pending, NULL if pending is.';
comment on column coco.status.failed_items is 'Number of failing items, of parked rows, and of rows that a target outside this database rejected. NULL if coco cannot read them, for example because a tracking table no longer exists.';
comment on column coco.status.next_retry is 'Time of the next retry: of an item or row, of the flow after an error, or of a target outside this database.';
comment on column coco.status.last_error is 'Message of the error that ended the flow''s last update. Otherwise, message of the delivery error of a target outside this database. Otherwise, description of the state, or number of the rows that the last verification found to differ. Otherwise, message of the latest failure of an item or row. For a flow that is not live, the error of an update that a session ran is known only if coco is in shared_preload_libraries, until an update succeeds or the server restarts.';
comment on column coco.status.hint is 'Action to take; NULL if the flow is live or up to date.';

comment on view coco.status_detail is 'State of your flows as in coco.status, in no particular order, with more columns and exact times.';
comment on column coco.status_detail.flow is 'Name of the flow.';
comment on column coco.status_detail.state is 'State of the flow, as in coco.status.';
comment on column coco.status_detail.health is 'Severity of the state. broken: the flow does not continue until its problem is solved. degraded: some items or rows fail, or rows of a target differ. stale: the target may lag behind its sources, and coco is not working on it. well: nobody needs to look at the flow.';
comment on column coco.status_detail.live is 'Whether workers keep the flow up to date.';
comment on column coco.status_detail.pending is 'Number of pending entries in change logs, as in coco.status.';
comment on column coco.status_detail.lag is 'Time since the flow had last followed all changes; 0 if no changes are pending, NULL if pending is.';
comment on column coco.status_detail.followed_at is 'Time at which the flow last followed its sources and lookups; of several, the earliest.';
comment on column coco.status_detail.items_estimate is 'Estimated number of tracked items, from the last ANALYZE of the tracking tables; NULL before it.';
comment on column coco.status_detail.failed_items is 'Number of failing items, parked rows and rejected rows, as in coco.status.';
comment on column coco.status_detail.next_retry is 'Time of the next retry, as in coco.status.';
comment on column coco.status_detail.last_error is 'Message of the latest error, as in coco.status.';
comment on column coco.status_detail.hint is 'Action to take, as in coco.status.';
comment on column coco.status_detail.label is 'Label of the last run in coco.history.';
comment on column coco.status_detail.verified_at is 'Last time at which a worker verified all targets of the flow and found no difference; NULL if it never did. See verify_interval of coco.alter_flow.';
comment on column coco.status_detail.differing_rows is 'Number of rows that the last verification by a worker found to differ, at most 10,000 of each target; NULL if there was none, or if coco.verify has repaired the flow since.';
comment on column coco.status_detail.verify_error is 'Reason why the last verification by a worker has not compared all targets; NULL if it has.';
comment on column coco.status_detail.next_update is 'Time of the next update of a live flow that has a schedule; a time that has passed: the update is due. NULL: the flow has no schedule, is not live, or has not been updated by its schedule yet.';

comment on view coco.logic_versions is 'Logics of your flows, one row for each: the queries with everything that they reached. coco records a logic when it first runs, and when a session with coco.label declares it.';
comment on column coco.logic_versions.flow is 'Name of the flow.';
comment on column coco.logic_versions.logic_fingerprint is 'Fingerprint of the logic, as in coco.lineage and coco.tracking.';
comment on column coco.logic_versions.recorded is 'Time at which coco recorded the logic.';
comment on column coco.logic_versions.label is 'Value of coco.label in the first session that set it and declared or updated the flow with this logic; NULL if there was none.';

comment on view coco.errors is 'Source items whose last evaluation failed, rows that coco parks because of an expectation, and rows that a target outside this database rejected. The target rows of a failed item come from an earlier evaluation; a parked row is not in the target. coco retries items and rejected rows at next_retry, or at once by coco.retry. coco checks a parked row again when its item or the expectation changes, or by coco.retry.';
comment on column coco.errors.flow is 'Name of the flow.';
comment on column coco.errors.source is 'Source of the item; NULL for a rejected row.';
comment on column coco.errors.source_key is 'Source key of the item; only a part of it if the key is too long for an index. NULL for a rejected row.';
comment on column coco.errors.sqlstate is 'SQLSTATE of the last failure, as it was raised.';
comment on column coco.errors.message is 'Message of the last failure.';
comment on column coco.errors.detail is 'Detail of the last failure.';
comment on column coco.errors.hint is 'Action that may resolve the last failure.';
comment on column coco.errors.attempts is 'Number of consecutive failures with this content and this logic; for a rejected row, number of rejections; 1 for a parked row.';
comment on column coco.errors.failed_at is 'Time of the last failure.';
comment on column coco.errors.next_retry is 'Time of the next retry: after 1, 2, 4, … seconds, at most an hour. NULL for a parked row, and if the key is too long for an index; coco then retries the item when its row changes.';
comment on column coco.errors.target is 'Target of a parked row, as in coco.targets, or target that rejected the row, as declared; NULL for an item.';
comment on column coco.errors.target_key is 'Target key of the parked or rejected row; NULL for an item.';

comment on view coco.expectations is 'Conditions that rows of the targets of your flows should satisfy, declared with coco.expect.';
comment on column coco.expectations.flow is 'Name of the flow.';
comment on column coco.expectations.target is 'Target, as in coco.targets.';
comment on column coco.expectations.name is 'Name of the expectation.';
comment on column coco.expectations.condition is 'Condition, as declared.';
comment on column coco.expectations.action is 'Action for a row that does not satisfy the condition: park, warn or fail.';
comment on column coco.expectations.max_share is 'Share of the rows of an update that may fail; NULL for any.';
comment on column coco.expectations.checked is 'Number of rows that committed updates have checked since the condition was declared. Of an item that fails, only rows that do not satisfy the condition count.';
comment on column coco.expectations.failed is 'Number of these rows that did not satisfy the condition.';
comment on column coco.expectations.parked is 'Number of rows that coco parks now because of the expectation; coco.errors lists them. NULL if a tracking table cannot be read.';

comment on view coco.tracking is 'Last committed state of each item that was ever committed or has failed, one row for each item.';
comment on column coco.tracking.flow is 'Name of the flow.';
comment on column coco.tracking.source is 'Name of the source in the flow.';
comment on column coco.tracking.source_key is 'Source key of the item.';
comment on column coco.tracking.source_ordinal is 'Ordinal of the item''s committed version; NULL if the source has no ordinal.';
comment on column coco.tracking.content_fingerprint is 'Fingerprint of the content that coco evaluated.';
comment on column coco.tracking.logic_fingerprint is 'Fingerprint of the query, and of everything it depends on, that produced the item''s rows.';
comment on column coco.tracking.process_ordinal is 'Number of the attempt, in microseconds since 1970; always greater than that of the previous attempt.';
comment on column coco.tracking.process_time is 'Time of the attempt: process_ordinal as a timestamp.';
comment on column coco.tracking.target_keys is 'Target keys that the item produced, by target, where the tracking row lists them. NULL if the target key contains the source key.';

comment on view coco.functions is 'Memoized functions of your flows, one row for each fingerprint of their code, with statistics of their calls over all updates.';
comment on column coco.functions.flow is 'Name of the flow.';
comment on column coco.functions.function is 'Name of the function, with schema and argument types.';
comment on column coco.functions.fingerprint is 'Fingerprint of the function''s code, of everything that it reaches, and of its version.';
comment on column coco.functions.current is 'Whether the flow now calls the function with this code and version.';
comment on column coco.functions.calls is 'Number of results that items have used; a result counts once for each item and evaluation.';
comment on column coco.functions.hits is 'Number of these results that were already stored.';
comment on column coco.functions.reused is 'Number of results that coco copied from another flow of the same owner, or from a dropped one; they count as hits.';
comment on column coco.functions.misses is 'Number of these results that coco computed.';
comment on column coco.functions.errors is 'Number of inputs that raised an error.';
comment on column coco.functions.requests is 'Number of requests to a provider, or of calls of the function or its batch function.';
comment on column coco.functions.tokens_in is 'Number of input tokens, as counted by the provider.';
comment on column coco.functions.tokens_out is 'Number of output tokens, as counted by the provider.';
comment on column coco.functions.cost is 'Cost, in the unit of the prices in the server''s options.';
comment on column coco.functions.computed_bytes is 'Size of the computed results, in bytes.';
comment on column coco.functions.elapsed is 'Time spent computing the results.';
comment on column coco.functions.entries is 'Number of results stored now.';
comment on column coco.functions.entry_bytes is 'Size of the stored results and of their inputs, in bytes.';
comment on column coco.functions.ttl is 'Maximum age of a result that an item uses, as given to coco.memoize; NULL for none, and if the flow no longer calls this version of the function.';
comment on column coco.functions.expired is 'Number of results stored now that are older than ttl. coco computes them again when it next evaluates an item that needs them.';

comment on view coco.kept_results is 'Results of memoized functions that coco keeps of your dropped flows, one row for each dropped flow. The setting coco.memo_retention limits the time; coco.clear_memo deletes them earlier.';
comment on column coco.kept_results.flow is 'Name that the flow had.';
comment on column coco.kept_results.owner is 'Role that owned the flow. Only its flows reuse the results.';
comment on column coco.kept_results.dropped is 'Time at which the flow was dropped.';
comment on column coco.kept_results.kept_until is 'Time from which coco no longer uses the results, and drops them.';
comment on column coco.kept_results.functions is 'Names of the functions, with schema and argument types.';
comment on column coco.kept_results.entries is 'Number of results.';
comment on column coco.kept_results.bytes is 'Size of the results on disk, with their indexes, in bytes.';

comment on view coco.workers is 'Workers of this database. Every role sees the workers, but flow and source only if it may see the flow. Empty unless coco is in shared_preload_libraries.';
comment on column coco.workers.pid is 'Process ID. In pg_stat_activity, its backend_type is coco worker, or coco update for worker number 0.';
comment on column coco.workers.worker_no is 'Number of the worker. Worker 1 is the first and starts others; 0 is a worker for which a coco.update waits.';
comment on column coco.workers.flow is 'Flow on which the worker works.';
comment on column coco.workers.source is 'Source of that flow on which the worker works.';
comment on column coco.workers.state is 'State of the worker: working or waiting.';
comment on column coco.workers.since is 'Time at which the worker began to work on the flow, or to wait.';
comment on column coco.workers.transactions is 'Number of transactions run for flows since the worker started.';
comment on column coco.workers.evaluated is 'Number of items evaluated since the worker started.';
comment on column coco.workers.upserted is 'Number of target rows inserted or updated since the worker started.';
comment on column coco.workers.deleted is 'Number of target rows deleted since the worker started.';
comment on column coco.workers.failed is 'Number of items that failed since the worker started.';

comment on view coco.progress is 'Current work of workers and sessions on your flows, one row for each process that works. Empty unless coco is in shared_preload_libraries.';
comment on column coco.progress.flow is 'Name of the flow.';
comment on column coco.progress.source is 'Name of the source in the flow.';
comment on column coco.progress.pid is 'Process ID of the worker, or of the session that calls coco.update.';
comment on column coco.progress.items_done is 'Number of items processed in this update or transaction; it grows by a batch at a time.';
comment on column coco.progress.items_total is 'Number of items to process in this update or transaction.';
comment on column coco.progress.since is 'Time at which the process began to work on the source.';
comment on column coco.progress.estimated_end is 'Estimated end at the pace so far; NULL until a pace is known.';

comment on view coco.delivery_status is 'Delivery state of your targets outside this database. If a target waits because of a server error that another target met, its own row shows no error.';
comment on column coco.delivery_status.flow is 'Name of the flow.';
comment on column coco.delivery_status.target is 'Name under which the target was declared.';
comment on column coco.delivery_status.server is 'Foreign server of the target.';
comment on column coco.delivery_status.queued is 'Number of undelivered outbox entries, counted up to 100,000; a key that changed twice has two entries. Includes the rows of an initial load that its process sends itself.';
comment on column coco.delivery_status.rejected is 'Number of rows that the target rejected; coco.errors lists them.';
comment on column coco.delivery_status.sent_at is 'Time of the last successful delivery.';
comment on column coco.delivery_status.attempts is 'Number of consecutive errors of the server or the target; 0 if there is no error.';
comment on column coco.delivery_status.next_retry is 'Time of the next retry; also NULL if coco.update has asked for a retry at once.';
comment on column coco.delivery_status.sqlstate is 'SQLSTATE of the last error.';
comment on column coco.delivery_status.last_error is 'Message of the last error.';
comment on column coco.delivery_status.detail is 'Detail of the last error.';
comment on column coco.delivery_status.hint is 'Action that may resolve the last error.';
comment on column coco.delivery_status.verified_at is 'Last time at which coco.verify with outside found no difference in the target.';

comment on view coco.metrics is 'Counters and gauges for monitoring, one row for each. You see those of your flows; members of pg_read_all_stats, such as pg_monitor, see those of all flows. The view shows numbers and names, but no contents. A metric without a current value has no row. Counters of flows and functions survive restarts, dumps, and the removal of old runs from the history. Counters of workers start with the worker. Runs of a live flow count when coco.history records them, within a minute. The files in examples/monitoring connect the view to Prometheus and Grafana.';
comment on column coco.metrics.scope is 'Kind of object: flow, source, target (outside this database), function (memoized), expectation, log (change log) or worker. A query computes only the scopes that it asks for.';
comment on column coco.metrics.metric is 'Name of the metric, as in Prometheus, including its unit if it has one.';
comment on column coco.metrics.type is 'Type of the metric: counter or gauge.';
comment on column coco.metrics.flow is 'Name of the flow.';
comment on column coco.metrics.name is 'Name of the source or lookup, target, function or captured table, the target and name of an expectation, or number of the worker; for coco_flow_state, the state.';
comment on column coco.metrics.server is 'Server of the target, for scope target.';
comment on column coco.metrics.value is 'Current value of the metric.';
comment on column coco.metrics.help is 'Meaning of the metric.';

-- sql/rights.sql

-- PUBLIC has no rights by default. GRANT USAGE ON SCHEMA coco allows a role to declare and run flows over relations that it
-- may read; the functions below check all other rights.

revoke all on all functions in schema coco, coco_internal from public;
grant execute on function
  coco.create_flow(text, text, text, text, text[], text, text[], text, text, text, interval, text, text, jsonb, text, boolean, boolean, jsonb, text, text, text, text),
  coco.create_flow(text, regclass, text, text, text[], text, text[], text, text, text, interval, text, text, jsonb, text, boolean, boolean, jsonb, text, text, text, text),
  coco.plan(text, text, text, text, text[], text, text[], text, text, text, interval, text, text, jsonb, text, jsonb, text, text, text, text),
  coco.plan(text, regclass, text, text, text[], text, text[], text, text, text, interval, text, text, jsonb, text, jsonb, text, text, text, text),
  coco.add_source, coco.add_lookup, coco.add_target, coco.set_query, coco.expect, coco.drop_expectation, coco.alter_flow,
  coco.allow, coco.rename_flow, coco.drop_flow, coco.flow_definition, coco.definitions, coco.update, coco.update_all, coco.retry,
  coco.start, coco.stop, coco.wait, coco.preview, coco.estimate, coco.evaluate, coco.verify,
  coco.history, coco.lineage, coco.outputs, coco.explain, coco.diagram, coco.report,
  coco.split_text, coco.split_file, coco.extract_text, coco.extract_pages, coco.normalize_text, coco.fingerprint, coco.stable_uuid,
  coco.swap, coco.rollback, coco.discard, coco.diff, coco.create_search, coco.search,
  coco.embed, coco.generate, coco.http_post,
  coco.memoize, coco.unmemoize, coco.clear_memo, coco.connector_options
to public;
-- Nobody else may use the schema coco_internal, so these functions cannot be called by name; the views in coco and the
-- bound queries of flows call them.
grant execute on function
  coco_internal.memo_call, coco_internal.function_rows, coco_internal.tracking_rows, coco_internal.error_rows,
  coco_internal.expectation_rows, coco_internal.pending_rows, coco_internal.pending_flow_rows, coco_internal.worker_rows,
  coco_internal.progress_rows, coco_internal.delivery_rows, coco_internal.metric_rows, coco_internal.failure_rows,
  coco_internal.session_error_rows, coco_internal.restore_is_complete, coco_internal.schedule_rows
to public;
grant select on coco.flows, coco.sources, coco.lookups, coco.targets, coco.versions, coco.logic_versions, coco.tracking, coco.errors, coco.expectations, coco.status, coco.status_detail, coco.workers, coco.progress, coco.delivery_status, coco.functions, coco.kept_results,
  coco.metrics
to public;

-- Shown by CREATE EXTENSION, which this script is a part of.
select coco_internal.check_server_version();

-- The functions that read the server's files also check the membership in this role themselves.
grant execute on function coco.local_files, coco.list_files, coco.read_file to pg_read_server_files;
