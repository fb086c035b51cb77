//! Each transition of a delivery, on a target and a local database in memory.
//!
//! The texts list what happens, in order; a word in parentheses is a crash point.

mod fake;

use std::time::Duration;

use crate::change::{DeliveryError, RejectedChange};
use crate::target_delivery::ports::{Existence, Preparation, StreamOutcome};
use crate::target_delivery::progress::{Progress, Standing};
use fake::{Buffer, Fixture, JobEnd, Lock};

const SECOND: Duration = Duration::from_secs(1);

fn error() -> DeliveryError {
    DeliveryError::server("08006", "connection lost")
}

fn checked(existence: Existence) -> Option<JobEnd> {
    Some(JobEnd::Check(Ok(existence)))
}

fn delivered() -> Option<JobEnd> {
    Some(JobEnd::Delivery(Preparation::None, Ok(vec![])))
}

fn opened(preparation: Preparation) -> Option<JobEnd> {
    Some(JobEnd::Delivery(preparation, Ok(vec![])))
}

fn lost() -> Option<JobEnd> {
    Some(JobEnd::Delivery(Preparation::None, Err(error())))
}

/// The change at this place in its batch is rejected.
fn rejected(change: usize) -> Option<JobEnd> {
    let refused = RejectedChange { change, sqlstate: "22003".to_owned(), message: String::new() };
    Some(JobEnd::Delivery(Preparation::None, Ok(vec![refused])))
}

fn streamed(outcome: Result<StreamOutcome, DeliveryError>) -> Option<JobEnd> {
    Some(JobEnd::Stream(outcome))
}

/// A target that is open, a stream to it, and the rows 1 to 6 of an initial load, of which the
/// target was sent those up to `read`.
fn streaming(read: i64) -> Fixture {
    let mut fixture = Fixture::new([]);
    fixture.delivery.open_if_new().expect("the target opens");
    fixture.advance(opened(Preparation::Found)).expect("the target is open");
    assert!(fixture.delivery.start_stream().expect("a stream starts").is_some());
    fixture.log();
    let lock = Lock::take(&fixture.world);
    fixture.world.filling.set(Some(6));
    fixture.delivery.take_over(Buffer { rows: (1..=6).collect(), read }, Some(lock));
    fixture
}

#[test]
fn a_batch_is_acknowledged_before_the_next_is_sent() {
    let mut fixture = Fixture::new(1..=5);
    fixture.check_steps(&[
        (None, "lock (read) connect send 1,2 (sending) read 3,4", Standing::InFlight),
        (None, "", Standing::InFlight),
        (
            delivered(),
            "(sent) acknowledge 1,2 (settled) (read) send 3,4 (sending) read 5",
            Standing::InFlight,
        ),
        (
            delivered(),
            "(sent) acknowledge 3,4 (settled) (read) send 5 (sending)",
            Standing::InFlight,
        ),
        (delivered(), "(sent) acknowledge 5 (settled) unlock", Standing::Done),
        (None, "lock unlock", Standing::Done),
    ]);
}

#[test]
fn a_missing_target_is_recorded_before_it_is_created() {
    let first = "lock (read) connect check (sending)";
    // What the job finds, and what coco records in addition.
    let cases = [
        (Existence::Missing, "record creation (making) send 1", Preparation::Created, ""),
        (
            Existence::Missing,
            "record creation (making) send 1",
            Preparation::Found,
            "record not managed ",
        ),
        (Existence::Exists, "send 1", Preparation::Found, ""),
        (Existence::Exists, "send 1", Preparation::Created, "record managed "),
    ];
    for (existence, second, preparation, recorded) in cases {
        let mut fixture = Fixture::new([1]);
        fixture.world.is_managed.set(false);
        fixture.check_steps(&[
            (None, first, Standing::InFlight),
            (checked(existence), second, Standing::InFlight),
            (
                opened(preparation),
                format!("{recorded}(sent) acknowledge 1 (settled) unlock").as_str(),
                Standing::Done,
            ),
        ]);
    }
}

#[test]
fn the_record_goes_if_the_target_could_not_be_created() {
    let mut fixture = Fixture::new([1]);
    fixture.world.is_managed.set(false);
    fixture.check_steps(&[
        (None, "lock (read) connect check (sending)", Standing::InFlight),
        (checked(Existence::Missing), "record creation (making) send 1", Standing::InFlight),
        (
            Some(JobEnd::Delivery(Preparation::Absent, Err(error()))),
            "record not managed record error: connection lost unlock",
            Standing::Failed,
        ),
    ]);
}

