/* Prediction for one REAL: rows through all layers of a network, with no memory but the caller's.
 *
 * A single row costs what reading the weights costs, so those of inputs that are zero are skipped: the
 * inputs of each layer, the pixels of an image as well as the outputs of a relu, become a list of the
 * nonzero ones, and the rows of weights that they name are added up in registers. Many rows go by
 * blocks that stay in a core's cache; there the density decides between that and the dense product.
 *
 * Both add up the inputs in order, beginning with the bias, and a product by zero adds nothing (unless
 * a weight is infinite or NaN): the result does not depend on the choice, on how many rows there are, or
 * on the number of threads.
 */

/* Rows that go through the network together in each thread. */
#define BLOCK_ROWS 96
/* Rows of a block whose zeros are counted to guess how many all have. */
#define SAMPLED_ROWS 8
/* Bytes of weights that stay in a core's first-level cache while all rows of a block meet them, and for
 * how many rows that pays: 784 pixels, of which 150 are set, took a fifth longer without. */
#define PART_BYTES 65536
#define REUSING_ROWS 6
/* Zeros are skipped up to these shares of nonzero inputs, where the dense product takes as long: it
 * has many sums to add to at the same time; a row has only its vectors of outputs, each of which waits
 * four cycles for the sum before. */
#define MOST_NONZEROS 0.45
#define NONZEROS_PER_VECTOR 0.125

/* Rows without their zeros: those of row b are at starts[b] to starts[b + 1]. */
typedef struct {
    const int64_t *starts;
    const int32_t *columns;
    const REAL *values;
} FN(nonzeros);

/* What a block needs. */
typedef struct {
    REAL *outputs[2]; /* (rows, units) of two layers in turn */
    /* rows without their zeros: (rows + 1,), (room,), (room,); of pairs how many columns, and (pairs, inputs) */
    int64_t *starts;
    int32_t *columns;
    REAL *values;
    ptrdiff_t room;
    int64_t *next; /* (rows,) */
    const REAL *bias; /* of the first layer, where rows are given without zeros */
} FN(workspace);

/* Lays a workspace out in memory, or counts its bytes where there is none yet. */
static ptrdiff_t FN(divide_memory)(FN(workspace) *w, const plan *p, ptrdiff_t rows, char *memory) {
    pieces all = {memory, TILE_VECTORS * 64, 0};
    ptrdiff_t inputs = 0, outputs = 0;
    for (int l = 0; l < p->layers; l++) {
        const int given = !l && p->starts; /* without zeros */
        if (!given && p->sizes[l] > inputs) inputs = p->sizes[l];
        if (l + 1 < p->layers && p->sizes[l + 1] > outputs) outputs = p->sizes[l + 1];
    }
    for (int side = 0; side < 2; side++)
        w->outputs[side] = carve(&all, rows * outputs * sizeof(REAL));
    w->starts = carve(&all, (rows + 1) * sizeof(int64_t));
    w->next = carve(&all, rows * sizeof(int64_t));
    w->room = rows * inputs / 2 + inputs;
    w->columns = carve(&all, w->room * sizeof(int32_t));
    w->values = carve(&all, w->room * sizeof(REAL));
    return all.used;
}

/* ------------------------------------------------------------------------------- the zeros */

/* columns and values of the nonzero elements of x (n,), in order, and a vector more; how many. */
INLINE ptrdiff_t FN(take_row)(const REAL *x, ptrdiff_t n, int32_t *columns, REAL *values) {
    ptrdiff_t count = 0;
#if defined(__AVX512F__) && defined(__AVX512VL__)
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const int some = (1 << (n - i < LANES ? n - i : LANES)) - 1;
#if SINGLE
        const __m512i ascending =
            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        const __m512 v = _mm512_maskz_loadu_ps(some, x + i);
        const __mmask16 there = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
        const __m512i place = _mm512_add_epi32(ascending, _mm512_set1_epi32((int32_t)i));
        _mm512_storeu_ps(values + count, _mm512_maskz_compress_ps(there, v));
        _mm512_storeu_si512(columns + count, _mm512_maskz_compress_epi32(there, place));
        count += lanes_in16(there);
#else
        const __m256i ascending = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        const __m512d v = _mm512_maskz_loadu_pd(some, x + i);
        const __mmask8 there = _mm512_cmp_pd_mask(v, _mm512_setzero_pd(), _CMP_NEQ_UQ);
        const __m256i place = _mm256_add_epi32(ascending, _mm256_set1_epi32((int32_t)i));
        _mm512_storeu_pd(values + count, _mm512_maskz_compress_pd(there, v));
        _mm256_storeu_si256((__m256i *)(columns + count), _mm256_maskz_compress_epi32(there, place));
        count += lanes_in8(there);
#endif
    }
