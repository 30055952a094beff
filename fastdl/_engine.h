/* The training engine for one REAL: many steps of one network in one call, on any number of
 * threads.
 *
 * A thread owns some of the inputs of every layer, with their rows of weights and optimizer slots,
 * which stay in its core's cache: no other thread ever touches them. The inputs that a thread owns
 * are also the units that it computes in the layer before. So a layer's product is a sum over the
 * threads of what each one's inputs contribute (the parts), and a step goes
 *
 *     forward, each layer:   part of the product from the own inputs     | told
 *                            dropout drawn                               | others awaited
 *                            own units: parts added up, bias, activation, dropout
 *     loss:                  own rows of the batch                       | barrier
 *     backward, each layer:  gradients of the own inputs                 | told
 *                            the own weights' step                       | others awaited
 *
 * Only outputs and their gradients cross from core to core, these without zeros. (Cut by columns instead,
 * a thread reads the others' weights to go backward, which they have just changed: slower on two threads
 * than on one where rows of weights interleave, and a tenth slower than this where each has a matrix of
 * its own.)
 *
 * Inputs are cut into a fixed number of blocks, whose parts are added up as a fixed tree, and a thread
 * owns whole blocks: results are bit-identical for any number of threads. Where the outputs of a batch
 * are many, parts cost more than they save: each thread then computes its own units from all inputs,
 * after a barrier.
 *
 * A first layer of few dense inputs is the exception: no gradient goes back beyond it, so each thread can own
 * the columns of weights of its own units, and copy all inputs. Nothing of that layer crosses from core
 * to core, if its columns do not share cache lines with others: while a call of many steps lasts, those
 * of each thread are a matrix of its own.
 *
 * Zeros are skipped, in sparse data and in what ReLU and dropout left: a block of inputs is listed row
 * by row for the forward product, and input by input for the way back, where one pass over the
 * weights gives both the gradients of the inputs and of the weights. A block with few zeros takes the
 * dense products. The weight gradient is not stored: a tile of it is summed in registers and handed
 * to the optimizer, unless all of it is needed first (clipping by norm).
 */

/* Dropout draws for eight rows at a time, and losses add up in blocks of as many. */
#define ROW_BLOCK 8
/* Sums over parameters add up in blocks of so many of an array. */
#define SUM_BLOCK 4096
/* Elsewhere, inputs in a block. */
#define WIDE_BLOCK 64
/* The largest outputs of a batch, in bytes, that are added up from parts. */
#define MOST_PART_BYTES (1 << 17)
/* Share of a block that may be nonzero for the lists to be faster than the dense products. */
#define LIST_DENSITY 0.7
/* Layers with so few outputs go back through both products in one pass. */
#define NARROW_OUTPUTS 16
/* Rows whose values of an input stand together: a cache line of them, so that an input's line is filled
 * while it stays near. */
#define NOTE_ROWS 16
/* Weight gradients that wait for the optimizer together, of listed inputs and of others. */
#define WAITING_GRADIENTS 8192
#define MOST_RUNS 32
/* Listed inputs whose gradients wait together where a layer has more outputs than registers add up. */
#define HELD_INPUTS 16
/* Elements between what two threads write: the processor fetches on beyond the end of what it reads. */
#define APART 4096
#define MOST_SUMS (1 << 16)
/* Of a first layer cut by columns, the most inputs for each output, and bytes of them in a batch: all threads
 * copy them, instead of parts. */
#define COLUMN_INPUTS 8
#define MOST_COPIED_BYTES (1 << 18)
/* The largest such weights, in bytes, and the fewest steps for which they are brought together and back,
 * which takes as long as some three steps. */
#define MOST_COLUMN_BYTES (1 << 21)
#define TOGETHER_STEPS 16

/* ------------------------------------------------------------------------ what a call is given */

/* The nonzero inputs of a row in a block: their numbers, int32, and values; of coded data uint16, and
 * bytes that stand for values. */
typedef struct {
    const void *columns, *values;
    ptrdiff_t count;
} FN(span);

typedef struct {
    ptrdiff_t inputs, outputs; /* units */
    int activation;
    int in_parts;       /* the product is added up from parts */
    int by_columns;     /* a thread owns columns of weights, those of its outputs, instead of rows */
    int whole_rows;     /* cut by rows of the batch after the product, not by units */
    int lists;          /* its inputs are listed without zeros */
    int narrow;         /* few outputs: `narrow_step` */
    int fused;          /* ReLU, dropout and the lists for the next layer in one pass */
    int blocks;         /* of inputs */
    const int64_t *edges; /* (blocks + 1,) between them, or NULL: all alike */
    double slope;       /* of the activation */
    double dropout;     /* rate after it */
    ptrdiff_t offset;   /* of weights (inputs, outputs) in the flat arrays; bias (outputs,) follows */
    ptrdiff_t row;      /* the first of its rows of weights, of all layers' */
    /* Each (batch, outputs), as `view` says. */
    REAL *preactivated; /* what the activation took, or the same as activated */
    REAL *activated;    /* the activation's result */
    REAL *fed_on;       /* that after dropout; the same as activated without */
    REAL *factors;      /* what dropout multiplied by; NULL without */
    REAL *back;         /* gradients in fed_on */
    REAL *gradients;    /* (batch, outputs) gradients in preactivated, as `view_gradients` says */
    /* If fused, each of several threads has all gradients, and brings in what the others sent of theirs. */
    int sent;
    REAL *packed;       /* (batch, outputs) as `view` says: what is sent, row by row, without zeros */
    uint16_t *nonzero;  /* (batch, outputs / LANES) as `view` says: bits of the units that have it */
    uint16_t *kept;     /* (batch, outputs / LANES) as `view` says: bits of those that dropout leaves, if fused */
    /* The inputs without zeros. Of a block, row by row, with what the next block has in the same arrays
     * behind it; and in which rows an input occurs, as bits, and with what value. */
    FN(span) *spans;    /* (blocks, batch), see spans_of */
    FN(span) *whole;    /* (threads, batch) all that sparse data has, where there are no parts */
    int32_t *columns;   /* (batch, inputs) of the spans, unless they are the data's own, as `view` says */
    REAL *listed;       /* the same for their values */
    uint32_t *present;  /* (words, inputs) as `view` says */
    REAL *values;       /* planes (inputs, NOTE_ROWS) of sparse data, each thread's together */
    uint8_t *codes;     /* instead of the values, of coded data: planes (inputs, 32), each thread's together */
} FN(layer);

typedef struct {
    plan p; /* what the caller wants; the arrays of it that hold REAL stand below once more */
    FN(layer) layer[MOST_LAYERS];
    REAL *parameters, *slots[2], *gradients;
    const REAL *inputs, *values, *sample_weight;
    const REAL *shifts; /* (features,) of sparse data, or NULL */
    ptrdiff_t done; /* steps taken */
    int stop;
    barrier *meeting;
    /* scratch */
    REAL *parts[2];        /* (PARTS, batch, widest) of one layer and of the next */
    ptrdiff_t widest;      /* outputs of a layer in parts, in whole vectors */
    ptrdiff_t part_size;   /* elements from one part to the next */
    REAL *batch_inputs;    /* (batch, features), dense data only; of columns one for each thread */
    int together;          /* the columns of each thread are a matrix of their own */
    REAL *moved;           /* (features, outputs) where they are moved */
    REAL *batch_targets;   /* (batch, outputs) */
    int64_t *batch_labels; /* (batch,) integer targets */
    REAL *batch_weight;    /* (batch,) */
    ptrdiff_t shift_width; /* the first layer's outputs, in whole cache lines */
    REAL *shift_parts;     /* (PARTS, shift_width) the shifts of each block times its weights */
    REAL *shift_sums;      /* (threads, shift_width) */
    ptrdiff_t most_sums;
    REAL *sums;            /* (threads, most_sums) weight gradients */
    REAL *rooms;           /* (threads, WAITING_GRADIENTS + APART) those that wait, if they are few */
    ptrdiff_t widest_dense; /* outputs in whole panels */
    REAL *panels;          /* (threads, batch, widest_dense) gradients of a layer's outputs */
    REAL *dots;            /* (threads, batch * HELD_INPUTS + APART) gradients of listed inputs */
    double *block_losses;  /* of each ROW_BLOCK rows */
    double *block_right;
    double *block_sums;    /* of each SUM_BLOCK parameters: squares, or (blocks,) penalties */
    ptrdiff_t blocks;
    ptrdiff_t words;       /* of 32 rows in a batch */
    ptrdiff_t next;        /* where the next batch begins */
    /* Rows of the first layer's weights that wait, see catch_up. NULL where none may. */
    int32_t *taken;        /* (inputs,) as `view` says: steps that each row has taken since all were level */
    REAL *rates;           /* (threads, MOST_IDLE) of those steps */
    int32_t *late;         /* (inputs,) which rows have to catch up */
    int waiting;           /* how many steps */
    /* The penalties of each row of weights, of all layers, in these steps, and the steps' other losses and rows
     * of data. NULL without penalties. */
    ptrdiff_t weight_rows;
    REAL *row_penalties; /* (MOST_IDLE_PENALISED, weight_rows) */
    double *step_losses; /* (MOST_IDLE_PENALISED,) */
    ptrdiff_t *step_rows;
} FN(engine);

/* --------------------------------------------------------------------------- dividing the work */

typedef struct {
    ptrdiff_t start, stop;
} FN(range);

/* Thread t's part of `total` elements, in whole units. */
INLINE FN(range) FN(share)(ptrdiff_t total, ptrdiff_t unit, int thread, int threads) {
    const ptrdiff_t units = (total + unit - 1) / unit;
    ptrdiff_t start = units * thread / threads * unit, stop = units * (thread + 1) / threads * unit;
    return (FN(range)){start < total ? start : total, stop < total ? stop : total};
}

/* The blocks of a layer's inputs that a thread owns. */
INLINE FN(range) FN(own_blocks)(const FN(layer) *y, int thread, int threads) {
    const int owners = threads < y->blocks ? threads : y->blocks;
    if (thread >= owners) return (FN(range)){y->blocks, y->blocks};
    return (FN(range)){y->blocks * thread / owners, y->blocks * (thread + 1) / owners};
}

/* The inputs of some blocks. */
INLINE FN(range) FN(block_inputs)(const FN(layer) *y, FN(range) blocks) {
    if (y->edges) return (FN(range)){y->edges[blocks.start], y->edges[blocks.stop]};
    return (FN(range)){block_edge(y->inputs, blocks.start, y->blocks),
                       block_edge(y->inputs, blocks.stop, y->blocks)};
}

INLINE FN(range) FN(one_block)(const FN(layer) *y, ptrdiff_t block) {
    return FN(block_inputs)(y, (FN(range)){block, block + 1});
}

INLINE FN(range) FN(own_inputs)(const FN(layer) *y, int thread, int threads) {
    return FN(block_inputs)(y, FN(own_blocks)(y, thread, threads));
}

/* What a thread computes of layer l's outputs once the product is there. */
INLINE void FN(own_outputs)(const FN(engine) *e, int l, ptrdiff_t rows, int thread, FN(range) *row,
                            FN(range) *column) {
    const FN(layer) *y = &e->layer[l];
    const int by_rows = y->whole_rows || l == e->p.layers - 1;
    *row = by_rows ? FN(share)(rows, ROW_BLOCK, thread, e->p.threads) : (FN(range)){0, rows};
    *column = by_rows ? (FN(range)){0, y->outputs} : FN(own_inputs)(y + 1, thread, e->p.threads);
}

/* Where the units of a layer that a thread works on stand in an array of so many rows. The units of
 * each thread are a matrix of their own, so that no cache line, nor the one next to it that the
 * processor fetches along, is another thread's too: two threads took a fifth longer. Where someone
 * needs whole rows, they are one matrix. */
typedef struct {
    ptrdiff_t first, stride; /* the first unit, and how many */
    ptrdiff_t apart;         /* elements that keep it apart from what other threads have */
} FN(view);

INLINE FN(view) FN(view_inputs)(const FN(layer) *y, int thread, int threads) {
    const FN(range) own = FN(own_inputs)(y, thread, threads);
    return (FN(view)){own.start, own.stop - own.start, thread * APART};
}

INLINE FN(view) FN(view_outputs)(const FN(engine) *e, int l, int thread) {
    const FN(layer) *y = &e->layer[l];
    if (l == e->p.layers - 1 || y->whole_rows || !y[1].in_parts) return (FN(view)){0, y->outputs, 0};
    return FN(view_inputs)(y + 1, thread, e->p.threads);
}

/* How a thread sees the inputs of layer l. */
INLINE FN(view) FN(view_layer)(const FN(engine) *e, int l, int thread) {
    if (l) return FN(view_outputs)(e, l - 1, thread);
    const FN(layer) *y = e->layer;
    if (y->lists || y->in_parts) return FN(view_inputs)(y, thread, e->p.threads);
    return (FN(view)){0, y->inputs, y->by_columns ? thread * (e->p.batch * y->inputs + APART) : 0};
}

/* How a thread sees the gradients in layer l's preactivations: others need them, but for columns. */
INLINE FN(view) FN(view_gradients)(const FN(engine) *e, int l, int thread) {
    const FN(layer) *y = &e->layer[l];
    if (y->by_columns) return FN(view_outputs)(e, l, thread);
    return (FN(view)){0, y->outputs, y->sent ? thread * (e->p.batch * y->outputs + APART) : 0};
}

/* Gradients in all of layer l's preactivations. */
INLINE REAL *FN(gradients_of)(const FN(engine) *e, int l, int thread) {
    return e->layer[l].gradients + FN(view_gradients)(e, l, thread).apart;
}

/* Where a layer's weights are of which a thread takes rows. */
typedef struct {
    ptrdiff_t first, width; /* columns */
    ptrdiff_t at, stride;   /* of row 0 in the flat arrays; from one row to the next */
} FN(block);

INLINE FN(block) FN(own_weights)(const FN(engine) *e, int l, int thread) {
    const FN(layer) *y = &e->layer[l];
    if (!y->by_columns) return (FN(block)){0, y->outputs, y->offset, y->outputs};
    const FN(view) view = FN(view_outputs)(e, l, thread);
    const ptrdiff_t first = view.first, width = view.stride;
    return e->together ? (FN(block)){first, width, y->offset + first * y->inputs, width}
                       : (FN(block)){first, width, y->offset + first, y->outputs};
}

