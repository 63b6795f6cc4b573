use super::*;
use proptest::prelude::*;

const TARGET: Target = Target { chance: Some(2.0), width: Some(4) };

/// Candidates 0, 1, ... in the copies given, with `A` and `L`.
fn table(measures: &[(usize, f64, f64)]) -> Vec<Candidate> {
    let one = |(task, (copy, a, l)): (usize, &(usize, f64, f64))| Candidate {
        action: Some(*a),
        latent: Some(*l),
        ..Candidate::new(task, *copy)
    };
    measures.iter().enumerate().map(one).collect()
}

fn route(policy: &Policy, candidates: &[Candidate]) -> (usize, Option<usize>, bool, bool) {
    let d = decide(policy, &TARGET, candidates).expect("valid measures");
    (d.copy, d.source, d.created, d.warm_start)
}

#[test]
fn the_first_task_gets_copy_0() {
    for policy in [Policy::corrected(), Policy::official(Mode::Hybrid, Thresholds::ATARI)] {
        assert_eq!(route(&policy, &[]), (0, None, true, false));
    }
}

#[test]
fn corrected_gates_the_warm_start_and_keeps_one_copy() {
    let policy = Policy::corrected();
    // Chance is 2: A'' is 0.75, then 1 (still warm), then above 1 (fresh scores, same copy).
    assert_eq!(route(&policy, &table(&[(0, 1.5, 9.0), (0, 1.9, 0.0)])), (0, Some(0), false, true));
    assert_eq!(route(&policy, &table(&[(0, 2.0, 9.0), (0, 3.0, 0.0)])), (0, Some(0), false, true));
    assert_eq!(route(&policy, &table(&[(0, 7.0, 9.0), (0, 3.0, 0.0)])), (0, Some(1), false, false));
    // Ties: the lowest task, in whatever order they are passed.
    let mut ties = table(&[(0, 1.5, 0.0), (0, 1.0, 0.0), (0, 1.0, 0.0)]);
    ties.reverse();
    assert_eq!(route(&policy, &ties), (0, Some(1), false, true));
}

#[test]
fn corrected_spawns_only_when_no_copy_has_room() {
    let policy = Policy::corrected();
    let mut full = table(&[(0, 1.0, 0.0), (0, 1.5, 0.0)]);
    full.iter_mut().for_each(|c| c.fits = false);
    assert_eq!(route(&policy, &full), (1, Some(0), true, false));
    let across = Policy { warm_start_across_copies: true, ..policy.clone() };
    assert_eq!(route(&across, &full), (1, Some(0), true, true));
    let limited = Policy { max_copies: Some(1), ..policy.clone() };
    let decision = decide(&limited, &TARGET, &full).unwrap();
    assert_eq!((decision.copy, decision.created, decision.limited, decision.warm_start), (0, false, true, true));
    // The source's copy is full, a younger one is not: join that one, without the foreign mask.
    let mut two = table(&[(0, 1.0, 0.0), (1, 1.5, 0.0)]);
    two[0].fits = false;
    assert_eq!(route(&policy, &two), (1, Some(0), false, false));
    two[1].action = Some(0.5);
    assert_eq!(route(&policy, &two), (1, Some(1), false, true));
}

#[test]
fn official_thresholds_spawn() {
    let action = Policy::official(Mode::Action, Thresholds::ATARI);
    assert_eq!(route(&action, &table(&[(0, 14.0, 1.0), (0, 12.0, 9.0)])), (0, Some(1), false, true));
    assert_eq!(route(&action, &table(&[(0, 14.0, 1.0), (0, 12.1, 9.0)])), (1, Some(1), true, false));
    let latent = Policy::official(Mode::Latent, Thresholds::ATARI);
    assert_eq!(route(&latent, &table(&[(0, 1.0, 60.0), (1, 90.0, 50.0)])), (1, Some(1), false, true));
    assert_eq!(route(&latent, &table(&[(0, 1.0, 60.0), (1, 90.0, 51.0)])), (2, Some(1), true, false));
    let warm = Policy { warm_start_across_copies: true, ..latent.clone() };
    assert_eq!(route(&warm, &table(&[(0, 1.0, 60.0)])), (1, Some(0), true, true));
    // At the limit of copies the best source's copy serves.
    let limited = Policy { max_copies: Some(2), ..latent };
    let decision = decide(&limited, &TARGET, &table(&[(0, 1.0, 70.0), (1, 1.0, 60.0)])).unwrap();
    assert_eq!((decision.copy, decision.source, decision.created), (1, Some(1), false));
    assert!(decision.limited && decision.warm_start);
}

