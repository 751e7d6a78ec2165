/* Laying matrices out for the kernels (lanes.h). */
#include "kernels/lanes_priv.h"

static const struct skf_lanes_form forms[] = {
    {SKF_T_Q4_0, 32, 18, 1, {0}, 4, {{2, 4}}, false},
    {SKF_T_Q4_1, 32, 20, 2, {0, 2}, 4, {{4, 4}}, false},
    {SKF_T_Q5_0, 32, 22, 1, {0}, 5, {{2, 1}, {6, 4}}, true},
    {SKF_T_Q5_1, 32, 24, 2, {0, 2}, 5, {{4, 1}, {8, 4}}, true},
    {SKF_T_Q8_0, 32, 34, 1, {0}, 8, {{2, 8}}, false},
    {SKF_T_Q4_K, 256, 144, 2, {0, 2}, 35, {{4, 3}, {16, 32}}, false},          /* scales, codes */
    {SKF_T_Q5_K, 256, 176, 2, {0, 2}, 43, {{4, 3}, {16, 8}, {48, 32}}, false}, /* scales, high bits, low bits */
    {SKF_T_Q6_K, 256, 210, 1, {208}, 52, {{192, 4}, {128, 16}, {0, 32}}, false},
};

const struct skf_lanes_form *skf_lanes_form(enum skf_type t)
{
    for (size_t i = 0; i < SKF_COUNT(forms); i++)
        if (forms[i].type == t)
            return &forms[i];
    return NULL;
}

bool is_lanes_type(enum skf_type t) { return skf_lanes_form(t) != NULL; }

uint64_t skf_lanes_size(const struct skf_weight *w)
{
    const struct skf_lanes_form *f = skf_lanes_form(w->type);
    uint64_t groups = ((uint64_t)w->rows + SKF_LANES - 1) / SKF_LANES, n;
    if (!f || __builtin_mul_overflow(groups, skf_lanes_group(f, w->cols), &n) || n >> 62)
        return 0;
    return n;
}

/* Bit 4 k + j to bit 8 j + k: two exchanges of bits that lie 4 k + j and 8 j + k apart, done as a transpose of 8 x 4 bits. */
static uint32_t spread(uint32_t h)
{
    uint32_t out = 0;
    for (uint32_t j = 0; j < 4; j++)
        for (uint32_t k = 0; k < 8; k++)
            out |= (h >> (4 * k + j) & 1u) << (8 * j + k);
    return out;
}

void skf_lanes_blocks(const struct skf_lanes_form *f, const uint8_t *const *rp, uint32_t b0, uint32_t n, uint8_t *head,
                     uint8_t *body)
{
    for (uint32_t r = 0; r < SKF_LANES; r++) {
        uint8_t *h = head + (size_t)2 * r, *d = body + (size_t)4 * r;
        for (uint32_t b = 0; b < n; b++) {
            const uint8_t *p = rp[r] ? rp[r] + (size_t)(b0 + b) * f->bytes : NULL;
            for (uint32_t i = 0; i < f->halves; i++, h += SKF_LANES_HALF)
                memcpy(h, p ? p + f->half_at[i] : (const uint8_t[2]){0}, 2);
            uint32_t first = 0;
            for (size_t i = 0; i < SKF_COUNT(f->run); i++)
                for (uint32_t k = 0; k < f->run[i].words; k++, d += SKF_LANES_WORD, first++) {
                    uint32_t v = p ? skf_load32(p + f->run[i].at + (size_t)4 * k) : 0;
                    v = f->is_spread && first == 0 ? spread(v) : v;
                    memcpy(d, &v, 4);
                }
        }
    }
}

void skf_lanes_lay(const struct skf_weight *w, uint32_t group0, uint32_t group1, uint8_t *out)
{
    const struct skf_lanes_form *f = skf_lanes_form(w->type);
    if (!f || group0 >= group1)
        return;
    uint64_t heads = skf_lanes_heads(f, w->cols), bytes = skf_lanes_group(f, w->cols);
    uint32_t seg = skf_weight_seg(w, group0 * SKF_LANES), blocks = w->cols / f->block;
    for (uint32_t g = group0; g < group1; g++) {
        const uint8_t *rp[SKF_LANES] = {NULL};
        uint32_t n = SKF_MIN(w->rows - g * SKF_LANES, SKF_LANES);
        uint8_t *to = out + g * bytes;
        skf_row_group(w, g * SKF_LANES, n, n, &seg, rp);
        uint64_t used = (uint64_t)blocks * f->halves * SKF_LANES_HALF;
        memset(to + used, 0, heads - used);
        skf_lanes_blocks(f, rp, 0, blocks, to, to + heads);
    }
}
