// The captured training step of a dense VAE. table.py says how each kernel is launched; the mathematics is that of
// tinyvae/ops and tinyvae/likelihoods. Compiled behind common.cu.
//
// A training step, in order (784-400-20-400-784; other depths have more or fewer layers in the middle):
//
//     gather_bytes        x = the batch's rows of the data set, drawn as 0 and 1 where the batches are binarized
//     layer_forward       h = f(x W + b)                                            every hidden layer of the encoder
//     head_forward        mu, logvar = h W + b; fresh noise eps; z = mu + sigma eps; the KL of each number
//     layer_forward       h = f(z W + b)                                            every hidden layer of the decoder
//     output_bernoulli    logits = h W + b; the likelihood, and dlogits at once     or output_gaussian...
//     layer_backward      dh = (dy W^T) f'(h)                                       every hidden layer of the decoder
//     latent_backward     dz = dh W^T, then the gradient of mu and logvar, through z and through the KL
//     layer_backward      dh = (dy W^T) f'(h)                                       every hidden layer of the encoder
//     weights_and_adam    dW = x^T dy, db = column sums of dy, and Adam, for all layers at once: by now nobody reads W
//     finish_step         the losses of the batch; the next batch's number
//
// Products are made in tiles: a block of 256 threads makes 32 x 32 numbers of the result, leaves them in shared memory,
// and the kernel's own few lines then finish each number (bias, activation, noise, loss, Adam) before it is written.
//
// Sums are made in a fixed order and nothing is added atomically: the same step gives the same bits every time.
// Matrices are row-major and float32. Compile with -DTF32 for products on tensor cores, in the precision of 10 bits.

constexpr int TILE = 32, PAIR = 16;      // a tile is 32 x 32 numbers, or 32 x 16 pairs of numbers
constexpr int SCHEDULE_COLUMNS = 4;      // beta, step size, epsilon, 1 / rows
constexpr unsigned EPS_STREAM = 0, UNIFORM_STREAM = 1;
constexpr double BETA1 = 0.9, BETA2 = 0.999;  // double, since 1 - 0.999f is wrong in its fifth digit
constexpr float LEAKY_SLOPE = 0.01f;
constexpr float LOG_2PI = 1.8378770664093453f;

// ---------------------------------------------------------------------------------------------- formulas of one number

enum Activation { LINEAR, RELU, TANH, SIGMOID, SOFTPLUS, ELU, LEAKY_RELU };  // in the order of ACTIVATION_NAMES

__device__ float sigmoid(float a) { return 0.5f * (1 + tanhf(0.5f * a)); }  // overflows nowhere

__device__ float softplus(float a) { return fmaxf(a, 0) + log1pf(expf(-fabsf(a))); }  // neither does this

// y = f(a). A NaN stays one, so that a run that has diverged shows it.
__device__ float activate(float a, int activation) {
    switch (activation) {
        case RELU: return a < 0 ? 0 : a;
        case TANH: return tanhf(a);
        case SIGMOID: return sigmoid(a);
        case SOFTPLUS: return softplus(a);
        case ELU: return a > 0 ? a : expm1f(a);
        case LEAKY_RELU: return a > 0 ? a : LEAKY_SLOPE * a;
        default: return a;
    }
}

// f'(a), from the output y = f(a).
__device__ float slope(float y, int activation) {
    switch (activation) {
        case RELU: return y > 0 ? 1 : 0;
        case TANH: return 1 - y * y;
        case SIGMOID: return y * (1 - y);
        case SOFTPLUS: return -expm1f(-y);
        case ELU: return fminf(y, 0) + 1;
        case LEAKY_RELU: return y > 0 ? 1 : LEAKY_SLOPE;
        default: return 1;
    }
}

// -log p(x) of a Bernoulli with that logit, and its derivative.
__device__ float bernoulli_nll(float logit, float x) { return softplus(logit) - x * logit; }
__device__ float bernoulli_dlogit(float logit, float x) { return sigmoid(logit) - x; }

