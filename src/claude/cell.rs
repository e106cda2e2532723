//! What the rest of this module needs of a cell: a program started behind three descriptors, and a way to end it.
//!
//! `agent` gives real cells, tests give plain children. Invariant: nothing here knows how a program is confined.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// What is to be started in a cell. The program's path is the cell's own business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Arguments after the program's name.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
}

/// Why a cell could not be started: the launcher's own error.
pub type SpawnError = Box<dyn std::error::Error + Send + Sync>;

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It ended by itself with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// The kernel ended it because the cell's memory was used up.
    OutOfMemory,
    /// It is gone, and nobody can say how.
    Unknown,
}

/// The handle to a running program.
pub trait Control: Send + Sync {
    /// Host process id of the cell's first process.
    fn pid(&self) -> i32;
    /// Ends everything in the cell at once. Does not block, and may be called again.
    fn kill(&self);
    /// Bytes in use by the cell, where that can be measured.
    fn memory(&self) -> Option<u64>;
    /// Layers that were read back as enforced, in plain words.
    fn layers(&self) -> Vec<String>;
}

/// A started program.
pub struct Cell {
    /// Its handle.
    pub control: Arc<dyn Control>,
    /// Resolves when the program has ended.
    pub exit: Pin<Box<dyn Future<Output = Exit> + Send>>,
}
