use super::*;
use crate::bits::BitMask;
use crate::contract::DType;
use crate::philox::{Rng, Stream};
use crate::trial::{Array, Trial};

#[test]
fn pack_and_unpack_at_awkward_sizes() {
    let mut rng = Rng::new(1, Stream::Init, [0, 0]);
    for (r, c) in
        [(0, 5), (3, 0), (1, 1), (2, 7), (3, 8), (4, 9), (5, 31), (2, 32), (3, 33), (7, 97), (1, 300_001), (300_001, 1)]
    {
        // Flags are any byte: 128 and 255 are where a carry between bytes would show.
        let flags: Vec<u8> = (0..r * c).map(|_| [0, 0, 1, 2, 127, 128, 255][rng.below(7) as usize]).collect();
        let mask = BitMask::from_flags(r as u32, c as u32, flags.iter().map(|f| *f != 0));
        let args = vec![Array::U8(r, c, flags), Array::output(DType::Bits, r, c)];
        Trial::new(&PACK_BITS, args, &[]).unwrap().verify().unwrap();
        let args = vec![Array::Bits(mask), Array::output(DType::U8, r, c)];
        Trial::new(&UNPACK_BITS, args, &[]).unwrap().verify().unwrap();
    }
}
