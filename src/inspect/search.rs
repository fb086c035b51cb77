//! `coco.search`: finds the chunks that fit a query by words, by vectors, or by both.
//!
//! The flow's owner ranks the chunks, so that indexes serve every caller: row-level security would
//! keep them from being used. The policies of the table then decide which of these chunks the caller
//! sees. No caller learns about a chunk that the policies hide.

use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::catalog::search_rows::{self, Search, SearchModel};
use crate::declare::create_search::{PgVector, pgvector};
use crate::pg::acting_role::{RoleGuard, SavedGucs};
use crate::pg::error::{Error, Result};
use crate::pg::json::{self, Json};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg, ident, literal};
use coco_core::rank_fusion;

/// How many chunks a ranking has at first, at least, and how many at most: if the caller may see too
/// few of them, the rankings grow.
const FIRST: i64 = 50;
const LARGEST: i64 = 12_800;
const GROWTH: i64 = 4;

/// The largest value of `hnsw.ef_search`.
const LARGEST_SCAN: i64 = 1000;

/// The largest number of results.
const RESULTS: i32 = 1000;

/// Embeddings of queries that a session keeps, and for how long.
const KEPT: usize = 100;
const KEPT_FOR: Duration = Duration::from_secs(600);

/// What a search ranks by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SearchMode {
    Words,
    Vectors,
    /// Both, fused into one ranking.
    Hybrid,
}

impl SearchMode {
    pub fn from_argument(mode: &str) -> Result<SearchMode> {
        match mode {
            "words" => Ok(SearchMode::Words),
            "vectors" => Ok(SearchMode::Vectors),
            "hybrid" => Ok(SearchMode::Hybrid),
            other => Err(Error::invalid(format!(
                "unrecognized value for argument \"mode\": \"{other}\""
            ))
            .hint("Valid values are hybrid (the default), words and vectors.")),
        }
    }
}

/// A chunk that was found.
pub struct FoundChunk {
    /// The key of the row in the source, as a JSON object.
    pub source_key: Json,
    pub chunk_no: i32,
    pub chunk: String,
    pub score: f64,
}

/// Returns the chunks that fit a query best, best first.
pub fn search(
    name: &str,
    query: &str,
    max_results: i32,
    mode: SearchMode,
) -> Result<Vec<FoundChunk>> {
    if !(1..=RESULTS).contains(&max_results) {
        return Err(Error::invalid(format!(
            "argument \"max_results\" ({max_results}) must be between 1 and {RESULTS}"
        )));
    }
    let search = search_rows::find(name)?;
    let target = readable_target(name, &search)?;
    let wanted = max_results as usize;
    let (ranks_words, ranks_vectors) = match (mode, &search.model) {
        (SearchMode::Vectors, None) => return Err(without_vectors(name)),
        (SearchMode::Words, _) | (SearchMode::Hybrid, None) => (true, false),
        (SearchMode::Vectors, Some(_)) => (false, true),
        (SearchMode::Hybrid, Some(_)) => (true, true),
    };
    let vector = match search.model.as_ref().filter(|_| ranks_vectors) {
        Some(model) => Some((embedding(&search, model, query)?, model)),
        None => None,
    };
    let _snapshot = PinnedSnapshot::take();
    let mut limit = FIRST.max(i64::from(max_results) * 2);
    loop {
        pgrx::check_for_interrupts!();
        let mut rankings = Vec::new();
        if ranks_words {
            rankings.push(rank_by_words(&search, &target, query, limit)?);
        }
        if let Some((vector, model)) = &vector {
            rankings.push(rank_by_vectors(&search, &target, vector, model, limit)?);
        }
        let is_all = rankings.iter().all(|ranking| (ranking.len() as i64) < limit);
        let visible = visible(&search, &target, &rankings)?;
        if visible.len() >= wanted || is_all || limit >= LARGEST {
            return Ok(fuse(rankings, visible, wanted));
        }
        limit = (limit * GROWTH).min(LARGEST);
    }
}

