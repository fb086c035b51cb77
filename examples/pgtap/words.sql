-- A pgTAP test of a flow's query, with pg_prove or psql -XqAt -f.
\set ON_ERROR_STOP on
BEGIN;

-- In a project of your own, migrations have declared the flow.
CREATE TABLE docs (id int PRIMARY KEY, body text NOT NULL);
INSERT INTO docs VALUES (1, 'The moon');
SELECT coco.create_flow('words', 'docs',
  $$ SELECT d.id, w.n, lower(w.word) AS word
       FROM docs d, string_to_table(d.body, ' ') WITH ORDINALITY AS w(word, n) $$,
  'words', '{id,n}');

SELECT plan(5);

SELECT results_eq(
  $$ SELECT output ->> 'word' FROM coco.evaluate('words', '{"id": 1}') $$,
  ARRAY['the', 'moon'],
  'each word of a document is a row');

SELECT results_eq(
  $$ SELECT output ->> 'word' FROM coco.evaluate('words', '{"id": 7}', item => '{"body": "A B C"}') $$,
  ARRAY['a', 'b', 'c'],
  'a document that is not in the table gives rows, too');

SELECT is_empty(
  $$ SELECT * FROM coco.evaluate('words', '{"id": 7}') $$,
  'a document that does not exist gives none');

SELECT throws_ok(
  $$ SELECT * FROM coco.evaluate('words', '{"doc": 1}') $$,
  '42703', NULL,
  'the source key has no column "doc"');

SELECT is_empty('SELECT * FROM words', 'nothing is written');

SELECT * FROM finish();
ROLLBACK;
