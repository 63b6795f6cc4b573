//! Controllers for the arms of panda-gym: functions of one observation, without memory.
//!
//! All lengths are in metres. An action moves the hand by up to 5 cm along each axis (1 is 5 cm), and the fingers. The
//! observation is that of the bridge: hand (position, velocity, with fingers their opening), objects of 12 numbers each
//! (position, rotation, velocity, angular velocity), perhaps the time, achieved goal, desired goal.

type Vec3 = [f64; 3];

/// Hand movement of an action of 1.
const STRIDE: f64 = 0.05;
/// Height at which a hand passes over an object.
const ABOVE: f64 = 0.11;
/// Numbers of an object.
const OBJECT: usize = 12;

/// An arm's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arm {
    /// The hand goes to a place.
    Reach,
    /// A cube is pushed to a place on the table.
    Push,
    /// A puck is pushed so that it slides to a place out of reach.
    Slide,
    /// A cube is carried to a place.
    PickAndPlace,
    /// One cube is put to a place, and another one on top of it.
    Stack,
}

impl Arm {
    /// The task of an environment that moves the hand (not the joints).
    pub(crate) fn of(env_id: &str) -> Option<Arm> {
        let name = env_id.rsplit(':').next()?.strip_prefix("Panda")?.strip_suffix("-v3")?;
        match name.strip_suffix("Dense").unwrap_or(name) {
            "Reach" => Some(Arm::Reach),
            "Push" => Some(Arm::Push),
            "Slide" => Some(Arm::Slide),
            "PickAndPlace" => Some(Arm::PickAndPlace),
            "Stack" => Some(Arm::Stack),
            _ => None,
        }
    }

    /// Numbers of the hand, of all objects, and of a goal.
    fn sizes(self) -> [usize; 3] {
        match self {
            Arm::Reach => [6, 0, 3],
            Arm::Push | Arm::Slide => [6, OBJECT, 3],
            Arm::PickAndPlace => [7, OBJECT, 3],
            Arm::Stack => [7, 2 * OBJECT, 6],
        }
    }

    /// Numbers of an action.
    pub(crate) fn actions(self) -> usize {
        match self {
            Arm::Reach | Arm::Push | Arm::Slide => 3,
            Arm::PickAndPlace | Arm::Stack => 4,
        }
    }

    /// The observation has the length of this task's, with or without the time.
    pub(crate) fn fits(self, values: usize) -> bool {
        let [hand, objects, goal] = self.sizes();
        (hand + objects + 2 * goal..=hand + objects + 2 * goal + 1).contains(&values)
    }

    /// What to do; writes `actions()` numbers from -1 to 1.
    pub(crate) fn act(self, obs: &[f32], action: &mut [f32]) {
        let [robot, _, goal] = self.sizes();
        let at = |from: usize| -> Vec3 { std::array::from_fn(|axis| f64::from(obs[from + axis])) };
        let (hand, goals) = (at(0), obs.len() - goal);
        let wanted = match self {
            Arm::Reach => step(hand, at(goals)),
            Arm::Push => push(hand, at(robot), at(goals)),
            Arm::Slide => slide(hand, at(robot), at(robot + 6), at(goals)),
            Arm::PickAndPlace => carry(hand, f64::from(obs[6]), at(robot), at(goals)),
            Arm::Stack => {
                let cubes = [at(robot), at(robot + OBJECT)];
                stack(hand, f64::from(obs[6]), cubes, [at(goals), at(goals + 3)])
            }
        };
        action.iter_mut().zip(wanted).for_each(|(to, value)| *to = value.clamp(-1.0, 1.0) as f32);
    }
}

/// The hand goes towards a place; fingers close.
fn step(hand: Vec3, to: Vec3) -> [f64; 4] {
    let [x, y, z] = std::array::from_fn(|axis| (to[axis] - hand[axis]) / STRIDE);
    [x, y, z, -1.0]
}

/// The same with open fingers.
fn open(step: [f64; 4]) -> [f64; 4] {
    [step[0], step[1], step[2], 1.0]
}

