/*
 * SKF_CODE_MIXED: a chunk as regions, each coded in the way that suits it: numbers as differences from numbers of the source, numbers
 * by themselves, and all other bytes as one zstd frame.  What is read of the source are a few ranges, one behind the other
 * (the prefix): the frame may refer to it, and differences are taken from places in it.
 *
 * This is how tensors inside of files that are not understood (ONNX, engines, archives) are coded, and rows that a tensor of
 * the source does not have.
 */
#ifndef SKF_DELTA_REGION_PRIV_H
#define SKF_DELTA_REGION_PRIV_H

#include "delta/int_priv.h"
#include "delta/zpack_priv.h"

#define SKF_REGIONS_MAX 256u

enum skf_region_kind {
    SKF_REGION_REST = 0,  /* its bytes stand in the frame */
    SKF_REGION_INT = 1,   /* integer differences from a place in the prefix */
    SKF_REGION_FIRST = 2, /* integer differences from zeros */
    SKF_REGION_FLOATS = 3, /* floats by themselves */
    SKF_REGION_CAST = 4   /* integer differences from a place in the prefix, whose numbers become of the region's type first */
};
struct skf_region {
    uint32_t at, n; /* bytes of the chunk */
    uint32_t from;  /* INT: in the prefix, or behind it: in the chunk, wholly before the region */
    enum skf_region_kind kind;
    enum skf_type type;
    uint64_t row_bytes;
    enum skf_type old_type; /* CAST: what the numbers in the prefix are */
};

struct skf_region_room { /* memory of one thread for regions; each at most a chunk */
    struct skf_area rest, zeros;
};
/* Makes the n bytes of a chunk (1 to SKF_CHUNK_MAX). SKF_ERR_FORMAT for what no encoder writes. */
SKF_MUST enum skf_err skf_regions_get(struct skf_work *w, struct skf_region_room *room, const uint8_t *payload,
                                      size_t payload_n, const uint8_t *prefix, size_t prefix_n, uint8_t *out, size_t n);

/* ---- floats by themselves ----------------------------------------------------------------------------------------------- */
bool skf_floats_fit(enum skf_type t); /* F32, F16, BF16 */
/* n bytes, a multiple of the type's. SKF_ERR_LIMIT when `out` has no room: not worth coding so. */
SKF_MUST enum skf_err skf_floats_put(struct skf_work *w, enum skf_type t, const uint8_t *p, size_t n, struct skf_buf *out);
SKF_MUST enum skf_err skf_floats_get(struct skf_work *w, enum skf_type t, struct skf_reader *r, uint8_t *p, size_t n);

/* ---- numbers of another type --------------------------------------------------------------------------------------------- */
/* Two of F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1, and n bytes of `type` (whole blocks) are what *old_n of `old` become. */
bool is_castable(enum skf_type old, enum skf_type type, uint64_t n, uint64_t *old_n);
/* Those n bytes, rounded as `skiff quantize` does it. SKF_ERR_FORMAT where a number is not finite. */
SKF_MUST enum skf_err skf_cast(enum skf_type old, enum skf_type type, const uint8_t *p, uint8_t *out, size_t n);

/* How numbers of the type are coded by themselves: FLOATS, FIRST, or REST for not at all. */
enum skf_region_kind skf_region_alone(enum skf_type t);

/* ---- building ------------------------------------------------------------------------------------------------------------- */
struct skf_region_tools { /* what the encoder has at hand */
    struct skf_work *work;
    struct skf_zenc *enc;
    struct skf_region_room *room;
    struct skf_area *match; /* tables of the search */
    struct skf_buf *trial;
    int level;
};
#define SKF_USED_BLOCK 4096u
#define SKF_USED_MAX 1024u /* blocks of a prefix */
struct skf_regions_found {
    struct skf_region g[SKF_REGIONS_MAX]; /* in order, those of REST between the others included; count is 0 when there are no others */
    uint32_t count;
    uint32_t numbers, matched;  /* bytes in regions that are no REST; bytes that the prefix has as they are */
    uint8_t used[SKF_USED_MAX]; /* blocks of the prefix that have something to do with the chunk */
};
/* Finds the regions of a chunk of unknown content that are worth coding as numbers. prefix_n is at most SKF_USED_MAX blocks. */
SKF_MUST enum skf_err skf_regions_find(const struct skf_region_tools *t, const uint8_t *p, size_t n,
                                       const uint8_t *prefix, size_t prefix_n, struct skf_regions_found *f);
/* Writes a chunk as these regions, which cover it in order. SKF_ERR_LIMIT when `out` has no room. */
SKF_MUST enum skf_err skf_regions_put(const struct skf_region_tools *t, const struct skf_region *regions,
                                      uint32_t count, const uint8_t *p, const uint8_t *prefix, size_t prefix_n,
                                      struct skf_buf *out);
/* The payload of one region that is no REST. */
SKF_MUST enum skf_err skf_region_put(const struct skf_region_tools *t, const struct skf_region *g, const uint8_t *p,
                                     const uint8_t *prefix, size_t prefix_n, struct skf_buf *out);

#endif