// -log p(x) of a Gaussian, logvar = log sigma^2, and its derivatives.
__device__ float gaussian_nll(float x, float mean, float logvar) {
    return 0.5f * ((x - mean) * (x - mean) * expf(-logvar) + logvar + LOG_2PI);
}
__device__ float gaussian_dmean(float x, float mean, float logvar) { return (mean - x) * expf(-logvar); }
__device__ float gaussian_dlogvar(float x, float mean, float logvar) {
    return 0.5f * (1 - (x - mean) * (x - mean) * expf(-logvar));
}

// z = mu + sigma eps, and KL(N(mu, sigma^2) || N(0, 1)).
__device__ float reparameterize(float mu, float logvar, float eps) { return mu + expf(0.5f * logvar) * eps; }
__device__ float kl_divergence(float mu, float logvar) { return 0.5f * (mu * mu + (expm1f(logvar) - logvar)); }

// The gradients of mu and logvar: one part through z, one part through the KL.
__device__ float dmu_of(float dz, float dkl, float mu) { return dz + dkl * mu; }
__device__ float dlogvar_of(float dz, float dkl, float logvar, float eps) {
    return 0.5f * (dz * eps * expf(0.5f * logvar) + dkl * expm1f(logvar));
}

// One step of Adam on one parameter; the bias corrections are in step_size and epsilon.
__device__ void adam_update(float& p, float g, float& m, float& v, float step_size, float epsilon) {
    m += float(1 - BETA1) * (g - m);
    v += float(1 - BETA2) * (g * g - v);
    p -= step_size * m / (sqrtf(v) + epsilon);
}

// --------------------------------------------------------------------------------------------------------------- noise
// Philox4x32-10 (Salmon et al. 2011): ten rounds turn a key of two words and a counter of four into four random words.
// No generator is kept anywhere: the noise of a number follows from its place, its batch and the epoch's key alone.

