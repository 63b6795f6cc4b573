//! The agent in a web page: CartPole played live in wasm32, with the kernels and the bank of the program.
//!
//! A [`Player`] is an agent and its world, in plain Rust. The rest of this file is the interface of the page
//! (`tsn/web/page/page.js`): functions that take and return numbers, and buffers in the module's memory. There is one
//! player per module. May import `tsn`; `cargo xtask web` builds module and page.
//!
//! The module holds CPU kernels alone. With the browser's WebGPU the page runs the agent's program itself
//! (`tsn/web/page/gpu.js`, from the plan that `examples/webgpu_plan.rs` writes): the module says in [`messages`] what to do.
//!
//! ```
//! // What the page does first, with bytes that are no bank.
//! tsn_web::input(3);
//! assert_eq!(tsn_web::open(0), 0);
//! assert!(tsn_web::text_len() > 0); // says why
//! ```
#![expect(unsafe_code, reason = "functions exported to the page by name")]

mod player;

pub use player::{Player, View};

use std::cell::RefCell;
use tsn::Error;
use tsn::dt::autograd::engine::Message;

/// What the page reads and writes.
#[derive(Default)]
struct Page {
    player: Option<Player>,
    /// Bytes of a bank, written by the page.
    input: Vec<u8>,
    /// Names of the tasks, or what went wrong.
    text: String,
    /// A [`View`] as numbers.
    view: Vec<f64>,
    /// The page runs the agent's program.
    relayed: bool,
    /// What it is to do, see [`messages`].
    messages: Vec<u8>,
    /// Scores of the actions.
    outputs: Vec<f32>,
}

thread_local! {
    static PAGE: RefCell<Page> = RefCell::default();
}

/// Makes room for a bank of `len` bytes and says where the page is to write it.
#[unsafe(no_mangle)]
pub extern "C" fn input(len: usize) -> *mut u8 {
    PAGE.with_borrow_mut(|page| {
        page.input = vec![0; len];
        page.input.as_mut_ptr()
    })
}

/// Starts a player from the bank at [`input`]. Returns 1 and leaves one line per task in [`text`], `name` and changed
/// parameters in turn separated by tabs; or 0 and a message.
#[unsafe(no_mangle)]
pub extern "C" fn open(seed: u32) -> u32 {
    PAGE.with_borrow_mut(|page| {
        let opened = Player::open(std::mem::take(&mut page.input), u64::from(seed));
        page.player = None;
        let opened = opened.map(|player| {
            page.text = lines(&player);
            page.view(player);
        });
        page.done(opened)
    })
}

/// Changes the world to that of another task. Returns 1, or 0 and a message in [`text`].
#[unsafe(no_mangle)]
pub extern "C" fn set_world(task: usize) -> u32 {
    PAGE.with_borrow_mut(|page| page.play(|player| player.set_world(task)))
}

/// One decision and one step of the world. Returns 1, or 0 and a message in [`text`].
#[unsafe(no_mangle)]
pub extern "C" fn step() -> u32 {
    PAGE.with_borrow_mut(|page| page.play(Player::step))
}

/// Says who runs the agent's program from the next step on: the page for 1, this module for 0, also for a decision whose
/// answer did not come. Returns 1, or 0 and a message in [`text`].
#[unsafe(no_mangle)]
pub extern "C" fn relay(on: u32) -> u32 {
    PAGE.with_borrow_mut(|page| {
        page.relayed = on == 1;
        page.play(|player| if on == 1 { player.relay() } else { player.run_here() })
    })
}

/// The first half of a [`step`], after which the page runs the agent's program. Returns 1, or 0 and a message in [`text`].
#[unsafe(no_mangle)]
pub extern "C" fn decide() -> u32 {
    PAGE.with_borrow_mut(|page| {
        let done = page.play(Player::decide);
        let messages = page.player.as_mut().map(Player::messages).unwrap_or_default();
        page.messages = encode(&messages);
        done
    })
}

/// The second half; if the page runs the program, after it has put scores of the actions at [`outputs`]. Returns 1, or 0 and a message in [`text`].
#[unsafe(no_mangle)]
pub extern "C" fn act() -> u32 {
    PAGE.with_borrow_mut(|page| {
        let outputs = std::mem::take(&mut page.outputs);
        let relayed = page.relayed;
        page.play(|player| if relayed { player.deliver(&outputs) } else { Ok(()) }.and_then(|()| player.act()))
    })
}

/// Where the messages of [`decide`] are, in order: bytes of a name, bytes of data (32 bits each, low byte first), name, data to
/// fill the buffer of that name with; without a name, run the program once.
#[unsafe(no_mangle)]
pub extern "C" fn messages() -> *const u8 {
    PAGE.with_borrow(|page| page.messages.as_ptr())
}

