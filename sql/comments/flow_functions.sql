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
