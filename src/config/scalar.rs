//! Values that have a notation of their own: durations, sizes, addresses of servers, host names. Pure.
//!
//! Every function answers with the reason and the remedy, as the end of "KEY: ".

use std::net::IpAddr;
use std::time::Duration;

use hyper::Uri;

/// What is wrong, and what to write instead.
pub(super) type Refusal = (String, String);

/// Reads `90s`, `10m`, `1h30m`, `2d`.
pub(super) fn duration(text: &str) -> Result<Duration, Refusal> {
    let refused = || {
        (
            format!("{text:?} is not a duration"),
            "write a number with s, m, h or d: \"90s\", \"10m\", \"1h30m\"".to_owned(),
        )
    };
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let count: u64 = rest[..digits].parse().map_err(|_| refused())?;
        let unit = match rest.as_bytes().get(digits) {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3600,
            Some(b'd') => 86_400,
            _ => return Err(refused()),
        };
        seconds = count.checked_mul(unit).and_then(|more| seconds.checked_add(more)).ok_or_else(refused)?;
        rest = &rest[digits + 1..];
    }
    if text.is_empty() { Err(refused()) } else { Ok(Duration::from_secs(seconds)) }
}

/// Reads `700M`, `1G`, `512MiB` into bytes; the letters stand for powers of 1024, as in systemd.
pub(super) fn size(text: &str) -> Result<u64, Refusal> {
    let refused =
        || (format!("{text:?} is not a size"), "write a number with K, M or G: \"700M\", \"2G\"".to_owned());
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let count: u64 = text[..digits].parse().map_err(|_| refused())?;
    let unit: u64 = match text[digits..].trim_end_matches('B').trim_end_matches('i') {
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return Err(refused()),
    };
    count.checked_mul(unit).ok_or_else(refused)
}

/// Writes bytes the way [`size`] reads them.
pub(super) fn show_size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b % (1 << 30) == 0 => format!("{}G", b >> 30),
        b => format!("{}M", b >> 20),
    }
}

/// Writes a duration the way [`duration`] reads it.
pub(super) fn show_duration(time: Duration) -> String {
    match time.as_secs() {
        s if s >= 86_400 && s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s >= 3600 && s % 3600 == 0 => format!("{}h", s / 3600),
        s if s >= 60 && s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// The root of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Root {
    /// Without a trailing slash.
    pub(super) url: String,
    /// Whether what is sent there can be read on the way.
    pub(super) exposed: bool,
}

/// Reads `https://host[:port][/path]`; plain `http` is marked as exposed unless the host is this machine.
pub(super) fn root(text: &str, example: &str) -> Result<Root, Refusal> {
    let fix = || format!("write it like {example:?}");
    let refused = |why: &str| (format!("{text:?} {why}"), fix());
    let uri: Uri = text.parse().map_err(|_| refused("is not a URL"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(refused("is not a complete URL"));
    };
    if !matches!(scheme, "https" | "http") {
        return Err(refused("is neither https nor http"));
    }
    if authority.as_str().contains('@') {
        // Not quoted: what stands before the @ may be a password.
        return Err(("a URL with a user name or password in it".to_owned(), fix()));
    }
    if authority.host().is_empty() || (authority.as_str().ends_with(':')) {
        return Err(refused("names no host or no port"));
    }
    if uri.query().is_some() || text.contains('#') {
        return Err(refused("has a query or a fragment"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    Ok(Root { url: text.trim_end_matches('/').to_owned(), exposed: scheme == "http" && !here })
}

/// Reads a host an agent may reach: `github.com`, or `*.github.com` for every name below it. Lower case comes back.
pub(super) fn host(text: &str) -> Result<String, Refusal> {
    let refused = |why: &str, fix: &str| Err((format!("{text:?} {why}"), fix.to_owned()));
    let name = text.strip_prefix("*.").unwrap_or(text);
    if text.contains("://") || text.contains('/') || text.contains(':') {
        return refused("is more than a host name", "write the name alone: \"github.com\"");
    }
    if name.parse::<IpAddr>().is_ok() {
        return refused("is an address", "write a host name: \"github.com\"");
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return refused("is not a host name", "write it like \"github.com\" or \"*.github.com\"");
    }
    if !name.contains('.') {
        return refused("has no dot", "write a full host name: \"github.com\" or \"*.github.com\"");
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in [
            "",
            "10",
            "m",
            "10 m",
            "-1s",
            "1.5h",
            "10M",
            "1h30",
            "99999999999999999999s",
            "9999999999999999d",
            "é",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("1K", 1024), ("700M", 700 << 20), ("2G", 2 << 30), ("512MiB", 512 << 20), ("1MB", 1 << 20)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "700", "M", "1.5G", "-1M", "700m", "99999999999G", "1é"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for bytes in [64 << 20, 700 << 20, 1 << 30, 1 << 40] {
            assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }
        for seconds in [1, 59, 60, 600, 3600, 5400, 86_400] {
            let time = Duration::from_secs(seconds);
            assert_eq!(duration(&show_duration(time)), Ok(time));
        }
    }

    #[test]
    fn a_root_is_https_or_marked_as_exposed() {
        let cases = [
            ("https://api.telegram.org", "https://api.telegram.org", false),
            ("https://gateway.example/v2/", "https://gateway.example/v2", false),
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081", false),
            ("http://[::1]:8081/", "http://[::1]:8081", false),
            ("http://localhost:1", "http://localhost:1", false),
            ("http://10.0.2.2:9", "http://10.0.2.2:9", true),
        ];
        for (text, url, exposed) in cases {
            assert_eq!(root(text, "x"), Ok(Root { url: url.to_owned(), exposed }), "{text}");
        }
        for bad in [
            "",
            "api.telegram.org",
            "ftp://x.org",
            "https://",
            "https://a b",
            "https://a?x=1",
            "https://a/#f",
        ] {
            assert!(root(bad, "x").is_err(), "{bad}");
        }
        let (what, _) = root("https://me:hunter2@a.org", "x").unwrap_err();
        assert!(!what.contains("hunter2"), "{what}");
    }

    #[test]
    fn a_host_is_a_full_name_or_everything_below_one() {
        for (text, read) in
            [("github.com", "github.com"), ("*.GitHub.com", "*.github.com"), ("a_b.c-d.io", "a_b.c-d.io")]
        {
            assert_eq!(host(text), Ok(read.to_owned()), "{text}");
        }
        for bad in [
            "",
            "*",
            "*.com",
            "com",
            "https://a.b",
            "a.b:443",
            "a.b/c",
            "10.0.0.1",
            "::1",
            "a..b",
            "-a.b",
            "a.b.",
            "a b.c",
            "*.*.a.b",
        ] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
