-- Prints docs/sql-reference.md from the COMMENTs of the installed extension. `make reference` writes the document, and a
-- test compares the document with them. Run it with psql -AtX -f in a database that has coco.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET search_path = pg_catalog;
LOAD 'coco';

-- The sections, in order, with the objects in each.
CREATE TEMPORARY TABLE section (position int PRIMARY KEY, title text, intro text, names text[]);
INSERT INTO section VALUES
(1, 'Declaring flows', 'A flow is a query that coco evaluates once for each source item. A declaration checks everything that it can check, and is part of the calling transaction.',
 '{create_flow,add_source,add_lookup,add_target,set_query,expect,drop_expectation,swap,rollback,discard,alter_flow,allow,rename_flow,drop_flow,plan,flow_definition,definitions}'),
(2, 'Running flows', 'A call updates a flow once. If a flow is live, a worker keeps it up to date after each commit.',
 '{update,update_all,retry,start,stop,wait}'),
(3, 'Inspecting flows', 'The functions show what an update would change, whether a target is correct, and where its rows come from. The views show the flows that you own, or whose owner is a role of which you are a member. `coco.tracking`, `coco.errors` and `coco.delivery_status` leave out a flow whose source, key column, tracking table or owner no longer exists; `failed_items` in `coco.status` is then NULL.',
 '{preview,estimate,evaluate,verify,diff,lineage,outputs,history,explain,diagram,report,status,status_detail,progress,errors,expectations,flows,sources,lookups,targets,versions,logic_versions,delivery_status,tracking,functions,workers,metrics}'),
(4, 'Functions for queries', 'You can call these functions in flows and in any other query.',
 '{extract_text,extract_pages,split_text,split_file,normalize_text,fingerprint,stable_uuid,local_files,list_files,read_file}'),
(5, 'Functions over the network', 'These functions call other servers, so they are volatile and may be slow. Examples, limits and errors: [functions.md](functions.md).',
 '{embed,generate,http_post}'),
(6, 'Memoized functions', 'coco stores the results of memoized functions: [functions.md](functions.md#memoized-functions).',
 '{memoize,unmemoize,clear_memo,kept_results}'),
(7, 'Search', 'A search finds the chunks of texts and files by words and by meaning: [search.md](search.md).',
 '{create_search,search}');

-- Returns the function with this name; of several, the one that was created first.
CREATE FUNCTION pg_temp.function_named(name text) RETURNS oid LANGUAGE sql AS
$$ SELECT min(p.oid) FROM pg_proc p WHERE p.pronamespace = 'coco'::regnamespace AND p.proname = name $$;

CREATE FUNCTION pg_temp.comment_of(name text) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(
     (SELECT obj_description(p.oid, 'pg_proc') FROM pg_proc p
       WHERE p.oid = pg_temp.function_named(name) AND name <> 'functions'),
     (SELECT obj_description(c.oid, 'pg_class') FROM pg_class c
       WHERE c.relnamespace = 'coco'::regnamespace AND c.relname = name AND c.relkind = 'v')) $$;

-- Raises an error for an object that has no section or no COMMENT.
DO $$
DECLARE missing text;
BEGIN
  SELECT string_agg(format('coco.%s', o.name), ', ') INTO missing
    FROM (SELECT proname AS name FROM pg_proc WHERE pronamespace = 'coco'::regnamespace
          UNION SELECT relname FROM pg_class WHERE relnamespace = 'coco'::regnamespace AND relkind = 'v') AS o
   WHERE NOT EXISTS (SELECT FROM section s WHERE o.name = ANY (s.names))
     AND o.name <> 'connector_options';
  IF missing IS NOT NULL THEN
    RAISE EXCEPTION 'scripts/reference.sql has no section for %', missing;
  END IF;
  SELECT string_agg(format('coco.%s.%s', c.relname, a.attname), ', ') INTO missing
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
   WHERE c.relnamespace = 'coco'::regnamespace AND c.relkind = 'v' AND col_description(c.oid, a.attnum) IS NULL;
  IF missing IS NOT NULL THEN
    RAISE EXCEPTION 'there is no COMMENT on %', missing;
  END IF;
  SELECT string_agg(format('coco.%s', n), ', ') INTO missing
    FROM (SELECT unnest(names) AS n FROM section) AS o
   WHERE pg_temp.comment_of(n) IS NULL;
  IF missing IS NOT NULL THEN
    RAISE EXCEPTION 'there is no COMMENT on %', missing;
  END IF;
