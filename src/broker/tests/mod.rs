//! The broker against the scripted API, and against hostile cells and APIs.

mod hostile;
mod passage;
mod support;
