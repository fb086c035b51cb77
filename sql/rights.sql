-- Nothing is PUBLIC's by default. GRANT USAGE ON SCHEMA coco TO a role lets it declare and run
-- flows over what it may read; the functions below check the rest.

revoke all on all functions in schema coco from public;
grant execute on function
  coco.create_flow, coco.add_source, coco.add_target, coco.set_query, coco.drop_flow,
  coco.update, coco.retry, coco.preview, coco.verify,
  coco.split_text, coco.normalize_text, coco.fingerprint,
  coco.tracking_rows, coco.error_rows
to public;
grant select on coco.flows, coco.sources, coco.targets, coco.tracking, coco.errors, coco.status
to public;
