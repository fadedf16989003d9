// What all kernels share: the size of a block, sums in a fixed order, and two words of formulas. Stands before each text
// that is compiled. Nothing is ever added atomically: the same numbers give the same bits every time.

constexpr int THREADS = 256;  // in every block
constexpr int WARP = 32;      // threads that run in step

// The larger and the smaller; NaN if one of them is. (fmaxf and fminf would lose it, and a run that diverges must show.)
__device__ float maximum(float a, float b) { return a > b || a != a ? a : b; }
__device__ float minimum(float a, float b) { return a < b || a != a ? a : b; }
__device__ double maximum(double a, double b) { return a > b || a != a ? a : b; }
__device__ double minimum(double a, double b) { return a < b || a != a ? a : b; }

// The sum over `width` neighbouring lanes (a power of two), in each of them; always in the same order.
__device__ float lanes_sum(float a, int width = WARP) {
    for (int distance = width / 2; distance > 0; distance /= 2) a += __shfl_xor_sync(0xffffffffu, a, distance);
    return a;
}

// The sum over the block, in every thread.
__device__ float block_sum(float a) {
    __shared__ float parts[THREADS / WARP];
    a = lanes_sum(a);
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = a;
    __syncthreads();
    a = 0;
    for (int warp = 0; warp < THREADS / WARP; warp++) a += parts[warp];
    __syncthreads();  // everybody has read the parts: the next sum may overwrite them
    return a;
}

// The sum over the threads that lie multiples of `width` (a power of two) apart, in the first `width` threads.
__device__ float strided_sum(float a, int width) {
    __shared__ float parts[THREADS];
    parts[threadIdx.x] = a;
    for (int half = THREADS / 2; half >= width; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    }
    a = parts[threadIdx.x];
    __syncthreads();  // everybody has read what it adds: the next sum may overwrite the parts
    return a;
}