/* A block's spans, apart from those of other threads' too. */
INLINE ptrdiff_t FN(spans_apart)(const FN(engine) *e) {
    return e->p.batch + (e->p.threads > 1 ? (ptrdiff_t)(BYTES_APART / sizeof(FN(span))) : 0);
}
INLINE FN(span) *FN(spans_of)(const FN(engine) *e, const FN(layer) *y, ptrdiff_t block) {
    return y->spans + block * FN(spans_apart)(e);
}

/* The place of a row and unit in an array of `rows` rows. */
INLINE ptrdiff_t FN(place)(FN(view) view, ptrdiff_t rows, ptrdiff_t row, ptrdiff_t unit) {
    return view.apart + view.first * rows + row * view.stride + unit - view.first;
}

/* ----------------------------------------------------------------------------- without zeros */

/* Vector v of `vectors`, the last of which has `last` elements. */
INLINE FN(vector) FN(load)(const REAL *source, int v, int vectors, int last) {
    return v < vectors - 1 ? *(const FN(vector) *)(source + v * LANES)
                           : FN(load_part)(source + v * LANES, last);
}

/* The sums of so many vectors, which are quicker together. */
#if defined(__AVX512F__) && SINGLE
#define TOTALS 4
INLINE void FN(totals)(const FN(vector) x[TOTALS], REAL sums[TOTALS]) {
    const __m512 a = (__m512)x[0], b = (__m512)x[1], c = (__m512)x[2], d = (__m512)x[3];
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512d low = _mm512_unpacklo_pd((__m512d)ab, (__m512d)cd);
    const __m512d high = _mm512_unpackhi_pd((__m512d)ab, (__m512d)cd);
    const __m512d all = (__m512d)_mm512_add_ps((__m512)low, (__m512)high);
    const __m256 half =
        _mm256_add_ps((__m256)_mm512_castpd512_pd256(all), (__m256)_mm512_extractf64x4_pd(all, 1));
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
#else
#define TOTALS 1
INLINE void FN(totals)(const FN(vector) x[TOTALS], REAL sums[TOTALS]) { sums[0] = FN(total)(x[0]); }
#endif

/* Calls MACRO(number) with the number of vectors, 1 to SPARSE_VECTORS, known to the compiler. */
#define WITH_VECTORS(number, MACRO)     \
    switch (number) {                  \
    case 8: MACRO(8); break;           \
    case 7: MACRO(7); break;           \
    case 6: MACRO(6); break;           \
    case 5: MACRO(5); break;           \
    case 4: MACRO(4); break;           \
    case 3: MACRO(3); break;           \
    case 2: MACRO(2); break;           \
    case 1: MACRO(1); break;           \
    }

/* sums += the products of a span's values and their rows of weights. The `table` of coded data, or NULL. */
INLINE void FN(add_span)(int vectors, int last, FN(span) span, const REAL *table, const REAL *weights,
                         ptrdiff_t stride, FN(vector) *sums) {
    const uint16_t *short_columns = span.columns;
    const int32_t *columns = span.columns;
    const uint8_t *codes = span.values;
    const REAL *values = span.values;
    for (ptrdiff_t k = 0; k < span.count; k++) {
        const REAL *row = weights + (table ? short_columns[k] : columns[k]) * stride;
        const REAL value = table ? table[codes[k]] : values[k];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sums[v] += value * FN(load)(row, v, vectors, last);
    }
}

/* outputs (rows, vectors) = each row's span times the weights, plus those of a second block if there
 * is one, plus bias if there is one. */
INLINE void FN(listed_rows)(int vectors, int last, ptrdiff_t rows, const FN(span) *first,
                            const FN(span) *second, const REAL *table, const REAL *weights, ptrdiff_t stride,
                            const REAL *bias, REAL *outputs, ptrdiff_t output_stride) {
    for (ptrdiff_t b = 0; b < rows; b++, outputs += output_stride) {
        FN(vector) sums[SPARSE_VECTORS], others[SPARSE_VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++)
            sums[v] = bias ? FN(load)(bias, v, vectors, last) : (FN(vector)){0};
        FN(add_span)(vectors, last, first[b], table, weights, stride, sums);
        if (second) {
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) others[v] = (FN(vector)){0};
            FN(add_span)(vectors, last, second[b], table, weights, stride, others);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) sums[v] += others[v];
        }
#pragma GCC unroll 8
        for (int v = 0; v < vectors - 1; v++) *(FN(vector) *)(outputs + v * LANES) = sums[v];
        memcpy(outputs + (vectors - 1) * LANES, &sums[vectors - 1], last * sizeof(REAL));
    }
}

INLINE void FN(listed_panels)(ptrdiff_t rows, ptrdiff_t columns, const FN(span) *first,
                              const FN(span) *second, const REAL *table, const REAL *weights,
                              ptrdiff_t stride, const REAL *bias, REAL *outputs,
                              ptrdiff_t output_stride) {
    for (ptrdiff_t j = 0; j < columns; j += SPARSE_VECTORS * LANES) {
        const ptrdiff_t left = columns - j;
        const int vectors = left > SPARSE_VECTORS * LANES ? SPARSE_VECTORS : (int)((left + LANES - 1) / LANES);
        const int last = left > vectors * LANES ? LANES : (int)(left - (vectors - 1) * LANES);
#define LISTED_ROWS(number)                                                                     \
    if (last == LANES)                                                                          \
        FN(listed_rows)(number, LANES, rows, first, second, table, weights + j, stride,         \
                        bias ? bias + j : NULL, outputs + j, output_stride);                     \
    else                                                                                        \
        FN(listed_rows)(number, last, rows, first, second, table, weights + j, stride,          \
                        bias ? bias + j : NULL, outputs + j, output_stride)
        WITH_VECTORS(vectors, LISTED_ROWS)
#undef LISTED_ROWS
    }
}

static void FN(listed_product)(ptrdiff_t rows, ptrdiff_t columns, const FN(span) *first,
                               const FN(span) *second, const REAL *weights, ptrdiff_t stride,
                               const REAL *bias, REAL *outputs, ptrdiff_t output_stride) {
    FN(listed_panels)(rows, columns, first, second, NULL, weights, stride, bias, outputs, output_stride);
}

static void FN(coded_product)(ptrdiff_t rows, ptrdiff_t columns, const FN(span) *first,
                              const FN(span) *second, const REAL *table, const REAL *weights,
                              ptrdiff_t stride, const REAL *bias, REAL *outputs,
                              ptrdiff_t output_stride) {
    FN(listed_panels)(rows, columns, first, second, table, weights, stride, bias, outputs, output_stride);
}

/* The product of rows of sparse data. */
static void FN(data_product)(const plan *p, ptrdiff_t rows, ptrdiff_t columns, const FN(span) *first,
                             const FN(span) *second, const REAL *weights, ptrdiff_t stride,
                             const REAL *bias, REAL *outputs, ptrdiff_t output_stride) {
    if (p->table)
        FN(coded_product)(rows, columns, first, second, p->table, weights, stride, bias, outputs,
                          output_stride);
    else
        FN(listed_product)(rows, columns, first, second, weights, stride, bias, outputs, output_stride);
}

/* Lists what is not zero among values (n,), which are inputs `first` on; returns how many there are.
 * Writes up to a vector more. */
INLINE ptrdiff_t FN(list_nonzeros)(const REAL *source, ptrdiff_t first, ptrdiff_t n, int32_t *columns,
                                   REAL *values) {
    ptrdiff_t count = 0, i = 0;
#if SINGLE && HAS_LANES
    for (; i + LANES <= n; i += LANES) {
        const floats x = load_lanes(first_lanes(LANES), source + i);
        const lane_mask there = not_zero(x);
        list_lanes(there, x, ascending_words() + (uint32_t)(first + i), values + count, columns + count);
        count += count_lanes(there);
    }
#elif defined(__AVX512DQ__) && defined(__AVX512VL__)
    const __m256i ascending = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (; i + 8 <= n; i += 8) {
        const __m512d x = _mm512_loadu_pd(source + i);
        const __mmask8 there = _mm512_cmp_pd_mask(x, _mm512_setzero_pd(), _CMP_NEQ_UQ);
        const __m256i place = _mm256_add_epi32(ascending, _mm256_set1_epi32((int32_t)(first + i)));
        _mm512_storeu_pd(values + count, _mm512_maskz_compress_pd(there, x));
        _mm256_storeu_si256((__m256i *)(columns + count), _mm256_maskz_compress_epi32(there, place));
        count += lanes_in8(there);
    }
#endif
    for (; i < n; i++) {
        columns[count] = (int32_t)(first + i);
        values[count] = source[i];
        count += source[i] != 0;
    }
    return count;
}

/* Notes row b's span of inputs: its bit in present (inputs,), and its values, of which those of NOTE_ROWS
 * rows are a plane (inputs, NOTE_ROWS). Both begin with input `first`. */
INLINE void FN(note_row)(FN(span) span, ptrdiff_t b, ptrdiff_t first, uint32_t *present, REAL *plane) {
    const uint32_t bit = (uint32_t)1 << b % 32;
    const int32_t *columns = span.columns;
    const REAL *values = span.values;
    for (ptrdiff_t k = 0; k < span.count; k++) {
        const ptrdiff_t column = columns[k] - first;
        present[column] |= bit;
        plane[column * NOTE_ROWS + b % NOTE_ROWS] = values[k];
    }
}

/* The same of coded data: the codes of 32 rows are a plane (inputs, 32) of bytes. */
INLINE void FN(note_codes)(FN(span) span, ptrdiff_t b, ptrdiff_t first, uint8_t *plane) {
    const uint16_t *columns = span.columns;
    const uint8_t *codes = span.values;
    plane += b % 32 - first * 32;
    for (ptrdiff_t k = 0; k < span.count; k++) plane[columns[k] * 32] = codes[k];
}

/* Which of 32 bytes are not 0. */
INLINE uint32_t FN(nonzero_bytes)(const uint8_t *bytes) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    const __m256i x = _mm256_loadu_si256((const __m256i *)bytes);
    return _mm256_test_epi8_mask(x, x);
#elif defined(__AVX2__)
    const __m256i x = _mm256_loadu_si256((const __m256i *)bytes);
    return ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(x, _mm256_setzero_si256()));
#elif defined(__SSE2__)
    const __m128i zero = _mm_setzero_si128(), *half = (const __m128i *)bytes;
    return ~((uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128(half), zero)) |
             (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128(half + 1), zero)) << 16);
#else
    uint32_t bits = 0;
    for (int b = 0; b < 32; b++) bits |= (uint32_t)(bytes[b] != 0) << b;
    return bits;
#endif
}

/* ------------------------------------------------------------------------------------- forward */

/* What row `row` of the data has in some blocks of inputs, of sparse data in PARTS. */
INLINE FN(span) FN(data_span)(const FN(engine) *e, ptrdiff_t row, FN(range) blocks) {
    const ptrdiff_t start = e->p.starts[row], end = e->p.starts[row + 1];
    const int32_t *cuts = e->p.cuts + row * (PARTS - 1) - 1;
    if (blocks.start == blocks.stop) return (FN(span)){NULL, NULL, 0};
    const ptrdiff_t first = blocks.start ? start + cuts[blocks.start] : start;
    const ptrdiff_t stop = blocks.stop < PARTS ? start + cuts[blocks.stop] : end;
    if (e->p.table) return (FN(span)){e->p.short_columns + first, e->p.codes + first, stop - first};
    return (FN(span)){e->p.columns + first, e->values + first, stop - first};
}

/* Asks for some bytes, from a cache line's beginning, so that no line is left out. */
INLINE void FN(ask_for)(const char *memory, ptrdiff_t bytes) {
    const char *end = memory + bytes;
    for (memory -= (uintptr_t)memory & 63; memory < end; memory += 64) __builtin_prefetch(memory, 0, 2);
}

INLINE void FN(fetch)(const FN(engine) *e, FN(span) span) {
    FN(ask_for)(span.columns, span.count * (e->p.table ? sizeof(uint16_t) : sizeof(int32_t)));
    FN(ask_for)(span.values, span.count * (e->p.table ? sizeof(uint8_t) : sizeof(REAL)));
}

/* Asks for what the next batch has in the own inputs: rows lie anywhere in memory, and waiting for them
 * took a sixth of a step. All at once: spread over the optimizer's steps, it kept them from the
 * second-level cache for twice the time. */
static void FN(fetch_ahead)(const FN(engine) *e, int thread) {
    const FN(layer) *y = e->layer;
    const FN(range) blocks = FN(own_blocks)(y, thread, e->p.threads);
    const FN(range) own = y->in_parts ? FN(block_inputs)(y, blocks) : (FN(range)){0, y->inputs};
    for (ptrdiff_t b = e->next; b < e->next + e->p.batch && b < e->p.n; b++) {
        const ptrdiff_t row = e->p.order ? e->p.order[b] : b;
        if (y->lists)
            FN(fetch)(e, FN(data_span)(e, row, blocks));
        else
            FN(ask_for)((const char *)(e->inputs + row * y->inputs + own.start),
                        (own.stop - own.start) * sizeof(REAL));
    }
}

/* What the rows of the batch have in sparse data: in each of the own blocks and, unless NULL, in all. What
 * was asked for a step ago may have had to leave the second-level cache since: it is asked for again. */
static void FN(find_spans)(const FN(engine) *e, const int64_t *order, ptrdiff_t first, ptrdiff_t rows,
                           FN(range) blocks, FN(span) *whole) {
    const FN(layer) *y = e->layer;
    for (ptrdiff_t b = 0; b < rows; b++) {
        const ptrdiff_t row = order ? order[b] : first + b;
        for (ptrdiff_t block = blocks.start; block < blocks.stop; block++)
            FN(spans_of)(e, y, block)[b] = FN(data_span)(e, row, (FN(range)){block, block + 1});
        if (whole) whole[b] = FN(data_span)(e, row, (FN(range)){0, PARTS});
        FN(fetch)(e, FN(data_span)(e, row, blocks));
    }
}

