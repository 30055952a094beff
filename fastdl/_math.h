/* Elementary functions of one REAL, without branches, so that loops over them become vector code.
 *
 * Largest errors over the whole range are under 2 ulp in both precisions, with and without FMA;
 * `make ulp` measures them. NaN gives NaN, infinities and signed zeros give what C's libm gives,
 * subnormal inputs and results are exact to the same bound. Coefficients: tools/fit_polynomials.py.
 *
 * Where a comment says "NaN passes", the comparison is written so that it is false for NaN.
 */

#if SINGLE
#define MANTISSA 23
#define BIAS 127
#define ROUNDER 0x1.8p23f          /* adding it rounds to an integer, kept in the low bits */
#define LN2_HIGH 0x1.62e4p-1f      /* 15 bits: its product with an exponent is exact */
#define LN2_LOW 0x1.7f7d1cp-20f
#define EXP_HIGHEST 89.0f          /* exp overflows from 88.73 on, */
#define EXP_LOWEST -104.0f         /* gives 0 below -103.98, */
#define EXPM1_LOWEST -18.0f        /* and expm1 gives -1 below -17.33 */
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
INLINE REAL FN(exp_tail)(REAL r) {
#if SINGLE
    REAL q = 0x1.a0330fp-13f;
    q = q * r + 0x1.6d71f7p-10f;
    q = q * r + 0x1.111189p-7f;
    q = q * r + 0x1.5554b1p-5f;
    q = q * r + 0x1.555555p-3f;
    return q * r + 0.5f;
#else
    REAL q = 0x1.1ee8893d052b7p-29;
    q = q * r + 0x1.af5e757099d71p-26;
    q = q * r + 0x1.27e5362a53f25p-22;
    q = q * r + 0x1.71ddf87e7d53fp-19;
    q = q * r + 0x1.a01a017bc8216p-16;
    q = q * r + 0x1.a01a01afd3f92p-13;
    q = q * r + 0x1.6c16c16c1f06ep-10;
    q = q * r + 0x1.111111110f6dap-7;
    q = q * r + 0x1.555555555553fp-5;
    q = q * r + 0x1.5555555555559p-3;
    return q * r + 0.5;
#endif
}

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
    REAL y = 1 + (r + r * r * FN(exp_tail)(r));
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
    REAL tail = r * r * FN(exp_tail)(r) + ((high - r) - low);
    REAL s = FN(power_of_two)(rounded - 1);
    REAL scaled = s * r, offset = s - (REAL)0.5;
    REAL sum = scaled + offset;
    /* Fast two-sum either way round: |offset| >= |scaled|, or offset is 0. */
    REAL error = scaled - (sum - offset);
    return 2 * (sum + (s * tail + error));
}

INLINE REAL FN(expm1)(REAL x) {
    REAL y = FN(expm1_core)(x > EXP_HIGHEST ? EXP_HIGHEST : x);
    /* Here x is the result to less than half a unit, and s*p would round a subnormal. */
    return FN(absolute)(x) < TINY ? x : y;
}

/* l in log(1 + f) = 2*s + s*z*l(z), s = f / (2 + f), z = s*s, for 1 + f in [sqrt(1/2), sqrt(2)]. */
INLINE REAL FN(log_tail)(REAL z) {
#if SINGLE
    REAL l = 0x1.31e342p-2f;
    l = l * z + 0x1.995eb7p-2f;
    return l * z + 0x1.55557ap-1f;
#else
    REAL l = 0x1.2f06351a00ef8p-3;
    l = l * z + 0x1.39a1a7102f47cp-3;
    l = l * z + 0x1.74663f9f7da1bp-3;
    l = l * z + 0x1.c71c52061df4bp-3;
    l = l * z + 0x1.24924941f4d3cp-2;
    l = l * z + 0x1.999999997fd7bp-2;
    return l * z + 0x1.5555555555592p-1;
#endif
}

