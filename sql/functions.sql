-- The functions. Each pins its search_path; what a user wrote runs under the flow's own.

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
  -- evaluated where the caller stands, before the function pins its own
  search_path text     default pg_catalog.current_setting('search_path')
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'create_flow_wrapper';
comment on function coco.create_flow is
'Declares a flow. In one call: source, query, target and key (the columns that name a row of the target); name is what the query calls the source (default: the relation''s name), source_key, ordinal and fingerprint are the key, ordinal and fingerprint of coco.add_source. With the flow''s name alone: an empty flow, for coco.add_source and coco.add_target. The flow belongs to the calling role; its queries run as that role, under search_path.';

create function coco.add_source(
  flow        text,
  source      regclass,
  name        text   default null,
  key         text[] default null,
  ordinal     text   default null,
  fingerprint text   default null
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'add_source_wrapper';
comment on function coco.add_source is
'Adds a source to a flow. name: what the query calls it (default: the relation''s name). key: columns that name an item (default: the primary key); if no unique index stands on them, the rows that share a key are one item. ordinal: an expression (integer or time) that grows with each version of an item; an item with a known ordinal is skipped unread. fingerprint: an expression whose value stands for the item''s content, in place of the columns that the query uses.';

create function coco.add_target(
  flow   text,
  target text,
  query  text,
  key    text[]
) returns void language c volatile
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'add_target_wrapper';
comment on function coco.add_target is
'Adds a target table to a flow: what query returns for each source item is kept in it, rows named by key (columns of the query). The table is made if it does not exist, and adopted if its columns fit and a unique index stands on the key.';

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
'Drops a flow and its tracking tables. With keep_targets false, the target tables that coco made are dropped too; adopted ones never are.';

create function coco.update(
  flow text,
  mode text default 'normal',
  out source text, out seen bigint, out skipped bigint, out unchanged bigint,
  out evaluated bigint, out upserted bigint, out deleted bigint, out failed bigint,
  out elapsed interval
) returns setof record language c volatile strict
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'update_wrapper';
comment on function coco.update is
'Brings a flow''s targets up to date, in the caller''s transaction. Modes: normal; retry (failed items do not wait for their next retry); full_reprocess (evaluate every item, write the rows that differ); reexport (evaluate every item, write every row). A row per source: items seen, skipped (by ordinal and logic), unchanged (by content), evaluated, failed; target rows upserted and deleted.';

create function coco.retry(
  flow text,
  out source text, out seen bigint, out skipped bigint, out unchanged bigint,
  out evaluated bigint, out upserted bigint, out deleted bigint, out failed bigint,
  out elapsed interval
) returns setof record language sql volatile strict
  set search_path = pg_catalog, pg_temp
  as $$ select * from coco.update(flow, 'retry') $$;
comment on function coco.retry is
'As coco.update, but failed items are evaluated again without waiting for their next retry.';

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
  out next_retry timestamptz
) returns setof record language c stable
  set search_path = pg_catalog, pg_temp
  as 'MODULE_PATHNAME', 'error_rows_wrapper';
comment on function coco.error_rows is 'The rows of coco.errors.';
