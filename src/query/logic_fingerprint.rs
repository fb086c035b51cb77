//! The logic fingerprint of a flow's queries and everything they reach, transitively.
//!
//! PostgreSQL records in pg_depend what a view or an SQL-standard function body reaches. A body
//! that is text (SQL, PL/pgSQL or any other language) is searched for the names that it calls and
//! reads. Every object with such a name counts, so that the fingerprint covers too much rather than
//! too little. Objects in pg_catalog do not change and are left out.

use pgrx::pg_sys;
use serde_json::json;
use std::collections::BTreeMap;

use crate::catalog::logic_rows;
use crate::catalog::model::{Flow, Target};
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};
use crate::pg::type_definition;
use crate::query::logic_description;
use coco_core::fingerprint::Hasher;
use coco_core::version::{Fingerprint, LogicId};

/// One step of the search: from objects to their definitions and to the objects that these reach.
const STEP: &str = r#"
with here as (
  select a.classid, a.objid
    from unnest($1::oid[], $2::oid[]) as a(classid, objid)
), texts as (
  select p.oid as objid, p.prosrc as body
    from here h join pg_proc p on p.oid = h.objid
    join pg_language l on l.oid = p.prolang
   where h.classid = 'pg_proc'::regclass and p.prosqlbody is null
     and l.lanname not in ('c', 'internal')
), words as materialized (
  select t.objid, coalesce(m[1], lower(m[2])) as word
    from texts t,
         regexp_matches(t.body, '"((?:[^"]|"")+)"|([[:alpha:]_\u0080-\uffff][\w$]*)', 'g') as m
   group by 1, 2
), signs as materialized (
  select t.objid, m[1] as sign
    from texts t, regexp_matches(t.body, '([-+*/<>=~!@#%^&|`?]+)', 'g') as m
   group by 1, 2
), reached as (
  -- the object itself, if a search starts with it
  select h.classid, h.objid from here h
   where h.classid in ('pg_proc'::regclass, 'pg_attrdef'::regclass)
  union
  -- recorded dependencies of a view's rule and of a function's parsed body
  select d.refclassid as classid, d.refobjid as objid
    from here h
    join pg_rewrite r on h.classid = 'pg_class'::regclass and r.ev_class = h.objid
    join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.deptype = 'n'
  union
  select d.refclassid, d.refobjid
    from here h
    join pg_depend d on d.classid = h.classid and d.objid = h.objid and d.deptype = 'n'
   where h.classid in ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_cast'::regclass,
                       'pg_attrdef'::regclass, 'pg_ts_config'::regclass)
  union
  -- virtual generated columns that a view's rule reads
  select 'pg_attrdef'::regclass, g.oid
    from here h
    join pg_rewrite r on h.classid = 'pg_class'::regclass and r.ev_class = h.objid
    join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
    join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid and a.attgenerated::text = 'v'
    join pg_attrdef g on g.adrelid = a.attrelid and g.adnum = a.attnum
  union
  select 'pg_ts_config'::regclass, c.oid
    from words w join pg_ts_config c on c.cfgname = w.word
  union
  select 'pg_proc'::regclass, p.oid
    from words w join pg_proc p on p.proname = w.word
   where p.pronamespace <> 'pg_catalog'::regnamespace
  union
  select 'pg_class'::regclass, c.oid
    from words w join pg_class c on c.relname = w.word
   where c.relkind in ('v', 'm') and c.relnamespace <> 'pg_catalog'::regnamespace
  union
  select 'pg_operator'::regclass, o.oid
    from signs s join pg_operator o on o.oprname = s.sign
   where o.oprnamespace <> 'pg_catalog'::regnamespace
  union
  select 'pg_proc'::regclass, f.oid
    from here h join pg_operator o on h.classid = 'pg_operator'::regclass and o.oid = h.objid
    join pg_proc f on f.oid = o.oprcode
  union
  select 'pg_proc'::regclass, f.oid
    from here h join pg_aggregate a on h.classid = 'pg_proc'::regclass and a.aggfnoid = h.objid
    join pg_proc f on f.oid in (a.aggtransfn, a.aggfinalfn, a.aggcombinefn)
  union
  -- casts from and to user-defined types, which text bodies use without naming them
  select 'pg_proc'::regclass, c.castfunc
    from here h join pg_type t on h.classid = 'pg_type'::regclass and t.oid = h.objid
    join pg_cast c on t.oid in (c.castsource, c.casttarget)
   where c.castfunc <> 0
)
select 'pg_proc'::regclass::oid, p.oid,
       format('function %s', p.oid::regprocedure),
       concat_ws(E'\x01', l.lanname, p.prosrc, p.probin, pg_get_function_sqlbody(p.oid),
                 p.prorettype::regtype, p.proisstrict, p.provolatile, p.proretset, p.proconfig::text,
                 pg_get_function_arguments(p.oid),
                 (select concat_ws(E'\x01', a.aggtransfn, a.aggfinalfn, a.aggtranstype::regtype,
                                   a.agginitval)
                    from pg_aggregate a where a.aggfnoid = p.oid),
                 (select e.extversion from pg_depend d join pg_extension e on e.oid = d.refobjid
                   where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'))
  from reached r join pg_proc p on r.classid = 'pg_proc'::regclass and p.oid = r.objid
  join pg_language l on l.oid = p.prolang
 where p.pronamespace <> 'pg_catalog'::regnamespace
union all
select 'pg_class'::regclass::oid, c.oid, format('view %s', c.oid::regclass),
       pg_get_viewdef(c.oid)
  from reached r join pg_class c on r.classid = 'pg_class'::regclass and c.oid = r.objid
 where c.relkind in ('v', 'm') and c.relnamespace <> 'pg_catalog'::regnamespace
   -- before PostgreSQL 16 a view's rule depends on the view itself
   and c.oid <> all ($2)
union all
select 'pg_operator'::regclass::oid, o.oid, format('operator %s', o.oid::regoperator),
       o.oprcode::text
  from reached r join pg_operator o on r.classid = 'pg_operator'::regclass and o.oid = r.objid
 where o.oprnamespace <> 'pg_catalog'::regnamespace
union all
select 'pg_type'::regclass::oid, t.oid, format('type %s', t.oid::regtype),
       concat_ws(E'\x01',
         (select string_agg(pg_get_constraintdef(k.oid), ' ' order by k.conname)
            from pg_constraint k where k.contypid = t.oid),
         (select string_agg(concat_ws(' ', c.castsource::regtype, c.casttarget::regtype,
                                      c.castfunc::regprocedure, c.castcontext), ','
                            order by c.castsource::regtype::text, c.casttarget::regtype::text)
            from pg_cast c where t.oid in (c.castsource, c.casttarget)),
         (select string_agg(quote_literal(e.enumlabel::text), ',' order by e.enumsortorder)
            from pg_enum e where e.enumtypid = t.oid),
         (select string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod)),
                            ',' order by a.attnum)
            from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped))
  from reached r join pg_type t on r.classid = 'pg_type'::regclass and t.oid = r.objid
 where t.typnamespace <> 'pg_catalog'::regnamespace
   -- the row type of a table gets more columns whenever the table does
   and (t.typrelid = 0 or exists (select from pg_class c where c.oid = t.typrelid and c.relkind = 'c'))
