//! Languages of texts: by their name, and by the names of files.

/// A language whose structure coco knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextLanguage {
    Plain,
    Markdown,
    Bash,
    C,
    Cpp,
    CSharp,
    Css,
    Go,
    Html,
    Java,
    JavaScript,
    Json,
    Kotlin,
    Php,
    Python,
    Ruby,
    Rust,
    Sql,
    Swift,
    TypeScript,
    Tsx,
    Yaml,
}

/// A language with its name, other names, and the extensions of its files.
struct Known {
    language: TextLanguage,
    name: &'static str,
    others: &'static [&'static str],
    extensions: &'static [&'static str],
}

const fn known(
    language: TextLanguage,
    name: &'static str,
    others: &'static [&'static str],
    extensions: &'static [&'static str],
) -> Known {
    Known { language, name, others, extensions }
}

const KNOWN: [Known; 22] = [
    known(TextLanguage::Plain, "plain", &["text"], &["txt", "text", "log"]),
    known(TextLanguage::Markdown, "markdown", &["md"], &["md", "markdown", "mdx"]),
    known(TextLanguage::Bash, "bash", &["sh", "shell"], &["sh", "bash", "zsh", "ksh"]),
    known(TextLanguage::C, "c", &[], &["c", "h"]),
    known(TextLanguage::Cpp, "cpp", &["c++"], &["cc", "cpp", "cxx", "hpp", "hh", "hxx", "ino"]),
    known(TextLanguage::CSharp, "csharp", &["c#", "cs"], &["cs", "csx"]),
    known(TextLanguage::Css, "css", &[], &["css"]),
    known(TextLanguage::Go, "go", &["golang"], &["go"]),
    known(TextLanguage::Html, "html", &[], &["html", "htm", "xhtml"]),
    known(TextLanguage::Java, "java", &[], &["java"]),
    known(TextLanguage::JavaScript, "javascript", &["js", "jsx"], &["js", "jsx", "mjs", "cjs"]),
    known(TextLanguage::Json, "json", &[], &["json", "geojson", "webmanifest"]),
    known(TextLanguage::Kotlin, "kotlin", &["kt"], &["kt", "kts"]),
    known(TextLanguage::Php, "php", &[], &["php", "phtml"]),
    known(TextLanguage::Python, "python", &["py"], &["py", "pyi", "pyw"]),
    known(TextLanguage::Ruby, "ruby", &["rb"], &["rb", "rake", "gemspec"]),
    known(TextLanguage::Rust, "rust", &["rs"], &["rs"]),
    known(TextLanguage::Sql, "sql", &["postgresql"], &["sql", "ddl", "psql"]),
    known(TextLanguage::Swift, "swift", &[], &["swift"]),
    known(TextLanguage::TypeScript, "typescript", &["ts"], &["ts", "mts", "cts"]),
    known(TextLanguage::Tsx, "tsx", &[], &["tsx"]),
    known(TextLanguage::Yaml, "yaml", &["yml"], &["yaml", "yml"]),
];

impl TextLanguage {
    /// Returns a language by its name, in any case.
    pub fn from_name(name: &str) -> Option<TextLanguage> {
        let name = name.to_ascii_lowercase();
        let is_named = |k: &&Known| k.name == name || k.others.contains(&name.as_str());
        KNOWN.iter().find(is_named).map(|k| k.language)
    }

    /// Returns the language of a file by the extension of its name: plain if it is not known.
    pub fn from_file_name(name: &str) -> TextLanguage {
        let file = name.rsplit('/').next().unwrap_or(name);
        let extension = file.rsplit_once('.').map_or("", |(_, e)| e).to_ascii_lowercase();
        let has = |k: &&Known| k.extensions.contains(&extension.as_str());
        KNOWN.iter().find(has).map_or(TextLanguage::Plain, |k| k.language)
    }

    pub fn name(self) -> &'static str {
        KNOWN.iter().find(|k| k.language == self).map_or("plain", |k| k.name)
    }
}

/// Returns the names of all languages.
pub fn language_names() -> Vec<&'static str> {
    KNOWN.iter().map(|k| k.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_have_names_and_extensions() {
        assert_eq!(TextLanguage::from_name("C++"), Some(TextLanguage::Cpp));
        assert_eq!(TextLanguage::from_name("klingon"), None);
        assert_eq!(TextLanguage::from_file_name("src/a.b/Main.RS"), TextLanguage::Rust);
        assert_eq!(TextLanguage::from_file_name("a.rs/LICENSE"), TextLanguage::Plain);
        for known in &KNOWN {
            assert_eq!(TextLanguage::from_name(known.name), Some(known.language));
            assert_eq!(known.language.name(), known.name);
        }
    }
}
