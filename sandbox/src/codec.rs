//! Fixed binary encoding for the one socket between the daemon and the helper.
//!
//! Little-endian integers; byte strings and lists carry a `u32` length in front. The decoder never trusts a
//! length: every read is checked against what is left, every list against a cap given by the caller.
//! Invariant: decoding never panics and never allocates more than the message itself holds.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Largest message accepted in either direction. Below the default socket buffer, so one message is one packet.
pub(crate) const MAX_MESSAGE: usize = 160 * 1024;

/// Why bytes could not be read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("the message ends too early")]
    Truncated,
    #[error("the message holds more than it should")]
    TrailingBytes,
    #[error("a list in the message is longer than allowed")]
    TooMany,
    #[error("a field in the message has a value that does not exist")]
    BadValue,
}

/// Appends fields to a message.
#[derive(Default)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn flag(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    pub(crate) fn option_u64(&mut self, value: Option<u64>) -> &mut Self {
        self.flag(value.is_some()).u64(value.unwrap_or(0))
    }

    pub(crate) fn length(&mut self, value: usize) -> &mut Self {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX))
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.length(value.len());
        self.bytes.extend_from_slice(value);
        self
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    pub(crate) fn path(&mut self, value: &Path) -> &mut Self {
        self.bytes(value.as_os_str().as_bytes())
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads fields back in the order they were written.
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Decoder { rest: bytes }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| DecodeError::Truncated)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::BadValue),
        }
    }

    pub(crate) fn option_u64(&mut self) -> Result<Option<u64>, DecodeError> {
        let present = self.flag()?;
        let value = self.u64()?;
        Ok(present.then_some(value))
    }

    pub(crate) fn count(&mut self, most: usize) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        if count > most { Err(DecodeError::TooMany) } else { Ok(count) }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::BadValue)
    }

    pub(crate) fn os_string(&mut self) -> Result<OsString, DecodeError> {
        Ok(OsString::from_vec(self.bytes()?.to_vec()))
    }

    pub(crate) fn path(&mut self) -> Result<PathBuf, DecodeError> {
        Ok(PathBuf::from(self.os_string()?))
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let mut encoder = Encoder::default();
        encoder.u8(7).u32(8).u64(9).flag(true).option_u64(None).bytes(b"abc").text("de");
        let message = encoder.finish();
        let mut decoder = Decoder::new(&message);
        assert_eq!(decoder.u8(), Ok(7));
        assert_eq!(decoder.u32(), Ok(8));
        assert_eq!(decoder.u64(), Ok(9));
        assert_eq!(decoder.flag(), Ok(true));
        assert_eq!(decoder.option_u64(), Ok(None));
        assert_eq!(decoder.bytes(), Ok(&b"abc"[..]));
        assert_eq!(decoder.text(), Ok("de"));
        assert_eq!(decoder.end(), Ok(()));
    }

    #[test]
    fn a_lying_length_is_refused() {
        let mut encoder = Encoder::default();
        encoder.u32(u32::MAX);
        let message = encoder.finish();
        assert_eq!(Decoder::new(&message).bytes(), Err(DecodeError::Truncated));
        assert_eq!(Decoder::new(&message).count(10), Err(DecodeError::TooMany));
        assert_eq!(Decoder::new(&message).flag(), Err(DecodeError::BadValue));
        assert_eq!(Decoder::new(b"x").end(), Err(DecodeError::TrailingBytes));
    }
}
