//! What moves from one table to the table that replaces it: names of indexes, owner, grants,
//! comments, policies, triggers, publications, replica identity, and the views over the table. The
//! same moves from each partition to its partner.
//!
//! The server describes each part, in the table's present name and with all other names qualified.
//! The descriptions are run after the exchange of names, when the present name is the name of the
//! other table. The flow's owner reads and runs them.

use pgrx::pg_sys;

use crate::declare::gapless::partition_tree::Partners;
use crate::declare::gapless::table_pair::TablePair;
use crate::pg::error::Result;
use crate::pg::spi::{self, Arg, arg};

/// The statements that move the parts of one table and of its partitions.
pub struct MovedParts {
    /// The tables that are exchanged: those of the main flow, then those of the version.
    pub tables: Vec<pg_sys::Oid>,
    /// The views over the tables, whose definitions `after` replaces.
    pub views: Vec<pg_sys::Oid>,
    /// Indexes and constraints of the tables that their replacements lack.
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
/// the name of the table, and `$4` the present name of the replacement: see [`over_pairs`].
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

/// Indexes of the table whose columns the replacement has, and that have no partner. `$5` and `$6`
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
   and not (o.indisunique and $5::text[] <> $6::text[]
            and (select array_agg(a.attname::text order by a.attname::text) from pg_attribute as a
                  where a.attrelid = $1 and a.attnum = any (o.indkey[0:o.indnkeyatts - 1])) = $5::text[])
 order by 1";

/// Constraints of the table whose columns the replacement has, and that the replacement lacks.
const MISSING_CONSTRAINTS: &str = "
select format('constraint %I', c.conname) from pg_constraint as c
 where c.conrelid = $1 and c.contype in ('c', 'f') and c.conparentid = 0
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

/// Describes what moves from the main flow's table to the version's, and from each partition to its
/// partner. The caller acts as the flow's owner, with only pg_catalog on the search path.
pub fn describe(pair: &TablePair, partners: &[Partners]) -> Result<MovedParts> {
    let pairs = pair_args(partners);
    let mut renames: Vec<String> = partners.iter().flat_map(exchange_tables).collect();
    renames.extend(index_renames(&pairs)?);
    renames.extend(triples(STATISTICS, &pairs)?);
    let mut missing = missing_indexes(pair, partners)?;
    missing.extend(texts(MISSING_CONSTRAINTS, &pairs)?);
    let main = partners.iter().map(|p| p.main.relation);
    Ok(MovedParts {
        tables: main.chain(partners.iter().map(|p| p.version.relation)).collect(),
        views: views(partners)?,
        missing,
        before: all_texts(&BEFORE, &pairs)?,
        renames,
        after: all_texts(&AFTER, &pairs)?,
    })
}

/// Returns the parameters of [`over_pairs`].
fn pair_args(partners: &[Partners]) -> [Arg<'static>; 4] {
    let of =
        |relation: fn(&Partners) -> pg_sys::Oid| partners.iter().map(relation).collect::<Vec<_>>();
    let named = |name: fn(&Partners) -> String| partners.iter().map(name).collect::<Vec<_>>();
    [
        arg(of(|p| p.main.relation)),
        arg(of(|p| p.version.relation)),
        arg(named(|p| p.main.qualified())),
        arg(named(|p| p.version.qualified())),
    ]
}

/// Returns a SELECT of the rows of `query` for each pair of tables, in order. In `query`, `$1` to
/// `$4` are the tables and their names. `columns` are names for its columns.
fn over_pairs(query: &str, columns: &str) -> String {
    let mut query = query.replace("{triggers}", TRIGGERS).replace("{views}", VIEWS);
    for (parameter, column) in [("$1", "main"), ("$2", "other"), ("$3", "name"), ("$4", "present")]
    {
        query = query.replace(parameter, &format!("pair.{column}"));
    }
    let shown: Vec<String> = columns.split(", ").map(|column| format!("s.{column}")).collect();
    format!(
        "select {} from unnest($1::oid[], $2::oid[], $3::text[], $4::text[])
                with ordinality as pair(main, other, name, present, number)
          cross join lateral (
            select row_number() over () as line, q.* from ({query}) as q({columns})) as s
          order by pair.number, s.line",
        shown.join(", ")
    )
}

/// Returns the views that directly read one of the main flow's tables.
fn views(partners: &[Partners]) -> Result<Vec<pg_sys::Oid>> {
    let tables: Vec<pg_sys::Oid> = partners.iter().map(|p| p.main.relation).collect();
    let of_one = VIEWS.replace("= $1", "= any ($1)");
    spi::select(&format!("select v.oid from {of_one} order by v.oid desc"), &[arg(tables)], |r| {
        spi::required(r, 1)
    })
}

fn texts(query: &str, pairs: &[Arg]) -> Result<Vec<String>> {
    spi::select(&over_pairs(query, "a"), pairs, |r| spi::required(r, 1))
}

/// Returns the statements that these SELECTs return, in order.
fn all_texts(queries: &[&str], pairs: &[Arg]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for query in queries {
        all.extend(texts(query, pairs)?);
    }
    Ok(all)
}

/// Exchanges the names of two tables; a version's table may have the name that the other one gets.
fn exchange_tables(partners: &Partners) -> [String; 3] {
    let rename = |from: &str, to: &str| format!("alter table {from} rename to {}", spi::ident(to));
    let temporary = partners.temporary();
    let beside = spi::qualified(&partners.version.schema, &temporary);
    [
        rename(&partners.version.qualified(), &temporary),
        rename(&partners.main.qualified(), &partners.retired),
        rename(&beside, &partners.main.name),
    ]
}

/// Gives each index of a replacement the name of its partner, and each partner a name that
/// identifies the other one at the next exchange.
fn index_renames(pairs: &[Arg]) -> Result<Vec<String>> {
    let query = format!(
        "{INDEXES}
         select format('alter index %I.%I rename to coco_swap_%s', w.nspname, w.name, w.indexrelid),
                format('alter index %I.%I rename to coco_old_%s', o.nspname, o.name, w.indexrelid),
                format('alter index %I.coco_swap_%s rename to %I', w.nspname, w.indexrelid, o.name)
           from partner as p join i as o on o.indexrelid = p.old join i as w on w.indexrelid = p.new
          order by o.indexrelid"
    );
    triples(&query, pairs)
}

/// Returns the statements of each row, three in a row.
fn triples(query: &str, pairs: &[Arg]) -> Result<Vec<String>> {
    let rows = spi::select(&over_pairs(query, "a, b, c"), pairs, |r| {
        Ok([spi::required::<String>(r, 1)?, spi::required(r, 2)?, spi::required(r, 3)?])
    })?;
    Ok(rows.into_iter().flatten().collect())
}

fn missing_indexes(pair: &TablePair, partners: &[Partners]) -> Result<Vec<String>> {
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    let [main, version, name, present] = pair_args(partners);
    let before = arg(sorted(&pair.main.key_names));
    let after = arg(sorted(&pair.version.key_names));
    let query = format!("{INDEXES} {MISSING_INDEXES}");
    texts(&query, &[main, version, name, present, before, after])
}
