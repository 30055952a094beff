/* Dense rows into sparse ones for one REAL: what of inputs (rows, columns) is not zero, row by row; with
 * shifts (columns,), what of inputs - shifts.
 *
 * Two passes, each on as many threads as it is given, which take consecutive rows: the first counts and
 * looks at every number, the second copies. Both go by the bits of a number, so that subnormal ones count
 * whatever the processor's mode. One pass into buffers that are put together afterwards would read
 * the inputs once, but write, and have the system provide, twice as much memory. What training can take as
 * codes, which are a third as long, is written that way (below).
 */

/* Elements ahead of those at hand that are asked for: the processor itself does not look beyond a page. */
#define AHEAD 1024

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

INLINE WORD FN(bits_of)(REAL x) {
    WORD bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* The magnitude of a number, shifted up by one bit: 0 for both zeros alone. */
INLINE WORD FN(magnitude)(REAL x) { return FN(bits_of)(x) << 1; }

/* How many elements of a row are not zero, and notes in `used` which columns, and the largest magnitude. With
 * shifts or without, as the compiler then knows. */
INLINE WORD FN(look_at)(const REAL *row, const REAL *shifts, ptrdiff_t columns, WORD *used, WORD *largest) {
    WORD count = 0, most = *largest;
#pragma omp simd reduction(+ : count) reduction(max : most)
    for (ptrdiff_t i = 0; i < columns; i++) {
        const WORD bits = FN(magnitude)(shifts ? row[i] - shifts[i] : row[i]);
        count += bits != 0;
        used[i] |= bits;
        most = bits > most ? bits : most;
    }
    *largest = most;
    return count;
}
INLINE WORD FN(look_at_row)(const REAL *row, const REAL *shifts, ptrdiff_t columns, WORD *used, WORD *largest) {
    return shifts ? FN(look_at)(row, shifts, columns, used, largest)
                  : FN(look_at)(row, NULL, columns, used, largest);
}

static void FN(count_thread)(void *job, int thread) {
    FN(sparsifying) *s = job;
    const ptrdiff_t columns = s->columns, stop = s->rows * (thread + 1) / s->threads;
    WORD *used = s->used + thread * columns, largest = 0;
    for (ptrdiff_t b = s->rows * thread / s->threads; b < stop; b++)
        s->starts[b + 1] = FN(look_at_row)(s->inputs + b * columns, s->shifts, columns, used, &largest);
    s->largest[thread] = largest;
}

/* The columns and values of what is not zero in a row, or in row - shifts; returns how many: `count` at the
 * most. Vectors are written whole, up to `room` elements. */
INLINE int64_t FN(take_from)(const REAL *row, const REAL *shifts, ptrdiff_t columns, int64_t count, int64_t room,
                               int32_t *positions, REAL *values) {
    int64_t k = 0;
    ptrdiff_t i = 0;
#if SINGLE && defined(__AVX512F__)
    const __m512i ascending = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; i + 16 <= columns && k + 16 <= room; i += 16) {
        __builtin_prefetch(row + i + AHEAD);
        __m512i x = _mm512_loadu_si512(row + i);
        if (shifts)
            x = _mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(x), _mm512_loadu_ps(shifts + i)));
        const __mmask16 there = _mm512_test_epi32_mask(x, _mm512_set1_epi32(0x7fffffff));
        const __m512i place = _mm512_add_epi32(ascending, _mm512_set1_epi32((int32_t)i));
        _mm512_storeu_si512(values + k, _mm512_maskz_compress_epi32(there, x));
        _mm512_storeu_si512(positions + k, _mm512_maskz_compress_epi32(there, place));
        k += lanes_in16(there);
    }
#else
    (void)room;
#endif
    for (; i < columns && k < count; i++) { /* no branch that depends on what is there */
        const REAL x = shifts ? row[i] - shifts[i] : row[i];
        positions[k] = (int32_t)i;
        values[k] = x;
        k += FN(magnitude)(x) != 0;
    }
    return k;
}

INLINE int64_t FN(take_row_of)(const REAL *row, const REAL *shifts, ptrdiff_t columns, int64_t count, int64_t room,
                               int32_t *positions, REAL *values) {
    return shifts ? FN(take_from)(row, shifts, columns, count, room, positions, values)
                  : FN(take_from)(row, NULL, columns, count, room, positions, values);
}