union all
select 'pg_attrdef'::regclass::oid, g.oid, format('generated column %I of %s', a.attname, g.adrelid::regclass),
       pg_get_expr(g.adbin, g.adrelid)
  from reached r join pg_attrdef g on r.classid = 'pg_attrdef'::regclass and g.oid = r.objid
  join pg_attribute a on a.attrelid = g.adrelid and a.attnum = g.adnum
union all
select 'pg_ts_config'::regclass::oid, c.oid, format('text search configuration %s', c.oid::regconfig),
       (select string_agg(concat_ws(' ', m.maptokentype, m.mapdict::regdictionary), ','
                          order by m.maptokentype, m.mapseqno)
          from pg_ts_config_map m where m.mapcfg = c.oid)
  from reached r join pg_ts_config c on r.classid = 'pg_ts_config'::regclass and c.oid = r.objid
 where c.cfgnamespace <> 'pg_catalog'::regnamespace
union all
select 'pg_ts_dict'::regclass::oid, d.oid, format('text search dictionary %s', d.oid::regdictionary),
       d.dictinitoption
  from reached r join pg_ts_dict d on r.classid = 'pg_ts_dict'::regclass and d.oid = r.objid
 where d.dictnamespace <> 'pg_catalog'::regnamespace
"#;

/// The virtual generated columns of a relation.
const GENERATED: &str = "
select g.oid
  from pg_catalog.pg_attribute a
  join pg_catalog.pg_attrdef g on g.adrelid = a.attrelid and g.adnum = a.attnum
 where a.attrelid = $1 and a.attgenerated::text = 'v' and a.attname::text = any ($2)";

