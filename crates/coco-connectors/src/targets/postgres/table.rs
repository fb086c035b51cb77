//! Finds, checks, creates and drops the target's table.

use super::error::StatementError;
use super::names::{self, quoted};
use super::session::Session;
use super::types::{self, RemoteType};
use crate::targets::Prepared;
use coco_core::change::{Column, DeliveryError, TargetSchema};

/// A table that fits its target.
pub struct Table {
    /// Qualified and quoted, like all names here.
    pub name: String,
    pub oid: u32,
    /// In the order of the target schema's columns.
    pub columns: Vec<String>,
    pub key: Vec<KeyColumn>,
    /// The definition of the table, to detect that it was altered: see [`signature`].
    pub signature: String,
    /// Whether the table is empty and always was, as far as its size shows.
    pub is_new: bool,
    pub is_partitioned: bool,
    /// Whether the table accepts COPY. If row-level security applies to the role, Postgres only
    /// accepts INSERT.
    pub takes_copy: bool,
}

/// A key column. Key columns have the order of [`TargetSchema::key`].
pub struct KeyColumn {
    pub name: String,
    /// The equality operator of the unique index, qualified: `operator(pg_catalog.=)`.
    pub equals: String,
}

/// The location that a target's name resolves to.
struct Place {
    schema: String,
    table: String,
    found: Option<Found>,
}

struct Found {
    oid: u32,
    kind: String,
    empty: bool,
}

impl Place {
    fn name(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.table))
    }
}

/// Reports whether a relation with the table's name exists.
pub async fn exists(
    session: &Session,
    target_schema: &TargetSchema,
) -> Result<bool, DeliveryError> {
    locate(session, target_schema)
        .await
        .map(|place| place.found.is_some())
        .map_err(StatementError::into_delivery_error)
}

/// Finds or creates the table, and checks that it fits.
pub async fn prepare(
    session: &Session,
    target_schema: &TargetSchema,
) -> Result<(Table, Prepared), DeliveryError> {
    prepare_or_fault(session, target_schema).await.map_err(StatementError::into_delivery_error)
}

async fn prepare_or_fault(
    session: &Session,
    target_schema: &TargetSchema,
) -> Result<(Table, Prepared), StatementError> {
    let place = locate(session, target_schema).await?;
    if let Some(found) = &place.found {
        return Ok((examine(session, target_schema, &place, found).await?, Prepared::Found));
    }
    let prepared = match make(session, target_schema, &place).await {
        Ok(()) => Prepared::Made,
        // Another session has just created it.
        Err(fault) if fault.is("42P07") || fault.is("23505") => Prepared::Found,
        Err(fault) => return Err(fault),
    };
    let place = locate(session, target_schema).await?;
    let Some(found) = &place.found else {
        return Err(target(
            "42P01",
            format!("table {} was dropped just after it was created", place.name()),
        ));
    };
    Ok((examine(session, target_schema, &place, found).await?, prepared))
}

/// Drops the table if it exists.
pub async fn remove(session: &Session, target_schema: &TargetSchema) -> Result<(), DeliveryError> {
    let drop = async {
        match locate(session, target_schema).await {
            Ok(Place { found: None, .. }) => Ok(()),
            Ok(place) => session.run(&format!("drop table if exists {}", place.name())).await,
            // Without the schema, there is no table.
            Err(fault) if fault.is("3F000") => Ok(()),
            Err(fault) => Err(fault),
        }
    };
    drop.await.map_err(StatementError::into_delivery_error)
}

fn target(sqlstate: &str, message: String) -> StatementError {
    StatementError::Fatal(DeliveryError::target(sqlstate, message))
}

/// All schemas that may contain the table, in search order.
const LOCATE: &str = "
select n.nspname::text, c.oid, c.relkind::text, c.relkind = 'r' and pg_relation_size(c.oid) = 0
  from pg_namespace n
  left join pg_class c on c.relnamespace = n.oid and c.relname = $2::text
 where n.nspname = any ($1::text[])
 order by array_position($1, n.nspname::text)";

