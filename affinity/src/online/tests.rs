#![expect(clippy::single_range_in_vec_init, reason = "a list of episodes is a list of ranges")]

use super::*;
use engine::kernels::philox::{Rng, Stream};
use std::ops::Range;

const PUSHED: Signature = Signature { observation: Shape::Vector(3), actions: Actions::Discrete(2) };
const FRAMES: Signature =
    Signature { observation: Shape::Frame { height: 84, width: 84 }, actions: Actions::Discrete(4) };

/// A point pushed left or right by `force`; the third number is constant.
fn pushed(force: f32, seed: u64) -> (Vec<f32>, Vec<u32>, Vec<Range<usize>>) {
    let mut rng = Rng::new(seed, Stream::Data, [0, 0]);
    let (mut obs, mut ids, mut episodes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..20 {
        let start = ids.len();
        let (mut x, mut v) = (0.1 * rng.normal() as f32, 0.0f32);
        for _ in 0..30 {
            let id = rng.below(2) as u32;
            obs.extend([x, v, 7.0]);
            ids.push(id);
            v = 0.9 * v + force * (id as f32 - 0.5);
            x += 0.1 * v;
        }
        episodes.push(start..ids.len());
    }
    (obs, ids, episodes)
}

/// A descriptor of vectors in memory.
fn vectors(signature: Signature, obs: &[f32], ids: &[u32], episodes: &[Range<usize>]) -> crate::Result<Descriptor> {
    let read = |row: usize, to: &mut [f32]| to.copy_from_slice(&obs[row * to.len()..][..to.len()]);
    let states = States { rows: obs.len() / 3, read: &read };
    Descriptor::of_vectors(signature, states, Executed::Ids(ids), episodes)
}

/// A descriptor of frames in memory.
fn described(bytes: &[u8], train: &[Range<usize>], held_out: &[Range<usize>], task: u32) -> crate::Result<Descriptor> {
    let read = |row: usize, to: &mut [f32]| {
        let frame = &bytes[row * to.len()..][..to.len()];
        to.iter_mut().zip(frame).for_each(|(to, from)| *to = f32::from(*from));
    };
    Descriptor::of_frames(FRAMES, States { rows: bytes.len() / (84 * 84), read: &read }, train, held_out, 5, task)
}

fn describe(force: f32) -> Descriptor {
    let (obs, ids, episodes) = pushed(force, 1);
    vectors(PUSHED, &obs, &ids, &episodes).unwrap()
}

fn router(descriptors: &[Descriptor], settings: Settings) -> Router {
    Router::new(descriptors[0].signature, descriptors.iter().enumerate(), settings).unwrap()
}

/// Decisions along an episode.
fn follow(router: &Router, force: f32) -> Vec<Decision> {
    let (obs, ids, episodes) = pushed(force, 2);
    let mut filter = router.start().unwrap();
    let mut decisions = Vec::new();
    for row in episodes[3].clone() {
        let action = (row > episodes[3].start).then(|| Act::Id(ids[row - 1]));
        decisions.push(filter.observe(router, action, &obs[row * 3..][..3]).unwrap());
    }
    decisions
}

#[test]
fn one_transition_tells_opposite_forces() {
    let tasks = [describe(1.0), describe(-1.0), describe(3.0)];
    let router = router(&tasks, Settings::default());
    for (task, force) in [1.0, -1.0, 3.0].into_iter().enumerate() {
        let decisions = follow(&router, force);
        assert!(decisions[1..].iter().all(|d| d.task == task && !d.unknown), "{force}");
        assert!(!decisions[0].switched && decisions[2..].iter().all(|d| !d.switched));
    }
    // A stronger push than any is none of the three.
    assert!(follow(&router, 30.0)[1..].iter().all(|d| d.unknown));
}

#[test]
fn options_change_the_choice() {
    let tasks = [describe(1.0), describe(-1.0)];
    let stubborn = router(&tasks, Settings { margin: 1e9, ..Settings::default() });
    assert!(follow(&stubborn, -1.0)[1..].iter().all(|d| d.task == 0));
    let short = router(&tasks, Settings { keep: 0.5, ..Settings::default() });
    assert!(follow(&short, -1.0)[1..].iter().all(|d| d.task == 1));
    // The states of both are alike, so the state alone cannot tell.
    let nearest = router(&tasks, Settings { evidence: Evidence::Nearest, ..Settings::default() });
    let mut filter = nearest.start().unwrap();
    filter.observe(&nearest, None, &[0.0, 0.0, 7.0]).unwrap();
    assert!((filter.scores()[0] - filter.scores()[1]).abs() < 1.0);
    let forced = filter.add(&nearest, &[0.0, 50.0]).unwrap();
    assert_eq!((forced.task, filter.posterior()[1] > 0.99), (1, true));
    assert!(filter.add(&nearest, &[0.0]).is_err() && filter.add(&nearest, &[f64::NAN, 0.0]).is_err());
}

#[test]
fn dynamics_are_recovered() {
    let Content::Vector(content) = describe(2.0).content else { panic!("vectors") };
    let Dynamics { weight, covariance } = content.dynamics.unwrap();
    // Noise free: what is left of the change is rounding and the ridge.
    assert!(covariance[0] < 1e-6 && covariance[4] < 1e-6, "{covariance:?}");
    // The constant never changes.
    assert!(weight[2 * 6..].iter().all(|w| w.abs() < 1e-6), "{weight:?}");
    // v' - v = -0.1 v + 2 (id - 1/2): the two actions differ by 2 in raw units.
    let step = (weight[6 + 4] - weight[6 + 3]) * content.var[1].sqrt();
    assert!((step - 2.0).abs() < 1e-3, "{step}");
}

#[test]
fn signatures_filter() {
    let narrow = describe(1.0);
    let wide = Descriptor { signature: Signature { actions: Actions::Discrete(3), ..PUSHED }, ..narrow.clone() };
    // Stored under a signature of another size, the dynamics do not fit.
    assert!(wide.check().is_err());
    let bare = |d: &Descriptor| {
        let Content::Vector(content) = d.content.clone() else { panic!("vectors") };
        Descriptor { content: Content::Vector(VectorContent { dynamics: None, ..content }), ..d.clone() }
    };
    let tasks = [bare(&narrow), bare(&wide), bare(&narrow)];
    let fitting = Router::new(PUSHED, tasks.iter().enumerate(), Settings::default()).unwrap();
    assert_eq!(fitting.tasks(), [0, 2]);
    let alone = Router::new(wide.signature, tasks.iter().enumerate(), Settings::default()).unwrap();
    let mut filter = alone.start().unwrap();
    assert_eq!(filter.observe(&alone, None, &[9.0; 3]).unwrap().task, 1);
    let none = Router::new(FRAMES, tasks.iter().enumerate(), Settings::default()).err().unwrap().to_string();
    assert!(none.contains("frame 84 84 discrete 4") && none.contains("vector 3 discrete 3"), "{none}");
    for signature in [PUSHED, FRAMES, Signature { actions: Actions::Continuous(3), ..PUSHED }] {
        assert_eq!(signature.to_string().parse(), Ok(signature));
    }
    for bad in
        ["", "vector 3", "vector 0 discrete 2", "vector 3 discrete 2 ", "frame 84 discrete 4", "vector +3 discrete"]
    {
        assert!(bad.parse::<Signature>().is_err(), "{bad:?}");
    }
}

/// Frames with a bright column at a place of their own.
fn frames(place: usize, n: usize) -> Vec<u8> {
    let mut rng = Rng::new(place as u64, Stream::Data, [1, 0]);
    let mut bytes = Vec::new();
    for _ in 0..n {
        let ball = rng.below(84) as usize;
        bytes.extend((0..84 * 84).map(|at| match (at / 84, at % 84) {
            (row, column) if column / 14 == place || row.abs_diff(ball) < 3 => 200u8,
            _ => 20,
        }));
    }
    bytes
}

#[test]
fn frames_by_their_blocks() {
    let train = [0..150];
    let held_out = [150..200];
    let tasks: Vec<Descriptor> =
        (0..3).map(|t| described(&frames(t, 200), &train, &held_out, t as u32).unwrap()).collect();
    let router = router(&tasks, Settings::default());
    let mut filter = router.start().unwrap();
    let mut last = |place: usize| {
        filter.clear();
        let seen = frames(place, 220);
        let pixels: Vec<f32> = seen.iter().map(|b| f32::from(*b)).collect();
        let mut decisions =
            pixels.chunks_exact(84 * 84).skip(200).map(|obs| filter.observe(&router, None, obs).unwrap());
        decisions.next_back().unwrap()
    };
    for place in 0..3 {
        assert_eq!((last(place).task, last(place).unknown), (place, false));
    }
    assert!(last(5).unknown);
    let again = described(&frames(0, 200), &train, &held_out, 0).unwrap();
    assert_eq!(again, tasks[0]);
}

#[test]
fn bad_input_is_named_and_changes_nothing() {
    let tasks = [describe(1.0), describe(-1.0)];
    let router = router(&tasks, Settings::default());
    let mut filter = router.start().unwrap();
    let first = filter.observe(&router, None, &[0.0, 0.0, 7.0]).unwrap();
    let before = filter.scores().to_vec();
    let bad: [(Option<Act<'_>>, &[f32]); 5] = [
        (None, &[0.0; 4]),
        (None, &[0.0, f32::NAN, 7.0]),
        (Some(Act::Id(2)), &[0.0; 3]),
        (Some(Act::Vector(&[0.0, 1.0])), &[0.0; 3]),
        (Some(Act::Id(u32::MAX)), &[0.0; 3]),
    ];
    for (action, obs) in bad {
        assert!(filter.observe(&router, action, obs).is_err());
    }
    assert_eq!(filter.scores(), before);
    filter.clear();
    assert_eq!(filter.observe(&router, None, &[0.0, 0.0, 7.0]), Ok(first));
    for settings in [Settings { keep: 1.5, ..Settings::default() }, Settings { margin: -1.0, ..Settings::default() }] {
        assert!(Router::new(PUSHED, tasks.iter().enumerate(), settings).is_err());
    }
    let (obs, ids, _) = pushed(1.0, 1);
    let of = |episodes: &[Range<usize>]| vectors(PUSHED, &obs, &ids, episodes);
    assert!(of(&[]).is_err() && of(&[0..0]).is_err() && of(&[0..10_000]).is_err());
    assert!(vectors(PUSHED, &obs, &ids[1..], &[0..30]).is_err());
    assert!(vectors(FRAMES, &obs, &ids, &[0..30]).is_err());
    assert!(described(&[], &[0..1], &[], 0).is_err());
    // One state: known by its place alone.
    let Content::Vector(single) = of(&[0..1]).unwrap().content else { panic!("vectors") };
    assert_eq!(single.dynamics, None);
}
