//! Embeddings: `POST …/embeddings`.

use serde::{Deserialize, Serialize};

use super::response::{InputError, ParsedResponse};
use coco_core::provider::Answer;

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: &'a [&'a str],
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

pub fn body(
    model: &str,
    dimensions: Option<u32>,
    inputs: &[&str],
) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Body { model, input: inputs, encoding_format: "float", dimensions })
}

#[derive(Deserialize)]
struct Embeddings {
    data: Vec<Item>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Option<Vec<Number>>,
}

/// A number in four bytes: a vector needs at most twice the memory of its text.
#[derive(Deserialize)]
#[serde(from = "Option<f32>")]
struct Number(f32);

impl From<Option<f32>> for Number {
    /// Some servers write null for a value that is not a number.
    fn from(number: Option<f32>) -> Number {
        Number(number.unwrap_or(f32::NAN))
    }
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
}

/// Parses the response to `inputs` inputs. The error continues "its answer".
pub fn read(
    answer: &[u8],
    inputs: usize,
    dimensions: Option<u32>,
) -> Result<ParsedResponse, String> {
    let answer: Embeddings = serde_json::from_slice(answer)
        .map_err(|e| format!("is not a valid answer of /embeddings: {e}"))?;
    if answer.data.len() != inputs {
        return Err(format!("has {} vectors for {inputs} inputs", answer.data.len()));
    }
    let mut vectors: Vec<Option<Option<Vec<f32>>>> = vec![None; inputs];
    for item in answer.data {
        let place = vectors.get_mut(item.index).filter(|there| there.is_none());
        let place = place.ok_or("does not have one vector for each input")?;
        *place = Some(item.embedding.and_then(numbers));
    }
    let mut of_all = dimensions.map(|n| n as usize);
    for vector in vectors.iter().flatten().flatten() {
        let expected = *of_all.get_or_insert(vector.len());
        if vector.len() != expected || expected == 0 {
            return Err(format!("has a vector of {} dimensions, not {expected}", vector.len()));
        }
    }
    let answers = vectors.into_iter().map(|vector| match vector.flatten() {
        Some(vector) => Ok(Answer::Embedding(vector)),
        None => Err(InputError::retryable(
            "the server answered with a vector that contains a value that is not a number",
        )),
    });
    Ok(ParsedResponse {
        answers: answers.collect(),
        tokens_in: answer.usage.and_then(|u| u.prompt_tokens),
        tokens_out: Some(0),
    })
}

/// Returns the numbers of a vector if all are finite.
fn numbers(vector: Vec<Number>) -> Option<Vec<f32>> {
    vector.into_iter().map(|Number(number)| number.is_finite().then_some(number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(answer: &str, inputs: usize) -> Result<Vec<Option<Vec<f32>>>, String> {
        let reading = read(answer.as_bytes(), inputs, None)?;
        let vector = |answer| match answer {
            Ok(Answer::Embedding(vector)) => Some(vector),
            _ => None,
        };
        Ok(reading.answers.into_iter().map(vector).collect())
    }

    #[test]
    fn a_request_is_as_openai_has_it() {
        let expected = r#"{"model":"m","input":["a","b\""],"encoding_format":"float"}"#;
        assert_eq!(body("m", None, &["a", "b\""]).expect("JSON"), expected);
        assert!(body("m", Some(8), &[]).expect("JSON").contains(r#""dimensions":8"#));
    }

    #[test]
    fn vectors_go_to_the_inputs_they_are_of() {
        let answer = r#"{"object":"list","data":[{"index":1,"embedding":[3,4.5]},
            {"object":"embedding","index":0,"embedding":[1e-3,-2]}],"usage":{"prompt_tokens":7,"total_tokens":7}}"#;
        assert_eq!(vectors(answer, 2), Ok(vec![Some(vec![0.001, -2.0]), Some(vec![3.0, 4.5])]));
        assert_eq!(read(answer.as_bytes(), 2, Some(2)).expect("fine").tokens_in, Some(7));
        assert!(read(answer.as_bytes(), 2, Some(3)).is_err());
    }

    #[test]
    fn what_is_no_number_is_that_inputs_alone() {
        let answer = r#"{"data":[{"index":0,"embedding":[1,null]},{"index":1,"embedding":[1,2]},
            {"index":2,"embedding":null},{"index":3,"embedding":[1e39,0]}]}"#;
        assert_eq!(vectors(answer, 4), Ok(vec![None, Some(vec![1.0, 2.0]), None, None]));
    }

    #[test]
    fn wrong_answers_are_refused_as_a_whole() {
        for (answer, inputs, why) in [
            ("", 1, "is not a valid answer"),
            ("[]", 1, "is not a valid answer"),
            (r#"{"data":[{"index":0,"embedding":[NaN]}]}"#, 1, "is not a valid answer"),
            (r#"{"data":[{"index":0,"embedding":"AACAPw=="}]}"#, 1, "is not a valid answer"),
            (r#"{"data":[]}"#, 1, "0 vectors for 1 inputs"),
            (
                r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[1]}]}"#,
                1,
                "2 vectors",
            ),
            (
                r#"{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}"#,
                2,
                "one vector",
            ),
            (
                r#"{"data":[{"index":0,"embedding":[1]},{"index":2,"embedding":[1]}]}"#,
                2,
                "one vector",
            ),
            (
                r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[1,2]}]}"#,
                2,
                "2 dimensions, not 1",
            ),
            (r#"{"data":[{"index":0,"embedding":[]}]}"#, 1, "0 dimensions"),
        ] {
            let error = vectors(answer, inputs).expect_err(answer);
            assert!(error.contains(why), "{answer}: {error}");
        }
    }
}
