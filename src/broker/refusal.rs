//! Answers of the broker itself, in the shape the Messages API gives its errors, so that the CLI shows the words. Pure.

use std::fmt;

use http_body_util::{Either, Full};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::relay::{AnswerBody, BODY_LIMIT};

/// Why the broker answers in place of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not one of the two endpoints.
    Path,
    /// The endpoint, with another method. Names the method allowed.
    Method(&'static str),
    /// Something a plain client of the API never sends.
    Form(&'static str),
    /// The body is larger than the API takes.
    TooLarge,
    /// The body came to a stop midway.
    BodyStalled,
    /// The owner has set no credential.
    NoCredential,
    /// The API could not be reached.
    Unreachable(String),
    /// The API did not answer in time.
    Silent(String),
}

impl Refusal {
    /// Status and error type.
    ///
    /// A missing credential is 403, not 401: the CLI retries a 401 for three minutes and then hides the message;
    /// a 403 ends the turn at once and is shown.
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Path => (StatusCode::NOT_FOUND, "not_found_error"),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error"),
            Self::Form(_) => (StatusCode::FORBIDDEN, "permission_error"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large"),
            Self::BodyStalled => (StatusCode::REQUEST_TIMEOUT, "invalid_request_error"),
            Self::NoCredential => (StatusCode::FORBIDDEN, "authentication_error"),
            Self::Unreachable(_) => (StatusCode::BAD_GATEWAY, "api_error"),
            Self::Silent(_) => (StatusCode::GATEWAY_TIMEOUT, "timeout_error"),
        }
    }

    /// The whole answer.
    pub(super) fn response(&self) -> Response<AnswerBody> {
        let (status, kind) = self.kind();
        let shape = serde_json::json!({
            "type": "error",
            "error": { "type": kind, "message": self.to_string() },
        });
        let mut response = json(status, shape.to_string());
        if let Self::Method(allowed) = self {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        }
        response
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path => f.write_str("Skep passes on only POST /v1/messages and POST /v1/messages/count_tokens."),
            Self::Method(allowed) => write!(f, "Skep passes on only {allowed} here."),
            Self::Form(what) => write!(f, "Skep does not pass on {what}."),
            Self::TooLarge => {
                write!(f, "The request is larger than {} MiB, which the model API does not take.", BODY_LIMIT >> 20)
            }
            Self::BodyStalled => f.write_str("The request's body did not arrive in time."),
            Self::NoCredential => f.write_str(
                "Skep has no credential for the model API. Owner: store an API key as the credential \
                 anthropic-api-key (or a subscription token as claude-oauth-token), then run `sudo systemctl reload skep`.",
            ),
            Self::Unreachable(why) => write!(f, "Skep cannot reach the model API: {why}"),
            Self::Silent(host) => write!(f, "The model API at {host} did not answer in time."),
        }
    }
}

/// The CLI's probe, answered without the API.
pub(super) fn hello() -> Response<AnswerBody> {
    json(StatusCode::OK, r#"{"message":"hello"}"#.to_owned())
}

fn json(status: StatusCode, text: String) -> Response<AnswerBody> {
    let mut response = Response::new(Either::Left(Full::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
