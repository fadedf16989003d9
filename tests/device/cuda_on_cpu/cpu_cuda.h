// Runs a CUDA kernel on a CPU, one block after the other, to test it where there is no GPU.
//
// Each of a block's threads is a fibre (a stack of its own). A fibre runs until it waits for others (__syncthreads,
// __syncwarp, a shuffle, a tensor-core product), and then another goes on. Which one is drawn from the seed: warps in
// any order, lanes in any order, blocks in any order. So whatever depends on an order, as a missing barrier does, gives
// another result with another seed. Shared memory is filled with 0xff before each block: floats in it are NaN.
#pragma once
#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static __attribute__((section("shared_memory")))  // all of it in one place, to be found and filled

extern "C" __attribute__((weak, visibility("hidden"))) char __start_shared_memory[], __stop_shared_memory[];

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

constexpr int LANES = 32, MOST_THREADS = 1024, STACK = 1 << 16;

enum Status { READY, AT_SYNCTHREADS, AT_SYNCWARP, AT_SHUFFLE, AT_MMA, RETURNED, STATUSES };
const char *const STATUS_NAMES[STATUSES] = {
    "are ready", "wait at __syncthreads", "wait at __syncwarp", "wait at a shuffle", "wait at an mma", "have returned",
};

struct Fibre {
    ucontext_t context;
    std::jmp_buf jump;
    bool fresh;          // has not run yet
    Status status;
    int turn;            // which of the two slots the next exchange uses
    unsigned slot[2][6];  // what this lane gives to its warp
    int vote_turn, vote[2];  // and what this thread gives to its block
};

static Fibre fibres[MOST_THREADS];
alignas(64) static char stacks[MOST_THREADS][STACK];
static int current, made;
static ucontext_t scheduler;
static std::jmp_buf scheduler_jump;
static char message[400];
static void (*run_kernel)(const void *);
static const void *kernel_arguments;

// Jumps need no system call; AddressSanitizer must be told of a change of stacks, and knows of swapcontext.
static void wait(Status status) {
    fibres[current].status = status;
#ifdef __SANITIZE_ADDRESS__
    swapcontext(&fibres[current].context, &scheduler);
#else
    if (_setjmp(fibres[current].jump) == 0) _longjmp(scheduler_jump, 1);
#endif
}

static void fibre_main() {
    for (;;) {  // one round for each block
        run_kernel(kernel_arguments);
        wait(RETURNED);
    }
}

static void resume(int thread) {
    current = thread;
    threadIdx = {unsigned(thread), 0, 0};
#ifdef __SANITIZE_ADDRESS__
    swapcontext(&scheduler, &fibres[thread].context);
#else
    if (_setjmp(scheduler_jump) == 0) {
        if (fibres[current].fresh) {
            fibres[current].fresh = false;
            setcontext(&fibres[current].context);
        }
        _longjmp(fibres[current].jump, 1);
    }
#endif
}

static void make_fibres(int threads) {
    for (; made < threads; made++) {
        Fibre &fibre = fibres[made];
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = stacks[made];
        fibre.context.uc_stack.ss_size = STACK;
        fibre.context.uc_link = nullptr;
        makecontext(&fibre.context, fibre_main, 0);
        fibre.fresh = true;
        fibre.turn = fibre.vote_turn = 0;
    }
}

static uint64_t random_state;

static unsigned random_below(unsigned n) {  // a linear congruential generator (Knuth's MMIX), its upper bits
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return unsigned((random_state >> 33) * n >> 31);
}

static void shuffle(int *items, int n) {
    for (int i = n - 1; i > 0; i--) {
        int j = int(random_below(unsigned(i + 1))), item = items[i];
        items[i] = items[j];
        items[j] = item;
    }
}

// If all of these threads wait for one another, in the same way, they go on.
static bool release(int first, int count, Status from, Status to) {
    Status status = fibres[first].status;
    if (status < from || status > to) return false;
    for (int i = first; i < first + count; i++)
        if (fibres[i].status != status) return false;
    for (int i = first; i < first + count; i++) fibres[i].status = READY;
    return true;
}

static const char *stuck(int threads) {
    int counts[STATUSES] = {}, n = 0;
    for (int i = 0; i < threads; i++) counts[fibres[i].status]++;
    n = snprintf(message, sizeof message, "divergent barrier in block (%u, %u):", blockIdx.x, blockIdx.y);
    for (int s = 0; s < STATUSES; s++)
        if (counts[s]) n += snprintf(message + n, sizeof message - n, " %d threads %s;", counts[s], STATUS_NAMES[s]);
    made = 0;  // the fibres stand in the middle of a kernel: new ones next time
    return message;
}

#ifdef __SANITIZE_ADDRESS__
__attribute__((no_sanitize("address")))
#endif
static void poison_shared_memory() {
    for (volatile char *byte = __start_shared_memory; byte < __stop_shared_memory; byte++) *byte = char(0xff);
}

static const char *run_block(int threads) {
    int warps = threads / LANES, ready[MOST_THREADS / LANES], lanes[LANES];
#ifdef __SANITIZE_ADDRESS__
    poison_shared_memory();
#else
    memset(__start_shared_memory, 0xff, size_t(__stop_shared_memory - __start_shared_memory));
#endif
    for (int i = 0; i < threads; i++) fibres[i].status = READY;
    for (int i = 0; i < LANES; i++) lanes[i] = i;
    for (;;) {
        int n = 0, returned = 0;
        for (int w = 0; w < warps; w++) {
            int lanes_ready = 0;
            for (int i = 0; i < LANES; i++) {
                lanes_ready += fibres[w * LANES + i].status == READY;
                returned += fibres[w * LANES + i].status == RETURNED;
            }
            if (lanes_ready) ready[n++] = w;
        }
        if (returned == threads) return nullptr;
        if (n == 0) {
            if (release(0, threads, AT_SYNCTHREADS, AT_SYNCTHREADS)) continue;
            return stuck(threads);
        }
        int warp = ready[random_below(unsigned(n))];
        do {  // this warp, up to where it waits for others
            shuffle(lanes, LANES);
            for (int lane : lanes)
                if (fibres[warp * LANES + lane].status == READY) resume(warp * LANES + lane);
        } while (release(warp * LANES, LANES, AT_SYNCWARP, AT_MMA) && random_below(4) != 0);
    }
}