/* Notes the rows that have each of the own inputs, in sparse data. */
static void FN(note_inputs)(const FN(engine) *e, ptrdiff_t rows, int thread) {
    const FN(layer) *y = e->layer;
    const FN(range) blocks = FN(own_blocks)(y, thread, e->p.threads);
    const FN(view) view = FN(view_inputs)(y, thread, e->p.threads);
    uint32_t *present = y->present + FN(place)(view, e->words, 0, view.first);
    if (e->p.table) {
        uint8_t *codes = y->codes + FN(place)(view, e->words * 32, 0, view.first);
        /* Block by block, which stays in the first-level cache: stores that miss it wait for each other. */
        for (ptrdiff_t block = blocks.start; block < blocks.stop; block++) {
            const FN(range) range = FN(one_block)(y, block);
            const ptrdiff_t start = range.start - view.first, stop = range.stop - view.first;
            for (ptrdiff_t w = 0; w < e->words; w++)
                memset(codes + (w * view.stride + start) * 32, 0, (stop - start) * 32);
            for (ptrdiff_t b = 0; b < rows; b++)
                FN(note_codes)(FN(spans_of)(e, y, block)[b], b, view.first,
                               codes + b / 32 * 32 * view.stride);
            for (ptrdiff_t w = 0; w < e->words; w++)
                for (ptrdiff_t i = w * view.stride + start; i < w * view.stride + stop; i++)
                    present[i] = FN(nonzero_bytes)(codes + i * 32);
        }
        return;
    }
    REAL *values = y->values + FN(place)(view, e->words * 32, 0, view.first);
    memset(present, 0, e->words * view.stride * sizeof *present);
    for (ptrdiff_t block = blocks.start; block < blocks.stop; block++)
        for (ptrdiff_t b = 0; b < rows; b++)
            FN(note_row)(FN(spans_of)(e, y, block)[b], b, view.first,
                         present + b / 32 * view.stride,
                         values + b / NOTE_ROWS * NOTE_ROWS * view.stride);
}

/* The elements of a block that its lists hold, of all: whether to take the lists. */
INLINE int FN(is_listed)(const FN(engine) *e, int l, ptrdiff_t block, ptrdiff_t rows) {
    const FN(layer) *y = &e->layer[l];
    if (!y->lists) return 0;
    if (l == 0) return 1;
    const FN(range) range = FN(one_block)(y, block);
    ptrdiff_t count = 0;
    for (ptrdiff_t b = 0; b < rows; b++) count += FN(spans_of)(e, y, block)[b].count;
    return count < LIST_DENSITY * rows * (range.stop - range.start);
}

/* What all rows of sparse data have in common, the shifts, adds the same to each row's product: it goes
 * to the bias, once a step. This is the part of the own blocks of inputs. */
static void FN(shift_blocks)(const FN(engine) *e, int thread) {
    const FN(layer) *y = e->layer;
    const FN(range) blocks = FN(own_blocks)(y, thread, e->p.threads);
    for (ptrdiff_t block = blocks.start; block < blocks.stop; block++) {
        const FN(range) range = FN(one_block)(y, block);
        FN(blocked_product)(1, y->outputs, range.stop - range.start, e->shifts + range.start, y->inputs, 1,
                            e->parameters + y->offset + range.start * y->outputs, y->outputs, 1, NULL,
                            e->shift_parts + block * e->shift_width, e->shift_width, 1);
    }
}

/* Layer l's bias, in the given columns with what shifts add to it. */
static const REAL *FN(bias_of)(const FN(engine) *e, int l, int thread, FN(range) column) {
    const FN(layer) *y = &e->layer[l];
    const REAL *bias = e->parameters + y->offset + y->inputs * y->outputs;
    if (l || !e->shifts) return bias;
    const REAL *part = e->shift_parts;
    const ptrdiff_t size = e->shift_width;
    REAL *sums = e->shift_sums + thread * size;
#pragma omp simd
    for (ptrdiff_t o = column.start; o < column.stop; o++)
        sums[o] = bias[o] + ((part[o] + part[size + o]) + (part[2 * size + o] + part[3 * size + o]));
    return sums;
}

/* Asks for some bytes to write, which another thread has read: a store would wait for each line until it is
 * this core's alone, and what comes after it with it. */
INLINE void FN(claim)(const void *memory, ptrdiff_t bytes) {
    for (const char *line = memory, *end = line + bytes; line < end; line += 64)
#if defined(__x86_64__)
        __asm__ volatile("prefetchw %0" : : "m"(*line));
#else
        __builtin_prefetch(line, 1);
#endif
}

/* The part of one block of inputs, or of two one after the other, in a layer's product. */
static void FN(forward_parts)(const FN(engine) *e, int l, const REAL *inputs, FN(view) view,
                              ptrdiff_t rows, ptrdiff_t block, int two) {
    const FN(layer) *y = &e->layer[l];
    const ptrdiff_t outputs = y->outputs, size = e->part_size;
    REAL *parts = e->parts[l % 2] + block * size;
    const REAL *weights = e->parameters + y->offset;
    if (e->p.threads > 1) FN(claim)(parts, rows * e->widest * sizeof(REAL));
    const FN(span) *spans = FN(spans_of)(e, y, block);
    if (FN(is_listed)(e, l, block, rows) && (!two || FN(is_listed)(e, l, block + 1, rows))) {
        const FN(span) *others = two ? FN(spans_of)(e, y, block + 1) : NULL;
        if (l == 0)
            FN(data_product)(&e->p, rows, outputs, spans, others, weights, outputs, NULL, parts, e->widest);
        else
            FN(listed_product)(rows, outputs, spans, others, weights, outputs, NULL, parts, e->widest);
        return;
    }
    for (int b = 0; b <= two; b++, parts += size) {
        const FN(range) range = FN(one_block)(y, block + b);
        FN(blocked_product)(rows, outputs, range.stop - range.start,
                            inputs + FN(place)(view, e->p.batch, 0, range.start), view.stride, 1,
                            weights + range.start * outputs, outputs, 1, NULL, parts, e->widest, 1);
    }
    if (!two) return;
    parts -= 2 * size;
    for (ptrdiff_t b = 0; b < rows; b++, parts += e->widest)
#pragma omp simd
        for (ptrdiff_t o = 0; o < outputs; o++) parts[o] += parts[size + o];
}

/* preactivated = the tree of parts, and the bias. Up to two threads have added up pairs of blocks
 * before. */
static void FN(add_parts)(const FN(engine) *e, int l, const REAL *bias, FN(view) view, FN(range) row,
                          FN(range) column) {
    const FN(layer) *y = &e->layer[l];
    const ptrdiff_t size = e->part_size, width = column.stop - column.start;
    bias += column.start;
    for (ptrdiff_t b = row.start; b < row.stop; b++) {
        const REAL *part = e->parts[l % 2] + b * e->widest;
        REAL *outputs = y->preactivated + FN(place)(view, e->p.batch, b, column.start);
        part += column.start;
        if (e->p.threads <= 2)
#pragma omp simd
            for (ptrdiff_t o = 0; o < width; o++)
                outputs[o] = bias[o] + (part[o] + part[2 * size + o]);
        else
#pragma omp simd
            for (ptrdiff_t o = 0; o < width; o++)
                outputs[o] = bias[o] + ((part[o] + part[size + o]) +
                                        (part[2 * size + o] + part[3 * size + o]));
    }
}

/* preactivated from all inputs; `whole` are the rows of sparse data. */
static void FN(forward_whole)(const FN(engine) *e, int l, const REAL *inputs, const FN(span) *whole,
                              const REAL *bias, FN(view) view, int thread, FN(range) row, FN(range) column) {
    const FN(layer) *y = &e->layer[l];
    const ptrdiff_t rows = row.stop - row.start, width = column.stop - column.start;
    const FN(block) own = FN(own_weights)(e, l, thread);
    const FN(view) fed = FN(view_layer)(e, l, thread);
    const REAL *weights = e->parameters + own.at + column.start - own.first;
    bias += column.start;
    REAL *target = y->preactivated + FN(place)(view, e->p.batch, row.start, column.start);
    if (!rows || !width) return;
    if (l == 0 && y->lists)
        FN(data_product)(&e->p, rows, width, whole + row.start, NULL, weights, own.stride, bias, target,
                         view.stride);
    else
        FN(blocked_product)(rows, width, y->inputs, inputs + FN(place)(fed, e->p.batch, row.start, 0),
                            fed.stride, 1, weights, own.stride, 1, bias, target, view.stride, 1);
}

/* The dropout factors of a part of a layer's outputs. */
static void FN(draw_factors)(const FN(engine) *e, int l, FN(view) view, FN(range) row,
                             FN(range) column) {
    const FN(layer) *y = &e->layer[l];
    if (y->factors)
        FN(dropout_factors)(y->dropout, e->p.seed, e->p.iteration, l, row.start, row.stop, column.start,
                            column.stop,
                            y->factors + FN(place)(view, e->p.batch, row.start, column.start),
                            view.stride);
}

/* Rows and columns of a part: one row where it is all of consecutive rows. */
INLINE void FN(as_rows)(FN(view) view, FN(range) row, FN(range) column, ptrdiff_t *rows,
                        ptrdiff_t *width) {
    *rows = row.stop - row.start;
    *width = column.stop - column.start;
    if (*width != view.stride) return;
    *width *= *rows;
    *rows = 1;
}

/* Activation and dropout of a part of a layer's outputs. */
static void FN(activate)(const FN(engine) *e, int l, FN(view) view, FN(range) row, FN(range) column) {
    const FN(layer) *y = &e->layer[l];
    ptrdiff_t at = FN(place)(view, e->p.batch, row.start, column.start), rows, width;
    if (y->activation >= SOFTMAX) {
        rows = row.stop - row.start;
        FN(activation_forward)(y->preactivated + at, y->activation, y->slope, y->activated + at, rows,
                               y->outputs);
    }
    FN(as_rows)(view, row, column, &rows, &width);
    for (; rows--; at += view.stride) {
        if (y->activation < SOFTMAX)
            FN(activation_forward)(y->preactivated + at, y->activation, y->slope, y->activated + at, 1,
                                   width);
        if (!y->factors) continue;
        const REAL *activated = y->activated + at, *factors = y->factors + at;
        REAL *fed_on = y->fed_on + at;
#pragma omp simd
        for (ptrdiff_t i = 0; i < width; i++) fed_on[i] = activated[i] * factors[i];
    }
}

/* Lists the own inputs of layer l, which have just been computed. What counts as zero must be without
 * a gradient too: ReLU's zeros, or what dropout took. */
static void FN(list_inputs)(const FN(engine) *e, int l, ptrdiff_t rows, int thread) {
    const FN(layer) *y = &e->layer[l], *before = y - 1;
    const REAL *marks = before->activation == RELU ? before->fed_on : before->factors;
    const FN(view) view = FN(view_outputs)(e, l - 1, thread);
    const FN(range) blocks = FN(own_blocks)(y, thread, e->p.threads);
    const FN(range) own = FN(block_inputs)(y, blocks);
    const ptrdiff_t batch = e->p.batch, width = own.stop - own.start;
    uint32_t *present = y->present + FN(place)(view, e->words, 0, own.start);
    for (ptrdiff_t w = 0; w < e->words; w++) memset(present + w * view.stride, 0, width * sizeof *present);
    for (ptrdiff_t b = 0; b < rows; b++) {
        const REAL *row = marks + FN(place)(view, batch, b, own.start);
        uint32_t *word = present + b / 32 * view.stride, bit = (uint32_t)1 << b % 32;
#pragma omp simd
        for (ptrdiff_t i = 0; i < width; i++) word[i] |= row[i] != 0 ? bit : 0;
    }
    for (ptrdiff_t block = blocks.start; block < blocks.stop; block++) {
        const FN(range) range = FN(one_block)(y, block);
        for (ptrdiff_t b = 0; b < rows; b++) {
            const ptrdiff_t at = FN(place)(view, batch, b, range.start);
            int32_t *columns = y->columns + at;
            REAL *values = y->listed + at;
            const ptrdiff_t count = FN(list_nonzeros)(marks + at, range.start, range.stop - range.start,
                                                      columns, values);
            if (marks != before->fed_on)
                for (ptrdiff_t k = 0; k < count; k++)
                    values[k] = before->fed_on[at + columns[k] - range.start];
            FN(spans_of)(e, y, block)[b] = (FN(span)){columns, values, count};
        }
    }
}

/* ---------------------------------------------------------------------------------------- loss */

/* How many of the given rows of outputs have their largest at the label, or, for binary targets, what
 * share of their outputs lies on the target's side of the threshold. */
static double FN(count_right)(const FN(engine) *e, const REAL *outputs, const int64_t *order,
                              ptrdiff_t first, ptrdiff_t row, ptrdiff_t rows) {
    const ptrdiff_t o = e->layer[e->p.layers - 1].outputs;
    const REAL threshold = e->p.from_logits ? 0 : (REAL)0.5;
    ptrdiff_t right = 0;
    if (e->p.loss == BINARY_CROSSENTROPY) {
        const REAL *targets = e->batch_targets + row * o;
        for (ptrdiff_t i = 0; i < rows * o; i++) right += (outputs[i] > threshold) == targets[i];
        return (double)right / o;
    }
    if (!e->p.labels) return 0;
    for (ptrdiff_t b = row; b < row + rows; b++, outputs += o) {
        ptrdiff_t best = 0;
        REAL top = outputs[0];
        for (ptrdiff_t i = 1; i < o; i++) { /* without branches, which could not be predicted */
            best = outputs[i] > top ? i : best;
            top = outputs[i] > top ? outputs[i] : top;
        }
        right += best == e->p.labels[order ? order[b] : first + b];
    }
    return right;
}

/* Losses of the given rows of the batch, block by block, and their gradients in the last layer's
 * preactivations. */
static void FN(loss_part)(const FN(engine) *e, const int64_t *order, ptrdiff_t first, ptrdiff_t rows,
                          FN(range) row) {
    const FN(layer) *y = &e->layer[e->p.layers - 1];
    const ptrdiff_t o = y->outputs;
    for (ptrdiff_t b = row.start; b < row.stop; b += ROW_BLOCK) {
        const ptrdiff_t part = row.stop - b < ROW_BLOCK ? row.stop - b : ROW_BLOCK;
        const REAL *targets = e->batch_targets + b * o, *outputs = y->activated + b * o;
        const REAL *weight = e->sample_weight ? e->batch_weight + b : NULL;
        REAL *gradients = y->gradients + b * o;
        double loss = 0;
        switch (e->p.loss) {
        case BINARY_CROSSENTROPY:
            loss = FN(binary_crossentropy)(targets, outputs, weight, e->p.from_logits,
                                           e->p.loss_parameter, gradients, part, o, rows);
            break;
        case CATEGORICAL_CROSSENTROPY:
            loss = FN(categorical_crossentropy)(targets, outputs, weight, e->p.from_logits,
                                                e->p.loss_parameter, gradients, part, o, rows);
            break;
        case SPARSE_CATEGORICAL_CROSSENTROPY:
            loss = FN(sparse_categorical_crossentropy)(e->batch_labels + b, outputs, weight,
                                                       e->p.from_logits, e->p.loss_parameter, gradients,
                                                       part, o, rows);
            break;
        default:
            loss = FN(regression)(e->p.loss, targets, outputs, weight, e->p.loss_parameter, gradients, part,
                                  o, rows);
        }
        e->block_losses[b / ROW_BLOCK] = loss;
        e->block_right[b / ROW_BLOCK] = FN(count_right)(e, outputs, order, first, b, part);
        if (y->activation != LINEAR)
            FN(activation_backward)(y->preactivated + b * o, outputs, gradients, y->activation,
                                    y->slope, gradients, part, o);
    }
}

