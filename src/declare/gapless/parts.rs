//! What moves from one table to the table that replaces it: names of indexes, owner, grants,
//! comments, policies, triggers, publications, replica identity, and the views over the table.
//!
//! The server describes each part, in the table's present name and with all other names qualified.
//! The descriptions are run after the exchange of names, when the present name is the name of the
//! other table. The flow's owner reads and runs them.

use pgrx::pg_sys;

use crate::declare::gapless::table_pair::TablePair;
use crate::pg::error::Result;
use crate::pg::spi::{self, Arg, arg};

/// The statements that move the parts of one table.
pub struct MovedParts {
    /// The views over the table, whose definitions `after` replaces.
    pub views: Vec<pg_sys::Oid>,
    /// Indexes and constraints of the table that its replacement lacks.
    pub missing: Vec<String>,
    /// To run before the exchange of names.
    pub before: Vec<String>,
    /// The exchange of names.
    pub renames: Vec<String>,
    /// To run after the exchange of names.
    pub after: Vec<String>,
}

/// Triggers of the table `$1` that users created.
const TRIGGERS: &str = "pg_trigger as t
 where t.tgrelid = $1 and not t.tgisinternal and t.tgparentid = 0
   and not exists (select from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
                    where p.oid = t.tgfoid and p.proname = 'capture' and n.nspname = 'coco_internal')";

/// SELECTs of statements to run before the exchange. `$1` is the table, `$2` its replacement, `$3`
/// the name of the table, and `$4` the present name of the replacement.
const BEFORE: [&str; 3] = [
    "select format('drop trigger %I on %s', t.tgname, $3) from {triggers} order by t.tgname",
    "select format('alter publication %I drop table %s', p.pubname, $3)
       from pg_publication_rel as r join pg_publication as p on p.oid = r.prpubid
      where r.prrelid = $1 order by p.pubname",
    "select format('drop policy %I on %s', p.polname, $4)
       from pg_policy as p where p.polrelid = $2 order by p.polname",
];