END $$;

-- Returns the lines of a COMMENT, each joined with its continuation lines.
CREATE FUNCTION pg_temp.lines_of(comment text) RETURNS TABLE (n bigint, line text) LANGUAGE sql AS
$$ SELECT n, line FROM regexp_split_to_table(regexp_replace(comment, '\n  (?! )', ' ', 'g'), '\n') WITH ORDINALITY AS t (line, n) $$;

-- Returns the arguments and result columns of a function, in order; `says` is the COMMENT's line about each.
CREATE FUNCTION pg_temp.arguments(function oid) RETURNS TABLE (n int, name text, type text, result bool, standard text, says text) LANGUAGE sql AS
$$ WITH given AS (
     SELECT a.n::int, p.proargnames[a.n] AS name, format_type(a.type, NULL) AS type,
            coalesce(p.proargmodes[a.n] IN ('o', 't'), false) AS result, p.oid
       FROM pg_proc p, unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY AS a (type, n)
      WHERE p.oid = function)
   SELECT g.n, g.name, g.type, g.result,
          CASE WHEN NOT g.result THEN
            regexp_replace(pg_get_function_arg_default(g.oid, g.n), '::[a-z ]+(\[\])?', '', 'g') END,
          (SELECT substr(l.line, length(g.name) + 3) FROM pg_temp.lines_of(obj_description(g.oid, 'pg_proc')) l
            WHERE starts_with(l.line, g.name || ': '))
     FROM given g ORDER BY g.n $$;

-- Escapes a text for a cell of a Markdown table.
CREATE FUNCTION pg_temp.cell(text text) RETURNS text LANGUAGE sql AS
$$ SELECT replace(replace(coalesce(text, ''), '|', '\|'), E'\n', ' ') $$;

-- Escapes and marks up a COMMENT's prose for Markdown.
CREATE FUNCTION pg_temp.prose(text text) RETURNS text LANGUAGE sql AS
$$ SELECT regexp_replace(replace(replace(text, '*', '\*'), '<', '\<'),
     '(coco\.[a-z_]+(\([^()]*(\([^()]*\))?[^()]*\))?|session_replication_role = replica|shared_preload_libraries|max_worker_processes|CREATE (SERVER|USER MAPPING)|docs/functions\.md)',
     '`\1`', 'g') $$;

-- Returns the paragraphs of a COMMENT that do not describe an argument, with examples as code blocks.
CREATE FUNCTION pg_temp.text_of(comment text, without text[]) RETURNS text LANGUAGE sql AS
$$ WITH parts AS (
     SELECT n, part FROM regexp_split_to_table(comment, E'\n\n') WITH ORDINALITY AS t (part, n)),
   kept AS (
     SELECT p.n, p.part LIKE '    %' AS example,
            (SELECT string_agg(l.line, E'\n' ORDER BY l.n) FROM pg_temp.lines_of(p.part) l
              WHERE p.part LIKE '    %'
                 OR NOT EXISTS (SELECT FROM unnest(without) w WHERE starts_with(l.line, w || ': '))) AS part
       FROM parts p)
   SELECT string_agg(CASE WHEN example THEN E'```sql\n' || regexp_replace(part, '^    ', '', 'ng') || E'\n```'
                          WHEN part LIKE 'Errors: %' THEN
                            regexp_replace(replace(pg_temp.prose(part), E'\n', ' '), '\m(?=[0-9A-Z]*[0-9])([0-9A-Z]{5})\M', '`\1`', 'g')
                          ELSE replace(pg_temp.prose(part), E'\n', ' ') END, E'\n\n' ORDER BY n)
     FROM kept WHERE part <> '' $$;