/* -------------------------------------------------------------------------- backward and update */

/* The gradient of n consecutive parameters from `at` on: to the optimizer, or kept for later. */
INLINE void FN(use)(const FN(engine) *e, const FN(rule) *rule, ptrdiff_t at, const REAL *gradients,
                    ptrdiff_t n) {
    if (e->gradients) {
        memcpy(e->gradients + at, gradients, n * sizeof(REAL));
        return;
    }
    FN(apply)(rule, e->parameters + at, gradients, e->slots[0] ? e->slots[0] + at : NULL,
              e->slots[1] ? e->slots[1] + at : NULL, n);
}

/* The same for `rows` of weights from `row` on, `width` elements each, which are penalised. */
INLINE void FN(use_weights)(const FN(engine) *e, const FN(rule) *rule, const FN(layer) *y, ptrdiff_t at,
                            ptrdiff_t row, ptrdiff_t rows, ptrdiff_t width, REAL *gradients) {
    const REAL l1 = (REAL)e->p.l1, l2 = (REAL)e->p.l2;
    const int penalised = l1 != 0 || l2 != 0;
    if (!penalised || e->gradients) {
        if (penalised) FN(penalise)(e->parameters + at, l1, l2, gradients, rows * width);
        FN(use)(e, rule, at, gradients, rows * width);
    } else {
        REAL *penalties =
            e->row_penalties ? e->row_penalties + e->waiting * e->weight_rows + y->row + row : NULL;
        FN(apply_penalised)(rule, e->parameters + at, gradients, e->slots[0] ? e->slots[0] + at : NULL,
                            e->slots[1] ? e->slots[1] + at : NULL, rows, width, l1, l2, penalties);
    }
}

/* Gradients in layer l's preactivations from those in what the next layer was fed. */
static void FN(deactivate)(const FN(engine) *e, int l, FN(view) view, int thread, FN(range) row,
                           FN(range) column) {
    const FN(layer) *y = &e->layer[l];
    const ptrdiff_t first = FN(place)(view, e->p.batch, row.start, column.start);
    const FN(view) target = FN(view_gradients)(e, l, thread);
    ptrdiff_t at = first, rows, width;
    FN(as_rows)(view, row, column, &rows, &width);
    for (ptrdiff_t b = 0; y->factors && b < rows; b++, at += view.stride) {
        const REAL *factors = y->factors + at;
        REAL *back = y->back + at;
#pragma omp simd
        for (ptrdiff_t i = 0; i < width; i++) back[i] *= factors[i];
    }
    at = first;
    width = column.stop - column.start;
    for (ptrdiff_t b = row.start; b < row.stop; b++, at += view.stride)
        FN(activation_backward)(y->preactivated + at, y->activated + at, y->back + at, y->activation, y->slope,
                                y->gradients + FN(place)(target, e->p.batch, b, column.start), 1, width);
}

/* What dropout multiplies by where it leaves a unit. */
INLINE REAL FN(kept_scale)(const FN(layer) *y) { return y->dropout < 1 ? (REAL)(1 / (1 - y->dropout)) : 0; }

#if SINGLE && HAS_LANES
#define HAS_FUSED 1
/* In registers of LANES units. */
INLINE FN(view) FN(in_registers)(FN(view) view) {
    return (FN(view)){view.first / LANES, (view.stride + LANES - 1) / LANES, view.apart};
}

/* ReLU and dropout, for layers whose outputs the next one lists: a register of units stays one from the
 * sums to the lists. */

/* What dropout leaves of the own units: the bits of `dropout_factors`. */
static void FN(draw_kept)(const FN(engine) *e, int l, FN(view) view, ptrdiff_t rows) {
    const FN(layer) *y = &e->layer[l];
    const FN(view) registers = FN(in_registers)(view);
    const uint32_t threshold = (uint32_t)floor(y->dropout * 65536 + 0.5);
    const words zero = {0};
    for (ptrdiff_t i = 0; i < registers.stride; i++)
        for (ptrdiff_t group = 0; group < rows; group += 8) {
            words word[4] = {ascending_words() + (uint32_t)(view.first + i * LANES),
                             zero + (uint32_t)(group / 8), zero + (uint32_t)e->p.iteration,
                             zero + (uint32_t)l};
            philox_words(word, e->p.seed);
            for (int r = 0; r < 8 && group + r < rows; r++) {
                const words half = r & 1 ? word[r / 2] >> 16 : word[r / 2] & 0xFFFF;
                y->kept[FN(place)(registers, e->p.batch, group + r, registers.first + i)] =
                    (uint16_t)at_least(half, threshold);
            }
        }
}

/* fed_on of the own units from the sums of the product, and the lists of them: a register of units after the
 * other, each for all rows, so that their bits stay in a register. (Masked stores that are soon loaded again
 * wait for the cache, twenty cycles on some processors. With the sums in the same pass, the processor
 * waits for one row of another core's parts after the other.) */
static void FN(fused_forward)(const FN(engine) *e, int l, FN(view) view, int thread, ptrdiff_t rows) {
    const FN(layer) *y = &e->layer[l], *next = y + 1;
    const ptrdiff_t batch = e->p.batch;
    const FN(view) registers = FN(in_registers)(view);
    const FN(range) blocks = FN(own_blocks)(next, thread, e->p.threads);
    const floats scale = all_lanes(FN(kept_scale)(y));
    uint32_t *present = next->present + FN(place)(view, e->words, 0, view.first);
    for (ptrdiff_t block = blocks.start; block < blocks.stop; block++) {
        const FN(range) range = FN(one_block)(next, block);
        FN(span) *spans = FN(spans_of)(e, next, block);
        for (ptrdiff_t b = 0; b < rows; b++) {
            const ptrdiff_t at = FN(place)(view, batch, b, range.start);
            spans[b] = (FN(span)){next->columns + at, next->listed + at, 0};
        }
        for (ptrdiff_t u = range.start; u < range.stop; u += LANES) {
            const lane_mask lanes = first_lanes(range.stop - u), all = first_lanes(LANES);
            const ptrdiff_t own = u - view.first;
            const words units = ascending_words() + (uint32_t)u;
            const uint16_t *kept =
                y->factors ? y->kept + FN(place)(registers, batch, 0, registers.first + own / LANES) : NULL;
            REAL *fed_on = y->fed_on + FN(place)(view, batch, 0, u);
            for (ptrdiff_t w = 0; w < e->words; w++) {
                const ptrdiff_t stop = rows - w * 32 < 32 ? rows - w * 32 : 32;
                words known = {0}, bit = known + 1;
                for (ptrdiff_t b = w * 32; b < w * 32 + stop; b++, fed_on += view.stride) {
                    const floats z = load_lanes(lanes, fed_on);
                    const lane_mask left = kept ? (lane_mask)kept[b * registers.stride] : all;
                    const floats x = multiply_lanes(not_negative(left, z), z, scale);
                    const lane_mask there = not_zero(x);
                    FN(span) *span = &spans[b];
                    int32_t *columns = (int32_t *)span->columns + span->count;
                    REAL *listed = (REAL *)span->values + span->count;
                    known = mark_lanes(there, known, bit);
                    bit += bit;
                    store_lanes(lanes, fed_on, x);
                    if (lanes == all)
                        list_lanes(there, x, units, listed, columns);
                    else /* behind a part of a register begins what is another thread's */
                        list_only_lanes(there, x, units, listed, columns);
                    span->count += count_lanes(there);
                }
                store_lanes_of_words(lanes, present + w * view.stride + own, known);
            }
        }
    }
}

/* The gradients in some of the own units' preactivations from those in fed_on. */
static void FN(fused_backward)(const FN(engine) *e, int l, FN(view) view, int thread, ptrdiff_t rows,
                               FN(range) range) {
    const FN(layer) *y = &e->layer[l];
    const FN(view) target = FN(view_gradients)(e, l, thread);
    const floats scale = all_lanes(FN(kept_scale)(y));
    for (ptrdiff_t b = 0; b < rows; b++) {
        const ptrdiff_t at = FN(place)(view, e->p.batch, b, 0);
        REAL *gradients = y->gradients + FN(place)(target, e->p.batch, b, 0);
        for (ptrdiff_t i = range.start; i < range.stop; i += LANES) {
            const lane_mask lanes = first_lanes(range.stop - i);
            const lane_mask on = positive(load_lanes(lanes, y->fed_on + at + i));
            store_lanes(lanes, gradients + i,
                        multiply_lanes(on, load_lanes(lanes, y->back + at + i), scale));
        }
    }
}

/* Packs the gradients in the own units' preactivations for the other threads: without zeros, a fraction of
 * the cache lines cross from core to core, which took a tenth of a step. */
static void FN(send_gradients)(const FN(engine) *e, int l, FN(view) view, int thread, ptrdiff_t rows) {
    const FN(layer) *y = &e->layer[l];
    const FN(view) registers = FN(in_registers)(view);
    const REAL *gradients = FN(gradients_of)(e, l, thread) + view.first;
    REAL *packed = y->packed + FN(place)(view, e->p.batch, 0, view.first);
    uint16_t *nonzero = y->nonzero + FN(place)(registers, e->p.batch, 0, registers.first);
    for (ptrdiff_t b = 0; b < rows; b++, gradients += y->outputs) {
        const REAL *fed_on = y->fed_on + FN(place)(view, e->p.batch, b, view.first);
        for (ptrdiff_t i = 0; i < view.stride; i += LANES) {
            const lane_mask lanes = first_lanes(view.stride - i), on = not_zero(load_lanes(lanes, fed_on + i));
            pack_lanes(on, load_lanes(lanes, gradients + i), packed);
            packed += count_lanes(on);
            *nonzero++ = (uint16_t)on;
        }
    }
}

/* Brings in the gradients that the other threads packed. */
static void FN(receive_gradients)(const FN(engine) *e, int l, int thread, ptrdiff_t rows) {
    const FN(layer) *y = &e->layer[l];
    for (int other = 0; other < e->p.threads; other++) {
        if (other == thread) continue;
        const FN(view) view = FN(view_outputs)(e, l, other), registers = FN(in_registers)(view);
        const REAL *packed = y->packed + FN(place)(view, e->p.batch, 0, view.first);
        const uint16_t *nonzero = y->nonzero + FN(place)(registers, e->p.batch, 0, registers.first);
        REAL *gradients = FN(gradients_of)(e, l, thread) + view.first;
        for (ptrdiff_t b = 0; b < rows; b++, gradients += y->outputs)
            for (ptrdiff_t i = 0; i < view.stride; i += LANES) {
                const lane_mask on = *nonzero++;
                store_lanes(first_lanes(view.stride - i), gradients + i, spread_lanes(on, packed));
                packed += count_lanes(on);
            }
    }
}
#else
#define HAS_FUSED 0
static void FN(send_gradients)(const FN(engine) *e, int l, FN(view) view, int thread, ptrdiff_t rows) {
    (void)e, (void)l, (void)view, (void)thread, (void)rows;
}
static void FN(receive_gradients)(const FN(engine) *e, int l, int thread, ptrdiff_t rows) {
    (void)e, (void)l, (void)thread, (void)rows;
}
static void FN(draw_kept)(const FN(engine) *e, int l, FN(view) view, ptrdiff_t rows) {
    (void)e, (void)l, (void)view, (void)rows;
}
static void FN(fused_forward)(const FN(engine) *e, int l, FN(view) view, int thread, ptrdiff_t rows) {
    (void)e, (void)l, (void)view, (void)thread, (void)rows;
}
static void FN(fused_backward)(const FN(engine) *e, int l, FN(view) view, int thread, ptrdiff_t rows,
                               FN(range) range) {
    (void)e, (void)l, (void)view, (void)thread, (void)rows, (void)range;
}
#endif

/* Gradients of listed inputs' weights that wait for the optimizer: the sums of so many inputs, then their
 * steps. Between them, the step's memory would push the gradients of the outputs out of the first-level
 * cache. The last of a layer wait until the other threads have been told of the inputs' gradients. */
typedef struct {
    const FN(layer) *y;
    REAL *sums;
    const REAL *shifted; /* what the shifts multiply, or NULL */
    int number;
    FN(range) runs[MOST_RUNS]; /* of inputs */
} FN(waiting);

/* Rows of weight gradients, so many elements wide, that wait for the optimizer: whole tiles that stay
 * in the second-level cache. */
INLINE ptrdiff_t FN(waiting_rows)(ptrdiff_t width) {
    const ptrdiff_t tiles = MOST_SUMS / (TILE_ROWS * width);
    return (tiles < 1 ? 1 : tiles > 4 ? 4 : tiles) * TILE_ROWS;
}

/* The elements that they have at most, of any width up to this one: of narrower rows more wait. */
INLINE ptrdiff_t FN(most_waiting)(ptrdiff_t width) {
    const ptrdiff_t tile = TILE_ROWS * width, most = tile > MOST_SUMS ? tile : MOST_SUMS;
    return 4 * tile < most ? 4 * tile : most;
}

/* The gradients of a block of layer l's inputs with few zeros. */
static void FN(dense_back)(const FN(engine) *e, int l, FN(view) view, int thread, ptrdiff_t rows,
                           FN(range) range) {
    const FN(layer) *y = &e->layer[l];
    FN(blocked_product)(rows, range.stop - range.start, y->outputs, FN(gradients_of)(e, l, thread), y->outputs,
                        1, e->parameters + y->offset + range.start * y->outputs, 1, y->outputs, NULL,
                        y[-1].back + FN(place)(view, e->p.batch, 0, range.start), view.stride, 1);
}

