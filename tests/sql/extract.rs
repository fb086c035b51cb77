//! The text of files: of each format, of broken files, and in a flow over a folder.

use crate::documents::{docx, pdf, pdf_of_objects, stream};
use crate::support::TestDb;
use crate::support::server::Session;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The content of a file as a value of SQL.
fn bytea(content: &[u8]) -> String {
    let digits: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("'\\x{digits}'::bytea")
}

#[test]
fn the_format_is_found_and_pages_are_rows() {
    let database = TestDb::new("extract_formats");
    let mut db = Session(database.connect());
    let file = bytea(&pdf(&["The moon pulls.", "", "The sea follows."]));
    assert_eq!(
        db.text(&format!(
            "select string_agg(page || ':' || text, '|' order by page) from coco.extract_pages({file})"
        )),
        "1:The moon pulls.|2:|3:The sea follows."
    );
    assert_eq!(
        db.text(&format!("select coco.extract_text({file}, 'application/pdf')")),
        "The moon pulls.\n\nThe sea follows."
    );
    let file = bytea(&docx(
        r#"<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>Tides</w:t></w:r></w:p><w:p><w:r><w:t>One.</w:t></w:r></w:p>"#,
    ));
    assert_eq!(db.text(&format!("select coco.extract_text({file})")), "# Tides\n\nOne.");
    assert_eq!(
        db.text("select coco.extract_text('<html><title>T</title><nav>x</nav><p>a <a href=\"http://b/\">c</a>')"),
        "# T\n\na [c](http://b/)"
    );
    assert_eq!(
        db.text("select coco.extract_text('\\x4772f6df65', 'text/plain; charset=iso-8859-1')"),
        "Größe"
    );
    assert_eq!(db.text("select coco.extract_text('{\\\\rtf1 a\\\\par b}'::bytea)"), "a\nb");
    assert_eq!(
        db.text("select coco.extract_text(E'From: a@b\\nSubject: x\\n\\nHi'::text::bytea)"),
        "Subject: x\nFrom: a@b\n\nHi"
    );
    assert_eq!(db.text("select coco.extract_text('')"), "");
    assert!(db.holds("select coco.extract_text(null) is null"));
    assert_eq!(db.number("select count(*) from coco.extract_pages(null)"), 0);
    assert_eq!(db.number("select count(*) from coco.extract_pages('a')"), 1);
}

#[test]
fn files_without_text_are_errors() {
    let database = TestDb::new("extract_errors");
    let mut db = Session(database.connect());
    for (content, error) in [
        (b"%PDF-1.4 nothing".to_vec(), "22P03 content is not a valid PDF file"),
        (b"PK\x03\x04word/document.xml".to_vec(), "22P03 content is not a valid DOCX file"),
        (b"{\\rtf1 open".to_vec(), "22P03 content is not a valid RTF file"),
        (
            b"\x89PNG\r\n\x1a\n".to_vec(),
            "22023 content has no format from which text can be extracted",
        ),
    ] {
        let content = bytea(&content);
        assert_eq!(db.fails(&format!("select coco.extract_text({content})")), error);
        assert_eq!(db.fails(&format!("select * from coco.extract_pages({content})")), error);
    }
    assert_eq!(
        db.fails("select coco.extract_text('a', 'image/png')"),
        "22023 media type \"image/png\" is not supported"
    );
}

/// A PDF file whose drawing contains itself.
fn endless() -> Vec<u8> {
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Count 1 /Kids [3 0 R] >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /XObject << /X 5 0 R >> >> >>"
            .to_owned(),
        stream("", b"/X Do"),
        stream("/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 5 0 R >> >>", b"/X Do"),
    ];
    pdf_of_objects(&objects, "")
}

#[test]
fn a_file_that_ends_its_process_is_an_error() {
    let database = TestDb::new("extract_ends");
    let mut db = Session(database.connect());
    let pid = db.number("select pg_backend_pid()");
    let file = bytea(&endless());
    for _ in 0..3 {
        assert_eq!(
            db.fails(&format!("select coco.extract_text({file})")),
            "54000 could not read the content within the limits"
        );
    }
    // The session and the server have noticed nothing.
    assert_eq!(db.number("select pg_backend_pid()"), pid);
    assert_eq!(db.text("select coco.extract_text('<html>a')"), "a");
}

#[test]
fn reading_a_file_can_be_canceled() {
    let database = TestDb::new("extract_cancel");
    let mut db = Session(database.connect());
    db.run("set statement_timeout = '500ms'");
    let error = db.fails(
        "select coco.extract_text(convert_to('<html>' || repeat('<div>', 1000000) || 'x', 'UTF8'))",
    );
    assert_eq!(error, "57014 canceling statement due to statement timeout");
    db.run("reset statement_timeout");
    assert_eq!(db.text("select coco.extract_text('<html>a')"), "a");
}

/// A directory that the server's user can read; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("coco_{name}_{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        mode(&path, 0o755);
        Folder(path)
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        mode(&path, 0o644);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The seeds' own example.
#[test]
fn a_folder_of_pdfs_has_a_row_a_page() {
    let mut db = TestDb::new("extract_folder");
    let folder = Folder::new("extract_folder");
    folder.write("a.pdf", &pdf(&["One.", "Two.", "Three."]));
    folder.write("b.pdf", &pdf(&["Other."]));
    folder.write("broken.pdf", b"%PDF-1.4 nothing");
    // Without an ordinal, the content tells what has changed, whatever the clock of the file system.
    db.run(&format!(
        "create view files as select * from coco.local_files('{}', '*.pdf');
         select coco.create_flow('pages', 'files', source_key => '{{path}}',
           query => $$ select f.path, p.page, p.text from files f, coco.extract_pages(f.content) p $$,
           target => 'pages', key => '{{path,page}}')",
        folder.0.display()
    ));
    let first = &db.update("pages", "normal")[0];
    assert_eq!((first.evaluated, first.upserted, first.failed), (3, 4, 1));
    let mut session = Session(db.connect());
    assert_eq!(
        session.text("select string_agg(concat_ws(' ', path, page, text), ', ' order by path, page) from pages"),
        "a.pdf 1 One., a.pdf 2 Two., a.pdf 3 Three., b.pdf 1 Other."
    );
    assert_eq!(
        session.text("select sqlstate || ' ' || message from coco.errors where flow = 'pages'"),
        "22P03 content is not a valid PDF file"
    );
    // A page less, and a page that was edited: that row alone is deleted, and that one alone is written.
    folder.write("a.pdf", &pdf(&["One.", "Deux."]));
    folder.write("broken.pdf", &pdf(&["Whole."]));
    let second = &db.update("pages", "normal")[0];
    assert_eq!((second.upserted, second.deleted, second.failed), (2, 1, 0));
    assert_eq!(
        session.text("select string_agg(concat_ws(' ', path, page, text), ', ' order by path, page) from pages"),
        "a.pdf 1 One., a.pdf 2 Deux., b.pdf 1 Other., broken.pdf 1 Whole."
    );
    // A broken version fails alone, and the rows of the last one stay.
    folder.write("a.pdf", b"%PDF-1.4 nothing");
    let third = &db.update("pages", "normal")[0];
    assert_eq!((third.upserted, third.deleted, third.failed), (0, 0, 1));
    assert_eq!(session.number("select count(*) from pages where path = 'a.pdf'"), 2);
}
