// Stages on rows that no product computes: a warp to a row, 8 rows to a block. The first stage reads its row.
#include "rows.h"

struct RowsArgs {
    unsigned long long r;
};

KERNEL(256) rows(Followed<RowsArgs> a) {
    size_t row = (size_t)blockIdx.x * 8u + threadIdx.x / 32u;
    if (row >= a.call.r) return;
    Held v;
    v.at[0] = zeros();
    run_stages(a.stages, row, false, v);
}
