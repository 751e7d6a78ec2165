/* The GGUF reader on any bytes, in one piece and in pieces; what it accepts must stand every later use. */
#include <stdint.h>

#include "base/alloc.h"
#include "model/model.h"
#include "tests/lib/gguf_make.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t look_at_metadata(const struct skf_gguf *g)
{
    uint64_t sum = 0, u;
    double d;
    for (uint64_t i = 0; i < g->n_kv; i++) {
        const struct skf_gguf_value *v = &g->kv[i].value;
        for (uint64_t k = 0; k < v->raw_len; k++)
            sum += v->raw[k];
        for (uint64_t k = 0; k < v->count && k < 64; k++) {
            sum += is_gguf_array_u64(v, k, &u) ? u : 0;
            sum += is_gguf_array_f64(v, k, &d) ? 1 : 0;
            sum += v->strings ? v->strings[k].n : 0;
        }
    }
    return sum + (is_gguf_u64(g, "general.alignment", &u) ? u : 0);
}

static void look_at(const struct skf_source *src)
{
    struct skf_model *m;
    struct skf_cut cut;
    if (skf_model_open_source(src, "input", &m, NULL) != SKF_OK)
        return;
    size_t n;
    const struct skf_tensor *t = skf_model_tensors(m, &n);
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (t[i].offset < at || t[i].offset + t[i].bytes > src->size || t[i].row_bytes == 0 ||
            t[i].bytes % t[i].row_bytes || !skf_model_find(m, t[i].name))
            __builtin_trap();
        at = t[i].offset + t[i].bytes;
    }
    if (skf_cut_make(m, 1, NULL, &cut, NULL) == SKF_OK) {
        at = 0;
        for (uint64_t i = 0; i < cut.n; i++) {
            if (cut.chunks[i].offset != at || cut.chunks[i].length == 0 || cut.chunks[i].length > SKF_CHUNK_MAX)
                __builtin_trap();
            at += cut.chunks[i].length;
        }
        if (at != src->size)
            __builtin_trap();
        skf_cut_free(&cut);
    }
    if (skf_model_gguf(m))
        (void)look_at_metadata(skf_model_gguf(m));
    skf_model_close(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct skf_source whole = skf_source_of(data, size);
    struct pieces p = {data, size, 61};
    struct skf_source pieces = {size, span_of_pieces, &p, NULL};
    look_at(&whole);
    if (size)
        look_at(&pieces);
    return 0;
}