/// Returns the quoted name of the table of chunks, if the caller may read it.
fn readable_target(name: &str, search: &Search) -> Result<String> {
    let may_read = |target: pg_sys::Oid| {
        let sql = "select pg_catalog.has_table_privilege($1::pg_catalog.oid, 'select')";
        Ok::<bool, Error>(spi::scalar::<bool>(sql, &[arg(target)])? == Some(true))
    };
    let target = search.target.ok_or_else(|| {
        Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("the table of search \"{name}\" does not exist"),
        )
        .hint("Call coco.update to create and fill it again.")
    })?;
    if !may_read(target)? {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for search \"{name}\""),
        )
        .hint("Ask the owner for SELECT on the table of the search, and on the source."));
    }
    let (schema, table) = spi::relation_parts(target)?;
    Ok(spi::qualified(&schema, &table))
}

fn without_vectors(name: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("search \"{name}\" has no vectors"),
    )
    .hint("Use mode 'words', or create the search with the arguments \"server\" and \"model\".")
}

/// Acts as the owner of a search. The statements below contain nothing but qualified names.
fn as_owner(search: &Search) -> Result<RoleGuard> {
    RoleGuard::flow_owner(search.owner, &SavedGucs::qualifying())
}

/// Returns the places of chunks that contain all words of a query, best first, and then of those
/// that contain some of them. A query with operators ("…", -) means what it says, so nothing follows.
fn rank_by_words(search: &Search, target: &str, query: &str, limit: i64) -> Result<Vec<String>> {
    let _as = as_owner(search)?;
    let configuration = format!("{}::pg_catalog.regconfig", literal(&search.configuration));
    let ranked = |condition: &str, parsed: &str| {
        format!(
            "select t.ctid::pg_catalog.text
               from {target} as t, (select {parsed}) as p (q)
              where t.words operator(pg_catalog.@@) p.q {condition}
              order by pg_catalog.ts_rank_cd(t.words, p.q) desc, t.ctid limit $2"
        )
    };
    let read = |sql: &str, limit: i64| {
        spi::select(sql, &[arg(query), arg(limit)], |r| spi::required::<String>(r, 1))
    };
    let all = format!("pg_catalog.websearch_to_tsquery({configuration}, $1)");
    let mut found = read(&ranked("", &all), limit)?;
    if found.len() as i64 >= limit {
        return Ok(found);
    }
    let is_plain = format!("select {all}::pg_catalog.text operator(pg_catalog.!~) '[!<|]'");
    if spi::scalar::<bool>(&is_plain, &[arg(query)])? != Some(true) {
        return Ok(found);
    }
    let some = format!(
        "pg_catalog.replace(pg_catalog.plainto_tsquery({configuration}, $1)::pg_catalog.text, ' & ', ' | ')::pg_catalog.tsquery"
    );
    let without_all = format!("and not t.words operator(pg_catalog.@@) {all}");
    found.extend(read(&ranked(&without_all, &some), limit - found.len() as i64)?);
    Ok(found)
}

/// Returns the places of the chunks with the nearest vectors, nearest first.
fn rank_by_vectors(
    search: &Search,
    target: &str,
    vector: &[f32],
    model: &SearchModel,
    limit: i64,
) -> Result<Vec<String>> {
    let PgVector { schema, scans_iteratively } = pgvector()?;
    let acting = as_owner(search)?;
    // An index scan returns at most hnsw.ef_search rows, unless it goes on with another scan.
    acting.set("hnsw.ef_search", &limit.min(LARGEST_SCAN).to_string())?;
    if scans_iteratively {
        acting.set("hnsw.iterative_scan", "strict_order")?;
    }
    let n = model.dimensions;
    let (stored, given) = match n {
        2001..=4000 => (
            format!("t.embedding::{schema}.halfvec({n})"),
            format!("$1::pg_catalog.float4[]::{schema}.vector({n})::{schema}.halfvec({n})"),
        ),
        _ => ("t.embedding".to_owned(), format!("$1::pg_catalog.float4[]::{schema}.vector({n})")),
    };
    spi::select(
        &format!(
            "select t.ctid::pg_catalog.text from {target} as t
              order by {stored} operator({schema}.<=>) {given} limit $2"
        ),
        &[arg(vector.to_vec()), arg(limit)],
        |r| spi::required::<String>(r, 1),
    )
}

