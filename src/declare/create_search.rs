//! `coco.create_search`: declares a flow that splits the texts of a table into chunks, with the words
//! and the vector of each, and creates what a search of these chunks needs: indexes, a policy and a
//! function.
//!
//! The flow is an ordinary one. Everything is created as the caller, who owns it.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::catalog::flow_rows;
use crate::catalog::search_rows::{self, SearchModel};
use crate::declare::add_source::SourceOptions;
use crate::declare::add_target::QueryCheck;
use crate::declare::alter_target::OptionsCheck;
use crate::declare::create_flow;
use crate::declare::declaration::{Declaration, FlowParts};
use crate::declare::derive_lookups::LookupMode;
use crate::declare::source_key;
use crate::declare::when_exists::WhenExists;
use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::pg::notice::notice;
use crate::pg::spi::{self, arg, ident, literal};

/// The largest numbers of dimensions that pgvector indexes: of vectors, and of their half-precision
/// form.
const INDEXED: i32 = 2000;
const INDEXED_AS_HALF: i32 = 4000;

/// Columns of the table of chunks, and parameters of the function. The key of the source has none of
/// these names.
const RESERVED: [&str; 8] =
    ["chunk_no", "chunk", "words", "embedding", "score", "query", "max_results", "mode"];

/// The arguments of `coco.create_search`.
pub struct NewSearch {
    pub name: String,
    pub source: pg_sys::Oid,
    /// The column with the texts or files.
    pub text: String,
    /// The foreign server and the model that embeds; `None`: words alone.
    pub model: Option<(String, String)>,
    pub dimensions: Option<i32>,
    /// What the model reads before each chunk, and before each query.
    pub text_prefix: Option<String>,
    pub query_prefix: Option<String>,
    pub size: i32,
    pub overlap: i32,
    pub language: Option<String>,
    /// The text search configuration.
    pub configuration: pg_sys::Oid,
    pub search_path: String,
    pub if_not_exists: bool,
}

/// Creates a search. For `announce`, see [`drop_flow`](crate::declare::drop_flow).
pub fn create_search(
    new: &NewSearch,
    check: QueryCheck,
    check_altered: OptionsCheck,
    announce: fn(),
) -> Result<()> {
    if new.if_not_exists && flow_rows::is_flow(&new.name)? {
        return create_flow::skip(&new.name);
    }
    let (schema, table) = spi::relation_parts(new.source)?;
    let source = spi::qualified(&schema, &table);
    let key = key_columns(new.source, &source)?;
    let model = new.model.as_ref().map(|(server, model)| known_model(new, server, model));
    let model = model.transpose()?;
    let vectors = model.as_ref().map(|_| pgvector()).transpose()?.map(|vector| vector.schema);
    let configuration = configuration_name(new.configuration)?;
    let query = Query { new, source: &source, key: &key, configuration: &configuration };
    let declaration = Declaration {
        flow: new.name.clone(),
        search_path: new.search_path.clone(),
        settings: None,
        lookups: Some(LookupMode::None),
        refresh: None,
        aggregate: None,
        fill_order: None,
        parts: Some(FlowParts {
            relation: new.source,
            source: SourceOptions::default(),
            query: query.text(model.as_ref().zip(vectors.as_deref()))?,
            target: ident(&new.name),
            key: key.iter().map(|c| c.name.clone()).chain(["chunk_no".to_owned()]).collect(),
            item: None,
            elsewhere: None,
        }),
        check,
        check_altered,
    };
    create_flow::create_flow(&declaration, WhenExists::Fail, announce)?;
    let table = search_rows::target_of(&new.name)?;
    let (schema, name) = spi::relation_parts(table)?;
    let name = spi::qualified(&schema, &name);
    let function = format!("{name}(text,integer,text)");
    let names: Vec<String> = key.iter().map(|column| column.name.clone()).collect();
    search_rows::insert(&new.name, &function, &names, &configuration, model.as_ref())?;
    let target = Target { table, name, source, key, search: &new.name };
    target.create_indexes(model.as_ref().zip(vectors.as_deref()))?;
    target.protect()?;
    target.create_function()
}

/// The query of the flow.
struct Query<'a> {
    new: &'a NewSearch,
    source: &'a str,
    key: &'a [Column],
    configuration: &'a str,
}