/// Computes a flow's current logic, records it if it is new, and returns its id.
pub fn current_logic(flow: &Flow) -> Result<LogicId> {
    let (fingerprint, parts) = compute(flow)?;
    if let Some(id) = logic_rows::known_logic_id(&flow.name, fingerprint)? {
        return Ok(LogicId(id));
    }
    let described = logic_description::describe(flow, &parts)?;
    logic_rows::record_logic(&flow.name, fingerprint, parts, described).map(LogicId)
}

/// Returns the id of the current logic if it is already recorded permanently.
pub fn kept_logic(flow: &Flow) -> Result<Option<LogicId>> {
    let (fingerprint, _) = compute(flow)?;
    Ok(logic_rows::settled_logic_id(&flow.name, fingerprint)?.map(LogicId))
}

/// Returns the id of the current logic but records nothing. If the logic is new, the id is one that
/// no item can have.
pub fn known_logic(flow: &Flow) -> Result<LogicId> {
    let (fingerprint, _) = compute(flow)?;
    Ok(LogicId(logic_rows::known_logic_id(&flow.name, fingerprint)?.unwrap_or(0)))
}

/// Reports whether a flow has run under at most one logic.
pub fn is_first(flow: &Flow) -> Result<bool> {
    let _as = RoleGuard::extension_owner()?;
    let several = spi::scalar::<bool>(
        "select true from coco_internal.logic where flow = $1 offset 1 limit 1",
        &[arg(flow.name.as_str())],
    )?;
    Ok(several.is_none())
}

/// Returns the fingerprint of the current logic, and the names of its parts.
pub fn covers(flow: &Flow) -> Result<(pgrx::Uuid, Vec<String>)> {
    let (fingerprint, parts) = compute(flow)?;
    let names = parts.as_object().into_iter().flatten().map(|(name, _)| name.clone());
    Ok((fingerprint, names.collect()))
}

fn compute(flow: &Flow) -> Result<(pgrx::Uuid, serde_json::Value)> {
    let mut parts = BTreeMap::new();
    for target in &flow.targets {
        let columns: Vec<String> =
            target.columns.iter().map(|c| format!("{} {}", c.quoted(), c.type_name)).collect();
        let key: Vec<String> = target.key.iter().map(|k| k.quoted()).collect();
        // The epoch is part of the logic, so that coco fills a lost target again after recreating
        // it.
        let text =
            [target.query.clone(), columns.join(", "), key.join(", "), target.epoch.to_string()];
        // Named by id: renaming a target does not change the logic.
        parts.insert(format!("query of target {}", target.id), text.join("\u{1}"));
        for e in target.expectations.iter().filter(|e| e.action.is_logic()) {
            let text = [e.condition.as_str(), e.action.name()].join("\u{1}");
            parts.insert(format!("expectation \"{}\" of target {}", e.name, target.id), text);
        }
    }
    for source in &flow.sources {
        let text = [
            source.fingerprint.clone().unwrap_or_default(),
            source.key.iter().map(|k| k.quoted()).collect::<Vec<_>>().join(", "),
            // A row that is read as a whole gets more columns whenever its table does.
            source.used.len().to_string(),
        ];
        parts.insert(format!("source {}", source.name), text.join("\u{1}"));
    }
    let mut settings: Vec<String> =
        flow.settings.pairs().map(|(name, value)| format!("{name}={value}")).collect();
    settings.sort_unstable();
    parts.insert("settings of the flow".to_owned(), settings.join("\u{1}"));
    let queries = flow.targets.iter().filter_map(Target::query_view);
    let expressions = flow.sources.iter().filter_map(|s| s.expressions.as_ref());
    let keys = flow.sources.iter().filter_map(|s| s.key_expressions.as_ref());
    let conditions = flow.targets.iter().flat_map(|t| &t.expectations);
    let conditions = conditions.filter(|e| e.action.is_logic()).filter_map(|e| e.bound.as_ref());
    let views: Vec<pg_sys::Oid> = queries
        .chain(expressions.map(|e| e.bound.view))
        .chain(keys.map(|k| k.bound.view))
        .chain(conditions.map(|bound| bound.view))
        .collect();
    reach("pg_class", &views, &mut parts)?;
    for relation in flow.followed() {
        let used: Vec<String> = relation.used.iter().map(|c| c.name.clone()).collect();
        let generated: Vec<pg_sys::Oid> =
            spi::select(GENERATED, &[arg(relation.relation), arg(used)], |r| spi::required(r, 1))?;
        if !generated.is_empty() {
            reach("pg_attrdef", &generated, &mut parts)?;
        }
        // A change of an enum's labels or a composite's attributes changes the text of a row
        // although no row is written.
        for column in &relation.used {
            if column.type_oid.to_u32() >= pg_sys::FirstNormalObjectId {
                let kind = hex(&type_definition::type_fingerprint(column.type_oid)?.kind.0);
                parts.insert(format!("values of type {}", column.type_name), kind);
            }
        }
    }
    for function in &flow.memoized {
        // The result of a provided function does not depend on coco's version.
        if function.kind.is_provided() {
            parts.remove(&format!("function {}", function.name));
        }
        let fingerprint = hex(function.fingerprint.as_bytes());
        parts.insert(format!("memoized function {}", function.name), fingerprint);
    }
    let (fingerprint, recorded) = whole(&parts);
    Ok((pgrx::Uuid::from_bytes(fingerprint.0), serde_json::Value::Object(recorded)))
}