/// Returns the chunks at these places that the caller sees. As the caller, coco only asks which places
/// are visible; the owner reads the values, because converting them can run code of the owner's.
fn visible(
    search: &Search,
    target: &str,
    rankings: &[Vec<String>],
) -> Result<HashMap<String, FoundChunk>> {
    let at_places = "t.ctid operator(pg_catalog.=) any ($1::pg_catalog.text[]::pg_catalog.tid[])";
    let places: BTreeSet<&str> = rankings.iter().flatten().map(String::as_str).collect();
    let places = spi::select(
        &format!("select t.ctid::pg_catalog.text from {target} as t where {at_places}"),
        &[arg(places.into_iter().collect::<Vec<&str>>())],
        |r| spi::required::<String>(r, 1),
    )?;
    let _as = as_owner(search)?;
    let key = json::object_sql(search.key.iter().map(|k| (k.as_str(), format!("t.{}", ident(k)))));
    let rows = spi::select(
        &format!(
            "select t.ctid::pg_catalog.text, {key}, t.chunk_no, t.chunk
               from {target} as t where {at_places}"
        ),
        &[arg(places)],
        |r| {
            let chunk = FoundChunk {
                source_key: spi::required(r, 2)?,
                chunk_no: spi::required(r, 3)?,
                chunk: spi::required(r, 4)?,
                score: 0.0,
            };
            Ok((spi::required::<String>(r, 1)?, chunk))
        },
    )?;
    Ok(rows.into_iter().collect())
}

/// Fuses the rankings of the chunks that the caller sees. The others have no place in a ranking,
/// because scores would otherwise tell of them.
fn fuse(
    mut rankings: Vec<Vec<String>>,
    mut visible: HashMap<String, FoundChunk>,
    wanted: usize,
) -> Vec<FoundChunk> {
    rankings.iter_mut().for_each(|ranking| ranking.retain(|place| visible.contains_key(place)));
    let fused = rank_fusion::fuse(&rankings);
    let chunk = |(place, score)| Some(FoundChunk { score, ..visible.remove(&place)? });
    fused.into_iter().take(wanted).filter_map(chunk).collect()
}

/// The embedding of a query, which a session keeps for a while.
struct KeptEmbedding {
    flow: i32,
    model: (String, String, i32),
    query: String,
    vector: Vec<f32>,
    made: Instant,
}

thread_local! {
    static EMBEDDINGS: RefCell<VecDeque<KeptEmbedding>> = const { RefCell::new(VecDeque::new()) };
}

/// Returns the embedding of a query, which the owner of the search asks the model for.
fn embedding(search: &Search, model: &SearchModel, query: &str) -> Result<Vec<f32>> {
    let key = (model.server.clone(), model.model.clone(), model.dimensions);
    let known = EMBEDDINGS.with_borrow_mut(|all| {
        all.retain(|kept| kept.made.elapsed() < KEPT_FOR);
        let fits = |kept: &&KeptEmbedding| {
            kept.flow == search.flow && kept.query == query && kept.model == key
        };
        all.iter().find(fits).map(|kept| kept.vector.clone())
    });
    if let Some(vector) = known {
        return Ok(vector);
    }
    let input = format!("{}{query}", model.query_prefix.as_deref().unwrap_or_default());
    let acting = as_owner(search)?;
    let vector = spi::scalar::<Vec<f32>>(
        "select coco.embed($1, $2, $3, $4)",
        &[arg(input), arg(key.0.as_str()), arg(key.1.as_str()), arg(model.requested)],
    )?
    .ok_or_else(|| Error::internal("an embedding is NULL"))?;
    drop(acting);
    if vector.len() != model.dimensions as usize {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
            format!(
                "model {} returned {} dimensions, but the search has vectors of {}",
                model.model,
                vector.len(),
                model.dimensions
            ),
        )
        .hint("Drop the flow of the search with coco.drop_flow, and create the search again."));
    }
    let made = Instant::now();
    let kept = KeptEmbedding {
        flow: search.flow,
        model: key,
        query: query.to_owned(),
        vector: vector.clone(),
        made,
    };
    EMBEDDINGS.with_borrow_mut(|all| {
        if all.len() >= KEPT {
            all.pop_front();
        }
        all.push_back(kept);
    });
    Ok(vector)
}
