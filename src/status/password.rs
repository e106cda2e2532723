//! The password of the page: HTTP Basic against an Argon2 hash, with limits on guessing.
//!
//! A hash costs a Pi tens of milliseconds and some 20 MB: one is computed at a time, off the event loop, and a password
//! that was right is recognised afterwards by a keyed digest held in memory.
//!
//! Invariant: while an address, or everybody together, is over the limit, no guess is looked at, right or wrong.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use hyper::header::{AUTHORIZATION, HeaderMap};
use ring::hmac;
use tokio::sync::Mutex as Turn;
use tokio::time::Instant;

/// Wrong guesses in one [`WINDOW`]: of one address (one /64 in IPv6), and of all together.
const GUESSES_EACH: u32 = 5;
const GUESSES_ALL: u32 = 30;
const WINDOW: Duration = Duration::from_secs(60);
/// Longer passwords are not looked at.
const PASSWORD_LIMIT: usize = 512;

/// Whether somebody may see the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Admission {
    /// The password was right, or none is set.
    Admitted,
    /// No password was given, or a wrong one: both get the same answer.
    Refused,
    /// Too many guesses; more are looked at after this long.
    Later(Duration),
}

/// The check. One for the whole page.
pub(super) struct Password {
    hash: Arc<str>,
    guesses: Mutex<Guesses>,
    turn: Turn<Option<hmac::Tag>>,
    key: hmac::Key,
}

impl Password {
    /// `None` when `hash` is not an Argon2 hash in PHC form.
    pub(super) fn new(hash: &str) -> Option<Self> {
        let parsed = PasswordHash::new(hash).ok()?;
        argon2::Algorithm::try_from(parsed.algorithm.as_str()).ok()?;
        argon2::Params::try_from(&parsed).ok()?;
        parsed.hash?;
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new()).ok()?;
        Some(Self { hash: hash.into(), guesses: Mutex::default(), turn: Turn::new(None), key })
    }

    /// Checks a request's headers.
    pub(super) async fn admit(&self, headers: &HeaderMap, from: IpAddr) -> Admission {
        let Some(password) = given(headers) else { return Admission::Refused };
        if let Err(wait) = self.guesses().take(from, Instant::now()) {
            return Admission::Later(wait);
        }
        if !self.is_right(password).await {
            tracing::info!(%from, "wrong password for the status page");
            return Admission::Refused;
        }
        self.guesses().give_back(from);
        Admission::Admitted
    }

    fn guesses(&self) -> std::sync::MutexGuard<'_, Guesses> {
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn is_right(&self, password: Vec<u8>) -> bool {
        let mut known = self.turn.lock().await;
        if let Some(tag) = known.as_ref()
            && hmac::verify(&self.key, &password, tag.as_ref()).is_ok()
        {
            return true;
        }
        let tag = hmac::sign(&self.key, &password);
        let hash = Arc::clone(&self.hash);
        let right = tokio::task::spawn_blocking(move || {
            PasswordHash::new(&hash)
                .is_ok_and(|hash| Argon2::default().verify_password(&password, &hash).is_ok())
        });
        let right = right.await.unwrap_or(false);
        if right {
            *known = Some(tag);
        }
        right
    }
}

/// The password of `authorization: Basic`. The user name does not count.
fn given(headers: &HeaderMap) -> Option<Vec<u8>> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > 2 * PASSWORD_LIMIT {
        return None;
    }
    let decoded = base64(encoded.trim())?;
    let colon = decoded.iter().position(|b| *b == b':')?;
    let password = decoded.get(colon + 1..)?;
    (password.len() <= PASSWORD_LIMIT).then(|| password.to_vec())
}

/// Standard Base64, padded or not.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut held) = (0u32, 0);
    for symbol in text.trim_end_matches('=').bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    Some(bytes)
}

/// Guesses of the running window.
#[derive(Debug, Default)]
struct Guesses {
    since: Option<Instant>,
    all: u32,
    each: HashMap<IpAddr, u32>,
}

impl Guesses {
    /// Counts one guess, or says how long to wait. The table holds at most [`GUESSES_ALL`] addresses.
    fn take(&mut self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed >= WINDOW {
            *self = Self { since: Some(now), ..Self::default() };
        }
        let wait = WINDOW.saturating_sub(if passed >= WINDOW { Duration::ZERO } else { passed });
        let mine = self.each.get(&network(from)).copied().unwrap_or(0);
        if self.all >= GUESSES_ALL || mine >= GUESSES_EACH {
            return Err(wait);
        }
        self.all += 1;
        self.each.insert(network(from), mine + 1);
        Ok(())
    }

    /// The guess was right: it does not count.
    fn give_back(&mut self, from: IpAddr) {
        self.all = self.all.saturating_sub(1);
        if let Some(mine) = self.each.get_mut(&network(from)) {
            *mine = mine.saturating_sub(1);
        }
    }
}

/// One household: an IPv4 address, or an IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn basic_credentials_are_read() {
        let cases = [
            ("Basic b3duZXI6aG9uZXk=", Some("honey")),
            ("basic b3duZXI6aG9uZXk", Some("honey")),
            ("Basic OmE6Yg==", Some("a:b")),
            ("Basic b3duZXI=", None),
            ("Basic b3du!XI6", None),
            ("Bearer b3duZXI6aG9uZXk=", None),
            ("Basic", None),
        ];
        for (value, expected) in cases {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
            assert_eq!(given(&headers).as_deref(), expected.map(str::as_bytes), "{value}");
        }
        assert_eq!(given(&HeaderMap::new()), None);
    }

    #[test]
    fn guesses_are_limited_by_address_and_together_and_the_window_passes() {
        let start = Instant::now();
        let mut guesses = Guesses::default();
        for _ in 0..GUESSES_EACH {
            assert_eq!(guesses.take(address("2001:db8::1"), start), Ok(()));
        }
        assert_eq!(guesses.take(address("2001:db8::2"), start), Err(WINDOW), "the same /64");
        guesses.give_back(address("2001:db8::3"));
        assert_eq!(guesses.take(address("2001:db8::2"), start), Ok(()), "a right one does not count");
        let mut taken = GUESSES_EACH;
        for n in 0..60 {
            taken += u32::from(guesses.take(address(&format!("10.0.0.{n}")), start).is_ok());
        }
        assert_eq!(taken, GUESSES_ALL);
        assert!(guesses.each.len() <= GUESSES_ALL as usize);
        let half = start + WINDOW / 2;
        assert_eq!(guesses.take(address("10.9.9.9"), half), Err(WINDOW / 2));
        assert_eq!(guesses.take(address("2001:db8::1"), start + WINDOW), Ok(()));
    }

    #[test]
    fn only_argon2_hashes_are_taken() {
        for bad in ["", "honey", "$argon2id$", "$2b$12$abcdefghijklmnopqrstuv", "$argon2id$v=19$m=8,t=1,p=1"]
        {
            assert!(Password::new(bad).is_none(), "{bad}");
        }
    }
}
