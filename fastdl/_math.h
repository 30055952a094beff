/* Elementary functions of one REAL, without branches, so that loops over them become vector code.
 *
 * Largest errors over the whole range are under 2 ulp in both precisions, with and without FMA;
 * `make ulp` measures them. NaN gives NaN, infinities and signed zeros give what C's libm gives,
 * subnormal inputs and results are exact to the same bound. Coefficients: tools/fit_polynomials.py.
 *
 * Where a comment says "NaN passes", the comparison is written so that it is false for NaN.
 */

typedef REAL FN(vector) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL))));
typedef WORD FN(word_vector) __attribute__((vector_size(VECTOR_BYTES)));

#if SINGLE
#define MANTISSA 23
#define BIAS 127
#define ROUNDER 0x1.8p23f          /* adding it rounds to an integer, kept in the low bits */
#define LN2_HIGH 0x1.62e4p-1f      /* 15 bits: its product with an exponent is exact */
#define LN2_LOW 0x1.7f7d1cp-20f
#define EXP_HIGHEST 89.0f          /* exp overflows from 88.73 on, */
#define EXP_LOWEST -104.0f         /* gives 0 below -103.98, */
#define EXPM1_LOWEST -18.0f        /* and expm1 gives -1 below -17.33 */
#define NORMAL_EXP 87.0f           /* e**x and e**-x are normal numbers up to here */
#define SMALLEST_NORMAL 0x1p-126f
#define TINY 0x1p-26f
#define SQRT_HALF_BITS 0x3f3504f3u
#define ERFC_K 2.0f
#define ERFC_HIGHEST 11.0f
#else
#define MANTISSA 52
#define BIAS 1023
#define ROUNDER 0x1.8p52
#define LN2_HIGH 0x1.62e42fefap-1  /* 38 bits */
#define LN2_LOW 0x1.cf79abc9e3b3ap-40
#define EXP_HIGHEST 710.0
#define EXP_LOWEST -746.0
#define EXPM1_LOWEST -38.0
#define NORMAL_EXP 708.0
#define SMALLEST_NORMAL 0x1p-1022
#define TINY 0x1p-55
#define SQRT_HALF_BITS 0x3fe6a09e667f3bcdull
#define ERFC_K 4.0
#define ERFC_HIGHEST 28.0
#endif

INLINE WORD FN(bits)(REAL x) {
    WORD word;
    memcpy(&word, &x, sizeof x);
    return word;
}

INLINE REAL FN(from_bits)(WORD word) {
    REAL x;
    memcpy(&x, &word, sizeof x);
    return x;
}

INLINE REAL FN(absolute)(REAL x) {
    return FN(from_bits)(FN(bits)(x) & ~((WORD)1 << (sizeof(REAL) * 8 - 1)));
}

INLINE REAL FN(with_sign)(REAL size, REAL x) {
    return FN(from_bits)(FN(bits)(size) | (FN(bits)(x) & ((WORD)1 << (sizeof(REAL) * 8 - 1))));
}

/* Whether e**x - 1, ln(1 + x) and tanh(x) are x to less than half a unit. What their formulas make of such
 * numbers is not used, which may be calculated with subnormal ones taken for zero. */
INLINE int FN(is_tiny)(REAL x) { return FN(absolute)(x) < TINY; }

INLINE REAL FN(square_root)(REAL x) {
#if SINGLE
    return sqrtf(x);
#else
    return sqrt(x);
#endif
}

/* a*b - product, where product is a*b rounded. */
INLINE REAL FN(product_error)(REAL a, REAL b, REAL product) {
#if HAS_FMA
#if SINGLE
    return __builtin_fmaf(a, b, -product);
#else
    return __builtin_fma(a, b, -product);
#endif
#else /* Dekker's product, on halves of the mantissas cut by mask */
    const WORD high_half = ~(((WORD)1 << ((MANTISSA + 1) / 2)) - 1);
    REAL a_high = FN(from_bits)(FN(bits)(a) & high_half), a_low = a - a_high;
    REAL b_high = FN(from_bits)(FN(bits)(b) & high_half), b_low = b - b_high;
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
#endif
}

