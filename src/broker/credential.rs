//! The one real header, and recognising the secret where it must not appear. Pure.

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};

use crate::config::Credential;

/// Marks a request as made with a subscription token.
const OAUTH_BETA: &str = "oauth-2025-04-20";
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const BETA: HeaderName = HeaderName::from_static("anthropic-beta");

/// A credential made ready to be sent.
pub(super) struct Injected {
    name: HeaderName,
    value: HeaderValue,
    beta: Option<&'static str>,
    needle: Box<[u8]>,
    /// For each length of a matched beginning, the longest shorter beginning that also ends there.
    fallback: Box<[usize]>,
}

impl Injected {
    /// `None` when the secret is empty or has characters no header can carry.
    pub(super) fn new(credential: &Credential) -> Option<Self> {
        let (name, text, secret, beta) = match credential {
            Credential::ApiKey(key) => (API_KEY, key.expose().to_owned(), key.expose(), None),
            Credential::OauthToken(token) => {
                (AUTHORIZATION, format!("Bearer {}", token.expose()), token.expose(), Some(OAUTH_BETA))
            }
        };
        let visible = !secret.is_empty() && secret.bytes().all(|b| b.is_ascii_graphic());
        let mut value = HeaderValue::from_str(&text).ok().filter(|_| visible)?;
        value.set_sensitive(true);
        let needle: Box<[u8]> = secret.as_bytes().into();
        let fallback = fallback(&needle);
        Some(Self { name, value, beta, needle, fallback })
    }

    /// Puts the credential into headers that hold none.
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(self.name.clone(), self.value.clone());
        let Some(beta) = self.beta else { return };
        let present = headers
            .get_all(BETA)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .any(|v| v.split(',').any(|b| b.trim() == beta));
        if !present {
            headers.append(BETA, HeaderValue::from_static(beta));
        }
    }

    /// Whether `bytes` contain the secret.
    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        self.find(&mut 0, bytes)
    }

    /// Looks for the secret in a stream of pieces; `matched` carries how much of it ended the piece before.
    pub(super) fn find(&self, matched: &mut usize, piece: &[u8]) -> bool {
        for &byte in piece {
            while *matched > 0 && self.needle[*matched] != byte {
                *matched = self.fallback[*matched];
            }
            if self.needle[*matched] == byte {
                *matched += 1;
                if *matched == self.needle.len() {
                    *matched = 0;
                    return true;
                }
            }
        }
        false
    }
}

/// The table of Knuth, Morris and Pratt.
fn fallback(needle: &[u8]) -> Box<[usize]> {
    let mut table = vec![0; needle.len() + 1];
    let mut length = 0;
    for at in 1..needle.len() {
        while length > 0 && needle[length] != needle[at] {
            length = table[length];
        }
        if needle[length] == needle[at] {
            length += 1;
        }
        table[at + 1] = length;
    }
    table.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Secret;

    fn key(text: &str) -> Option<Injected> {
        Injected::new(&Credential::ApiKey(Secret::new(text.to_owned())))
    }

    #[test]
    fn a_secret_no_header_can_carry_is_refused() {
        for bad in ["", "a b", "a\n", "a\r\nx: y", "schlüssel", "a\0"] {
            assert!(key(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_oauth_beta_is_added_once() {
        let token = Injected::new(&Credential::OauthToken(Secret::new("tok".to_owned()))).unwrap();
        for (given, expected) in [
            (vec![], vec!["oauth-2025-04-20"]),
            (vec!["a,b"], vec!["a,b", "oauth-2025-04-20"]),
            (vec!["a, oauth-2025-04-20 ,b"], vec!["a, oauth-2025-04-20 ,b"]),
            (vec!["a", "oauth-2025-04-20"], vec!["a", "oauth-2025-04-20"]),
        ] {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append(BETA, HeaderValue::from_static(value));
            }
            token.put(&mut headers);
            let found: Vec<_> = headers.get_all(BETA).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(found, expected);
            assert_eq!(headers[AUTHORIZATION], "Bearer tok");
        }
    }

    proptest! {
        #[test]
        fn the_secret_is_found_however_the_stream_is_cut(
            text in "[ab]{0,40}", secret in "[ab]{1,6}", size in 1usize..8
        ) {
            let injected = key(&secret).unwrap();
            let mut matched = 0;
            let found = text.as_bytes().chunks(size).any(|piece| injected.find(&mut matched, piece));
            prop_assert_eq!(found, text.contains(&secret));
        }
    }
}
