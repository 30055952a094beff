/* The compiled kernels of fastdl, in portable C for GCC and Clang.
 *
 * This header gives each of the files below to the compiler twice, for float and for double, with
 *     REAL     the type                      FN(name)  name_f32 or name_f64
 *     WORD     the unsigned integer as wide  SINGLE    1 for float, 0 for double
 *     VECTOR   as many REAL as a register of the build's instruction set holds, LANES of them
 * and defines the functions that are the same for both.
 *
 * Loops over arrays are plain C over inlined branch-free scalar functions: the compiler turns them
 * into vector code for each instruction set and makes the remainders itself. Only the matrix
 * product names vectors, because there the registers must be counted. Needed flags (setup.py sets
 * them): -fno-math-errno -fno-trapping-math, or ?: on floats is not turned into selects;
 * -fopenmp-simd, for the reductions marked `omp simd` (no OpenMP runtime is used). Not -ffast-math:
 * the functions rely on NaN, infinities and the order of operations.
 */
#ifndef FASTDL_SIMD_H
#define FASTDL_SIMD_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_threads.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

/* Memory that starts on a cache line; in huge pages where it fills much of one: in small ones, which lie
 * anywhere, arrays that would fit a core's cache compete for parts of it. The last such piece that was
 * given back is kept for the next call: the system zeroes each page that it hands out, for a tenth of a
 * millisecond. */
#define SCRATCH_HEAD 64                       /* bytes in front of it, which hold its size */
#define MOST_KEPT ((ptrdiff_t)16 << 20)
static _Atomic(void *) kept_scratch;

static void *scratch_memory(ptrdiff_t bytes) {
    const ptrdiff_t page = (ptrdiff_t)1 << 21;
    const int huge = bytes >= page / 4;
    const ptrdiff_t unit = huge ? page : 64, whole = (SCRATCH_HEAD + bytes + unit - 1) / unit * unit;
    char *memory = huge ? atomic_exchange(&kept_scratch, NULL) : NULL;
    if (memory && *(ptrdiff_t *)memory < whole) {
        free(memory);
        memory = NULL;
    }
    if (!memory) {
        memory = aligned_alloc(unit, whole);
        if (!memory) return NULL;
        *(ptrdiff_t *)memory = whole;
#if defined(MADV_HUGEPAGE)
        if (huge) madvise(memory, whole, MADV_HUGEPAGE);
#endif
    }
#if FASTDL_DEBUG
    memset(memory + SCRATCH_HEAD, 0xFF, bytes); /* NaN, for whoever takes it for zeros */
#endif
    return memory + SCRATCH_HEAD;
}

static void give_back(void *scratch) {
    if (!scratch) return;
    char *memory = (char *)scratch - SCRATCH_HEAD;
    const ptrdiff_t size = *(ptrdiff_t *)memory;
    if (size >= (ptrdiff_t)1 << 21 && size <= MOST_KEPT) memory = atomic_exchange(&kept_scratch, memory);
    free(memory);
}

/* Bytes between what two threads write: a processor fetches lines ahead, and the other one has to fetch them
 * back. */
#define BYTES_APART 4096

/* Scratch that is dealt out piece by piece: `memory` is NULL where it is only counted, as `used`, and pieces lie
 * so many bytes apart. */
typedef struct {
    char *memory;
    ptrdiff_t apart, used;
} pieces;

/* The next piece, on a cache line. */
static void *carve(pieces *p, ptrdiff_t bytes) {
    void *memory = p->memory ? p->memory + p->used : NULL;
    p->used += (bytes + 63) / 64 * 64 + p->apart;
    return memory;
}

/* Registers of the widest kind, and how many rows x vectors of the product they hold as sums
 * beside one vector of the left and a row of the right factor. */
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define TILE_ROWS 12
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#define TILE_ROWS 6
#elif defined(__aarch64__)
#define VECTOR_BYTES 16
#define TILE_ROWS 12
#else
#define VECTOR_BYTES 16
#define TILE_ROWS 6
#endif
#define TILE_VECTORS 2

