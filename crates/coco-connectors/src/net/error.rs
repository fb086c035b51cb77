//! What it means that a request got no answer.

use std::error::Error;
use std::io;

use super::endpoint::Endpoint;
use coco_core::change::DeliveryError;

/// All of these are the server's: the next request may find it well again. What was asked may have been
/// done all the same, and will be asked again.
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

/// Whether TLS was not agreed on, which it will not be the next time either.
pub fn is_tls(error: &reqwest::Error) -> bool {
    error.is_connect() && causes(error).any(|cause| cause.is::<rustls::Error>())
}

/// What lies below an error, the first cause last. Not the error itself: it names the URL.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| match cause.downcast_ref::<io::Error>() {
        // Its own source is that of the error in it, which would be passed by.
        Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => cause.source(),
    })
}