#[test]
fn without_a_record_nothing_is_created() {
    let mut fixture = Fixture::new([1]);
    fixture.world.is_managed.set(false);
    fixture.check_steps(&[(None, "lock (read) connect check (sending)", Standing::InFlight)]);
    fixture.world.fails.set(true);
    assert!(fixture.advance(checked(Existence::Missing)).is_err());
    assert_eq!(fixture.log(), "unlock");
    // It starts over with the check.
    fixture.check_steps(&[(None, "lock (read) connect check (sending)", Standing::InFlight)]);
}

#[test]
fn a_failed_connection_pauses_delivery() {
    let mut fixture = Fixture::new([1]);
    fixture.world.is_managed.set(false);
    fixture.check_steps(&[
        (None, "lock (read) connect check (sending)", Standing::InFlight),
        (
            Some(JobEnd::Check(Err(error()))),
            "record error: connection lost unlock",
            Standing::Failed,
        ),
        (None, "lock unlock", Standing::Waiting(SECOND)),
    ]);
    // The database says when to try again.
    fixture.world.pause.set(Duration::ZERO);
    fixture.check_steps(&[(None, "lock (read) connect check (sending)", Standing::InFlight)]);
}

#[test]
fn a_target_that_cannot_be_reached_pauses_delivery() {
    let mut fixture = Fixture::new([1]);
    fixture.world.is_unreachable.set(true);
    fixture.check_steps(&[
        (None, "lock record error: no rights unlock", Standing::Failed),
        (None, "lock unlock", Standing::Waiting(SECOND)),
    ]);
}

#[test]
fn a_connection_lost_in_flight_sends_the_batch_again() {
    let mut fixture = Fixture::new(1..=4);
    let first = "lock (read) connect send 1,2 (sending) read 3,4";
    fixture.check_steps(&[
        (None, first, Standing::InFlight),
        (lost(), "record error: connection lost unlock", Standing::Failed),
    ]);
    fixture.world.pause.set(Duration::ZERO);
    // On a new connection, and before the batch that was read after it.
    fixture.check_steps(&[(None, first, Standing::InFlight)]);
}

#[test]
fn a_batch_that_cannot_be_acknowledged_is_sent_again() {
    let mut fixture = Fixture::new(1..=4);
    let first = "lock (read) connect send 1,2 (sending) read 3,4";
    fixture.check_steps(&[(None, first, Standing::InFlight)]);
    fixture.world.fails.set(true);
    assert!(fixture.advance(delivered()).is_err());
    assert_eq!(fixture.log(), "(sent) unlock");
    fixture.check_steps(&[(None, first, Standing::InFlight)]);
}

#[test]
fn a_rejected_row_does_not_stop_the_others() {
    let mut fixture = Fixture::new(1..=3);
    fixture.advance(None).expect("the batch is sent");
    fixture.log();
    let progress = fixture.advance(rejected(1)).expect("the batch is acknowledged");
    assert_eq!(
        progress,
        Progress { standing: Standing::InFlight, rejected: 1, is_interrupted: false }
    );
    assert_eq!(fixture.log(), "(sent) reject 2 acknowledge 1,2 (settled) (read) send 3 (sending)");
}

#[test]
fn another_process_delivers() {
    let mut fixture = Fixture::new([1]);
    fixture.world.is_locked_elsewhere.set(true);
    fixture.check_steps(&[(None, "", Standing::OtherProcess)]);
    assert_eq!(fixture.delivery.is_interrupted(), Ok(false));
}

#[test]
fn lost_rows_of_an_initial_load_cause_all_rows_to_be_sent() {
    let mut fixture = Fixture::new([]);
    fixture.world.filling.set(Some(6));
    assert_eq!(fixture.delivery.is_interrupted(), Ok(true));
    let progress = fixture.advance(None).expect("nothing to send");
    assert_eq!((progress.standing, progress.is_interrupted), (Standing::Done, true));
    assert_eq!(fixture.world.locks.get(), 0);
}

