//! The status page's password, as an Argon2 hash in PHC form (`$argon2id$v=19$m=…,t=…,p=…$salt$hash`).
//!
//! Called by the settings (is this a hash at all, and a bearable one), by `skep hash-password` and by the status page.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordHasher, PasswordVerifier};

use super::scalar::Refusal;

/// KiB one check may take: more would be a way to fill a 1 GB machine from outside.
const MEMORY_LIMIT: u32 = 64 * 1024;

/// The random source or the hash function failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot hash the password")]
pub struct PasswordError;

/// A fresh hash of `password`.
///
/// # Errors
/// When the system gives no random salt.
pub fn hash(password: &str) -> Result<String, PasswordError> {
    let mut salt = [0; 16];
    let source = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&source, &mut salt).map_err(|_| PasswordError)?;
    let hash =
        Argon2::default().hash_password_with_salt(password.as_bytes(), &salt).map_err(|_| PasswordError)?;
    Ok(hash.to_string())
}

/// Whether `password` is the one behind `hash`. Takes a good part of a second and 19 MiB: not for an async thread.
#[must_use]
pub fn verify(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Whether `text` is a hash this machine can check. The text is never quoted: it may be the password itself.
pub(super) fn check(text: &str) -> Result<(), Refusal> {
    let fix = || "put there what skep hash-password prints".to_owned();
    let Ok(hash) = PasswordHash::new(text) else {
        return Err(("this must be a hash, not the password".to_owned(), fix()));
    };
    if hash.algorithm.as_str() != "argon2id" || hash.hash.is_none() || hash.salt.is_none() {
        return Err(("this is not an argon2id hash".to_owned(), fix()));
    }
    match Params::try_from(&hash) {
        Ok(params) if params.m_cost() <= MEMORY_LIMIT && params.t_cost() <= 10 && params.p_cost() <= 8 => {
            Ok(())
        }
        Ok(_) => Err(("this hash takes more than 64 MiB or ten passes to check".to_owned(), fix())),
        Err(_) => Err(("this is not an argon2id hash".to_owned(), fix())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_accepted_and_checks_only_its_own_password() {
        let made = hash("correct horse").unwrap();
        assert_eq!(check(&made), Ok(()));
        assert!(verify("correct horse", &made));
        assert!(!verify("wrong horse", &made));
        assert!(!verify("correct horse", "correct horse"));
        assert_ne!(hash("correct horse").unwrap(), made, "the salt is random");
    }

    #[test]
    fn plain_text_and_costly_hashes_are_refused_without_being_quoted() {
        for bad in [
            "hunter2",
            "",
            "$argon2id$",
            "$2b$12$abcdefghijklmnopqrstuv",
            "$argon2id$v=19$m=4194304,t=2,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
            "$argon2id$v=19$m=19456,t=2,p=1",
        ] {
            let (what, fix) = check(bad).unwrap_err();
            assert!(bad.is_empty() || !what.contains(bad), "{what}");
            assert_eq!(fix, "put there what skep hash-password prints");
        }
    }
}
