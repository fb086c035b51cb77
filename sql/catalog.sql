-- The catalog: what is declared. What coco makes of it is no member of the extension (but for change logs), so that
-- a dump carries it along: tables in coco_internal, which belong to the extension's owner; the views in coco through
-- which a flow's owner reads them; and the views of the flow's queries, which belong to the flow's owner.
--
-- No foreign keys: a restore writes the rows of a dump in any order, and CREATE EXTENSION has made the constraints by
-- then. coco deletes a flow's rows itself (declare/rows.rs), and follows none whose flow is not there.

comment on schema coco_internal is 'coco''s own tables. Nobody but the extension''s owner may use it.';

create table coco.flow (
  flow        text primary key check (flow <> '' and octet_length(flow) <= 63),
  id          int generated always as identity unique,
  owner       regrole not null,
  search_path text not null,
  settings    jsonb not null,
  live        boolean not null default false,
  memo        regclass,
  memo_view   regclass,
  label       text,
  batch_size  int check (batch_size > 0),
  paused      boolean not null default false,
  lineage_index boolean not null default false,
  created     timestamptz not null default pg_catalog.now()
);
comment on table coco.flow is 'Declared flows. Written by coco''s functions alone.';

create table coco.capture (
  id       int generated always as identity primary key,
  relation regclass not null unique,
  columns  text[] not null,
  always   boolean not null,
  segment  int not null default 0,
  since    xid8
);
comment on table coco.capture is 'Captured tables: the columns kept of each changed row in coco_internal.log_<id>_<segment>. Written by coco''s functions alone.';

create table coco.source (
  id          int generated always as identity primary key,
  flow        text not null,
  name        text not null,
  relation    regclass not null,
  key         text[] not null,
  grouped     boolean not null,
  ordinal     text,
  fingerprint text,
  -- the view that keeps both, as they are evaluated
  expressions regclass,
  used        text[] not null default '{}',
  tracking    regclass not null,
  tracking_view regclass not null,
  capture     text not null default 'scan' check (capture in ('scan', 'trigger', 'always')),
  refresh_interval interval,
  -- of a lookup: the source whose items its changes affect, and how they are found
  lookup_of   int,
  affects     text,
  affects_view regclass,
  unique (flow, name)
);
comment on table coco.source is 'Sources and lookups of flows, and their tracking tables. Written by coco''s functions alone.';

-- Up to where a source's changes were followed. Not in a dump: it means nothing in another cluster.
create table coco.cursor (
  source    int primary key,
  snapshot  pg_snapshot not null,
  logic     int not null,
  signature uuid not null,
  -- items were evaluated that saw more of lookups than what was followed by then
  behind    boolean not null default false,
  taken     timestamptz not null default pg_catalog.clock_timestamp()
) with (fillfactor = 50);
comment on table coco.cursor is 'Up to where each captured source was followed, and what its capture looked like then. Written by coco''s functions alone.';

create table coco.target (
  id          int generated always as identity primary key,
  flow        text not null,
  schema      text not null,
  name        text not null,
  relation    regclass not null,
  query       text not null,
  key         text[] not null,
  covered     text[],
  made        boolean not null,
  incarnation int not null default 1,
  query_view  regclass,
  -- for each place where the query reads a source's relation, in order: the source whose item it is, or 0
  places      int[] not null default '{}',
  -- of a target outside this database: its server, what it is called there, what the connector is
  -- told. relation is then the table of the keys that are there, and outbox what is to be sent; schema and name are
  -- those of the first one's view.
  server      text,
  external    text,
  options     jsonb,
  outbox      regclass,
  ledger_view regclass,
  outbox_view regclass,
  columns     text[],
  unique (schema, name),
  unique (server, external)
);
comment on table coco.target is 'Targets of flows, their queries and their views. Written by coco''s functions alone.';

