//! Which requests pass, and what becomes of the headers in both directions. Pure.
//!
//! Invariant: what is not named here as allowed is refused; the path is compared byte for byte, so no other spelling
//! of an allowed path exists.

use hyper::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use hyper::{HeaderMap, Method, Uri};

use super::credential::Injected;
use super::refusal::Refusal;

/// One of the API's endpoints that a cell may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A model call: counted.
    Messages,
    /// A free question about a request's size: not counted.
    CountTokens,
}

impl Endpoint {
    /// Its path under the API's root.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Messages => "/v1/messages",
            Self::CountTokens => "/v1/messages/count_tokens",
        }
    }
}

/// What is done with a request.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Verdict {
    /// Goes to the API.
    Pass(Endpoint),
    /// The CLI's probe: answered here.
    Hello,
    /// Answered here.
    Refuse(Refusal),
}

/// Judges a request by its line and headers.
pub(super) fn judge(method: &Method, uri: &Uri, headers: &HeaderMap) -> Verdict {
    if let Some(what) = odd_form(method, uri, headers) {
        return Verdict::Refuse(Refusal::Form(what));
    }
    let endpoint = match uri.path() {
        "/v1/messages" => Endpoint::Messages,
        "/v1/messages/count_tokens" => Endpoint::CountTokens,
        "/api/hello" if method == Method::GET || method == Method::HEAD => return Verdict::Hello,
        "/api/hello" => return Verdict::Refuse(Refusal::Method("GET, HEAD")),
        "/" if method == Method::HEAD => return Verdict::Hello,
        _ => return Verdict::Refuse(Refusal::Path),
    };
    if method == Method::POST { Verdict::Pass(endpoint) } else { Verdict::Refuse(Refusal::Method("POST")) }
}

/// Names what a plain client of the API never sends.
fn odd_form(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<&'static str> {
    if method == Method::CONNECT || uri.authority().is_some() || uri.scheme().is_some() {
        return Some("requests to other hosts");
    }
    if method == Method::TRACE {
        return Some("TRACE");
    }
    let upgrade = connection_words(headers).any(|word| word.eq_ignore_ascii_case("upgrade"));
    if upgrade || headers.contains_key(UPGRADE) || headers.contains_key("http2-settings") {
        return Some("protocol upgrades");
    }
    if headers.keys().any(|name| name.as_str().starts_with("proxy-")) {
        return Some("proxy headers");
    }
    if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
        return Some("a body with two lengths");
    }
    None
}

fn connection_words(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
}

/// The headers the API gets: the cell's, without what belongs to the connection, without any credential or identity,
/// and with the real credential. Answers are asked for uncompressed, so that they can be counted as they pass.
pub(super) fn to_upstream(mut headers: HeaderMap, credential: &Injected) -> HeaderMap {
    remove_hop_by_hop(&mut headers);
    let named = [HOST, CONTENT_LENGTH, EXPECT, COOKIE, FORWARDED, VIA, ACCEPT_ENCODING];
    for name in named {
        headers.remove(name);
    }
    remove_where(&mut headers, |name| {
        name == "x-api-key"
            || name == "authorization"
            || name == "x-real-ip"
            || name.starts_with("x-forwarded-")
    });
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    credential.put(&mut headers);
    headers
}