/* q in exp(r) = 1 + r + r*r*q(r) for |r| <= ln(2)/2, to 2**-32 and 2**-61 of expm1. */
#if SINGLE
#define EXP_COEFFICIENTS \
    0.5f, 0x1.555555p-3f, 0x1.5554b1p-5f, 0x1.111189p-7f, 0x1.6d71f7p-10f, 0x1.a0330fp-13f
#else
#define EXP_COEFFICIENTS \
    0.5, 0x1.5555555555559p-3, 0x1.555555555553fp-5, 0x1.111111110f6dap-7, \
    0x1.6c16c16c1f06ep-10, 0x1.a01a01afd3f92p-13, 0x1.a01a017bc8216p-16, 0x1.71ddf87e7d53fp-19, \
    0x1.27e5362a53f25p-22, 0x1.af5e757099d71p-26, 0x1.1ee8893d052b7p-29
#endif
#define EXP_TAIL(r) HORNER(r, EXP_COEFFICIENTS)

/* 2**(n held in the low bits of `rounded`), for exponents of normal numbers. */
INLINE REAL FN(power_of_two)(REAL rounded) {
    return FN(from_bits)((FN(bits)(rounded) - FN(bits)(ROUNDER) + BIAS) << MANTISSA);
}

INLINE REAL FN(exp)(REAL x) {
    x = x > EXP_HIGHEST ? EXP_HIGHEST : x; /* NaN passes */
    x = x < EXP_LOWEST ? EXP_LOWEST : x;
    REAL n = (x * (REAL)M_LOG2E + ROUNDER) - ROUNDER;
    REAL r = x - n * LN2_HIGH;
    r = r - n * LN2_LOW;
    REAL y = 1 + (r + r * r * EXP_TAIL(r));
    /* By two factors: 2**n itself can lie beyond the exponents where y * 2**n does not. */
    REAL half = n * (REAL)0.5 + ROUNDER, rest = (n - (half - ROUNDER)) + ROUNDER;
    return y * FN(power_of_two)(half) * FN(power_of_two)(rest);
}

/* e**x - 1 for x <= EXP_HIGHEST, but +0 for -0. With s = 2**(n-1) and p = expm1(r) it is
 * 2*(s*p + (s - 1/2)); p is added in two parts so that its rounding is not felt where the sum
 * cancels. */
INLINE REAL FN(expm1_core)(REAL x) {
    x = x < EXPM1_LOWEST ? EXPM1_LOWEST : x; /* NaN passes */
    REAL rounded = x * (REAL)M_LOG2E + ROUNDER, n = rounded - ROUNDER;
    REAL high = x - n * LN2_HIGH, low = n * LN2_LOW;
    REAL r = high - low;
    REAL tail = r * r * EXP_TAIL(r) + ((high - r) - low);
    REAL s = FN(power_of_two)(rounded - 1);
    REAL scaled = s * r, offset = s - (REAL)0.5;
    REAL sum = scaled + offset;
    /* Fast two-sum either way round: |offset| >= |scaled|, or offset is 0. */
    REAL error = scaled - (sum - offset);
    return 2 * (sum + (s * tail + error));
}

INLINE REAL FN(expm1)(REAL x) {
    REAL y = FN(expm1_core)(x > EXP_HIGHEST ? EXP_HIGHEST : x);
    return FN(is_tiny)(x) ? x : y;
}

/* l in log(1 + f) = 2*s + s*z*l(z), s = f / (2 + f), z = s*s, for 1 + f in [sqrt(1/2), sqrt(2)]. */
#if SINGLE
#define LOG_TAIL(z) HORNER(z, 0x1.55557ap-1f, 0x1.995eb7p-2f, 0x1.31e342p-2f)
#else
#define LOG_TAIL(z) HORNER(z, 0x1.5555555555592p-1, 0x1.999999997fd7bp-2, \
    0x1.24924941f4d3cp-2, 0x1.c71c52061df4bp-3, 0x1.74663f9f7da1bp-3, 0x1.39a1a7102f47cp-3, \
    0x1.2f06351a00ef8p-3)
#endif

/* n * ln(2) + log(1 + f) + c, for a small correction c. 2*s = f - s*f keeps f, which is exact,
 * in front: log(1 + f) = f - (f*f/2 - s*(f*f/2 + z*l(z))). */