#[test]
fn hybrid_by_hand() {
    let hybrid = Policy::official(Mode::Hybrid, Thresholds::ATARI);
    // One source: 0.7 A / 12 + 0.3 L / 50 against 1.
    let decision = decide(&hybrid, &TARGET, &table(&[(0, 6.0, 100.0)])).unwrap();
    assert!((decision.scores[0].score - 0.95).abs() < 1e-12 && decision.limit == 1.0 && !decision.created);
    assert_eq!(route(&hybrid, &table(&[(0, 12.0, 51.0)])), (1, Some(0), true, false));
    // Two: norm(A) = 0, 1 and norm(L) = 1, 0.
    let two = table(&[(0, 90.0, 900.0), (0, 95.0, 800.0)]);
    let decision = decide(&hybrid, &TARGET, &two).unwrap();
    let scores: Vec<f64> = decision.scores.iter().map(|r| r.score).collect();
    assert!((scores[0] - 0.3).abs() < 1e-12 && (scores[1] - 0.7).abs() < 1e-12);
    assert_eq!((decision.source, decision.created), (Some(0), false));
    // The absolute form sees that both are far.
    assert_eq!(route(&Policy { mode: Mode::HybridAbs, ..hybrid.clone() }, &two), (1, Some(1), true, false));
    // Without normalisation the raw sum is held against tau_h.
    let off = Policy { normalise: Normalise::Off, ..hybrid.clone() };
    assert_eq!(route(&off, &table(&[(0, 0.5, 0.4), (0, 0.4, 0.9)])), (0, Some(0), false, true));
    assert!(route(&off, &two).2);
    // Equal candidates: all zeros, the first wins.
    assert_eq!(route(&hybrid, &table(&[(0, 5.0, 5.0), (0, 5.0, 5.0)])), (0, Some(0), false, true));
}

#[test]
fn cosine_and_replay_modes() {
    let with = |cosine, kl| [Candidate { cosine: Some(cosine), kl: Some(kl), ..Candidate::new(0, 0) }];
    let cosine = Policy::official(Mode::Cosine, Thresholds::PANDA);
    assert_eq!(route(&cosine, &with(0.5, 9.0)), (0, Some(0), false, true));
    assert_eq!(route(&cosine, &with(0.4, 9.0)), (1, Some(0), true, false));
    let kl = Policy::official(Mode::Kl, Thresholds::PANDA);
    assert_eq!(route(&kl, &with(-1.0, 0.25)), (0, Some(0), false, false));
    assert_eq!(route(&kl, &with(-1.0, 0.26)), (1, Some(0), true, false));
}

#[test]
fn first_match_walks_in_training_order() {
    let best = Policy::official(Mode::Action, Thresholds::ATARI);
    let first = Policy { pick: Pick::FirstMatch, ..best.clone() };
    let three = table(&[(0, 13.0, 0.0), (0, 12.0, 0.0), (1, 1.0, 0.0)]);
    assert_eq!(route(&first, &three), (0, Some(1), false, true));
    assert_eq!(route(&best, &three), (1, Some(2), false, true));
    assert_eq!(route(&first, &table(&[(0, 13.0, 0.0), (0, 14.0, 0.0)])), (1, None, true, false));
    // One copy: nothing matches, so fresh scores in the best source's copy. The limit is A'' = 1.
    let one_copy = Policy { pick: Pick::FirstMatch, units: Units::Scaled, ..Policy::corrected() };
    assert_eq!(route(&one_copy, &three), (1, Some(2), false, true));
    assert_eq!(route(&one_copy, &three[..2]), (0, None, false, false));
}

#[test]
fn random_is_seeded_and_reaches_every_candidate() {
    let candidates = table(&[(0, 1.0, 0.0), (0, 1.0, 0.0), (0, 1.0, 0.0)]);
    let pick = |seed| {
        let policy = Policy { pick: Pick::Random { seed }, ..Policy::corrected() };
        route(&policy, &candidates).1.expect("always a source")
    };
    let mut counts = [0; 3];
    for seed in 0..300 {
        assert_eq!(pick(seed), pick(seed));
        counts[pick(seed)] += 1;
    }
    assert!(counts.iter().all(|c| *c > 60), "{counts:?}");
}

