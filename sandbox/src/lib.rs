//! Runs one command in a cell: namespaces, seccomp, Landlock, cgroups, no privileges.
//!
//! A [`Launcher`] (in the daemon) starts the resident helper `skep-sandbox` and asks it for cells; a [`CellSpec`] says
//! what a cell is and cannot be built invalid; a [`Cell`] is a running one. The helper is one thread with at most three
//! capabilities; it forks once per cell, and the new process builds the cell around itself. `README.md` has the threat
//! model and what is not protected.
//!
//! # The order of a launch, and why
//!
//! Each line is a [`Step`]; a step that fails names itself, and nothing is executed then.
//!
//! | step | what | why here |
//! |---|---|---|
//! | cgroup | leaf made, limits written | limits hold from the first instruction |
//! | namespaces | `clone3` into seven new namespaces and the leaf | one call; the new process waits for its maps |
//! | uid map | helper writes one uid, one gid, no groups | only a process outside can map another user's id |
//! | bind sources | mounts made private; detached read-only copies of `/usr` and the rest, workspace and home by verified inode | still as the daemon's user, who may walk closed parents; before the tree is touched |
//! | identity | become 1000:1000 of the namespace | files in the new tmpfs need a mapped owner |
//! | root, etc, dev, proc | tmpfs with mount points, generated `/etc`, five devices, own `/proc` | |
//! | nested namespace ban | `user.max_user_namespaces` = 0 | through the old `/proc`, which is about to go |
//! | binds | `/tmp`, workspace, home, programs | |
//! | pivot | new root, old one detached, root read-only | after this the host's files have no name |
//! | loopback, listener | `lo` up, broker's socket bound and handed out | needs the capabilities over the network namespace |
//! | limits | rlimits, empty keyring, umask | before the capability to exceed them goes |
//! | capabilities | all five sets empty, securebits locked, `no_new_privs`; dies with the helper, cannot be traced | the death signal is lost on a change of credentials, so after the last |
//! | descriptors | standard streams, own session, the rest close at exec | |
//! | landlock | second lock on files, signals, abstract sockets | it forbids mounting, so after all mounts |
//! | reaper | fork: first process stays as reaper, its child goes on | |
//! | seccomp | the filter | last, since it forbids most of the above |
//! | canary | tries from inside what must fail | under every lock |
//! | verify | the helper reads in `/proc` what holds the process | from outside, before a single instruction of the command |
//! | exec | the command | |
//!
//! # Layers
//!
//! `launcher`, `cell` (daemon) and `helper` speak `wire`, encoded by `codec`, carried by `passing`. `helper` runs `steps`
//! with the call tables of `policy`. `spec`, `report` and `tier` are the vocabulary. `sys` is the only `unsafe`.
//! Invariant: no property of a cell rests on Landlock alone, for stock kernels of small boards do not have it.

mod cell;
mod codec;
#[doc(hidden)]
pub mod helper;
mod launcher;
mod passing;
mod policy;
mod report;
mod spec;
mod steps;
mod sys;
mod tier;
mod wire;

pub use cell::Cell;
pub use launcher::{LaunchError, Launcher, LauncherConfig, Testing};
pub use nix::sys::signal::Signal;
pub use passing::{recv_with_fds, send_with_fds};
pub use report::{CgroupLimits, End, Enforced, ExitStatus, NAMESPACES, Step, StepError};
pub use spec::{CellParts, CellSpec, Limits, MAX_ETC_FILES, MAX_PROGRAMS, MAX_STRINGS, SpecError};
pub use tier::{HelperReport, LANDLOCK_WITH_SCOPES, Tier};
