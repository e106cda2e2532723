//! The one configured API: a shared client, and one call through it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Either;
use hyper::body::{Body, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::BrokerError;
use super::credential::Injected;
use super::gate::{self, Endpoint};
use super::refusal::Refusal;
use super::relay::{Answer, AnswerBody, BODY_LIMIT, Rest, Tally, Upload, UploadError};
use crate::model::{AgentName, ModelCall};

/// To a TCP connection, over all addresses.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// To a connection that takes the request: name lookup, TCP and TLS.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// To the answer's headers: what the CLI itself waits.
const HEADERS_LIMIT: Duration = Duration::from_secs(600);
/// How long an unused connection is kept, and how many.
const POOL_TIME: Duration = Duration::from_secs(55);
const POOL_SIZE: usize = 4;
/// Probes find a peer that vanished under a silent stream.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The read buffer of a connection to the API, and the most its headers may have.
const BUFFER: usize = 64 * 1024;

/// The API and the way to it.
pub(super) struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, Upload>,
    root: String,
    host: String,
}

impl Upstream {
    pub(super) fn new(url: &str) -> Result<Self, BrokerError> {
        let host = host_of(url).map_err(|reason| BrokerError::Upstream { url: url.to_owned(), reason })?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_LIMIT));
        tcp.set_keepalive(Some(KEEPALIVE));
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(BrokerError::Tls)?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_TIME)
            .pool_max_idle_per_host(POOL_SIZE)
            .http1_max_buf_size(BUFFER)
            .build(connector);
        Ok(Self { client, root: url.trim_end_matches('/').to_owned(), host })
    }

    /// Carries one request to the API and hands back the answer as soon as its headers are there; or why not, with
    /// the body's rest when the cell may still be sending it.
    pub(super) async fn call(
        &self,
        endpoint: Endpoint,
        request: Request<Incoming>,
        credential: Arc<Injected>,
        agent: &AgentName,
        calls: &mpsc::Sender<ModelCall>,
    ) -> Result<Response<AnswerBody>, (Refusal, Option<Incoming>)> {
        let (parts, body) = request.into_parts();
        if body.size_hint().lower() > BODY_LIMIT {
            return Err((Refusal::TooLarge, Some(body)));
        }
        let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let Ok(uri) = format!("{}{}{query}", self.root, endpoint.path()).parse::<Uri>() else {
            return Err((Refusal::Path, Some(body)));
        };
        let (upload, rest) = Upload::new(body);
        let mut outgoing =
            Request::post(uri).version(Version::HTTP_11).body(upload).map_err(|_| (Refusal::Path, None))?;
        *outgoing.headers_mut() = gate::to_upstream(parts.headers, &credential);

        let mut tally = (endpoint == Endpoint::Messages).then(|| Tally::new(agent.clone(), calls.clone()));
        let answer = self.exchange(outgoing, rest).await.map_err(|(refusal, rest)| {
            tracing::warn!(%agent, ?endpoint, %refusal, "model call failed");
            (refusal, rest)
        })?;
        let (parts, body) = answer.into_parts();
        let status = parts.status;
        tracing::debug!(%agent, ?endpoint, status = status.as_u16(), "model call answered");
        if let Some(tally) = &mut tally {
            let kind = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
            tally.answered(status.as_u16(), kind);
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err((Refusal::Unreachable(format!("{} wants another protocol", self.host)), None));
        }
        // A fresh response: the reason phrase and other extensions stay behind.
        let headers = gate::to_cell(parts.headers, &credential);
        let mut response = Response::new(Either::Right(Answer::new(body, tally, credential)));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    async fn exchange(
        &self,
        request: Request<Upload>,
        rest: Rest,
    ) -> Result<Response<Incoming>, (Refusal, Option<Incoming>)> {
        let Rest { begun, rest } = rest;
        let mut answer = Box::pin(self.client.request(request));
        let outcome = tokio::select! {
            biased;
            outcome = &mut answer => Some(outcome),
            ready = timeout(READY_LIMIT, begun) => match ready {
                Ok(_) => timeout(HEADERS_LIMIT, &mut answer).await.ok(),
                Err(_) => None,
            },
        };
        let refusal = match outcome {
            Some(Ok(response)) => return Ok(response),
            Some(Err(error)) => self.refusal(&error),
            None => Refusal::Silent(self.host.clone()),
        };
        drop(answer);
        // Given back at once when the connection never stood; the connection's task may need a moment.
        let rest = timeout(Duration::from_secs(1), rest).await.ok().and_then(Result::ok);
        Err((refusal, rest))
    }

    /// In plain words. The errors name addresses and causes, never headers.
    fn refusal(&self, error: &legacy::Error) -> Refusal {
        let mut root: &dyn Error = error;
        while let Some(source) = root.source() {
            match source.downcast_ref() {
                Some(UploadError::TooLarge) => return Refusal::TooLarge,
                Some(UploadError::Stalled | UploadError::Cell(_)) => return Refusal::BodyStalled,
                None => root = source,
            }
        }
        let host = &self.host;
        Refusal::Unreachable(if error.is_connect() {
            format!("cannot connect to {host}: {root}")
        } else {
            format!("the connection to {host} broke: {root}")
        })
    }
}

/// Checks the API's root and names its host.
fn host_of(url: &str) -> Result<String, &'static str> {
    let uri: Uri = url.parse().map_err(|_| "it is not a URL")?;
    let authority = uri.authority().ok_or("it names no host")?;
    if authority.as_str().contains('@') {
        return Err("it must not contain a user name or password");
    }
    if uri.query().is_some() || url.contains('#') {
        return Err("it must not have a query or fragment");
    }
    let host = authority.host();
    let bare = host.trim_matches(['[', ']']);
    let loopback = bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(host.to_owned()),
        Some("http") if loopback => Ok(host.to_owned()),
        Some("http") => Err("plain http would show the credential on the network: use https"),
        _ => Err("it must begin with https://"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upstream_is_https_or_plain_http_on_loopback() {
        for good in [
            "https://api.anthropic.com",
            "https://gateway.example/anthropic/",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "http://localhost:1",
        ] {
            assert!(host_of(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "api.anthropic.com",
            "ftp://x",
            "http://api.anthropic.com",
            "https://a:b@c",
            "https://x/?a=b",
            "https://x/#f",
            "http://127.0.0.1.example.com",
        ] {
            assert!(host_of(bad).is_err(), "{bad}");
        }
    }
}
