/* Registers of single-precision numbers of which a mask chooses lanes, by AVX-512 or AVX2. Where there is
 * neither, HAS_LANES is 0.
 */
#ifndef FASTDL_LANES_H
#define FASTDL_LANES_H

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define HAS_LANES 1
typedef __m512 floats;
typedef __mmask16 lane_mask;

INLINE floats all_lanes(float x) { return _mm512_set1_ps(x); }
INLINE lane_mask first_lanes(ptrdiff_t count) {
    return count < WORDS ? (lane_mask)((1u << count) - 1) : (lane_mask)0xFFFF;
}
INLINE int count_lanes(lane_mask mask) { return lanes_in16(mask); }

/* Zeros in the other lanes. */
INLINE floats load_lanes(lane_mask lanes, const float *source) { return _mm512_maskz_loadu_ps(lanes, source); }
/* Without the mask where it can be: what it stores would be slow to load again. */
INLINE void store_lanes(lane_mask lanes, float *target, floats x) {
    if (lanes == 0xFFFF)
        _mm512_storeu_ps(target, x);
    else
        _mm512_mask_storeu_ps(target, lanes, x);
}
INLINE void store_lanes_of_words(lane_mask lanes, uint32_t *target, words x) {
    _mm512_mask_storeu_epi32(target, lanes, (__m512i)x);
}

/* Comparisons; NaN is not negative and not zero. */
INLINE lane_mask not_negative(lane_mask lanes, floats x) {
    return _mm512_mask_cmp_ps_mask(lanes, x, _mm512_setzero_ps(), _CMP_NLT_UQ);
}
INLINE lane_mask positive(floats x) { return _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ); }
INLINE lane_mask not_zero(floats x) { return _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NEQ_UQ); }
/* Of words below 2**31. */
INLINE lane_mask at_least(words x, uint32_t least) {
    return _mm512_cmpge_epi32_mask((__m512i)x, _mm512_set1_epi32((int32_t)least));
}

/* x * factor in some lanes, zeros in the others. */
INLINE floats multiply_lanes(lane_mask lanes, floats x, floats factor) {
    return _mm512_maskz_mul_ps(lanes, x, factor);
}
/* x | bit in some lanes. */
INLINE words mark_lanes(lane_mask lanes, words x, words bit) {
    return (words)_mm512_mask_or_epi32((__m512i)x, lanes, (__m512i)x, (__m512i)bit);
}

/* Some lanes of x, one after the other; writes a whole register. */
INLINE void pack_lanes(lane_mask lanes, floats x, float *values) {
    _mm512_storeu_ps(values, _mm512_maskz_compress_ps(lanes, x));
}
/* The reverse: values in some lanes, zeros in the others; reads a whole register. */
INLINE floats spread_lanes(lane_mask lanes, const float *values) {
    return _mm512_maskz_expand_ps(lanes, _mm512_loadu_ps(values));
}
/* Some lanes of x and their units, one after the other; writes whole registers. */
INLINE void list_lanes(lane_mask lanes, floats x, words units, float *values, int32_t *columns) {
    pack_lanes(lanes, x, values);
    _mm512_storeu_si512(columns, _mm512_maskz_compress_epi32(lanes, (__m512i)units));
}
/* The same, but nothing behind them. */
INLINE void list_only_lanes(lane_mask lanes, floats x, words units, float *values, int32_t *columns) {
    const lane_mask there = first_lanes(count_lanes(lanes));
    _mm512_mask_storeu_ps(values, there, _mm512_maskz_compress_ps(lanes, x));
    _mm512_mask_storeu_epi32(columns, there, _mm512_maskz_compress_epi32(lanes, (__m512i)units));
}

#elif defined(__AVX2__) && defined(__BMI2__) && !defined(__AVX512F__)
#define HAS_LANES 1
typedef __m256 floats;
typedef uint32_t lane_mask;

INLINE floats all_lanes(float x) { return _mm256_set1_ps(x); }
INLINE lane_mask first_lanes(ptrdiff_t count) { return count < WORDS ? (1u << count) - 1 : 0xFF; }
INLINE int count_lanes(lane_mask mask) { return __builtin_popcount(mask); }