#else
    for (ptrdiff_t i = 0; i < n; i++) {
        columns[count] = (int32_t)i;
        values[count] = x[i];
        count += x[i] != 0;
    }
#endif
    return count;
}

/* The nonzero elements of some of the rows x (rows, n), as many as there is room for; how many rows. */
static ptrdiff_t FN(take_rows)(const FN(workspace) *w, const REAL *x, ptrdiff_t rows, ptrdiff_t n) {
    ptrdiff_t b = 0;
    w->starts[0] = 0;
    for (; b < rows && w->starts[b] + n <= w->room; b++) {
        const int64_t start = w->starts[b];
        w->starts[b + 1] = start + FN(take_row)(x + b * n, n, w->columns + start, w->values + start);
    }
    return b;
}

/* Whether going from one nonzero of x (rows, inputs) to the next is faster than the dense product. */
static int FN(mostly_zeros)(const REAL *x, ptrdiff_t rows, ptrdiff_t inputs, ptrdiff_t outputs) {
    if (rows <= 2) return 1; /* too few for the dense product to repay its preparations */
    const double share = NONZEROS_PER_VECTOR * ((outputs + LANES - 1) / LANES);
    const ptrdiff_t step = rows < SAMPLED_ROWS ? 1 : rows / SAMPLED_ROWS;
    ptrdiff_t count = 0, looked = 0;
    for (ptrdiff_t b = 0; b < rows; b += step, looked += inputs) {
        int32_t there = 0;
#pragma omp simd reduction(+ : there)
        for (ptrdiff_t i = 0; i < inputs; i++) there += x[b * inputs + i] != 0;
        count += there;
    }
    return count <= (share < MOST_NONZEROS ? share : MOST_NONZEROS) * looked;
}

/* ----------------------------------------------------------------------------- the products */

/* sums += the rows of weights that columns[k] < limit name, times values[k], from k on; returns the next
 * k. All of these are `vectors` wide, of which the last has `left` elements. `sums` is `from`, and goes
 * to `outputs`. */
INLINE int64_t FN(add_rows)(int vectors, int left, const REAL *weights, ptrdiff_t stride,
                            const REAL *from, const int32_t *columns, const REAL *values, int64_t k,
                            int64_t stop, ptrdiff_t limit, REAL *outputs) {
    const int last = vectors - 1;
    FN(vector) sum[SPARSE_VECTORS], end = FN(load_part)(from + last * LANES, left);
#pragma GCC unroll 8
    for (int v = 0; v < last; v++) sum[v] = *(const FN(vector) *)(from + v * LANES);
    for (; k < stop && columns[k] < limit; k++) {
        const REAL *row = weights + columns[k] * stride, value = values[k];
#pragma GCC unroll 8
        for (int v = 0; v < last; v++) sum[v] += value * *(const FN(vector) *)(row + v * LANES);
        end += value * FN(load_part)(row + last * LANES, left);
    }
#pragma GCC unroll 8
    for (int v = 0; v < last; v++) *(FN(vector) *)(outputs + v * LANES) = sum[v];
    FN(store_part)(outputs + last * LANES, end, left);
    return k;
}

/* Asks for n elements to be brought to the second-level cache; they need not exist. */
INLINE void FN(prefetch)(const REAL *p, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i += 64 / sizeof(REAL)) __builtin_prefetch(p + i, 0, 2);
}

/* outputs (rows, n) = the rows x @ weights (inputs, n) + bias (n,); `next` (rows,) is scratch. Dense rows
 * (rows, inputs) that are soon needed, if not NULL, are `ahead`: they come while others are computed. */
