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
        DeliveryError::server("08001", format!("could not negotiate TLS with {peer}")).hint(
            "If a private authority has signed its certificate, set that authority's certificate \
             in the server's option sslrootcert.",
        )
    } else if error.is_connect() && error.is_timeout() {
        let seconds = endpoint.connect_timeout.as_secs();
        DeliveryError::server("08001", format!("could not connect to {peer} within {seconds} s"))
            .hint("Check the network, or raise the server's option connect_timeout.")
    } else if error.is_connect() {
        DeliveryError::server("08001", format!("could not connect to {peer}"))
            .hint("Check that the server is running, and check its option url.")
    } else if error.is_timeout() {
        let seconds = endpoint.request_timeout.as_secs();
        DeliveryError::server("08006", format!("{peer} did not answer within {seconds} s")).hint(
            "Raise the server's option request_timeout, or lower batch_size so that requests \
             become smaller.",
        )
    } else {
        DeliveryError::server("08006", format!("{peer} closed the connection without an answer"))
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