__device__ uint4 philox(uint4 c, unsigned key0, unsigned key1) {
    for (int round = 0; round < 10; round++) {
        unsigned high0 = __umulhi(0xD2511F53u, c.x), low0 = 0xD2511F53u * c.x;
        unsigned high1 = __umulhi(0xCD9E8D57u, c.z), low1 = 0xCD9E8D57u * c.z;
        c = make_uint4(high1 ^ c.y ^ key0, low1, high0 ^ c.w ^ key1, low0);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// The four words that elements 4 i .. 4 i + 3 of a batch share.
__device__ uint4 noise_words(const unsigned* state, unsigned element, unsigned stream) {
    return philox(make_uint4(element / 4, state[0], stream, 0), state[1], state[2]);
}

// A word as a number between 2^-33 and 1. Above 2^24 float32 rounds, and the largest 128 words give 1 itself: its
// logarithm, 0, is a fine squared radius. The smallest is not 0, whose logarithm is infinite.
__device__ float above_zero(unsigned word) { return (float(word) + 0.5f) * 2.3283064365386963e-10f; }

// A number of N(0, 1), by Box and Muller: a point of the plane with a random squared radius and a random angle.
__device__ float normal(const unsigned* state, unsigned element) {
    uint4 words = noise_words(state, element, EPS_STREAM);
    bool second = element % 4 >= 2;
    float radius = sqrtf(-2 * logf(above_zero(second ? words.z : words.x)));
    float half_turns = 2 * above_zero(second ? words.w : words.y);
    return radius * (element % 2 == 0 ? cospif(half_turns) : sinpif(half_turns));
}

// A number of [0, 1), a multiple of 2^-24: the upper 24 bits of a word, which float32 holds exactly.
__device__ float uniform(const unsigned* state, unsigned element) {
    uint4 words = noise_words(state, element, UNIFORM_STREAM);
    unsigned word = element % 4 == 0 ? words.x : element % 4 == 1 ? words.y : element % 4 == 2 ? words.z : words.w;
    return float(word >> 8) * 5.9604644775390625e-08f;
}

// ---------------------------------------------------------------------------------------------------------------- sums

// The sum of one column of a (rows, columns), by one warp, in each of its lanes.
__device__ float column_sum(const float* a, int rows, int columns, int column) {
    float sum = 0;
    for (int row = threadIdx.x % WARP; row < rows; row += WARP) sum += a[(long long)row * columns + column];
    return lanes_sum(sum);
}

// ------------------------------------------------------------------------------------------------------------ products
// result[i][j] = sum_k left(i, k) right(j, k). The k are taken 32 at a time: a chunk of 32 x 32 numbers of each factor
// is stored in shared memory as [k][i], and while it is multiplied the next one is already on its way into registers.

// A factor: n lines of `depth` numbers. Next to each other in memory are the numbers of a line (then line_stride is the
// length of a row), or the lines (then k_stride is).
struct Matrix {
    const float* data;
    int line_stride, k_stride, n, depth;
    bool k_runs;  // which of the two it is

    __device__ bool holds(int i, int k) const { return i < n && k < depth; }
    __device__ float at(int i, int k) const { return data[(long long)i * line_stride + (long long)k * k_stride]; }
};

__device__ Matrix rows_of(const float* data, int ld, int n, int depth) { return {data, ld, 1, n, depth, true}; }
__device__ Matrix columns_of(const float* data, int ld, int n, int depth) { return {data, 1, ld, n, depth, false}; }

// What a block needs of a factor: 32 lines of it, 0 beyond its edges. i counts from 0 within the tile.
// With `ones`, a line of ones follows the last line: db = 1^T dy is one more row of dW = x^T dy.
struct Lines {
    Matrix matrix;
    int first;
    bool ones;

    __device__ float operator()(int i, int k) const {
        if (ones && first + i == matrix.n) return k < matrix.depth ? 1 : 0;
        return matrix.holds(first + i, k) ? matrix.at(first + i, k) : 0;
    }
};

// 16 lines, and the 16 lines that lie `distance` behind them.
struct PairedLines {
    Matrix matrix;
    int first, distance;

    __device__ float operator()(int i, int k) const {
        int line = first + i % PAIR;
        return matrix.holds(line, k) ? matrix.at(line + (i < PAIR ? 0 : distance), k) : 0;
    }
};

__device__ Lines lines(const Matrix& matrix, int first, bool ones = false) { return {matrix, first, ones}; }

#ifdef TF32
constexpr int STRIDE = TILE + 8;  // of a chunk's rows: with 8 words more, a warp's reads fall on 32 different banks
constexpr int GROUPS = 1, SUMS = 4;
#else
constexpr int STRIDE = TILE + 4;  // with 4, a warp's writes do; a multiple of 4, for reads of four words at once
constexpr int GROUPS = 4, SUMS = 16;
#endif

using Chunk = float[TILE][STRIDE];
using Tile = float[TILE][TILE + 1];

struct Workspace {  // in shared memory
    alignas(16) Chunk left;
    alignas(16) Chunk right;
    Tile tiles[GROUPS];
};

// A thread's four numbers of each chunk, at (i, k), (i, k + 8), (i, k + 16), (i, k + 24). Neighbouring threads take
// what lies next to each other in memory: eight k of four lines, or 32 lines of one k.
template <class Factor>
struct Fetcher {
    const Factor& factor;
    int i, k;
    float next[4];

    __device__ Fetcher(const Factor& of)
        : factor(of),
          i(of.matrix.k_runs ? threadIdx.x / 8 : threadIdx.x % TILE),
          k(of.matrix.k_runs ? threadIdx.x % 8 : threadIdx.x / TILE) {}

    __device__ void fetch(int first_k) {
#pragma unroll
        for (int j = 0; j < 4; j++) next[j] = factor(i, first_k + k + 8 * j);
    }

    __device__ void store(Chunk& chunk) const {
#pragma unroll
        for (int j = 0; j < 4; j++) chunk[k + 8 * j][i] = next[j];
    }
};

#ifdef TF32

#ifdef __CUDACC__  // elsewhere, the header that runs this file on a CPU has these two
__device__ unsigned round_to_tf32(float a) {
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(a));
    return rounded;
}

// d (16, 8) += a (16, 8) b (8, 8), by one warp, each lane holding the numbers that the PTX manual assigns to it.
__device__ void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// Each of the 8 warps makes a piece of 16 x 8: two rows of pieces, four columns.
__device__ void multiply_chunk(const Workspace& work, float (&sums)[SUMS]) {
    int warp = threadIdx.x / WARP, group = threadIdx.x % WARP / 4, member = threadIdx.x % 4;
    int i = warp / 4 * 16 + group, j = warp % 4 * 8 + group;
#pragma unroll
    for (int first = 0; first < TILE; first += 8) {
        int k = first + member;
        unsigned a[4] = {round_to_tf32(work.left[k][i]), round_to_tf32(work.left[k][i + 8]),
                         round_to_tf32(work.left[k + 4][i]), round_to_tf32(work.left[k + 4][i + 8])};
        unsigned b[2] = {round_to_tf32(work.right[k][j]), round_to_tf32(work.right[k + 4][j])};
        mma_m16n8k8_tf32(sums, a, b);
    }
}

__device__ const Tile& collect(Workspace& work, const float (&sums)[SUMS]) {
    int warp = threadIdx.x / WARP, group = threadIdx.x % WARP / 4, member = threadIdx.x % 4;
    int i = warp / 4 * 16 + group, j = warp % 4 * 8 + 2 * member;
    Tile& tile = work.tiles[0];
    tile[i][j] = sums[0];
    tile[i][j + 1] = sums[1];
    tile[i + 8][j] = sums[2];
    tile[i + 8][j + 1] = sums[3];
    __syncthreads();
    return tile;
}

#else

// The block is 4 groups of 64 threads. A group takes 8 of the chunk's k and the whole tile, each thread 4 x 4 numbers.
__device__ void multiply_chunk(const Workspace& work, float (&sums)[SUMS]) {
    int group = threadIdx.x / 64, i = threadIdx.x % 64 / 8 * 4, j = threadIdx.x % 8 * 4;
#pragma unroll
    for (int k = 0; k < 8; k++) {
        float4 l = *reinterpret_cast<const float4*>(&work.left[8 * group + k][i]);
        float4 r = *reinterpret_cast<const float4*>(&work.right[8 * group + k][j]);
        float a[4] = {l.x, l.y, l.z, l.w}, b[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
        for (int n = 0; n < SUMS; n++) sums[n] += a[n / 4] * b[n % 4];
    }
}

// The tile is the sum of what the groups have, always added in the same order.
__device__ const Tile& collect(Workspace& work, const float (&sums)[SUMS]) {
    int group = threadIdx.x / 64, i = threadIdx.x % 64 / 8 * 4, j = threadIdx.x % 8 * 4;
#pragma unroll
    for (int n = 0; n < SUMS; n++) work.tiles[group][i + n / 4][j + n % 4] = sums[n];
    __syncthreads();
    for (int n = threadIdx.x; n < TILE * TILE; n += THREADS) {
        float sum = 0;
        for (int g = 0; g < GROUPS; g++) sum += work.tiles[g][n / TILE][n % TILE];
        work.tiles[0][n / TILE][n % TILE] = sum;
    }
    __syncthreads();
    return work.tiles[0];
}

#endif

// sums += left right^T, spread over the threads.
template <class Left, class Right>
__device__ void multiply(const Left& left, const Right& right, Workspace& work, float (&sums)[SUMS]) {
    int depth = left.matrix.depth;
    Fetcher<Left> left_fetcher(left);
    Fetcher<Right> right_fetcher(right);
    left_fetcher.fetch(0);
    right_fetcher.fetch(0);
    for (int first_k = 0; first_k < depth; first_k += TILE) {
        left_fetcher.store(work.left);
        right_fetcher.store(work.right);
        __syncthreads();
        if (first_k + TILE < depth) {  // on its way while this chunk is multiplied
            left_fetcher.fetch(first_k + TILE);
            right_fetcher.fetch(first_k + TILE);
        }
        multiply_chunk(work, sums);
        __syncthreads();  // everybody has read the chunk: the next one may overwrite it
    }
}

// The tile left right^T, for the whole block to read.
template <class Left, class Right>
__device__ const Tile& product(const Left& left, const Right& right, Workspace& work) {
    float sums[SUMS] = {};
    multiply(left, right, work, sums);
    return collect(work, sums);
}

// The factors with W: x W sums over its inputs, dy W^T over its outputs. `transposed` is a tied W, stored as W^T.
__device__ Matrix columns_of_weight(const float* W, int ldw, int transposed, int inputs, int outputs) {
    return transposed ? rows_of(W, ldw, outputs, inputs) : columns_of(W, ldw, outputs, inputs);
}
__device__ Matrix rows_of_weight(const float* W, int ldw, int transposed, int inputs, int outputs) {
    return transposed ? columns_of(W, ldw, inputs, outputs) : rows_of(W, ldw, inputs, outputs);
}

// ------------------------------------------------------------------------------------------ the captured training step

// x[i] = data[order[batch capacity + i]] scale; with `dynamic`, 1 with that probability, else 0. A block for each row.
template <class Pixel>
__device__ void gather(const Pixel* data, const int* order, const unsigned* state, float* x, int capacity, int columns,
                       float scale, int dynamic) {
    int row = blockIdx.x;
    const Pixel* source = data + order[(long long)state[0] * capacity + row] * (long long)columns;
    for (int column = threadIdx.x; column < columns; column += THREADS) {
        unsigned element = unsigned(row) * columns + column;
        float pixel = source[column] * scale;
        x[element] = !dynamic ? pixel : uniform(state, element) < pixel ? 1 : 0;
    }
}

extern "C" __global__ void gather_bytes(
    const unsigned char* data, const int* order, const unsigned* state, float* x, int rows, int capacity, int columns,
    float scale, int dynamic) {
    gather(data, order, state, x, capacity, columns, scale, dynamic);
}

extern "C" __global__ void gather_floats(
    const float* data, const int* order, const unsigned* state, float* x, int rows, int capacity, int columns,
    float scale, int dynamic) {
    gather(data, order, state, x, capacity, columns, scale, dynamic);
}

// y = f(x W + b).  x (rows, inputs), W (inputs, outputs), b (outputs,) -> y (rows, outputs)
extern "C" __global__ void layer_forward(
    const float* x, const float* W, int ldw, int transposed, const float* b, float* y, int rows, int inputs,
    int outputs, int activation) {
    __shared__ Workspace work;
    int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    Lines left = lines(rows_of(x, inputs, rows, inputs), first_row);
    Lines right = lines(columns_of_weight(W, ldw, transposed, inputs, outputs), first_column);
    const Tile& tile = product(left, right, work);
    for (int n = threadIdx.x; n < TILE * TILE; n += THREADS) {
        int row = first_row + n / TILE, column = first_column + n % TILE;
        if (row < rows && column < outputs)
            y[(long long)row * outputs + column] = activate(tile[n / TILE][n % TILE] + b[column], activation);
    }
}

// x (rows, inputs), W (inputs, 2 latent), b (2 latent,) -> head (rows, 2 latent): mu, logvar; eps, z, kl (rows, latent)
extern "C" __global__ void head_forward(
    const float* x, const float* W, const float* b, const unsigned* state, float* head, float* eps, float* z, float* kl,
    int rows, int inputs, int latent) {
    __shared__ Workspace work;
    int first_row = blockIdx.y * TILE, first_column = blockIdx.x * PAIR;
    Lines left = lines(rows_of(x, inputs, rows, inputs), first_row);
    PairedLines right = {columns_of(W, 2 * latent, latent, inputs), first_column, latent};
    const Tile& tile = product(left, right, work);
    for (int n = threadIdx.x; n < TILE * PAIR; n += THREADS) {
        int row = first_row + n / PAIR, column = first_column + n % PAIR;
        if (row >= rows || column >= latent) continue;
        float mu = tile[n / PAIR][n % PAIR] + b[column];
        float logvar = tile[n / PAIR][n % PAIR + PAIR] + b[column + latent];
        int element = row * latent + column;
        float noise = normal(state, element);
        head[element + row * latent] = mu;
        head[element + row * latent + latent] = logvar;
        eps[element] = noise;
        z[element] = reparameterize(mu, logvar, noise);
        kl[element] = kl_divergence(mu, logvar);
    }
}

// x (rows, inputs), target (rows, outputs) -> doutput (rows, outputs), nll_parts (rows, column tiles).
// A warp finishes one row of the tile at a time, so the row's part of the loss is the sum over its lanes.
extern "C" __global__ void output_bernoulli(
    const float* x, const float* W, int ldw, int transposed, const float* b, const float* target, float* doutput,
    float* nll_parts, int rows, int inputs, int outputs) {
    __shared__ Workspace work;
    int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    Lines left = lines(rows_of(x, inputs, rows, inputs), first_row);
    Lines right = lines(columns_of_weight(W, ldw, transposed, inputs, outputs), first_column);
    const Tile& tile = product(left, right, work);
    for (int n = threadIdx.x; n < TILE * TILE; n += THREADS) {
        int row = first_row + n / TILE, column = first_column + n % TILE;
        float nll = 0;
        if (row < rows && column < outputs) {
            long long element = (long long)row * outputs + column;
            float logit = tile[n / TILE][n % TILE] + b[column];
            nll = bernoulli_nll(logit, target[element]);
            doutput[element] = bernoulli_dlogit(logit, target[element]) / rows;
        }
        nll = lanes_sum(nll);
        if (row < rows && n % TILE == 0) nll_parts[row * gridDim.x + blockIdx.x] = nll;
    }
}

// As output_bernoulli. The variance is one number, logvar (1,); dlogvar_parts (rows, column tiles) sum to its gradient.
extern "C" __global__ void output_gaussian(
    const float* x, const float* W, int ldw, int transposed, const float* b, const float* target, const float* logvar,
    float* doutput, float* nll_parts, float* dlogvar_parts, int rows, int inputs, int outputs) {
    __shared__ Workspace work;
    int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    Lines left = lines(rows_of(x, inputs, rows, inputs), first_row);
    Lines right = lines(columns_of_weight(W, ldw, transposed, inputs, outputs), first_column);
    const Tile& tile = product(left, right, work);
    for (int n = threadIdx.x; n < TILE * TILE; n += THREADS) {
        int row = first_row + n / TILE, column = first_column + n % TILE;
        float nll = 0, dlogvar = 0;
        if (row < rows && column < outputs) {
            long long element = (long long)row * outputs + column;
            float mean = tile[n / TILE][n % TILE] + b[column];
            nll = gaussian_nll(target[element], mean, *logvar);
            dlogvar = gaussian_dlogvar(target[element], mean, *logvar) / rows;
            doutput[element] = gaussian_dmean(target[element], mean, *logvar) / rows;
        }
        nll = lanes_sum(nll);
        dlogvar = lanes_sum(dlogvar);
        if (row < rows && n % TILE == 0) {
            nll_parts[row * gridDim.x + blockIdx.x] = nll;
            dlogvar_parts[row * gridDim.x + blockIdx.x] = dlogvar;
        }
    }
}

// The network makes mean and logvar: W (inputs, 2 outputs), b (2 outputs,) -> doutput (rows, 2 outputs), nll_parts.
// Half a warp finishes one row of the tile.
extern "C" __global__ void output_gaussian_predicted(
    const float* x, const float* W, const float* b, const float* target, float* doutput, float* nll_parts, int rows,
    int inputs, int outputs) {
    __shared__ Workspace work;
    int first_row = blockIdx.y * TILE, first_column = blockIdx.x * PAIR;
    Lines left = lines(rows_of(x, inputs, rows, inputs), first_row);
    PairedLines right = {columns_of(W, 2 * outputs, outputs, inputs), first_column, outputs};
    const Tile& tile = product(left, right, work);
    for (int n = threadIdx.x; n < TILE * PAIR; n += THREADS) {
        int row = first_row + n / PAIR, column = first_column + n % PAIR;
        float nll = 0;
        if (row < rows && column < outputs) {
            long long element = (long long)row * outputs + column;
            float mean = tile[n / PAIR][n % PAIR] + b[column];
            float logvar = tile[n / PAIR][n % PAIR + PAIR] + b[column + outputs];
            float* dmean = doutput + element + (long long)row * outputs;
            nll = gaussian_nll(target[element], mean, logvar);
            dmean[0] = gaussian_dmean(target[element], mean, logvar) / rows;
            dmean[outputs] = gaussian_dlogvar(target[element], mean, logvar) / rows;
        }
        nll = lanes_sum(nll, PAIR);
        if (row < rows && n % PAIR == 0) nll_parts[row * gridDim.x + blockIdx.x] = nll;
    }
}

// dx = (dy W^T) f'.  dy (rows, outputs), W (inputs, outputs), y (rows, inputs): the layer below -> dx (rows, inputs)
extern "C" __global__ void layer_backward(
    const float* dy, const float* W, int ldw, int transposed, const float* y, float* dx, int rows, int inputs,
    int outputs, int activation) {
    __shared__ Workspace work;
    int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    Lines left = lines(rows_of(dy, outputs, rows, outputs), first_row);
    Lines right = lines(rows_of_weight(W, ldw, transposed, inputs, outputs), first_column);
    const Tile& tile = product(left, right, work);
    for (int n = threadIdx.x; n < TILE * TILE; n += THREADS) {
        int row = first_row + n / TILE, column = first_column + n % TILE;
        if (row >= rows || column >= inputs) continue;
        long long element = (long long)row * inputs + column;
        dx[element] = tile[n / TILE][n % TILE] * slope(y[element], activation);
    }
}

// dz = dy W^T, then dhead (rows, 2 latent).  dy (rows, outputs), W (latent, outputs), eps, kl (rows, latent)
// With free bits, a dimension whose mean KL is within its allowance is not pushed by the KL at all.
extern "C" __global__ void latent_backward(
    const float* dy, const float* W, int ldw, int transposed, const float* head, const float* eps, const float* kl,
    const unsigned* state, const float* schedule, float* dhead, int rows, int latent, int outputs, float free_bits) {
    __shared__ Workspace work;
    __shared__ float dkl[TILE];  // of each of the tile's dimensions
    int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    schedule += state[0] * SCHEDULE_COLUMNS;
    for (int j = threadIdx.x / WARP; j < TILE; j += THREADS / WARP) {  // a warp for each
        bool charged = first_column + j < latent;
        if (charged && free_bits > 0) charged = column_sum(kl, rows, latent, first_column + j) / rows > free_bits;
        if (threadIdx.x % WARP == 0) dkl[j] = charged ? schedule[0] * schedule[3] : 0;  // beta / rows
    }
    Lines left = lines(rows_of(dy, outputs, rows, outputs), first_row);
    Lines right = lines(rows_of_weight(W, ldw, transposed, latent, outputs), first_column);
    const Tile& tile = product(left, right, work);
    for (int n = threadIdx.x; n < TILE * TILE; n += THREADS) {
        int row = first_row + n / TILE, column = first_column + n % TILE;
        if (row >= rows || column >= latent) continue;
        float dz = tile[n / TILE][n % TILE];
        int mu = 2 * row * latent + column, logvar = mu + latent;
        dhead[mu] = dmu_of(dz, dkl[n % TILE], head[mu]);
        dhead[logvar] = dlogvar_of(dz, dkl[n % TILE], head[logvar], eps[row * latent + column]);
    }
}

enum Group {  // the columns of `groups`, as GROUP in table.py
    OFFSET, INPUTS, OUTPUTS, HAS_BIAS, X, LDX, DY, LDDY, X2, LDX2, DY2, LDDY2, COLUMNS2, FIRST_BLOCK, GROUP_COLUMNS
};

// Each block makes a tile of one layer's dW and updates those parameters. A bias is the row behind the last row of W.
extern "C" __global__ void weights_and_adam(
    const long long* groups, int group_count, int block_count, float* p, float* m, float* v, float* g,
    const unsigned* state, const float* schedule, int rows) {
    __shared__ Workspace work;
    int number = -1;  // of this block's group: the last one that begins at or before it
    for (int first = 0; first < group_count; first += THREADS) {
        int i = first + threadIdx.x;
        number += __syncthreads_count(i < group_count && groups[i * GROUP_COLUMNS + FIRST_BLOCK] <= blockIdx.x);
    }
    const long long* group = groups + number * GROUP_COLUMNS;
    int inputs = group[INPUTS], outputs = group[OUTPUTS], has_bias = group[HAS_BIAS];
    int tile_number = blockIdx.x - group[FIRST_BLOCK], column_tiles = (outputs + TILE - 1) / TILE;
    int first_row = tile_number / column_tiles * TILE, first_column = tile_number % column_tiles * TILE;

    float sums[SUMS] = {};
    Matrix x = columns_of((const float*)group[X], group[LDX], inputs, rows);
    Matrix dy = columns_of((const float*)group[DY], group[LDDY], outputs, rows);
    multiply(lines(x, first_row, has_bias), lines(dy, first_column), work, sums);
    if (group[X2] != 0) {  // a tied decoder's share
        Matrix x2 = columns_of((const float*)group[X2], group[LDX2], inputs, rows);
        Matrix dy2 = columns_of((const float*)group[DY2], group[LDDY2], group[COLUMNS2], rows);
        multiply(lines(x2, first_row), lines(dy2, first_column), work, sums);
    }
    const Tile& tile = collect(work, sums);

    schedule += state[0] * SCHEDULE_COLUMNS;
    for (int n = threadIdx.x; n < TILE * TILE; n += THREADS) {
        int row = first_row + n / TILE, column = first_column + n % TILE;
        if (row >= inputs + has_bias || column >= outputs) continue;
        long long i = group[OFFSET] + (long long)row * outputs + column;
        float gradient = tile[n / TILE][n % TILE];
        if (g) g[i] = gradient;
        adam_update(p[i], gradient, m[i], v[i], schedule[1], schedule[2]);
    }
}

// One block.  nll_parts, dlogvar_parts (rows, part_count), kl (rows, latent) -> ring[batch] = loss, nll, kl
extern "C" __global__ void finish_step(
    const float* nll_parts, int part_count, const float* kl, const float* schedule, float free_bits, float* ring,
    unsigned* state, const float* dlogvar_parts, float* logvar, float* logvar_m, float* logvar_v, float* logvar_g,
    int rows, int latent) {
    unsigned batch = state[0];
    schedule += batch * SCHEDULE_COLUMNS;
    float nll = 0, kl_mean = 0, charged = 0, dlogvar = 0;
    for (int i = threadIdx.x; i < rows * part_count; i += THREADS) {
        nll += nll_parts[i];
        if (logvar) dlogvar += dlogvar_parts[i];
    }
    for (int j = threadIdx.x / WARP; j < latent; j += THREADS / WARP) {  // a warp for each dimension
        float mean = column_sum(kl, rows, latent, j) / rows;
        if (threadIdx.x % WARP == 0) {
            kl_mean += mean;
            charged += free_bits > 0 && mean < free_bits ? free_bits : mean;
        }
    }
    nll = block_sum(nll) / rows;
    kl_mean = block_sum(kl_mean);
    charged = block_sum(charged);
    dlogvar = block_sum(dlogvar);
    if (threadIdx.x != 0) return;
    ring[3 * batch] = nll + schedule[0] * charged;
    ring[3 * batch + 1] = nll;
    ring[3 * batch + 2] = kl_mean;
    if (logvar) {
        if (logvar_g) *logvar_g = dlogvar;
        adam_update(*logvar, dlogvar, *logvar_m, *logvar_v, schedule[1], schedule[2]);
    }
    state[0] = batch + 1;
}