static void FN(sparse_product)(FN(nonzeros) x, ptrdiff_t rows, ptrdiff_t inputs, ptrdiff_t n,
                               const REAL *weights, const REAL *bias, const REAL *ahead,
                               int64_t *next, REAL *outputs) {
    const ptrdiff_t most = SPARSE_VECTORS * LANES;
    for (ptrdiff_t j = 0; j < n; j += most) {
        const ptrdiff_t width = n - j < most ? n - j : most;
        const int vectors = (int)((width + LANES - 1) / LANES);
        const int left = (int)(width - (vectors - 1) * LANES);
        const ptrdiff_t part = rows >= REUSING_ROWS ? PART_BYTES / (vectors * VECTOR_BYTES) : inputs;
        memcpy(next, x.starts, rows * sizeof *next);
        for (ptrdiff_t i = 0; i < inputs; i += part) {
            for (ptrdiff_t b = 0; b < rows; b++) {
                REAL *y = outputs + b * n + j;
                if (ahead && j == 0)
                    FN(prefetch)(ahead + b * inputs + i, inputs - i < part ? inputs - i : part);
#define ADD_ROWS(vectors)                                                                        \
    next[b] = FN(add_rows)(vectors, left, weights + j, n, i ? y : bias + j, x.columns, x.values, \
                           next[b], x.starts[b + 1], i + part, y)
                switch (vectors) {
                case 1: ADD_ROWS(1); break;
                case 2: ADD_ROWS(2); break;
                case 3: ADD_ROWS(3); break;
                case 4: ADD_ROWS(4); break;
                case 5: ADD_ROWS(5); break;
                case 6: ADD_ROWS(6); break;
                case 7: ADD_ROWS(7); break;
                default: ADD_ROWS(8);
                }
#undef ADD_ROWS
            }
        }
    }
}

#ifdef __AVX512F__
#define HAS_PAIRS 1
/* Two rows at a time: registers have room for the sums of both, and weights that are loaded once serve both.
 * That and shorter lists make up for the products with zeros where only one row has an input. 10,000 images
 * take a seventh less; rows whose zeros have nothing in common, of 784 inputs 20 to 40 % of which are not
 * zero, take 5 to 10 % more. With AVX2, which has half the registers, images took 40 % more. */

/* Bits of the first n elements, 0 < n <= LANES, that are not zero in x or y. */
INLINE uint32_t FN(either)(const REAL *x, const REAL *y, int n) {
    const FN(vector) a = n < LANES ? FN(load_part)(x, n) : *(const FN(vector) *)x;
    const FN(vector) b = n < LANES ? FN(load_part)(y, n) : *(const FN(vector) *)y;
    const __m512i bits = _mm512_or_si512((__m512i)a, (__m512i)b);
#if SINGLE
    return _mm512_test_epi32_mask(bits, bits);
#else
    return _mm512_test_epi64_mask(bits, bits);
#endif
}

/* The columns in which x (n,) or y (n,) is not zero, in order, and a vector more; how many. */
INLINE ptrdiff_t FN(take_pair)(const REAL *x, const REAL *y, ptrdiff_t n, int32_t *columns) {
    __m512i place = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ptrdiff_t count = 0;
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const uint32_t there =
            i + LANES <= n ? FN(either)(x + i, y + i, LANES) : FN(either)(x + i, y + i, (int)(n - i));
        _mm512_storeu_si512(columns + count, _mm512_maskz_compress_epi32((__mmask16)there, place));
        place = _mm512_add_epi32(place, _mm512_set1_epi32(LANES));
        count += lanes_in16((__mmask16)there);
    }
    return count;
}

/* As `add_rows`, for two rows x. */
INLINE int64_t FN(add_pair)(int vectors, int left, const REAL *weights, ptrdiff_t stride,
                            const REAL *const from[2], const int32_t *columns, const REAL *const x[2],
                            int64_t k, int64_t stop, ptrdiff_t limit, REAL *const outputs[2]) {
    FN(vector) sum[2][SPARSE_VECTORS];
    for (int r = 0; r < 2; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sum[r][v] = FN(load)(from[r], v, vectors, left);
    for (; k < stop && columns[k] < limit; k++) {
        const REAL *row = weights + columns[k] * stride;
        const REAL first = x[0][columns[k]], second = x[1][columns[k]];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            FN(vector) weight = FN(load)(row, v, vectors, left);
            __asm__("" : "+v"(weight)); /* GCC would load it for each product */
            sum[0][v] += first * weight;
            sum[1][v] += second * weight;
        }
    }
    for (int r = 0; r < 2; r++) FN(store_sums)(vectors, left, sum[r], outputs[r]);
    return k;
}

