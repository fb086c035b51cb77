//! Classifies requests without a response.

use std::error::Error;
use std::io;

use super::endpoint::Endpoint;
use coco_core::change::DeliveryError;

/// Returns the error for a request without a response. It concerns the whole server: the next
/// request may succeed. The server may have processed the request, and coco will repeat it.
pub fn no_answer(error: &reqwest::Error, endpoint: &Endpoint) -> DeliveryError {
    let peer = &endpoint.peer;
    let delivery_error = if is_tls(error) {
        DeliveryError::server("08001", format!("TLS cannot be agreed on with {peer}")).hint(
            "If its certificate comes from an authority of your own, give that one's certificate in \
             the server's option sslrootcert.",
        )
    } else if error.is_connect() && error.is_timeout() {
        let seconds = endpoint.connect_timeout.as_secs();
        DeliveryError::server("08001", format!("cannot connect to {peer} within {seconds} s"))
            .hint("The server's option connect_timeout says how long to try.")
    } else if error.is_connect() {
        DeliveryError::server("08001", format!("cannot connect to {peer}"))
            .hint("Check that it is up, and the server's option url.")
    } else if error.is_timeout() {
        let seconds = endpoint.request_timeout.as_secs();
        DeliveryError::server("08006", format!("{peer} has not answered within {seconds} s")).hint(
            "Raise the server's option request_timeout, or lower batch_size so that a request is \
             less work.",
        )
    } else {
        DeliveryError::server("08006", format!("{peer} has ended the connection without an answer"))
    };
    match causes(error).last() {
        Some(cause) => delivery_error.detail(peer.quote(&cause.to_string())),
        None => delivery_error,
    }
}

/// Reports whether the TLS handshake failed. A retry fails in the same way.
pub fn is_tls(error: &reqwest::Error) -> bool {
    error.is_connect() && causes(error).any(|cause| cause.is::<rustls::Error>())
}

/// Returns the causes of an error, the first cause last. The error itself is omitted because it
/// contains the URL.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| match cause.downcast_ref::<io::Error>() {
        // `io::Error::source` returns the source of the inner error, and would skip the inner
        // error.
        Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => cause.source(),
    })
}
