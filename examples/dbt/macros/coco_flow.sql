{#- materialized='coco_flow': a flow whose query is the model and whose target is the model's table.

    Options, in meta:
      key         columns that identify a row of the target (required)
      source      the dependency whose items feed the flow; needed if the model has several
      source_key  columns that identify an item; none: the primary key
      ordinal, fingerprint, capture, item: as in coco.create_flow
      lookups     other dependencies that the flow follows, each with its query `affects` or none
      live        true: a worker keeps the flow up to date. Otherwise each dbt run updates it. -#}
{% materialization coco_flow, adapter='postgres' %}
  {%- set meta = config.get('meta', {}) -%}
  {%- if not meta.get('key') -%}
    {{ exceptions.raise_compiler_error("meta.key is missing: name the columns that identify a row of " ~ this) }}
  {%- endif -%}
  {%- set existing_relation = load_cached_relation(this) -%}
  {%- set target_relation = this.incorporate(type='table') -%}
  {%- set flow = this.schema ~ '.' ~ this.identifier -%}
  {%- set source = coco_dependency(meta.get('source')) -%}
  {%- set lookups = [] -%}
  {%- for name, affects in meta.get('lookups', {}).items() -%}
    {%- do lookups.append((coco_dependency(name), affects)) -%}
  {%- endfor -%}

  {#- The flow's label tells whether the declaration or only the query has changed. A source that dbt has made again is
      another table. -#}
  {%- set source_oid = run_query("select " ~ coco_text(source) ~ "::regclass::oid").rows[0][0] -%}
  {%- set declared = local_md5(tojson([source_oid | string, meta, lookups | string], sort_keys=true))[:16] -%}
  {%- set label = 'dbt ' ~ declared ~ ' ' ~ local_md5(sql)[:16] -%}
  {%- set found = run_query("select label from coco.flows where flow = " ~ coco_text(flow)).rows -%}
  {%- set exists = found | length > 0 -%}
  {%- set known = (found[0][0] or '') if exists else '' -%}
  {%- set can_replace = not lookups and coco_can_replace() -%}

  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}

  {%- if exists and known == label -%}
    {%- set declaration = '' -%}
  {%- elif exists and can_replace -%}
    {%- set declaration = coco_declare(flow, source, lookups, meta, true) -%}
  {%- elif exists and known.startswith('dbt ' ~ declared) -%}
    {%- set declaration -%}
      select coco.set_query({{ coco_text(flow) }}, null, {{ coco_text(sql) }}, {{ coco_text(meta.get('item')) }});
    {%- endset -%}
  {%- else -%}
    {%- if exists -%}
      {%- do run_query("select coco.drop_flow(" ~ coco_text(flow) ~ ")") -%}
    {%- endif -%}
    {%- if existing_relation is not none -%}
      {%- do adapter.drop_relation(existing_relation) -%}
    {%- endif -%}
    {%- set declaration = coco_declare(flow, source, lookups, meta, false) -%}
  {%- endif -%}

  {%- call statement('main', fetch_result=True) -%}
    {{ declaration }}
    {% if declaration -%}
      select coco.alter_flow({{ coco_text(flow) }}, label => {{ coco_text(label) }});
    {%- endif %}
    {% if meta.get('live') -%}
      select coco.start({{ coco_text(flow) }});
    {%- else -%}
      select sum(evaluated), sum(upserted), sum(deleted), sum(failed)
        from coco.update({{ coco_text(flow) }}, '{{ 'full_reprocess' if should_full_refresh() else 'normal' }}');
    {%- endif %}
  {%- endcall -%}
  {%- if not meta.get('live') -%}
    {%- set counts = load_result('main')['data'][0] -%}
    {%- do log(flow ~ ": evaluated " ~ counts[0] ~ ", upserted " ~ counts[1] ~ ", deleted " ~ counts[2]
               ~ ", failed " ~ counts[3], info=true) -%}
  {%- endif -%}

  {%- do apply_grants(target_relation, config.get('grants'), should_revoke(existing_relation, full_refresh_mode=False)) -%}
  {%- do persist_docs(target_relation, model) -%}
  {{ run_hooks(post_hooks, inside_transaction=True) }}
  {{ adapter.commit() }}
  {{ run_hooks(post_hooks, inside_transaction=False) }}
  {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}


{#- The statements that declare a flow with the model's query. -#}
{% macro coco_declare(flow, source, lookups, meta, replace) %}
  {%- set target = this.include(database=false) -%}
  {%- if lookups -%}
    select coco.create_flow({{ coco_text(flow) }});
    select coco.add_source({{ coco_text(flow) }}, {{ coco_text(source) }}, key => {{ coco_names(meta.get('source_key')) }},
      ordinal => {{ coco_text(meta.get('ordinal')) }}, fingerprint => {{ coco_text(meta.get('fingerprint')) }},
      capture => {{ coco_text(meta.get('capture')) }});
    {% for lookup, affects in lookups -%}
      select coco.add_lookup({{ coco_text(flow) }}, {{ coco_text(lookup) }}, affects => {{ coco_text(affects) }});
    {% endfor -%}
    select coco.add_target({{ coco_text(flow) }}, {{ coco_text(target) }}, {{ coco_text(sql) }},
      {{ coco_names(meta.key) }}, item => {{ coco_text(meta.get('item')) }});
  {%- else -%}
    select coco.create_flow({{ coco_text(flow) }}, source => {{ coco_text(source) }}, query => {{ coco_text(sql) }},
      target => {{ coco_text(target) }}, key => {{ coco_names(meta.key) }},
      source_key => {{ coco_names(meta.get('source_key')) }}, ordinal => {{ coco_text(meta.get('ordinal')) }},
      fingerprint => {{ coco_text(meta.get('fingerprint')) }}, capture => {{ coco_text(meta.get('capture')) }},
      item => {{ coco_text(meta.get('item')) }}{{ ', or_replace => true' if replace }});
  {%- endif -%}
{% endmacro %}


{#- The relation of a dependency of the model, by its name; without a name, of the only dependency. -#}
{% macro coco_dependency(name) %}
  {%- set found = [] -%}
  {%- for id in model.depends_on.nodes -%}
    {%- set node = graph.sources[id] if id in graph.sources else graph.nodes[id] -%}
    {%- if name is none or node.name == name -%}
      {%- do found.append(api.Relation.create(database=node.database, schema=node.schema,
                                              identifier=node.get('identifier') or node.alias)) -%}
    {%- endif -%}
  {%- endfor -%}
  {%- if found | length != 1 -%}
    {{ exceptions.raise_compiler_error(this ~ ": " ~ (found | length) ~ " dependencies match '" ~ (name or '')
                                       ~ "'; name one in meta.source or meta.lookups") }}
  {%- endif -%}
  {{ return(found[0]) }}
{% endmacro %}


{#- Whether this version of coco can replace a declaration. -#}
{% macro coco_can_replace() %}
  {{ return(run_query("select exists (select from pg_catalog.pg_proc where pronamespace = 'coco'::regnamespace
                         and proname = 'create_flow' and 'or_replace' = any(proargnames))").rows[0][0]) }}
{% endmacro %}


{% macro coco_text(value) -%}
  {{ return('null' if value is none else "'" ~ (value | string | replace("'", "''")) ~ "'") }}
{%- endmacro %}


{% macro coco_names(values) -%}
  {%- if not values -%}{{ return('null') }}{%- endif -%}
  {%- set texts = [] -%}
  {%- for value in values -%}{%- do texts.append(coco_text(value)) -%}{%- endfor -%}
  {{ return('array[' ~ texts | join(', ') ~ ']::text[]') }}
{%- endmacro %}


{#- dbt run-operation coco_drop_flow --args '{flow: analytics.line_amounts}', before a model gets another
    materialization. The table stays. -#}
{% macro coco_drop_flow(flow) %}
  {%- call statement('drop_flow') -%} select coco.drop_flow({{ coco_text(flow) }}) {%- endcall -%}
  {%- do adapter.commit() -%}
{% endmacro %}