INLINE REAL FN(log_sum)(REAL n, REAL f, REAL c) {
    REAL s = f / (2 + f), z = s * s, half_square = (REAL)0.5 * f * f;
    REAL rest = s * (half_square + z * LOG_TAIL(z)) + (n * LN2_LOW + c);
    return n * LN2_HIGH - ((half_square - rest) - f);
}

/* The exponent of a normal x, to the nearest power of two on the scale of logarithms; *mantissa
 * gets x / 2**exponent, in [sqrt(1/2), sqrt(2)). */
INLINE REAL FN(split)(REAL x, REAL *mantissa) {
    WORD word = FN(bits)(x);
    WORD exponent = (word - SQRT_HALF_BITS + ((WORD)BIAS << MANTISSA)) >> MANTISSA;
    *mantissa = FN(from_bits)(word - ((exponent - BIAS) << MANTISSA));
    return FN(from_bits)(FN(bits)(ROUNDER) + exponent) - (ROUNDER + BIAS);
}

INLINE REAL FN(log)(REAL x) {
    /* The bits of a subnormal number, as a whole number, are how many of the smallest ones it is. (To multiply
     * it by a power of two would take some 150 cycles.) */
    const REAL units = (WORD)1 << MANTISSA, whole = FN(from_bits)(FN(bits)(x) | FN(bits)(units)) - units;
    REAL lift = x < SMALLEST_NORMAL ? (REAL)(MANTISSA + BIAS - 1) : 0, mantissa;
    REAL n = FN(split)(x < SMALLEST_NORMAL ? whole : x, &mantissa);
    REAL y = FN(log_sum)(n - lift, mantissa - 1, 0);
    y = x < 0 ? (REAL)NAN : y;
    y = x == 0 ? -(REAL)INFINITY : y;
    return x < (REAL)INFINITY ? y : x; /* infinity, and NaN */
}

INLINE REAL FN(log1p)(REAL x) {
    REAL u = 1 + x, mantissa;
    REAL n = FN(split)(u, &mantissa);
    /* What 1 + x lost, relative to u; none is felt where u is large. */
    REAL lost = x < 1 ? x - (u - 1) : 1 - (u - x);
    REAL y = FN(log_sum)(n, n == 0 ? x : mantissa - 1, n == 0 ? 0 : lost / u);
    y = x < -1 ? (REAL)NAN : y;
    y = x == -1 ? -(REAL)INFINITY : y;
    y = FN(is_tiny)(x) ? x : y;
    return x < (REAL)INFINITY ? y : x;
}

/* l as in LOG_TAIL, for f in [0, 1]: to 2**-27.7 and 2**-59.4 of the logarithm. */
#if SINGLE
#define LOG1P_COEFFICIENTS \
    0x1.5555p-1f, 0x1.99d27ap-2f, 0x1.1eb616p-2f, 0x1.1ef86ep-2f
#else
#define LOG1P_COEFFICIENTS \
    0x1.5555555555535p-1, 0x1.99999999a083fp-2, 0x1.2492492085792p-2, 0x1.c71c741f8cb55p-3, \
    0x1.745cb39b39cbap-3, 0x1.3b1de32a56a06p-3, 0x1.10676834fdaefp-3, 0x1.efdd8a40581f5p-4, \
    0x1.559c2e6bd404ep-4, 0x1.5c8a77f31344cp-3
#endif
#define LOG1P_TAIL(z) HORNER(z, LOG1P_COEFFICIENTS)

/* log1p for x in [0, 1] (or NaN), where no power of two need be split off: x - s*(x - z*l(z)). */
INLINE REAL FN(log1p_unit)(REAL x) {
    REAL s = x / (2 + x), z = s * s;
    return x - s * (x - z * LOG1P_TAIL(z));
}

/* h / (1 + h) for h >= 0: as h - h*h/(1 + h) where h is small, and only h's own error counts. */
INLINE REAL FN(ratio)(REAL h) {
    REAL quotient = h / (1 + h);
    return h < (REAL)0.5 ? h - h * quotient : quotient;
}

