// The scheduler of the fibers of a block.
#include "host_cuda.h"
#include <algorithm>

// Saves the registers that a call preserves on the stack of one fiber and takes up another.
asm(R"(.text
.globl hc_switch
hc_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp, (%rdi); mov %rsi, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret
)");
extern "C" void hc_switch(void** from, void* to);

namespace hc {

thread_local Block* running;

#if defined(__SANITIZE_THREAD__)
static void release(void* at) { __tsan_release(at); }
static void acquire(void* at) { __tsan_acquire(at); }
static void enter(void* fiber) { __tsan_switch_to_fiber(fiber, 1); }
#else
static void release(void*) {}
static void acquire(void*) {}
static void enter(void*) {}
#endif

HC_RUNTIME static void to_scheduler() {
    enter(running->main_sanitizer);
    hc_switch(&self().sp, running->main_sp);
}

HC_RUNTIME void pause(State state) {
    self().state = state;
    running->in[state]++;
    to_scheduler();
}

static void let_go(Block& b, Fiber& fiber) {
    b.in[fiber.state]--;
    fiber.state = RUNS;
}

void die(const char* what) {
    const Block& b = *running;
    std::fprintf(stderr, "emulator: %s: kernel %s, block (%u,%u,%u), thread %u\n", what, b.kernel, b.at.x, b.at.y, b.at.z,
                 self().number);
    std::abort();
}

// Barriers meet at two places in turn: a thread that is let go late must not find there what others bring to the next one, or a
// race between two barriers would look ordered.
HC_RUNTIME void block_wait() {
    Fiber* place = &running->fibers[self().barriers++ % 2];
    release(place);
    pause(AT_BLOCK);
    acquire(place);
}

HC_RUNTIME void warp_wait(unsigned mask) {
    Fiber& fiber = self();
    Warp& warp = running->warps[fiber.number / 32];
    if (!(mask >> (fiber.number & 31) & 1)) die("a lane calls a warp operation with a mask that leaves it out");
    // As in block_wait; lanes of a part of a warp may have been in different numbers of parts before.
    uint64_t* place = &warp.slot[mask == 0xffffffffu ? fiber.whole_warps++ % 2 : 2];
    release(place);
    fiber.mask = mask;
    pause(AT_WARP);
    acquire(place);
}

HC_RUNTIME static void thread_main() {
    acquire(&running->main_sp);
    running->entry(running->argument);
    if (self().copies != 0) die("a copy is never waited for");
    release(&running->count);
    pause(DONE);
}

// The n-th thread that may run: ascending, descending, or scattered by a step that has no factor in common with the count.
static unsigned nth(const Block& b, unsigned n) {
    switch (b.order) {
        case 0: return n;
        case 1: return b.count - 1 - n;
        default: return unsigned((uint64_t(n) * 2654435761u + 37) % b.count);
    }
}

// Lets waiting lanes go on once every lane of their mask waits with the same mask.
static bool open_warps(Block& b) {
    bool moved = false;
    for (unsigned first = 0; first < b.count; first += 32) {
        Fiber* lanes = &b.fibers[first];
        unsigned waiting = 0;
        for (unsigned l = 0; l < 32; l++) waiting |= unsigned(lanes[l].state == AT_WARP) << l;
        for (unsigned left = waiting; left;) {
            unsigned mask = lanes[__builtin_ctz(left)].mask;
            bool all = (mask & ~waiting) == 0;
            for (unsigned l = 0; all && l < 32; l++)
                if (mask >> l & 1) all = lanes[l].mask == mask;
            for (unsigned l = 0; all && l < 32; l++)
                if (mask >> l & 1) let_go(b, lanes[l]);
            moved |= all;
            left &= all ? ~mask : left - 1;
        }
    }
    return moved;
}

// Lets a warpgroup go on once all its threads wait.
static bool open_groups(Block& b) {
    bool moved = false;
    for (unsigned first = 0; first + 128 <= b.count; first += 128) {
        bool all = true;
        for (unsigned n = 0; n < 128; n++) all &= b.fibers[first + n].state == AT_GROUP;
        for (unsigned n = 0; all && n < 128; n++) let_go(b, b.fibers[first + n]);
        moved |= all;
    }
    return moved;
}

// Lets threads go on whose phase of a barrier has ended.
static bool open_mbarriers(Block& b) {
    bool moved = false;
    for (unsigned n = 0; n < b.count; n++) {
        Fiber& fiber = b.fibers[n];
        if (fiber.state != AT_MBARRIER || !ended(*b.async, fiber)) continue;
        let_go(b, fiber);
        moved = true;
    }
    return moved;
}

// Ends the process at a thread that waits for ever, if any is in this state.
static void die_at(Block& b, State state, const char* what) {
    for (unsigned n = 0; n < b.count; n++) {
        if (b.fibers[n].state != state) continue;
        b.current = n;
        die(what);
    }
}

HC_RUNTIME static void run_block(Block& b) {
    begin_block(*b.async);
    while (b.in[DONE] < b.count) {
        bool moved = false;
        for (unsigned n = 0; n < b.count; n++) {
            Fiber& fiber = b.fibers[b.current = nth(b, n)];
            if (fiber.state != RUNS) continue;
            moved = true;
            enter(fiber.sanitizer);
            hc_switch(&b.main_sp, fiber.sp);
        }
        if (b.in[AT_WARP] != 0) moved |= open_warps(b);
        if (b.in[AT_GROUP] != 0) moved |= open_groups(b);
        if (b.in[AT_MBARRIER] != 0) moved |= open_mbarriers(b);
        if (b.in[AT_BLOCK] == b.count) {
            moved = true;
            for (unsigned n = 0; n < b.count; n++) let_go(b, b.fibers[n]);
        }
        if (b.in[DONE] < b.count && !moved && !deliver(b)) {
            die_at(b, AT_MBARRIER, "a phase of an mbarrier never ends");
            die_at(b, AT_GROUP, "a product is not reached by its warpgroup");
            for (b.current = 0; b.fibers[b.current].state == DONE;) b.current++;
            die(b.in[AT_BLOCK] != 0 ? "__syncthreads is not reached by every thread" : "a warp operation is not reached by its lanes");
        }
    }
    if (const char* what = undone(*b.async)) die(what);
}

// Bytes behind dynamic shared memory that nothing may change.
constexpr size_t GUARD = 1024;

void run(const Launch& launch, void (*entry)(void*), void* argument) {
    unsigned count = launch.threads;
    std::vector<Fiber> fibers(count);
    std::vector<Warp> warps(count / 32);
    std::vector<Copy> copies(size_t(count) * COPIES);
    std::vector<char> dynamic(launch.shared_bytes + GUARD + 16);
    static thread_local std::unique_ptr<char[]> stacks;  // left unwritten: only touched pages cost anything
    static thread_local size_t have = 0;
    if (have < count) {
        stacks.reset(new char[count * STACK_BYTES]);
        have = count;
    }
    Block b = {};
    b.kernel = launch.kernel;
    b.grid = launch.grid;
    b.size = {count, 1, 1};
    b.fibers = fibers.data();
    b.warps = warps.data();
    b.dynamic = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(dynamic.data()) + 15) & ~uintptr_t(15));
    b.async = begin_async(count, launch.shared_bytes);
    b.count = count;
    b.order = launch.order;
    b.entry = entry;
    b.argument = argument;
    running = &b;
