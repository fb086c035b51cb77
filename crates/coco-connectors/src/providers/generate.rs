//! Generated text: `POST …/chat/completions`.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::response::{InputError, ParsedResponse};
use crate::net::body::check_depth;
use coco_core::provider::Answer;

/// Returns the body of a request. `parameters` is the server's option: its fields replace the
/// fields set here, and null removes a field.
pub fn body(
    model: &str,
    schema: Option<&Value>,
    parameters: &Map<String, Value>,
    prompt: &str,
) -> String {
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(model));
    body.insert("messages".to_owned(), json!([{ "role": "user", "content": prompt }]));
    // The same prompt must have the same answer, as far as the model allows.
    body.insert("temperature".to_owned(), json!(0));
    if let Some(schema) = schema {
        let named = json!({ "name": "answer", "strict": true, "schema": schema });
        let format = json!({ "type": "json_schema", "json_schema": named });
        body.insert("response_format".to_owned(), format);
    }
    for (name, value) in parameters {
        match value {
            Value::Null => body.remove(name),
            value => body.insert(name.clone(), value.clone()),
        };
    }
    Value::Object(body).to_string()
}

/// Returns the maximum number of tokens of an answer, if the parameters set it.
pub fn max_answer_tokens(parameters: &Map<String, Value>) -> Option<u64> {
    ["max_completion_tokens", "max_tokens"].iter().find_map(|name| parameters.get(*name)?.as_u64())
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

/// Parses a response. The error continues "its answer". `quote` prepares a text of the model for a
/// message.
pub fn read(
    answer: &[u8],
    has_schema: bool,
    quote: impl Fn(&str) -> String,
) -> Result<ParsedResponse, String> {
    let answer: Completion = serde_json::from_slice(answer)
        .map_err(|e| format!("is not a valid answer of /chat/completions: {e}"))?;
    let choice = answer.choices.into_iter().next().ok_or("has no choices")?;
    let usage = answer.usage.as_ref();
    let reading = ParsedResponse {
        tokens_in: usage.and_then(|u| u.prompt_tokens),
        tokens_out: usage.and_then(|u| u.completion_tokens),
        answers: vec![text(choice, has_schema, quote)],
    };
    Ok(reading)
}

fn text(choice: Choice, json: bool, quote: impl Fn(&str) -> String) -> Result<Answer, InputError> {
    if let Some(refusal) = choice.message.refusal.filter(|text| !text.is_empty()) {
        return Err(InputError::permanent(format!(
            "the model refused to answer: {}",
            quote(&refusal)
        )));
    }
    match choice.finish_reason.as_deref() {
        Some("length") => {
            return Err(InputError::permanent(
                "the model's answer is cut off because it exceeds max_tokens in the server's \
                 option parameters",
            ));
        }
        Some("content_filter") => {
            return Err(InputError::permanent(
                "the server's content filter blocked the model's answer",
            ));
        }
        _ => {}
    }
    let Some(content) = choice.message.content else {
        return Err(InputError::retryable("the model's answer has no text"));
    };
    if content.contains('\0') {
        return Err(InputError::retryable(
            "the model's answer contains a NUL character, which is not allowed in text",
        ));
    }
    if json && serde_json::from_str::<serde::de::IgnoredAny>(&content).is_err() {
        return Err(InputError::retryable(
            "the model's answer is not JSON, which the schema requires",
        ));
    }
    match json.then(|| check_depth(&content)) {
        Some(Err(why)) => Err(InputError::retryable(format!("the model's answer {why}"))),
        _ => Ok(Answer::Text(content)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(choice: &str, json: bool) -> Result<Answer, InputError> {
        let answer = format!(
            r#"{{"choices":[{choice}],"usage":{{"prompt_tokens":3,"completion_tokens":5}}}}"#
        );
        let reading = read(answer.as_bytes(), json, |text| text.to_owned()).expect("an answer");
        assert_eq!((reading.tokens_in, reading.tokens_out), (Some(3), Some(5)));
        reading.answers.into_iter().next().expect("one")
    }

    #[test]
    fn parameters_go_over_what_is_there() {
        let parameters = json!({ "temperature": null, "max_tokens": 9, "seed": 1 });
        let parameters = parameters.as_object().expect("an object");
        let body: Value =
            serde_json::from_str(&body("m", None, parameters, "hi \"you\"")).expect("JSON");
        let expected = json!({ "model": "m", "max_tokens": 9, "seed": 1,
                               "messages": [{ "role": "user", "content": "hi \"you\"" }] });
        assert_eq!(body, expected);
        assert_eq!(
            (max_answer_tokens(parameters), max_answer_tokens(&Map::new())),
            (Some(9), None)
        );
    }

    #[test]
    fn a_schema_is_asked_for_strictly() {
        let schema = json!({ "type": "object" });
        let body: Value =
            serde_json::from_str(&body("m", Some(&schema), &Map::new(), "hi")).expect("JSON");
        assert_eq!(body["temperature"], 0);
        assert_eq!(body["response_format"]["type"], "json_schema");
        assert_eq!(body["response_format"]["json_schema"]["strict"], true);
        assert_eq!(body["response_format"]["json_schema"]["schema"], schema);
    }

    #[test]
    fn answers_are_taken_or_doubted() {
        let fine = r#"{"message":{"role":"assistant","content":"hi","refusal":null},"finish_reason":"stop"}"#;
        assert_eq!(answer(fine, false), Ok(Answer::Text("hi".to_owned())));
        for (choice, json, again, why) in [
            (fine, true, true, "is not JSON"),
            (r#"{"message":{"content":"a\u0000"}}"#, false, true, "NUL"),
            (r#"{"message":{"content":null},"finish_reason":"stop"}"#, false, true, "no text"),
            (r#"{"message":{"content":"{"},"finish_reason":"length"}"#, true, false, "cut off"),
            (
                r#"{"message":{"content":""},"finish_reason":"content_filter"}"#,
                false,
                false,
                "filter",
            ),
            (
                r#"{"message":{"content":null,"refusal":"no"}}"#,
                false,
                false,
                "refused to answer: no",
            ),
        ] {
            let error = answer(choice, json).expect_err(choice);
            assert_eq!(error.is_retryable, again, "{choice}");
            assert!(error.rejection.message.contains(why), "{}", error.rejection.message);
        }
        for wrong in ["", "{}", r#"{"choices":[]}"#] {
            assert!(read(wrong.as_bytes(), false, |text| text.to_owned()).is_err(), "{wrong}");
        }
    }
}
