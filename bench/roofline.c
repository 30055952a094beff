/* What this machine can do at most, one "name value" a line. See roofline.py, which compiles this and
 * gives the number of threads, and the bytes to read from L1, L2, L3 and main memory.
 *
 * Every figure is the best of REPEATS, since what disturbs a measurement only ever makes it slower.
 * Threads and their barrier are the engine's own.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "_threads.h"

#ifndef REPEATS
#define REPEATS 15
#define WORK 2e-3 /* seconds of a repeat, at least about */
#endif
#define CHAINS 12 /* of dependent operations: latency times throughput is 8 to 10, registers 16 */

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define LANES (BYTES / 4)
typedef float vector __attribute__((vector_size(BYTES)));

/* The compiler must take it that a value was changed in its register, that it was used, and that
 * all memory was read and changed. */
#if defined(__aarch64__)
#define REGISTER "w"
#elif defined(__AVX512F__)
#define REGISTER "v"
#else
#define REGISTER "x"
#endif
#define STAY(value) __asm__("" : "+" REGISTER(value))
#define USE(value) __asm__ volatile("" ::REGISTER(value))
#define TOUCH_MEMORY() __asm__ volatile("" ::: "memory")

typedef struct measurement {
    void (*run)(struct measurement *, int thread, long times);
    int threads;
    long times; /* passes of a repeat */
    size_t bytes;
    float *arrays[MOST_THREADS];
    barrier meeting;
    double best; /* seconds of one pass */
} measurement;

static void fma_chains(measurement *m, int thread, long times) {
    (void)m, (void)thread;
    vector chain[CHAINS] = {0}, factor = {0}, term = {0}, sum = {0};
    STAY(factor);
    STAY(term);
    for (long i = 0; i < times; i++)
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) {
            chain[c] = chain[c] * factor + term;
            STAY(chain[c]);
        }
#pragma GCC unroll 12
    for (int c = 0; c < CHAINS; c++) sum += chain[c];
    USE(sum);
}

static void read_all(measurement *m, int thread, long times) {
    const size_t count = m->bytes / BYTES;
    vector sum[8] = {0};
    for (long i = 0; i < times; i++) {
        const vector *array = (const vector *)m->arrays[thread];
        for (size_t j = 0; j + 8 <= count; j += 8)
#pragma GCC unroll 8
            for (int s = 0; s < 8; s++) sum[s] += array[j + s];
        TOUCH_MEMORY();
    }
#pragma GCC unroll 8
    for (int s = 1; s < 8; s++) sum[0] += sum[s];
    USE(sum[0]);
}

static void modify_all(measurement *m, int thread, long times) {
    const size_t count = m->bytes / BYTES;
    vector factor = {0};
    STAY(factor);
    for (long i = 0; i < times; i++) {
        vector *array = (vector *)m->arrays[thread];
#pragma GCC unroll 8
        for (size_t j = 0; j < count; j++) array[j] = array[j] * factor + factor;
        TOUCH_MEMORY();
    }
}

/* Parameters, both moments and the gradient stand one after the other. Roots are the
 * engine's: with AVX-512 and AVX2 approximations and a Newton step. */
static void adam_all(measurement *m, int thread, long times) {
    const size_t count = m->bytes / BYTES / 4;
    for (long i = 0; i < times; i++) {
        vector *w = (vector *)m->arrays[thread], *first = w + count, *second = first + count;
        const vector *gradient = second + count;
#pragma GCC unroll 4
        for (size_t j = 0; j < count; j++) {
            const vector g = gradient[j], f = first[j] + (g - first[j]) * 0.1f;
            const vector s = second[j] + (g * g - second[j]) * 0.001f;
#if defined(__AVX512F__)
            const vector r = (vector)_mm512_rsqrt14_ps((__m512)s), near = s * r;
            const vector twice = (s - near * near) * r + (near + near);
            const vector step = 0.002f * f / (twice + 2e-7f);
#elif defined(__AVX2__)
            const vector r = (vector)_mm256_rsqrt_ps((__m256)s), near = s * r;
            const vector twice = (s - near * near) * r + (near + near);
            const vector step = 0.002f * f / (twice + 2e-7f);
#else
            vector root;
            for (int lane = 0; lane < LANES; lane++) root[lane] = sqrtf(s[lane]);
            const vector step = 0.001f * f / (root + 1e-7f);
#endif
            first[j] = f;
            second[j] = s;
            w[j] -= step;
        }
        TOUCH_MEMORY();
    }
}

static void meet_often(measurement *m, int thread, long times) {
    for (long i = 0; i < times; i++) meet(&m->meeting, thread);
}

static void one_thread(void *job, int thread) {
    measurement *m = job;
    m->run(m, thread, 1); /* caches and pages */
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        meet(&m->meeting, thread);
        const double start = seconds();
        m->run(m, thread, m->times);
        meet(&m->meeting, thread);
        const double taken = (seconds() - start) / m->times;
        if (thread == 0 && (repeat == 0 || taken < m->best)) m->best = taken;
    }
}

/* Seconds of a pass that all threads make at the same time, each over bytes of its own. */
static double measure(void (*run)(measurement *, int, long), int threads, size_t bytes) {
    measurement m = {.run = run, .threads = threads, .bytes = bytes, .meeting = {.threads = threads}};
    for (int t = 0; t < threads && bytes; t++) {
        m.arrays[t] = aligned_alloc(1 << 21, (bytes + (1 << 21) - 1) >> 21 << 21);
        if (!m.arrays[t]) {
            fprintf(stderr, "no memory for %zu bytes\n", bytes);
            exit(1);
        }
        for (size_t i = 0; i < bytes / sizeof(float); i++) m.arrays[t][i] = 1;
    }
    for (m.times = 1;; m.times *= 4) {
        if (run_threads(one_thread, &m, threads)) exit(1);
        if (m.best * m.times > WORK) break;
    }
    for (int t = 0; t < threads; t++) free(m.arrays[t]);
    return m.best;
}

static void nothing(void *job, int thread) { (void)job, (void)thread; }

static double create_threads(void) {
    double best = 1;
    for (int i = 0; i < 200; i++) {
        const double start = seconds();
        if (run_threads(nothing, NULL, 2)) exit(1);
        const double taken = seconds() - start;
        if (taken < best) best = taken;
    }
    return best;
}

int main(int count, char **arguments) {
    const char *names[] = {"l1", "l2", "l3", "memory"};
    if (count != 6) return 2;
    const int most = atoi(arguments[1]);
    size_t bytes[4];
    for (int level = 0; level < 4; level++) bytes[level] = strtoull(arguments[2 + level], NULL, 10);
    printf("vector_bytes %d\n", BYTES);
    for (int threads = 1; threads <= most; threads++) {
        const double flops = 2.0 * LANES * CHAINS * threads;
        printf("fma_%d %.6g\n", threads, flops / measure(fma_chains, threads, 0));
        for (int level = 0; level < 4; level++) {
            const double read = bytes[level] / (8 * BYTES) * (8 * BYTES) * (double)threads;
            printf("read_%s_%d %.6g\n", names[level], threads,
                   read / measure(read_all, threads, bytes[level]));
        }
        printf("modify_l2_%d %.6g\n", threads,
               bytes[1] * (double)threads / measure(modify_all, threads, bytes[1]));
        printf("adam_l1_%d %.6g\n", threads,
               bytes[0] / 16 * (double)threads / measure(adam_all, threads, bytes[0]));
    }
    if (most > 1) {
        printf("barrier %.6g\n", measure(meet_often, 2, 0));
        printf("create %.6g\n", create_threads());
    }
    return 0;
}