/* tanh|x| = h / (1 + h) for h = expm1(2|x|) / 2; beyond 2|x| = 38 that is 1 in either type. */
INLINE REAL FN(tanh)(REAL x) {
    REAL doubled = 2 * FN(absolute)(x);
    REAL h = (REAL)0.5 * FN(expm1_core)(doubled > 40 ? 40 : doubled);
    return FN(is_tiny)(x) ? x : FN(with_sign)(FN(ratio)(h), x);
}

/* 1 / (1 + e**-x), from e**-|x|; 1 - h / (1 + h) would cancel for h near 1. */
INLINE REAL FN(sigmoid)(REAL x) {
    REAL tail = FN(exp)(-FN(absolute)(x)), quotient = (x < 0 ? tail : 1) / (1 + tail);
    return x < 0 && tail < (REAL)0.5 ? tail - tail * quotient : quotient;
}

/* ln(1 + e**-|x|) */
INLINE REAL FN(log1p_exp)(REAL x) {
    return FN(log1p_unit)(FN(exp)(-FN(absolute)(x)));
}

/* ln(1 + e**x) = max(x, 0) + ln(1 + e**-|x|). */
INLINE REAL FN(softplus)(REAL x) {
    return (x > 0 ? x : 0) + FN(log1p_exp)(x);
}

/* e in erfc(x) = exp(-x*x) * e(t) / (1 + 2*x), t = (x - K) / (x + K), x >= 0. */
INLINE REAL FN(erfc_core)(REAL t) {
#if SINGLE
    static const REAL c[] = {
        1.276978382713454f,    -0.0927638186419072f,  -0.16603052259611334f,
        0.1640509754098712f,   -0.05421786613755011f, -0.008030334251064307f,
        0.0087096816824473f,   0.001251207868661395f, -0.0014231387963604715f,
        -0.00039990792867113865f, 0.00017219843280272452f, 8.061384658473608e-05f,
    };
#else
    static const REAL c[] = {
        1.2329951186255526,     -0.13962111684056253,   0.015379652102620073,
        0.06809705425469312,    -0.10103906603632705,   0.09373283499833099,
        -0.0663303658116058,    0.03716751553790579,    -0.016197734066252245,
        0.005031969972160984,   -0.0007577732207139855, -0.0001992566440950087,
        0.0001506213399725149,  -2.4399493159187777e-05, -1.1220986029651269e-05,
        5.710713945934898e-06,  2.918028765740882e-07,  -8.276178312521193e-07,
        7.685847227764046e-08,  1.1307069938494956e-07, -1.9015202951173405e-08,
        -1.643907688650129e-08, 1.6929859567751212e-09, 2.04513544152091e-09,
        2.717985635914348e-10,
    };
#endif
    REAL e = c[sizeof c / sizeof c[0] - 1];
#pragma GCC unroll 32
    for (int i = (int)(sizeof c / sizeof c[0]) - 2; i >= 0; i--) e = e * t + c[i];
    return e;
}

/* exp(-x*x/2), the rounding error of the square included. */
INLINE REAL FN(gaussian)(REAL x) {
    REAL square = x * x;
    return FN(exp)((REAL)-0.5 * square) * (1 - (REAL)0.5 * FN(product_error)(x, x, square));
}

/* |x|, or where the normal distribution's density beyond x is 0, the least such number. */
INLINE REAL FN(normal_size)(REAL x) {
    REAL size = FN(absolute)(x);
    return size > (REAL)M_SQRT2 * ERFC_HIGHEST ? (REAL)M_SQRT2 * ERFC_HIGHEST : size;
}

/* The standard normal distribution function, erfc(-x / sqrt(2)) / 2. */
INLINE REAL FN(normal_cdf)(REAL x) {
    REAL size = FN(normal_size)(x);
    REAL z = size * (REAL)M_SQRT1_2;
    REAL upper = (REAL)0.5 * FN(erfc_core)((z - ERFC_K) / (z + ERFC_K)) / (1 + 2 * z);
    upper *= FN(gaussian)(size);
    return x < 0 ? upper : 1 - upper;
}

/* ------------------------------------------------------------------- the same on whole vectors
 *
 * For the training loops that spend their time in these functions: on n vectors at once, n known to
 * the compiler, with no subnormal results, and a reciprocal in place of a quotient where that is
 * quicker. One vector is a chain of some thirty operations of four cycles each, and the processor
 * sees only three such chains ahead: n of them side by side run a fifth faster. The errors are some
 * units in the last place of the larger of the result and 1. NaN passes. */

