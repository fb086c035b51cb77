-- After each step of search.sql: what the update counted (u_*), what the model's server says that it was
-- asked since the step before, and whether all of it is what was to be expected (want_*).
SELECT (c ->> 'inputs')::int AS inputs, (c ->> 'requests')::int AS requests
  FROM coco.http_post(:'control', '{}') AS c \gset
\if :{?u_memo}
\else
\set u_memo ''
\endif
SELECT coalesce((m ->> 'calls')::int, 0) AS calls, coalesce((m ->> 'hits')::int, 0) AS hits,
       coalesce((m ->> 'misses')::int, 0) AS misses
  FROM (SELECT nullif(:'u_memo', '')::jsonb -> 'coco.embed(text,text,text,integer)' AS m) AS _ \gset
\unset u_memo
SELECT count(*) AS differences FROM coco.verify('passages') \gset
SELECT (c ->> 'inputs')::int - :inputs AS looked FROM coco.http_post(:'control', '{}') AS c \gset
SELECT coco.http_post(:'control', '{"reset": true}') \g /dev/null
\echo
\echo '  ' documents evaluated :u_evaluated, passages written :u_upserted, failed :u_failed - elapsed :u_elapsed
\echo '   embeddings needed' :calls, at hand :hits, computed :misses - texts sent to the model :inputs, requests :requests
\echo '   differences found by coco.verify:' :differences
\echo
SELECT pg_temp.expect('differences', :differences, 0),
       pg_temp.expect('what coco.verify asks the model for', :looked, 0),
       pg_temp.expect('evaluated', :u_evaluated, :want_evaluated),
       pg_temp.expect('upserted', :u_upserted, :want_upserted),
       pg_temp.expect('failed', :u_failed, 0),
       pg_temp.expect('computed', :misses, :want_embedded),
       pg_temp.expect('texts that were sent', :inputs, :want_embedded),
       pg_temp.expect('at hand', :hits, :calls - :misses),
       pg_temp.expect('no request without a text', least(:inputs, 1), least(:requests, 1)) \g /dev/null
