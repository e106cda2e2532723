//! Which addresses may stand behind words (pure). Telegram refuses a whole message for one link it does not like, so what is
//! not certainly good is written out instead.

/// The address as a link's, when Telegram takes it for one.
pub(super) fn usable(url: &str) -> Option<&str> {
    if url.len() > 2000
        || url.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '"'))
    {
        return None;
    }
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let good = match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => is_host(host),
        "tg" => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
        _ => false,
    };
    good.then_some(url)
}

fn is_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "80"));
    let labels = || name.split('.');
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    port.parse::<u16>().is_ok_and(|port| port > 0)
        && labels().count() >= 2
        && labels().all(label)
        && labels()
            .next_back()
            .is_some_and(|last| last.chars().count() >= 2 || name.parse::<std::net::Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_telegram_accepts_become_links() {
        for good in [
            "https://example.com",
            "http://example.com:8080/a?b=(c)#d",
            "HTTPS://Example.com/ä",
            "https://bücher.example/",
            "http://192.168.1.1/",
            "tg://resolve?domain=x",
        ] {
            assert_eq!(usable(good), Some(good), "{good}");
        }
        for bad in [
            "",
            "src/main.rs",
            "#anchor",
            "mailto:a@example.com",
            "javascript:alert(1)",
            "http://localhost:3000/",
            "https://",
            "https://user:pw@example.com/",
            "https://exa mple.com",
            "https://example..com",
            "https://[::1]/",
            "https://example.com:99999/",
            "file:///etc/passwd",
            "tg://",
        ] {
            assert_eq!(usable(bad), None, "{bad}");
        }
    }
}