#define V FN(vector)
#define V_WORDS FN(word_vector)

#if VECTOR_BYTES == 64 && SINGLE
#define V_MINIMUM(a, b) ((V)_mm512_min_ps((__m512)(a), (__m512)(b)))
#define V_MAXIMUM(a, b) ((V)_mm512_max_ps((__m512)(a), (__m512)(b)))
#elif VECTOR_BYTES == 64
#define V_MINIMUM(a, b) ((V)_mm512_min_pd((__m512d)(a), (__m512d)(b)))
#define V_MAXIMUM(a, b) ((V)_mm512_max_pd((__m512d)(a), (__m512d)(b)))
#elif VECTOR_BYTES == 32 && SINGLE
#define V_MINIMUM(a, b) ((V)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define V_MAXIMUM(a, b) ((V)_mm256_max_ps((__m256)(a), (__m256)(b)))
#elif VECTOR_BYTES == 32
#define V_MINIMUM(a, b) ((V)_mm256_min_pd((__m256d)(a), (__m256d)(b)))
#define V_MAXIMUM(a, b) ((V)_mm256_max_pd((__m256d)(a), (__m256d)(b)))
#elif defined(__SSE2__) && SINGLE
#define V_MINIMUM(a, b) ((V)_mm_min_ps((__m128)(a), (__m128)(b)))
#define V_MAXIMUM(a, b) ((V)_mm_max_ps((__m128)(a), (__m128)(b)))
#elif defined(__SSE2__)
#define V_MINIMUM(a, b) ((V)_mm_min_pd((__m128d)(a), (__m128d)(b)))
#define V_MAXIMUM(a, b) ((V)_mm_max_pd((__m128d)(a), (__m128d)(b)))
#else
INLINE V FN(v_choose)(V_WORDS mask, V a, V b) {
    return (V)((mask & (V_WORDS)a) | (~mask & (V_WORDS)b));
}
#define V_MINIMUM(a, b) FN(v_choose)((V_WORDS)((a) < (b)), a, b)
#define V_MAXIMUM(a, b) FN(v_choose)((V_WORDS)((a) > (b)), a, b)
#endif

/* x in every lane. */
INLINE V FN(v_all)(REAL x) { return (V){0} + x; }

/* NaN passes as the second argument. */
INLINE V FN(v_maximum)(V a, V b) { return V_MAXIMUM(a, b); }

INLINE V FN(v_absolute)(V x) {
    return (V)((V_WORDS)x & ~((V_WORDS){0} + ((WORD)1 << (sizeof(REAL) * 8 - 1))));
}

#define EACH _Pragma("GCC unroll 8") for (int i = 0; i < n; i++)

/* x = 1 / x, for normal x: an approximation to 14 bits, and 1 + e + e**2 + e**3 for its error e. */
INLINE void FN(v_reciprocal)(int n, V *x) {
#if VECTOR_BYTES == 64 && SINGLE
    V y[VECTORS_AT_ONCE];
    EACH y[i] = (V)_mm512_rcp14_ps((__m512)x[i]);
    EACH x[i] = 1 - x[i] * y[i];
    EACH x[i] = y[i] + y[i] * x[i];
#elif VECTOR_BYTES == 64
    V y[VECTORS_AT_ONCE];
    EACH y[i] = (V)_mm512_rcp14_pd((__m512d)x[i]);
    EACH x[i] = 1 - x[i] * y[i];
    EACH y[i] += y[i] * x[i];
    EACH x[i] = y[i] + y[i] * (x[i] * x[i]);
#else
    EACH x[i] = 1 / x[i];
#endif
}

/* The same of numbers of which any four have a normal product: where a division does not beat it, four
 * reciprocals come from the one of that. A twentieth of the time of a tanh; one product after the other, instead
 * of in pairs, gains nothing. */
