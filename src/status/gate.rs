//! Which requests are answered, by their line and headers. Pure.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, HeaderMap, ORIGIN};
use hyper::{Method, StatusCode, Uri};

/// What the page offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// `/`
    Page,
    /// `/events`
    Events,
    /// `/healthz`
    Health,
    /// `/metrics`
    Metrics,
    /// `/api/overview`
    Overview,
}

/// The names under which a browser may ask for the page. Any other name is somebody else's, pointed at this address
/// so that their script may read the answer (DNS rebinding).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    listen: IpAddr,
    machine: Option<String>,
}

impl Names {
    /// For a page listening on `listen`; `machine` is the host's own name, which counts only off loopback.
    pub(super) fn new(listen: SocketAddr, machine: &str) -> Self {
        let listen = listen.ip();
        let machine = machine.trim().to_ascii_lowercase();
        let machine = Some(machine).filter(|name| !name.is_empty() && !listen.is_loopback());
        Self { listen, machine }
    }

    /// Whether `host` (a `Host` header) is one of ours. The port does not count: a tunnel changes it.
    fn admits(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
            _ => host,
        };
        let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = bare.parse::<IpAddr>() {
            // An address cannot be rebound, so on "every address" each of them is ours.
            return address.is_loopback() || address == self.listen || self.listen.is_unspecified();
        }
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let own = |machine: &String| name == *machine || name.strip_suffix(".local") == Some(machine);
        name == "localhost" || self.machine.as_ref().is_some_and(own)
    }
}

/// Judges a request; `Err` is the answer in place of the page.
pub(super) fn judge(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    names: &Names,
) -> Result<Route, StatusCode> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next().and_then(|h| h.to_str().ok()), hosts.next()) {
        (Some(host), None) if uri.authority().is_none() && names.admits(host) => host,
        _ => return Err(StatusCode::MISDIRECTED_REQUEST),
    };
    if method != Method::GET && method != Method::HEAD {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let route = match uri.path() {
        "/" => Route::Page,
        "/events" => Route::Events,
        "/healthz" => Route::Health,
        "/metrics" => Route::Metrics,
        "/api/overview" => Route::Overview,
        _ => return Err(StatusCode::NOT_FOUND),
    };
    // A link elsewhere may lead to the page; a page elsewhere may not read the rest, nor hold its connections.
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let foreign_site = text("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    let foreign_origin = text(ORIGIN.as_str()).is_some_and(|origin| {
        origin.split_once("://").is_none_or(|(_, from)| !from.eq_ignore_ascii_case(host))
    });
    let arrives = route == Route::Page && text("sec-fetch-mode").is_none_or(|mode| mode == "navigate");
    if (foreign_site || foreign_origin) && !arrives {
        return Err(StatusCode::FORBIDDEN);
    }
    Ok(route)
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    type Headers<'a> = &'a [(&'static str, &'a str)];

    fn judged(names: &Names, method: &str, uri: &str, pairs: Headers<'_>) -> Result<Route, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        judge(&method.parse().unwrap(), &uri.parse().unwrap(), &headers, names).map_err(|s| s.as_u16())
    }

    #[test]
    fn only_our_own_names_are_answered() {
        let home = Names::new("127.0.0.1:8420".parse().unwrap(), "pi\n");
        let open = Names::new("0.0.0.0:8420".parse().unwrap(), "Pi\n");
        let one = Names::new("192.168.1.5:8420".parse().unwrap(), "");
        let cases = [
            ("localhost", [true, true, true]),
            ("LOCALHOST:9000", [true, true, true]),
            ("localhost.", [true, true, true]),
            ("127.0.0.1:8420", [true, true, true]),
            ("127.9.9.9", [true, true, true]),
            ("[::1]:8420", [true, true, true]),
            ("192.168.1.5:8420", [false, true, true]),
            ("192.168.1.6", [false, true, false]),
            ("pi", [false, true, false]),
            ("pi.local:8420", [false, true, false]),
            ("pi.local.evil.example", [false, false, false]),
            ("evil.example", [false, false, false]),
            ("localhost.evil.example", [false, false, false]),
            ("127.0.0.1.evil.example", [false, false, false]),
            ("127.0.0.1@evil.example", [false, false, false]),
            ("", [false, false, false]),
        ];
        for (host, expected) in cases {
            let got = [&home, &open, &one].map(|names| judged(names, "GET", "/", &[("host", host)]).is_ok());
            assert_eq!(got, expected, "{host}");
        }
        assert_eq!(judged(&home, "GET", "/", &[]), Err(421), "no name at all");
        assert_eq!(judged(&home, "GET", "/", &[("host", "localhost"), ("host", "localhost")]), Err(421));
        assert_eq!(
            judged(&home, "GET", "http://localhost/", &[("host", "localhost")]),
            Err(421),
            "a proxy's form"
        );
    }

    #[test]
    fn only_reading_and_only_the_routes() {
        let home = Names::new("127.0.0.1:0".parse().unwrap(), "");
        let cases = [
            ("GET", "/", Ok(Route::Page)),
            ("HEAD", "/?x=1", Ok(Route::Page)),
            ("GET", "/events", Ok(Route::Events)),
            ("GET", "/healthz", Ok(Route::Health)),
            ("GET", "/metrics", Ok(Route::Metrics)),
            ("GET", "/api/overview", Ok(Route::Overview)),
            ("GET", "/metrics/", Err(404)),
            ("GET", "//", Err(404)),
            ("GET", "/../etc/passwd", Err(404)),
            ("POST", "/", Err(405)),
            ("OPTIONS", "/events", Err(405)),
            ("DELETE", "/nothing", Err(405)),
        ];
        for (method, uri, expected) in cases {
            assert_eq!(judged(&home, method, uri, &[("host", "localhost")]), expected, "{method} {uri}");
        }
    }

    #[test]
    fn another_site_may_link_to_the_page_and_read_nothing() {
        let home = Names::new("127.0.0.1:0".parse().unwrap(), "");
        let cases: [(&str, Headers<'_>, Result<Route, u16>); 9] = [
            ("/events", &[("sec-fetch-site", "same-origin")], Ok(Route::Events)),
            ("/events", &[("sec-fetch-site", "none")], Ok(Route::Events)),
            ("/events", &[("sec-fetch-site", "cross-site")], Err(403)),
            ("/events", &[("sec-fetch-site", "same-site")], Err(403)),
            ("/events", &[("origin", "http://localhost:8420")], Ok(Route::Events)),
            ("/events", &[("origin", "http://evil.example")], Err(403)),
            ("/api/overview", &[("origin", "null")], Err(403)),
            ("/", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], Ok(Route::Page)),
            ("/", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], Err(403)),
        ];
        for (uri, pairs, expected) in cases {
            let pairs = [&[("host", "localhost:8420")], pairs].concat();
            assert_eq!(judged(&home, "GET", uri, &pairs), expected, "{uri} {pairs:?}");
        }
    }
}
