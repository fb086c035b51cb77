//! Holds the rooms of `src/`: imports go down only, no file is in a circle, and SQL, `unsafe` and public names are where
//! they may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// The rooms from top to bottom. A room may import from the lines below its own, and from itself.
const ORDER: [&[&str]; 10] = [
    &["sql_api"],
    &["workers"],
    &["inspect"],
    &["declare"],
    &["update"],
    &["flows"],
    &["memo", "outbox"],
    &["query", "capture"],
    &["catalog"],
    &["pg"],
];

/// Rooms that have no SQL: what they need of the database they call below.
const WITHOUT_SQL: [&str; 2] = ["sql_api", "workers"];

/// How a statement begins.
const SQL: [&str; 9] = [
    "select ",
    "insert into ",
    "update ",
    "delete from ",
    "with ",
    "create ",
    "alter ",
    "drop ",
    "truncate ",
];

/// Files that may have `unsafe` code.
const UNSAFE: &str = include_str!("rooms/unsafe.txt");

/// A file of `src/` that belongs to a room: its modules, and what is in it.
struct Source {
    /// `["pg", "spi"]` for `src/pg/spi.rs`.
    module: Vec<String>,
    code: syn::File,
}

impl Source {
    fn name(&self) -> String {
        self.module.join("/")
    }

    fn room(&self) -> &str {
        &self.module[0]
    }
}

/// What is found in a file, but for its tests.
#[derive(Default)]
struct Found {
    /// Paths that begin at the crate, without `crate`.
    paths: BTreeSet<Vec<String>>,
    /// Texts that begin as a statement does.
    statements: Vec<String>,
    has_unsafe: bool,
    public_types: Vec<String>,
}

impl Found {
    fn in_file(source: &Source) -> Found {
        let mut found = Walk { module: source.module.clone(), found: Found::default() };
        found.visit_file(&source.code);
        found.found
    }
}

struct Walk {
    module: Vec<String>,
    found: Found,
}

impl Walk {
    /// Notes a path that begins with `crate`, `super` or `self`.
    fn path(&mut self, segments: &[String]) {
        let mut at = match segments.first().map(String::as_str) {
            Some("crate") => vec![],
            Some("self" | "super") => self.module.clone(),
            _ => return,
        };
        for segment in segments {
            match segment.as_str() {
                "crate" | "self" => {}
                "super" => drop(at.pop()),
                name => at.push(name.to_owned()),
            }
        }
        self.found.paths.insert(at);
    }

    fn use_tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.use_tree(&path.tree, &with(&path.ident)),
            syn::UseTree::Name(name) => self.path(&with(&name.ident)),
            syn::UseTree::Rename(rename) => self.path(&with(&rename.ident)),
            syn::UseTree::Glob(_) => self.path(before),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|item| self.use_tree(item, before));
            }
        }
    }

    fn text(&mut self, text: &str) {
        let start = text.trim_start().to_lowercase();
        if SQL.iter().any(|sql| start.starts_with(sql)) && start.contains(['\n', '=', '(', '.']) {
            self.found.statements.push(text.chars().take(60).collect());
        }
    }

    /// The paths, texts and `unsafe` within a macro's tokens.
    fn tokens(&mut self, tokens: proc_macro2::TokenStream) {
        let mut path: Vec<String> = vec![];
        let mut colons = 0;
        for token in tokens {
            match token {
                proc_macro2::TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.path(&path);
                        path.clear();
                    }
                    self.found.has_unsafe |= ident == "unsafe";
                    path.push(ident.to_string());
                    colons = 0;
                }
                proc_macro2::TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                proc_macro2::TokenTree::Group(group) => {
                    self.path(&path);
                    path.clear();
                    self.tokens(group.stream());
                }
                proc_macro2::TokenTree::Literal(literal) => {
                    if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                        self.text(&text.value());
                    }
                }
                proc_macro2::TokenTree::Punct(_) => {
                    self.path(&path);
                    path.clear();
                }
            }
        }
        self.path(&path);
    }

    fn public(&mut self, visibility: &syn::Visibility, ident: &syn::Ident) {
        if !matches!(visibility, syn::Visibility::Inherited) {
            self.found.public_types.push(ident.to_string());
        }
    }
}

/// Whether an item is compiled for tests alone.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("test")
            || a.path().is_ident("cfg")
                && a.meta.require_list().is_ok_and(|l| l.tokens.to_string().contains("test"))
    })
}