template <class Body>
static const char *launch(unsigned grid_x, unsigned grid_y, int threads, unsigned seed, const Body &body) {
    run_kernel = [](const void *arguments) { (*static_cast<const Body *>(arguments))(); };
    kernel_arguments = &body;
    random_state = seed;
    gridDim = {grid_x, grid_y, 1};
    blockDim = {unsigned(threads), 1, 1};
    make_fibres(threads);
    int blocks = int(grid_x * grid_y), *order = new int[blocks];
    for (int i = 0; i < blocks; i++) order[i] = i;
    shuffle(order, blocks);
    const char *error = nullptr;
    for (int i = 0; i < blocks && !error; i++) {
        blockIdx = {unsigned(order[i]) % grid_x, unsigned(order[i]) / grid_x, 0};
        error = run_block(threads);
    }
    delete[] order;
    return error;
}

// ------------------------------------------------------------------------------------------------ what a warp exchanges

// Gives this lane's words to the warp and waits for the others' words. With two slots one wait is enough: nobody
// writes a slot again before everybody has been through the wait in between, and so has read it.
static int exchange(const unsigned *words, int n, Status status) {
    Fibre &fibre = fibres[current];
    int turn = fibre.turn;
    fibre.turn ^= 1;
    memcpy(fibre.slot[turn], words, sizeof(unsigned) * size_t(n));
    wait(status);
    return turn;
}

template <class T>
static T of_lane(T value, int lane) {
    static_assert(sizeof(T) == sizeof(unsigned), "a shuffle moves one word");
    unsigned word;
    memcpy(&word, &value, sizeof word);
    int self = current % LANES, turn = exchange(&word, 1, AT_SHUFFLE);
    if (lane < 0 || lane >= LANES) lane = self;
    memcpy(&value, fibres[current - self + lane].slot[turn], sizeof value);
    return value;
}

// float32 to tf32, as cvt.rna.tf32.f32 does: 10 bits of mantissa, to nearest, ties away from zero
static unsigned round_to_tf32(float a) {
    unsigned word;
    memcpy(&word, &a, sizeof word);
    return (word & 0x7f800000u) == 0x7f800000u ? word : (word + 0x1000u) & ~0x1fffu;
}

static float as_float(unsigned word) {
    float a;
    memcpy(&a, &word, sizeof a);
    return a;
}

// d += a b with a (16, 8), b (8, 8), d (16, 8), spread over the lanes as the PTX manual says for mma.m16n8k8 and .tf32:
// with group = lane / 4 and member = lane % 4,
//   a0 (group, member), a1 (group + 8, member), a2 (group, member + 4), a3 (group + 8, member + 4)
//   b0 (member, group), b1 (member + 4, group)
//   d0 (group, 2 member), d1 (group, 2 member + 1), d2 and d3 the same in row group + 8
static void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    unsigned words[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    int self = current % LANES, first = current - self, turn = exchange(words, 6, AT_MMA);
    for (int i = 0; i < 4; i++) {
        int row = self / 4 + (i >= 2 ? 8 : 0), column = self % 4 * 2 + i % 2;
        float sum = 0;
        for (int k = 0; k < 8; k++) {
            unsigned left = fibres[first + row % 8 * 4 + k % 4].slot[turn][row / 8 + k / 4 * 2];
            unsigned right = fibres[first + column * 4 + k % 4].slot[turn][4 + k / 4];
            sum += as_float(left & ~0x1fffu) * as_float(right & ~0x1fffu);  // the hardware reads no further bits
        }
        d[i] += sum;
    }
}

}  // namespace shim

using shim::mma_m16n8k8_tf32;
using shim::round_to_tf32;

static inline void __syncthreads() { shim::wait(shim::AT_SYNCTHREADS); }
static inline int __syncthreads_count(int predicate) {
    shim::Fibre &fibre = shim::fibres[shim::current];
    int turn = fibre.vote_turn, count = 0;
    fibre.vote_turn ^= 1;
    fibre.vote[turn] = predicate != 0;
    __syncthreads();
    for (unsigned i = 0; i < blockDim.x; i++) count += shim::fibres[i].vote[turn];
    return count;
}
static inline void __syncwarp(unsigned = 0xffffffffu) { shim::wait(shim::AT_SYNCWARP); }
template <class T>
static T __shfl_sync(unsigned, T value, int lane) {
    return shim::of_lane(value, lane & 31);
}
template <class T>
static T __shfl_down_sync(unsigned, T value, unsigned delta) {
    return shim::of_lane(value, int(threadIdx.x % 32 + delta));
}
template <class T>
static T __shfl_xor_sync(unsigned, T value, int mask) {
    return shim::of_lane(value, int(threadIdx.x % 32) ^ mask);
}

static inline float __int_as_float(int word) { return shim::as_float(unsigned(word)); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
static inline float sinpif(float a) { return float(std::sin(3.14159265358979323846 * double(a))); }
static inline float cospif(float a) { return float(std::cos(3.14159265358979323846 * double(a))); }
