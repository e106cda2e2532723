//! Tests against the fake Bot API.
