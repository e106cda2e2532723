//! The broker against the scripted API, and against hostile cells and APIs.

mod cli;
mod hostile;
mod passage;
mod support;
