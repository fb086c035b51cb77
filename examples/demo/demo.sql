-- The demo's statements: scripts/demo.sh has loaded the table documents, and runs this with psql
-- on a server of its own. Every step prints its statements and what coco did, and stops the demo
-- with an error when that is not what was to be expected.
\set ON_ERROR_STOP on
\set QUIET on
\pset pager off
\pset footer off

-- Not echoed: how a step checks a number.
CREATE FUNCTION pg_temp.expect(what text, got numeric, want numeric) RETURNS void LANGUAGE plpgsql AS
$$ BEGIN
  IF got IS DISTINCT FROM want THEN RAISE EXCEPTION '% is %, expected %', what, got, want; END IF;
END $$;
SELECT count(*) AS documents FROM documents \gset

\echo
\echo '-- 1. A flow: documents -> doc_chunks ----------------------------------------------'
\set ECHO queries
CREATE EXTENSION coco;

CREATE FUNCTION public.clean(t text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT regexp_replace(btrim(t, E' \t\n'), '[ \t]+', ' ', 'g') $$;

SELECT coco.create_flow('doc_chunks',
  source      => 'documents',
  query       => $$ SELECT d.path, c.n, clean(c.chunk) AS chunk, c.byte_start, c.byte_end
                      FROM documents d, coco.split_text(d.body, 800) AS c $$,
  target      => 'doc_chunks',
  key         => '{path,n}',
  fingerprint => 'coco.normalize_text(body)') \g /dev/null

SELECT * FROM coco.update('doc_chunks') \gset u_
\set ECHO none
SELECT count(*) AS chunks FROM doc_chunks \gset
\set first :u_elapsed
\set want_seen :documents
\set want_evaluated :documents
\set want_upserted :chunks
\set want_deleted 0
\ir report.sql
SELECT path, n, byte_start, byte_end, left(replace(chunk, E'\n', ' '), 50) AS chunk
  FROM doc_chunks ORDER BY md5(path), n LIMIT 3;

\echo '-- 2. Nothing has changed ----------------------------------------------------------'
\set ECHO queries
SELECT * FROM coco.update('doc_chunks') \gset u_
\set ECHO none
-- The table is captured: only what has changed is looked at.
\set want_seen 0
\set want_evaluated 0
\set want_upserted 0
\ir report.sql

\echo '-- 3. Five documents get another paragraph -----------------------------------------'
\set ECHO queries
UPDATE documents SET body = body || E'\n\nThis paragraph was added by the demo.\n'
 WHERE path IN (SELECT path FROM documents ORDER BY md5(path) LIMIT 5);
SELECT * FROM coco.update('doc_chunks') \gset u_
\set ECHO none
-- At least the last chunk of each is new, and where a chunk was full, one more.
SELECT CASE WHEN :u_upserted BETWEEN 5 AND 5 * 3 THEN :u_upserted ELSE 5 END AS want_upserted,
       5 AS want_evaluated, 5 AS want_seen \gset
\ir report.sql
\set edited :u_elapsed

\echo '-- 4. A document is deleted --------------------------------------------------------'
SELECT path AS gone FROM documents ORDER BY md5(path) OFFSET 5 LIMIT 1 \gset
SELECT count(*) AS want_deleted, 0 AS want_seen, 0 AS want_evaluated, 0 AS want_upserted
  FROM doc_chunks WHERE path = :'gone' \gset
SELECT pg_temp.expect('at least one chunk to delete', least(:want_deleted, 1), 1) \g /dev/null
\set ECHO queries
DELETE FROM documents WHERE path = :'gone';
SELECT * FROM coco.update('doc_chunks') \gset u_
\set ECHO none
\ir report.sql
SELECT :documents - 1 AS documents \gset
\set want_deleted 0
-- Each title is a change of its row.
\set want_seen :documents

\echo '-- 5. Blanks at the end of one, and every title: not what is fingerprinted ---------'
\set ECHO queries
UPDATE documents SET body = body || '   '
 WHERE path = (SELECT path FROM documents ORDER BY md5(path) DESC LIMIT 1);
UPDATE documents SET title = upper(title);
SELECT * FROM coco.update('doc_chunks') \gset u_
\set ECHO none
\ir report.sql

\echo '-- 6. The function in the query changes: e-mail addresses are now left out ---------'
SELECT count(*) AS want_upserted, :documents AS want_evaluated
  FROM doc_chunks WHERE chunk ~ '\S+@\S+' \gset
\set ECHO queries
CREATE OR REPLACE FUNCTION public.clean(t text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT regexp_replace(regexp_replace(btrim(t, E' \t\n'), '[ \t]+', ' ', 'g'), '\S+@\S+', '<e-mail>', 'g') $$;
SELECT * FROM coco.update('doc_chunks') \gset u_
\set ECHO none
\ir report.sql

\echo 'As expected at every step. From nothing:' :first '- five documents edited:' :edited
