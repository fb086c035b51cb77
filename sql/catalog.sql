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