/// SELECTs of statements to run after the exchange, with the same parameters.
const AFTER: [&str; 14] = [
    "select format('alter table %s owner to %I', $3, pg_get_userbyid(o.relowner))
       from pg_class as o join pg_class as n on n.oid = $2 and n.relowner <> o.relowner
      where o.oid = $1",
    // Grants that the replacement got by default privileges or at its own time as the target.
    "select distinct format('revoke all on table %s from %s', $3,
                            case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end)
       from pg_class as c
       left join pg_attribute as f on f.attrelid = c.oid and f.attacl is not null
      cross join lateral (select * from aclexplode(c.relacl) union select * from aclexplode(f.attacl)) as a
      where c.oid = $2 and a.grantee <> c.relowner",
    "select format('grant %s on table %s to %s%s', a.privilege_type, $3,
                   case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
                   case when bool_or(a.is_grantable) then ' with grant option' end)
       from pg_class as c cross join lateral aclexplode(c.relacl) as a
      where c.oid = $1 and a.grantee <> c.relowner group by a.privilege_type, a.grantee
      order by a.grantee, a.privilege_type",
    "select format('grant %s (%I) on table %s to %s%s', a.privilege_type, f.attname, $3,
                   case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
                   case when bool_or(a.is_grantable) then ' with grant option' end)
       from pg_class as c join pg_attribute as f on f.attrelid = c.oid
       join pg_attribute as n on n.attrelid = $2 and n.attname = f.attname and not n.attisdropped
      cross join lateral aclexplode(f.attacl) as a
      where c.oid = $1 and a.grantee <> c.relowner
      group by a.privilege_type, a.grantee, f.attname, f.attnum
      order by a.grantee, a.privilege_type, f.attnum",
    "select format('comment on table %s is %L', $3, obj_description($1, 'pg_class'))
      where obj_description($1, 'pg_class') is distinct from obj_description($2, 'pg_class')",
    "select format('comment on column %s.%I is %L', $3, n.attname, col_description($1, f.attnum))
       from pg_attribute as n join pg_attribute as f on f.attrelid = $1 and f.attname = n.attname
      where n.attrelid = $2 and n.attnum > 0 and not n.attisdropped and not f.attisdropped
        and col_description($1, f.attnum) is distinct from col_description($2, n.attnum)
      order by n.attnum",
    "select format('alter table %s %s row level security, %s row level security', $3,
                   case when c.relrowsecurity then 'enable' else 'disable' end,
                   case when c.relforcerowsecurity then 'force' else 'no force' end)
       from pg_class as c join pg_class as n on n.oid = $2
        and (n.relrowsecurity, n.relforcerowsecurity) <> (c.relrowsecurity, c.relforcerowsecurity)
      where c.oid = $1",
    "select format('create policy %I on %s as %s for %s to %s%s%s', p.polname, $3,
                   case when p.polpermissive then 'permissive' else 'restrictive' end,
                   case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
                                 when 'd' then 'delete' else 'all' end,
                   (select string_agg(case r.id when 0 then 'public' else quote_ident(pg_get_userbyid(r.id)) end, ', ')
                      from unnest(p.polroles) as r(id)),
                   ' using (' || pg_get_expr(p.polqual, p.polrelid) || ')',
                   ' with check (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')
       from pg_policy as p where p.polrelid = $1 order by p.polname",
    "select pg_get_triggerdef(t.oid) from {triggers} order by t.tgname",
    "select format('alter table %s %s trigger %I', $3,
                   case t.tgenabled when 'D' then 'disable' when 'R' then 'enable replica' else 'enable always' end,
                   t.tgname)
       from {triggers} and t.tgenabled <> 'O' order by t.tgname",
    "select format('alter publication %I add table %s', p.pubname, $3)
       from pg_publication_rel as r join pg_publication as p on p.oid = r.prpubid
      where r.prrelid = $1 order by p.pubname",
    "select format('alter table %s replica identity using index %I', $3, i.relname)
       from pg_class as c join pg_index as x on x.indrelid = c.oid and x.indisreplident
       join pg_class as i on i.oid = x.indexrelid
      where c.oid = $1 and c.relreplident = 'i'",
    "select format('alter table %s replica identity %s', $3,
                   case c.relreplident when 'f' then 'full' when 'n' then 'nothing' else 'default' end)
       from pg_class as c join pg_class as n on n.oid = $2 and n.relreplident <> c.relreplident
      where c.oid = $1 and c.relreplident <> 'i'",
    "select format('create or replace view %I.%I%s as %s', n.nspname, v.relname,
                   (select format(' with (%s)', string_agg(format('%I = %L', o.option_name, o.option_value), ', '))
                      from pg_options_to_table(v.reloptions) as o having count(*) > 0),
                   pg_get_viewdef(v.oid))
       from {views} order by v.oid",
];

/// The views that directly read the table `$1`.
const VIEWS: &str = "pg_class as v join pg_namespace as n on n.oid = v.relnamespace
 where v.relkind = 'v' and exists (
   select from pg_rewrite as w join pg_depend as d
       on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
      and d.refclassid = 'pg_class'::regclass and d.refobjid = $1
    where w.ev_class = v.oid)";

