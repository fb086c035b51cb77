//! Parses a column's value as a vector.

use super::error::RowError;
use super::layout::Vector;

/// Returns the components of a vector from JSON: a string from pgvector (`"[0.1,0.2]"`), an array
/// (`[0.1,0.2]`), or `null`, which is no vector.
///
/// Qdrant stores 32-bit floats. Values of `vector`, `halfvec` and `real[]` stay exact; `double
/// precision[]` is rounded.
pub fn parse(column: &str, json: &str, as_is: &Vector) -> Result<Option<Vec<f32>>, RowError> {
    if json == "null" {
        return match as_is.is_unnamed() {
            false => Ok(None),
            true => Err(RowError::new(
                "23502",
                format!("column \"{column}\" is NULL, and a point must have its unnamed vector"),
            )),
        };
    }
    let inside = json.trim_matches('"').strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let Some(inside) = inside else {
        return Err(RowError::new("22P02", format!("column \"{column}\" is not a vector")));
    };
    // Counted first, so that a vector of another size costs neither time nor memory.
    let size = match inside.trim() {
        "" => 0,
        components => components.split(',').count(),
    };
    if u64::try_from(size) != Ok(as_is.size) {
        let expected = as_is.size;
        return Err(RowError::new(
            "22000",
            format!("column \"{column}\" has {size} dimensions, not {expected}"),
        ));
    }
    inside.split(',').map(|text| component(column, text.trim())).collect::<Result<_, _>>().map(Some)
}

fn component(column: &str, text: &str) -> Result<f32, RowError> {
    if text == "null" {
        return Err(RowError::new("22004", format!("column \"{column}\" contains a NULL")));
    }
    match text.parse::<f32>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(_) => Err(RowError::new(
            "22003",
            format!("column \"{column}\" contains a number that is too large for a vector"),
        )),
        // Also NaN and infinity, which JSON writes as strings, and nested arrays.
        Err(_) => Err(RowError::new(
            "22P02",
            format!("column \"{column}\" contains a value that is not a number"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use qdrant_client::qdrant::Distance;

    use super::*;

    fn read(json: &str, name: &str, size: u64) -> Result<Option<Vec<f32>>, &'static str> {
        let vector = Vector { name: name.to_owned(), size, distance: Distance::Cosine };
        parse("e", json, &vector).map_err(|e| e.sqlstate)
    }

    #[test]
    fn pgvectors_text_and_arrays_are_read_to_the_last_bit() {
        assert_eq!(read(r#""[0.1,-2,1e-05]""#, "", 3), Ok(Some(vec![0.1, -2.0, 1e-5])));
        assert_eq!(read("[16777217, 3.4028235e+38]", "", 2), Ok(Some(vec![16777216.0, f32::MAX])));
    }

    #[test]
    fn null_is_no_vector_but_where_there_must_be_one() {
        assert_eq!(read("null", "n", 3), Ok(None));
        assert_eq!(read("null", "", 3), Err("23502"));
    }

    #[test]
    fn what_is_no_vector_of_the_size_is_the_rows_fault() {
        assert_eq!(read("[1,2]", "", 3), Err("22000"));
        assert_eq!(read("[]", "", 1), Err("22000"));
        assert_eq!(read("[[1,2],[3,4]]", "", 4), Err("22P02"));
        assert_eq!(read(r#"[1,"NaN"]"#, "", 2), Err("22P02"));
        assert_eq!(read("[1,null]", "", 2), Err("22004"));
        assert_eq!(read("[1,1e39]", "", 2), Err("22003"));
        assert_eq!(read(r#""abc""#, "", 3), Err("22P02"));
    }
}