async fn locate(session: &Session, target_schema: &TargetSchema) -> Result<Place, StatementError> {
    let name = names::target(&target_schema.target).map_err(|message| target("42602", message))?;
    let schemas = match &name.schema {
        Some(schema) => vec![schema.clone()],
        None => session.search_path.clone(),
    };
    let mut places = Vec::new();
    for row in session.query(LOCATE, &[&schemas, &name.table]).await? {
        let found = match row.try_get::<_, Option<u32>>(1)? {
            Some(oid) => Some(Found {
                oid,
                kind: row.try_get(2)?,
                // NULL if the table was dropped at this moment.
                empty: row.try_get::<_, Option<bool>>(3)?.unwrap_or(false),
            }),
            None => None,
        };
        places.push(Place { schema: row.try_get(0)?, table: name.table.clone(), found });
    }
    let at = places.iter().position(|place| place.found.is_some()).unwrap_or(0);
    if at < places.len() {
        return Ok(places.swap_remove(at));
    }
    let error = match &name.schema {
        Some(schema) => DeliveryError::target(
            "3F000",
            format!("schema {} does not exist on the server", quoted(schema)),
        )
        .hint(format!(
            "Run CREATE SCHEMA {}. coco creates tables, but not schemas.",
            quoted(schema)
        )),
        None => DeliveryError::target(
            "3F000",
            "the role has no schema on the server to create tables in",
        )
        .hint("Write the target as schema.table, or set the role's search_path on the server."),
    };
    Err(StatementError::Fatal(error))
}

async fn make(
    session: &Session,
    target_schema: &TargetSchema,
    place: &Place,
) -> Result<(), StatementError> {
    let mut definitions = Vec::new();
    for column in &target_schema.columns {
        definitions.push(format!(
            "{} {}",
            quoted(&column.name),
            remote_type_sql(session, column).await?
        ));
    }
    let key: Vec<String> = target_schema.key_columns().map(|c| quoted(&c.name)).collect();
    definitions.push(format!("primary key ({})", key.join(", ")));
    session.run(&format!("create table {} ({})", place.name(), definitions.join(", "))).await
}

/// Finds types with a name outside pg_catalog, and whether their binary form contains OIDs, which
/// have another meaning on another server.
const TYPES: &str = "
with recursive base (schema, root, oid, typtype, typcategory, typelem, typbasetype) as
  (select n.nspname::text, t.oid, t.oid, t.typtype, t.typcategory, t.typelem, t.typbasetype
     from pg_type t join pg_namespace n on n.oid = t.typnamespace
    where t.typname = $1::text and t.typtype <> 'p' and n.nspname <> 'pg_catalog'
   union all
   select b.schema, b.root, t.oid, t.typtype, t.typcategory, t.typelem, t.typbasetype
     from base b join pg_type t on t.oid = b.typbasetype
    where b.typtype = 'd')
select schema, bool_or(typtype = 'c' or typcategory = 'A' and typelem >= 16384)
  from base group by schema, root
 order by schema = $2::text desc, schema";

/// Returns the SQL of a column's type on the server.
async fn remote_type_sql(session: &Session, column: &Column) -> Result<String, StatementError> {
    if types::is_built_in(column) {
        return Ok(column.type_name.clone());
    }
    let bare = types::bare_name(column);
    let mut found = session.query(TYPES, &[&bare, &column.type_schema]).await?;
    if found.is_empty() && types::is_vector(column) {
        install_pgvector(session, column).await?;
        found = session.query(TYPES, &[&bare, &column.type_schema]).await?;
    }
    let Some(first) = found.first() else {
        return Err(StatementError::Fatal(
            no_such_type(column)
                .hint("Create the type on the server, or cast the column in the query."),
        ));
    };
    let schema: String = first.try_get(0)?;
    if found.len() > 1 && schema != column.type_schema {
        return Err(StatementError::Fatal(
            DeliveryError::target(
                "42725",
                format!("type {} exists in several schemas of the server", quoted(&bare)),
            )
            .hint("Create the table on the server yourself, with the intended type."),
        ));
    }
    if first.try_get(1)? {
        return Err(holds_oids(column));
    }
    Ok(format!("{}.{}", quoted(&schema), column.type_name))
}

