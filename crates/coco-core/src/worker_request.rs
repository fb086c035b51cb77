//! What a session asks a worker for, as a text that fits into the argument of a background worker.

use crate::decision::Mode;

/// The longest text that Postgres passes to a background worker, in bytes: BGW_EXTRALEN without the
/// terminating NUL byte.
pub const LONGEST: usize = 127;

/// The work requested from a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerCommand {
    Update(Mode),
    /// Update the flow, and compare its external targets with the ledger.
    Verify,
    /// Do the same, and queue the changes that mend the differences.
    Repair,
    /// Compare the targets of a live flow with what they should hold, and record what differs. No
    /// session waits for the result.
    VerifyDue,
    /// Drop the flow with everything that coco created for it.
    Drop,
}

impl WorkerCommand {
    fn name(self) -> &'static str {
        match self {
            WorkerCommand::Update(mode) => mode.name(),
            WorkerCommand::Verify => "verify",
            WorkerCommand::Repair => "repair",
            WorkerCommand::VerifyDue => "verify_due",
            WorkerCommand::Drop => "drop",
        }
    }

    /// Returns the mode of the update that the command runs, if it runs one.
    pub fn update_mode(self) -> Option<Mode> {
        match self {
            WorkerCommand::Update(mode) => Some(mode),
            WorkerCommand::Verify | WorkerCommand::Repair => Some(Mode::Normal),
            WorkerCommand::VerifyDue | WorkerCommand::Drop => None,
        }
    }

    fn from_name(name: &str) -> Option<WorkerCommand> {
        match name {
            "verify" => Some(WorkerCommand::Verify),
            "repair" => Some(WorkerCommand::Repair),
            "verify_due" => Some(WorkerCommand::VerifyDue),
            "drop" => Some(WorkerCommand::Drop),
            _ => Mode::from_name(name).map(WorkerCommand::Update),
        }
    }
}

/// A request of a session to a worker that it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerRequest {
    /// The key under which the worker stores its result.
    pub run_id: i64,
    pub flow_id: i32,
    pub command: WorkerCommand,
    /// Number of items per batch; at least 1.
    pub batch_size: usize,
    /// Size of a segment of a change log, in bytes.
    pub segment_bytes: i64,
    /// The label of the code under which the session works.
    pub label: Option<String>,
}

impl WorkerRequest {
    /// Returns the request as a text of at most [`LONGEST`] bytes. A label that does not fit is cut.
    pub fn to_text(&self) -> String {
        let WorkerRequest { run_id, flow_id, command, batch_size, segment_bytes, label } = self;
        let mut text =
            format!("{run_id} {flow_id} {} {batch_size} {segment_bytes}", command.name());
        if let Some(label) = label {
            text.push(' ');
            for character in label.chars() {
                if text.len() + character.len_utf8() > LONGEST {
                    break;
                }
                text.push(character);
            }
        }
        text
    }

    /// Returns the request that a text holds, or `None` if it holds none.
    pub fn from_text(text: &str) -> Option<WorkerRequest> {
        // The label is the rest of the text, and may contain blanks.
        let mut parts = text.splitn(6, ' ');
        let request = WorkerRequest {
            run_id: parts.next()?.parse().ok()?,
            flow_id: parts.next()?.parse().ok()?,
            command: WorkerCommand::from_name(parts.next()?)?,
            batch_size: parts.next()?.parse().ok().filter(|size| *size > 0)?,
            segment_bytes: parts.next()?.parse().ok()?,
            label: parts.next().filter(|label| !label.is_empty()).map(str::to_owned),
        };
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_fits_and_comes_back_as_it_was() {
        let commands = Mode::ALL.into_iter().map(WorkerCommand::Update);
        for command in commands.chain([
            WorkerCommand::Verify,
            WorkerCommand::Repair,
            WorkerCommand::VerifyDue,
            WorkerCommand::Drop,
        ]) {
            for (run_id, flow_id, batch_size, segment_bytes) in [
                (0, 1, 1, 0),
                (i64::MIN, i32::MIN, usize::MAX, i64::MIN),
                (i64::MAX, i32::MAX, 10_000, i64::MAX),
            ] {
                for label in [None, Some("a1b2c3"), Some("release 1.2, of June")] {
                    let label = label.map(str::to_owned);
                    let request = WorkerRequest {
                        run_id,
                        flow_id,
                        command,
                        batch_size,
                        segment_bytes,
                        label,
                    };
                    let text = request.to_text();
                    assert!(text.len() <= LONGEST, "{text}");
                    assert_eq!(WorkerRequest::from_text(&text), Some(request), "{text}");
                }
            }
        }
    }

    #[test]
    fn a_label_that_does_not_fit_is_cut_between_characters() {
        let request = WorkerRequest {
            run_id: 1,
            flow_id: 2,
            command: WorkerCommand::Drop,
            batch_size: 3,
            segment_bytes: 4,
            label: Some("é".repeat(LONGEST)),
        };
        let text = request.to_text();
        assert!(text.len() <= LONGEST && text.len() > LONGEST - 2, "{text}");
        let label = WorkerRequest::from_text(&text).and_then(|request| request.label);
        assert!(label.is_some_and(|label| label.chars().all(|c| c == 'é')), "{text}");
    }

    #[test]
    fn a_text_that_is_no_request_is_refused() {
        let texts = [
            "",
            "1",
            "1 2 normal 3",
            "1 2 normal 0 4",
            "1 2 normal -3 4",
            "1 2 other 3 4",
            "1  2 normal 3 4",
            "9223372036854775808 2 normal 3 4",
        ];
        for text in texts {
            assert_eq!(WorkerRequest::from_text(text), None, "{text}");
        }
    }
}
