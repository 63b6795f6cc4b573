// op      sum                    y = sum of all entries
//         moments                mean and population variance of every column, variance at least floor
//         sym_kl                 kl = ½ (KL(p‖q) + KL(q‖p)) of diagonal Gaussians, in nats
// args    SumArgs  MomentsArgs  SymKlArgs
// layout  row major with pitch `_ld`
// launch  sum_blocks: one block of 256 per 4096 entries; sum_combine, sym_kl: one block of 256; moments: one thread per
//         column, 128 to a block
// order   every 256th entry of a block ascending, lanes of a warp by halves, warps ascending; then every 256th block
//         alike; moments: rows ascending, two passes; sums in f64
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    sum r*c flop; 4*r*c bytes; moments 4*r*c flop; 8*r*c bytes; sym_kl 12*d flop; 16*d bytes
// source  definition; closed form for Gaussians: Bishop, PRML (2006), exercise 2.13
#include "device.h"

KERNEL(256) sum_blocks(SumArgs a) {
    __shared__ double shared[32];
    size_t count = (size_t)a.r * a.c, first = (size_t)blockIdx.x * 4096u;
    double sum = 0.0;
    for (size_t at = first + threadIdx.x; at < count && at < first + 4096u; at += 256u) {
        Cell cell = cell_of(at, a.c);
        sum += row_of(a.x, cell.row, a.x_ld)[cell.col];
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0u) ((double*)a.work)[blockIdx.x] = sum;
}

KERNEL(256) sum_combine(SumArgs a) {
    __shared__ double shared[32];
    size_t count = ((size_t)a.r * a.c + 4095u) / 4096u;
    double sum = sum_of_parts(a.work, count, shared);
    if (threadIdx.x == 0u) a.y[0] = (float)sum;
}

KERNEL(128) moments_plain(MomentsArgs a) {
    size_t col = thread_of_line();
    if (col >= a.c) return;
    double count = a.r > 0u ? a.r : 1u, sum = 0.0, spread = 0.0;
    for (unsigned row = 0; row < a.r; row++) sum += row_of(a.x, row, a.x_ld)[col];
    double centre = sum / count;
    for (unsigned row = 0; row < a.r; row++) {
        double apart = row_of(a.x, row, a.x_ld)[col] - centre;
        spread += apart * apart;
    }
    float var = (float)(spread / count), least = __uint_as_float(a.floor);
    a.mean[col] = (float)centre;
    a.var[col] = var < least ? least : var;
}

KERNEL(256) sym_kl_plain(SymKlArgs a) {
    __shared__ double shared[32];
    double sum = 0.0;
    for (unsigned j = threadIdx.x; j < a.d; j += 256u) {
        double vp = a.var_p[j], vq = a.var_q[j], apart = (double)a.mean_p[j] - a.mean_q[j];
        // The logarithms of both directions cancel.
        double spread = (vp - vq) / vp * ((vp - vq) / vq);
        sum += 0.25 * (spread + apart * apart * (1.0 / vp + 1.0 / vq));
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0u) a.kl[0] = (float)sum;
}
