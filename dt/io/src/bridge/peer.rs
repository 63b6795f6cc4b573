//! A child process that answers messages, and every way in which it may fail to.
//!
//! Pipes have no time-outs, so three threads do what can block: one writes requests, one reads answers, one keeps the
//! end of stderr. They end when the child does, and the child is killed when it breaks its word or is dropped.

use super::error::Error;
use super::frame::{Fault, Message};
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of stderr that are kept.
const TAIL_BYTES: usize = 2048;
/// Lines of them that an error shows.
const TAIL_LINES: usize = 4;
/// How long a peer that closed its output has to end, so that its last words are known.
const LAST_WORDS: Duration = Duration::from_millis(500);

type Answer = Result<Option<Message>, Fault>;

/// A running child.
#[derive(Debug)]
pub(crate) struct Peer {
    name: String,
    child: Child,
    requests: Sender<Vec<u8>>,
    answers: Receiver<Answer>,
    tail: Arc<Mutex<VecDeque<u8>>>,
    /// Disconnected when stderr ends.
    quiet: Receiver<()>,
    asked: u64,
    broken: Option<Error>,
}

impl Peer {
    /// Runs a script; `name` goes into errors.
    ///
    /// # Errors
    /// [`Error::NoPython`].
    pub(crate) fn start(python: &Path, script: &str, name: &str) -> Result<Peer, Error> {
        let no_python = |reason: String| Error::NoPython { python: python.to_path_buf(), reason };
        let mut command = Command::new(python);
        command.arg("-c").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Small products of small arrays: more threads than one wait for each other.
        command.envs(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"].map(|name| (name, "1")));
        // A signal that stops a group of processes is for this one: it ends its child when it has stopped.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|error| no_python(error.to_string()))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(mut stderr)) = pipes else {
            return Err(no_python("it has no pipes".into()));
        };
        let (requests, to_write) = channel::<Vec<u8>>();
        // Room for one answer: a peer that floods waits instead of filling memory.
        let (answered, answers) = sync_channel::<Answer>(1);
        let (speaking, quiet) = channel::<()>();
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        thread::spawn(move || {
            while let Ok(bytes) = to_write.recv() {
                if stdin.write_all(&bytes).and_then(|()| stdin.flush()).is_err() {
                    return;
                }
            }
        });
        thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            loop {
                let answer = Message::decode(&mut stdout);
                let more = matches!(answer, Ok(Some(_)));
                if answered.send(answer).is_err() || !more {
                    return;
                }
            }
        });
        let kept = Arc::clone(&tail);
        thread::spawn(move || {
            let mut chunk = [0; 1024];
            while let Ok(count @ 1..) = stderr.read(&mut chunk) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&chunk[..count]);
                let surplus = kept.len().saturating_sub(TAIL_BYTES);
                kept.drain(..surplus);
            }
            drop(speaking);
        });
        let name = format!("{name} ({}, process {})", python.display(), child.id());
        Ok(Peer { name, child, requests, answers, tail, quiet, asked: 0, broken: None })
    }

    /// Name as errors give it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The child has not ended in the meantime.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// It can be asked again.
    pub(crate) fn is_sound(&self) -> bool {
        self.broken.is_none()
    }

    /// Sends a request and waits for its answer. After an error of the peer itself it is dead, and stays so.
    ///
    /// # Errors
    /// [`Error::Died`], [`Error::Silent`], [`Error::Babble`]; [`Error::Refused`] for a request that is too long.
    pub(crate) fn ask(
        &mut self,
        mut message: Message,
        doing: &'static str,
        patience: Duration,
    ) -> Result<Message, Error> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        self.asked += 1;
        message.fields.insert("n".into(), Value::from(self.asked));
        let Some(bytes) = message.encode() else {
            let reason = format!("the request to {doing} is longer than a message may be");
            return Err(Error::Refused { peer: self.name.clone(), reason });
        };
        // If the writer is gone, so is the reader, and that is found below.
        _ = self.requests.send(bytes);
        let fault = match self.answers.recv_timeout(patience) {
            Ok(Ok(Some(answer))) if answer.fields.get("n") == Some(&Value::from(self.asked)) => return Ok(answer),
            Ok(Ok(Some(_))) => Fault::Header("it answers another request".into()),
            Ok(Ok(None)) | Err(RecvTimeoutError::Disconnected) => return Err(self.died(doing)),
            Ok(Err(fault)) => fault,
            Err(RecvTimeoutError::Timeout) => {
                let (peer, tail) = (self.name.clone(), self.tail());
                return Err(self.give_up(Error::Silent { peer, doing, after: patience, tail }));
            }
        };
        Err(self.babble(doing, fault))
    }

    /// An answer that is not what it should be; the peer is done with.
    pub(crate) fn babble(&mut self, doing: &'static str, fault: Fault) -> Error {
        let (peer, tail) = (self.name.clone(), self.tail());
        self.give_up(Error::Babble { peer, doing, fault: Box::new(fault), tail })
    }

    fn died(&mut self, doing: &'static str) -> Error {
        let begin = Instant::now();
        _ = self.quiet.recv_timeout(LAST_WORDS);
        // Its pipes close before it can be waited for.
        let how = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status.to_string(),
                Ok(None) if begin.elapsed() < LAST_WORDS => thread::sleep(Duration::from_millis(2)),
                _ => break "it closed its output".into(),
            }
        };
        let (peer, tail) = (self.name.clone(), self.tail());
        self.give_up(Error::Died { peer, doing, how, tail })
    }

    fn give_up(&mut self, error: Error) -> Error {
        self.end();
        self.broken.get_or_insert(error).clone()
    }

    fn end(&mut self) {
        // Both fail only for a process that has ended.
        _ = self.child.kill();
        _ = self.child.wait();
    }

    /// The last lines of stderr, as one.
    fn tail(&self) -> String {
        let bytes: Vec<u8> = self.tail.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join(" | ").replace(char::is_control, " ")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.end();
    }
}