#[test]
fn a_new_target_is_opened_ahead_without_errors() {
    let mut fixture = Fixture::new([]);
    fixture.world.is_managed.set(false);
    fixture.delivery.open_if_new().expect("it starts");
    assert_eq!(
        (fixture.log().as_str(), fixture.delivery.is_opening()),
        ("lock connect check", true)
    );
    fixture.check_steps(&[
        (checked(Existence::Missing), "record creation (making) open", Standing::InFlight),
        // There are no rows yet: the error is recorded when rows cannot be delivered.
        (lost(), "(opened) unlock", Standing::Done),
    ]);
    assert!(!fixture.delivery.is_opening());
}

#[test]
fn a_target_that_received_rows_is_not_opened_ahead() {
    let mut fixture = Fixture::new([]);
    fixture.world.sent.set(1);
    fixture.delivery.open_if_new().expect("nothing starts");
    assert_eq!((fixture.log().as_str(), fixture.delivery.is_in_flight()), ("lock unlock", false));
}

#[test]
fn streamed_rows_are_acknowledged_and_the_rest_is_sent_in_batches() {
    let mut fixture = streaming(3);
    assert_eq!(fixture.log(), "(held) signal commit (sending) unlock");
    fixture.check_steps(&[
        (None, "read 4,5", Standing::Reading),
        (
            streamed(Ok(StreamOutcome::Accepted)),
            "(sent) acknowledge 1,2,3 (settled) (read) send 4,5 (sending) read 6",
            Standing::Reading,
        ),
        (
            delivered(),
            "(sent) acknowledge 4,5 (settled) (read) send 6 (sending)",
            Standing::InFlight,
        ),
        (delivered(), "(sent) acknowledge 6 (settled) unlock", Standing::Done),
    ]);
    assert_eq!((fixture.world.locks.get(), fixture.world.filling.get()), (0, None));
}

#[test]
fn a_stream_that_is_not_accepted_is_sent_again_in_batches() {
    for (outcome, why) in
        [(Ok(StreamOutcome::NotAccepted), ""), (Err(error()), "resend: connection lost ")]
    {
        let mut fixture = streaming(3);
        fixture.log();
        fixture.check_steps(&[
            (None, "read 4,5", Standing::Reading),
            (
                streamed(outcome),
                format!("restart {why}(read) send 1,2 (sending) read 3,4").as_str(),
                Standing::Reading,
            ),
        ]);
    }
}

#[test]
fn a_stream_whose_rows_are_not_committed_is_rolled_back() {
    let mut fixture = Fixture::new([1]);
    fixture.delivery.open_if_new().expect("the target opens");
    fixture.advance(opened(Preparation::Found)).expect("the first batch is sent");
    fixture.advance(delivered()).expect("the batch is acknowledged");
    assert!(fixture.delivery.start_stream().expect("a stream starts").is_some());
    fixture.log();
    fixture.delivery.withdraw_stream();
    assert_eq!(fixture.log(), "signal rollback");
    fixture.check_steps(&[(streamed(Ok(StreamOutcome::NotAccepted)), "unlock", Standing::Done)]);
}

#[test]
fn a_committed_stream_is_not_withdrawn() {
    let mut fixture = streaming(6);
    fixture.log();
    fixture.delivery.withdraw_stream();
    assert_eq!(fixture.log(), "");
}

#[test]
fn rows_that_were_streamed_after_the_withdrawal_are_sent_in_batches() {
    let mut fixture = Fixture::new([]);
    fixture.delivery.open_if_new().expect("the target opens");
    fixture.advance(opened(Preparation::Found)).expect("the target is open");
    assert!(fixture.delivery.start_stream().expect("a stream starts").is_some());
    fixture.delivery.withdraw_stream();
    fixture.log();
    let lock = Lock::take(&fixture.world);
    fixture.delivery.take_over(Buffer { rows: (1..=3).collect(), read: 2 }, Some(lock));
    // Without "signal commit".
    assert_eq!(fixture.log(), "(held) (sending) unlock");
    fixture.check_steps(&[
        (None, "read 3", Standing::Reading),
        (
            streamed(Ok(StreamOutcome::NotAccepted)),
            "restart (read) send 1,2 (sending) read 3",
            Standing::Reading,
        ),
    ]);
}

#[test]
fn rows_of_a_stream_that_has_ended_are_sent_in_batches() {
    let mut fixture = Fixture::new([]);
    let lock = Lock::take(&fixture.world);
    fixture.delivery.take_over(Buffer { rows: (1..=3).collect(), read: 2 }, Some(lock));
    fixture.check_steps(&[(
        None,
        "(held) restart (read) connect send 1,2 (sending) read 3",
        Standing::Reading,
    )]);
}

