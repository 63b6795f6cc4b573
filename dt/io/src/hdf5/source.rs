//! Bytes of an HDF5 file for the library, with a budget.
//!
//! The library checks lengths against the file and limits depths, but a tree whose nodes name each other many times, or
//! a group whose links all name one long text, makes much out of few bytes. So what it reads besides values is counted:
//! a sound file needs every byte of structure a few times, a crafted one runs out.

use std::io::{Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

use hdf5_pure::{FormatError, Source};

/// Bytes of structure that any file may cost.
const LEAST_BUDGET: u64 = 4 << 20;
/// How often the whole file may be read as structure.
const TIMES: u64 = 16;
/// Longest name of a link in a heap of names.
const MOST_NAME: usize = 256;

/// A file that ends reading when too much structure has been read.
pub(crate) struct Bounded<R> {
    length: u64,
    state: Mutex<State<R>>,
}

struct State<R> {
    file: R,
    left: u64,
    /// The block read last was the header of a heap of names, so the next one is its names.
    names_follow: bool,
}

impl<R: Read + Seek> Bounded<R> {
    pub(crate) fn new(mut file: R) -> std::io::Result<Bounded<R>> {
        let length = file.seek(SeekFrom::End(0))?;
        let left = LEAST_BUDGET + length.saturating_mul(TIMES);
        Ok(Bounded { length, state: Mutex::new(State { file, left, names_follow: false }) })
    }
}

impl<R: Read + Seek> Source for Bounded<R> {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), FormatError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let read = state.file.seek(SeekFrom::Start(offset)).and_then(|_| state.file.read_exact(buf));
        read.map_err(|error| FormatError::Source(error.to_string()))
    }

    fn read_metadata_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, FormatError> {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            // Every read also costs time and a block of memory, however short it is.
            state.left = match state.left.checked_sub(len as u64 + 16) {
                Some(left) => left,
                None => return Err(FormatError::Source("the file's structure refers to itself too often".into())),
            };
        }
        let bytes = self.read_exact_at(offset, len)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.names_follow && bytes.split(|&b| b == 0).any(|name| name.len() > MOST_NAME) {
            return Err(FormatError::Source(format!("a link has a name of more than {MOST_NAME} bytes")));
        }
        state.names_follow = bytes.starts_with(b"HEAP");
        Ok(bytes)
    }
}