-- A row for each target outside this database.
create table coco.delivery (
  target     int primary key,
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
comment on table coco.delivery is 'Up to where the outbox of each target outside this database was sent, and what hinders it. Written by coco''s functions alone.';

-- What a worker did for a coco.update of flows with such targets, for the session that asked. Not
-- in a dump.
create table coco.run (
  id       bigint primary key,
  ended    timestamptz not null default pg_catalog.clock_timestamp(),
  counts   jsonb,
  sqlstate text,
  message  text,
  detail   text,
  hint     text
);
comment on table coco.run is 'Results of updates that workers ran for a session, for an hour. Written by coco''s workers alone.';

-- A row for each live flow whose last run failed as a whole. Not in a dump.
create table coco.trouble (
  flow       int primary key,
  attempts   int not null,
  deaths     int not null default 0, -- processes in a row that died by a signal
  failed_at  timestamptz not null default pg_catalog.clock_timestamp(),
  next_retry timestamptz not null,
  sqlstate   text not null,
  message    text not null,
  detail     text,
  hint       text
);
comment on table coco.trouble is 'Live flows whose last run failed as a whole. Written by coco''s workers alone.';

-- Failed items whose keys no index holds, so that they have no tracking row. Not in a dump: a scan finds them again.
create table coco.untracked (
  source     int not null references coco.source (id) on delete cascade,
  item       uuid not null,  -- a digest of the key
  source_key jsonb not null, -- in part, where it is long
  failure    jsonb not null,
  attempts   int not null default 1,
  failed_at  timestamptz not null default pg_catalog.clock_timestamp(),
  primary key (source, item)
);
comment on table coco.untracked is 'Failed items whose keys are too long for an index. Written by coco''s functions and workers alone.';

-- A row for each run; of a live flow, for what its worker did in up to a minute.
create table coco.history_entry (
  run       bigint generated always as identity,
  flow      int not null,
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
comment on table coco.history_entry is 'Runs of flows, the last coco.history_size of each. Written by coco''s functions and workers alone.';

-- What a flow was labelled with from a process ordinal on.
create table coco.label (
  flow  int not null,
  since bigint not null,
  label text,
  primary key (flow, since)
);
comment on table coco.label is 'Labels that flows have had, each from a process ordinal on. Written by coco''s functions alone.';

-- What the runs of a flow came to that coco.history_entry has no more: with those that it has, a total
-- that only grows.
create table coco.run_total (
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
comment on table coco.run_total is 'What runs of flows came to that are in coco.history no more. Written by coco''s functions and workers alone.';

-- By name, with schema and argument types: pg_upgrade takes no table with a column of type regprocedure. A
-- function of that name counts only while it belongs to the role that it belonged to when it was noted.
create table coco.memoised (
  function    text primary key,
  owner       regrole not null,
  version     text,
  batch       text,
  batch_owner regrole,
  batch_size  int check (batch_size > 0)
);
comment on table coco.memoised is 'Functions that are memoised inside flows. Written by coco''s functions alone.';

-- What results are kept under in the table of a flow's results, and what they have cost.
create table coco.memo (
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
  unique (flow, function, fingerprint)
);
comment on table coco.memo is 'Memoised functions of flows, a row for each fingerprint of their code, with what their calls came to. Written by coco''s functions alone.';

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
comment on table coco.spending is 'What flows have spent at the servers of providers, in the unit of their prices. Written by coco''s functions alone.';

create table coco.logic (
  id          int generated always as identity primary key,
  flow        text not null,
  fingerprint uuid not null,
  parts       jsonb not null,
  described   jsonb not null,
  recorded    timestamptz not null default pg_catalog.now(),
  unique (flow, fingerprint)
);
comment on table coco.logic is 'Logic fingerprints a flow has run under, with the parts each was made from, and its queries and functions in words. Written by coco''s functions alone.';

revoke all on coco.capture, coco.cursor, coco.trouble, coco.untracked, coco.delivery, coco.run, coco.history_entry, coco.run_total, coco.label, coco.flow, coco.source, coco.target, coco.logic, coco.memoised, coco.memo, coco.spending from public;

select pg_catalog.pg_extension_config_dump('coco.capture', '');
select pg_catalog.pg_extension_config_dump('coco.flow', '');
select pg_catalog.pg_extension_config_dump('coco.source', '');
select pg_catalog.pg_extension_config_dump('coco.target', '');
select pg_catalog.pg_extension_config_dump('coco.delivery', '');
select pg_catalog.pg_extension_config_dump('coco.logic', '');
select pg_catalog.pg_extension_config_dump('coco.history_entry', '');
select pg_catalog.pg_extension_config_dump('coco.run_total', '');
select pg_catalog.pg_extension_config_dump('coco.history_entry_run_seq', '');
select pg_catalog.pg_extension_config_dump('coco.label', '');
select pg_catalog.pg_extension_config_dump('coco.memoised', '');
select pg_catalog.pg_extension_config_dump('coco.memo', '');
select pg_catalog.pg_extension_config_dump('coco.spending', '');
select pg_catalog.pg_extension_config_dump('coco.capture_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco.memo_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco.spending_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco.flow_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco.source_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco.target_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco.logic_id_seq', '');