#if defined(__SANITIZE_THREAD__)
    b.main_sanitizer = __tsan_get_current_fiber();
    for (Fiber& fiber : fibers) fiber.sanitizer = __tsan_create_fiber(0);
#endif
    for (uint64_t id = launch.first; id < launch.first + launch.count; id++) {
        uint64_t row = id / b.grid.x;
        b.at = {unsigned(id % b.grid.x), unsigned(row % b.grid.y), unsigned(row / b.grid.y)};
        std::memset(b.in, 0, sizeof b.in);
        std::memset(b.dynamic, 0xff, launch.shared_bytes + GUARD);  // NaN: what is read must have been written
        for (unsigned n = 0; n < count; n++) {
            Fiber& fiber = b.fibers[n];
            void* sanitizer = fiber.sanitizer;
            fiber = {};
            fiber.sanitizer = sanitizer;
            fiber.copy = &copies[size_t(n) * COPIES];
            fiber.number = n;
            fiber.thread = {n, 0, 0};
            uintptr_t top = reinterpret_cast<uintptr_t>(&stacks[n * STACK_BYTES]) + STACK_BYTES;
            void** sp = reinterpret_cast<void**>(top & ~uintptr_t(15));
            *--sp = nullptr;
            *--sp = reinterpret_cast<void*>(&thread_main);
            sp -= 6;  // registers of the first switch
            std::memset(sp, 0, 48);
            fiber.sp = sp;
        }
        release(&b.main_sp);
        run_block(b);
        acquire(&b.count);
        const char* guard = b.dynamic + launch.shared_bytes;
        b.current = 0;
        if (std::any_of(guard, guard + GUARD, [](char c) { return c != '\xff'; })) die("dynamic shared memory is written behind its end");
    }
#if defined(__SANITIZE_THREAD__)
    for (Fiber& fiber : fibers) __tsan_destroy_fiber(fiber.sanitizer);
#endif
    end_async(b.async);
    running = nullptr;
}

}  // namespace hc