impl<'a> Visit<'a> for Walk {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        if !is_test(&item.attrs) {
            self.found.has_unsafe |= item.sig.unsafety.is_some();
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.use_tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.path(&segments);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'a syn::Macro) {
        self.tokens(called.tokens.clone());
    }

    fn visit_lit_str(&mut self, text: &'a syn::LitStr) {
        self.text(&text.value());
    }

    fn visit_attribute(&mut self, _: &'a syn::Attribute) {}

    fn visit_expr_unsafe(&mut self, block: &'a syn::ExprUnsafe) {
        self.found.has_unsafe = true;
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        self.found.has_unsafe |= item.unsafety.is_some();
        visit::visit_item_impl(self, item);
    }

    fn visit_item_foreign_mod(&mut self, item: &'a syn::ItemForeignMod) {
        self.found.has_unsafe = true;
        visit::visit_item_foreign_mod(self, item);
    }

    fn visit_item_struct(&mut self, item: &'a syn::ItemStruct) {
        self.public(&item.vis, &item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'a syn::ItemEnum) {
        self.public(&item.vis, &item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'a syn::ItemTrait) {
        self.public(&item.vis, &item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'a syn::ItemType) {
        self.public(&item.vis, &item.ident);
        visit::visit_item_type(self, item);
    }
}

/// All files of the rooms.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = vec![];
    for room in ORDER.concat() {
        read_folder(&root.join(room), &root, &mut sources);
    }
    assert!(sources.len() > 100, "the rooms were found");
    sources
}

fn read_folder(folder: &Path, root: &Path, sources: &mut Vec<Source>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("a readable folder").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read_folder(&path, root, sources);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let code = fs::read_to_string(&path).expect("a readable file");
            sources.push(source(path.strip_prefix(root).expect("a file of src"), &code));
        }
    }
}

fn source(path: &Path, code: &str) -> Source {
    let mut module: Vec<String> =
        path.with_extension("").iter().map(|p| p.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|m| m == "mod") {
        module.pop();
    }
    let code = syn::parse_file(code).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Source { module, code }
}

/// Which file imports from which, by their names.
fn imports(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let names: BTreeSet<&Vec<String>> = sources.iter().map(|s| &s.module).collect();
    let mut imports = BTreeMap::new();
    for source in sources {
        let mut from = BTreeSet::new();
        for path in Found::in_file(source).paths {
            // The longest part of the path that is a file.
            let file =
                (1..=path.len()).rev().map(|n| path[..n].to_vec()).find(|p| names.contains(p));
            from.extend(file.filter(|f| *f != source.module).map(|f| f.join("/")));
        }
        imports.insert(source.name(), from);
    }
    imports
}

fn line_of(room: &str) -> usize {
    ORDER.iter().position(|line| line.contains(&room)).unwrap_or_else(|| panic!("room {room}"))
}

/// Imports that do not go down.
fn upward(imports: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let room = |file: &str| file.split('/').next().unwrap_or_default().to_owned();
    let mut wrong = vec![];
    for (file, from) in imports {
        for other in from {
            let (above, below) = (room(file), room(other));
            if above != below && line_of(&above) >= line_of(&below) {
                wrong.push(format!("{file} imports from {other}, which is not below it"));
            }
        }
    }
    wrong
}

/// A circle of imports, as the files on its way.
fn circle(imports: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(
        file: &str,
        imports: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(at) = way.iter().position(|w| w == file) {
            return Some([&way[at..], &[file.to_owned()]].concat());
        }
        if done.contains(file) {
            return None;
        }
        way.push(file.to_owned());
        let found =
            imports.get(file).into_iter().flatten().find_map(|f| walk(f, imports, way, done));
        way.pop();
        done.insert(file.to_owned());
        found
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|file| walk(file, imports, &mut vec![], &mut done))
}

/// Public types of one name.
fn twice(sources: &[Source]) -> Vec<String> {
    let mut files = BTreeMap::<String, Vec<String>>::new();
    for source in sources {
        for name in Found::in_file(source).public_types {
            files.entry(name).or_default().push(source.name());
        }
    }
    let several = files.into_iter().filter(|(_, files)| files.len() > 1);
    several.map(|(name, files)| format!("{name} is public in {}", files.join(" and "))).collect()
}

#[test]
fn imports_go_down_only() {
    let wrong = upward(&imports(&sources()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The guarded functions of a file that it calls by their names.
fn direct_calls(source: &Source) -> Vec<String> {
    #[derive(Default)]
    struct Calls {
        guarded: BTreeSet<String>,
        called: BTreeSet<String>,
    }
    impl<'ast> Visit<'ast> for Calls {
        fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
            let is_guard = |a: &syn::Attribute| {
                a.path().segments.last().is_some_and(|last| last.ident == "pg_guard")
            };
            if item.attrs.iter().any(is_guard) {
                self.guarded.insert(item.sig.ident.to_string());
            }
            visit::visit_item_fn(self, item);
        }

        fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
            if let syn::Expr::Path(path) = &*call.func
                && let Some(name) = path.path.get_ident()
            {
                self.called.insert(name.to_string());
            }
            visit::visit_expr_call(self, call);
        }
    }
    let mut calls = Calls::default();
    calls.visit_file(&source.code);
    let both = calls.guarded.intersection(&calls.called);
    both.map(|name| format!("{} calls {name}", source.name())).collect()
}

#[test]
fn no_file_is_in_a_circle_of_imports() {
    let found = circle(&imports(&sources()));
    assert_eq!(found.map(|c| c.join(" -> ")), None);
}

#[test]
fn sql_is_not_in_the_rooms_without_it() {
    let mut wrong = vec![];
    for source in sources().iter().filter(|s| WITHOUT_SQL.contains(&s.room())) {
        let statements = Found::in_file(source).statements;
        wrong.extend(statements.into_iter().map(|sql| format!("{}: {sql}", source.name())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// In both directions, so that the list gets shorter when a file does.
#[test]
fn unsafe_code_is_in_the_listed_files_alone() {
    let listed: BTreeSet<String> =
        UNSAFE.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect();
    let sources = sources();
    let have = sources.iter().filter(|s| Found::in_file(s).has_unsafe).map(Source::name);
    assert_eq!(have.collect::<BTreeSet<_>>(), listed);
}

#[test]
fn a_public_type_has_a_name_of_its_own() {
    let wrong = twice(&sources());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A function that Postgres calls raises its errors as C code does: see `query/walker`.
#[test]
fn functions_that_postgres_calls_are_not_called_directly() {
    let wrong: Vec<String> = sources().iter().flat_map(direct_calls).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each of the tests above can fail.
#[test]
fn what_is_forbidden_is_found() {
    let file = |path: &str, code: &str| source(Path::new(path), code);
    let down = [
        file("update/mod.rs", "pub mod run; use crate::pg::{spi, error::Error};"),
        file("update/run.rs", "fn f() { crate::catalog::locks::g() }"),
        file("pg/spi.rs", "#[cfg(test)] mod tests { use crate::update::run; }"),
        file("pg/error.rs", "pub struct Error;"),
        file("catalog/locks.rs", "pub fn g() {}"),
    ];
    assert_eq!((upward(&imports(&down)), circle(&imports(&down))), (vec![], None));
    let up = [
        file(
            "pg/spi.rs",
            "pub struct Spi; fn f() { let _ = format!(\"{}\", crate::update::run::X); }",
        ),
        file("update/run.rs", "use super::other; pub struct Spi;"),
        file("update/other.rs", "use crate::update::run::{self, Y}; fn f() { unsafe { g() } }"),
        file("workers/a.rs", "fn f() { execute(\"select 1 from t where a = 1\") }"),
        file("inspect/b.rs", "use crate::workers::a;"),
    ];
    assert_eq!(
        upward(&imports(&up)),
        [
            "inspect/b imports from workers/a, which is not below it",
            "pg/spi imports from update/run, which is not below it",
        ]
    );
    assert_eq!(
        circle(&imports(&up)).map(|c| c.join(" -> ")).as_deref(),
        Some("update/run -> update/other -> update/run")
    );
    assert_eq!(twice(&up), ["Spi is public in pg/spi and update/run"]);
    let found: Vec<Found> = up.iter().map(Found::in_file).collect();
    assert_eq!(
        found.iter().map(|f| f.has_unsafe).collect::<Vec<_>>(),
        [false, false, true, false, false]
    );
    assert_eq!(found[3].statements.len(), 1);
    let guarded = "#[pgrx::pg_guard] unsafe extern \"C-unwind\" fn look() {}";
    let direct =
        file("query/c.rs", &format!("{guarded} fn f() {{ look() }} fn g() {{ walk(Some(look)) }}"));
    assert_eq!(direct_calls(&direct), ["query/c calls look"]);
}
