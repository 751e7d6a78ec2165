/*
 * A block as the fit sees it: value = scale * code + minimum, codes of types without a minimum counted from their middle.
 */
#ifndef SKF_MODEL_REFIT_BLOCK_PRIV_H
#define SKF_MODEL_REFIT_BLOCK_PRIV_H

#include "model/refit.h"

struct refit_kind {
    uint32_t bytes;
    int lowest, highest;
    bool has_minimum;
};
struct refit_scales {
    uint16_t d, m; /* halves; m is 0 without a minimum */
};
struct refit_kind refit_kind_of(enum skf_type t);
void refit_unpack(enum skf_type t, const uint8_t *p, struct refit_scales *s, int16_t code[SKF_REFIT_BLOCK]);
void refit_pack(enum skf_type t, const struct refit_scales *s, const int16_t code[SKF_REFIT_BLOCK], uint8_t *p);

#endif