/* Panels of gradients (rows, outputs), each a matrix of its own whose rows are whole units. */
static void FN(gather_panels)(const REAL *gradients, ptrdiff_t rows, ptrdiff_t outputs, ptrdiff_t panel,
                              ptrdiff_t unit, REAL *panels) {
    for (ptrdiff_t b = 0; b < rows; b++, gradients += outputs)
        for (ptrdiff_t j = 0; j < outputs; j += panel) {
            const ptrdiff_t width = outputs - j < panel ? outputs - j : panel;
            memcpy(panels + j * rows + b * ((width + unit - 1) / unit * unit), gradients + j,
                   width * sizeof(REAL));
        }
}

/* The step of its weights. */
static void FN(dense_step)(const FN(engine) *e, const FN(rule) *rule, int l, const REAL *inputs,
                           FN(view) view, int thread, ptrdiff_t rows, FN(range) range) {
    const FN(layer) *y = &e->layer[l];
    const FN(block) own = FN(own_weights)(e, l, thread);
    const REAL *gradients =
        y->gradients + FN(place)(FN(view_gradients)(e, l, thread), e->p.batch, 0, own.first);
    const ptrdiff_t outputs = own.width, panel = TILE_VECTORS * LANES;
    const ptrdiff_t at = FN(place)(view, e->p.batch, 0, range.start);
    if (!outputs) return;
    /* Rows of weights together, so that the optimizer goes through memory in long runs, and panels of the
     * gradients one after the other: in rows far apart they would fight for a few places in the cache. */
    const ptrdiff_t last = (outputs - 1) / panel * panel, waiting = FN(waiting_rows)(last + panel);
    REAL *sums = e->sums + thread * e->most_sums, *panels = e->panels + thread * e->p.batch * e->widest_dense;
    if (outputs > panel) FN(gather_panels)(gradients, rows, outputs, panel, panel, panels);
    for (ptrdiff_t i = range.start; i < range.stop; i += waiting) {
        const ptrdiff_t count = range.stop - i < waiting ? range.stop - i : waiting;
        /* Whole vectors: what goes beyond a row's last column is written over by the next row, or by the
         * panels before the last one. The scratch has room behind it. */
        for (ptrdiff_t j = last; j >= 0; j -= panel) {
            const REAL *right = outputs > panel ? panels + j * rows : gradients;
            const ptrdiff_t right_row = outputs > panel ? panel : outputs;
            (outputs - j <= LANES ? FN(panel_narrow) : FN(panel_wide))(
                count, rows, inputs + at + i - range.start, 1, view.stride, right, right_row, sums + j,
                outputs, 1, NULL);
        }
        const ptrdiff_t together = own.stride == outputs ? count : 1; /* rows */
        for (ptrdiff_t r = 0; r < count; r += together)
            FN(use_weights)(e, rule, y, own.at + (i + r) * own.stride, i + r, together, outputs,
                            sums + r * outputs);
    }
}

INLINE void FN(store_sums)(int vectors, int last, const FN(vector) *sum, REAL *sums) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors - 1; v++) *(FN(vector) *)(sums + v * LANES) = sum[v];
    if (last == LANES)
        *(FN(vector) *)(sums + (vectors - 1) * LANES) = sum[vectors - 1];
    else
        FN(store_part)(sums + (vectors - 1) * LANES, sum[vectors - 1], last);
}

/* For each of `count` inputs: sums (vectors) = its values times the gradients of the outputs, over the
 * rows that have it, or if these words are not the `first` ones, that added to them; and in `back` its own
 * gradient in these rows, the gradients of the outputs times its weights, times `scale`. `stride`: between
 * rows of values, as between words of present. */
INLINE void FN(listed_inputs)(int vectors, int last, ptrdiff_t count, ptrdiff_t words,
                              const uint32_t *present, const REAL *values, ptrdiff_t stride,
                              const REAL *gradients, ptrdiff_t gradient_stride, int first, REAL *sums,
                              const REAL *weights, ptrdiff_t outputs, REAL *back, ptrdiff_t back_stride,
                              REAL scale, int add) {
    for (ptrdiff_t i = 0; i < count; i++, weights += outputs, sums += outputs) {
        FN(vector) sum[SPARSE_VECTORS], weight[SPARSE_VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            sum[v] = first ? (FN(vector)){0} : FN(load)(sums, v, vectors, last);
            weight[v] = FN(load)(weights, v, vectors, last);
        }
        for (ptrdiff_t w = 0; w < words; w++)
            for (uint32_t bits = present[w * stride + i]; bits;) {
                FN(vector) dots[TOTALS] = {{0}};
                REAL totals[TOTALS], nowhere = 0;
                /* volatile: of stores to several places GCC 12 makes one that scatters, which is slower */
                volatile REAL *places[TOTALS];
                for (int k = 0; k < TOTALS; k++) places[k] = &nowhere;
#pragma GCC unroll 4
                for (int k = 0; k < TOTALS && bits; k++, bits &= bits - 1) {
                    const ptrdiff_t b = w * 32 + __builtin_ctz(bits);
                    const REAL value = values[b * stride + i], *row = gradients + b * gradient_stride;
                    FN(vector) dot[2] = {{0}, {0}};
#pragma GCC unroll 8
                    for (int v = 0; v < vectors; v++) {
                        const FN(vector) gradient = FN(load)(row, v, vectors, last);
                        sum[v] += value * gradient;
                        dot[v % 2] += weight[v] * gradient;
                    }
                    dots[k] = dot[0] + dot[1];
                    places[k] = back + b * back_stride + i;
                }
                FN(totals)(dots, totals);
                for (int k = 0; k < TOTALS; k++) *places[k] = (add ? *places[k] : 0) + totals[k] * scale;
            }
        FN(store_sums)(vectors, last, sum, sums);
    }
}

/* The sums of inputs of the data, whose values stand in planes of NOTE_ROWS rows, or their codes in planes
 * of 32. `stride`: inputs in a plane, and words from one to the next of present. */
INLINE void FN(data_inputs)(int vectors, int last, ptrdiff_t count, ptrdiff_t words,
                            const uint32_t *present, const REAL *values, const uint8_t *codes,
                            const REAL *table, ptrdiff_t stride, const REAL *gradients,
                            ptrdiff_t gradient_stride, REAL *sums, ptrdiff_t outputs) {
    for (ptrdiff_t i = 0; i < count; i++, sums += outputs) {
        FN(vector) sum[SPARSE_VECTORS] = {{0}};
        for (ptrdiff_t w = 0; w < words; w++)
            for (uint32_t bits = present[w * stride + i]; bits; bits &= bits - 1) {
                const ptrdiff_t b = w * 32 + __builtin_ctz(bits);
                const REAL value = codes ? table[codes[(w * stride + i) * 32 + b % 32]]
                                         : values[(b / NOTE_ROWS * stride + i) * NOTE_ROWS + b % NOTE_ROWS];
                const REAL *row = gradients + b * gradient_stride;
#pragma GCC unroll 8
                for (int v = 0; v < vectors; v++) sum[v] += value * FN(load)(row, v, vectors, last);
            }
        FN(store_sums)(vectors, last, sum, sums);
    }
}

/* Whether some row of the batch has an input of the data, which is so far from the thread's first one;
 * one with a shift all of them have. */
INLINE int FN(occurs)(const FN(engine) *e, FN(view) view, ptrdiff_t at, ptrdiff_t words) {
    const FN(layer) *y = e->layer;
    uint32_t bits = 0;
    const uint32_t *present = y->present + FN(place)(view, e->words, 0, view.first + at);
    if (e->shifts && e->shifts[view.first + at] != 0) return 1;
    for (ptrdiff_t w = 0; w < words; w++) bits |= present[w * view.stride];
    return bits != 0;
}

/* Own rows of the first layer's weights are level: the steps that they take count from here. */
static void FN(count_anew)(const FN(engine) *e, int thread) {
    const FN(view) own = FN(view_inputs)(e->layer, thread, e->p.threads);
    memset(e->taken + own.apart + own.first, 0, own.stride * sizeof *e->taken);
}

/* Brings own rows of the first layer's weights level with the step: those whose input occurs in the
 * batch, or all. Where an input is zero in a whole batch, so is the gradient, but momentum moves its
 * weights on. That can wait until they are needed, and then several steps go through memory at once; of
 * MNIST's live rows a third wait at any time. */
static void FN(catch_up)(const FN(engine) *e, const FN(rule) *rule, int thread, int all) {
    const FN(layer) *y = e->layer;
    const FN(view) view = FN(view_inputs)(y, thread, e->p.threads);
    const int32_t *live = e->p.live;
    int32_t *late = e->late + view.first;
    ptrdiff_t next = 0, count = 0;
    for (ptrdiff_t i = 0; i < view.stride; i++) {
        const ptrdiff_t input = view.first + i;
        if (live) {
            while (next < e->p.live_count && live[next] < input) next++;
            if (next == e->p.live_count) break;
            if (live[next] != input) continue;
        }
        late[count] = (int32_t)input;
        count += e->taken[view.apart + input] != e->waiting &&
                 (all || FN(occurs)(e, view, i, e->words));
    }
    REAL *const arrays[3] = {e->parameters, e->slots[0], e->slots[1]};
    for (ptrdiff_t k = 0; k < count; k++) {
        const ptrdiff_t at = y->offset + late[k] * y->outputs;
        /* They were last used some steps ago, and lie in the third-level cache. */
        for (int a = 0; a < 3 && arrays[a] && k + 1 < count; a++) {
            const REAL *following = arrays[a] + y->offset + late[k + 1] * y->outputs;
            for (ptrdiff_t o = 0; o < y->outputs; o += 64 / sizeof(REAL))
                __builtin_prefetch(following + o, 1);
        }
        const REAL *rates = e->rates + thread * MOST_IDLE;
        int32_t *taken = &e->taken[view.apart + late[k]];
        const int start = *taken, stop = e->waiting;
        REAL *first = arrays[1] ? arrays[1] + at : NULL, *second = arrays[2] ? arrays[2] + at : NULL;
        if (e->row_penalties)
            FN(idle_penalised)(rule, rates, start, stop, arrays[0] + at, first, second, y->outputs,
                               (REAL)e->p.l1, (REAL)e->p.l2,
                               e->row_penalties + late[k], e->weight_rows);
        else
            FN(idle)(rule, rates, start, stop, arrays[0] + at, first, second, y->outputs);
        *taken = stop;
    }
}

/* The first of the inputs `left` of a listed layer whose weights take a step, with at most `most` - 1 that
 * follow it. In sparse data, inputs that never occur need no step, and those that don't in this batch
 * may wait. `live` counts on from call to call. */
static FN(range) FN(next_run)(const FN(engine) *e, int l, FN(view) view, ptrdiff_t words,
                              FN(range) left, ptrdiff_t most, ptrdiff_t *live) {
    ptrdiff_t i = left.start, count = 0;
    if (most > left.stop - i) most = left.stop - i;
    if (l == 0 && e->taken) {
        while (i < left.stop && !FN(occurs)(e, view, i - view.first, words)) i++;
        if (most > left.stop - i) most = left.stop - i;
        for (; count < most && FN(occurs)(e, view, i + count - view.first, words); count++)
            e->taken[view.apart + i + count] = e->waiting + 1;
    } else if (l == 0 && e->p.live) {
        const int32_t *next = e->p.live + *live, *end = e->p.live + e->p.live_count;
        while (next < end && *next < i) next++;
        i = next < end && *next < left.stop ? *next : left.stop;
        for (; count < most && next < end && *next == i + count && *next < left.stop; count++) next++;
        *live = next - e->p.live;
    } else {
        count = most;
    }
    return (FN(range)){i, i + count};
}

/* The first layer's gradients of its outputs, added up over the rows. */
static const REAL *FN(sum_gradients)(const FN(engine) *e, int thread, ptrdiff_t rows) {
    const ptrdiff_t outputs = e->layer[0].outputs;
    const REAL *gradients = FN(gradients_of)(e, 0, thread);
    REAL *sums = e->shift_sums + thread * e->shift_width;
    memset(sums, 0, outputs * sizeof(REAL));
    for (ptrdiff_t b = 0; b < rows; b++, gradients += outputs)
#pragma omp simd
        for (ptrdiff_t o = 0; o < outputs; o++) sums[o] += gradients[o];
    return sums;
}

/* weights, gradients of the first layer's weights, += what the shifts of these inputs add: all rows have
 * them, so `total` is the gradients of the outputs added up. */
INLINE void FN(add_shifts)(const FN(engine) *e, FN(range) run, const REAL *total, REAL *weights) {
    const ptrdiff_t outputs = e->layer[0].outputs;
    for (ptrdiff_t i = run.start; i < run.stop; i++, weights += outputs) {
        const REAL shift = e->shifts[i];
        if (shift == 0) continue;
#pragma omp simd
        for (ptrdiff_t o = 0; o < outputs; o++) weights[o] += shift * total[o];
    }
}

INLINE REAL *FN(room)(const FN(engine) *e, int thread) {
    return e->rooms + thread * (ptrdiff_t)(WAITING_GRADIENTS + APART);
}

/* The steps of the weights whose gradients wait. */
static void FN(use_waiting)(const FN(engine) *e, const FN(rule) *rule, FN(waiting) *w) {
    REAL *sums = w->sums;
    for (int r = 0; r < w->number; r++) {
        const ptrdiff_t count = w->runs[r].stop - w->runs[r].start;
        if (w->shifted) FN(add_shifts)(e, w->runs[r], w->shifted, sums);
        FN(use_weights)(e, rule, w->y, w->y->offset + w->runs[r].start * w->y->outputs, w->runs[r].start, count,
                        w->y->outputs, sums);
        sums += count * w->y->outputs;
    }
    w->number = 0;
}

/* A block of layer l's inputs that is listed: their gradients, unless they are the data, and the step of
 * their weights, of which the last part is left waiting. */