static void FN(take_thread)(void *job, int thread) {
    const FN(sparsifying) *s = job;
    const ptrdiff_t columns = s->columns, stop = s->rows * (thread + 1) / s->threads;
    for (ptrdiff_t b = s->rows * thread / s->threads; b < stop; b++) {
        /* Over the places of rows to come, but not of another thread's. */
        const int64_t start = s->starts[b], room = s->starts[stop] - start;
        FN(take_row_of)(s->inputs + b * columns, s->shifts, columns, s->starts[b + 1] - start, room,
                        s->positions + start, s->values + start);
    }
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
 * places. Dense rows are coded in one pass over them: to write columns and values first, and to code
 * these, took two thirds longer, and twice as long where the system has to give the memory. */

#define MOST_VALUES 255 /* the number 0 stands for zero */
#define TABLE_BITS 16
/* Rows, or runs, that are looked at beforehand, and elements of each for their values. */
#define SAMPLED_ROWS 32
#define SAMPLED_ELEMENTS 32
/* How many more of their elements may be nonzero than of all. */
#define SAMPLED_EXCESS 1.25
/* Elements that are given without zeros go in runs of so many, for the rows of dense ones. */
#define GIVEN_RUN 512

typedef struct {
    const REAL *inputs, *shifts; /* dense rows, or NULL where elements are given without zeros, below */
    ptrdiff_t rows, columns;     /* or runs of elements */
    int threads;
    int64_t *starts;        /* (rows + 1,) how many elements each dense row has, from starts[1] on */
    const int32_t *given_columns;
    const REAL *given_values;
    int64_t given;
    double density;         /* share of dense rows that may be nonzero, and has room */
    uint16_t *positions;
    uint8_t *numbers;
    WORD *used;             /* (threads, columns) not 0 where one of the thread's dense rows has that column */
    REAL *table;            /* (256,) the values, the first one 0 */
    int known;              /* how many, without that; more than it holds where that is not enough */
    uint8_t *places;        /* (1 << TABLE_BITS,) the number of the value that leads there */
    WORD factor;
    atomic_flag adding;     /* a thread adds a value, which the others may look at */
    int32_t *row_columns;   /* (threads, columns + LANES) of a dense row */
    REAL *row_values;
    struct {
        ptrdiff_t row;      /* the next one */
        int64_t end;        /* of what is written */
        int stopped;        /* at a value that has no place */
    } at[MOST_THREADS];
    atomic_int full;        /* a thread's rows have more elements than there is room for */
} FN(coding);

INLINE size_t FN(place_of)(REAL value, WORD factor) {
    return (size_t)((FN(bits_of)(value) * factor) >> (8 * sizeof(WORD) - TABLE_BITS));
}

/* Where the elements of a dense row begin in the room there is, if all before it have as many as may be. */
INLINE int64_t FN(room_before)(const FN(coding) *c, ptrdiff_t row) {
    return (int64_t)(c->density * ((double)row * c->columns));
}

/* What row b, or run, has, a dense one in a thread's scratch; how many elements. */
INLINE int64_t FN(elements_of)(const FN(coding) *c, int thread, ptrdiff_t b, const int32_t **columns,
                               const REAL **values) {
    const ptrdiff_t width = c->columns, room = width + LANES;
    if (!c->inputs) {
        *columns = c->given_columns + b * GIVEN_RUN;
        *values = c->given_values + b * GIVEN_RUN;
        return c->given - b * GIVEN_RUN < GIVEN_RUN ? c->given - b * GIVEN_RUN : GIVEN_RUN;
    }
    int32_t *row_columns = c->row_columns + thread * room;
    REAL *row_values = c->row_values + thread * room;
    const REAL *row = c->inputs + b * width;
    *columns = row_columns, *values = row_values;
    return FN(take_row_of)(row, c->shifts, width, room, room, row_columns, row_values);
}

/* Adds a value to table[1] to table[known] unless it is there; returns how many there are then, one more
 * than the table holds where they are too many, or where it is not finite. */
static int FN(add_value)(REAL *table, int known, REAL value) {
    if (known > MOST_VALUES || FN(magnitude)(value) >= FN(magnitude)((REAL)INFINITY)) return MOST_VALUES + 1;
    const WORD bits = FN(bits_of)(value);
    WORD there = 0;
#pragma omp simd reduction(| : there)
    for (int i = 1; i <= known; i++) there |= FN(bits_of)(table[i]) == bits;
    if (there) return known;
    if (known < MOST_VALUES) table[known + 1] = value;
    return known + 1;
}

/* Gives a value a number and a place while other threads look for theirs; returns whether it has them. */
static int FN(add_in_place)(FN(coding) *c, REAL value) {
    while (atomic_flag_test_and_set_explicit(&c->adding, memory_order_acquire)) relax();
    uint8_t *place = c->places + FN(place_of)(value, c->factor);
    int there = FN(bits_of)(c->table[*place]) == FN(bits_of)(value); /* another thread was faster */
    if (!there) {
        c->known = FN(add_value)(c->table, c->known, value);
        there = c->known <= MOST_VALUES && !*place;
        if (there) __atomic_store_n(place, (uint8_t)c->known, __ATOMIC_RELEASE);
    }
    atomic_flag_clear_explicit(&c->adding, memory_order_release);
    return there;
}

static void FN(code_thread)(void *job, int thread) {
    FN(coding) *c = job;
    const ptrdiff_t stop = c->rows * (thread + 1) / c->threads;
    const int64_t room = FN(room_before)(c, stop);
    const uint8_t *places = c->places;
    const REAL *table = c->table;
    const WORD factor = c->factor;
    WORD largest = 0; /* not needed: numbers that are not finite get no place */
    for (ptrdiff_t b = c->at[thread].row; b < stop; b++) {
        const int32_t *columns;
        const REAL *values;
        const int64_t count = FN(elements_of)(c, thread, b, &columns, &values);
        const int64_t start = c->inputs ? c->at[thread].end : b * GIVEN_RUN;
        uint16_t *positions = c->positions + start;
        uint8_t *numbers = c->numbers + start;
        if (c->inputs && start + count > room) atomic_store_explicit(&c->full, 1, memory_order_relaxed);
        if (atomic_load_explicit(&c->full, memory_order_relaxed)) return;
        for (int64_t k = 0; k < count; k++) {
            const uint8_t *place = places + FN(place_of)(values[k], factor);
            uint8_t number = __atomic_load_n(place, __ATOMIC_ACQUIRE);
            if (FN(bits_of)(table[number]) != FN(bits_of)(values[k])) {
                if (!FN(add_in_place)(c, values[k])) {
                    c->at[thread].row = b;
                    c->at[thread].stopped = 1;
                    return;
                }
                number = *place;
            }
            numbers[k] = number;
        }
        for (int64_t k = 0; k < count; k++) positions[k] = (uint16_t)columns[k];
        if (!c->inputs) continue;
        FN(look_at_row)(c->inputs + b * c->columns, c->shifts, c->columns, c->used + thread * c->columns, &largest);
        c->starts[b + 1] = count;
        c->at[thread].end = start + count;
    }
    c->at[thread].row = stop;
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

/* The step from one row, or run, to be looked at to the next: far apart, as those of one class may stand together. */
INLINE ptrdiff_t FN(sample_step)(const FN(coding) *c) { return c->rows / SAMPLED_ROWS + 1; }

/* The values that a look at elements from everywhere finds, to the table; how many. */
static int FN(sample_values)(const FN(coding) *c) {
    int known = 0;
    for (ptrdiff_t b = 0; b < c->rows && known <= MOST_VALUES; b += FN(sample_step)(c)) {
        const int32_t *columns;
        const REAL *values;
        const int64_t count = FN(elements_of)(c, 0, b, &columns, &values);
        const int64_t stride = count / SAMPLED_ELEMENTS + 1;
        for (int64_t k = b % stride; k < count && known <= MOST_VALUES; k += stride)
            known = FN(add_value)(c->table, known, values[k]);
    }
    return known;
}

/* Whether a look at dense rows from everywhere finds about as few elements as there is room for. */
static int FN(seems_sparse)(const FN(coding) *c) {
    int64_t count = 0;
    ptrdiff_t rows = 0;
    WORD largest = 0;
    for (ptrdiff_t b = 0; b < c->rows; b += FN(sample_step)(c), rows++)
        count += FN(look_at_row)(c->inputs + b * c->columns, c->shifts, c->columns, c->used, &largest);
    return count <= SAMPLED_EXCESS * c->density * ((double)rows * c->columns);
}

/* Codes the rows of a job that knows where they are; returns whether their values are few enough, finite, and
 * of dense rows no more than have room. */
static int FN(code)(FN(coding) *c) {
    const size_t room = c->columns + LANES;
    int done = 0;
    c->places = malloc((size_t)1 << TABLE_BITS);
    if (c->inputs) {
        c->row_columns = malloc(c->threads * room * sizeof *c->row_columns);
        c->row_values = malloc(c->threads * room * sizeof *c->row_values);
    }
    for (int thread = 0; thread < c->threads; thread++) {
        c->at[thread].row = c->rows * thread / c->threads;
        c->at[thread].end = FN(room_before)(c, c->at[thread].row);
    }
    memset(c->table, 0, (MOST_VALUES + 1) * sizeof(REAL));
    c->known = MOST_VALUES + 1;
    if (c->places && (!c->inputs || (c->row_columns && c->row_values))) c->known = FN(sample_values)(c);
    /* Threads give values that are found later places beside the others', if these are free. Else, which is
     * rare, all get new ones; the numbers stay as they are. */
    while (c->known <= MOST_VALUES && !done) {
        c->factor = FN(find_places)(c->table, c->known, c->places);
        if (!c->factor || run_threads(FN(code_thread), c, c->threads)) break;
        done = 1;
        for (int thread = 0; thread < c->threads; thread++) {
            if (c->at[thread].stopped) done = c->at[thread].stopped = 0;
        }
        if (c->full) break;
    }
    free(c->places);
    free(c->row_columns);
    free(c->row_values);
    return done && !c->full;
}

/* positions and numbers (count,) of elements given without zeros, and table (256,). */
static int FN(code_given)(const int32_t *columns, const REAL *values, int64_t count, int threads,
                          uint16_t *positions, uint8_t *numbers, REAL *table) {
    FN(coding) c = {.rows = (count + GIVEN_RUN - 1) / GIVEN_RUN,
                    .threads = threads,
                    .given_columns = columns,
                    .given_values = values,
                    .given = count,
                    .positions = positions,
                    .numbers = numbers,
                    .table = table};
    return FN(code)(&c);
}

/* Codes dense rows (rows, columns): starts (rows + 1,), positions and numbers with room for the share `density`
 * of all, table (256,), and `used` as above, which comes filled with zeros. */
static int FN(code_dense)(const REAL *inputs, const REAL *shifts, ptrdiff_t rows, ptrdiff_t columns, double density,
                          int threads, int64_t *starts, uint16_t *positions, uint8_t *numbers, REAL *table,
                          WORD *used) {
    FN(coding) c = {.inputs = inputs,
                    .shifts = shifts,
                    .rows = rows,
                    .columns = columns,
                    .threads = threads,
                    .starts = starts,
                    .density = density,
                    .positions = positions,
                    .numbers = numbers,
                    .used = used,
                    .table = table};
    if (!FN(seems_sparse)(&c) || !FN(code)(&c)) return 0;
    starts[0] = 0;
    for (ptrdiff_t b = 0; b < rows; b++) starts[b + 1] += starts[b];
    /* What each thread wrote moves to the end of what those before it did. */
    for (int thread = 1; thread < threads; thread++) {
        const ptrdiff_t first = rows * thread / threads;
        const int64_t from = FN(room_before)(&c, first), count = c.at[thread].end - from;
        memmove(positions + starts[first], positions + from, count * sizeof *positions);
        memmove(numbers + starts[first], numbers + from, count * sizeof *numbers);
    }
    return 1;
}

#undef MOST_VALUES
#undef TABLE_BITS
#undef SAMPLED_ROWS
#undef SAMPLED_ELEMENTS
#undef SAMPLED_EXCESS
#undef GIVEN_RUN
#undef AHEAD
