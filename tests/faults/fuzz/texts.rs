//! Random texts and nested values for the functions that take them apart: `coco.split_text`, `coco.normalize_text`
//! and `coco.fingerprint`.

use fastrand::Rng;

use crate::ground::Ground;
use crate::support::explain;
use crate::support::server::{Session, until};

/// What texts are made of: letters, ends of words and sentences, marks of Markdown, control characters, what joins with
/// its neighbors, and characters that are none.
const PIECES: [&str; 48] = [
    "a",
    "Word",
    "don't",
    "1.5",
    "3,000",
    " ",
    "  ",
    "\t",
    "\u{a0}",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    ".",
    "!",
    "? ",
    ". A",
    "...",
    "\u{2028}",
    "\u{85}",
    "\u{b}",
    "\u{c}",
    "\u{1}",
    "\u{7f}",
    "\u{300}",
    "\u{301}\u{302}\u{303}",
    "e\u{301}",
    "\u{200d}",
    "👩\u{200d}👩\u{200d}👧",
    "🇩🇪",
    "🇫",
    "\u{fe0f}",
    "ร้านอาหาร",
    "東京都",
    "。",
    "한국어",
    "\u{1100}\u{1161}",
    "مرحبا",
    "\u{202e}",
    "\u{fffd}",
    "\u{ffff}",
    "\u{10ffff}",
    "\u{feff}",
    "# ",
    "```\n",
    "- ",
    "| a | b |\n",
    "\u{e0001}",
];

fn text(rng: &mut Rng, round: usize) -> String {
    let of = |rng: &mut Rng| PIECES[rng.usize(0..PIECES.len())];
    let length = match round % 200 {
        // A megabyte, now and then.
        0 => 1_000_000,
        1..20 => 30_000,
        _ => rng.usize(0..400),
    };
    let mut text = String::new();
    match rng.usize(0..4) {
        // One piece again and again: no word and no sentence ends.
        0 => {
            let piece = of(rng);
            while text.len() < length {
                text.push_str(piece);
            }
        }
        // A few pieces.
        1 => {
            let few: Vec<&str> = (0..3).map(|_| of(rng)).collect();
            while text.len() < length {
                text.push_str(few[rng.usize(0..3)]);
            }
        }
        // Any characters.
        2 => {
            while text.len() < length {
                text.extend(char::from_u32(rng.u32(1..0x11_0000)));
            }
        }
        _ => {
            while text.len() < length {
                text.push_str(of(rng));
            }
        }
    }
    text
}

/// A text, in all three functions.
pub fn round(session: &mut Session, rng: &mut Rng, seed: u64, round: usize) {
    let text = text(rng, round);
    // A chunk takes time, however small it is.
    let size = match rng.usize(0..4) {
        _ if text.len() > 100_000 => rng.i32(200..2000),
        0 => rng.i32(1..8),
        _ => rng.i32(1..2000),
    };
    // An overlap of almost all makes a chunk for each character.
    let overlap = match text.len() < 2000 {
        true => rng.i32(0..size),
        false => size / rng.i32(2..10),
    };
    let language = ["plain", "markdown"][rng.usize(0..2)];
    let case = format!(
        "COCO_TEST_SEED={seed}, round {round}: {} bytes, size {size}, overlap {overlap}, {language}: {}",
        text.len(),
        text.chars().take(300).collect::<String>().escape_debug()
    );
    split(session, &text, (size, overlap, language), &case);
    let sql = "select coco.normalize_text($1), coco.normalize_text(coco.normalize_text($1))";
    let row = session.0.query_one(sql, &[&text]).unwrap_or_else(|e| failed(&case, &e));
    let (once, twice): (String, String) = (row.get(0), row.get(1));
    assert!(once == twice, "what is normalized is normalized: {case}");
    let letters = |text: &str| -> String {
        text.chars().filter(|c| !matches!(c, ' ' | '\t' | '\u{a0}' | '\n' | '\r')).collect()
    };
    assert!(letters(&once) == letters(&text), "no letter goes: {case}");
    nested(session, rng, &text, &case);
}

fn failed(case: &str, error: &postgres::Error) -> ! {
    panic!("{case}\n{}", explain(error))
}

fn split(session: &mut Session, text: &str, how: (i32, i32, &str), case: &str) {
    let (size, overlap, language) = how;
    let sql = "select n, chunk, byte_start, byte_end from coco.split_text($1, $2, $3, $4)";
    let rows = session
        .0
        .query(sql, &[&text, &size, &overlap, &language])
        .unwrap_or_else(|e| failed(case, &e));
    let (mut begin, mut end) = (0, 0);
    for (place, row) in rows.iter().enumerate() {
        let (n, chunk): (i32, &str) = (row.get(0), row.get(1));
        let (from, to) = (row.get::<_, i32>(2) as usize, row.get::<_, i32>(3) as usize);
        assert_eq!(n, place as i32 + 1, "{case}");
        assert!(text.get(from..to) == Some(chunk), "chunk {n} stands where it says: {case}");
        assert!(!chunk.is_empty(), "chunk {n} is a text: {case}");
        let characters = chunk.chars().count();
        assert!(characters <= size as usize, "chunk {n} has {characters} characters: {case}");
        // It may begin with all of the one before, where that fits the overlap: so do chunks of text-splitter.
        assert!(place == 0 || from >= begin && to > end, "chunk {n} goes on: {case}");
        if from > end {
            let between = &text[end..from];
            assert!(between.trim().is_empty(), "nothing is left out before chunk {n}: {case}");
        } else {
            // The indentation of a first line does not count, as in text-splitter.
            let twice = text[from..end].trim_start().chars().count();
            assert!(twice <= overlap as usize, "chunk {n} overlaps by {twice}: {case}");
        }
        (begin, end) = (from, to);
    }
    assert!(text[end..].trim().is_empty(), "nothing is left out at the end: {case}");
}

