/* Dense rows into sparse ones for one REAL: what of inputs (rows, columns) is not zero, row by row; with
 * shifts (columns,), what of inputs - shifts.
 *
 * Two passes, each on as many threads as it is given, which take consecutive rows: the first counts and
 * looks at every number, the second copies. Both go by the bits of a number, so that subnormal ones count
 * whatever the processor's mode. One pass into buffers that are put together afterwards would read
 * the inputs once, but write, and have the system provide, twice as much memory.
 */

typedef struct {
    const REAL *inputs, *shifts; /* shifts or NULL */
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

INLINE void FN(count_share)(FN(sparsifying) *s, int thread, const REAL *shifts) {
    const ptrdiff_t columns = s->columns, stop = s->rows * (thread + 1) / s->threads;
    WORD *used = s->used + thread * columns, largest = 0;
    for (ptrdiff_t b = s->rows * thread / s->threads; b < stop; b++) {
        const REAL *row = s->inputs + b * columns;
        WORD count = 0;
#pragma omp simd reduction(+ : count) reduction(max : largest)
        for (ptrdiff_t i = 0; i < columns; i++) {
            const WORD bits = FN(magnitude)(shifts ? row[i] - shifts[i] : row[i]);
            count += bits != 0;
            used[i] |= bits;
            largest = bits > largest ? bits : largest;
        }
        s->starts[b + 1] = count;
    }
    s->largest[thread] = largest;
}

/* With shifts or without, as the compiler then knows. */
static void FN(count_thread)(void *job, int thread) {
    FN(sparsifying) *s = job;
    if (s->shifts)
        FN(count_share)(s, thread, s->shifts);
    else
        FN(count_share)(s, thread, NULL);
}

INLINE void FN(take_share)(const FN(sparsifying) *s, int thread, const REAL *shifts) {
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
            __m512i x = _mm512_loadu_si512(row + i);
            if (shifts)
                x = _mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(x), _mm512_loadu_ps(shifts + i)));
            const __mmask16 there = _mm512_test_epi32_mask(x, _mm512_set1_epi32(0x7fffffff));
            const __m512i place = _mm512_add_epi32(ascending, _mm512_set1_epi32((int32_t)i));
            _mm512_storeu_si512(s->values + k, _mm512_maskz_compress_epi32(there, x));
            _mm512_storeu_si512(s->positions + k, _mm512_maskz_compress_epi32(there, place));
            k += lanes_in16(there);
        }
#endif
        for (; i < columns && k < end; i++) { /* no branch that depends on what is there */
            const REAL x = shifts ? row[i] - shifts[i] : row[i];
            s->positions[k] = (int32_t)i;
            s->values[k] = x;
            k += FN(magnitude)(x) != 0;
        }
    }
}

static void FN(take_thread)(void *job, int thread) {
    const FN(sparsifying) *s = job;
    if (s->shifts)
        FN(take_share)(s, thread, s->shifts);
    else
        FN(take_share)(s, thread, NULL);
}

/* Where the system gives no threads, their shares one after the other. */
static void FN(run_shares)(void (*work)(void *, int), FN(sparsifying) *s) {
    if (!run_threads(work, s, s->threads)) return;
    for (int thread = 0; thread < s->threads; thread++) work(s, thread);
}

/* starts (rows + 1,) of the nonzero elements of each row; the columns that some row has are not 0 in used
 * (threads, columns), which comes filled with zeros. Returns whether all of these are finite. */
static int FN(count_nonzeros)(const REAL *inputs, const REAL *shifts, ptrdiff_t rows, ptrdiff_t columns,
                              int threads, int64_t *starts, WORD *used) {
    FN(sparsifying) s = {inputs, shifts, rows, columns, threads, .starts = starts, .used = used};
    FN(run_shares)(FN(count_thread), &s);
    starts[0] = 0;
    for (ptrdiff_t b = 0; b < rows; b++) starts[b + 1] += starts[b];
    for (int thread = 0; thread < threads; thread++)
        if (s.largest[thread] >= FN(magnitude)((REAL)INFINITY)) return 0;
    return 1;
}

/* The columns and values of the nonzero elements, with `starts` from above. */
static void FN(take_nonzeros)(const REAL *inputs, const REAL *shifts, ptrdiff_t rows, ptrdiff_t columns,
                              int threads, const int64_t *starts, int32_t *positions, REAL *values) {
    FN(sparsifying) s = {inputs, shifts, rows, columns, threads, (int64_t *)starts, positions, values};
    FN(run_shares)(FN(take_thread), &s);
}