#if defined(__AVX512DQ__)
/* How many lanes a mask names. GCC 12 takes the mask of a comparison for one that is widened already:
 * where it has to keep it on the stack, it writes 8 or 16 bits and counts the ones in 32, whatever the
 * others hold. So it did at -O1 for ThreadSanitizer, and does at -O2 where registers are short. Through
 * the conversions here it does not look. */
INLINE int lanes_in8(__mmask8 mask) { return __builtin_popcount(_cvtmask8_u32(mask)); }
INLINE int lanes_in16(__mmask16 mask) { return __builtin_popcount(_cvtmask16_u32(mask)); }
#endif

/* Does a*b + c round once? Then the rounding error of a product costs one operation. */
#if defined(__FMA__) || defined(__aarch64__)
#define HAS_FMA 1
#else
#define HAS_FMA 0
#endif

/* The codes of fastdl/reference.py (a test compares them). */
enum { LINEAR, RELU, LEAKY_RELU, ELU, SIGMOID, TANH, SOFTPLUS, SILU, GELU, SOFTMAX, LOG_SOFTMAX };
/* Kinds of optimizer updates, and losses: as the engine's tables in _kernels.pyx name them. */
enum { SGD, MOMENTUM, NESTEROV, RMSPROP, ADAM };
enum {
    BINARY_CROSSENTROPY,
    CATEGORICAL_CROSSENTROPY,
    SPARSE_CATEGORICAL_CROSSENTROPY,
    MEAN_SQUARED_ERROR,
    MEAN_ABSOLUTE_ERROR,
    HUBER,
    POISSON
};

#define MOST_LAYERS 64
/* Blocks of a layer's inputs where the engine adds up parts, and what their edges are multiples of:
 * cache lines, and whole vectors. */
#define PARTS 4
#define BLOCK_UNIT 16
#define SPARSE_VECTORS 8 /* vectors of outputs that a sparse row adds up in registers */

enum { DESCENT_SGD, DESCENT_MOMENTUM, DESCENT_RMSPROP };
/* How `v_tanh` and `v_sigmoid` take reciprocals: one by one, or several together, and that of arguments that are
 * known to be no larger than `tanh_bound` and `sigmoid_bound`. */
enum { V_ALONE, V_TOGETHER, V_BOUNDED };

#define PROBABILITY_EPSILON 1e-7

/* ------------------------------------------------------------------- subnormal numbers
 *
 * The moments of a weight whose input is rarely set decay through the subnormals, where one operation
 * takes some 150 cycles: an Adam step over such weights was ten times slower. Training therefore
 * counts them as zero, on the threads and for the time that it runs. */

#if defined(__x86_64__)
typedef unsigned int float_mode;
static inline float_mode flush_subnormals(void) {
    float_mode mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040); /* flush results to zero, take inputs for zero */
    return mode;
}
static inline void restore_subnormals(float_mode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
typedef uint64_t float_mode;
static inline void restore_subnormals(float_mode mode) {
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
}
static inline float_mode flush_subnormals(void) {
    float_mode mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    restore_subnormals(mode | (uint64_t)1 << 24);
    return mode;
}
#else
typedef int float_mode;
static inline float_mode flush_subnormals(void) { return 0; }
static inline void restore_subnormals(float_mode mode) { (void)mode; }
#endif

/* ------------------------------------------------------------------------- random numbers */

#define SHUFFLE_STREAM 0xFFFFFFFFu

/* Philox4x32-10 (Salmon et al., SC 2011): four random words of a counter and a key, in place. */
INLINE void philox(uint32_t word[4], uint64_t seed) {
    uint32_t low_key = (uint32_t)seed, high_key = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t first = (uint64_t)word[0] * 0xD2511F53u;
        uint64_t second = (uint64_t)word[2] * 0xCD9E8D57u;
        word[0] = (uint32_t)(second >> 32) ^ word[1] ^ low_key;
        word[1] = (uint32_t)second;
        word[2] = (uint32_t)(first >> 32) ^ word[3] ^ high_key;
        word[3] = (uint32_t)first;
        low_key += 0x9E3779B9u;
        high_key += 0xBB67AE85u;
    }
}

/* The same for a register of counters at a time. */
typedef uint32_t words __attribute__((vector_size(VECTOR_BYTES)));
typedef uint64_t wide_words __attribute__((vector_size(VECTOR_BYTES)));
#define WORDS ((int)(VECTOR_BYTES / sizeof(uint32_t)))

