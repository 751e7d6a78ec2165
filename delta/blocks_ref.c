/* Predictions of codes in plain C (blocks_priv.h), and who makes them on this machine. */
#include "delta/blocks_priv.h"

/* Sixteenths of a cell from its lower edge to the part: finer where most of what does not change lies. */
static const uint8_t part_of[16] = {5, 5, 4, 4, 3, 3, 2, 1, 0, 1, 2, 3, 3, 4, 4, 5};

static inline int held(int v, int low, int high) { return v < low ? low : v > high ? high : v; }

void skf_predict_ref(const int8_t *code, const float *guess, const struct skf_map *map, uint32_t n, unsigned unit,
                     const struct skf_range *range, const struct skf_predictions *out)
{
    for (uint32_t u = 0, i = 0; u < n; u++) {
        const struct skf_map m = map[u];
        for (unsigned e = 0; e < unit; e++, i++) {
            int q = code[i];
            float x = m.ratio * (float)q + m.offset;
            if (guess)
                x = x + guess[i] * m.slope;
            x = x > -1000.0f ? x : -1000.0f; /* what is no number too */
            x = x < 1000.0f ? x : 1000.0f;
            /* To the nearest sixteenth, ties to even: above 2^23 nothing smaller than 1 is left. */
            float whole = x * 16.0f + 12582912.0f;
            int sixteenths = (int)(whole - 12582912.0f) + 8;
            int c = held((sixteenths + (1 << 20)) / 16 - (1 << 16), range->low, range->high), part = sixteenths & 15;
            bool is_top = q >= range->end_high, is_end = is_top || q <= range->end_low;
            out->code[i] = (int8_t)(is_end ? q : c);
            out->key[i] = (uint8_t)(is_end ? m.end_class + (c != q) : m.class + part_of[part]);
            out->turn[i] = (int8_t) - (is_end ? is_top : part < 8);
        }
    }
}

skf_predict_fn *skf_predict_pick(enum skf_isa isa, unsigned unit)
{
#if defined __x86_64__
    if (unit % 16 == 0 && (isa == SKF_ISA_AVX512 || isa == SKF_ISA_AMX))
        return skf_predict_avx512;
    if (unit % 16 == 0 && isa == SKF_ISA_AVX2)
        return skf_predict_avx2;
#endif
    return skf_predict_ref;
}