fn flat(a: Vec3, b: Vec3) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// The hand as seen from an object that is to move to a goal.
struct Line {
    /// Unit vector on the table from the object to the goal.
    to_goal: [f64; 2],
    /// How far the goal is.
    left: f64,
    /// How far the hand is behind the object on the line from the goal through it.
    behind: f64,
    /// How far the hand is from that line, along `(-to_goal.y, to_goal.x)`.
    beside: f64,
}

impl Line {
    fn of(hand: Vec3, object: Vec3, goal: Vec3) -> Line {
        let left = flat(object, goal).max(1e-6);
        let [x, y] = [(goal[0] - object[0]) / left, (goal[1] - object[1]) / left];
        let offset = [hand[0] - object[0], hand[1] - object[1]];
        let behind = -(offset[0] * x + offset[1] * y);
        Line { to_goal: [x, y], left, behind, beside: offset[1] * x - offset[0] * y }
    }

    /// A place relative to the object, in the terms of this line.
    fn place(&self, object: Vec3, behind: f64, beside: f64, height: f64) -> Vec3 {
        let [x, y] = self.to_goal;
        [object[0] - behind * x - beside * y, object[1] - behind * y + beside * x, height]
    }
}

fn push(hand: Vec3, object: Vec3, goal: Vec3) -> [f64; 4] {
    let line = Line::of(hand, object, goal);
    let low = hand[2] < 0.035;
    if low && line.behind > 0.0 && line.behind < 0.09 && line.beside.abs() < 0.02 {
        // Slower near the goal, so that the cube stays in touch.
        let ahead = line.behind - line.left.clamp(0.01, 0.03);
        return step(hand, line.place(object, ahead, -line.beside, 0.02));
    }
    approach(hand, line.place(object, 0.065, 0.0, 0.02), 0.02)
}

/// Half the breadth of the closed fingers along y, and along x; the radius of a puck.
const FINGERS: [f64; 2] = [0.023, 0.011];
const PUCK: f64 = 0.03;

/// Strikes a puck. It has hardly any friction, so it goes where the normal of the contact points: a corner of the fingers,
/// which do not turn, has to lie on the line through the puck to the goal.
fn slide(hand: Vec3, puck: Vec3, speed: Vec3, goal: Vec3) -> [f64; 4] {
    let left = flat(puck, goal).max(1e-6);
    let [x, y] = [(goal[0] - puck[0]) / left, (goal[1] - puck[1]) / left];
    let touch = [puck[0] - FINGERS[1] - PUCK * x, puck[1] - FINGERS[0] * y.signum() - PUCK * y, 0.015];
    let away = [hand[0] - touch[0], hand[1] - touch[1]];
    let (behind, beside) = (-(away[0] * x + away[1] * y), away[1] * x - away[0] * y);
    if hand[2] < 0.035 && (-0.03..0.1).contains(&behind) && beside.abs() < 0.02 {
        let back = 1.5 * beside;
        return step(hand, [hand[0] + 0.04 * x + back * y, hand[1] + 0.04 * y - back * x, 0.015]);
    }
    // It slides already.
    if speed[0] * x + speed[1] * y > 0.15 {
        return [0.0; 4];
    }
    let start = [touch[0] - 0.035 * x, touch[1] - 0.035 * y, 0.015];
    approach(hand, start, 0.015)
}

/// Goes to a place beside an object over whatever lies between: up, there, and down.
fn approach(hand: Vec3, start: Vec3, near: f64) -> [f64; 4] {
    match flat(hand, start) < near {
        true => step(hand, start),
        // Up first: a hand beside the object would take it along.
        false if hand[2] < ABOVE - 0.04 => step(hand, [hand[0], hand[1], ABOVE]),
        false => step(hand, [start[0], start[1], ABOVE]),
    }
}

