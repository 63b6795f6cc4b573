// Barriers of arrivals and bytes, bulk copies and products of warpgroups, as async.h describes them.
#include "async.h"

#include "host_cuda.h"

namespace hc {

// Where the window of dynamic shared memory begins.
static constexpr unsigned WINDOW = 1024 + 16;
static constexpr unsigned BARRIERS = 32, COPIES_IN_BULK = 64, STORES = 64, PRODUCTS = 32, WIDEST = 256;
static constexpr unsigned PANEL = 64, PANEL_BYTES = 8192;
static constexpr uint32_t NOT_A_NUMBER = 0xffffffffu;

struct Phases {
    void* at;
    unsigned arrivals, missing, phase, owner;
    int64_t bytes;
    bool fenced;  // bulk copies may arrive
};

struct BulkCopy {
    Map from;
    unsigned to, row, col, barrier;
};

// What a thread has stored since its last fence.
struct Stores {
    unsigned count, at[STORES];
};

// A product that no thread has waited for, with the operands it read.
struct Product {
    Operands of;
    const unsigned* held[128];
    unsigned group;
    uint16_t read[(PANEL + WIDEST) * 16];
};

// The sums of a warpgroup are of one matrix from the first product to the wait.
struct Warpgroup {
    float* registers[128];
    Operands operands[128];
    unsigned width, ended, first, count;
    bool spoiled;
    Product products[PRODUCTS];  // a ring
    float sum[PANEL * WIDEST], a[PANEL * 16], b[16 * WIDEST];
};

struct Async {
    unsigned threads, bytes;
    unsigned char* view;
    Stores* stores;
    Warpgroup* groups;
    unsigned barriers, copies;
    Phases barrier[BARRIERS];
    BulkCopy copy[COPIES_IN_BULK];
};

#if defined(__SANITIZE_THREAD__)
static void release(void* at) { __tsan_release(at); }
static void acquire(void* at) { __tsan_acquire(at); }
#else
static void release(void*) {}
static void acquire(void*) {}
#endif

Async* begin_async(unsigned threads, unsigned shared_bytes) {
    Async* async = new Async();
    async->threads = threads;
    async->bytes = shared_bytes;
    async->view = new unsigned char[shared_bytes + 1];
    async->stores = new Stores[threads];
    async->groups = nullptr;
    return async;
}

void end_async(Async* async) {
    delete[] async->view;
    delete[] async->stores;
    delete[] async->groups;
    delete async;
}

HC_RUNTIME void begin_block(Async& async) {
    async.barriers = async.copies = 0;
    for (unsigned n = 0; n < async.bytes; n++) async.view[n] = 0xff;
    for (unsigned n = 0; n < async.threads; n++) async.stores[n].count = 0;
    for (unsigned n = 0; async.groups && n < async.threads / 128; n++) async.groups[n].count = async.groups[n].ended = 0;
}

HC_RUNTIME const char* undone(const Async& async) {
    if (async.copies != 0) return "a bulk copy is never waited for";
    for (unsigned n = 0; async.groups && n < async.threads / 128; n++) {
        if (async.groups[n].count != 0) return "a product is never waited for";
    }
    return nullptr;
}

HC_RUNTIME unsigned shared_address(const void* at) {
    ptrdiff_t offset = static_cast<const char*>(at) - running->dynamic;
    if (offset < 0 || offset > ptrdiff_t(running->async->bytes)) die("an address is not of dynamic shared memory");
    return WINDOW + unsigned(offset);
}

// The offset of some bytes at an address of the window.
HC_RUNTIME static unsigned offset_of(unsigned address, unsigned bytes) {
    if (address < WINDOW || address - WINDOW + bytes > running->async->bytes) die("a tile lies outside shared memory");
    return address - WINDOW;
}

HC_RUNTIME static unsigned find(void* at) {
    Async& async = *running->async;
    for (unsigned n = 0; n < async.barriers; n++)
        if (async.barrier[n].at == at) return n;
    die("an mbarrier is used before it is initialised");
}

HC_RUNTIME void begin_barrier(void* at, unsigned arrivals) {
    Async& async = *running->async;
    if (uintptr_t(at) % 8 != 0 || arrivals == 0) die("an mbarrier is not aligned, or expects nobody");
    if (async.barriers == BARRIERS) die("too many mbarriers");
    async.barrier[async.barriers++] = {at, arrivals, arrivals, 0, self().number, 0, false};
}

HC_RUNTIME static void end_phase(Phases& barrier) {
    if (barrier.missing != 0 || barrier.bytes != 0) return;
    barrier.phase++;
    barrier.missing = barrier.arrivals;
}

HC_RUNTIME void expect(void* at, unsigned bytes) { running->async->barrier[find(at)].bytes += bytes; }

HC_RUNTIME void arrive(void* at) {
    Phases& barrier = running->async->barrier[find(at)];
    if (barrier.missing == 0) die("an mbarrier is arrived at too often");
    release(&barrier);
    barrier.missing--;
    end_phase(barrier);
}

HC_RUNTIME bool ended(const Async& async, const Fiber& fiber) {
    return async.barrier[fiber.barrier].phase % 2 != fiber.parity;
}

HC_RUNTIME void wait(void* at, unsigned parity) {
    Fiber& fiber = self();
    fiber.barrier = find(at);
    fiber.parity = parity;
    if (!ended(*running->async, fiber)) pause(AT_MBARRIER);
    acquire(&running->async->barrier[fiber.barrier]);
}

HC_RUNTIME static void poison(unsigned offset, unsigned bytes) {
    for (unsigned n = 0; n < bytes; n++) {
        running->dynamic[offset + n] = char(0xff);
        running->async->view[offset + n] = 0xff;
    }
}

HC_RUNTIME void copy_panel(void* to, const void* map, unsigned row, unsigned col, void* barrier) {
    Async& async = *running->async;
    unsigned address = shared_address(to);
    BulkCopy copy = {};
    for (unsigned n = 0; n < sizeof(Map); n++) {
        reinterpret_cast<char*>(&copy.from)[n] = static_cast<const char*>(map)[n];
    }
    copy.to = address;
    copy.row = row;
    copy.col = col;
    copy.barrier = find(barrier);
    if (copy.from.kind != MAP || uintptr_t(map) % 64 != 0) die("a bulk copy has no tensor map");
    if (address % 128 != 0) die("the target of a bulk copy is not aligned");
    if (!async.barrier[copy.barrier].fenced) die("an mbarrier was not fenced before a bulk copy uses it");
    if (async.copies == COPIES_IN_BULK) die("too many bulk copies are under way");
    poison(offset_of(address, PANEL_BYTES), PANEL_BYTES);
    async.copy[async.copies++] = copy;
}

// A byte of a tile with rows of `width` bytes lies where the 16-byte chunks of a row are exchanged by bits of its address.
HC_RUNTIME static unsigned exchanged(unsigned address, unsigned width) {
    return address ^ (address >> 7 & (width / 16 - 1)) << 4;
}

HC_RUNTIME static void finish(const BulkCopy& copy) {
    const Map& from = copy.from;
    for (unsigned row = 0; row < PANEL; row++) {
        for (unsigned col = 0; col < PANEL; col++) {
            uint64_t at_row = copy.row + row, at_col = copy.col + col;
            uint16_t v = 0;
            if (at_row < from.rows && at_col < from.cols) {
                v = *reinterpret_cast<const uint16_t*>(from.address + at_row * from.pitch + at_col * 2);
            }
            unsigned offset = offset_of(exchanged(copy.to + row * 128 + col * 2, 128), 2);
            *reinterpret_cast<uint16_t*>(running->dynamic + offset) = v;
            *reinterpret_cast<uint16_t*>(running->async->view + offset) = v;
        }
    }
}

HC_RUNTIME bool deliver(Block& block) {
    Async& async = *block.async;
    bool any = false;
    for (unsigned n = 0; n < async.copies;) {
        const BulkCopy copy = async.copy[n];
        bool wanted = false;
        for (unsigned f = 0; f < block.count; f++) {
            const Fiber& fiber = block.fibers[f];
            if (fiber.state != AT_MBARRIER || fiber.barrier != copy.barrier || ended(async, fiber)) continue;
            block.current = f;
            wanted = true;
        }
        if (!wanted) {
            n++;
            continue;
        }
        finish(copy);
        async.copies--;
        for (unsigned other = n; other < async.copies; other++) async.copy[other] = async.copy[other + 1];
        Phases& barrier = async.barrier[copy.barrier];
        barrier.bytes -= PANEL_BYTES;
        if (barrier.bytes < 0) die("more bytes arrive at an mbarrier than it expects");
        end_phase(barrier);
        any = true;
    }
    return any;
}

HC_RUNTIME void store_chunk(void* to, const void* chunk) {
    unsigned offset = offset_of(shared_address(to), 16);
    if (shared_address(to) % 16 != 0) die("a chunk is not aligned");
    Stores& stores = running->async->stores[self().number];
    if (stores.count == STORES) die("too many stores before a fence");
    stores.at[stores.count++] = offset;
    poison(offset, 16);
    for (unsigned n = 0; n < 16; n++) running->dynamic[offset + n] = static_cast<const char*>(chunk)[n];
}

HC_RUNTIME void fence_async() {
    Async& async = *running->async;
    Stores& stores = async.stores[self().number];
    for (unsigned s = 0; s < stores.count; s++) {
        for (unsigned n = 0; n < 16; n++) {
            async.view[stores.at[s] + n] = static_cast<unsigned char>(running->dynamic[stores.at[s] + n]);
        }
    }
    stores.count = 0;
    for (unsigned n = 0; n < async.barriers; n++) async.barrier[n].fenced |= async.barrier[n].owner == self().number;
}

HC_RUNTIME static Warpgroup& group_of(const Fiber& fiber) {
    Async& async = *running->async;
    if (async.threads % 128 != 0) die("a product needs whole warpgroups");
    if (!async.groups) async.groups = new Warpgroup[async.threads / 128]();
    return async.groups[fiber.number / 128];
}

// 16 of k by `side` of m or n, k by k. Rows of a tile have 128, 64 or 32 bytes, by the mode of the descriptor; eight of them
// repeat after the second stride. With k inner they are m or n; turned, they are k, and a next one begins after the first stride.
HC_RUNTIME static void read(uint16_t* to, uint64_t descriptor, unsigned side, bool turned) {
    unsigned mode = unsigned(descriptor >> 62);
    if (mode == 0) die("a descriptor without exchanged chunks");
    if (descriptor >> 49 & 7) die("a descriptor with a base offset");
    unsigned start = unsigned(descriptor & 0x3fff) << 4, width = 256u >> mode;
    unsigned leading = unsigned(descriptor >> 16 & 0x3fff) << 4, stride = unsigned(descriptor >> 32 & 0x3fff) << 4;
    for (unsigned q = 0; q < side; q++) {
        for (unsigned k = 0; k < 16; k++) {
            unsigned offset = turned ? q / (width / 2) * leading + q % (width / 2) * 2 + k / 8 * stride + k % 8 * width
                                     : q / 8 * stride + q % 8 * width + k * 2;
            unsigned at = offset_of(exchanged(start + offset, width), 2);
            to[k * side + q] = *reinterpret_cast<const uint16_t*>(running->async->view + at);
        }
    }
}

// 16 of k by 64 rows, from the registers of a warpgroup: those of a warp are as the left operand of mma.sync.
HC_RUNTIME static void read_registers(uint16_t* to, const unsigned* const* held) {
    for (unsigned row = 0; row < PANEL; row++) {
        for (unsigned k = 0; k < 16; k++) {
            unsigned lane = row / 16 * 32 + row % 8 * 4 + k % 8 / 2;
            to[k * PANEL + row] = uint16_t(held[lane][row % 16 / 8 + k / 8 * 2] >> k % 2 * 16);
        }
    }
}

// Both operands of a product, k by k.
HC_RUNTIME static void read(uint16_t* to, const Product& product, unsigned n) {
    if (product.of.held) {
        read_registers(to, product.held);
    } else {
        read(to, product.of.left, PANEL, product.of.left_turned);
    }
    read(to + PANEL * 16, product.of.right, n, product.of.right_turned);
}

// Element e of a lane of the sums.
HC_RUNTIME static unsigned place(unsigned lane, unsigned e, unsigned width) {
    unsigned row = lane / 32 * 16 + lane % 32 / 4 + e / 2 % 2 * 8, col = e / 4 * 8 + lane % 4 * 2 + e % 2;
    return row * width + col;
}

// Clang makes vectors of loops at any level, GCC with a variable length only at this one.
#ifdef __clang__
#define HC_VECTORISED
#else
#define HC_VECTORISED __attribute__((optimize("O3")))
#endif

// One k after the other, then to the sum.
HC_VECTORISED HC_RUNTIME static void multiply(Warpgroup& g) {
    for (unsigned row = 0; row < PANEL; row++) {
        float all[WIDEST] = {};
        for (unsigned k = 0; k < 16; k++) {
            float left = g.a[k * PANEL + row];
            const float* right = g.b + k * g.width;
            for (unsigned col = 0; col < g.width; col++) all[col] = __builtin_fmaf(left, right[col], all[col]);
        }
        for (unsigned col = 0; col < g.width; col++) g.sum[row * g.width + col] += all[col];
    }
}

HC_RUNTIME static void begin(Warpgroup& g, unsigned n) {
    const Operands& first = g.operands[0];
    for (const Operands& other : g.operands) {
        if (other.left != first.left || other.right != first.right) die("threads of a warpgroup describe different tiles");
    }
    if (n % 8 != 0 || n == 0 || n > WIDEST || (g.count > 0 && n != g.width)) die("a product of this width");
    if (g.count == PRODUCTS) die("too many products are under way");
    if (g.count == 0) {
        g.width = n;
        g.spoiled = false;
        for (unsigned lane = 0; lane < 128; lane++) {
            for (unsigned e = 0; e < n / 2; e++) g.sum[place(lane, e, n)] = g.registers[lane][e];
        }
    }
    Product& product = g.products[(g.first + g.count++) % PRODUCTS];
    product.of = first;
    for (unsigned lane = 0; lane < 128; lane++) product.held[lane] = g.operands[lane].held;
    product.group = g.ended;
    read(product.read, product, n);
    for (unsigned at = 0; at < PANEL * 16; at++) g.a[at] = first.widened(product.read[at]);
    for (unsigned at = 0; at < n * 16; at++) g.b[at] = first.widened(product.read[PANEL * 16 + at]);
    multiply(g);
    for (unsigned lane = 0; lane < 128; lane++) {
        for (unsigned e = 0; e < n / 2; e++) reinterpret_cast<uint32_t*>(g.registers[lane])[e] = NOT_A_NUMBER;
    }
}

HC_RUNTIME void begin_product(float* sum, unsigned n, const Operands& operands) {
    Fiber& fiber = self();
    Warpgroup& g = group_of(fiber);
    unsigned lane = fiber.number % 128;
    if (!fiber.ordered) die("a group of products without wgmma.fence before it");
    if (g.count > 0 && g.registers[lane] != sum) die("products of two sums are under way");
    g.registers[lane] = sum;
    g.operands[lane] = operands;
    pause(AT_GROUP);
    if (lane == 0) begin(g, n);
    pause(AT_GROUP);
}

HC_RUNTIME void order_sums() { self().ordered = true; }

HC_RUNTIME void end_group() {
    Fiber& fiber = self();
    fiber.ordered = false;
    if (fiber.number % 128 == 0) group_of(fiber).ended++;
}

// Retires the products of all groups but the last `pending`.
HC_RUNTIME static void retire(Warpgroup& g, unsigned pending) {
    static thread_local uint16_t again[(PANEL + WIDEST) * 16];
    bool any = false;
    while (g.count > 0 && g.products[g.first].group + pending < g.ended) {
        const Product& product = g.products[g.first];
        read(again, product, g.width);
        for (unsigned at = 0; at < (PANEL + g.width) * 16; at++) g.spoiled |= again[at] != product.read[at];
        g.first = (g.first + 1) % PRODUCTS;
        g.count--;
        any = true;
    }
    if (!any) return;
    if (g.spoiled) {
        for (unsigned at = 0; at < PANEL * g.width; at++) reinterpret_cast<uint32_t*>(g.sum)[at] = NOT_A_NUMBER;
    }
    if (g.count > 0) return;
    for (unsigned lane = 0; lane < 128; lane++) {
        for (unsigned e = 0; e < g.width / 2; e++) g.registers[lane][e] = g.sum[place(lane, e, g.width)];
    }
}

HC_RUNTIME void wait_for_groups(unsigned pending) {
    Fiber& fiber = self();
    Warpgroup& g = group_of(fiber);
    pause(AT_GROUP);
    if (fiber.number % 128 == 0) retire(g, pending);
    pause(AT_GROUP);
}

}  // namespace hc