/* 0, 1, 2, ... */
INLINE words ascending_words(void) {
    words x;
    for (int i = 0; i < WORDS; i++) x[i] = (uint32_t)i;
    return x;
}

/* 64-bit products of the elements with even numbers. */
INLINE wide_words multiply_even(wide_words a, uint32_t b) {
#if defined(__AVX512F__)
    return (wide_words)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#elif defined(__AVX2__)
    return (wide_words)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#elif defined(__SSE2__)
    return (wide_words)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
#else
    return (a & 0xFFFFFFFFu) * b;
#endif
}

/* The high and low halves of the products of all elements. */
INLINE void multiply_words(words a, uint32_t b, words *high, words *low) {
    const wide_words low_half = (wide_words){0} + 0xFFFFFFFFu;
    const wide_words even = multiply_even((wide_words)a, b);
    const wide_words odd = multiply_even((wide_words)a >> 32, b);
    *high = (words)((even >> 32) | (odd & ~low_half));
    *low = (words)((even & low_half) | (odd << 32));
}

INLINE void philox_words(words word[4], uint64_t seed) {
    uint32_t low_key = (uint32_t)seed, high_key = (uint32_t)(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        words first_high, first_low, second_high, second_low;
        multiply_words(word[0], 0xD2511F53u, &first_high, &first_low);
        multiply_words(word[2], 0xCD9E8D57u, &second_high, &second_low);
        word[0] = second_high ^ word[1] ^ low_key;
        word[1] = second_low;
        word[2] = first_high ^ word[3] ^ high_key;
        word[3] = first_low;
        low_key += 0x9E3779B9u;
        high_key += 0xBB67AE85u;
    }
}

#include "_lanes.h"

/* outputs (n,) = 0 .. n-1 shuffled: Fisher and Yates, partners as in reference.permutation. The draws
 * for a register of counters at a time: one by one they took more than half of the time. */
static void permutation(uint64_t seed, uint64_t epoch, int64_t *outputs, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) outputs[i] = i;
    for (ptrdiff_t i = n - 1; i > 0;) {
        const ptrdiff_t first = i / 2 < WORDS ? 0 : i / 2 - WORDS + 1; /* the lowest counter */
        uint32_t counters[WORDS], drawn[4][WORDS];
        for (int w = 0; w < WORDS; w++) counters[w] = (uint32_t)(first + w);
        words word[4] = {{0}, {0}, (words){0} + (uint32_t)epoch, (words){0} + SHUFFLE_STREAM};
        memcpy(&word[0], counters, sizeof counters);
        philox_words(word, seed);
        memcpy(drawn, word, sizeof drawn);
        for (; i > 0 && i >= 2 * first; i--) {
            const uint64_t high = drawn[2 * (i & 1)][i / 2 - first], bound = (uint64_t)i + 1;
            const uint64_t low = drawn[2 * (i & 1) + 1][i / 2 - first];
            const ptrdiff_t j = (ptrdiff_t)((high * bound + (low * bound >> 32)) >> 32);
            const int64_t swap = outputs[i];
            outputs[i] = outputs[j];
            outputs[j] = swap;
        }
    }
}

/* ------------------------------------------------------- what the engine is asked to do
 *
 * Arrays of void hold the precision of the network. See reference.py and _kernels.pyx. */