/// The indexes of both tables, each with a description that does not contain the names of index and
/// table. An index of the replacement is the partner of the index that its name contains, or else of
/// an index with the same description.
const INDEXES: &str = "
with i as (
  select x.indrelid, x.indexrelid, c.relname::text as name, n.nspname, x.indisunique, x.indkey, x.indnkeyatts,
         case when x.indisprimary then 'primary key' else concat_ws('|',
           a.amname, x.indisunique, x.indisexclusion, x.indnkeyatts,
           (select string_agg(coalesce(k.attname::text, '()'), ',' order by u.n)
              from unnest(x.indkey) with ordinality as u(num, n)
              left join pg_attribute as k on k.attrelid = x.indrelid and k.attnum = u.num),
           (select string_agg(case when o.opcdefault then '' else o.opcname::text end, ',' order by u.n)
              from unnest(x.indclass) with ordinality as u(id, n) join pg_opclass as o on o.oid = u.id),
           x.indoption::text, pg_get_expr(x.indexprs, x.indrelid), pg_get_expr(x.indpred, x.indrelid))
         end as description
    from pg_index as x join pg_class as c on c.oid = x.indexrelid
    join pg_namespace as n on n.oid = c.relnamespace join pg_am as a on a.oid = c.relam
   where x.indrelid in ($1, $2)
), by_name as (
  select o.indexrelid as old, w.indexrelid as new
    from i as o join i as w on w.name in ('coco_new_' || o.indexrelid, 'coco_old_' || o.indexrelid)
   where o.indrelid = $1 and w.indrelid = $2
), other as (
  select i.*, row_number() over (partition by i.indrelid, i.description order by i.indexrelid) as n
    from i where not exists (select from by_name as b where i.indexrelid in (b.old, b.new))
), partner as (
  select old, new from by_name
   union all
  select o.indexrelid, w.indexrelid from other as o join other as w using (description, n)
   where o.indrelid = $1 and w.indrelid = $2
)";

/// Indexes of the table whose columns the replacement has, and that have no partner. `$3` and `$4`
/// are the target keys: a unique index on a key that changes has none.
const MISSING_INDEXES: &str = "
select format('index %I', o.name) from i as o
 where o.indrelid = $1 and not exists (select from partner as p where p.old = o.indexrelid)
   and not exists (
     select from pg_attribute as a
      where a.attrelid = $1 and a.attnum > 0
        and (a.attnum = any (o.indkey)
             or exists (select from pg_depend as d
                         where d.classid = 'pg_class'::regclass and d.objid = o.indexrelid
                           and d.refclassid = 'pg_class'::regclass and d.refobjid = $1
                           and d.refobjsubid = a.attnum))
        and not exists (select from pg_attribute as b
                         where b.attrelid = $2 and b.attname = a.attname and not b.attisdropped))
   and not (o.indisunique and $3::text[] <> $4::text[]
            and (select array_agg(a.attname::text order by a.attname::text) from pg_attribute as a
                  where a.attrelid = $1 and a.attnum = any (o.indkey[0:o.indnkeyatts - 1])) = $3::text[])
 order by 1";

/// Constraints of the table whose columns the replacement has, and that the replacement lacks.
const MISSING_CONSTRAINTS: &str = "
select format('constraint %I', c.conname) from pg_constraint as c
 where c.conrelid = $1 and c.contype in ('c', 'f')
   and not exists (select from pg_constraint as n
                    where n.conrelid = $2 and n.contype = c.contype and n.conname = c.conname)
   and not exists (
     select from unnest(c.conkey) as k(num) join pg_attribute as a on a.attrelid = $1 and a.attnum = k.num
      where not exists (select from pg_attribute as b
                         where b.attrelid = $2 and b.attname = a.attname and not b.attisdropped))
 order by 1";

/// Pairs of statistics objects on the same columns and expressions.
const STATISTICS: &str = "
with s as (
  select x.stxrelid, x.stxname, n.nspname,
         concat_ws('|', (select string_agg(a.attname::text, ',' order by a.attname::text)
                           from pg_attribute as a where a.attrelid = x.stxrelid and a.attnum = any (x.stxkeys)),
                   x.stxkind::text, pg_get_expr(x.stxexprs, x.stxrelid)) as description,
         x.oid as id
    from pg_statistic_ext as x join pg_namespace as n on n.oid = x.stxnamespace
   where x.stxrelid in ($1, $2)
), numbered as (
  select s.*, row_number() over (partition by stxrelid, description order by id) as n from s
)
select format('alter statistics %I.%I rename to coco_statistics_%s', w.nspname, w.stxname, w.id),
       format('alter statistics %I.%I rename to %I', o.nspname, o.stxname, w.stxname),
       format('alter statistics %I.coco_statistics_%s rename to %I', w.nspname, w.id, o.stxname)
  from numbered as o join numbered as w using (description, n)
 where o.stxrelid = $1 and w.stxrelid = $2 order by o.id";