#if VECTOR_BYTES == 64 && !SINGLE
#define V_MOST_EXP 150 /* beyond, 1 + e**x is e**x or 1 to all places */
INLINE void FN(v_reciprocals)(int n, V *x) {
    V inverse[VECTORS_AT_ONCE / 4];
    for (int k = 0; k < n; k += 4) {
        const V *a = x + k;
        const int count = n - k;
        inverse[k / 4] = count == 1   ? a[0]
                         : count == 2 ? a[0] * a[1]
                         : count == 3 ? a[0] * a[1] * a[2]
                                      : a[0] * a[1] * (a[2] * a[3]);
    }
    FN(v_reciprocal)((n + 3) / 4, inverse);
    for (int k = 0; k < n; k += 4) {
        V *a = x + k, left = inverse[k / 4], right = left, first = a[0];
        const int count = n - k;
        if (count > 2) { /* of a[0] * a[1], and of the others */
            const V third = a[2];
            right *= a[0] * a[1];
            left *= count == 3 ? third : third * a[3];
            a[2] = count == 3 ? right : right * a[3];
            if (count > 3) a[3] = right * third;
        }
        a[0] = count == 1 ? left : left * a[1];
        if (count > 1) a[1] = left * first;
    }
}
#else
#define V_MOST_EXP NORMAL_EXP
INLINE void FN(v_reciprocals)(int n, V *x) { FN(v_reciprocal)(n, x); }
#endif

/* x = e**(scale * x) for |scale * x| up to NORMAL_EXP; the error is |x| units in the last place. */
INLINE void FN(v_exp_inside)(int n, REAL scale, V *x) {
    V rounded[VECTORS_AT_ONCE], y[VECTORS_AT_ONCE];
#if VECTOR_BYTES == 64 && !SINGLE
    /* 2**(k + r) for k a multiple of 1/16, by a table of its fractions; |r| <= 1/32. A polynomial on
     * all of [-1/2, 1/2] would need six operations more. */
    static const int64_t sixteenths[] = {
        0x3ff0000000000000, 0x3fefb5586cf9890f, 0x3fef72b83c7d517b, 0x3fef387a6e756238,
        0x3fef06fe0a31b715, 0x3feedea64c123422, 0x3feebfdad5362a27, 0x3feeab07dd485429,
        0x3feea09e667f3bcd, 0x3feea11473eb0187, 0x3feeace5422aa0db, 0x3feec49182a3f090,
        0x3feee89f995ad3ad, 0x3fef199bdd85529c, 0x3fef5818dcfba487, 0x3fefa4afa2a490da,
    };
    static const double tail[] = {
        0x1.62e42fefa39fdp-1, 0x1.ebfbdff82c59dp-3, 0x1.c6b08d6e8a3cep-5,
        0x1.3b2ab6fa97e2bp-7, 0x1.5d89be5144d80p-10, 0x1.430a995cf0ccep-13,
    };
    const __m512i low = _mm512_loadu_si512(sixteenths), high = _mm512_loadu_si512(sixteenths + 8);
    const double factor = scale * M_LOG2E, rounder = ROUNDER / 16;
    V power[VECTORS_AT_ONCE];
    EACH rounded[i] = x[i] * factor + rounder;
    EACH x[i] = x[i] * factor - (rounded[i] - rounder);
    EACH y[i] = x[i] * tail[5] + tail[4];
#pragma GCC unroll 4
    for (int k = 3; k >= 0; k--) EACH y[i] = y[i] * x[i] + tail[k];
    EACH y[i] *= x[i];
    /* The lowest bits of `rounded` are 16 * k: four for the table, the rest for the exponent. */
    EACH power[i] = (V)(_mm512_permutex2var_epi64(low, (__m512i)rounded[i], high) +
                        _mm512_slli_epi64((__m512i)rounded[i], MANTISSA - 4));
    EACH x[i] = power[i] + power[i] * y[i];
#else
    static const REAL tail[] = {EXP_COEFFICIENTS};
    const int degree = sizeof tail / sizeof tail[0];
    EACH x[i] *= scale;
    EACH rounded[i] = x[i] * (REAL)M_LOG2E + ROUNDER;
    EACH x[i] -= (rounded[i] - ROUNDER) * LN2_HIGH;
    EACH x[i] -= (rounded[i] - ROUNDER) * LN2_LOW;
    EACH y[i] = x[i] * tail[degree - 1] + tail[degree - 2];
#pragma GCC unroll 16
    for (int k = degree - 3; k >= 0; k--) EACH y[i] = y[i] * x[i] + tail[k];
    EACH y[i] = y[i] * x[i] + 1;
    EACH y[i] = y[i] * x[i] + 1;
    /* The power of two stands in the lowest bits of `rounded`: add it to the exponent. */
    EACH x[i] = (V)((V_WORDS)y[i] + ((V_WORDS)rounded[i] << MANTISSA));
#endif
}

