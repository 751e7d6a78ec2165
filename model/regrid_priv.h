/* Blocks as codes on grids, for regrid.c: one grid for each unit of a block's elements. */
#ifndef SKF_MODEL_REGRID_PRIV_H
#define SKF_MODEL_REGRID_PRIV_H

#include "model/tensor.h"

enum { REGRID_BLOCK = 256, REGRID_UNITS = 16 }; /* at most */

/* Code q of lowest..highest stands for d * (q - zero) + m. */
struct cells {
    float d, m;
    int lowest, highest, zero;
};
/* Elements of a unit; 0 for types that have no such grid. */
unsigned regrid_unit(enum skf_type t);
void regrid_get(enum skf_type t, const uint8_t *block, struct cells *cells, int16_t *code);
void regrid_put(enum skf_type t, const int16_t *code, uint8_t *block); /* scales stay */

#endif
