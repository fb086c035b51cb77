//! The columns of relations and of results, with their types.

use pgrx::pg_sys;

use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};

/// A column of a relation.
pub struct Attribute {
    pub column: Column,
    pub not_null: bool,
    pub has_default: bool,
    pub generated: bool,
}

const ATTRIBUTES: &str = "
select a.attname::text, a.atttypid, a.atttypmod, a.attcollation,
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       -- a constraint that is not validated does not cover existing rows
       a.attnotnull and not exists (
         select from pg_catalog.pg_constraint c
          where c.conrelid = a.attrelid and c.contype = 'n' and not c.convalidated
            and c.conkey operator(pg_catalog.@>) array[a.attnum]),
       a.atthasdef or a.attidentity <> '', a.attgenerated <> ''
  from pg_catalog.pg_attribute a
 where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
 order by a.attnum";

/// Returns the columns of a relation, in their order.
pub fn of_relation(relation: pg_sys::Oid) -> Result<Vec<Attribute>> {
    let _names = RoleGuard::qualifying_names()?;
    spi::select(ATTRIBUTES, &[arg(relation)], |r| {
        let type_oid = spi::required(r, 2)?;
        Ok(Attribute {
            column: Column {
                name: spi::required(r, 1)?,
                type_oid,
                typmod: spi::required(r, 3)?,
                collation: spi::required(r, 4)?,
                type_name: spi::required(r, 5)?,
                equals: equality_operator(type_oid)?,
                kept: keep(type_oid)?,
                nullable: None,
            },
            not_null: spi::required(r, 6)?,
            has_default: spi::required(r, 7)?,
            generated: spi::required(r, 8)?,
        })
    })
}

/// Returns the numbers and names of a relation's columns, in their order.
pub fn numbers(relation: pg_sys::Oid) -> Result<Vec<(i16, String)>> {
    spi::select(
        "select attnum, attname::text from pg_catalog.pg_attribute
          where attrelid operator(pg_catalog.=) $1 and attnum operator(pg_catalog.>) 0 and not attisdropped order by attnum",
        &[arg(relation)],
        |r| Ok((spi::required(r, 1)?, spi::required(r, 2)?)),
    )
}

/// Returns a column of a query's result.
pub fn result_column(
    name: String,
    type_oid: pg_sys::Oid,
    typmod: i32,
    collation: pg_sys::Oid,
) -> Result<Column> {
    let _names = RoleGuard::qualifying_names()?;
    let type_name = spi::type_name(type_oid, typmod)?;
    Ok(Column {
        name,
        type_oid,
        typmod,
        collation,
        type_name,
        equals: equality_operator(type_oid)?,
        kept: keep(type_oid)?,
        nullable: None,
    })
}

/// Returns the equality operator of a type's default btree operator class, schema-qualified.
fn equality_operator(type_oid: pg_sys::Oid) -> Result<Option<String>> {
    // SAFETY: type cache lookups within a transaction; the entry lives as long as the backend.
    let operator = unsafe {
        *pg_sys::lookup_type_cache(
            type_oid,
            (pg_sys::TYPECACHE_EQ_OPR | pg_sys::TYPECACHE_LT_OPR) as i32,
        )
    };
    if operator.lt_opr == pg_sys::InvalidOid || operator.eq_opr == pg_sys::InvalidOid {
        return Ok(None);
    }
    spi::scalar(
        "select pg_catalog.format('operator(%I.%s)', n.nspname, o.oprname)
           from pg_catalog.pg_operator o
           join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
          where o.oid = $1",
        &[arg(operator.eq_opr)],
    )
}

/// Returns ` collate …` for a column definition, or an empty string if the type has no collation.
pub fn collate(collation: pg_sys::Oid) -> Result<String> {
    let clause: Option<String> = spi::scalar(
        "select pg_catalog.format(' collate %I.%I', n.nspname, c.collname)
           from pg_catalog.pg_collation c
           join pg_catalog.pg_namespace n on n.oid = c.collnamespace
          where c.oid = $1",
        &[arg(collation)],
    )?;
    Ok(clause.unwrap_or_default())
}

/// Returns the form in which a table stores values of a type. Base types, which only a superuser
/// can create, and enums run no user's code. Neither do their arrays and PostgreSQL's built-in
/// ranges. A domain is stored as its base type.
pub fn keep(type_oid: pg_sys::Oid) -> Result<StoredType> {
    // SAFETY: lookups in the system catalogs, within a transaction.
    let base = unsafe { pg_sys::getBaseType(type_oid) };
    if !is_harmless(base, true) {
        return Ok(StoredType::Json);
    }
    if base == type_oid {
        return Ok(StoredType::Same);
    }
    let _names = RoleGuard::qualifying_names()?;
    Ok(StoredType::Base { type_oid: base, type_name: spi::type_name(base, -1)? })
}