INLINE __m256i lanes_as_words(lane_mask lanes) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int32_t)lanes), bits), bits);
}
INLINE lane_mask words_as_lanes(__m256i x) { return (lane_mask)_mm256_movemask_ps(_mm256_castsi256_ps(x)); }

INLINE floats load_lanes(lane_mask lanes, const float *source) {
    return lanes == 0xFF ? _mm256_loadu_ps(source) : _mm256_maskload_ps(source, lanes_as_words(lanes));
}
INLINE void store_lanes(lane_mask lanes, float *target, floats x) {
    if (lanes == 0xFF)
        _mm256_storeu_ps(target, x);
    else
        _mm256_maskstore_ps(target, lanes_as_words(lanes), x);
}
INLINE void store_lanes_of_words(lane_mask lanes, uint32_t *target, words x) {
    if (lanes == 0xFF)
        _mm256_storeu_si256((__m256i *)target, (__m256i)x);
    else
        _mm256_maskstore_epi32((int *)target, lanes_as_words(lanes), (__m256i)x);
}

INLINE lane_mask not_negative(lane_mask lanes, floats x) {
    return lanes & (lane_mask)_mm256_movemask_ps(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_NLT_UQ));
}
INLINE lane_mask positive(floats x) {
    return (lane_mask)_mm256_movemask_ps(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GT_OQ));
}
INLINE lane_mask not_zero(floats x) {
    return (lane_mask)_mm256_movemask_ps(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_NEQ_UQ));
}
INLINE lane_mask at_least(words x, uint32_t least) {
    return words_as_lanes(_mm256_cmpgt_epi32((__m256i)x, _mm256_set1_epi32((int32_t)least - 1)));
}

INLINE floats multiply_lanes(lane_mask lanes, floats x, floats factor) {
    return _mm256_and_ps(_mm256_mul_ps(x, factor), _mm256_castsi256_ps(lanes_as_words(lanes)));
}
INLINE words mark_lanes(lane_mask lanes, words x, words bit) {
    return x | (bit & (words)lanes_as_words(lanes));
}

/* The numbers of the lanes that are there, moved together; and in each of these lanes how many of them come
 * before it. */
#define LANE_NUMBERS 0x0706050403020100
INLINE uint64_t lanes_as_bytes(lane_mask lanes) { return _pdep_u64(lanes, 0x0101010101010101) * 0xFF; }
INLINE __m256i bytes_as_words(uint64_t bytes) {
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)bytes));
}
INLINE __m256i lanes_together(lane_mask lanes) {
    return bytes_as_words(_pext_u64(LANE_NUMBERS, lanes_as_bytes(lanes)));
}
INLINE __m256i lanes_apart(lane_mask lanes) {
    return bytes_as_words(_pdep_u64(LANE_NUMBERS, lanes_as_bytes(lanes)));
}
INLINE void pack_lanes(lane_mask lanes, floats x, float *values) {
    _mm256_storeu_ps(values, _mm256_permutevar8x32_ps(x, lanes_together(lanes)));
}
INLINE floats spread_lanes(lane_mask lanes, const float *values) {
    const floats apart = _mm256_permutevar8x32_ps(_mm256_loadu_ps(values), lanes_apart(lanes));
    return _mm256_and_ps(apart, _mm256_castsi256_ps(lanes_as_words(lanes)));
}
INLINE void list_lanes(lane_mask lanes, floats x, words units, float *values, int32_t *columns) {
    pack_lanes(lanes, x, values);
    _mm256_storeu_si256((__m256i *)columns, _mm256_permutevar8x32_epi32((__m256i)units, lanes_together(lanes)));
}
INLINE void list_only_lanes(lane_mask lanes, floats x, words units, float *values, int32_t *columns) {
    const __m256i places = lanes_together(lanes), there = lanes_as_words(first_lanes(count_lanes(lanes)));
    _mm256_maskstore_ps(values, there, _mm256_permutevar8x32_ps(x, places));
    _mm256_maskstore_epi32(columns, there, _mm256_permutevar8x32_epi32((__m256i)units, places));
}

#else
#define HAS_LANES 0
#endif

#endif