CREATE FUNCTION pg_temp.function_text(function oid) RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(E'\n\n',
     '### coco.' || p.proname,
     format('`coco.%s(%s)` → `%s`', p.proname,
       coalesce((SELECT string_agg(CASE WHEN a.standard IS NULL THEN coalesce(a.name, 'VARIADIC "any"') ELSE '[' || a.name || ']' END, ', ' ORDER BY a.n)
                   FROM pg_temp.arguments(p.oid) a WHERE NOT a.result), ''),
       CASE WHEN p.proretset THEN 'setof record' ELSE format_type(p.prorettype, NULL) END),
     split_part(pg_temp.text_of(obj_description(p.oid, 'pg_proc'), names), E'\n\n', 1),
     (SELECT E'| argument | type | default | |\n|---|---|---|---|\n' ||
             string_agg(format('| `%s` | `%s` | %s | %s |', a.name, a.type, '`' || a.standard || '`', pg_temp.cell(pg_temp.prose(a.says))), E'\n' ORDER BY a.n)
        FROM pg_temp.arguments(p.oid) a WHERE NOT a.result AND a.name IS NOT NULL),
     (SELECT E'| column | type | |\n|---|---|---|\n' ||
             string_agg(format('| `%s` | `%s` | %s |', a.name, a.type, pg_temp.cell(pg_temp.prose(a.says))), E'\n' ORDER BY a.n)
        FROM pg_temp.arguments(p.oid) a WHERE a.result
      HAVING count(a.says) > 0),
     substr(pg_temp.text_of(obj_description(p.oid, 'pg_proc'), names),
            length(split_part(pg_temp.text_of(obj_description(p.oid, 'pg_proc'), names), E'\n\n', 1)) + 3))
   FROM pg_proc p, LATERAL (SELECT coalesce(array_agg(a.name), '{}') AS names FROM pg_temp.arguments(p.oid) a) AS n
  WHERE p.oid = function $$;

CREATE FUNCTION pg_temp.view_text(view oid) RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(E'\n\n',
     '### coco.' || c.relname || CASE WHEN EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = c.relnamespace AND p.proname = c.relname) THEN ' (view)' ELSE '' END,
     pg_temp.prose(obj_description(c.oid, 'pg_class')),
     (SELECT E'| column | type | |\n|---|---|---|\n' ||
             string_agg(format('| `%s` | `%s` | %s |', a.attname, format_type(a.atttypid, NULL), pg_temp.cell(pg_temp.prose(col_description(c.oid, a.attnum)))), E'\n' ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0))
   FROM pg_class c WHERE c.oid = view $$;

-- Returns a setting's value with its unit; sizes and times of days in readable units.
CREATE FUNCTION pg_temp.with_unit(value text, unit text) RETURNS text LANGUAGE sql AS
$$ SELECT CASE WHEN value = '-1' THEN value
               WHEN unit = 'kB' THEN replace(pg_size_pretty(value::bigint * 1024), ' ', '')
               WHEN unit = 'min' AND value::bigint > 0 AND value::bigint % 1440 = 0 THEN value::bigint / 1440 || 'd'
               ELSE value || coalesce(unit, '') END $$;

CREATE FUNCTION pg_temp.entry(name text) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(
     (SELECT pg_temp.function_text(p.oid) FROM pg_proc p WHERE p.oid = pg_temp.function_named(name)),
     (SELECT pg_temp.view_text(c.oid) FROM pg_class c WHERE c.relnamespace = 'coco'::regnamespace AND c.relname = name)) $$;

-- The document.
SELECT $doc$<!-- Generated by `make reference` from the COMMENTs of the installed extension: edit those (sql/comments/). -->

# SQL reference

All objects are in the schema `coco`; coco's own tables and functions are in `coco_internal`, which users neither read nor
call. A superuser installs the extension with `CREATE EXTENSION coco`; it is not
relocatable. psql shows the same texts: `\df+ coco.update`, `\d+ coco.status`.

For concepts and terms, see [concepts.md](concepts.md). For the rights that each call needs, see
[security.md](security.md). For all errors and their remedies, see [troubleshooting.md](troubleshooting.md).