static void FN(listed_step)(const FN(engine) *e, const FN(rule) *rule, int l, const REAL *inputs,
                            FN(view) view, int thread, ptrdiff_t rows, FN(range) range, FN(waiting) *w) {
    const FN(layer) *y = &e->layer[l];
    const ptrdiff_t outputs = y->outputs, panel = SPARSE_VECTORS * LANES;
    const ptrdiff_t batch = e->p.batch, words = (rows + 31) / 32, width = range.stop - range.start;
    const uint32_t *present = y->present + FN(place)(view, e->words, 0, range.start);
    /* the data's first plane */
    const ptrdiff_t plane = FN(place)(view, e->words * 32, 0, view.first), before = range.start - view.first;
    const uint8_t *codes = !l && e->p.table ? y->codes + plane + before * 32 : NULL;
    const REAL *values = l       ? inputs + FN(place)(view, batch, 0, range.start)
                         : codes ? NULL
                                 : y->values + plane + before * NOTE_ROWS;
    const REAL *gradients = FN(gradients_of)(e, l, thread);
    FN(use_waiting)(e, rule, w);
    /* Wide rows are added up panel by panel of the outputs and, in each, by words of the batch, whose
     * gradients, brought together, stay in the first-level cache for some inputs: rows far apart would fight
     * for a few places in it. The inputs' own gradients add up beside each other for the same reason. (Of the
     * data a word may have next to nothing: those are added up at once.) */
    const int wide = outputs > panel;
    const ptrdiff_t held_most = e->most_sums / outputs < HELD_INPUTS ? e->most_sums / outputs : HELD_INPUTS;
    const ptrdiff_t most = wide ? held_most : WAITING_GRADIENTS / outputs, together = l && wide ? 1 : words;
    REAL *panels = e->panels + thread * batch * e->widest_dense;
    REAL *dots = e->dots + thread * (batch * HELD_INPUTS + APART);
    if (wide) FN(gather_panels)(gradients, rows, outputs, panel, LANES, panels);
    w->y = y;
    w->sums = wide ? e->sums + thread * e->most_sums : FN(room)(e, thread);
    w->shifted = !l && e->shifts ? FN(sum_gradients)(e, thread, rows) : NULL;
    /* What ReLU and dropout let pass is what is listed. */
    const int direct = l && y[-1].fused;
    const FN(view) target = direct ? FN(view_gradients)(e, l - 1, thread) : view;
    REAL *back = l ? (direct ? y[-1].gradients : y[-1].back) + FN(place)(target, batch, 0, range.start) : NULL;
    const REAL scale = direct ? FN(kept_scale)(&y[-1]) : 1;
    for (ptrdiff_t b = 0; back && !wide && b < rows; b++)
        memset(back + b * target.stride, 0, width * sizeof(REAL));
    ptrdiff_t live = 0;
    for (ptrdiff_t reached = range.start; reached < range.stop;) {
        FN(use_waiting)(e, rule, w);
        for (ptrdiff_t held = 0; w->number < MOST_RUNS && held < most;) {
            const FN(range) run =
                FN(next_run)(e, l, view, words, (FN(range)){reached, range.stop}, most - held, &live);
            reached = run.stop;
            if (run.start == range.stop) break;
            w->runs[w->number++] = run;
            held += run.stop - run.start;
        }
        if (l && wide) memset(dots, 0, rows * HELD_INPUTS * sizeof(REAL));
        for (ptrdiff_t j = (outputs - 1) / panel * panel; j >= 0; j -= panel) {
            const ptrdiff_t left = outputs - j;
            const int vectors = left > panel ? SPARSE_VECTORS : (int)((left + LANES - 1) / LANES);
            const int last = left > vectors * LANES ? LANES : (int)(left - (vectors - 1) * LANES);
            const REAL *right = wide ? panels + j * rows : gradients;
            const ptrdiff_t right_row = wide ? vectors * LANES : outputs;
            for (ptrdiff_t word = 0; word < words; word += together, right += 32 * right_row) {
                const uint32_t *there = present + word * view.stride;
                REAL *sums = w->sums + j;
                for (int r = 0; r < w->number; r++) {
                    const ptrdiff_t at = w->runs[r].start - range.start;
                    const ptrdiff_t count = w->runs[r].stop - w->runs[r].start;
#define LISTED_INPUTS_(number, last)                                                                    \
    FN(listed_inputs)(number, last, count, together, there + at, values + word * 32 * view.stride + at, \
                      view.stride, right, right_row, word == 0, sums,                                   \
                      e->parameters + y->offset + w->runs[r].start * outputs + j, outputs,              \
                      wide ? dots + word * 32 * HELD_INPUTS : back + at,                                \
                      wide ? HELD_INPUTS : target.stride, scale, left > panel)
#define DATA_INPUTS(number, values, codes)                                                             \
    FN(data_inputs)(number, last, count, together, there + at, values, codes, e->p.table, view.stride, \
                    right, right_row, sums, outputs)
#define LISTED_INPUTS(number)                               \
    if (codes)                                             \
        DATA_INPUTS(number, NULL, codes + at * 32);         \
    else if (!l)                                           \
        DATA_INPUTS(number, values + at * NOTE_ROWS, NULL); \
    else if (last == LANES)                               \
        LISTED_INPUTS_(number, LANES);                      \
    else                                                  \
        LISTED_INPUTS_(number, last)
                    WITH_VECTORS(vectors, LISTED_INPUTS)
                    sums += count * outputs;
                }
            }
        }
        if (!l || !wide) continue;
        const ptrdiff_t at = w->runs[0].start - range.start, count = w->runs[0].stop - w->runs[0].start;
        for (ptrdiff_t b = 0; b < rows; b++)
            memcpy(back + b * target.stride + at, dots + b * HELD_INPUTS, count * sizeof(REAL));
    }
}

/* For a vector of inputs of a narrow layer: sums[o] += the inputs of each row times the gradient of output o;
 * and each row's sum of the gradients of the outputs times `weights`, which is `back` if last, or goes on. */
INLINE void FN(narrow_inputs)(int outputs, ptrdiff_t rows, const REAL *gradients, ptrdiff_t gradient_stride,
                              const FN(vector) *weights, const REAL *inputs, ptrdiff_t stride, int count,
                              REAL *back, int first, FN(vector) *sums) {
    FN(vector) sum[SPARSE_VECTORS], weight[SPARSE_VECTORS];
#pragma GCC unroll 8
    for (int o = 0; o < outputs; o++) sum[o] = (FN(vector)){0}, weight[o] = weights[o];
    for (ptrdiff_t b = 0; b < rows; b++, gradients += gradient_stride, inputs += stride, back += stride) {
        const FN(vector) x = FN(load_part)(inputs, count);
        FN(vector) dot = first ? (FN(vector)){0} : FN(load_part)(back, count);
#pragma GCC unroll 8
        for (int o = 0; o < outputs; o++) {
            dot += gradients[o] * weight[o];
            sum[o] += gradients[o] * x;
        }
        FN(store_part)(back, dot, count);
    }
#pragma GCC unroll 8
    for (int o = 0; o < outputs; o++) sums[o] = sum[o];
}

/* A block of the inputs of a layer with few outputs, zeros or not: their gradients, and those of their
 * weights, of which the last part is left waiting. */
static void FN(narrow_step)(const FN(engine) *e, const FN(rule) *rule, int l, const REAL *inputs,
                            FN(view) view, int thread, ptrdiff_t rows, FN(range) range, FN(waiting) *w) {
    const FN(layer) *y = &e->layer[l];
    const ptrdiff_t batch = e->p.batch, outputs = y->outputs;
    const ptrdiff_t most = WAITING_GRADIENTS / outputs / LANES * LANES;
    const int parts = ((int)outputs + SPARSE_VECTORS - 1) / SPARSE_VECTORS;
    const int part = ((int)outputs + parts - 1) / parts;
    const REAL *gradients = FN(gradients_of)(e, l, thread);
    REAL *back = y[-1].back + FN(place)(view, batch, 0, 0);
    inputs += FN(place)(view, batch, 0, 0);
    for (ptrdiff_t start = range.start; start < range.stop; start += most) {
        const ptrdiff_t stop = range.stop - start < most ? range.stop : start + most;
        FN(use_waiting)(e, rule, w);
        w->y = y;
        w->sums = FN(room)(e, thread);
        w->shifted = NULL;
        w->number = 1;
        w->runs[0] = (FN(range)){start, stop};
        for (ptrdiff_t i = start; i < stop; i += LANES) {
            const int count = stop - i < LANES ? (int)(stop - i) : LANES;
            FN(vector) weights[NARROW_OUTPUTS] __attribute__((aligned(64)));
            FN(vector) sums[NARROW_OUTPUTS] __attribute__((aligned(64))) = {{0}};
            for (int o = 0; o < outputs; o += LANES) {
                const REAL *source = e->parameters + y->offset + i * outputs + o;
                const int width = outputs - o < LANES ? (int)outputs - o : LANES;
                for (int k = 0; k < LANES; k++)
                    weights[o + k] = k < count ? FN(load_part)(source + k * outputs, width) : (FN(vector)){0};
                FN(transpose_vectors)(weights + o);
            }
            for (int o = 0; o < outputs; o += part) {
                const int left = (int)outputs - o < part ? (int)outputs - o : part;
#define NARROW_INPUTS_(number, count)                                                             \
    FN(narrow_inputs)(number, rows, gradients + o, outputs, weights + o, inputs + i, view.stride, count, \
                      back + i, o == 0, sums + o)
#define NARROW_INPUTS(number)                  \
    if (count == LANES)                        \
        NARROW_INPUTS_(number, LANES);         \
    else                                       \
        NARROW_INPUTS_(number, count)
                WITH_VECTORS(left, NARROW_INPUTS)
#undef NARROW_INPUTS
#undef NARROW_INPUTS_
            }
            /* What goes beyond a row's last output is written over by the next row. */
            REAL *target = w->sums + (i - start) * outputs;
            for (int o = 0; o < outputs; o += LANES) FN(transpose_vectors)(sums + o);
            for (int k = 0; k < count; k++, target += outputs)
                for (int o = 0; o < outputs; o += LANES) *(FN(vector) *)(target + o) = sums[o + k];
        }
    }
    if (y[-1].fused) FN(fused_backward)(e, l - 1, view, thread, rows, range);
}

/* Bias of the given columns, from the gradients summed over the rows in order. */
static void FN(update_bias)(const FN(engine) *e, const FN(rule) *rule, int l, int thread, ptrdiff_t rows,
                            FN(range) column) {
    const FN(layer) *y = &e->layer[l];
    const FN(view) view = FN(view_gradients)(e, l, thread);
    REAL sums[SPARSE_VECTORS * LANES];
    for (ptrdiff_t j = column.start; j < column.stop; j += SPARSE_VECTORS * LANES) {
        ptrdiff_t width = column.stop - j;
        if (width > SPARSE_VECTORS * LANES) width = SPARSE_VECTORS * LANES;
        for (ptrdiff_t o = 0; o < width; o++) sums[o] = 0;
        for (ptrdiff_t b = 0; b < rows; b++) {
            const REAL *gradients = y->gradients + FN(place)(view, e->p.batch, b, j);
#pragma omp simd
            for (ptrdiff_t o = 0; o < width; o++) sums[o] += gradients[o];
        }
        FN(use)(e, rule, y->offset + y->inputs * y->outputs + j, sums, width);
    }
}

/* -------------------------------------------------------------- sums over all the parameters
 *
 * In blocks of a fixed size, added up in their order, whoever computed them. */

/* Penalties of n weights. Few at a time are added up in single precision, which does no harm: all of them
 * in double precision took a third of a step. */
static double FN(penalties_of)(const FN(engine) *e, const REAL *weights, ptrdiff_t n) {
    double total = 0;
    for (ptrdiff_t start = 0; start < n; start += SUM_PART, weights += SUM_PART) {
        const ptrdiff_t part = n - start < SUM_PART ? n - start : SUM_PART;
        REAL absolutes = 0, squares = 0;
        if (e->p.l1 != 0)
#pragma omp simd reduction(+ : absolutes)
            for (ptrdiff_t i = 0; i < part; i++) absolutes += FN(absolute)(weights[i]);
        if (e->p.l2 != 0)
#pragma omp simd reduction(+ : squares)
            for (ptrdiff_t i = 0; i < part; i++) squares += weights[i] * weights[i];
        total += e->p.l1 * (double)absolutes + e->p.l2 * (double)squares;
    }
    return total;
}

/* The same of a matrix of weights, row after row. */
static double FN(penalties_of_rows)(const FN(engine) *e, const REAL *weights, ptrdiff_t stride,
                                    ptrdiff_t rows, ptrdiff_t width) {
    const ptrdiff_t together = width && width < SUM_PART ? SUM_PART / width : 1;
    double total = 0;
    for (ptrdiff_t start = 0; start < rows; start += together) {
        FN(vector) absolutes = {0}, squares = {0};
        for (ptrdiff_t i = start; i < rows && i < start + together; i++)
            for (ptrdiff_t j = 0; j < width; j += LANES) {
                const FN(vector) w =
                    FN(load_part)(weights + i * stride + j, width - j < LANES ? (int)(width - j) : LANES);
                if (e->p.l1 != 0)
#pragma omp simd
                    for (int k = 0; k < LANES; k++) absolutes[k] += FN(absolute)(w[k]);
                if (e->p.l2 != 0) squares += w * w;
            }
        total += e->p.l1 * (double)FN(total)(absolutes) + e->p.l2 * (double)FN(total)(squares);
    }
    return total;
}

static double FN(squares_of)(const REAL *values, ptrdiff_t n) {
    double squares = 0;
#pragma omp simd reduction(+ : squares)
    for (ptrdiff_t i = 0; i < n; i++) squares += (double)values[i] * (double)values[i];
    return squares;
}

/* Into how many blocks a sum over an array is cut: the penalties of columns by who may own them, for they
 * lie in memory as the number of threads would have it. */
INLINE ptrdiff_t FN(sums_of)(const FN(engine) *e, int array, int penalties) {
    const FN(layer) *y = &e->layer[array / 2];
    const ptrdiff_t size = array % 2 ? y->outputs : y->inputs * y->outputs;
    return penalties && y->by_columns && array % 2 == 0 ? PARTS : (size + SUM_BLOCK - 1) / SUM_BLOCK;
}

