//! Tokens and money, as the model API really returned them.

use serde::{Deserialize, Serialize};

use super::AgentName;

/// Tokens of one or many model calls. Cost is an estimate from the CLI's price list, in millionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the request that were not in a cache.
    pub input: u64,
    /// Tokens the model wrote.
    pub output: u64,
    /// Tokens read from the prompt cache.
    pub cache_read: u64,
    /// Tokens written to the prompt cache.
    pub cache_write: u64,
    /// Millionths of a US dollar.
    pub cost_micros: u64,
}

impl Usage {
    /// The sum of both, without overflow.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            cache_read: self.cache_read.saturating_add(other.cache_read),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            cost_micros: self.cost_micros.saturating_add(other.cost_micros),
        }
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One call of the model API that the broker passed through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCall {
    /// The agent whose cell made it.
    pub agent: AgentName,
    /// The model the answer named; empty when the call failed before one was named.
    pub model: String,
    /// HTTP status from the API; 0 when it could not be reached.
    pub status: u16,
    /// What was counted.
    pub usage: Usage,
}