/// An expression for a value that holds others, to a depth.
fn value(rng: &mut Rng, depth: usize) -> String {
    let inner = |rng: &mut Rng| value(rng, depth - 1);
    if depth == 0 {
        return [
            "null::text",
            "1",
            "$1::text",
            "1.50",
            "true",
            "'\\x00ff'::bytea",
            "'-infinity'::date",
            "'{}'::int[]",
        ][rng.usize(0..8)]
        .to_owned();
    }
    match rng.usize(0..7) {
        0 => format!("row({}, {})", inner(rng), inner(rng)),
        1 => format!("array[row({})]", inner(rng)),
        2 => format!("to_jsonb(row({}, null))", inner(rng)),
        3 => format!("to_json(array[row({})])", inner(rng)),
        4 => format!("jsonb_build_object('k', row({}))", inner(rng)),
        5 => format!("array[array[row({0})], array[row({0})]]", inner(rng)),
        _ => format!("(select s from (select {} as a, 'x'::text as b) as s)", inner(rng)),
    }
}

/// Fingerprints of nested values: the same for the same, and another where a text within is another.
fn nested(session: &mut Session, rng: &mut Rng, text: &str, case: &str) {
    let depth = rng.usize(0..9);
    let value = value(rng, depth);
    // jsonb keeps no text of this character; a megabyte in eight levels of escapes would be one of gigabytes.
    let text: String = text.chars().take(2000).collect();
    let sql = format!(
        "select coco.fingerprint(v)::text, coco.fingerprint(v)::text, coco.fingerprint(v, null)::text from (select {value} as v) s"
    );
    let mut of = |text: String| -> Option<String> {
        let given: &[&(dyn postgres::types::ToSql + Sync)] = match value.contains("$1") {
            true => &[&text],
            false => &[],
        };
        match session.0.query_one(&sql, given) {
            Ok(row) => {
                let [a, b, c] = [0, 1, 2].map(|n| row.get::<_, String>(n));
                assert!(a == b && a != c, "{case}\n{sql}");
                Some(a)
            }
            // The value itself cannot be made.
            Err(e)
                if matches!(
                    e.code().map(|c| c.code()),
                    Some("22P05" | "22P02" | "42P18" | "42725")
                ) =>
            {
                None
            }
            Err(e) => failed(&format!("{case}\n{sql}"), &e),
        }
    };
    let (one, other) = (of(text.clone()), of(format!("{text}.")));
    if value.contains("$1") && one.is_some() {
        assert!(one != other, "another text, another fingerprint: {case}\n{sql}");
    }
}

/// Very deep values: an error that says so, or a fingerprint, and no process ends.
pub fn deep(session: &mut Session, rng: &mut Rng, seed: u64) {
    let depth = rng.usize(1..200_000);
    let json = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    for sql in [
        "select coco.fingerprint($1::text::json)::text",
        "select coco.fingerprint($1::text::jsonb)::text",
    ] {
        match session.0.query_one(sql, &[&json]) {
            Ok(_) => {}
            Err(e) if e.code().is_some_and(|c| c.code() == "54001") => {}
            Err(e) => failed(&format!("COCO_TEST_SEED={seed}: {depth} deep\n{sql}"), &e),
        }
    }
    let rows = rng.usize(1..900);
    let sql =
        format!("select coco.fingerprint({}1{})::text", "row(".repeat(rows), ")".repeat(rows));
    match session.0.query_one(&sql, &[]) {
        Ok(_) => {}
        Err(e) if e.code().is_some_and(|c| c.code() == "54001") => {}
        Err(e) => failed(&format!("COCO_TEST_SEED={seed}: {rows} rows deep"), &e),
    }
}

/// A statement over a text of many megabytes ends when it is canceled.
pub fn cancel(ground: &mut Ground, rng: &mut Rng, seed: u64) {
    let piece = PIECES[rng.usize(0..PIECES.len())].to_owned();
    let mut session = ground.role("mallory");
    let pid: i32 = session
        .0
        .query_one("select pg_backend_pid()", &[])
        .expect("a session has a process")
        .get(0);
    let said = piece.clone();
    let running = std::thread::spawn(move || {
        let sql = "select count(*)::text from coco.split_text(repeat($1, 200000000 / octet_length($1)), 1000, 500)";
        session.0.query_one(sql, &[&piece]).err()
    });
    let busy = format!("select state = 'active' from pg_stat_activity where pid = {pid}");
    until("the statement runs", || ground.admin.holds(&busy) || running.is_finished());
    std::thread::sleep(std::time::Duration::from_millis(rng.u64(0..500)));
    until("a canceled statement ends", || {
        ground.admin.run(&format!("select pg_cancel_backend({pid})"));
        running.is_finished()
    });
    let error = running.join().expect("the session has not panicked");
    let code = error.as_ref().and_then(|e| e.code()).map(|c| c.code().to_owned());
    assert!(
        matches!(code.as_deref(), None | Some("57014")),
        "COCO_TEST_SEED={seed}: {said:?} {error:?}"
    );
}
