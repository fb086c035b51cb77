-- The role of the exporter: it sees metrics of all flows (coco.metrics), and the contents of none.
-- Set its password with \password coco_exporter.
create role coco_exporter login;
grant pg_read_all_stats to coco_exporter;
grant usage on schema coco to coco_exporter;
alter role coco_exporter set statement_timeout = '10s';
alter role coco_exporter set default_transaction_read_only = on;
