/* A payload of regions from anybody: two bytes choose the sizes of prefix and chunk, the rest is the payload. */
#include "delta/region_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static uint8_t prefix[16 * 256], out[16 * 256];

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct skf_work w;
    struct skf_region_room room = {{0}, {0}};
    if (n < 2 || skf_work_init(&w) != SKF_OK)
        return 0;
    for (size_t i = 0; i < sizeof prefix; i++)
        prefix[i] = (uint8_t)(i * 167 + (i >> 8));
    size_t prefix_n = (size_t)p[0] * 16;
    enum skf_err e = skf_regions_get(&w, &room, p + 2, n - 2, prefix_n ? prefix : NULL, prefix_n, out, ((size_t)p[1] + 1) * 16);
    if (e != SKF_OK && e != SKF_ERR_FORMAT && e != SKF_ERR_NOMEM)
        __builtin_trap();
    skf_area_free(&room.rest);
    skf_area_free(&room.zeros);
    skf_work_free(&w);
    return 0;
}