/* ---------------------------------------------------------------------------------- codes
 *
 * Data of few values, as images are: columns of two bytes and the values' numbers of one take three
 * bytes for each nonzero element instead of eight, and in the engine a batch's notes fit the first-level
 * cache. Numbers are found by a table that the bits of a value lead into, different ones to different
 * places. */

#define MOST_VALUES 255 /* the number 0 stands for zero */
#define TABLE_BITS 16

typedef struct {
    const REAL *values;
    ptrdiff_t count;
    const int32_t *columns;
    int threads;
    uint16_t *positions;
    uint8_t *numbers;
    WORD factor;
    const uint8_t *places; /* (1 << TABLE_BITS,) the number of the value that leads there */
    const REAL *table;     /* (256,) the values, the first one 0 */
    ptrdiff_t next[MOST_THREADS]; /* how far each thread is: at a value that is not in the table, or done */
} FN(coding);

INLINE size_t FN(place_of)(REAL value, WORD factor) {
    WORD bits;
    memcpy(&bits, &value, sizeof bits);
    return (size_t)((bits * factor) >> (8 * sizeof(WORD) - TABLE_BITS));
}

static void FN(code_thread)(void *job, int thread) {
    FN(coding) *c = job;
    const ptrdiff_t stop = c->count * (thread + 1) / c->threads;
    const uint8_t *places = c->places;
    const REAL *table = c->table;
    ptrdiff_t k = c->next[thread];
    for (; k < stop; k++) {
        const REAL value = c->values[k];
        const uint8_t number = places[FN(place_of)(value, c->factor)];
        if (table[number] != value) break;
        c->numbers[k] = number;
        c->positions[k] = (uint16_t)c->columns[k];
    }
    c->next[thread] = k;
}

/* Adds a value to table[1] to table[known] unless it is there; returns how many there are then, one more
 * than the table holds where they are too many. */
static int FN(add_value)(REAL *table, int known, REAL value) {
    if (known > MOST_VALUES) return known;
    for (int i = 1; i <= known; i++)
        if (table[i] == value) return known;
    if (known < MOST_VALUES) table[known + 1] = value;
    return known + 1;
}

/* Gives each of table[1] to table[count] a place of its own; returns the factor that does, or 0 where
 * none is found. */
static WORD FN(find_places)(const REAL *table, int count, uint8_t *places) {
    uint32_t draw[4] = {0};
    for (int trial = 0; trial < 1000; trial++) {
        draw[0] = (uint32_t)trial;
        philox(draw, 0);
        const WORD factor = (WORD)(((uint64_t)draw[1] << 32 | draw[2]) | 1);
        int placed = 0;
        memset(places, 0, (size_t)1 << TABLE_BITS);
        for (; placed < count; placed++) {
            uint8_t *place = places + FN(place_of)(table[placed + 1], factor);
            if (*place) break;
            *place = (uint8_t)(placed + 1);
        }
        if (placed == count) return factor;
    }
    return 0;
}

/* positions and numbers (count,) of columns and values (count,), and table (256,) of these; returns
 * whether the values are few enough. */
static int FN(code)(const int32_t *columns, const REAL *values, ptrdiff_t count, int threads,
                    uint16_t *positions, uint8_t *numbers, REAL *table) {
    uint8_t *places = malloc((size_t)1 << TABLE_BITS);
    if (!places) return 0;
    FN(coding) c = {values, count, columns, threads, positions, numbers, .places = places, .table = table};
    int known = 0, done = 0;
    for (int thread = 0; thread < threads; thread++) c.next[thread] = count * thread / threads;
    memset(table, 0, (MOST_VALUES + 1) * sizeof(REAL));
    /* As many values as a look at elements from everywhere shows, then one by one: the numbers that were
     * given stay as they are. */
    for (ptrdiff_t k = 0, step = count / 4096 + 1; k < count && known <= MOST_VALUES; k += step)
        known = FN(add_value)(table, known, values[k]);
    while (known <= MOST_VALUES && !done) {
        c.factor = FN(find_places)(table, known, places);
        if (!c.factor) break;
        if (run_threads(FN(code_thread), &c, threads)) break;
        done = 1;
        for (int thread = 0; thread < threads; thread++) {
            if (c.next[thread] == count * (thread + 1) / threads) continue;
            done = 0;
            known = FN(add_value)(table, known, values[c.next[thread]]);
        }
    }
    free(places);
    return done;
}

#undef MOST_VALUES
#undef TABLE_BITS
