/* The matrix product for one REAL: C (M, N) = A (M, K) @ B (K, N), A and B with any strides.
 *
 * A tile of TILE_ROWS x (TILE_VECTORS * LANES) sums stays in registers while K runs; each step
 * loads one row of B's panel and broadcasts one element of each of A's rows (the micro-kernel of
 * Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", TOMS 34, 2008). A
 * panel of B whose rows are whole vectors is read where it lies; others (transposed, far apart, or
 * the last narrow columns) are first copied into a small buffer, padded with zeros. A is never copied: a
 * broadcast reads one element whatever the stride.
 *
 * Every sum runs over k in order and no element depends on M's or N's blocking.
 */

#define VECTOR FN(vector)

#define PANEL_DEPTH 256
#define PANEL_WIDTH (TILE_VECTORS * LANES)

/* Transposes LANES x LANES elements, each row a vector. Rounds of perfect shuffles: each interleaves
 * row i with row i + LANES/2. */
INLINE void FN(transpose_vectors)(VECTOR *row) {
    VECTOR next[LANES];
#pragma GCC unroll 4
    for (int round = 1; round < LANES; round *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES / 2; i++) {
            next[2 * i] = INTERLEAVE_LOW(row[i], row[i + LANES / 2]);
            next[2 * i + 1] = INTERLEAVE_HIGH(row[i], row[i + LANES / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) row[i] = next[i];
    }
}

/* The same in memory: source rows are `stride` apart, target rows `width`. */
INLINE void FN(transpose_block)(const REAL *source, ptrdiff_t stride, REAL *target,
                                ptrdiff_t width) {
    VECTOR row[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) row[i] = *(const VECTOR *)(source + i * stride);
    FN(transpose_vectors)(row);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) *(VECTOR *)(target + i * width) = row[i];
}

/* target (depth, width) = the transpose of source (columns, depth), rows of it `stride` apart; the
 * columns that are missing to `width` become zeros. */
static void FN(pack_transposed)(const REAL *source, ptrdiff_t stride, int columns, ptrdiff_t depth,
                                REAL *target, int width) {
    ptrdiff_t p = 0;
    for (; p + LANES <= depth; p += LANES)
        for (int q = 0; q < width; q += LANES) {
            if (q + LANES <= columns) {
                FN(transpose_block)(source + q * stride + p, stride, target + p * width + q, width);
                continue;
            }
            for (int i = 0; i < LANES; i++)
                for (int j = 0; j < LANES; j++)
                    target[(p + i) * width + q + j] =
                        q + j < columns ? source[(q + j) * stride + p + i] : 0;
        }
    for (; p < depth; p++)
        for (int q = 0; q < width; q++)
            target[p * width + q] = q < columns ? source[q * stride + p] : 0;
}

