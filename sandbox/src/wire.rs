//! The messages between daemon and helper. One packet is one message; a reply answers one request, in order.

use std::path::PathBuf;

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::report::{Enforced, Step, StepError};
use crate::spec::{CellParts, CellSpec};
use crate::tier::HelperReport;

/// First field of the first message; changes whenever the encoding does, so that a daemon and a helper from two
/// different installations refuse each other.
pub(crate) const PROTOCOL: u64 = 0x736b_6570_0000_0002;

/// Descriptors of a launch that come before the programs': stdin, stdout, stderr, workspace, home.
pub(crate) const LAUNCH_FIXED_FDS: usize = 5;

/// The first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) uid_base: u32,
    pub(crate) uid_count: u16,
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) canary: Option<PathBuf>,
    pub(crate) fail: Option<(Step, i32)>,
    pub(crate) without_landlock: bool,
}

/// What the daemon may ask for.
#[derive(Debug)]
pub(crate) enum Request {
    Hello(Hello),
    /// A cell and the canonical host paths of workspace, home and programs, in the order of the descriptors.
    Launch {
        parts: Box<CellParts>,
        canonical: Vec<PathBuf>,
    },
    /// Give one directory or file to an agent.
    Prepare {
        slot: Option<u16>,
        canonical: PathBuf,
    },
}

const HELLO: u8 = 1;
const LAUNCH: u8 = 2;
const PREPARE: u8 = 3;

pub(crate) fn encode_hello(hello: &Hello) -> Vec<u8> {
    let mut out = Encoder::default();
    out.u8(HELLO).u64(PROTOCOL).u32(hello.uid_base).u32(hello.uid_count.into());
    for path in [&hello.cgroup, &hello.canary] {
        out.flag(path.is_some()).path(path.as_deref().unwrap_or("".as_ref()));
    }
    let (step, errno) = hello.fail.unwrap_or((Step::Cgroup, 0));
    out.flag(hello.fail.is_some()).u8(step.code()).u32(errno.cast_unsigned()).flag(hello.without_landlock);
    out.finish()
}

pub(crate) fn encode_launch(spec: &CellSpec, canonical: &[PathBuf]) -> Vec<u8> {
    let mut out = Encoder::default();
    out.u8(LAUNCH);
    spec.encode(&mut out);
    out.length(canonical.len());
    for path in canonical {
        out.path(path);
    }
    out.finish()
}

pub(crate) fn encode_prepare(slot: Option<u16>, canonical: &std::path::Path) -> Vec<u8> {
    let mut out = Encoder::default();
    out.u8(PREPARE).option_u64(slot.map(u64::from)).path(canonical);
    out.finish()
}

impl Request {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Request, DecodeError> {
        let mut input = Decoder::new(bytes);
        let request = match input.u8()? {
            HELLO => Request::Hello(decode_hello(&mut input)?),
            LAUNCH => {
                let parts = Box::new(CellSpec::decode(&mut input)?);
                let mut canonical = Vec::new();
                for _ in 0..input.count(crate::spec::MAX_PROGRAMS + 2)? {
                    canonical.push(input.path()?);
                }
                Request::Launch { parts, canonical }
            }
            PREPARE => {
                let slot = input.option_u64()?.map(u16::try_from).transpose();
                Request::Prepare { slot: slot.map_err(|_| DecodeError::BadValue)?, canonical: input.path()? }
            }
            _ => return Err(DecodeError::BadValue),
        };
        input.end()?;
        Ok(request)
    }
}

fn decode_hello(input: &mut Decoder<'_>) -> Result<Hello, DecodeError> {
    if input.u64()? != PROTOCOL {
        return Err(DecodeError::BadValue);
    }
    let uid_base = input.u32()?;
    let uid_count = u16::try_from(input.u32()?).map_err(|_| DecodeError::BadValue)?;
    let mut path = || -> Result<Option<PathBuf>, DecodeError> {
        let present = input.flag()?;
        let path = input.path()?;
        Ok(present.then_some(path))
    };
    let (cgroup, canary) = (path()?, path()?);
    let inject = input.flag()?;
    let (step, errno) = (Step::from_code(input.u8()?)?, input.u32()?.cast_signed());
    let without_landlock = input.flag()?;
    Ok(Hello { uid_base, uid_count, cgroup, canary, fail: inject.then_some((step, errno)), without_landlock })
}

/// What the helper answers.
#[derive(Debug)]
pub(crate) enum Reply {
    /// To `Hello`.
    Ready(Box<HelperReport>),
    /// To `Launch`; descriptors: pidfd, exit pipe and, where asked for, the listener.
    Launched { pid: i32, command: i32, leaf: Option<PathBuf>, enforced: Box<Enforced> },
    /// To `Prepare`.
    Prepared,
    /// A launch step failed; nothing of the cell is left.
    Step(StepError),
    /// The request was refused.
    Refused(String),
}

impl Reply {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        match self {
            Reply::Ready(report) => report.encode(out.u8(1)),
            Reply::Launched { pid, command, leaf, enforced } => {
                out.u8(2).u32(pid.cast_unsigned()).u32(command.cast_unsigned()).flag(leaf.is_some());
                enforced.encode(out.path(leaf.as_deref().unwrap_or("".as_ref())));
            }
            Reply::Prepared => {
                out.u8(3);
            }
            Reply::Step(failed) => failed.encode(out.u8(4)),
            Reply::Refused(why) => {
                out.u8(5).text(why);
            }
        }
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Reply, DecodeError> {
        let mut input = Decoder::new(bytes);
        let reply = match input.u8()? {
            1 => Reply::Ready(Box::new(HelperReport::decode(&mut input)?)),
            2 => {
                let (pid, command) = (input.u32()?.cast_signed(), input.u32()?.cast_signed());
                let (present, leaf) = (input.flag()?, input.path()?);
                let enforced = Box::new(Enforced::decode(&mut input)?);
                Reply::Launched { pid, command, leaf: present.then_some(leaf), enforced }
            }
            3 => Reply::Prepared,
            4 => Reply::Step(StepError::decode(&mut input)?),
            5 => Reply::Refused(input.text()?.to_owned()),
            _ => return Err(DecodeError::BadValue),
        };
        input.end()?;
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_survives_and_another_version_is_refused() {
        let hello = Hello {
            uid_base: 1_900_000_000,
            uid_count: 64,
            cgroup: Some("/c".into()),
            canary: None,
            fail: Some((Step::Pivot, 1)),
            without_landlock: true,
        };
        let mut bytes = encode_hello(&hello);
        match Request::decode(&bytes) {
            Ok(Request::Hello(back)) => assert_eq!(back, hello),
            other => panic!("{other:?}"),
        }
        bytes[1] ^= 1;
        assert!(Request::decode(&bytes).is_err());
    }

    #[test]
    fn noise_is_refused_without_panic() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for length in 0..2000_usize {
            let noise: Vec<u8> = (0..length % 97)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_le_bytes()[3] & 7
                })
                .collect();
            if noise.first() != Some(&3) {
                assert!(Request::decode(&noise).is_err(), "{noise:?}");
            }
            let _ = Reply::decode(&noise);
        }
    }
}
