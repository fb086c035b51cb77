//! The connection to a server: the services that it has, asked with the key.
//!
//! The services are those that `qdrant-client` has generated, without its wrapper around them: that
//! sends a request a second time when the first ran out of time, trusts the system's certificates
//! alone, and writes a key that it cannot send into its errors.

use std::time::Duration;

use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::points_client::PointsClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::config::Config;

/// The most bytes of an answer: the description of a collection is the longest that is asked for.
const LONGEST_ANSWER: usize = 1 << 20;

type Service = InterceptedService<Channel, Key>;

/// A connection that is made when it is needed first.
pub struct Connection {
    endpoint: Endpoint,
    request_timeout: Duration,
    channel: Option<Channel>,
    key: Key,
}

/// The API key, which each request has with it.
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
    /// Connects to nothing yet.
    pub fn new(config: Config) -> Connection {
        let Config { endpoint, request_timeout, api_key } = config;
        Connection { endpoint, request_timeout, channel: None, key: Key(api_key) }
    }

    /// The service for points. Needs a runtime, as [`Connection::collections`] does.
    pub fn points(&mut self) -> PointsClient<Service> {
        PointsClient::new(self.service()).max_decoding_message_size(LONGEST_ANSWER)
    }

    /// The service for collections.
    pub fn collections(&mut self) -> CollectionsClient<Service> {
        CollectionsClient::new(self.service()).max_decoding_message_size(LONGEST_ANSWER)
    }

    fn service(&mut self) -> Service {
        // Here and not in `new`: it needs the runtime that requests are made on.
        let channel = self.channel.get_or_insert_with(|| self.endpoint.connect_lazy()).clone();
        InterceptedService::new(channel, self.key.clone())
    }

    /// Waits for an answer as long as is said. tonic's own timeout is over when an answer begins.
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