/* rows x vectors of C from a panel of B, rows and vectors known to the compiler. */
INLINE void FN(tile)(int rows, int vectors, ptrdiff_t depth, const REAL *restrict a,
                     ptrdiff_t a_row, ptrdiff_t a_column, const REAL *restrict b, ptrdiff_t b_row,
                     REAL *restrict c, ptrdiff_t c_row, int start, const REAL *restrict bias) {
    VECTOR sum[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[i][v] = !start ? *(const VECTOR *)(c + i * c_row + v * LANES)
                        : bias ? *(const VECTOR *)(bias + v * LANES)
                               : (VECTOR){0};
    for (ptrdiff_t k = 0; k < depth; k++) {
        VECTOR row[TILE_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) row[v] = *(const VECTOR *)(b + k * b_row + v * LANES);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            REAL left = a[i * a_row + k * a_column];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[i][v] += left * row[v];
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) *(VECTOR *)(c + i * c_row + v * LANES) = sum[i][v];
}

/* The same for the rows of a whole panel, through kernels for each number of rows. */
INLINE void FN(panel)(int vectors, ptrdiff_t m, ptrdiff_t depth, const REAL *a, ptrdiff_t a_row,
                      ptrdiff_t a_column, const REAL *b, ptrdiff_t b_row, REAL *c, ptrdiff_t c_row,
                      int start, const REAL *bias) {
#define TILE(rows) FN(tile)(rows, vectors, depth, a, a_row, a_column, b, b_row, c, c_row, start, bias)
    for (; m >= TILE_ROWS; m -= TILE_ROWS) {
        TILE(TILE_ROWS);
        a += TILE_ROWS * a_row;
        c += TILE_ROWS * c_row;
    }
    switch (m) {
    case 1: TILE(1); break;
    case 2: TILE(2); break;
    case 3: TILE(3); break;
    case 4: TILE(4); break;
    case 5: TILE(5); break;
#if TILE_ROWS > 6
    case 6: TILE(6); break;
    case 7: TILE(7); break;
    case 8: TILE(8); break;
    case 9: TILE(9); break;
    case 10: TILE(10); break;
    case 11: TILE(11); break;
#endif
    }
#undef TILE
}

static void FN(panel_wide)(ptrdiff_t m, ptrdiff_t depth, const REAL *a, ptrdiff_t a_row,
                           ptrdiff_t a_column, const REAL *b, ptrdiff_t b_row, REAL *c,
                           ptrdiff_t c_row, int start, const REAL *bias) {
    FN(panel)(TILE_VECTORS, m, depth, a, a_row, a_column, b, b_row, c, c_row, start, bias);
}

static void FN(panel_narrow)(ptrdiff_t m, ptrdiff_t depth, const REAL *a, ptrdiff_t a_row,
                             ptrdiff_t a_column, const REAL *b, ptrdiff_t b_row, REAL *c,
                             ptrdiff_t c_row, int start, const REAL *bias) {
    FN(panel)(1, m, depth, a, a_row, a_column, b, b_row, c, c_row, start, bias);
}

/* c (m, n) = a (m, depth) @ b (depth, n) + bias (n,), where bias may be NULL, or, unless `fresh`,
 * c + a @ b; strides in elements; c has contiguous rows and overlaps nothing. */
static void FN(blocked_product)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t depth, const REAL *a,
                                ptrdiff_t a_row, ptrdiff_t a_column, const REAL *b,
                                ptrdiff_t b_row, ptrdiff_t b_column, const REAL *bias, REAL *c,
                                ptrdiff_t c_row, int fresh) {
    REAL copy[PANEL_DEPTH * PANEL_WIDTH] __attribute__((aligned(64)));
    REAL edge[TILE_ROWS * PANEL_WIDTH] __attribute__((aligned(64)));
    REAL edge_bias[PANEL_WIDTH] __attribute__((aligned(64)));
    for (ptrdiff_t j = 0; j < n; j += PANEL_WIDTH) {
        int width = n - j < PANEL_WIDTH ? (int)(n - j) : PANEL_WIDTH;
        int narrow = width <= LANES, whole = width == PANEL_WIDTH || width == LANES;
        /* Rows of B that lie far apart each cost a page and a few cache lines anew for every tile of
         * rows: with 2048 columns the product ran at half the speed that the copy gives. */
        int near = b_row * (ptrdiff_t)sizeof(REAL) <= 1024;
        /* A depth of 0 still has to write the bias. */
        for (ptrdiff_t k = 0; k == 0 || k < depth; k += PANEL_DEPTH) {
            ptrdiff_t part = depth - k < PANEL_DEPTH ? depth - k : PANEL_DEPTH;
            const REAL *source = b + k * b_row + j * b_column, *right = source;
            ptrdiff_t right_row = b_row;
            if (!(whole && b_column == 1 && (near || m <= 2 * TILE_ROWS))) {
                right_row = narrow ? LANES : PANEL_WIDTH;
                right = copy;
                if (b_column == 1) {
                    for (ptrdiff_t p = 0; p < part; p++)
                        for (int q = 0; q < right_row; q++)
                            copy[p * right_row + q] = q < width ? source[p * b_row + q] : 0;
                } else if (b_row == 1) {
                    FN(pack_transposed)(source, b_column, width, part, copy, (int)right_row);
                } else {
                    for (ptrdiff_t p = 0; p < part; p++)
                        for (int q = 0; q < right_row; q++)
                            copy[p * right_row + q] =
                                q < width ? source[p * b_row + q * b_column] : 0;
                }
            }
            const REAL *left = a + k * a_column;
            if (whole) {
                const REAL *start_bias = bias ? bias + j : NULL;
                (narrow ? FN(panel_narrow) : FN(panel_wide))(
                    m, part, left, a_row, a_column, right, right_row, c + j, c_row,
                    fresh && k == 0, start_bias);
                continue;
            }
            /* The last columns go through a padded tile, so that nothing is written beyond them. */
            if (bias)
                for (int q = 0; q < PANEL_WIDTH; q++) edge_bias[q] = q < width ? bias[j + q] : 0;
            for (ptrdiff_t i = 0; i < m; i += TILE_ROWS) {
                ptrdiff_t rows = m - i < TILE_ROWS ? m - i : TILE_ROWS;
                if (k > 0 || !fresh)
                    for (ptrdiff_t p = 0; p < rows; p++)
                        memcpy(edge + p * right_row, c + (i + p) * c_row + j, width * sizeof(REAL));
                (narrow ? FN(panel_narrow) : FN(panel_wide))(
                    rows, part, left + i * a_row, a_row, a_column, right, right_row, edge,
                    right_row, fresh && k == 0, bias ? edge_bias : NULL);
                for (ptrdiff_t p = 0; p < rows; p++)
                    memcpy(c + (i + p) * c_row + j, edge + p * right_row, width * sizeof(REAL));
            }
        }
    }
}

/* One column of C: sums of products along K, in as many parts as a vector has lanes. */
static void FN(matrix_vector)(ptrdiff_t m, ptrdiff_t depth, const REAL *a, ptrdiff_t a_row,
                              const REAL *b, REAL *c, const REAL *bias) {
    for (ptrdiff_t i = 0; i < m; i++) {
        REAL sum = 0;
        const REAL *row = a + i * a_row;
#pragma omp simd reduction(+ : sum)
        for (ptrdiff_t k = 0; k < depth; k++) sum += row[k] * b[k];
        c[i] = sum + (bias ? bias[0] : 0);
    }
}

static void FN(product)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t depth, const REAL *a, ptrdiff_t a_row,
                        ptrdiff_t a_column, const REAL *b, ptrdiff_t b_row, ptrdiff_t b_column,
                        const REAL *bias, REAL *c) {
    if (n == 1 && a_column == 1 && b_row == 1)
        FN(matrix_vector)(m, depth, a, a_row, b, c, bias);
    else
        FN(blocked_product)(m, n, depth, a, a_row, a_column, b, b_row, b_column, bias, c, n, 1);
}

#undef PANEL_DEPTH
#undef PANEL_WIDTH
#undef VECTOR