/// Describes what moves from the main flow's table to the version's. The caller acts as the flow's
/// owner, with only pg_catalog on the search path.
pub fn describe(pair: &TablePair) -> Result<MovedParts> {
    let (name, present) = (pair.name(), pair.version.relation_name());
    let tables = [arg(pair.main_table), arg(pair.version_table)];
    let named =
        [arg(pair.main_table), arg(pair.version_table), arg(name.as_str()), arg(present.as_str())];
    let mut renames = exchange_tables(pair);
    renames.extend(index_renames(&tables)?);
    renames.extend(triples(STATISTICS, &tables)?);
    let mut missing = missing_indexes(pair)?;
    missing.extend(texts(MISSING_CONSTRAINTS, &tables)?);
    Ok(MovedParts {
        views: spi::select(
            &format!("select v.oid from {VIEWS} order by v.oid desc"),
            &[arg(pair.main_table)],
            |r| spi::required(r, 1),
        )?,
        missing,
        before: all_texts(&BEFORE, &named)?,
        renames,
        after: all_texts(&AFTER, &named)?,
    })
}

fn texts(query: &str, args: &[Arg]) -> Result<Vec<String>> {
    spi::select(query, args, |r| spi::required(r, 1))
}

/// Returns the statements that these SELECTs return, in order.
fn all_texts(queries: &[&str], args: &[Arg]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for query in queries {
        let query = query.replace("{triggers}", TRIGGERS).replace("{views}", VIEWS);
        all.extend(texts(&query, args)?);
    }
    Ok(all)
}

/// Exchanges the names of the tables; a version's table may have the name that the other one gets.
fn exchange_tables(pair: &TablePair) -> Vec<String> {
    let rename = |from: &str, to: &str| format!("alter table {from} rename to {}", spi::ident(to));
    let temporary = pair.temporary();
    vec![
        rename(&pair.version.relation_name(), &temporary),
        rename(&pair.name(), &pair.retired),
        rename(&pair.beside(&temporary), &pair.main.name),
    ]
}

/// Gives each index of the replacement the name of its partner, and each partner a name that
/// identifies the other one at the next exchange.
fn index_renames(tables: &[Arg]) -> Result<Vec<String>> {
    let query = format!(
        "{INDEXES}
         select format('alter index %I.%I rename to coco_swap_%s', w.nspname, w.name, w.indexrelid),
                format('alter index %I.%I rename to coco_old_%s', o.nspname, o.name, w.indexrelid),
                format('alter index %I.coco_swap_%s rename to %I', w.nspname, w.indexrelid, o.name)
           from partner as p join i as o on o.indexrelid = p.old join i as w on w.indexrelid = p.new
          order by o.indexrelid"
    );
    triples(&query, tables)
}

/// Returns the statements of each row, three in a row.
fn triples(query: &str, args: &[Arg]) -> Result<Vec<String>> {
    let rows = spi::select(query, args, |r| {
        Ok([spi::required::<String>(r, 1)?, spi::required(r, 2)?, spi::required(r, 3)?])
    })?;
    Ok(rows.into_iter().flatten().collect())
}

fn missing_indexes(pair: &TablePair) -> Result<Vec<String>> {
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    texts(
        &format!("{INDEXES} {MISSING_INDEXES}"),
        &[
            arg(pair.main_table),
            arg(pair.version_table),
            arg(sorted(&pair.main.key_names)),
            arg(sorted(&pair.version.key_names)),
        ],
    )
}
