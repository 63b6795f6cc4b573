//! Writes what the page needs to run an agent's program on the browser's WebGPU, as JSON:
//! `cargo run --release -p tsn-web --features wgsl --example webgpu_plan -- bank.safetensors`.
//!
//! `arenas`: bytes of both; `texts`: WGSL; `launches`: in order, each with its text, entry point, workgroups, the index of its
//! parameters and its bindings (number, arena, first byte, bytes; the number alone where anything may be bound); `params`;
//! `buffers`: arena, first byte and bytes of what the host fills; `output`: those of the scores.
#![expect(clippy::print_stdout, reason = "a tool for the terminal")]

use serde_json::{Value, json};
use std::error::Error;
use tsn::dt::autograd::engine::Life;
use tsn::dt::autograd::engine::launches::{Adapter, Launch, Launches, Range};
use tsn::{Bank, TensorFile};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("name a bank")?;
    let bank = Bank::from_file(TensorFile::parse(std::fs::read(path)?)?)?;
    let plan = tsn::agent::plan(&bank.model()?, &bank)?;
    // What WebGPU promises. One decision is so small that tiles are mostly empty, and plain kernels compile sooner.
    let (chunk_bytes, binding_bytes, variant) = (256 << 20, 128 << 20, Some("plain"));
    let adapter = Adapter { chunk_bytes, binding_bytes, has: &|_| false, slow: &[], variant };
    let launches = Launches::new(&plan, &adapter)?;
    let mut texts: Vec<String> = Vec::new();
    let mut listed = Vec::new();
    for (params, call) in launches.calls.iter().enumerate() {
        let text = call.text();
        let at = texts.iter().position(|known| *known == text).unwrap_or_else(|| {
            texts.push(text.into_owned());
            texts.len() - 1
        });
        let one = |Launch { entry, groups, binds }: &Launch| {
            let bind = |(binding, range): &(u32, Option<Range>)| match range {
                Some(Range { arena, at, bytes }) => json!([binding, arena, at, bytes]),
                None => json!([binding]),
            };
            let binds: Vec<Value> = binds.iter().map(bind).collect();
            json!({ "text": at, "entry": entry, "groups": groups, "params": params, "binds": binds })
        };
        listed.extend(call.launches.iter().map(one));
    }
    let params: Vec<&[u32]> = launches.calls.iter().map(|call| &call.params[..]).collect();
    let place = |Range { arena, at, bytes }: Range| json!([arena, at, bytes]);
    let host = launches.named(&plan).filter(|(_, life, _)| *life != Life::Output);
    let buffers: serde_json::Map<String, Value> =
        host.map(|(name, _, range)| (name.to_owned(), place(range))).collect();
    let output = launches.named(&plan).find(|(_, life, _)| *life == Life::Output).ok_or("no output")?.2;
    println!(
        "{}",
        json!({
            "arenas": launches.arena_bytes, "texts": texts, "launches": listed, "params": params,
            "buffers": buffers, "output": place(output),
        })
    );
    Ok(())
}
