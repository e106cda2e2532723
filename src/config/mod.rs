//! Settings and secrets.

mod secret;
mod settings;

pub use secret::{Credential, Secret};
pub use settings::{AgentSettings, ClaudeSettings, Permissions, Settings, StatusSettings, TelegramSettings};