/* As `sparse_product`, for dense rows x (2 * pairs, inputs). */
static void FN(pairs_product)(const FN(workspace) *w, const REAL *x, ptrdiff_t pairs, ptrdiff_t inputs,
                              ptrdiff_t n, const REAL *weights, const REAL *bias, const REAL *ahead,
                              REAL *outputs) {
    const ptrdiff_t most = SPARSE_VECTORS * LANES;
    for (ptrdiff_t pair = 0; pair < pairs; pair++) {
        const REAL *first = x + 2 * pair * inputs;
        w->starts[pair] = FN(take_pair)(first, first + inputs, inputs, w->columns + pair * inputs);
    }
    for (ptrdiff_t j = 0; j < n; j += most) {
        const ptrdiff_t width = n - j < most ? n - j : most;
        const int vectors = (int)((width + LANES - 1) / LANES);
        const int left = (int)(width - (vectors - 1) * LANES);
        const ptrdiff_t part = 2 * pairs >= REUSING_ROWS ? PART_BYTES / (vectors * VECTOR_BYTES) : inputs;
        memset(w->next, 0, pairs * sizeof *w->next);
        for (ptrdiff_t i = 0; i < inputs; i += part)
            for (ptrdiff_t pair = 0; pair < pairs; pair++) {
                const REAL *const rows[2] = {x + 2 * pair * inputs, x + (2 * pair + 1) * inputs};
                REAL *const y[2] = {outputs + 2 * pair * n + j, outputs + (2 * pair + 1) * n + j};
                const REAL *const from[2] = {i ? y[0] : bias + j, i ? y[1] : bias + j};
                for (int r = 0; ahead && j == 0 && r < 2; r++)
                    FN(prefetch)(ahead + (2 * pair + r) * inputs + i, inputs - i < part ? inputs - i : part);
#define ADD_PAIR(vectors)                                                                               \
    w->next[pair] = FN(add_pair)(vectors, left, weights + j, n, from, w->columns + pair * inputs, rows, \
                                 w->next[pair], w->starts[pair], i + part, y)
                WITH_VECTORS(vectors, ADD_PAIR)
#undef ADD_PAIR
            }
    }
}
#else
#define HAS_PAIRS 0
static void FN(pairs_product)(const FN(workspace) *w, const REAL *x, ptrdiff_t pairs, ptrdiff_t inputs,
                              ptrdiff_t n, const REAL *weights, const REAL *bias, const REAL *ahead,
                              REAL *outputs) {
    (void)w, (void)x, (void)pairs, (void)inputs, (void)n, (void)weights, (void)bias, (void)ahead, (void)outputs;
}
#endif

/* ------------------------------------------------------------------------ through the network */

/* outputs (rows, units of the last layer) of a plan's network for x (rows, features), or for its sparse
 * rows from `first` on. */
