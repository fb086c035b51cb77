-- The demo's statements: scripts/demo-search.sh has loaded the table documents, started a server with a
-- model, and runs this with psql on a server of its own. Every step prints its statements, what coco did
-- and what the model was asked, and stops the demo with an error when that is not what was to be expected.
\set ON_ERROR_STOP on
\set QUIET on
\pset pager off
\pset footer off
SET client_min_messages = warning;

-- Not echoed: which documents. Those that are mainly prose, neither short nor long, up to so many
-- characters; and three of the demo's own, of which it is certain what they are about.
DELETE FROM documents WHERE path ~ '(copyright|changelog|\.pm$)' OR length(body) NOT BETWEEN 1500 AND 6000;
DELETE FROM documents d USING (SELECT path, sum(length(body)) OVER (ORDER BY md5(path)) AS so_far FROM documents) AS s
 WHERE s.path = d.path AND s.so_far > :characters;
\ir own.sql
ANALYZE documents;
SELECT count(*) AS documents FROM documents \gset

-- How a step checks a number.
CREATE FUNCTION pg_temp.expect(what text, got numeric, want numeric) RETURNS void LANGUAGE plpgsql AS
$$ BEGIN
  IF got IS DISTINCT FROM want THEN RAISE EXCEPTION '% is %, expected %', what, got, want; END IF;
END $$;
CREATE EXTENSION coco;
-- What the model's server was asked, it says itself.
SELECT replace(:'model', '/v1', '/control') AS control \gset
CREATE SERVER control FOREIGN DATA WRAPPER coco_http OPTIONS (url :'control');

\echo
\echo '-- 1. A flow: documents -> passages, each with its embedding -------------------------'
\set ECHO queries
CREATE EXTENSION vector;

-- As many requests at once as there are processors for the model.
CREATE SERVER models FOREIGN DATA WRAPPER coco_openai
  OPTIONS (url :'model', batch_size '16', concurrency :'processors', request_timeout '120');

SELECT coco.create_flow('passages',
  source => 'documents',
  query  => $$ SELECT d.path, c.n, c.chunk,
                      coco.embed(c.chunk, 'models', 'all-MiniLM-L6-v2')::vector(384) AS embedding
                 FROM documents d, coco.split_text(d.body, 600) AS c $$,
  target => 'passages',
  key    => '{path,n}') \g /dev/null

CREATE INDEX ON passages USING hnsw (embedding vector_cosine_ops);

SELECT * FROM coco.update('passages') \gset u_
\set ECHO none
SELECT count(*) AS passages, count(DISTINCT chunk) AS texts FROM passages \gset
\set want_evaluated :documents
\set want_upserted :passages
\set want_embedded :texts
\ir report.sql
\set first :u_elapsed
\echo '  ' :documents documents, :passages passages, :texts of them different
\echo

\echo '-- 2. What is this about? -----------------------------------------------------------'
\set ECHO queries
-- The sub-select asks for the embedding of the question once, and the index finds what is nearest to it.
PREPARE search(text) AS
  SELECT path, n, left(replace(chunk, E'\n', ' '), 60) AS passage, round(distance::numeric, 3) AS distance
    FROM (SELECT *, embedding <=> (SELECT coco.embed($1, 'models', 'all-MiniLM-L6-v2')::vector(384)) AS distance
            FROM passages
           ORDER BY distance
           LIMIT 3) AS nearest;
EXECUTE search('Why does the water on the coast come in and go out again?');
EXECUTE search('How do I get a crisp crust on my loaf?');
EXECUTE search('The browser warns me: the site''s certificate is past its date.');
EXECUTE search('How can I report a bug?');
EXPLAIN (COSTS OFF) EXECUTE search('bug');
\set ECHO none
-- The first three have an answer that is certain. It is asked of the index, as above.
DO $$
DECLARE of record; found text;
BEGIN
  FOR of IN VALUES ('Why does the water on the coast come in and go out again?', 'demo/tides'),
                   ('How do I get a crisp crust on my loaf?', 'demo/bread'),
                   ('The browser warns me: the site''s certificate is past its date.', 'demo/certificates')
  LOOP
    SELECT path INTO found FROM passages
     ORDER BY embedding <=> (SELECT coco.embed(of.column1, 'models', 'all-MiniLM-L6-v2')::vector(384)) LIMIT 1;
    IF found IS DISTINCT FROM of.column2 THEN RAISE EXCEPTION '"%" finds %, not %', of.column1, found, of.column2; END IF;
  END LOOP;
END $$;
-- What the searches asked is not the next step's.
SELECT coco.http_post(:'control', '{"reset": true}') \g /dev/null

\echo
\echo '-- 3. Nothing has changed -------------------------------------------------------------'
\set ECHO queries
SELECT * FROM coco.update('passages') \gset u_
\set ECHO none
\set want_evaluated 0
\set want_upserted 0
\set want_embedded 0
\ir report.sql

\echo '-- 4. One paragraph is edited: one embedding -----------------------------------------'
\set ECHO queries
UPDATE documents SET body = replace(body, 'sixteen', 'more than sixteen metres') WHERE path = 'demo/tides';
SELECT * FROM coco.update('passages') \gset u_
\set ECHO none
\set want_evaluated 1
\set want_upserted 1
\set want_embedded 1
\ir report.sql
SELECT count(*) AS found FROM passages WHERE (path, n) = ('demo/tides', 3) AND chunk ~ 'more than sixteen' \gset
SELECT pg_temp.expect('the edited paragraph', :found, 1) \g /dev/null