/// Reports whether writing, comparing and copying values of a type runs no user's code.
fn is_harmless(type_oid: pg_sys::Oid, may_be_array: bool) -> bool {
    // SAFETY: lookups in the system catalogs, within a transaction.
    let (kind, element) =
        unsafe { (pg_sys::get_typtype(type_oid) as u8, pg_sys::get_element_type(type_oid)) };
    match kind {
        pg_sys::TYPTYPE_BASE if element != pg_sys::InvalidOid => {
            may_be_array && is_harmless(element, false)
        }
        pg_sys::TYPTYPE_BASE | pg_sys::TYPTYPE_ENUM => true,
        pg_sys::TYPTYPE_RANGE | pg_sys::TYPTYPE_MULTIRANGE => {
            type_oid.to_u32() < pg_sys::FirstNormalObjectId
        }
        _ => false,
    }
}

/// A column, with everything needed to declare and compare it.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub type_oid: pg_sys::Oid,
    pub typmod: i32,
    pub collation: pg_sys::Oid,
    /// The type's name in SQL, with its modifiers.
    pub type_name: String,
    /// The equality operator of the type's default btree operator class, as `operator(schema.=)`;
    /// `None` if the type has no such class.
    pub equals: Option<String>,
    pub kept: StoredType,
    /// Set for a column of a key that can be NULL: NULL is then a value like any other. Contains a
    /// cast to the base type, without modifiers, or nothing for a user's type.
    pub nullable: Option<String>,
}

/// The form in which coco's own tables store values of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum StoredType {
    Same,
    /// The base type, without modifiers, of a column whose type is a domain.
    Base {
        type_oid: pg_sys::Oid,
        type_name: String,
    },
    /// Text in JSON, because handling values of the type can run a user's code.
    Json,
}

impl Column {
    pub fn quoted(&self) -> String {
        spi::ident(&self.name)
    }

    /// Returns the column that stores its values in coco's own tables.
    pub fn stored(&self) -> Column {
        match &self.kept {
            StoredType::Same => self.clone(),
            StoredType::Base { type_oid, type_name } => Column {
                type_oid: *type_oid,
                typmod: -1,
                type_name: type_name.clone(),
                ..self.clone()
            },
            StoredType::Json => Column {
                type_oid: pg_sys::JSONOID,
                typmod: -1,
                collation: pg_sys::InvalidOid,
                type_name: "pg_catalog.json".to_owned(),
                equals: None,
                ..self.clone()
            },
        }
    }

    /// Returns an expression that converts a value of the column to its stored form. The flow's
    /// owner evaluates it.
    pub fn as_stored(&self, value: &str) -> String {
        match &self.kept {
            StoredType::Same => value.to_owned(),
            StoredType::Base { type_name, .. } => format!("({value})::{type_name}"),
            StoredType::Json => format!("pg_catalog.to_json({value})"),
        }
    }

    /// Makes NULL a value of the column like any other, for a column of a key.
    pub fn allow_null(&mut self) -> Result<()> {
        // SAFETY: a lookup in the system catalogs, within a transaction.
        let base = unsafe { pg_sys::getBaseType(self.type_oid) };
        self.nullable = match is_own_type(base) {
            // No cast: the name of a user's type may come to mean another type.
            false => Some(String::new()),
            true => spi::scalar(
                "select pg_catalog.format('::pg_catalog.%I', typname)
                   from pg_catalog.pg_type where oid operator(pg_catalog.=) $1",
                &[arg(base)],
            )?,
        };
        Ok(())
    }

    /// Reports whether [`all_equal`] can compare values of the column with NULL among them: its type
    /// has a hash function, and is neither an array nor a domain over a user's type.
    pub fn compares_null(&self) -> bool {
        // SAFETY: type cache and catalog lookups within a transaction; the cache's entry lives as
        // long as the backend.
        unsafe {
            let base = pg_sys::getBaseType(self.type_oid);
            let found = *pg_sys::lookup_type_cache(base, pg_sys::TYPECACHE_HASH_PROC as i32);
            found.hash_proc != pg_sys::InvalidOid
                && pg_sys::get_element_type(base) == pg_sys::InvalidOid
                && (base == self.type_oid || is_own_type(base))
        }
    }

