//! The callbacks of a client of librdkafka, and what they record for [`super::producer`].

use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

use crate::targets::kafka::error::LastError;

/// A record that was not delivered, and why.
#[derive(Clone, Copy, Debug)]
pub struct FailedRecord {
    /// Index of its change.
    pub place: usize,
    pub code: Code,
    /// Whether the record itself certainly caused the error, not another one that was sent with it.
    pub alone: bool,
}

/// The callbacks of a client: they record errors and deliveries.
#[derive(Default)]
pub struct ClientEvents {
    pub last_error: Mutex<Option<LastError>>,
    pub deliveries: Mutex<Deliveries>,
}

/// The delivery reports of the records that were sent together.
#[derive(Default)]
pub struct Deliveries {
    pub delivered: usize,
    pub failed: Vec<FailedRecord>,
}

impl ClientContext for ClientEvents {
    /// Ignores log lines: relevant ones also arrive as errors, and the default would write to the
    /// stderr of the database server.
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut last_error = lock(&self.last_error);
        // "All brokers are down" says less than the earlier error of one of them.
        if code != Code::AllBrokersDown || last_error.is_none() {
            *last_error = Some(LastError { code, reason: reason.to_owned() });
        }
    }
}

impl ProducerContext for ClientEvents {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        let mut deliveries = lock(&self.deliveries);
        match result {
            Ok(_) => deliveries.delivered += 1,
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
                deliveries.failed.push(FailedRecord { place, code, alone: false });
            }
        }
    }
}

/// Locks a mutex. Its content is consistent even if a thread has panicked.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