/// Bytes of the messages.
#[unsafe(no_mangle)]
pub extern "C" fn messages_len() -> usize {
    PAGE.with_borrow(|page| page.messages.len())
}

/// Where the scores of the actions are, f32: those of the last step, and where [`act`] takes them from.
#[unsafe(no_mangle)]
pub extern "C" fn outputs() -> *mut f32 {
    PAGE.with_borrow_mut(|page| page.outputs.as_mut_ptr())
}

/// Number of scores.
#[unsafe(no_mangle)]
pub extern "C" fn outputs_len() -> usize {
    PAGE.with_borrow(|page| page.outputs.len())
}

/// Where the numbers of the [`View`] are: `place` (2), `length`, `force`, `tau`, `step`, `episodes`, `falls`, `world`,
/// `routed`, `upright`, `noticed` (-1 for `None`), then `probability` and `score`, one per task each.
#[unsafe(no_mangle)]
pub extern "C" fn view() -> *const f64 {
    PAGE.with_borrow(|page| page.view.as_ptr())
}

/// Where the text is, in UTF-8.
#[unsafe(no_mangle)]
pub extern "C" fn text() -> *const u8 {
    PAGE.with_borrow(|page| page.text.as_ptr())
}

/// Bytes of the text.
#[unsafe(no_mangle)]
pub extern "C" fn text_len() -> usize {
    PAGE.with_borrow(|page| page.text.len())
}

impl Page {
    fn play(&mut self, act: impl FnOnce(&mut Player) -> Result<(), Error>) -> u32 {
        let Some(mut player) = self.player.take() else {
            self.text = "no bank is open".into();
            return 0;
        };
        let done = act(&mut player);
        self.view(player);
        self.done(done)
    }

    fn view(&mut self, player: Player) {
        let view = player.view();
        let noticed = view.noticed.map_or(-1.0, f64::from);
        let counts = [view.step, view.episodes, view.falls].map(f64::from);
        self.view.clear();
        self.view.extend(view.place);
        self.view.extend([view.length, view.force, view.tau]);
        self.view.extend(counts);
        self.view.extend([view.world as f64, view.routed as f64, f64::from(view.upright), noticed]);
        self.view.extend(view.probability.iter().chain(&view.score));
        self.outputs.clear();
        self.outputs.extend(player.outputs());
        self.player = Some(player);
    }

    fn done(&mut self, result: Result<(), Error>) -> u32 {
        match result {
            Ok(()) => 1,
            Err(error) => {
                self.text = error.to_string();
                0
            }
        }
    }
}

fn encode(messages: &[Message]) -> Vec<u8> {
    let mut all = Vec::new();
    for message in messages {
        let (name, bytes): (&str, &[u8]) = match message {
            Message::Write { name, bytes } => (name, bytes),
            Message::Run => ("", &[]),
        };
        [name.len(), bytes.len()].iter().for_each(|len| all.extend((*len as u32).to_le_bytes()));
        all.extend(name.as_bytes());
        all.extend(bytes);
    }
    all
}

fn lines(player: &Player) -> String {
    let mut text = String::new();
    for task in player.tasks() {
        text.push_str(task.name);
        for (name, value) in task.changes {
            text.push_str(&format!("\t{name}\t{value}"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_sees_tasks_and_numbers() {
        let bytes = player::tests::bank().to_writer().unwrap().encode().unwrap();
        assert_eq!(step(), 0, "nothing is open");
        assert!(!input(bytes.len()).is_null());
        PAGE.with_borrow_mut(|page| page.input.copy_from_slice(&bytes));
        assert_eq!(open(3), 1);
        PAGE.with_borrow(|page| assert_eq!(page.text, "P_default\nQ_flipped_actions\tforce_mag\t-10\n"));
        assert_eq!((set_world(1), step()), (1, 1));
        PAGE.with_borrow(|page| {
            assert_eq!(page.view.len(), 12 + 2 * 2);
            assert_eq!(page.view[2..5], [0.5, page.view[3], 0.02]);
            assert_eq!((page.view[3].abs(), page.view[8]), (10.0, 1.0));
        });
        assert_eq!(set_world(2), 0);
        PAGE.with_borrow(|page| assert!(page.text.contains("below 2"), "{}", page.text));
        assert_eq!(step(), 1, "a refused world changes nothing");
        // A decision that is not answered elsewhere is made here.
        assert_eq!((relay(1), decide()), (1, 1));
        PAGE.with_borrow(|page| assert!(page.messages.ends_with(&[0; 8]) && page.outputs.len() == 2));
        assert_eq!(decide(), 0, "the last one was not answered");
        assert_eq!((relay(0), step()), (1, 0), "the first half was done");
        assert_eq!((act(), step()), (1, 1));
    }
}
