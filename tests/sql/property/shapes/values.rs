//! Random values, as SQL.

use fastrand::Rng;

fn null_or(rng: &mut Rng, value: impl FnOnce(&mut Rng) -> String) -> String {
    if rng.usize(0..6) == 0 { "null".to_owned() } else { value(rng) }
}

fn pick(rng: &mut Rng, values: &[&str]) -> String {
    values[rng.usize(0..values.len())].to_owned()
}

pub(super) fn int_key(rng: &mut Rng) -> String {
    rng.usize(1..=40).to_string()
}

/// Quotes, blanks, capitals, letters of several bytes, and what JSON escapes.
pub(super) fn text_key(rng: &mut Rng) -> String {
    let base = pick(rng, &["a", "A", "é", "", "x y", "q''", "\"", "\\"]);
    format!("'{base}{}'", rng.usize(1..=5))
}

pub(super) fn word(rng: &mut Rng) -> String {
    null_or(rng, |r| format!("'{}'", pick(r, &["", "red", "Red", "blue", "grün", "a,b", "it''s"])))
}

pub(super) fn sentence(rng: &mut Rng) -> String {
    null_or(rng, |r| {
        let words: Vec<String> =
            (0..r.usize(0..6)).map(|_| pick(r, &["a", "b", "c,d", "É", "", "x"])).collect();
        format!("'{}'", words.join(" "))
    })
}

/// Some are long enough to be stored compressed or out of line.
pub(super) fn long_sentence(rng: &mut Rng) -> String {
    match rng.usize(0..8) {
        0 => format!("repeat('word {} ', 3000)", rng.usize(1..3)),
        _ => sentence(rng),
    }
}

/// Equal numbers that look different are different contents.
pub(super) fn number(rng: &mut Rng) -> String {
    null_or(rng, |r| pick(r, &["1", "1.0", "1.00", "2", "-3.5", "10000000000.01", "'NaN'"]))
}

pub(super) fn amount(rng: &mut Rng) -> String {
    null_or(rng, |r| pick(r, &["1", "1.0", "1.00", "2", "-3.5", "0"]))
}

pub(super) fn json(rng: &mut Rng) -> String {
    let values = ["{}", "[1,2]", "null", "{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}", "1.0", "1.00"];
    null_or(rng, |r| format!("'{}'", pick(r, &values)))
}

pub(super) fn ints(rng: &mut Rng) -> String {
    let values = ["{}", "{1,2}", "{2,1}", "{1,NULL}", "[2:3]={1,2}", "{{1},{2}}"];
    null_or(rng, |r| format!("'{}'", pick(r, &values)))
}

pub(super) fn customer(rng: &mut Rng) -> String {
    format!("'c{}'", rng.usize(1..=12))
}

/// A whole number, in one of its spellings.
pub(super) fn spelled(rng: &mut Rng) -> String {
    format!("{}{}", rng.usize(1..=15), pick(rng, &["", ".0", ".00"]))
}

pub(super) fn any_case(rng: &mut Rng) -> String {
    format!("'{}{}'", pick(rng, &["k", "K"]), pick(rng, &["a", "A", "b", "B", "é", "É"]))
}

pub(super) fn alias(rng: &mut Rng) -> String {
    format!("'{}'", rng.usize(1..=12))
}