/* The same, |scale * x| taken to be `most` where it is more. */
INLINE void FN(v_exp_within)(int n, REAL most, REAL scale, V *x) {
    const REAL limit = most / FN(absolute)(scale);
    /* NaN comes through: it would be the second argument. */
    EACH x[i] = V_MINIMUM(FN(v_all)(limit), x[i]);
    EACH x[i] = V_MAXIMUM(FN(v_all)(-limit), x[i]);
    FN(v_exp_inside)(n, scale, x);
}

/* x = e**(scale * x), or where that is no normal number, the nearest one. */
INLINE void FN(v_exp)(int n, REAL scale, V *x) { FN(v_exp_within)(n, NORMAL_EXP, scale, x); }

/* x = 1 / (1 + e**(scale * x)); of 0 that is 1/2, unless they are taken together. */
INLINE void FN(v_logistic)(int n, int how, REAL scale, V *x) {
    if (how == V_BOUNDED)
        FN(v_exp_inside)(n, scale, x);
    else
        FN(v_exp_within)(n, how == V_TOGETHER ? V_MOST_EXP : NORMAL_EXP, scale, x);
    EACH x[i] += 1;
    if (how == V_ALONE)
        FN(v_reciprocal)(n, x);
    else
        FN(v_reciprocals)(n, x);
}

/* x = 1 - 2 / (1 + e**2x). */
INLINE void FN(v_tanh)(int n, int how, V *x) {
    FN(v_logistic)(n, how, 2, x);
    EACH x[i] = 1 - 2 * x[i];
}

/* x = 1 / (1 + e**-x). */
INLINE void FN(v_sigmoid)(int n, int how, V *x) { FN(v_logistic)(n, how, -1, x); }

/* Arguments of which `v_tanh` and `v_sigmoid` may be V_BOUNDED: at most so large. */
INLINE REAL FN(tanh_bound)(void) { return (REAL)V_MOST_EXP / 2; }
INLINE REAL FN(sigmoid_bound)(void) { return V_MOST_EXP; }

/* x = ln(1 + e**-|x|). */
INLINE void FN(v_log1p_exp)(int n, V *x) {
    static const REAL tail[] = {LOG1P_COEFFICIENTS};
    const int degree = sizeof tail / sizeof tail[0];
    V t[VECTORS_AT_ONCE], s[VECTORS_AT_ONCE], z[VECTORS_AT_ONCE], l[VECTORS_AT_ONCE];
    EACH t[i] = FN(v_absolute)(x[i]);
    FN(v_exp)(n, -1, t);
    EACH s[i] = t[i] + 2;
    FN(v_reciprocal)(n, s);
    EACH s[i] *= t[i];
    EACH z[i] = s[i] * s[i];
    EACH l[i] = z[i] * tail[degree - 1] + tail[degree - 2];
#pragma GCC unroll 16
    for (int k = degree - 3; k >= 0; k--) EACH l[i] = l[i] * z[i] + tail[k];
    EACH x[i] = t[i] - s[i] * (t[i] - z[i] * l[i]);
}

#undef EACH
#undef V_MOST_EXP
#undef MANTISSA
#undef BIAS
#undef ROUNDER
#undef LN2_HIGH
#undef LN2_LOW
#undef EXP_HIGHEST
#undef EXP_LOWEST
#undef EXPM1_LOWEST
#undef NORMAL_EXP
#undef SMALLEST_NORMAL
#undef TINY
#undef SQRT_HALF_BITS
#undef ERFC_K
#undef ERFC_HIGHEST
#undef EXP_COEFFICIENTS
#undef EXP_TAIL
#undef LOG_TAIL
#undef LOG1P_COEFFICIENTS
#undef LOG1P_TAIL
#undef V
#undef V_WORDS
#undef V_MINIMUM
#undef V_MAXIMUM
