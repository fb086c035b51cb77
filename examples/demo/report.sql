-- After each step of demo.sql: what the update counted (u_*), whether the target is what the query
-- gives now, and whether both are what was to be expected (want_*).
SELECT count(*) AS differences FROM coco.verify('doc_chunks') \gset
\echo
\echo '  ' :u_source: seen :u_seen, skipped :u_skipped, unchanged :u_unchanged, evaluated :u_evaluated
\echo '   rows upserted' :u_upserted, deleted :u_deleted - failed :u_failed - elapsed :u_elapsed
\echo '   differences found by coco.verify:' :differences
\echo
SELECT pg_temp.expect('differences', :differences, 0),
       pg_temp.expect('seen', :u_seen, :want_seen),
       pg_temp.expect('evaluated', :u_evaluated, :want_evaluated),
       -- There is no ordinal in this flow, so what is not evaluated is unchanged.
       pg_temp.expect('unchanged', :u_unchanged, :want_seen - :want_evaluated),
       pg_temp.expect('upserted', :u_upserted, :want_upserted),
       pg_temp.expect('deleted', :u_deleted, :want_deleted),
       pg_temp.expect('failed', :u_failed, 0) \g /dev/null
