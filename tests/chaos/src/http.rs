//! The clients' side of HTTP.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::time::timeout;

/// An answer, read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// A header as text; empty if it isn't there.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|it| it.to_str().ok()).unwrap_or_default()
    }

    /// What went wrong, by a node's answer: the kind and the message.
    pub fn complaint(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let message = body["message"].as_str().unwrap_or_default();
        let kind = self.header("gaocache-error");
        format!("{} {kind}: {message}", self.status.as_u16())
    }
}

/// A client that keeps its connections. Cheap to clone.
#[derive(Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Http {
    /// Without connections; they are made when first needed.
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
        }
    }

    /// Sends a request and reads the answer, both within `bound`.
    ///
    /// # Errors
    /// If there is no whole answer in time.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        body: impl Into<Bytes>,
        bound: Duration,
    ) -> Result<Answer> {
        let request = Request::builder().method(method).uri(url);
        let request = request.body(Full::new(body.into()))?;
        let whole = async {
            let response = self.client.request(request).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Answer {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        match timeout(bound, whole).await {
            Ok(answer) => answer,
            Err(_) => bail!("no answer within {bound:?}"),
        }
    }

    /// `GET`.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub async fn get(&self, url: &str, bound: Duration) -> Result<Answer> {
        self.send(Method::GET, url, "", bound).await
    }

    /// `GET` of JSON from something that answers at once.
    ///
    /// # Errors
    /// If it doesn't.
    pub async fn json(&self, url: &str) -> Result<Value> {
        let answer = self.get(url, Duration::from_secs(2)).await?;
        if !answer.status.is_success() {
            bail!("{url}: {}", answer.status);
        }
        serde_json::from_slice(&answer.body).with_context(|| url.to_owned())
    }
}
