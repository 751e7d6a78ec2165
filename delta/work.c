/* Memory of a coding thread, and numbers of variable length (work_priv.h). */
#include "delta/work_priv.h"

#include "base/alloc.h"

enum skf_err skf_area_need(struct skf_area *a, size_t n)
{
    if (n <= a->cap)
        return SKF_OK;
    uint8_t *p = skf_alloc(n);
    if (!p)
        return SKF_ERR_NOMEM;
    skf_free(a->p);
    *a = (struct skf_area){p, n};
    return SKF_OK;
}

void skf_area_free(struct skf_area *a)
{
    skf_free(a->p);
    *a = (struct skf_area){NULL, 0};
}

enum skf_err skf_area_view(const struct skf_source *s, uint64_t off, size_t n, struct skf_area *a, const uint8_t **p)
{
    uint64_t run;
    if (n == 0 || off > s->size || n > s->size - off)
        return SKF_ERR_FORMAT;
    SKF_TRY(s->span(s->ctx, off, p, &run));
    if (run >= n)
        return SKF_OK;
    SKF_TRY(skf_area_need(a, n));
    *p = a->p;
    return skf_source_read(s, off, a->p, n);
}

enum skf_err skf_work_init(struct skf_work *w)
{
    *w = (struct skf_work){0};
    if (skf_isa_pick(&w->isa, NULL) != SKF_OK) /* a name that is wrong here is told by those who compute with it */
        w->isa = SKF_ISA_REF;
    w->dec = skf_zdec_new();
    return w->dec ? SKF_OK : SKF_ERR_NOMEM;
}

void skf_work_free(struct skf_work *w)
{
    struct skf_area *all[] = {&w->tables, &w->words, &w->hist, &w->sym, &w->symkey, &w->mask, &w->maskkey, &w->raw,
                              &w->val,    &w->key,   &w->level, &w->flag, &w->part,
                              &w->ref,    &w->same,   &w->factor, &w->sample,
                              &w->side,   &w->side_v, &w->narrow, &w->zero,
                              &w->low.columns, &w->low.rows, &w->low.line, &w->low.merged};
    for (size_t i = 0; i < SKF_COUNT(all); i++)
        skf_area_free(all[i]);
    skf_zdec_free(w->dec);
    *w = (struct skf_work){0};
}

enum skf_err skf_put_varint(struct skf_buf *b, uint64_t v)
{
    uint8_t t[10];
    size_t n = 0;
    do {
        t[n++] = (uint8_t)((v & 127) | (v > 127 ? 128 : 0));
        v >>= 7;
    } while (v);
    return skf_buf_put(b, t, n);
}

enum skf_err skf_get_varint(struct skf_reader *r, uint64_t *v)
{
    uint64_t x = 0;
    size_t left = skf_reader_left(r);
    for (unsigned i = 0; i < 10 && i < left; i++) {
        uint8_t c = r->p[i];
        if ((i == 9 && c > 1) || (i > 0 && c == 0))
            return SKF_ERR_FORMAT; /* over 64 bits, or not the shortest form */
        x |= (uint64_t)(c & 127) << 7 * i;
        if (c < 128) {
            r->p += i + 1;
            *v = x;
            return SKF_OK;
        }
    }
    return SKF_ERR_FORMAT;
}

enum skf_err skf_put_svarint(struct skf_buf *b, uint64_t v) { return skf_put_varint(b, v << 1 ^ (0 - (v >> 63))); }

enum skf_err skf_get_svarint(struct skf_reader *r, uint64_t *v)
{
    uint64_t z;
    SKF_TRY(skf_get_varint(r, &z));
    *v = z >> 1 ^ (0 - (z & 1));
    return SKF_OK;
}

