use super::*;
use crate::contract::DType::F32 as Float;
use crate::par::Pool;
use crate::philox::{Rng, Stream};
use crate::trial::{Array, Trial};

const SIZES: [(usize, usize); 9] =
    [(0, 5), (3, 0), (1, 1), (2, 15), (3, 16), (5, 31), (7, 33), (130, 257), (1, 70_001)];

#[test]
fn pulls_and_path_integrals_at_awkward_sizes() {
    let mut rng = Rng::new(1, Stream::Init, [0, 0]);
    for (o, i) in SIZES {
        let mut matrix = || Array::F32(o, i, (0..o * i).map(|_| rng.normal() as f32).collect());
        let args = vec![matrix(), matrix(), matrix(), matrix(), Array::output(Float, o, i)];
        Trial::new(&PULL, args, &[0.7f32.to_bits()]).unwrap().verify().unwrap();
        let args = vec![matrix(), matrix(), matrix(), matrix()];
        Trial::new(&PATH_INTEGRAL, args, &[]).unwrap().verify().unwrap();
    }
}

#[test]
fn nothing_pulls_at_the_anchor() {
    let (g, p) = (vec![0.5, -2.0], vec![3.0, 4.0]);
    let row = |values: &Vec<f32>| Array::F32(1, 2, values.clone());
    let args = vec![row(&g), row(&vec![9.0, 9.0]), row(&p), row(&p), Array::output(Float, 1, 2)];
    let mut t = Trial::new(&PULL, args, &[50.0f32.to_bits()]).unwrap();
    t.run(&PULL.cpu[0], &Pool::serial()).unwrap();
    assert_eq!(t.args[4].f32(), g);
}

/// Small steps down a bowl `1/2 sum of c x²`: the integral is the decrease of the loss (method.md, checklist 13).
#[test]
fn the_path_integral_of_a_quadratic_is_the_decrease_of_its_loss() {
    let curve = [1.0f32, 3.0, 0.5];
    let start = vec![2.0f32, -1.0, 4.0];
    let row = |values: &Vec<f32>| Array::F32(1, 3, values.clone());
    let zero = vec![0.0; 3];
    let mut t = Trial::new(&PATH_INTEGRAL, vec![row(&zero), row(&start), row(&start), row(&zero)], &[]).unwrap();
    let mut x = start.clone();
    for _ in 0..400 {
        let g: Vec<f32> = x.iter().zip(curve).map(|(x, c)| c * x).collect();
        x.iter_mut().zip(&g).for_each(|(x, g)| *x -= 0.01 * g);
        (t.args[0], t.args[1]) = (row(&g), row(&x));
        t.run(&PATH_INTEGRAL.cpu[0], &Pool::serial()).unwrap();
    }
    let loss = |x: &[f32]| x.iter().zip(curve).map(|(x, c)| 0.5 * c * x * x).sum::<f32>();
    let (fell, integral) = (loss(&start) - loss(&x), t.args[3].f32().iter().sum::<f32>());
    assert!((integral - fell).abs() < 0.02 * fell, "{integral} for a decrease of {fell}");
    assert_eq!(t.args[2].f32(), x);
}