/* n * ln(2) + log(1 + f) + c, for a small correction c. 2*s = f - s*f keeps f, which is exact,
 * in front: log(1 + f) = f - (f*f/2 - s*(f*f/2 + z*l(z))). */
INLINE REAL FN(log_sum)(REAL n, REAL f, REAL c) {
    REAL s = f / (2 + f), z = s * s, half_square = (REAL)0.5 * f * f;
    REAL rest = s * (half_square + z * FN(log_tail)(z)) + (n * LN2_LOW + c);
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
    REAL lift = x < SMALLEST_NORMAL ? (REAL)MANTISSA : 0, mantissa;
    REAL n = FN(split)(x < SMALLEST_NORMAL ? x * ((WORD)1 << MANTISSA) : x, &mantissa);
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
    y = x == 0 ? x : y;
    return x < (REAL)INFINITY ? y : x;
}

/* l as in `log_tail`, for f in [0, 1]: to 2**-27.7 and 2**-59.4 of the logarithm. */
INLINE REAL FN(log1p_tail)(REAL z) {
#if SINGLE
    REAL l = 0x1.1ef86ep-2f;
    l = l * z + 0x1.1eb616p-2f;
    l = l * z + 0x1.99d27ap-2f;
    return l * z + 0x1.5555p-1f;
#else
    REAL l = 0x1.5c8a77f31344cp-3;
    l = l * z + 0x1.559c2e6bd404ep-4;
    l = l * z + 0x1.efdd8a40581f5p-4;
    l = l * z + 0x1.10676834fdaefp-3;
    l = l * z + 0x1.3b1de32a56a06p-3;
    l = l * z + 0x1.745cb39b39cbap-3;
    l = l * z + 0x1.c71c741f8cb55p-3;
    l = l * z + 0x1.2492492085792p-2;
    l = l * z + 0x1.99999999a083fp-2;
    return l * z + 0x1.5555555555535p-1;
#endif
}

/* log1p for x in [0, 1] (or NaN), where no power of two need be split off: x - s*(x - z*l(z)). */
INLINE REAL FN(log1p_unit)(REAL x) {
    REAL s = x / (2 + x), z = s * s;
    return x - s * (x - z * FN(log1p_tail)(z));
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
    return FN(with_sign)(FN(ratio)(h), x);
}

/* 1 / (1 + e**-x), from e**-|x|; 1 - h / (1 + h) would cancel for h near 1. */
INLINE REAL FN(sigmoid)(REAL x) {
    REAL tail = FN(exp)(-FN(absolute)(x)), quotient = (x < 0 ? tail : 1) / (1 + tail);
    return x < 0 && tail < (REAL)0.5 ? tail - tail * quotient : quotient;
}

/* ln(1 + e**x) = max(x, 0) + ln(1 + e**-|x|). */
INLINE REAL FN(softplus)(REAL x) {
    return (x > 0 ? x : 0) + FN(log1p_unit)(FN(exp)(-FN(absolute)(x)));
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

/* The standard normal distribution function, erfc(-x / sqrt(2)) / 2. */
INLINE REAL FN(normal_cdf)(REAL x) {
    REAL size = FN(absolute)(x);
    size = size > (REAL)M_SQRT2 * ERFC_HIGHEST ? (REAL)M_SQRT2 * ERFC_HIGHEST : size;
    REAL z = size * (REAL)M_SQRT1_2;
    REAL upper = (REAL)0.5 * FN(erfc_core)((z - ERFC_K) / (z + ERFC_K)) / (1 + 2 * z);
    upper *= FN(gaussian)(size);
    return x < 0 ? upper : 1 - upper;
}

#undef MANTISSA
#undef BIAS
#undef ROUNDER
#undef LN2_HIGH
#undef LN2_LOW
#undef EXP_HIGHEST
#undef EXP_LOWEST
#undef EXPM1_LOWEST
#undef SMALLEST_NORMAL
#undef TINY
#undef SQRT_HALF_BITS
#undef ERFC_K
#undef ERFC_HIGHEST