impl Query<'_> {
    fn text(&self, vectors: Option<(&SearchModel, &str)>) -> Result<String> {
        let keys: Vec<String> = self.key.iter().map(|c| format!("d.{}", c.quoted())).collect();
        let embedding = vectors.map(|(model, schema)| {
            let requested = model.requested.map(|n| format!(", {n}")).unwrap_or_default();
            let prefix = self.new.text_prefix.as_deref().map(literal);
            let prefix = prefix.map(|prefix| format!("{prefix} operator(pg_catalog.||) ")).unwrap_or_default();
            format!(
                ",\n       coco.embed({prefix}c.chunk, {}, {}{requested})::{schema}.vector({}) as embedding",
                literal(&model.server),
                literal(&model.model),
                model.dimensions
            )
        });
        Ok(format!(
            "select {}, c.n as chunk_no, c.chunk,\n       pg_catalog.to_tsvector({}::pg_catalog.regconfig, c.chunk) as words{}\n  from {} as d,\n       {} as c",
            keys.join(", "),
            literal(self.configuration),
            embedding.unwrap_or_default(),
            self.source,
            self.chunks()?
        ))
    }

    /// Returns the call that splits a text, or the text of a file.
    fn chunks(&self) -> Result<String> {
        let attributes = columns::of_relation(self.new.source)?;
        let found = attributes.iter().find(|a| a.column.name == self.new.text);
        let Some(attribute) = found else {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("column \"{}\" of {} does not exist", self.new.text, self.source),
            )
            .hint("Name the column of the source that has the texts with the argument \"text\"."));
        };
        let value = format!("d.{}", attribute.column.quoted());
        let text = match attribute.column.type_oid {
            pg_sys::TEXTOID => value,
            pg_sys::BYTEAOID => format!("coco.extract_text({value})"),
            _ => format!("{value}::pg_catalog.text"),
        };
        let (size, overlap) = (self.new.size, self.new.overlap);
        Ok(match self.new.language.as_deref() {
            None => format!("coco.split_text({text}, {size}, {overlap})"),
            Some(language @ ("plain" | "markdown")) => {
                format!("coco.split_text({text}, {size}, {overlap}, {})", literal(language))
            }
            Some(language) => {
                format!("coco.split_file({text}, {size}, {overlap}, {})", literal(language))
            }
        })
    }
}

/// The table of chunks.
struct Target<'a> {
    table: pg_sys::Oid,
    /// The qualified name.
    name: String,
    source: String,
    key: Vec<Column>,
    search: &'a str,
}

impl Target<'_> {
    /// Creates the indexes that the table lacks: it may be left of a search that was dropped.
    fn create_indexes(&self, vectors: Option<(&SearchModel, &str)>) -> Result<()> {
        self.create_index("gin", "words")?;
        let Some((model, schema)) = vectors else { return Ok(()) };
        match model.dimensions {
            ..=INDEXED => {
                self.create_index("hnsw", &format!("embedding {schema}.vector_cosine_ops"))
            }
            n @ ..=INDEXED_AS_HALF => self.create_index(
                "hnsw",
                &format!("(embedding::{schema}.halfvec({n})) {schema}.halfvec_cosine_ops"),
            ),
            n => {
                notice(format!(
                    "the vectors have {n} dimensions, and pgvector indexes at most {INDEXED_AS_HALF}: a search reads all of them"
                ));
                Ok(())
            }
        }
    }

    fn create_index(&self, method: &str, indexed: &str) -> Result<()> {
        let exists = spi::scalar::<bool>(
            "select exists (select from pg_catalog.pg_index i
                              join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) i.indexrelid
                              join pg_catalog.pg_am a on a.oid operator(pg_catalog.=) c.relam
                             where i.indrelid operator(pg_catalog.=) $1 and a.amname operator(pg_catalog.=) $2)",
            &[arg(self.table), arg(method)],
        )?;
        if exists != Some(true) {
            let sql = format!("create index on {} using {method} ({indexed})", self.name);
            spi::execute(&sql, &[])?;
        }
        Ok(())
    }

    /// Lets other roles see only the chunks of source rows that they may see.
    fn protect(&self) -> Result<()> {
        let same: Vec<String> = self
            .key
            .iter()
            .map(|c| {
                c.equality(&format!("s.{}", c.quoted()), &format!("{}.{}", self.name, c.quoted()))
            })
            .collect();
        for statement in [
            format!("alter table {} enable row level security", self.name),
            format!("drop policy if exists coco_source on {}", self.name),
            format!(
                "create policy coco_source on {} for select using (exists (select from {} as s where {}))",
                self.name,
                self.source,
                same.join(" and ")
            ),
        ] {
            spi::execute(&statement, &[])?;
        }
        Ok(())
    }

    fn create_function(&self) -> Result<()> {
        let typed: Vec<String> =
            self.key.iter().map(|c| format!("{} {}", c.quoted(), c.type_name)).collect();
        let values: Vec<String> = self
            .key
            .iter()
            .map(|c| {
                format!(
                    "(m.source_key operator(pg_catalog.->>) {})::{}",
                    literal(&c.name),
                    c.type_name
                )
            })
            .collect();
        let body = format!(
            "select {}, m.chunk_no, m.chunk, m.score from coco.search({}, query, max_results, mode) as m",
            values.join(", "),
            literal(self.search)
        );
        let function = format!("{}(text, int, text)", self.name);
        for statement in [
            format!(
                "create function {}(query text, max_results int default 10, mode text default 'hybrid')
                 returns table ({}, chunk_no int, chunk text, score float8)
                 language sql volatile rows 10 as {}",
                self.name,
                typed.join(", "),
                literal(&body)
            ),
            format!("revoke all on function {function} from public"),
            format!(
                "comment on function {function} is {}",
                literal(&format!(
                    "Searches the chunks of {}. See coco.search. Created by coco.create_search.",
                    self.source
                ))
            ),
        ] {
            spi::execute(&statement, &[])?;
        }
        Ok(())
    }
}

