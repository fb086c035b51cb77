-- PUBLIC has no rights by default. GRANT USAGE ON SCHEMA coco allows a role to declare and run flows over relations that it
-- may read; the functions below check all other rights.

revoke all on all functions in schema coco, coco_internal from public;
grant execute on function
  coco.create_flow(text, text, text, text, text[], text, text[], text, text, text, interval, text, text, jsonb, text, boolean, boolean, jsonb, text, text, text, text),
  coco.create_flow(text, regclass, text, text, text[], text, text[], text, text, text, interval, text, text, jsonb, text, boolean, boolean, jsonb, text, text, text, text),
  coco.plan(text, text, text, text, text[], text, text[], text, text, text, interval, text, text, jsonb, text, jsonb, text, text, text, text),
  coco.plan(text, regclass, text, text, text[], text, text[], text, text, text, interval, text, text, jsonb, text, jsonb, text, text, text, text),
  coco.add_source, coco.add_lookup, coco.add_target, coco.set_query, coco.expect, coco.drop_expectation, coco.alter_flow,
  coco.allow, coco.rename_flow, coco.drop_flow, coco.flow_definition, coco.definitions, coco.update, coco.update_all, coco.retry,
  coco.start, coco.stop, coco.wait, coco.preview, coco.estimate, coco.evaluate, coco.verify,
  coco.history, coco.lineage, coco.outputs, coco.explain, coco.diagram, coco.report,
  coco.split_text, coco.split_file, coco.extract_text, coco.extract_pages, coco.normalize_text, coco.fingerprint, coco.stable_uuid,
  coco.swap, coco.rollback, coco.discard, coco.diff, coco.create_search, coco.search,
  coco.embed, coco.generate, coco.http_post,
  coco.memoize, coco.unmemoize, coco.clear_memo, coco.connector_options
to public;
-- Nobody else may use the schema coco_internal, so these functions cannot be called by name; the views in coco and the
-- bound queries of flows call them.
grant execute on function
  coco_internal.memo_call, coco_internal.function_rows, coco_internal.tracking_rows, coco_internal.error_rows,
  coco_internal.expectation_rows, coco_internal.pending_rows, coco_internal.pending_flow_rows, coco_internal.worker_rows,
  coco_internal.progress_rows, coco_internal.delivery_rows, coco_internal.metric_rows, coco_internal.failure_rows,
  coco_internal.session_error_rows, coco_internal.restore_is_complete, coco_internal.schedule_rows
to public;
grant select on coco.flows, coco.sources, coco.lookups, coco.targets, coco.versions, coco.logic_versions, coco.tracking, coco.errors, coco.expectations, coco.status, coco.status_detail, coco.workers, coco.progress, coco.delivery_status, coco.functions, coco.kept_results,
  coco.metrics
to public;

-- Shown by CREATE EXTENSION, which this script is a part of.
select coco_internal.check_server_version();

-- The functions that read the server's files also check the membership in this role themselves.
grant execute on function coco.local_files, coco.list_files, coco.read_file to pg_read_server_files;