async fn install_pgvector(session: &Session, column: &Column) -> Result<(), StatementError> {
    match session.run("create extension if not exists vector with schema public").await {
        // Another session has just created it.
        Err(fault) if fault.is("42710") || fault.is("23505") => Ok(()),
        Err(StatementError::Fatal(error))
            if error.scope == coco_core::change::ErrorScope::Target =>
        {
            Err(StatementError::Fatal(
                no_such_type(column)
                    .detail(format!("CREATE EXTENSION vector failed: {}.", error.message))
                    .hint(
                        "Install pgvector on the server, and run CREATE EXTENSION vector as a role \
                         with the privilege for it.",
                    ),
            ))
        }
        done => done,
    }
}

fn no_such_type(column: &Column) -> DeliveryError {
    let (name, of) = (&column.type_name, quoted(&column.name));
    DeliveryError::target(
        "42704",
        format!("type {name} of column {of} does not exist on the server"),
    )
}

fn holds_oids(column: &Column) -> StatementError {
    let (name, of) = (&column.type_name, quoted(&column.name));
    StatementError::Fatal(
        DeliveryError::target(
            "0A000",
            format!("column {of} has type {name}, whose values no other server understands"),
        )
        .detail("Its values contain OIDs of types, which differ between servers.")
        .hint("Cast the column in the query, for example to jsonb or text."),
    )
}

async fn examine(
    session: &Session,
    target_schema: &TargetSchema,
    place: &Place,
    found: &Found,
) -> Result<Table, StatementError> {
    if !matches!(found.kind.as_str(), "r" | "p") {
        return Err(StatementError::Fatal(
            DeliveryError::target(
                "42809",
                format!("{} on the server is not a table", place.name()),
            )
            .hint("Name a table, or a name that does not exist yet: coco then creates the table."),
        ));
    }
    let takes_copy = check_rights(session, place, found).await?;
    // Read before the columns, so that a later change is detected.
    let signature = session.value(&signature(found.oid)).await?;
    check_columns(session, target_schema, place, found).await?;
    Ok(Table {
        name: place.name(),
        oid: found.oid,
        columns: target_schema.columns.iter().map(|c| quoted(&c.name)).collect(),
        key: key(session, target_schema, place, found).await?,
        signature: signature.unwrap_or_default(),
        is_new: found.empty,
        is_partitioned: found.kind == "p",
        takes_copy,
    })
}

/// Returns a query for the parts of the definition that must not change while rows are written. A
/// binary COPY silently accepts the bytes of one type for another.
pub fn signature(oid: u32) -> String {
    format!(
        "select concat_ws(' ', n.nspname, c.relname, c.relkind,
                string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod,
                                     a.attcollation), ', ' order by a.attnum))
           from pg_class c
           join pg_namespace n on n.oid = c.relnamespace
           join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
          where c.oid = {oid} group by n.nspname, c.relname, c.relkind"
    )
}

const RIGHTS: &str = "
select has_table_privilege($1::oid, 'select') and has_table_privilege($1, 'insert')
       and has_table_privilege($1, 'update') and has_table_privilege($1, 'delete'),
       has_schema_privilege($2::text, 'usage'),
       has_database_privilege(current_database(), 'temp'),
       quote_ident(current_user), quote_ident(current_database()),
       row_security_active($1)";