/* Penalty of each block of weights, or sum of squares of each block of gradients. */
static void FN(sum_blocks)(const FN(engine) *e, int thread, int penalties) {
    ptrdiff_t block = 0;
    for (int a = 0; a < 2 * e->p.layers; a++) { /* weights, bias, weights, bias, ... */
        const FN(layer) *y = &e->layer[a / 2];
        const ptrdiff_t weights = y->inputs * y->outputs, size = a % 2 ? y->outputs : weights;
        const ptrdiff_t offset = y->offset + (a % 2 ? weights : 0);
        const ptrdiff_t blocks = FN(sums_of)(e, a, penalties);
        if (penalties && y->by_columns && a % 2 == 0) {
            const FN(range) own = FN(own_blocks)(y + 1, thread, e->p.threads);
            const FN(block) columns = FN(own_weights)(e, a / 2, thread);
            for (ptrdiff_t b = own.start; b < own.stop; b++) {
                const FN(range) range = FN(one_block)(y + 1, b);
                e->block_sums[block + b] = FN(penalties_of_rows)(
                    e, e->parameters + columns.at + range.start - columns.first, columns.stride, y->inputs,
                    range.stop - range.start);
            }
            block += blocks;
            continue;
        }
        /* A thread's blocks stand together, as do its weights. */
        const FN(range) own = FN(share)(blocks, 1, thread, e->p.threads);
        for (ptrdiff_t b = own.start; b < own.stop; b++) {
            const ptrdiff_t start = b * SUM_BLOCK, at = offset + start;
            const ptrdiff_t n = size - start < SUM_BLOCK ? size - start : SUM_BLOCK;
            e->block_sums[block + b] = !penalties ? FN(squares_of)(e->gradients + at, n)
                                       : a % 2    ? 0
                                                  : FN(penalties_of)(e, e->parameters + at, n);
        }
        block += blocks;
    }
}

/* What clipping multiplies the gradients of array a by. */
static REAL FN(clip_scale)(const FN(engine) *e, int array) {
    double squares = 0;
    ptrdiff_t block = 0;
    for (int a = 0; a < 2 * e->p.layers; a++) {
        const FN(layer) *y = &e->layer[a / 2];
        const ptrdiff_t size = a % 2 ? y->outputs : y->inputs * y->outputs;
        for (ptrdiff_t start = 0; start < size; start += SUM_BLOCK, block++)
            if (a == array || e->p.global_clipnorm < INFINITY) squares += e->block_sums[block];
    }
    const double limit = e->p.global_clipnorm < INFINITY ? e->p.global_clipnorm : e->p.clipnorm;
    const double norm = sqrt(squares);
    return (REAL)(norm > limit ? limit / norm : 1);
}

/* The optimizer's step from whole gradients, clipped first: each thread updates a part of each
 * array. */
static void FN(clipped_update)(const FN(engine) *e, barrier *meeting, const FN(rule) *rule,
                               int thread) {
    const REAL limit = (REAL)e->p.clipvalue;
    meet(meeting, thread);
    if (!(e->p.clipvalue < INFINITY)) {
        FN(sum_blocks)(e, thread, 0);
        meet(meeting, thread);
    }
    for (int a = 0; a < 2 * e->p.layers; a++) {
        const FN(layer) *y = &e->layer[a / 2];
        const ptrdiff_t weights = y->inputs * y->outputs;
        const ptrdiff_t offset = y->offset + (a % 2 ? weights : 0);
        const FN(range) part = FN(share)(a % 2 ? y->outputs : weights, LANES, thread, e->p.threads);
        const ptrdiff_t at = offset + part.start, n = part.stop - part.start;
        REAL *gradients = e->gradients + at;
        if (e->p.clipvalue < INFINITY) {
#pragma omp simd
            for (ptrdiff_t i = 0; i < n; i++) {
                REAL g = gradients[i];
                g = g > limit ? limit : g;
                gradients[i] = g < -limit ? -limit : g;
            }
        } else {
            const REAL scale = FN(clip_scale)(e, a);
#pragma omp simd
            for (ptrdiff_t i = 0; i < n; i++) gradients[i] *= scale;
        }
        FN(apply)(rule, e->parameters + at, gradients, e->slots[0] ? e->slots[0] + at : NULL,
                  e->slots[1] ? e->slots[1] + at : NULL, n);
    }
}

/* The step's loss and right rows to the totals; the loss of a step that rows wait for is not known yet. */
static void FN(add_up)(const FN(engine) *e, ptrdiff_t rows, int waiting) {
    double loss = 0, right = 0;
    for (ptrdiff_t b = 0; b < rows; b += ROW_BLOCK) {
        loss += e->block_losses[b / ROW_BLOCK];
        right += e->block_right[b / ROW_BLOCK];
    }
    if ((e->p.l1 != 0 || e->p.l2 != 0) && !e->row_penalties)
        for (ptrdiff_t block = 0; block < e->blocks; block++) loss += e->block_sums[block];
    e->p.totals[1] += right;
    e->p.totals[2] += rows;
    if (e->row_penalties) {
        e->step_losses[waiting] = loss;
        e->step_rows[waiting] = rows;
    } else {
        e->p.totals[0] += loss * rows;
    }
}

/* The losses of the steps that rows waited for to the total, once all have caught up. */
static void FN(add_up_waiting)(const FN(engine) *e, int steps) {
    for (int s = 0; s < steps; s++) {
        REAL *of_row = e->row_penalties + s * e->weight_rows;
        double penalties = 0;
#pragma omp simd reduction(+ : penalties)
        for (ptrdiff_t row = 0; row < e->weight_rows; row++) penalties += (double)of_row[row];
        memset(of_row, 0, e->weight_rows * sizeof *of_row);
        e->p.totals[0] += (e->step_losses[s] + penalties) * e->step_rows[s];
    }
}

/* ------------------------------------------------------------------------- one thread's steps */

/* Targets of a thread's rows of the batch, into scratch. */
static void FN(gather_targets)(const FN(engine) *e, const int64_t *order, ptrdiff_t start,
                               FN(range) row) {
    const ptrdiff_t outputs = e->layer[e->p.layers - 1].outputs;
    for (ptrdiff_t b = row.start; b < row.stop; b++) {
        const ptrdiff_t sample = order ? order[b] : start + b;
        if (e->p.loss == SPARSE_CATEGORICAL_CROSSENTROPY)
            e->batch_labels[b] = ((const int64_t *)e->p.targets)[sample];
        else
            memcpy(e->batch_targets + b * outputs, (const REAL *)e->p.targets + sample * outputs,
                   outputs * sizeof(REAL));
        if (e->sample_weight) e->batch_weight[b] = e->sample_weight[sample];
    }
}

/* The same for some columns of dense inputs. */
static void FN(gather_inputs)(const FN(engine) *e, const int64_t *order, ptrdiff_t start,
                              FN(view) view, FN(range) row, FN(range) column) {
    const ptrdiff_t features = e->layer[0].inputs;
    for (ptrdiff_t b = row.start; b < row.stop; b++) {
        const ptrdiff_t sample = order ? order[b] : start + b;
        memcpy(e->batch_inputs + FN(place)(view, e->p.batch, b, column.start),
               e->inputs + sample * features + column.start,
               (column.stop - column.start) * sizeof(REAL));
    }
}

/* What the first layer takes of the batch's rows. */
static void FN(take_inputs)(const FN(engine) *e, const int64_t *order, ptrdiff_t start, ptrdiff_t rows,
                            int thread) {
    const FN(layer) *y = e->layer;
    const int threads = e->p.threads;
    const FN(range) all_rows = {0, rows}, all_columns = {0, y->inputs};
    if (y->lists) {
        const FN(range) blocks = FN(own_blocks)(y, thread, threads);
        FN(find_spans)(e, order, start, rows, blocks,
                       y->in_parts ? NULL : y->whole + thread * e->p.batch);
        FN(note_inputs)(e, rows, thread);
    } else if (y->in_parts || y->by_columns) {
        FN(gather_inputs)(e, order, start, FN(view_layer)(e, 0, thread), all_rows,
                          y->by_columns ? all_columns : FN(own_inputs)(y, thread, threads));
    } else {
        meet(e->meeting, thread); /* when nobody needs the last batch any more */
        FN(gather_inputs)(e, order, start, (FN(view)){0, y->inputs, 0},
                          FN(share)(rows, ROW_BLOCK, thread, threads), all_columns);
    }
}

static void FN(forward)(const FN(engine) *e, ptrdiff_t rows, int thread) {
    const int threads = e->p.threads, last = e->p.layers - 1;
    const REAL *inputs = e->batch_inputs;
    for (int l = 0; l <= last; inputs = e->layer[l++].fed_on) {
        const FN(layer) *y = &e->layer[l];
        const FN(view) view = FN(view_outputs)(e, l, thread);
        FN(range) row, column;
        FN(own_outputs)(e, l, rows, thread, &row, &column);
        if (!l && e->shifts) FN(shift_blocks)(e, thread);
        const FN(range) blocks = FN(own_blocks)(y, thread, threads);
        for (ptrdiff_t block = blocks.start; y->in_parts && block < blocks.stop; block += threads <= 2 ? 2 : 1)
            FN(forward_parts)(e, l, inputs, FN(view_layer)(e, l, thread), rows, block, threads <= 2);
        if (!y->by_columns) arrive(e->meeting, thread);
        if (!l) FN(fetch_ahead)(e, thread);
        if (!y->fused)
            FN(draw_factors)(e, l, view, row, column);
        else if (y->factors)
            FN(draw_kept)(e, l, view, rows);
        if (!y->by_columns) await(e->meeting, thread);
        if (y->in_parts)
            FN(add_parts)(e, l, FN(bias_of)(e, l, thread, column), view, row, column);
        else
            FN(forward_whole)(e, l, inputs, e->layer->whole + thread * e->p.batch,
                              FN(bias_of)(e, l, thread, column), view, thread, row, column);
        if (y->fused) {
            FN(fused_forward)(e, l, view, thread, rows);
            continue;
        }
        FN(activate)(e, l, view, row, column);
        if (l == last) break;
        if (y->whole_rows) meet(e->meeting, thread);
        if (y[1].lists) FN(list_inputs)(e, l + 1, rows, thread);
    }
}

/* The blocks from `start` on, before `stop`, that are alike, and together take one pass: whether it is that
 * of lists. */
static int FN(alike_blocks)(const FN(engine) *e, int l, ptrdiff_t rows, ptrdiff_t start, ptrdiff_t stop,
                            FN(range) *alike) {
    const int listed = FN(is_listed)(e, l, start, rows);
    *alike = (FN(range)){start, start + 1};
    while (alike->stop < stop && FN(is_listed)(e, l, alike->stop, rows) == listed) alike->stop++;
    return listed;
}

static void FN(backward)(const FN(engine) *e, const FN(rule) *rule, ptrdiff_t rows, int thread) {
    const int threads = e->p.threads, last = e->p.layers - 1;
    FN(waiting) waiting;
    waiting.number = 0;
    for (int l = last; l >= 0; l--) {
        const FN(layer) *y = &e->layer[l];
        const FN(range) blocks = FN(own_blocks)(y, thread, threads);
        const FN(range) all_rows = {0, rows}, own = FN(block_inputs)(y, blocks);
        const FN(view) view = FN(view_layer)(e, l, thread);
        const REAL *inputs = l ? y[-1].fed_on : e->batch_inputs;
        const int others_wait = l && !y[-1].by_columns; /* for the gradients */
        for (ptrdiff_t b = 0; others_wait && !y[-1].sent && y->in_parts && threads > 1 && b < rows; b++)
            FN(claim)(y[-1].gradients + b * y->inputs + own.start, (own.stop - own.start) * sizeof(REAL));
        /* Much of the next batch has left the cache again, on one thread most of it. */
        if (!l && y->lists) FN(fetch_ahead)(e, thread);
        FN(range) alike;
        for (ptrdiff_t block = blocks.start; block < blocks.stop; block = alike.stop) {
            const int listed = FN(alike_blocks)(e, l, rows, block, blocks.stop, &alike);
            const FN(range) range = FN(block_inputs)(y, alike);
            if (y->narrow) {
                FN(narrow_step)(e, rule, l, inputs, view, thread, rows, range, &waiting);
            } else if (listed) {
                FN(listed_step)(e, rule, l, inputs, view, thread, rows, range, &waiting);
            } else if (l) {
                FN(dense_back)(e, l, view, thread, rows, range);
                if (y[-1].fused) FN(fused_backward)(e, l - 1, view, thread, rows, range);
            }
        }
        const int own_units = l && !y[-1].whole_rows;
        if (own_units && !y[-1].fused)
            FN(deactivate)(e, l - 1, view, thread, all_rows, own);
        if (l && y[-1].sent) FN(send_gradients)(e, l - 1, view, thread, rows);
        if (others_wait) arrive(e->meeting, thread);
        FN(use_waiting)(e, rule, &waiting);
        const int stepped = y->by_columns || y->narrow;
        for (ptrdiff_t block = blocks.start; !stepped && block < blocks.stop; block = alike.stop)
            if (!FN(alike_blocks)(e, l, rows, block, blocks.stop, &alike))
                FN(dense_step)(e, rule, l, inputs, view, thread, rows, FN(block_inputs)(y, alike));
        if (y->by_columns) FN(dense_step)(e, rule, l, inputs, view, thread, rows, (FN(range)){0, y->inputs});
        /* A bias belongs to who adds it. */
        const int by_rows = l == last || y->whole_rows;
        if (!by_rows)
            FN(update_bias)(e, rule, l, thread, rows, FN(own_inputs)(y + 1, thread, threads));
        else if (thread == 0)
            FN(update_bias)(e, rule, l, thread, rows, (FN(range)){0, y->outputs});
        if (others_wait) await(e->meeting, thread);
        if (l && y[-1].sent) FN(receive_gradients)(e, l - 1, thread, rows);
        if (!l || own_units) continue;
        FN(deactivate)(e, l - 1, view, thread, FN(share)(rows, ROW_BLOCK, thread, threads), (FN(range)){0, y->inputs});
        meet(e->meeting, thread);
    }
}

/* Brings the columns of each thread's weights and slots together, or back. */
static void FN(move_columns)(const FN(engine) *e, int thread, int back) {
    const FN(layer) *y = e->layer;
    const FN(block) own = FN(own_weights)(e, 0, thread);
    const ptrdiff_t bytes = own.width * sizeof(REAL);
    REAL *const arrays[3] = {e->parameters, e->slots[0], e->slots[1]};
    REAL *moved = e->moved + own.first * y->inputs;
    for (int a = 0; a < 3; a++) {
        if (!arrays[a]) continue;
        REAL *together = arrays[a] + own.at, *among = arrays[a] + y->offset + own.first;
        if (back) memcpy(moved, together, y->inputs * bytes);
        for (ptrdiff_t i = 0; !back && i < y->inputs; i++)
            memcpy(moved + i * own.width, among + i * y->outputs, bytes);
        meet(e->meeting, thread); /* when nobody's are still where they go to */
        if (!back) memcpy(together, moved, y->inputs * bytes);
        for (ptrdiff_t i = 0; back && i < y->inputs; i++)
            memcpy(among + i * y->outputs, moved + i * own.width, bytes);
    }
}