static void FN(predict_block)(const plan *p, FN(workspace) *w, const REAL *x, ptrdiff_t first,
                              ptrdiff_t rows, REAL *outputs) {
    const REAL *weights = p->parameters;
    for (int l = 0; l < p->layers; l++) {
        const ptrdiff_t inputs = p->sizes[l], n = p->sizes[l + 1];
        const REAL *bias = weights + inputs * n;
        REAL *target = l + 1 < p->layers ? w->outputs[l & 1] : outputs;
        /* Where this is one of many blocks, the next one is fetched meanwhile. */
        const REAL *ahead = l == 0 && x && rows == BLOCK_ROWS ? x + rows * inputs : NULL;
        if (l == 0 && p->starts) {
            const FN(nonzeros) given = {p->starts + first, p->columns, p->values};
            FN(sparse_product)(given, rows, inputs, n, weights, w->bias, NULL, w->next, target);
        } else if (FN(mostly_zeros)(x, rows, inputs, n)) {
            const FN(nonzeros) taken = {w->starts, w->columns, w->values};
            const ptrdiff_t paired = HAS_PAIRS ? rows / 2 * 2 : 0;
            if (paired) FN(pairs_product)(w, x, paired / 2, inputs, n, weights, bias, ahead, target);
            for (ptrdiff_t b = paired, some; b < rows; b += some) {
                some = FN(take_rows)(w, x + b * inputs, rows - b, inputs);
                FN(sparse_product)(taken, some, inputs, n, weights, bias,
                                   ahead ? ahead + b * inputs : NULL, w->next, target + b * n);
            }
        } else {
            FN(blocked_product)(rows, n, inputs, x, inputs, 1, weights, n, 1, bias, target, n, 1);
        }
        FN(activation_forward)(target, (int)p->activations[l], p->slopes[l], target, rows, n);
        weights = bias + n;
        x = target;
    }
}

/* Bytes that a few rows need. */
static ptrdiff_t FN(predict_memory)(const plan *p, ptrdiff_t rows) {
    FN(workspace) w;
    return FN(divide_memory)(&w, p, rows, NULL);
}

/* outputs for x (p->n, features), no more than BLOCK_ROWS, in memory that is there. */
static void FN(predict_few)(const plan *p, const REAL *x, char *memory, REAL *outputs) {
    FN(workspace) w;
    FN(divide_memory)(&w, p, p->n, memory);
    FN(predict_block)(p, &w, x, 0, p->n, outputs);
}

/* ------------------------------------------------------------------------------- many rows */

typedef struct {
    const plan *p;
    REAL *outputs; /* (n, units) */
    char *memory;
    ptrdiff_t bytes; /* of each thread's */
    const REAL *bias; /* of the first layer, with what the shifts of sparse rows add */
} FN(inference);

/* Each thread takes a share of the rows through all layers. */
static void FN(infer_thread)(void *job, int thread) {
    const FN(inference) *all = job;
    const plan *p = all->p;
    const ptrdiff_t features = p->sizes[0], units = p->sizes[p->layers];
    const REAL *inputs = p->inputs;
    const FN(range) share = FN(share)(p->n, TILE_ROWS, thread, p->threads);
    FN(workspace) w;
    FN(divide_memory)(&w, p, p->n < BLOCK_ROWS ? p->n : BLOCK_ROWS,
                      all->memory + thread * all->bytes);
    w.bias = all->bias;
    for (ptrdiff_t start = share.start; start < share.stop; start += BLOCK_ROWS) {
        const ptrdiff_t left = share.stop - start, rows = left < BLOCK_ROWS ? left : BLOCK_ROWS;
        FN(predict_block)(p, &w, inputs ? inputs + start * features : NULL, start, rows,
                          all->outputs + start * units);
    }
}

/* outputs (n, units) of a plan's network for all rows of its data; -1 where memory or threads are not
 * to be had. */
static int FN(infer)(const plan *p, REAL *outputs) {
    const ptrdiff_t bytes = FN(predict_memory)(p, p->n < BLOCK_ROWS ? p->n : BLOCK_ROWS);
    const ptrdiff_t inputs = p->sizes[0], n = p->sizes[1];
    const REAL *weights = p->parameters, *bias = weights + inputs * n;
    char *memory = scratch_memory(bytes * p->threads + (p->shifts ? n * (ptrdiff_t)sizeof(REAL) : 0));
    if (!memory) return -1;
    if (p->shifts) {
        REAL *shifted = (REAL *)(memory + bytes * p->threads);
        FN(blocked_product)(1, n, inputs, p->shifts, inputs, 1, weights, n, 1, bias, shifted, n, 1);
        bias = shifted;
    }
    FN(inference) all = {p, outputs, memory, bytes, bias};
    const int status = run_threads(FN(infer_thread), &all, p->threads);
    give_back(memory);
    return status;
}

#undef BLOCK_ROWS
#undef SAMPLED_ROWS
#undef PART_BYTES
#undef HAS_PAIRS
#undef WITH_VECTORS
#undef REUSING_ROWS
#undef MOST_NONZEROS
#undef NONZEROS_PER_VECTOR
