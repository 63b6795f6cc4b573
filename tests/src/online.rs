//! What tasks of a sample bank keep to be recognised.

use tsn::affinity::online::{Content, Descriptor, Dynamics, FrameContent, VectorContent};
use tsn::bank::Online;

/// A task of vectors, one of frames, and one of a bank that knew neither.
pub fn online(t: usize) -> Option<Online> {
    let vector = || VectorContent {
        mean: vec![0.5, -1.0],
        var: vec![1.0, 0.0],
        first_mean: vec![0.25; 2],
        first_var: vec![2.0; 2],
        dynamics: Some(Dynamics { weight: vec![0.125; 8], covariance: vec![1.0, 0.5, 0.5, 1.0] }),
    };
    let frame = || FrameContent { prototypes: vec![0.5; 12], mean: 0.75, sd: 0.0625 };
    let (signature, content, places) = match t {
        0 => ("vector 2 discrete 1", Content::Vector(vector()), vec![0, 3]),
        1 => ("frame 2 3 continuous 4", Content::Frame(frame()), Vec::new()),
        _ => return None,
    };
    let descriptor = Descriptor { signature: signature.parse().expect("a signature"), content };
    Some(Online { descriptor, places, clip_rewards: t == 1 })
}
