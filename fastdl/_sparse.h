/* Dense rows into sparse ones for one REAL: what of inputs (rows, columns) is not zero, row by row.
 *
 * Two passes, each on as many threads as it is given, which take consecutive rows: the first counts and
 * looks at every number, the second copies. Both go by the bits of a number, so that subnormal ones count
 * whatever the processor's mode. One pass into buffers that are put together afterwards would read
 * the inputs once, but write, and have the system provide, twice as much memory.
 */

typedef struct {
    const REAL *inputs;
    ptrdiff_t rows, columns;
    int threads;
    int64_t *starts;    /* (rows + 1,) where each row begins in the two below */
    int32_t *positions; /* columns */
    REAL *values;
    WORD *used;                /* (threads, columns) not 0 where a row of the thread's has that column */
    WORD largest[MOST_THREADS]; /* magnitude that each thread saw, as bits */
} FN(sparsifying);

/* The magnitude of a number, shifted up by one bit: 0 for both zeros alone. */
INLINE WORD FN(magnitude)(REAL x) {
    WORD bits;
    memcpy(&bits, &x, sizeof bits);
    return bits << 1;
}

static void FN(count_thread)(void *job, int thread) {
    FN(sparsifying) *s = job;
    const ptrdiff_t columns = s->columns, stop = s->rows * (thread + 1) / s->threads;
    WORD *used = s->used + thread * columns, largest = 0;
    for (ptrdiff_t b = s->rows * thread / s->threads; b < stop; b++) {
        const REAL *row = s->inputs + b * columns;
        WORD count = 0;
#pragma omp simd reduction(+ : count) reduction(max : largest)
        for (ptrdiff_t i = 0; i < columns; i++) {
            const WORD bits = FN(magnitude)(row[i]);
            count += bits != 0;
            used[i] |= bits;
            largest = bits > largest ? bits : largest;
        }
        s->starts[b + 1] = count;
    }
    s->largest[thread] = largest;
}

static void FN(take_thread)(void *job, int thread) {
    const FN(sparsifying) *s = job;
    const ptrdiff_t columns = s->columns, stop = s->rows * (thread + 1) / s->threads;
    for (ptrdiff_t b = s->rows * thread / s->threads; b < stop; b++) {
        const REAL *row = s->inputs + b * columns;
        const int64_t end = s->starts[b + 1];
        int64_t k = s->starts[b];
        ptrdiff_t i = 0;
#if SINGLE && defined(__AVX512F__)
        const __m512i ascending =
            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        /* Whole vectors are written, over the places of rows to come, but not of another thread's. */
        const int64_t limit = s->starts[stop];
        for (; i + 16 <= columns && k + 16 <= limit; i += 16) {
            const __m512i x = _mm512_loadu_si512(row + i);
            const __mmask16 there = _mm512_test_epi32_mask(x, _mm512_set1_epi32(0x7fffffff));
            const __m512i place = _mm512_add_epi32(ascending, _mm512_set1_epi32((int32_t)i));
            _mm512_storeu_si512(s->values + k, _mm512_maskz_compress_epi32(there, x));
            _mm512_storeu_si512(s->positions + k, _mm512_maskz_compress_epi32(there, place));
            k += __builtin_popcount(there);
        }
#endif
        for (; i < columns && k < end; i++) { /* no branch that depends on what is there */
            s->positions[k] = (int32_t)i;
            s->values[k] = row[i];
            k += FN(magnitude)(row[i]) != 0;
        }
    }
}

/* Where the system gives no threads, their shares one after the other. */
static void FN(run_shares)(void (*work)(void *, int), FN(sparsifying) *s) {
    if (!run_threads(work, s, s->threads)) return;
    for (int thread = 0; thread < s->threads; thread++) work(s, thread);
}

/* starts (rows + 1,) of the nonzero elements of each row; the columns that some row has are not 0 in used
 * (threads, columns), which comes filled with zeros. Returns whether all numbers are finite. */
static int FN(count_nonzeros)(const REAL *inputs, ptrdiff_t rows, ptrdiff_t columns, int threads,
                              int64_t *starts, WORD *used) {
    FN(sparsifying) s = {inputs, rows, columns, threads, .starts = starts, .used = used};
    FN(run_shares)(FN(count_thread), &s);
    starts[0] = 0;
    for (ptrdiff_t b = 0; b < rows; b++) starts[b + 1] += starts[b];
    for (int thread = 0; thread < threads; thread++)
        if (s.largest[thread] >= FN(magnitude)((REAL)INFINITY)) return 0;
    return 1;
}

/* The columns and values of the nonzero elements, with `starts` from above. */
static void FN(take_nonzeros)(const REAL *inputs, ptrdiff_t rows, ptrdiff_t columns, int threads,
                              const int64_t *starts, int32_t *positions, REAL *values) {
    FN(sparsifying) s = {inputs, rows, columns, threads, (int64_t *)starts, positions, values};
    FN(run_shares)(FN(take_thread), &s);
}