#[test]
fn the_report_has_raw_and_scaled_measures() {
    let candidates = [Candidate { own_error: Some(1.0), ..table(&[(0, 1.5, 8.0)])[0].clone() }];
    let row = &decide(&Policy::corrected(), &TARGET, &candidates).unwrap().scores[0];
    assert_eq!((row.scaled_error, row.chance_ratio, row.latent_per_dim), (Some(0.5), Some(0.75), Some(2.0)));
    assert_eq!((&row.candidate, row.score), (&candidates[0], 1.5));
}

#[test]
fn bad_input_is_named() {
    let policy = Policy::corrected();
    let fails = |policy: &Policy, target: &Target, candidates: &[Candidate]| {
        decide(policy, target, candidates).expect_err("bad input").to_string()
    };
    let good = table(&[(0, 1.0, 1.0)]);
    assert_eq!(fails(&policy, &TARGET, &[Candidate::new(4, 0)]), "task 4 has no action error, which this rule needs");
    assert!(fails(&policy, &Target::default(), &good).contains("no chance level"));
    assert!(fails(&policy, &TARGET, &table(&[(0, f64::NAN, 0.0)])).starts_with("action error is NaN"));
    assert!(fails(&policy, &TARGET, &table(&[(0, -1.0, 0.0)])).starts_with("action error is -1"));
    assert!(fails(&Policy { alpha: 1.4, ..policy.clone() }, &TARGET, &good).contains("alpha is 1.4, outside 0..=1"));
    assert!(fails(&Policy { max_copies: Some(0), ..policy.clone() }, &TARGET, &good).contains("max_copies"));
    let zero = Thresholds { latent: 0.0, ..Thresholds::ATARI };
    assert!(fails(&Policy::official(Mode::HybridAbs, zero), &TARGET, &good).contains("tau_l is 0"));
    let scaled = Policy { units: Units::Scaled, mode: Mode::Latent, ..policy.clone() };
    assert!(fails(&scaled, &Target { width: None, ..TARGET }, &good).contains("latent width"));
    let bad = Target { chance: Some(-1.0), ..TARGET };
    assert!(fails(&policy, &bad, &good).contains("A_chance"));
    // One valid action: the level is 0, no error is better than it, and nothing breaks.
    assert_eq!(decide(&policy, &Target { chance: Some(0.0), ..TARGET }, &good).map(|d| d.warm_start), Ok(false));
}

proptest! {
    #[test]
    fn min_max_hybrid_is_bounded(
        measures in prop::collection::vec((0usize..3, 0f64..50.0, 0f64..500.0), 2..12),
        alpha in 0f64..=1.0,
    ) {
        let policy = Policy { alpha, ..Policy::official(Mode::Hybrid, Thresholds::ATARI) };
        let decision = decide(&policy, &TARGET, &table(&measures)).unwrap();
        let best = decision.scores.iter().map(|r| r.score).fold(f64::INFINITY, f64::min);
        prop_assert!(best <= alpha.min(1.0 - alpha) + 1e-12);
        prop_assert!(!decision.created, "a threshold of 0.5 is never passed");
    }

    #[test]
    fn decisions_are_consistent(
        measures in prop::collection::vec((0usize..3, 0f64..4.0, 0f64..100.0, any::<bool>()), 1..8),
        mode in prop::sample::select(vec![Mode::Action, Mode::Latent, Mode::Hybrid, Mode::HybridAbs]),
        pick in prop::sample::select(vec![Pick::Best, Pick::FirstMatch, Pick::Random { seed: 1 }]),
        spawn in prop::sample::select(vec![Spawn::AboveLimit, Spawn::WhenFull]),
        max_copies in prop::option::of(1usize..5),
    ) {
        let mut candidates = table(&measures.iter().map(|m| (m.0, m.1, m.2)).collect::<Vec<_>>());
        candidates.iter_mut().zip(&measures).for_each(|(c, m)| c.fits = m.3);
        let policy = Policy { pick, spawn, max_copies, ..Policy::official(mode, Thresholds::ATARI) };
        let decision = decide(&policy, &TARGET, &candidates).unwrap();
        let copies = candidates.iter().map(|c| c.copy + 1).max().unwrap();
        prop_assert_eq!(decision.created, decision.copy == copies);
        prop_assert!(candidates.iter().any(|c| c.copy == decision.copy) || decision.created);
        prop_assert!(!(decision.created && max_copies.is_some_and(|most| copies >= most)));
        prop_assert!(!decision.warm_start || decision.source.is_some());
        if let (true, Some(source)) = (decision.warm_start, decision.source) {
            prop_assert_eq!(candidates[source].copy, decision.copy);
        }
        candidates.reverse();
        prop_assert_eq!(decide(&policy, &TARGET, &candidates), Ok(decision));
    }
}
