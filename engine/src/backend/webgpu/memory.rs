//! An arena on the device, cut into chunks, and the way to and from the host.

use super::gpu::Gpu;
use crate::arena::ALIGN;
use crate::error::{Error, Result};
use std::sync::mpsc;

/// Zeroed device memory.
pub(super) struct Arena {
    chunks: Vec<wgpu::Buffer>,
    chunk_bytes: usize,
    bytes: usize,
}

impl Arena {
    /// # Errors
    /// [`Error::Memory`] if the device has not as much.
    pub(super) fn zeroed(gpu: &Gpu, label: &str, bytes: usize) -> Result<Arena> {
        let chunk_bytes = gpu.chunk_bytes();
        let size = |first: usize| (bytes - first).min(chunk_bytes).max(ALIGN);
        let firsts = (0..bytes.max(1)).step_by(chunk_bytes);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let create = |first| {
            let (label, size, mapped_at_creation) = (Some(label), size(first) as u64, false);
            gpu.scoped("memory", bytes, |device| {
                device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation })
            })
        };
        Ok(Arena { chunks: firsts.map(create).collect::<Result<_>>()?, chunk_bytes, bytes })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The chunk that holds a byte, and its place there.
    pub(super) fn at(&self, at: usize) -> (&wgpu::Buffer, u64) {
        (&self.chunks[at / self.chunk_bytes], (at % self.chunk_bytes) as u64)
    }

    /// Fills a range; the gap behind it, up to the next whole word, is filled with zeros.
    pub(super) fn write(&self, gpu: &Gpu, at: usize, bytes: &[u8]) -> Result<()> {
        gpu.check()?;
        let (chunk, offset) = self.at(at);
        let (words, rest) = bytes.split_at(bytes.len() / 4 * 4);
        if !words.is_empty() {
            gpu.inner.queue.write_buffer(chunk, offset, words);
        }
        if !rest.is_empty() {
            let mut last = [0; 4];
            last[..rest.len()].copy_from_slice(rest);
            gpu.inner.queue.write_buffer(chunk, offset + words.len() as u64, &last);
        }
        gpu.check()
    }

    /// A range, once all submitted work has run. Starts at a multiple of 4.
    pub(super) fn read(&self, gpu: &Gpu, at: usize, bytes: usize) -> Result<Vec<u8>> {
        let (chunk, offset) = self.at(at);
        download(gpu, chunk, offset, bytes)
    }
}

/// A range of a buffer, once all submitted work has run. Starts at a multiple of 4.
pub(super) fn download(gpu: &Gpu, from: &wgpu::Buffer, offset: u64, bytes: usize) -> Result<Vec<u8>> {
    if bytes == 0 {
        return Ok(Vec::new());
    }
    let size = bytes.next_multiple_of(4) as u64;
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: Some("read"), size, usage, mapped_at_creation: false };
    let staging = gpu.scoped("memory", bytes, |device| device.create_buffer(&descriptor))?;
    let mut encoder = gpu.inner.device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(from, offset, &staging, 0, size);
    gpu.inner.queue.submit([encoder.finish()]);
    let (sender, receiver) = mpsc::channel();
    // The receiver is gone only if waiting failed, and then nobody asks.
    staging.map_async(wgpu::MapMode::Read, .., move |mapped| drop(sender.send(mapped)));
    gpu.wait()?;
    let failed = |cause: String| Error::Gpu { what: "reading".to_owned(), cause };
    // Another thread that waits for the device may be the one that sends, a moment later.
    receiver.recv().map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
    let view = staging.get_mapped_range(..).map_err(|e| failed(e.to_string()))?;
    Ok(view[..bytes].to_vec())
}
