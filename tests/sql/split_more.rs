//! `coco.split_file`: chunks of source code and Markdown, with lines and paths.

use crate::support::TestDb;
use crate::support::server::Session;

const PYTHON: &str = r"E'import os\n\nclass Sea:\n    def pull(self):\n        return 1\n\n    def follow(self):\n        return 2\n\ndef stone():\n    pass\n'";

#[test]
fn functions_stay_whole_and_say_where_they_stand() {
    let database = TestDb::new("split_file_code");
    let mut db = Session(database.connect());
    let rows = format!(
        "select string_agg(concat_ws(' ', n, line_start, line_end, array_to_string(path, '>')), ',' order by n)
           from coco.split_file({PYTHON}, 50"
    );
    let expected = "1 1 1 ,2 3 3 Sea,3 4 5 Sea>pull,4 7 8 Sea>follow,5 10 11 stone";
    for how in ["language => 'python'", "language => 'PY'", "file_name => 'src/sea.py'"] {
        assert_eq!(db.text(&format!("{rows}, {how})")), expected, "{how}");
    }
    assert_eq!(
        db.text(&format!(
            "select chunk from coco.split_file({PYTHON}, 50, 0, 'python') where n = 3"
        )),
        "    def pull(self):\n        return 1"
    );
    assert!(db.holds(&format!(
        "select bool_and(convert_from(substring(convert_to(t, 'UTF8') from byte_start + 1
                                      for byte_end - byte_start), 'UTF8') = chunk and length(chunk) <= 30)
           from (values ({PYTHON})) v(t), coco.split_file(t, 30, 5, 'python')"
    )));
}

#[test]
fn markdown_has_headings_and_other_files_are_plain() {
    let database = TestDb::new("split_file_markdown");
    let mut db = Session(database.connect());
    assert_eq!(
        db.text(
            "select string_agg(concat_ws(' ', line_start, array_to_string(path, '>')), ',' order by n)
               from coco.split_file(E'# A\\n\\none\\n\\n## B\\n\\ntwo\\n\\n# C\\n\\nthree', 12, file_name => 'a.md')"
        ),
        "1 A,5 A>B,9 C"
    );
    // As coco.split_text splits it.
    assert!(db.holds(
        "select array(select row(n, chunk, byte_start, byte_end)::text from coco.split_file(t, 30, 5, file_name => 'a.txt'))
              = array(select row(n, chunk, byte_start, byte_end)::text from coco.split_text(t, 30, 5))
           from (values (repeat('Größe zählt, sagte sie. ', 20))) v(t)"
    ));
    assert!(db.holds("select path = '{}' from coco.split_file('a', 10)"));
    assert_eq!(db.number("select count(*) from coco.split_file(null, 10)"), 0);
    assert_eq!(db.number("select count(*) from coco.split_file('', 10, language => 'rust')"), 0);
}

#[test]
fn arguments_of_split_file_are_checked() {
    let database = TestDb::new("split_file_arguments");
    let mut db = Session(database.connect());
    assert_eq!(
        db.fails("select coco.split_file('a', 10, 10)"),
        "22023 invalid values for arguments \"size\" (10) and \"overlap\" (10)"
    );
    assert_eq!(
        db.fails("select coco.split_file('a', 10, 0, 'klingon')"),
        "22023 unrecognized value for argument \"language\": \"klingon\""
    );
}

#[test]
fn broken_and_nested_code_is_split() {
    let database = TestDb::new("split_file_broken");
    let mut db = Session(database.connect());
    for language in ["rust", "json", "javascript", "python"] {
        for text in ["repeat('{', 20000)", "repeat('a+', 10000)", "repeat('((]]}', 2000)"] {
            let chunks = format!("coco.split_file({text}, 1000, 0, '{language}')");
            assert!(
                db.holds(&format!("select max(length(chunk)) <= 1000 from {chunks}")),
                "{chunks}"
            );
        }
    }
}