    /// Returns `a = b` with a qualified operator, so that no search path affects it.
    pub fn equality(&self, a: &str, b: &str) -> String {
        // Declarations check that key types have an equality operator.
        let equals = self.equals.as_deref().unwrap_or("operator(pg_catalog.=)");
        format!("{a} {equals} {b}")
    }
}

/// Reports whether a type is PostgreSQL's own, so that no user can rename or replace it.
fn is_own_type(type_oid: pg_sys::Oid) -> bool {
    type_oid.to_u32() < pg_sys::FirstNormalObjectId
}

/// Returns the columns that store the values of these columns in coco's own tables.
pub fn stored(columns: &[Column]) -> Vec<Column> {
    columns.iter().map(Column::stored).collect()
}

/// Returns `prefix1, prefix2, …`, `count` names.
pub fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|i| format!("{prefix}{i}")).collect()
}

/// The largest number of nullable columns for which a condition on a key names each combination of
/// columns that are NULL: their number doubles with each column.
pub const MOST_NULLABLE: usize = 4;

/// Returns a condition that two lists of expressions are equal under the columns' operators. NULL
/// equals NULL in a nullable column.
///
/// No operator of PostgreSQL's compares in this way and also serves a hash join and an index. For
/// nullable columns, the condition therefore says the same twice: as arrays, which have equal
/// elements if both are NULL, for hash joins, and as a list of alternatives, for indexes.
pub fn all_equal(columns: &[Column], a: &[String], b: &[String]) -> String {
    let mut all = Vec::new();
    let (mut nullable, mut left, mut right) = (Vec::new(), Vec::new(), Vec::new());
    for (column, (a, b)) in columns.iter().zip(a.iter().zip(b)) {
        let Some(cast) = &column.nullable else {
            all.push(column.equality(a, b));
            continue;
        };
        all.push(format!("array[({a}){cast}] operator(pg_catalog.=) array[({b}){cast}]"));
        nullable.push(column.clone());
        left.push(a.clone());
        right.push(b.clone());
    }
    // One list of alternatives for all columns lets one index serve all of them.
    let step = if nullable.len() > MOST_NULLABLE { 1 } else { MOST_NULLABLE };
    for start in (0..nullable.len()).step_by(step) {
        let range = start..nullable.len().min(start + step);
        let alike = equal_by_nulls(&nullable[range.clone()], &left[range.clone()], &right[range]);
        let each: Vec<String> = alike.into_iter().map(|alike| alike.condition).collect();
        all.push(format!("({})", each.join(" or ")));
    }
    all.join(" and ")
}

/// One combination of the columns of a key that are NULL.
pub struct EqualKeys {
    /// The two keys are equal, and exactly the nullable columns of this combination are NULL.
    pub condition: String,
    /// The part of the condition that says that columns of the second key are NULL; `None`: none is.
    pub is_null: Option<String>,
}

/// Returns conditions of which one holds if two lists of expressions are equal, and otherwise none:
/// one for each combination of nullable columns that are NULL. The first one, of keys without NULL,
/// is a list of equalities. An index can serve each of them. At most [`MOST_NULLABLE`] columns are
/// nullable.
pub fn equal_by_nulls(columns: &[Column], a: &[String], b: &[String]) -> Vec<EqualKeys> {
    let nullable: Vec<usize> =
        (0..columns.len()).filter(|n| columns[*n].nullable.is_some()).collect();
    let one = |nulls: usize| {
        let is_null = |n: &usize| {
            nullable.iter().position(|other| other == n).is_some_and(|bit| nulls >> bit & 1 == 1)
        };
        let each: Vec<String> = (0..columns.len())
            .map(|n| match is_null(&n) {
                true => format!("{} is null and {} is null", a[n], b[n]),
                false => columns[n].equality(&a[n], &b[n]),
            })
            .collect();
        let nulls: Vec<String> =
            (0..columns.len()).filter(is_null).map(|n| format!("{} is null", b[n])).collect();
        EqualKeys {
            condition: each.join(" and "),
            is_null: (!nulls.is_empty()).then(|| nulls.join(" and ")),
        }
    };
    (0..1usize << nullable.len().min(MOST_NULLABLE)).map(one).collect()
}

/// Returns a condition that no expression of a key is NULL whose column is not nullable; `None` if
/// there is no such column.
pub fn all_known(columns: &[Column], values: &[String]) -> Option<String> {
    let known: Vec<String> = columns
        .iter()
        .zip(values)
        .filter(|(column, _)| column.nullable.is_none())
        .map(|(_, value)| format!("{value} is not null"))
        .collect();
    (!known.is_empty()).then(|| known.join(" and "))
}