NULL for an argument that needs a value raises `22004`, and a value that is not valid `22023`; both name the argument.
Functions for queries return NULL for NULL.

$doc$ || (SELECT string_agg(format('- [%s](#%s): %s', s.title, lower(replace(s.title, ' ', '-')),
            (SELECT string_agg(format('[%s](#coco%s)', n, n), ' · ' ORDER BY o) FROM unnest(s.names) WITH ORDINALITY AS t (n, o))),
            E'\n' ORDER BY s.position) FROM section s)
|| E'\n- [Foreign data wrappers](#foreign-data-wrappers)\n- [Settings](#settings)';

SELECT $doc$
You can run the examples in order. They share these tables:

```sql
CREATE TABLE documents (id int PRIMARY KEY, body text NOT NULL,
                        modified timestamptz NOT NULL DEFAULT now(), note text);
CREATE TABLE letters (id int PRIMARY KEY, body text NOT NULL);
INSERT INTO documents VALUES
  (1, E'One paragraph.\n\nAnd a second one.', '2025-01-01', 'a'),
  (2, 'Short.', '2025-01-02', 'b');
```

In the signatures of functions, arguments in brackets are optional. Errors are listed by SQLSTATE.$doc$;

SELECT E'\n## ' || s.title || E'\n\n' || s.intro || E'\n\n'
       || (SELECT string_agg(pg_temp.entry(n), E'\n\n' ORDER BY o) FROM unnest(s.names) WITH ORDINALITY AS t (n, o))
  FROM section s ORDER BY s.position;

SELECT E'\n## Foreign data wrappers\n\nTargets outside this database ([connectors.md](connectors.md)), and functions that call other servers\n([functions.md](functions.md)), use foreign servers of these wrappers. A function also returns the options of the wrappers:\n\n'
       || pg_temp.function_text('coco.connector_options'::regproc);
SELECT format(E'\n### %s\n\n%s\n\n| option | of | |\n|---|---|---|\n%s', w.fdwname, obj_description(w.oid, 'pg_foreign_data_wrapper'),
         (SELECT string_agg(format('| `%s` | %s%s | %s |', o.option, o.scope,
                   CASE WHEN o.required THEN ', required' ELSE '' END || CASE WHEN o.secret THEN ', secret' ELSE '' END
                   || CASE WHEN o.superuser THEN ', set by superusers' ELSE '' END, pg_temp.cell(replace(o.description, '*', '\*'))), E'\n' ORDER BY o.n)
            FROM coco.connector_options() WITH ORDINALITY AS o (wrapper, scope, option, required, secret, superuser, description, n)
           WHERE o.wrapper = w.fdwname))
  FROM pg_foreign_data_wrapper w WHERE w.fdwname LIKE 'coco\_%'
 ORDER BY array_position('{coco_postgres,coco_qdrant,coco_neo4j,coco_kafka,coco_http,coco_openai}', w.fdwname::text);

SELECT E'\n## Settings\n\nLive flows use the settings of the server and of the database. Without coco in `shared_preload_libraries`, the settings exist\nin a session only from its first call of a coco function.\n\n| setting | default | range | set by | |\n|---|---|---|---|---|\n'
       || string_agg(format('| `%s` | %s | %s | %s | %s |', s.name, '`' || pg_temp.with_unit(s.boot_val, s.unit) || '`',
            CASE WHEN s.vartype = 'bool' THEN '' WHEN s.min_val IS NULL THEN coalesce(array_to_string(s.enumvals, ', '), '')
                 ELSE pg_temp.with_unit(s.min_val, s.unit) || ' to ' || pg_temp.with_unit(s.max_val, s.unit) END,
            CASE s.context WHEN 'user' THEN 'any session' WHEN 'superuser' THEN 'superusers' WHEN 'sighup' THEN 'configuration file'
                 WHEN 'postmaster' THEN 'configuration file, at start' ELSE s.context END,
            pg_temp.cell(concat_ws(' ', s.short_desc, s.extra_desc))), E'\n' ORDER BY s.name)
  FROM pg_settings s WHERE s.name LIKE 'coco.%';
