//! The parsed response to a request, of any kind of task.

use coco_core::provider::{Answer, RejectedInput};

/// The parsed response: the answer to each input, and the tokens used.
#[derive(Debug, PartialEq)]
pub struct ParsedResponse {
    pub answers: Vec<Result<Answer, InputError>>,
    pub tokens_in: Option<u64>,
    pub tokens_out: Option<u64>,
}

/// The reason why a response has no answer to an input.
#[derive(Debug, PartialEq)]
pub struct InputError {
    pub rejection: RejectedInput,
    /// Whether a retry may succeed.
    pub is_retryable: bool,
}

impl InputError {
    pub fn retryable(message: impl Into<String>) -> InputError {
        let rejection = RejectedInput { sqlstate: "HV000".to_owned(), message: message.into() };
        InputError { rejection, is_retryable: true }
    }

    pub fn permanent(message: impl Into<String>) -> InputError {
        let rejection = RejectedInput { sqlstate: "22000".to_owned(), message: message.into() };
        InputError { rejection, is_retryable: false }
    }
}
