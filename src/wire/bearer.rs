//! The bearer token that a client's calls carry.

use std::fmt;

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use super::cache_client::CacheClient;
use gaocache_core::error::{Error, ErrorKind, Result};

/// A client whose calls carry a token, if there is one.
pub type BearingClient = CacheClient<InterceptedService<Channel, Bearer>>;

/// A bearer token, or none. It is never shown.
#[derive(Clone, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    /// This token.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if no header can carry it.
    pub fn new(token: &str) -> Result<Self> {
        let value = format!("Bearer {}", token.trim()).parse();
        let mut value: MetadataValue<Ascii> = value.map_err(|error| {
            let what = "a bearer token consists of printable ASCII characters";
            Error::new(ErrorKind::InvalidRequest, what).with_source(error)
        })?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }

    /// As a header's value.
    #[cfg(feature = "cli")]
    pub fn header(&self) -> Option<http::HeaderValue> {
        let bytes = self.0.as_ref()?.as_encoded_bytes();
        let mut value = http::HeaderValue::from_bytes(bytes).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// A client over this channel. The node limits the size of values; the client accepts any size.
    pub fn client(&self, channel: Channel) -> BearingClient {
        CacheClient::with_interceptor(channel, self.clone()).max_decoding_message_size(usize::MAX)
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bearer")
            .field(&self.0.as_ref().map(|_| "…"))
            .finish()
    }
}
