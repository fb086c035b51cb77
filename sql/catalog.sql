-- The catalog: what is declared. What is derived (tracking tables, flow views) is made per flow,
-- belongs to the flow's owner and is no member of the extension, so that a dump carries it along.

create table coco.flow (
  flow        text primary key check (flow <> '' and octet_length(flow) <= 63),
  id          int generated always as identity unique,
  owner       regrole not null,
  search_path text not null,
  settings    jsonb not null,
  created     timestamptz not null default pg_catalog.now()
);
comment on table coco.flow is 'Declared flows. Written by coco''s functions alone.';

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
  unique (flow, name)
);
comment on table coco.source is 'Sources of flows, and their tracking tables. Written by coco''s functions alone.';

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
  unique (schema, name)
);
comment on table coco.target is 'Targets of flows, their queries and their views. Written by coco''s functions alone.';

create table coco.logic (
  id          int generated always as identity primary key,
  flow        text not null references coco.flow on delete cascade,
  fingerprint uuid not null,
  parts       jsonb not null,
  recorded    timestamptz not null default pg_catalog.now(),
  unique (flow, fingerprint)
);
comment on table coco.logic is 'Logic fingerprints a flow has run under, with the parts each was made from. Written by coco''s functions alone.';

revoke all on coco.flow, coco.source, coco.target, coco.logic from public;

select pg_catalog.pg_extension_config_dump('coco.flow', '');
select pg_catalog.pg_extension_config_dump('coco.source', '');
select pg_catalog.pg_extension_config_dump('coco.target', '');
select pg_catalog.pg_extension_config_dump('coco.logic', '');
select pg_catalog.pg_extension_config_dump('coco.flow_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco.source_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco.target_id_seq', '');
select pg_catalog.pg_extension_config_dump('coco.logic_id_seq', '');