#[test]
fn a_buffer_that_stops_is_moved_to_the_outbox() {
    let cases = [
        (rejected(0), "(sent) queue 1,2,3 (settled) (read) send 1,2 (sending) read 3"),
        (lost(), "record error: connection lost queue 1,2,3 unlock"),
    ];
    for (end, expected) in cases {
        let mut fixture = Fixture::new([]);
        let lock = Lock::take(&fixture.world);
        fixture.delivery.take_over(Buffer { rows: vec![1, 2, 3], read: 0 }, Some(lock));
        fixture.advance(None).expect("the first batch is sent");
        fixture.log();
        fixture.advance(end).expect("no transaction fails");
        assert_eq!(fixture.log(), expected);
    }
    let mut fixture = Fixture::new([]);
    let lock = Lock::take(&fixture.world);
    fixture.delivery.take_over(Buffer { rows: (1..=6).collect(), read: 0 }, Some(lock));
    fixture.world.is_expired.set(true);
    fixture.check_steps(&[
        (None, "(held) (read) connect send 1,2 (sending) read 3,4", Standing::Reading),
        (
            delivered(),
            "(sent) acknowledge 1,2 queue 3,4,5,6 (settled) (read) send 3,4 (sending) read 5,6",
            Standing::InFlight,
        ),
    ]);
}

#[test]
fn rows_that_cannot_be_encoded_are_moved_to_the_outbox() {
    let mut fixture = Fixture::new([]);
    let lock = Lock::take(&fixture.world);
    fixture.delivery.take_over(Buffer { rows: vec![1, 2], read: 0 }, Some(lock));
    fixture.world.is_unencodable.set(true);
    fixture.check_steps(&[
        (None, "(held) queue 1,2 (read) connect send 1,2 (sending)", Standing::InFlight),
        (delivered(), "(sent) acknowledge 1,2 (settled) unlock", Standing::Done),
    ]);
}

#[test]
fn a_buffer_that_cannot_be_moved_releases_the_lock() {
    let mut fixture = Fixture::new([]);
    let lock = Lock::take(&fixture.world);
    fixture.world.filling.set(Some(2));
    fixture.delivery.take_over(Buffer { rows: vec![1, 2], read: 0 }, Some(lock));
    fixture.world.fails.set(true);
    assert!(fixture.delivery.close().is_err());
    assert_eq!(fixture.world.locks.get(), 0);
    // The mark stays, so that all rows are sent again.
    assert_eq!(fixture.delivery.is_interrupted(), Ok(true));
}

#[test]
fn closing_in_flight_keeps_the_lock_until_the_process_ends() {
    let mut fixture = Fixture::new([]);
    let lock = Lock::take(&fixture.world);
    fixture.delivery.take_over(Buffer { rows: (1..=4).collect(), read: 0 }, Some(lock));
    fixture.advance(None).expect("the first batch is sent");
    fixture.log();
    fixture.delivery.close().expect("the buffer is moved");
    let Fixture { world, delivery } = fixture;
    drop(delivery);
    // Without "unlock": the batch may still be on its way.
    assert_eq!((world.locks.get(), world.outbox.borrow().clone()), (1, vec![1, 2, 3, 4]));
}

#[test]
fn closing_otherwise_releases_the_lock() {
    let mut fixture = Fixture::new([]);
    let lock = Lock::take(&fixture.world);
    fixture.delivery.take_over(Buffer { rows: vec![1, 2], read: 0 }, Some(lock));
    fixture.delivery.close().expect("the buffer is moved");
    assert_eq!(fixture.log(), "(held) queue 1,2 unlock");
    assert_eq!(fixture.world.locks.get(), 0);
}

#[test]
fn an_ended_job_of_a_stopped_flow_is_discarded() {
    let mut fixture = Fixture::new([1]);
    fixture.advance(None).expect("the batch is sent");
    assert!(fixture.delivery.is_running());
    fixture.world.end_job(delivered());
    assert!(!fixture.delivery.is_running());
    fixture.log();
    fixture.delivery.close().expect("it closes");
    // It was not acknowledged, so another process sends it again.
    assert_eq!((fixture.log().as_str(), fixture.world.sent.get()), ("unlock", 0));
}
