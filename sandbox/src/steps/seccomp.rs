//! Step "seccomp": the last lock before the command, compiled once when the helper started.

use super::Done;
use crate::policy::Program;
use crate::report::{Step, StepError};

pub(crate) fn install(program: &Program) -> Done {
    seccompiler::apply_filter(program).map_err(|error| StepError::check(Step::Seccomp, error.to_string()))
}