\echo '-- 5. A sentence in the middle of the longest document --------------------------------'
SELECT path AS longest FROM documents ORDER BY length(body) DESC, path LIMIT 1 \gset
\set ECHO queries
UPDATE documents SET body = overlay(body placing 'This sentence was added by the demo. ' FROM length(body) / 2 FOR 0)
 WHERE path = :'longest';
\set ECHO none
-- What its passages are now, and which of these there are nowhere yet.
SELECT count(DISTINCT chunk) AS want_embedded FROM documents d, coco.split_text(d.body, 600) AS c
 WHERE d.path = :'longest' AND NOT EXISTS (SELECT FROM passages p WHERE p.chunk = c.chunk) \gset
SELECT count(*) AS want_upserted FROM documents d, coco.split_text(d.body, 600) AS c
 WHERE d.path = :'longest' AND NOT EXISTS (SELECT FROM passages p WHERE (p.path, p.n, p.chunk) = (d.path, c.n, c.chunk)) \gset
\set ECHO queries
SELECT * FROM coco.update('passages') \gset u_
\set ECHO none
\ir report.sql
SELECT count(*) AS all FROM passages WHERE path = :'longest' \gset
\echo '   it has' :all passages
\echo

\echo '-- 6. It is copied: no embedding -------------------------------------------------------'
\set want_upserted :all
\set want_embedded 0
\set ECHO queries
INSERT INTO documents SELECT 'copy of ' || path, title, body FROM documents WHERE path = :'longest';
SELECT * FROM coco.update('passages') \gset u_
\set ECHO none
\ir report.sql

\echo '-- 7. In all ---------------------------------------------------------------------------'
\set ECHO queries
SELECT function, calls, hits, misses, requests, tokens_in AS tokens, elapsed, entries,
       pg_size_pretty(entry_bytes) AS size
  FROM coco.functions;
\set ECHO none
-- What nobody uses any more is gone.
SELECT pg_temp.expect('entries', (SELECT entries FROM coco.functions), (SELECT count(DISTINCT chunk) FROM passages)) \g /dev/null
\echo

\echo
\echo '-- 8. By words, by meaning, and by both, in one statement ------------------------------'
\set ECHO queries
SELECT coco.create_search('docs_search', source => 'documents', text => 'body', server => 'models',
                          model => 'all-MiniLM-L6-v2', size => 600, overlap => 0, configuration => 'english') \g /dev/null
\set ECHO none
-- The model has embedded a word, which says how many dimensions there are.
SELECT coco.http_post(:'control', '{"reset": true}') \g /dev/null
SELECT (SELECT count(*) FROM documents) AS want_evaluated, (SELECT count(*) FROM passages) AS want_upserted \gset
\set want_embedded 0
\set ECHO queries
SELECT * FROM coco.update('docs_search') \gset u_
\set ECHO none
\ir report.sql
SELECT pg_temp.expect('differences', (SELECT count(*) FROM coco.verify('docs_search')), 0) \g /dev/null
CREATE TEMPORARY TABLE questions (question text, expected text);
INSERT INTO questions VALUES
  ('Why does the water on the coast come in and go out again?', 'demo/tides'),
  ('What are spring tides and neap tides?', 'demo/tides'),
  ('Why has the Baltic hardly any ebb and flow?', 'demo/tides'),
  ('When is it time to turn back on a walk over the flats?', 'demo/tides'),
  ('How do I get a crisp crust on my loaf?', 'demo/bread'),
  ('How much water and salt for five hundred grams of flour?', 'demo/bread'),
  ('When has the dough risen enough?', 'demo/bread'),
  ('The browser warns me: the site''s certificate is past its date.', 'demo/certificates'),
  ('How is the certificate of a web server renewed?', 'demo/certificates'),
  ('Is a certificate that is signed with its own key enough?', 'demo/certificates');
-- The place of the expected document among the first three.
SET client_min_messages = error;
CREATE FUNCTION pg_temp.place(question text, expected text, mode text) RETURNS bigint LANGUAGE sql AS
$$ SELECT min(n) FROM docs_search(question, 3, mode) WITH ORDINALITY AS f(path, chunk_no, chunk, score, n) WHERE path = expected $$;
CREATE TEMPORARY TABLE answers AS
SELECT question, expected, pg_temp.place(question, expected, 'words') AS words,
       pg_temp.place(question, expected, 'vectors') AS vectors, pg_temp.place(question, expected, 'hybrid') AS hybrid
  FROM questions;
\echo The place of the right document among the first three answers:
TABLE answers;
SELECT pg_temp.expect('questions answered', count(hybrid), 10) FROM answers \g /dev/null

\echo '-- 9. A document is deleted: its answers are gone -----------------------------------------'
\set ECHO queries
DELETE FROM documents WHERE path = 'demo/bread';
SELECT deleted FROM coco.update('docs_search') \gset
\set ECHO none
SELECT pg_temp.expect('answers from a deleted document', count(pg_temp.place(question, expected, mode)), 0)
  FROM questions, unnest('{words,vectors,hybrid}'::text[]) AS mode WHERE expected = 'demo/bread' \g /dev/null
\echo '  ' :deleted passages deleted
\echo
\echo 'As expected at every step. From nothing:' :first