static void FN(train_thread)(void *job, int thread) {
    FN(engine) *e = job;
    FN(engine) mine = *e; /* with counters of its own, which change from step to step */
    const int threads = e->p.threads;
    const float_mode mode = flush_subnormals();
    if (e->together) FN(move_columns)(e, thread, 0);
    if (e->taken) FN(count_anew)(e, thread);
    for (ptrdiff_t step = e->p.first, done = 0;; step++) {
        if (step == steps_of_epoch(&e->p)) {
            step = 0;
            if (thread == 0) begin_epoch(&e->p); /* nobody looks at the order on the way back */
            meet(e->meeting, thread);
        }
        const ptrdiff_t start = step * e->p.batch;
        const ptrdiff_t rows = e->p.n - start < e->p.batch ? e->p.n - start : e->p.batch;
        const int64_t *order = e->p.order ? e->p.order + start : NULL;
        const FN(rule) rule =
            FN(make_rule)(e->p.optimizer, e->p.rates[done++], e->p.momentum, e->p.beta_2,
                          e->p.epsilon, mine.p.updates + 1, e->p.weight_decay);
        const FN(range) share = FN(share)(rows, ROW_BLOCK, thread, threads);
        mine.next = start + rows;
        FN(gather_targets)(&mine, order, start, share);
        FN(take_inputs)(&mine, order, start, rows, thread);
        if (e->taken) FN(catch_up)(&mine, &rule, thread, 0);
        FN(forward)(&mine, rows, thread);
        FN(loss_part)(&mine, order, start, rows, share);
        if ((e->p.l1 != 0 || e->p.l2 != 0) && !e->row_penalties) FN(sum_blocks)(&mine, thread, 1);
        if (thread == 0) {
            e->done = done;
            e->stop = done == e->p.steps || !(seconds() < e->p.until);
        }
        meet(e->meeting, thread);
        const int stop = e->stop;
        if (thread == 0) FN(add_up)(e, rows, mine.waiting);
        FN(backward)(&mine, &rule, rows, thread);
        if (e->gradients) {
            FN(clipped_update)(&mine, e->meeting, &rule, thread);
            meet(e->meeting, thread);
        }
        if (e->taken) {
            e->rates[thread * MOST_IDLE + mine.waiting++] = rule.rate;
            /* The loss of an epoch is known at its end. */
            const int level = e->row_penalties ? mine.waiting == MOST_IDLE_PENALISED ||
                                                     step + 1 == steps_of_epoch(&e->p)
                                               : mine.waiting == MOST_IDLE;
            if (stop || level) {
                FN(catch_up)(&mine, &rule, thread, 1);
                FN(count_anew)(e, thread);
                if (e->row_penalties) {
                    meet(e->meeting, thread);
                    if (thread == 0) FN(add_up_waiting)(e, mine.waiting);
                    meet(e->meeting, thread);
                }
                mine.waiting = 0;
            }
        }
        if (stop) break;
        mine.p.iteration++;
        mine.p.updates++;
    }
    if (e->together) FN(move_columns)(e, thread, 1);
    restore_subnormals(mode);
}

/* ------------------------------------------------------------------------------------ the call */

/* Points the engine's arrays into scratch; returns how many bytes that takes. */
static ptrdiff_t FN(lay_out)(FN(engine) *e, char *scratch) {
    /* With room for a vector's over-read behind, and of several threads for what a processor fetches on. */
    pieces all = {scratch, e->p.threads > 1 ? BYTES_APART : TILE_VECTORS * 64, 0};
    const ptrdiff_t batch = e->p.batch, features = e->layer[0].inputs;
    const ptrdiff_t outputs = e->layer[e->p.layers - 1].outputs;
    const ptrdiff_t real = sizeof(REAL), apart = (e->p.threads - 1) * APART;
    for (int l = 0; l < e->p.layers; l++) {
        FN(layer) *y = &e->layer[l];
        const ptrdiff_t bytes = (batch * y->outputs + apart) * real;
        const int separate = y->activation == SILU || y->activation == GELU;
        y->activated = carve(&all, bytes);
        y->preactivated = separate ? carve(&all, bytes) : y->activated;
        y->factors = y->dropout > 0 ? carve(&all, bytes) : NULL;
        y->fed_on = y->dropout > 0 ? carve(&all, bytes) : y->activated;
        if (y->lists && l == 0)
            y->whole = carve(&all, e->p.threads * batch * sizeof *y->whole);
        if (y->lists) y->spans = carve(&all, y->blocks * FN(spans_apart)(e) * sizeof *y->spans);
        y->fused = HAS_FUSED && l < e->p.layers - 1 && y[1].lists && y[1].in_parts &&
                   (y->in_parts || y->by_columns) && y->activation == RELU;
        if (y->fused) y->preactivated = y->fed_on;
        const ptrdiff_t bits = (batch * ((y->outputs + LANES - 1) / LANES + PARTS) + apart) * sizeof(uint16_t);
        if (y->fused && y->dropout > 0) y->kept = carve(&all, bits);
        y->sent = y->fused && !y->by_columns && e->p.threads > 1;
        if (y->sent) {
            y->packed = carve(&all, bytes);
            y->nonzero = carve(&all, bits);
        }
        const ptrdiff_t copies = y->sent ? e->p.threads : 1;
        y->gradients = carve(&all, y->by_columns ? bytes : (copies * batch * y->outputs + apart) * real);
        y->back = l < e->p.layers - 1 ? carve(&all, bytes) : y->gradients;
        if (y->lists) {
            y->present = carve(&all, (e->words * y->inputs + apart) * sizeof *y->present);
            if (!l && e->p.table) y->codes = carve(&all, e->words * 32 * y->inputs + apart);
            if (l) y->columns = carve(&all, (batch * y->inputs + apart) * sizeof *y->columns);
            if (l) y->listed = carve(&all, (batch * y->inputs + apart) * real);
            if (!l && !e->p.table)
                y->values = carve(&all, (e->words * 32 * y->inputs + apart) * real);
        }
        const ptrdiff_t padded = (y->outputs + LANES - 1) / LANES * LANES;
        const ptrdiff_t panel = TILE_VECTORS * LANES, panels = (y->outputs + panel - 1) / panel * panel;
        const ptrdiff_t sums = FN(most_waiting)(panels);
        if (sums > e->most_sums) e->most_sums = sums;
        if (panels > e->widest_dense) e->widest_dense = panels;
        if (y->in_parts && padded > e->widest) e->widest = padded;
    }
    e->part_size = batch * e->widest + (e->p.threads > 1 ? APART : 0);
    for (int i = 0; i < 2; i++) e->parts[i] = carve(&all, PARTS * e->part_size * real);
    const FN(layer) *y = e->layer;
    if (!y->lists) {
        const ptrdiff_t copies = y->by_columns ? e->p.threads : 1;
        e->batch_inputs = carve(&all, (copies * batch * features + apart) * real);
    }
    if (e->together) e->moved = carve(&all, features * y->outputs * real);
    if (y->lists && FN(can_idle)(e->p.optimizer, e->p.weight_decay) && !e->gradients) {
        e->taken = carve(&all, (features + (e->p.threads - 1) * APART) * sizeof *e->taken);
        e->late = carve(&all, features * sizeof *e->late);
        e->rates = carve(&all, e->p.threads * MOST_IDLE * real);
        if (e->p.l1 != 0 || e->p.l2 != 0) {
            e->row_penalties = carve(&all, e->weight_rows * MOST_IDLE_PENALISED * real);
            e->step_losses = carve(&all, MOST_IDLE_PENALISED * sizeof *e->step_losses);
            e->step_rows = carve(&all, MOST_IDLE_PENALISED * sizeof *e->step_rows);
        }
    }
    if (e->shifts) {
        e->shift_width = (y->outputs * real + 63) / 64 * 64 / real;
        e->shift_parts = carve(&all, PARTS * e->shift_width * real);
        e->shift_sums = carve(&all, e->p.threads * e->shift_width * real);
    }
    e->sums = carve(&all, e->p.threads * e->most_sums * real);
    e->rooms = carve(&all, e->p.threads * (ptrdiff_t)(WAITING_GRADIENTS + APART) * real);
    e->panels = carve(&all, e->p.threads * batch * e->widest_dense * real);
    e->dots = carve(&all, e->p.threads * (batch * HELD_INPUTS + (ptrdiff_t)APART) * real);
    e->batch_targets = carve(&all, batch * outputs * real);
    e->batch_labels = carve(&all, batch * sizeof(int64_t));
    e->batch_weight = carve(&all, batch * real);
    e->block_losses = carve(&all, (batch / ROW_BLOCK + 1) * sizeof(double));
    e->block_right = carve(&all, (batch / ROW_BLOCK + 1) * sizeof(double));
    ptrdiff_t squares = e->blocks = 0;
    for (int a = 0; a < 2 * e->p.layers; a++) {
        e->blocks += FN(sums_of)(e, a, 1);
        squares += FN(sums_of)(e, a, 0);
    }
    e->block_sums = carve(&all, (e->blocks > squares ? e->blocks : squares) * sizeof(double));
    return all.used;
}

/* Whether rows of weights that no sparse row reaches stay as they are: their gradient is zero, and the
 * rest of the step too where nothing shrinks them and their slots are zero. */
static int FN(dead_stay)(const FN(engine) *e) {
    const FN(layer) *y = e->layer;
    if (e->p.weight_decay != 0 || e->p.l1 != 0 || e->p.l2 != 0 || e->gradients) return 0;
    ptrdiff_t next = 0;
    for (ptrdiff_t i = 0; i < y->inputs; i++) {
        if (next < e->p.live_count && e->p.live[next] == i) {
            next++;
            continue;
        }
        for (int slot = 0; slot < 2; slot++)
            for (ptrdiff_t o = 0; e->slots[slot] && o < y->outputs; o++)
                if (!(e->slots[slot][y->offset + i * y->outputs + o] == 0)) return 0;
    }
    return 1;
}

/* The engine for a plan, without its scratch. */
static FN(engine) FN(prepare)(const plan *p) {
    FN(engine) e = {
        .p = *p,
        .parameters = p->parameters,
        .slots = {p->slots[0], p->slots[1]},
        .gradients = p->gradients,
        .inputs = p->inputs,
        .values = p->values,
        .shifts = p->shifts,
        .sample_weight = p->sample_weight,
    };
    ptrdiff_t offset = 0;
    for (int l = 0; l < p->layers; l++) {
        const ptrdiff_t inputs = p->sizes[l], outputs = p->sizes[l + 1];
        const FN(layer) *before = l ? &e.layer[l - 1] : NULL;
        const ptrdiff_t row_bytes = p->batch * (ptrdiff_t)sizeof(REAL);
        const int by_columns = !l && !p->starts && p->layers > 1 && p->activations[0] < SOFTMAX &&
                               inputs <= COLUMN_INPUTS * outputs && inputs * row_bytes <= MOST_COPIED_BYTES &&
                               inputs * outputs * (ptrdiff_t)sizeof(REAL) <= MOST_COLUMN_BYTES &&
                               p->sizes[2] * row_bytes <= MOST_PART_BYTES;
        const int in_parts = !by_columns && outputs * row_bytes <= MOST_PART_BYTES;
        const int zeros = before && !before->whole_rows && (before->activation == RELU || before->dropout > 0);
        e.layer[l] = (FN(layer)){
            .inputs = inputs,
            .outputs = outputs,
            .activation = (int)p->activations[l],
            .in_parts = in_parts,
            .by_columns = by_columns,
            .whole_rows = p->activations[l] >= SOFTMAX,
            .lists = before ? zeros : p->starts != NULL,
            .narrow = before && in_parts && outputs <= NARROW_OUTPUTS,
            .blocks = in_parts || !before || inputs < PARTS * WIDE_BLOCK
                          ? PARTS
                          : (int)((inputs + WIDE_BLOCK - 1) / WIDE_BLOCK),
            .edges = before ? NULL : p->edges,
            .slope = p->slopes[l],
            .dropout = p->dropout ? p->dropout[l] : 0,
            .offset = offset,
            .row = e.weight_rows,
        };
        e.weight_rows += inputs;
        offset += (inputs + 1) * outputs;
    }
    e.together = e.layer[0].by_columns && p->threads > 1 && p->steps >= TOGETHER_STEPS && !e.gradients;
    return e;
}

/* Takes the steps of a plan; returns how many there was time for, or -1 where memory or threads are
 * not to be had. */
static ptrdiff_t FN(train)(const plan *p) {
    if (p->order && p->first == 0) permutation(p->seed, p->epoch, p->order, p->n);
    plan own = *p;
    if (FN(is_thin)(p)) return FN(train_thin)(&own);
    FN(engine) e = FN(prepare)(&own);
    if (e.p.live && !FN(dead_stay)(&e)) e.p.live = NULL;
    e.words = (p->batch + 31) / 32;
    char *scratch = scratch_memory(FN(lay_out)(&e, NULL));
    if (!scratch) return -1;
    FN(lay_out)(&e, scratch);
    if (e.row_penalties)
        memset(e.row_penalties, 0, e.weight_rows * MOST_IDLE_PENALISED * sizeof *e.row_penalties);
    barrier meeting = {.threads = p->threads};
    e.meeting = &meeting;
    const int status = run_threads(FN(train_thread), &e, p->threads);
    give_back(scratch);
    return status ? -1 : e.done;
}

#undef ROW_BLOCK
#undef SUM_BLOCK
#undef SUM_PART
#undef WIDE_BLOCK
#undef MOST_PART_BYTES
#undef LIST_DENSITY
#undef NARROW_OUTPUTS
#undef WAITING_GRADIENTS
#undef MOST_RUNS
#undef HELD_INPUTS
#undef APART
#undef MOST_SUMS
#undef TOTALS
#undef COLUMN_INPUTS
#undef MOST_COPIED_BYTES
#undef MOST_COLUMN_BYTES
#undef TOGETHER_STEPS
#undef NOTE_ROWS
#undef HAS_FUSED
#undef HAS_SHORT_ROWS
#undef MOST_IDLE
#undef MOST_IDLE_PENALISED
#undef LISTED_INPUTS
#undef LISTED_INPUTS_
#undef DATA_INPUTS