/// Takes a cube and brings it to a goal.
fn carry(hand: Vec3, fingers: f64, cube: Vec3, goal: Vec3) -> [f64; 4] {
    let off = flat(hand, cube);
    if off > 0.03 {
        let over = [cube[0], cube[1], cube[2].max(0.02) + ABOVE - 0.02];
        return match hand[2] < over[2] - 0.05 {
            true => open(step(hand, [hand[0], hand[1], over[2]])),
            false => open(step(hand, over)),
        };
    }
    if fingers < 0.045 && (hand[2] - cube[2]).abs() < 0.02 && off < 0.02 {
        return step(hand, [hand[0] + goal[0] - cube[0], hand[1] + goal[1] - cube[1], hand[2] + goal[2] - cube[2]]);
    }
    // Fingers that close off the middle of a cube push it out; the arm sways when it goes down fast.
    if off > 0.012 {
        return open(step(hand, [cube[0], cube[1], hand[2]]));
    }
    if hand[2] - cube[2] > 0.012 {
        return open(step(hand, [cube[0], cube[1], cube[2].max(hand[2] - 0.04)]));
    }
    step(hand, [cube[0], cube[1], hand[2]])
}

fn stack(hand: Vec3, fingers: f64, cubes: [Vec3; 2], goals: [Vec3; 2]) -> [f64; 4] {
    let [lower, upper] = cubes;
    if flat(lower, goals[0]) > 0.02 || lower[2] > 0.035 {
        return carry(hand, fingers, lower, goals[0]);
    }
    // The first cube is in its place: let go of it.
    if flat(hand, lower) < 0.02 && hand[2] < 0.04 && fingers < 0.07 {
        return open(step(hand, hand));
    }
    // High until it is over its place, so that it does not knock the first one over.
    let high = [goals[1][0], goals[1][1], ABOVE];
    match flat(upper, goals[1]) > 0.02 {
        true if upper[2] < 0.08 => carry(hand, fingers, upper, [upper[0], upper[1], ABOVE]),
        true => carry(hand, fingers, upper, high),
        false => carry(hand, fingers, upper, goals[1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hand that does what it is told, and a cube that it takes along with closed fingers or pushes.
    struct World {
        hand: Vec3,
        fingers: f64,
        cube: Vec3,
        goal: Vec3,
    }

    impl World {
        fn obs(&self, arm: Arm) -> Vec<f32> {
            let [robot, objects, _] = arm.sizes();
            let mut obs: Vec<f64> = self.hand.to_vec();
            obs.extend([0.0; 3]);
            obs.extend((robot == 7).then_some(self.fingers));
            if objects > 0 {
                obs.extend(self.cube);
                obs.extend([0.0; 9]);
            }
            obs.extend(if objects > 0 { self.cube } else { self.hand });
            obs.extend(self.goal);
            assert!(arm.fits(obs.len()));
            obs.into_iter().map(|v| v as f32).collect()
        }

        fn step(&mut self, arm: Arm) {
            let mut action = vec![0.0; arm.actions()];
            arm.act(&self.obs(arm), &mut action);
            assert!(action.iter().all(|a| (-1.0..=1.0).contains(a)), "{action:?}");
            let by: Vec3 = std::array::from_fn(|axis| STRIDE * f64::from(action[axis]));
            let held = self.fingers < 0.045 && self.distance(self.hand, self.cube) < 0.03;
            (0..3).for_each(|axis| self.hand[axis] += by[axis]);
            if arm == Arm::PickAndPlace {
                if held {
                    (0..3).for_each(|axis| self.cube[axis] += by[axis]);
                }
                // Around a cube they do not close.
                let least = if self.distance(self.hand, self.cube) < 0.02 { 0.04 } else { 0.0 };
                self.fingers = (self.fingers + 0.2 * f64::from(action[3])).clamp(least, 0.08);
            }
        }

        fn distance(&self, a: Vec3, b: Vec3) -> f64 {
            (0..3).map(|axis| (a[axis] - b[axis]).powi(2)).sum::<f64>().sqrt()
        }
    }

    #[test]
    fn goals_are_reached_where_nothing_is_in_the_way() {
        for arm in [Arm::Reach, Arm::PickAndPlace] {
            for (cube, goal) in [([0.1, -0.1], [-0.05, 0.1]), ([-0.1, 0.05], [0.12, 0.0]), ([0.0, 0.0], [0.0, -0.12])] {
                let mut world = World {
                    hand: [0.04, 0.0, 0.2],
                    fingers: 0.0,
                    cube: [cube[0], cube[1], 0.02],
                    goal: [goal[0], goal[1], 0.15],
                };
                let mut steps = 0;
                while steps < 50
                    && world.distance(world.goal, if arm == Arm::Reach { world.hand } else { world.cube }) > 0.04
                {
                    world.step(arm);
                    steps += 1;
                }
                assert!(steps < 50, "{arm:?} from {cube:?} to {goal:?}: cube {:?}", world.cube);
            }
        }
    }

    #[test]
    fn a_cube_is_pushed_from_behind() {
        let (cube, goal) = ([0.0, 0.0, 0.02], [0.2, 0.0, 0.02]);
        // In front of it and low: up. Over its back: down. Behind it: towards the goal.
        assert!(push([0.1, 0.0, 0.02], cube, goal)[2] > 0.9);
        let [x, y, down, _] = push([-0.065, 0.0, 0.1], cube, goal);
        assert!(x.abs() < 1e-9 && y.abs() < 1e-9 && down < -0.9, "{x} {y} {down}");
        let [ahead, beside, _, _] = push([-0.05, 0.01, 0.02], cube, goal);
        assert!(ahead > 0.5 && beside < 0.0, "{ahead} {beside}");
    }

    #[test]
    fn a_puck_is_struck_from_behind_with_the_corner_on_its_line() {
        let (puck, goal) = ([0.0, 0.0, 0.015], [0.3, 0.3, 0.03]);
        // Far away and low: up. Over the start: down. There: along the line, more to the right than it is.
        let [_, _, up, _] = slide([0.0, 0.1, 0.02], puck, [0.0; 3], goal);
        assert!(up > 0.9);
        let side = 0.065 * 0.5f64.sqrt();
        let start = [-side - FINGERS[1], -side - FINGERS[0]];
        let [x, y, down, _] = slide([start[0], start[1], 0.1], puck, [0.0; 3], goal);
        assert!(x.abs() < 1e-9 && y.abs() < 1e-9 && down < -0.9);
        let [x, y, _, _] = slide([start[0], start[1], 0.015], puck, [0.0; 3], goal);
        assert!(x > 0.5 && (x - y).abs() < 1e-9, "{x} {y}");
        // It is on its way and the hand is not behind it.
        assert_eq!(slide([-0.3, 0.0, 0.015], puck, [0.5, 0.5, 0.0], goal), [0.0; 4]);
    }

    #[test]
    fn the_second_cube_waits_for_the_first() {
        let goals = [[0.1, 0.1, 0.02], [0.1, 0.1, 0.06]];
        let (away, home) = ([-0.1, 0.0, 0.02], [0.1, 0.1, 0.02]);
        let upper = [0.0, -0.1, 0.02];
        let high = [0.04, 0.0, 0.2];
        let towards =
            |step: [f64; 4], place: Vec3| step[0] * (place[0] - high[0]) + step[1] * (place[1] - high[1]) > 0.0;
        assert!(towards(stack(high, 0.08, [away, upper], goals), away));
        assert!(towards(stack(high, 0.08, [home, upper], goals), upper));
        // In its place but held: fingers open and the hand stays.
        assert_eq!(stack(home, 0.04, [home, upper], goals), [0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn tasks_are_told_by_their_names() {
        assert_eq!(Arm::of("panda_gym:PandaSlideDense-v3"), Some(Arm::Slide));
        assert_eq!(Arm::of("PandaStack-v3"), Some(Arm::Stack));
        for other in ["PandaFlipDense-v3", "PandaReachJointsDense-v3", "PandaPush-v2", "Pusher-v5"] {
            assert_eq!(Arm::of(other), None, "{other}");
        }
        assert!(Arm::Push.fits(24) && Arm::Push.fits(25) && !Arm::Push.fits(26));
    }
}
