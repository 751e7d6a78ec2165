/* The loops of float_priv.h as every machine runs them. */
#define NAME(x) x##_ref
#include "delta/float_body_priv.h"

#include "base/buf.h"

static void far_ref(const uint8_t *sym, uint64_t *mask, uint32_t n, unsigned least)
{
    const uint64_t each = 0x0101010101010101u;
    for (uint32_t i = 0; i < n; i += 64) {
        uint8_t pad[64] = {0};
        const uint8_t *p = n - i < 64 ? memcpy(pad, sym + i, n - i) : sym + i;
        mask[i / 64] = 0;
        for (unsigned k = 0; k < 8; k++) {
            uint64_t x = skf_le64(p + 8 * k);
            x = (x | ((x & 127 * each) + (128 - least) * each)) >> 7 & each;
            mask[i / 64] |= (x * 0x0102040810204080u >> 56) << 8 * k;
        }
    }
}

static SKF_LOOPS void measure_ref(const uint8_t *ref, const uint8_t *neu, uint32_t n, unsigned exponent_at,
                                  unsigned shift, float *move, float *size)
{
    const uint32_t mask = (1u << (15 - exponent_at)) - 1;
    float moves[STEP] = {0}, sizes[STEP] = {0};
    for (uint32_t i = 0; i < n; i += STEP) {
        uint16_t pad[2 * STEP] = {0};
        const uint8_t *a = ref + 2 * (size_t)i, *b = neu + 2 * (size_t)i;
        if (n - i < STEP) {
            memcpy(pad, a, 2 * (size_t)(n - i));
            memcpy(pad + STEP, b, 2 * (size_t)(n - i));
            a = (const uint8_t *)pad;
            b = (const uint8_t *)(pad + STEP);
        }
        for (unsigned k = 0; k < STEP; k++) {
            int32_t d = (int32_t)(ordered16(half_in(b, k)) >> shift) - (int32_t)(ordered16(half_in(a, k)) >> shift);
            uint32_t e = (uint32_t)half_in(a, k) >> exponent_at & mask;
            float unit = skf_bits_float((e < 190 ? e : 190) << 23);
            moves[k] += (float)(d < 0 ? -d : d) * unit;
            sizes[k] += unit;
        }
    }
    *move = sum_of(moves, STEP);
    *size = sum_of(sizes, STEP);
}

static SKF_LOOPS void guess_ref(const int8_t *u, const float *restrict v, unsigned rank, uint32_t n, float unit,
                                float *restrict guess)
{
    for (uint32_t i = 0; i < n; i += 4 * STEP) {
        float sum[4 * STEP] = {0};
        uint32_t m = n - i < 4 * STEP ? n - i : 4 * STEP;
        for (unsigned k = 0; k < rank; k++) {
            const float by = u[k], *row = v + (size_t)k * n + i;
            if (m == 4 * STEP)
                for (unsigned j = 0; j < 4 * STEP; j++)
                    sum[j] += by * row[j];
            else
                for (unsigned j = 0; j < m; j++)
                    sum[j] += by * row[j];
        }
        for (unsigned j = 0; j < m; j++)
            guess[i + j] = sum[j] * unit;
    }
}

static SKF_LOOPS float dot_ref(const float *restrict a, const float *restrict b, uint32_t n)
{
    float s[2 * STEP] = {0};
    uint32_t i = 0;
    for (; i + 2 * STEP <= n; i += 2 * STEP)
        for (unsigned k = 0; k < 2 * STEP; k++)
            s[k] += a[i + k] * b[i + k];
    for (; i < n; i++)
        s[0] += a[i] * b[i];
    return sum_of(s, 2 * STEP);
}

const struct skf_loops skf_loops_ref = {
    keys_ref,        add_ref,         sub_ref,        far_ref,       measure_ref,
    guess_ref,       NULL,            guess_bf16_ref,  guess_f16_ref,   guess_f32_ref,
    f16_to_bf16_ref, bf16_to_f16_ref, change_bf16_ref, change_f16_ref, dot_ref,
    add_scaled_ref,
};

const struct skf_loops *skf_loops_of(enum skf_isa isa)
{
#if defined __x86_64__
    if (isa == SKF_ISA_AVX512 || isa == SKF_ISA_AMX)
        return &skf_loops_avx512;
    if (isa == SKF_ISA_AVX2)
        return &skf_loops_avx2;
#endif
    return &skf_loops_ref;
}