/// Returns the columns of the source's primary key.
fn key_columns(relation: pg_sys::Oid, shown: &str) -> Result<Vec<Column>> {
    let Some(names) = source_key::primary_key(relation)? else {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("{shown} has no primary key"),
        )
        .hint("Add a primary key. For a view or a foreign table, declare a flow with coco.create_flow."));
    };
    if let Some(name) = names.iter().find(|name| RESERVED.contains(&name.as_str())) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_COLUMN,
            format!("the key column \"{name}\" has a name that the search uses itself"),
        )
        .hint(
            "Rename the column, or declare a flow over a view of the table with coco.create_flow.",
        ));
    }
    let attributes = columns::of_relation(relation)?;
    let column = |name: &String| {
        let found = attributes.iter().find(|a| a.column.name == *name);
        found.map(|a| a.column.clone()).ok_or_else(|| Error::internal("a key column is missing"))
    };
    names.iter().map(column).collect()
}

/// Returns the model, which embeds a word if its number of dimensions is not given.
fn known_model(new: &NewSearch, server: &str, model: &str) -> Result<SearchModel> {
    let dimensions = match new.dimensions {
        Some(dimensions) => dimensions,
        None => {
            let sql = "select pg_catalog.cardinality(coco.embed('dimensions', $1, $2))";
            spi::scalar::<i32>(sql, &[arg(server), arg(model)])?
                .ok_or_else(|| Error::internal("an embedding is NULL"))?
        }
    };
    if dimensions < 1 {
        return Err(Error::invalid(format!(
            "argument \"dimensions\" ({dimensions}) must be greater than 0"
        )));
    }
    Ok(SearchModel {
        server: server.to_owned(),
        model: model.to_owned(),
        requested: new.dimensions,
        dimensions,
        query_prefix: new.query_prefix.clone(),
    })
}

/// The extension vector in this database.
pub struct PgVector {
    /// The schema of its types, quoted.
    pub schema: String,
    /// Whether an index scan can go on until it has enough rows: since version 0.8.
    pub scans_iteratively: bool,
}

/// Returns the extension vector.
pub fn pgvector() -> Result<PgVector> {
    let found = spi::select(
        "select pg_catalog.quote_ident(n.nspname),
                pg_catalog.string_to_array(pg_catalog.substring(e.extversion, '^[0-9]+[.][0-9]+'), '.')::pg_catalog.int4[]
                  operator(pg_catalog.>=) array[0, 8]
           from pg_catalog.pg_extension e
           join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) e.extnamespace
          where e.extname operator(pg_catalog.=) 'vector'",
        &[],
        |r| {
            let scans_iteratively = r.get(2)?.unwrap_or(false);
            Ok(PgVector { schema: spi::required(r, 1)?, scans_iteratively })
        },
    )?;
    found.into_iter().next().ok_or_else(|| {
        Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            "a search by vectors needs the extension vector",
        )
        .hint("Create it with CREATE EXTENSION vector; or omit the arguments \"server\" and \"model\" to search for words alone.")
    })
}

fn configuration_name(configuration: pg_sys::Oid) -> Result<String> {
    let sql = "select pg_catalog.format('%I.%I', n.nspname, c.cfgname)
                 from pg_catalog.pg_ts_config c
                 join pg_catalog.pg_namespace n on n.oid = c.cfgnamespace where c.oid = $1";
    spi::scalar(sql, &[arg(configuration)])?.ok_or_else(|| {
        Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("text search configuration {} does not exist", configuration.to_u32()),
        )
    })
}
