// op      attention              y = dropout(softmax(q kᵀ / sqrt(d)) v over visible keys); stats = log-sum-exp per
//         head
//         attention_dx           dqkv from dy, probabilities recomputed from stats
// args    AttentionArgs  AttentionDxArgs
// layout  row major with pitch `_ld`; a row of qkv is q, k, v of all heads, each head-major; heads of at most 128 columns; f32 as
//         three bf16
// launch  attention_mma_*: one block of 4 warps per head and 64 queries; attention_dx_mma_*: the same for dq, and two per
//         head and 64 keys for dk and dv, at the same time, in _128 2 warps and 32; the number is the columns of a tile;
//         dynamic shared memory
// order   all products in steps of 16, which the instruction sums; attention: keys in chunks of 16 or 32, whose sums are
//         formed from 0; exponents lane by lane, then lanes 1 and 2 apart; attention_dx: keys or queries in chunks of
//         16 or 32
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*r*t*c flop; 4*(r*e + r*c + r*h) + r bytes; attention_dx 8*r*t*c flop; 4*(2*r*e + 2*r*c + r*h) + r bytes;
//         6 products of bf16 each
// source  softmax by chunks: Milakov & Gimelshein 2018, Dao et al. 2022; dropout as kernels/src/ops/dropout/draw.rs
#include "attention_mma.h"

KERNEL(128) attention_mma_32(AttentionArgs<float> a) { attention<32, 32>(a); }
KERNEL(128) attention_mma_64(AttentionArgs<float> a) { attention<64, 32>(a); }
KERNEL(128) attention_mma_128(AttentionArgs<float> a) { attention<128, 16>(a); }
KERNEL(128, 1) attention_dx_mma_32(AttentionDxArgs<float> a) { attention_dx<32, ROWS, 32>(a); }
KERNEL(128, 1) attention_dx_mma_64(AttentionDxArgs<float> a) { attention_dx<64, ROWS, 32>(a); }
// Half as many rows, so that every GPU has the shared memory.
KERNEL(64) attention_dx_mma_128(AttentionDxArgs<float> a) { attention_dx<128, ROWS / 2, 16>(a); }