/// Checks the role's privileges. Returns whether the table accepts COPY from the role.
async fn check_rights(
    session: &Session,
    place: &Place,
    found: &Found,
) -> Result<bool, StatementError> {
    let rows = session.query(RIGHTS, &[&found.oid, &place.schema]).await?;
    let Some(row) = rows.first() else { return Ok(false) };
    let (role, database): (String, String) = (row.try_get(3)?, row.try_get(4)?);
    let name = place.name();
    // NULL if the table was dropped at this moment.
    if row.try_get::<_, Option<bool>>(0)? != Some(true) {
        return Err(StatementError::Fatal(
            DeliveryError::target(
                "42501",
                format!("role {role} may not read and write table {name} on the server"),
            )
            .hint(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {role};")),
        ));
    }
    if !row.try_get(1)? {
        let schema = quoted(&place.schema);
        return Err(StatementError::Fatal(
            DeliveryError::target(
                "42501",
                format!("role {role} may not use schema {schema} on the server"),
            )
            .hint(format!("GRANT USAGE ON SCHEMA {schema} TO {role};")),
        ));
    }
    if !row.try_get(2)? {
        return Err(StatementError::Fatal(
            DeliveryError::server(
                "42501",
                format!(
                    "role {role} may not create temporary tables in database {database} on the \
                     server"
                ),
            )
            .detail("coco compares new and existing rows with a temporary table.")
            .hint(format!("GRANT TEMPORARY ON DATABASE {database} TO {role};")),
        ));
    }
    Ok(!row.try_get::<_, bool>(5)?)
}

/// The search path is only pg_catalog, so `format_type` qualifies all other types.
const COLUMNS: &str = "
select a.attname::text, n.nspname::text, quote_ident(n.nspname),
       format_type(a.atttypid, a.atttypmod), a.attnotnull,
       a.attgenerated <> '' or a.attidentity = 'a', a.atthasdef or a.attidentity <> '',
       (with recursive base as
          (select y.typtype, y.typcategory, y.typelem, y.typbasetype
           union all
           select z.typtype, z.typcategory, z.typelem, z.typbasetype
             from base b join pg_type z on z.oid = b.typbasetype
            where b.typtype = 'd')
        select bool_or(typtype = 'c' or typcategory = 'A' and typelem >= 16384) from base)
  from pg_attribute a
  join pg_type y on y.oid = a.atttypid
  join pg_namespace n on n.oid = y.typnamespace
 where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped
 order by a.attnum";

struct Attribute {
    name: String,
    remote_type: RemoteType,
    not_null: bool,
    generated: bool,
    has_default: bool,
    holds_oids: bool,
}

async fn check_columns(
    session: &Session,
    target_schema: &TargetSchema,
    place: &Place,
    found: &Found,
) -> Result<(), StatementError> {
    let mut attributes = Vec::new();
    for row in session.query(COLUMNS, &[&found.oid]).await? {
        let (prefix, name): (String, String) = (row.try_get(2)?, row.try_get(3)?);
        let bare = name.strip_prefix(&format!("{prefix}.")).unwrap_or(&name).to_owned();
        attributes.push(Attribute {
            name: row.try_get(0)?,
            remote_type: RemoteType { schema: row.try_get(1)?, name: bare },
            not_null: row.try_get(4)?,
            generated: row.try_get(5)?,
            has_default: row.try_get(6)?,
            holds_oids: row.try_get(7)?,
        });
    }
    for column in &target_schema.columns {
        if attributes
            .iter()
            .any(|a| a.name == column.name && a.remote_type.fits(column) && a.holds_oids)
        {
            return Err(holds_oids(column));
        }
    }
    let lacks = misfits(target_schema, &attributes);
    if lacks.is_empty() {
        return Ok(());
    }
    Err(StatementError::Fatal(
        DeliveryError::target("42804", format!("table {} on the server does not match the query's \
                                                columns", place.name()))
            .detail(format!("{}.", lacks.join("; ")))
            .hint("Alter the table, cast the columns in the query, or name a table that does not exist yet."),
    ))
}

/// Returns the reasons why a table cannot hold the target's rows.
fn misfits(target_schema: &TargetSchema, attributes: &[Attribute]) -> Vec<String> {
    let mut lacks = Vec::new();
    for (place, column) in target_schema.columns.iter().enumerate() {
        let name = quoted(&column.name);
        let wanted = &column.type_name;
        match attributes.iter().find(|a| a.name == column.name) {
            None => lacks.push(format!("It has no column {name} {wanted}")),
            Some(a) if !a.remote_type.fits(column) => {
                lacks.push(format!(
                    "Column {name} is {}, the query gives {wanted}",
                    a.remote_type.name
                ));
            }
            Some(a) if a.generated => lacks.push(format!("Column {name} is generated")),
            Some(a) if target_schema.is_key(place) && !a.not_null => {
                lacks.push(format!("Key column {name} is nullable"));
            }
            Some(_) => {}
        }
    }
    for a in attributes {
        let ours = target_schema.columns.iter().any(|c| c.name == a.name);
        if !ours && a.not_null && !a.has_default && !a.generated {
            let name = quoted(&a.name);
            lacks
                .push(format!("Column {name} is not null, has no default and is not in the query"));
        }
    }
    lacks
}

/// Finds a unique index on exactly these columns that ON CONFLICT accepts, and the equality
/// operator of each column.
const KEY: &str = "
select a.attname::text, format('operator(%I.%s)', n.nspname, o.oprname)
  from (select i.indrelid, i.indnkeyatts, i.indkey::int2[] as keys, i.indclass::oid[] as classes
          from pg_index i
         where i.indrelid = $1::oid and i.indisunique and i.indisvalid and i.indimmediate
           and i.indpred is null and i.indexprs is null
           and i.indnkeyatts = cardinality($2::text[])
           and not exists (select
                             from unnest(i.indkey::int2[]) with ordinality k (attnum, place)
                             left join pg_attribute a
                               on a.attrelid = i.indrelid and a.attnum = k.attnum
                              and a.attname = any ($2::text[])
                            where k.place <= i.indnkeyatts and a.attnum is null)
         order by i.indisprimary desc, i.indexrelid limit 1) i
 cross join lateral unnest(i.keys, i.classes) with ordinality k (attnum, class, place)
  join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
  join pg_opclass c on c.oid = k.class
  join pg_amop p on p.amopfamily = c.opcfamily and p.amoplefttype = c.opcintype
   and p.amoprighttype = c.opcintype and p.amopstrategy = 3 and p.amoppurpose = 's'
  join pg_operator o on o.oid = p.amopopr
  join pg_namespace n on n.oid = o.oprnamespace
 where k.place <= i.indnkeyatts";

async fn key(
    session: &Session,
    target_schema: &TargetSchema,
    place: &Place,
    found: &Found,
) -> Result<Vec<KeyColumn>, StatementError> {
    let wanted: Vec<&str> = target_schema.key_columns().map(|c| c.name.as_str()).collect();
    let mut operators = Vec::new();
    for row in session.query(KEY, &[&found.oid, &wanted]).await? {
        operators.push((row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?));
    }
    let key: Option<Vec<KeyColumn>> = wanted
        .iter()
        .map(|column| {
            let (name, equals) = operators.iter().find(|(name, _)| name == column)?;
            Some(KeyColumn { name: quoted(name), equals: equals.clone() })
        })
        .collect();
    key.filter(|key| !key.is_empty()).ok_or_else(|| {
        let name = place.name();
        let columns: Vec<String> = wanted.iter().map(|c| quoted(c)).collect();
        let columns = columns.join(", ");
        StatementError::Fatal(
            DeliveryError::target(
                "42P16",
                format!("table {name} on the server has no unique index on its key ({columns})"),
            )
            .detail(
                "The index must be on exactly these columns, and neither partial nor deferrable.",
            )
            .hint(format!("ALTER TABLE {name} ADD PRIMARY KEY ({columns});")),
        )
    })
}