typedef struct {
    /* the network: sizes (layers + 1,), the others (layers,) */
    int layers;
    const int64_t *sizes, *activations;
    const double *slopes, *dropout;
    int loss, from_logits;
    double loss_parameter; /* label smoothing, or Huber's delta */
    double l1, l2;
    uint64_t seed, iteration;
    /* the optimizer; slots and gradients are flat like parameters, or NULL */
    int optimizer;
    double momentum, beta_2, epsilon, weight_decay; /* momentum: also rho and beta_1 */
    double clipvalue, clipnorm, global_clipnorm;    /* infinite: no limit */
    int64_t updates;                                /* steps that it has taken */
    void *parameters, *slots[2];
    void *gradients; /* for an optimizer that clips */
    /* the data: n rows, dense, or as starts (n + 1,) of each row's columns and values, or codes of these */
    const void *inputs;
    const int64_t *starts;
    const int32_t *columns;
    const void *values;
    /* Short columns, numbers of the values, and (256,) the values by these, the first of them 0; or NULL. */
    const uint16_t *short_columns;
    const uint8_t *codes;
    const void *table;
    /* (PARTS + 1,) the features at which the first layer's blocks begin and the last ends, and (n, PARTS
     * - 1) how many of a row's columns lie before each block but the first */
    const int64_t *edges;
    const int32_t *cuts;
    const void *shifts;  /* (features,) to be added to every sparse row, or NULL */
    const int32_t *live; /* (live_count,) columns that some row has, or NULL: all of them */
    ptrdiff_t live_count;
    const void *targets;   /* int64 (n,) for the sparse loss, else (n, outputs) */
    const int64_t *labels; /* (n,) classes to count right rows against, or NULL */
    const void *sample_weight;
    int64_t *order; /* (n,) or NULL: as they come; made anew at each epoch's first step */
    ptrdiff_t n, batch;
    /* steps `first`, first + 1, ... of epoch number `epoch` and of those after it, a learning rate for each */
    uint64_t epoch;
    ptrdiff_t first, steps;
    const double *rates;
    double *totals; /* (epochs, 3): loss times rows, right rows, rows */
    double until;   /* by the clock of `seconds`: no further step after it */
    int threads;
} plan;

static inline ptrdiff_t steps_of_epoch(const plan *p) { return (p->n + p->batch - 1) / p->batch; }

/* The next epoch's order and totals. */
static void begin_epoch(plan *p) {
    p->epoch++;
    p->totals += 3;
    if (p->order) permutation(p->seed, p->epoch, p->order, p->n);
}

/* Where block number `block` of a layer's inputs begins. */
static inline ptrdiff_t block_edge(ptrdiff_t inputs, ptrdiff_t block, ptrdiff_t blocks) {
    const ptrdiff_t edge = (inputs + BLOCK_UNIT - 1) / BLOCK_UNIT * block / blocks * BLOCK_UNIT;
    return edge < inputs ? edge : inputs;
}

/* cuts (rows, PARTS - 1): how many of each row's columns, which ascend, lie before edges 1, 2, ... Coded rows have
 * short columns instead. The searches go together, by halves and without branches. */
static void cut_rows(const int64_t *starts, const int32_t *columns, const uint16_t *short_columns, ptrdiff_t rows,
                     const int64_t *edges, int32_t *cuts) {
    for (ptrdiff_t b = 0; b < rows; b++, cuts += PARTS - 1) {
        const int64_t start = starts[b];
        int32_t left = (int32_t)(starts[b + 1] - start), before[PARTS - 1] = {0};
        for (int32_t half; left; left -= half) {
            half = left - left / 2;
            for (int edge = 0; edge < PARTS - 1; edge++) {
                const int64_t at = start + before[edge] + half - 1;
                before[edge] += half & -((columns ? columns[at] : short_columns[at]) < edges[edge + 1]);
            }
        }
        memcpy(cuts, before, sizeof before);
    }
}

/* ---------------------------------------------------------------- one pass for each precision */

#define GLUE_(name, suffix) name##_##suffix
#define GLUE(name, suffix) GLUE_(name, suffix)
#define FN(name) GLUE(name, SUFFIX)
#define LANES ((int)(VECTOR_BYTES / sizeof(REAL)))

/* a + b*x + c*x**2 + ..., for numbers and for vectors x; at most twelve coefficients. */
#define HORNER(x, ...) HORNER_(x, __VA_ARGS__, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1)
#define HORNER_(x, a, b, c, d, e, f, g, h, i, j, k, l, count, ...) \
    GLUE(HORNER, count)(x, a, b, c, d, e, f, g, h, i, j, k, l)
