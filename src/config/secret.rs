//! A secret that cannot be printed by accident.

use std::fmt;

/// Secret text: no `Display`, no `Serialize`, and `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself. Every caller puts it straight into a request and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What the model API is asked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// An API key: `x-api-key`.
    ApiKey(Secret),
    /// A subscription token: `authorization: Bearer`.
    OauthToken(Secret),
}