/// Returns the fingerprint of functions and everything they reach, for a memoized function of this
/// name and version.
pub fn of_functions(
    functions: &[pg_sys::Oid],
    name: &str,
    version: Option<&str>,
) -> Result<pgrx::Uuid> {
    let mut parts = BTreeMap::new();
    reach("pg_proc", functions, &mut parts)?;
    // Another spelling would be another fingerprint, and every stored result would be computed again.
    parts.insert(format!("memoised {name}"), version.unwrap_or_default().to_owned());
    Ok(pgrx::Uuid::from_bytes(whole(&parts).0.0))
}

fn whole(
    parts: &BTreeMap<String, String>,
) -> (Fingerprint, serde_json::Map<String, serde_json::Value>) {
    let mut whole = Hasher::new();
    let mut recorded = serde_json::Map::new();
    for (name, text) in parts {
        let part = Hasher::new().part(text.as_bytes()).finish();
        whole.part(name.as_bytes()).part(&part.0);
        recorded.insert(name.clone(), json!(hex(&part.0)));
    }
    (whole.finish(), recorded)
}

/// Adds everything that objects of a catalog reach to `parts`, repeating until a step finds nothing
/// new. Functions are added themselves, too.
fn reach(
    catalog: &str,
    objects: &[pg_sys::Oid],
    parts: &mut BTreeMap<String, String>,
) -> Result<()> {
    let class = spi::scalar::<pg_sys::Oid>(&format!("select '{catalog}'::regclass::oid"), &[])?;
    let class = class.unwrap_or(pg_sys::InvalidOid);
    let mut frontier: Vec<(pg_sys::Oid, pg_sys::Oid)> =
        objects.iter().map(|o| (class, *o)).collect();
    let mut seen = std::collections::BTreeSet::new();
    while !frontier.is_empty() {
        let (classes, objects): (Vec<_>, Vec<_>) = frontier.drain(..).unzip();
        let found = spi::select(STEP, &[arg(classes), arg(objects)], |r| {
            let object: (pg_sys::Oid, pg_sys::Oid) = (spi::required(r, 1)?, spi::required(r, 2)?);
            let text: Option<String> = r.get(4)?;
            Ok((object, spi::required::<String>(r, 3)?, text.unwrap_or_default()))
        })?;
        for ((class, object), name, text) in found {
            if seen.insert((class.to_u32(), object.to_u32())) {
                parts.insert(name, text);
                frontier.push((class, object));
            }
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