#define HORNER_1(x, a, ...) (a)
#define HORNER_2(x, a, ...) (HORNER_1(x, __VA_ARGS__) * (x) + (a))
#define HORNER_3(x, a, ...) (HORNER_2(x, __VA_ARGS__) * (x) + (a))
#define HORNER_4(x, a, ...) (HORNER_3(x, __VA_ARGS__) * (x) + (a))
#define HORNER_5(x, a, ...) (HORNER_4(x, __VA_ARGS__) * (x) + (a))
#define HORNER_6(x, a, ...) (HORNER_5(x, __VA_ARGS__) * (x) + (a))
#define HORNER_7(x, a, ...) (HORNER_6(x, __VA_ARGS__) * (x) + (a))
#define HORNER_8(x, a, ...) (HORNER_7(x, __VA_ARGS__) * (x) + (a))
#define HORNER_9(x, a, ...) (HORNER_8(x, __VA_ARGS__) * (x) + (a))
#define HORNER_10(x, a, ...) (HORNER_9(x, __VA_ARGS__) * (x) + (a))
#define HORNER_11(x, a, ...) (HORNER_10(x, __VA_ARGS__) * (x) + (a))
#define HORNER_12(x, a, ...) (HORNER_11(x, __VA_ARGS__) * (x) + (a))

/* How many vectors the functions on vectors take together. */
#define VECTORS_AT_ONCE 8

/* The lower, or upper, halves of two vectors, element by element in turn. */
#define SHUFFLE_2(a, b, low) __builtin_shufflevector(a, b, low, low + 2)
#define SHUFFLE_4(a, b, low) __builtin_shufflevector(a, b, low, low + 4, low + 1, low + 5)
#define SHUFFLE_8(a, b, low)                                                               \
    __builtin_shufflevector(a, b, low, low + 8, low + 1, low + 9, low + 2, low + 10, low + 3, \
                            low + 11)
#define SHUFFLE_16(a, b, low)                                                              \
    __builtin_shufflevector(a, b, low, low + 16, low + 1, low + 17, low + 2, low + 18, low + 3, \
                            low + 19, low + 4, low + 20, low + 5, low + 21, low + 6, low + 22,  \
                            low + 7, low + 23)

#define REAL float
#define WORD uint32_t
#define SINGLE 1
#define SUFFIX f32
#if VECTOR_BYTES == 64
#define INTERLEAVE_LOW(a, b) SHUFFLE_16(a, b, 0)
#define INTERLEAVE_HIGH(a, b) SHUFFLE_16(a, b, 8)
#elif VECTOR_BYTES == 32
#define INTERLEAVE_LOW(a, b) SHUFFLE_8(a, b, 0)
#define INTERLEAVE_HIGH(a, b) SHUFFLE_8(a, b, 4)
#else
#define INTERLEAVE_LOW(a, b) SHUFFLE_4(a, b, 0)
#define INTERLEAVE_HIGH(a, b) SHUFFLE_4(a, b, 2)
#endif
#include "_math.h"
#include "_matmul.h"
#include "_operations.h"
#include "_descent.h"
#include "_thin.h"
#include "_engine.h"
#include "_predict.h"
#include "_sparse.h"
#undef REAL
#undef WORD
#undef SINGLE
#undef SUFFIX

#define REAL double
#define WORD uint64_t
#define SINGLE 0
#define SUFFIX f64
#undef INTERLEAVE_LOW
#undef INTERLEAVE_HIGH
#if VECTOR_BYTES == 64
#define INTERLEAVE_LOW(a, b) SHUFFLE_8(a, b, 0)
#define INTERLEAVE_HIGH(a, b) SHUFFLE_8(a, b, 4)
#elif VECTOR_BYTES == 32
#define INTERLEAVE_LOW(a, b) SHUFFLE_4(a, b, 0)
#define INTERLEAVE_HIGH(a, b) SHUFFLE_4(a, b, 2)
#else
#define INTERLEAVE_LOW(a, b) SHUFFLE_2(a, b, 0)
#define INTERLEAVE_HIGH(a, b) SHUFFLE_2(a, b, 1)
#endif
#include "_math.h"
#include "_matmul.h"
#include "_operations.h"
#include "_descent.h"
#include "_thin.h"
#include "_engine.h"
#include "_predict.h"
#include "_sparse.h"
#undef REAL
#undef WORD
#undef SINGLE
#undef SUFFIX

/* Choose the precision at run time: `wide` is true for double; arrays pass as void pointers. */
#define BY_PRECISION(wide, name, ...) ((wide) ? name##_f64(__VA_ARGS__) : name##_f32(__VA_ARGS__))

#endif
