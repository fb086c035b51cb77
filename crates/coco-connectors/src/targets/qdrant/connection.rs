//! The connection to a server: gRPC services that send the key.
//!
//! The services are those that `qdrant-client` generates, without its wrapper. The wrapper repeats
//! a request that timed out, trusts only the system's certificates, and writes an invalid key into
//! its errors.

use std::time::Duration;

use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::points_client::PointsClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::config::Config;

/// Maximum bytes of a response. The description of a collection is the longest.
const LONGEST_ANSWER: usize = 1 << 20;

type Service = InterceptedService<Channel, Key>;

/// Maximum bytes of a response with points.
const LONGEST_PAGE: usize = 64 << 20;

/// A connection that is opened when it is first needed.
pub struct Connection {
    endpoint: Endpoint,
    request_timeout: Duration,
    channel: Option<Channel>,
    key: Key,
}

/// The API key, which is sent with each request.
#[derive(Clone)]
pub struct Key(Option<MetadataValue<Ascii>>);

impl Interceptor for Key {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("api-key", key.clone());
        }
        Ok(request)
    }
}

impl Connection {
    /// Creates a connection without connecting.
    pub fn new(config: Config) -> Connection {
        let Config { endpoint, request_timeout, api_key } = config;
        Connection { endpoint, request_timeout, channel: None, key: Key(api_key) }
    }

    /// Returns the service for points. Like [`Connection::collections`], it must be called in a
    /// runtime.
    pub fn points(&mut self) -> PointsClient<Service> {
        PointsClient::new(self.service()).max_decoding_message_size(LONGEST_ANSWER)
    }

    /// Returns the service that reads points.
    pub fn pages(&mut self) -> PointsClient<Service> {
        PointsClient::new(self.service()).max_decoding_message_size(LONGEST_PAGE)
    }

    /// Returns the service for collections.
    pub fn collections(&mut self) -> CollectionsClient<Service> {
        CollectionsClient::new(self.service()).max_decoding_message_size(LONGEST_ANSWER)
    }

    fn service(&mut self) -> Service {
        // Created here, not in `new`, because it needs the runtime of the requests.
        let channel = self.channel.get_or_insert_with(|| self.endpoint.connect_lazy()).clone();
        InterceptedService::new(channel, self.key.clone())
    }

    /// Waits for a response within the request timeout. tonic's own timeout ends when the response
    /// begins.
    pub async fn answer<T>(
        &self,
        request: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        match tokio::time::timeout(self.request_timeout, request).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => {
                let seconds = self.request_timeout.as_secs();
                Err(Status::deadline_exceeded(format!("{seconds} seconds have passed")))
            }
        }
    }
}