/// The headers the cell gets: the API's, without what belongs to the connection, without cookies (a session of the
/// owner's), and without any that holds the credential.
pub(super) fn to_cell(mut headers: HeaderMap, credential: &Injected) -> HeaderMap {
    remove_hop_by_hop(&mut headers);
    headers.remove(SET_COOKIE);
    let reflecting: Vec<HeaderName> = headers
        .iter()
        .filter(|(name, value)| {
            credential.is_in(value.as_bytes()) || credential.is_in(name.as_str().as_bytes())
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in reflecting {
        headers.remove(name);
    }
    headers
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = connection_words(headers).filter_map(|word| word.parse().ok()).collect();
    for name in listed.into_iter().chain([CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE]) {
        headers.remove(name);
    }
    remove_where(headers, |name| name == "keep-alive" || name.starts_with("proxy-"));
}

fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Credential, Secret};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn credential() -> Injected {
        Injected::new(&Credential::ApiKey(Secret::new("sk-real".to_owned()))).unwrap()
    }

    #[test]
    fn only_the_two_endpoints_and_the_probe_pass() {
        let path = || Verdict::Refuse(Refusal::Path);
        let method = |allowed| Verdict::Refuse(Refusal::Method(allowed));
        let form = |what| Verdict::Refuse(Refusal::Form(what));
        let cases = [
            ("POST", "/v1/messages", Verdict::Pass(Endpoint::Messages)),
            ("POST", "/v1/messages?beta=true", Verdict::Pass(Endpoint::Messages)),
            ("POST", "/v1/messages/count_tokens?beta=true", Verdict::Pass(Endpoint::CountTokens)),
            ("HEAD", "/", Verdict::Hello),
            ("HEAD", "/api/hello", Verdict::Hello),
            ("GET", "/api/hello", Verdict::Hello),
            ("GET", "/", path()),
            ("POST", "/api/hello", method("GET, HEAD")),
            ("GET", "/v1/messages", method("POST")),
            ("PUT", "/v1/messages", method("POST")),
            ("OPTIONS", "/v1/messages", method("POST")),
            ("OPTIONS", "*", path()),
            ("POST", "/v1/messages/", path()),
            ("POST", "//v1/messages", path()),
            ("POST", "/v1//messages", path()),
            ("POST", "/v1/%6dessages", path()),
            ("POST", "/v1%2fmessages", path()),
            ("POST", "/v1/messages/../models", path()),
            ("POST", "/v1/messages/%2e%2e/files", path()),
            ("POST", "/x/../v1/messages", path()),
            ("POST", "/v1/messages;x=1", path()),
            ("POST", "/V1/Messages", path()),
            ("POST", "/v1/messages/batches", path()),
            ("GET", "/v1/models", path()),
            ("POST", "/v1/files", path()),
            ("POST", "/v1/organizations/me", path()),
            ("TRACE", "/v1/messages", form("TRACE")),
            ("POST", "http://example.com/v1/messages", form("requests to other hosts")),
            ("POST", "https://api.anthropic.com/v1/messages", form("requests to other hosts")),
            ("CONNECT", "example.com:443", form("requests to other hosts")),
        ];
        for (given, uri, expected) in cases {
            let verdict = judge(&given.parse().unwrap(), &uri.parse().unwrap(), &HeaderMap::new());
            assert_eq!(verdict, expected, "{given} {uri}");
        }
    }

    #[test]
    fn upgrades_proxy_headers_and_double_lengths_are_refused() {
        let cases: [(&[(&'static str, &'static str)], &str); 6] = [
            (&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c")], "protocol upgrades"),
            (&[("upgrade", "websocket")], "protocol upgrades"),
            (&[("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA")], "protocol upgrades"),
            (&[("proxy-authorization", "Basic eA==")], "proxy headers"),
            (&[("proxy-connection", "keep-alive")], "proxy headers"),
            (&[("transfer-encoding", "chunked"), ("content-length", "3")], "a body with two lengths"),
        ];
        for (pairs, expected) in cases {
            let verdict = judge(&Method::POST, &Uri::from_static("/v1/messages"), &headers(pairs));
            assert!(
                matches!(verdict, Verdict::Refuse(Refusal::Form(what)) if what == expected),
                "{pairs:?} {verdict:?}"
            );
        }
    }

    #[test]
    fn the_api_gets_the_cells_headers_with_one_real_credential() {
        let given = headers(&[
            ("host", "127.0.0.1:3128"),
            ("x-api-key", "sk-dummy"),
            ("x-api-key", "sk-second"),
            ("authorization", "Bearer dummy"),
            ("cookie", "a=b"),
            ("connection", "keep-alive, x-private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("x-forwarded-host", "elsewhere"),
            ("forwarded", "host=elsewhere"),
            ("accept-encoding", "gzip, br"),
            ("anthropic-beta", "claude-code-20250219"),
            ("anthropic-version", "2023-06-01"),
            ("x-claude-code-session-id", "s"),
            ("user-agent", "claude-cli"),
        ]);
        let expected = headers(&[
            ("accept-encoding", "identity"),
            ("anthropic-beta", "claude-code-20250219"),
            ("anthropic-version", "2023-06-01"),
            ("x-claude-code-session-id", "s"),
            ("user-agent", "claude-cli"),
            ("x-api-key", "sk-real"),
        ]);
        assert_eq!(to_upstream(given, &credential()), expected);
    }

    #[test]
    fn the_cell_gets_the_apis_headers_without_the_credential() {
        let given = headers(&[
            ("request-id", "req_1"),
            ("retry-after", "7"),
            ("anthropic-ratelimit-requests-remaining", "3"),
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("set-cookie", "__cf_bm=1"),
            ("x-echo", "you sent sk-real."),
            ("x-echo-sk-real", "1"),
        ]);
        let expected = headers(&[
            ("request-id", "req_1"),
            ("retry-after", "7"),
            ("anthropic-ratelimit-requests-remaining", "3"),
        ]);
        assert_eq!(to_cell(given, &credential()), expected);
    }
}
