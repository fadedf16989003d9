// What is no formula: numbers that move (gather, patches, fold), and sums and maxima that no loop makes. Compiled behind
// common.cu. In every kernel a thread makes whole numbers of the result, alone and in order.
//
// Windows: images (height, width, channels), and a square window of `kernel` pixels that slides over them in steps of
// `stride`, with `pad` pixels beside the image; it has (down, across) places. Derived in tinyvae/ops/convolution.py.

// A thread's first number of `size`, and how far it is to its next.
__device__ unsigned first_number() { return blockIdx.x * THREADS + threadIdx.x; }
__device__ unsigned number_step() { return gridDim.x * THREADS; }

// x[i] = data[rows[i]] scale.  data (all rows, columns), rows (n,) -> x (n, columns), size = n columns
template <class Pixel>
__device__ void gather(const Pixel* data, const long long* rows, float* x, int columns, float scale, int size) {
    for (unsigned n = first_number(); n < size; n += number_step())
        x[n] = data[rows[n / columns] * columns + n % columns] * scale;
}

extern "C" __global__ void gather_bytes(
    const unsigned char* data, const long long* rows, float* x, int columns, float scale, int size) {
    gather(data, rows, x, columns, scale, size);
}

extern "C" __global__ void gather_floats(
    const float* data, const long long* rows, float* x, int columns, float scale, int size) {
    gather(data, rows, x, columns, scale, size);
}

// What the window covers at each place, 0 beside the image.
// x (images, height, width, channels) -> rows (images, down, across, kernel, kernel, channels), size numbers
extern "C" __global__ void patches(
    const float* x, float* rows, int height, int width, int channels, int kernel, int stride, int pad, int down,
    int across, int size) {
    for (unsigned n = first_number(); n < size; n += number_step()) {
        int place = n / channels / kernel / kernel, image = place / across / down;
        int i = n / channels / kernel % kernel, j = n / channels % kernel, channel = n % channels;
        int y = place / across % down * stride - pad + i, across_image = place % across * stride - pad + j;
        bool inside = y >= 0 && y < height && across_image >= 0 && across_image < width;
        rows[n] = inside ? x[(((long long)image * height + y) * width + across_image) * channels + channel] : 0;
    }
}

// The adjoint: each pixel gathers the numbers that patches would have copied from it.
// rows (images, down, across, kernel, kernel, channels) -> x (images, height, width, channels), size numbers
extern "C" __global__ void fold(
    const float* rows, float* x, int height, int width, int channels, int kernel, int stride, int pad, int down,
    int across, int size) {
    for (unsigned n = first_number(); n < size; n += number_step()) {
        int channel = n % channels, image = n / channels / width / height;
        int y = n / channels / width % height + pad, across_image = n / channels % width + pad;
        float sum = 0;
        for (int i = y % stride; i < kernel && i <= y; i += stride) {  // the window's pixels that can lie on this one
            if (y - i >= down * stride) continue;
            for (int j = across_image % stride; j < kernel && j <= across_image; j += stride) {
                if (across_image - j >= across * stride) continue;
                long long place = ((long long)image * down + (y - i) / stride) * across + (across_image - j) / stride;
                sum += rows[((place * kernel + i) * kernel + j) * channels + channel];
            }
        }
        x[n] = sum;
    }
}

// table[c] = the sum of da's rows whose label is c; K rows share a label.
// labels (rows / K,), da (rows, columns) -> table (classes, columns), size = classes columns
extern "C" __global__ void scatter(
    const long long* labels, const float* da, float* table, int K, int rows, int columns, int size) {
    for (unsigned n = first_number(); n < size; n += number_step()) {
        int label = n / columns, column = n % columns;
        float sum = 0;
        for (int row = 0; row < rows; row++)
            if (labels[row / K] == label) sum += da[(long long)row * columns + column];
        table[n] = sum;
    }
}

// largest[i] = the largest of row i, NaN if there is one.  a (rows, columns) -> largest (rows,). A warp for each row.
extern "C" __global__ void row_max(const float* a, float* largest, int rows, int columns) {
    int row = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    if (row >= rows) return;
    a += (long long)row * columns;
    float most = a[0];
    for (int column = threadIdx.x % WARP; column < columns; column += WARP) most = maximum(most, a[column]);
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        most = maximum(most, __shfl_xor_sync(0xffffffffu, most, distance));
    if (threadIdx.x % WARP == 0) largest[row] = most;
}

// The largest (NaN if there is one), or the sum, of each group of neighbouring columns, in each column of the group.
// first (groups + 1,): where each group begins. a (rows, columns) -> out (rows, columns), size = rows groups
template <bool is_sum>
__device__ void group(const float* a, const long long* first, float* out, int groups, int columns, int size) {
    for (unsigned n = first_number(); n < size; n += number_step()) {
        const long long row = (long long)(n / groups) * columns;
        const int begin = first[n % groups], end = first[n % groups + 1];
        float found = a[row + begin];
        for (int column = begin + 1; column < end; column++)
            found = is_sum ? found + a[row + column] : maximum(found, a[row + column]);
        for (int column = begin; column < end; column++) out[row + column] = found;
    }
}

extern "C" __global__ void group_max(
    const float* a, const long long* first, float* out, int groups, int columns, int size) {
    group<false>(a, first, out, groups, columns, size);
}

extern "C" __global__ void group_sum(
    const float* a, const long long* first, float* out, int groups, int columns, int size) {
    group<true>(a, first, out, groups, columns, size);
}

// sums[i] = parts[0][i] + parts[1][i] + ... in this order.  parts (count, size) -> sums (size,)
extern "C" __global__ void add_parts(const float* parts, float* sums, int count, int size) {
    for (unsigned n = first_number(); n < size; n += number_step()) {
        float sum = 0;
        for (int part = 0; part < count; part++) sum += parts[(long long)part * size + n];
        sums[n] = sum;
    }
}
