/* skiff diff --explain: what each tensor costs, read from the delta itself (diff.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "cli/diff.h"
#include "cli/show.h"

struct row {
    const char *name, *type;
    uint64_t end, bytes, elements, payload, side, chunks[SKF_CODE_COUNT];
};
struct skf_explain {
    struct row *rows; /* in order of the result; what lies between tensors has rows of its own */
    size_t n, at;
    uint32_t sides;       /* below this they are counted */
    uint64_t index, sent; /* bytes of head and index, and of all payloads */
};

static void add_row(struct skf_explain *t, const char *name, const char *type, uint64_t end)
{
    t->rows[t->n++] = (struct row){.name = name, .type = type, .end = end};
}

static enum skf_err make_rows(const struct skf_model *m, struct skf_explain *t)
{
    size_t n;
    const struct skf_tensor *tensors = skf_model_tensors(m, &n);
    uint64_t size = skf_model_source(m)->size, end = 0;
    t->rows = skf_calloc(2 * n + 1, sizeof *t->rows);
    if (!t->rows)
        return SKF_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct skf_type_info *info = skf_type_info((uint32_t)tensors[i].type);
        if (tensors[i].offset > end)
            add_row(t, end ? "(between tensors)" : "(head)", "", tensors[i].offset);
        end = tensors[i].offset + tensors[i].bytes;
        add_row(t, tensors[i].name, info ? info->name : "?", end);
        if (info)
            t->rows[t->n - 1].elements = tensors[i].bytes / info->block_bytes * info->block;
    }
    if (size > end)
        add_row(t, n ? "(behind the tensors)" : "(all)", "", size);
    return SKF_OK;
}

static void take_chunk(struct skf_explain *t, const struct skf_skd *skd, const struct skf_skd_chunk *c)
{
    while (t->at + 1 < t->n && t->rows[t->at].end <= c->result_offset)
        t->at++;
    if (t->n == 0)
        return;
    struct row *r = &t->rows[t->at];
    r->bytes += c->result_length;
    r->payload += c->payload_length;
    r->chunks[c->coding]++;
    if (c->side != SKF_NO_SIDE && t->sides <= c->side) { /* the first of its chunks */
        struct skf_skd_side s;
        skf_skd_side(skd, c->side, &s);
        r->side += s.payload_length;
        t->sides = c->side + 1;
    }
}

/* ---- order ----------------------------------------------------------------------------------------------------------------------- */
static double bits_of(const struct row *r)
{
    return r->elements ? 8.0 * (double)(r->payload + r->side) / (double)r->elements : 0;
}
static int by_name(const void *a, const void *b) { return strcmp(((const struct row *)a)->name, ((const struct row *)b)->name); }
static int descending(double a, double b) { return a < b ? 1 : a > b ? -1 : 0; }
static int by_sent(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    return descending((double)(x->payload + x->side), (double)(y->payload + y->side));
}
static int by_bytes(const void *a, const void *b)
{
    return descending((double)((const struct row *)a)->bytes, (double)((const struct row *)b)->bytes);
}
static int by_bits(const void *a, const void *b) { return descending(bits_of(a), bits_of(b)); }

static const struct {
    const char *name;
    int (*compare)(const void *, const void *);
} orders[] = {{"file", NULL}, {"sent", by_sent}, {"bytes", by_bytes}, {"bits", by_bits}, {"name", by_name}};

bool is_explain_sort(const char *sort)
{
    for (size_t i = 0; i < SKF_COUNT(orders); i++)
        if (strcmp(orders[i].name, sort) == 0)
            return true;
    return false;
}

enum skf_err skf_explain_make(const char *skd_path, const struct skf_model *neu, const char *sort, struct skf_explain **out,
                              struct skf_why *why)
{
    struct skf_explain *x = skf_calloc(1, sizeof *x);
    struct skf_map m = {0};
    struct skf_skd *skd = NULL;
    uint64_t index;
    enum skf_err e = x ? make_rows(neu, x) : SKF_ERR_NOMEM;
    if (e != SKF_OK)
        SKF_GO(e, skf_fail(why, e, "out of memory"));
    SKF_GO(e, skf_map_open(skd_path, &m, why));
    SKF_GO(e, m.size < SKF_SKD_HEAD ? skf_fail(why, SKF_ERR_FORMAT, "%s: cut short", skd_path) : SKF_OK);
    SKF_GO(e, skf_skd_index_size(m.data, &index, why));
    SKF_GO(e, index > m.size ? skf_fail(why, SKF_ERR_FORMAT, "%s: cut short", skd_path) : SKF_OK);
    SKF_GO(e, skf_skd_parse(m.data, index, &skd, why));
    for (uint64_t i = 0; i < skf_skd_info(skd)->n_chunks; i++) {
        struct skf_skd_chunk c;
        skf_skd_chunk(skd, i, &c);
        take_chunk(x, skd, &c);
    }
    x->index = skf_skd_info(skd)->index_size;
    x->sent = skf_skd_info(skd)->payload_size;
    for (size_t i = 0; sort && i < SKF_COUNT(orders); i++)
        if (orders[i].compare && strcmp(orders[i].name, sort) == 0)
            qsort(x->rows, x->n, sizeof *x->rows, orders[i].compare);
out:
    skf_skd_free(skd);
    skf_map_close(&m);
    if (e == SKF_OK)
        *out = x;
    else
        skf_explain_free(x);
    return e;
}

void skf_explain_free(struct skf_explain *x)
{
    if (!x)
        return;
    skf_free(x->rows);
    skf_free(x);
}

/* ---- telling --------------------------------------------------------------------------------------------------------------------- */
static void codings_text(const struct row *r, char *out, size_t cap)
{
    size_t at = 0;
    out[0] = 0;
    for (int k = 0; k < SKF_CODE_COUNT; k++) {
        if (!r->chunks[k] || at >= cap)
            continue;
        int w = snprintf(out + at, cap - at, "%s%s %llu", at ? ", " : "", skf_coding_name((enum skf_coding)k),
                         (unsigned long long)r->chunks[k]);
        at += w > 0 ? (size_t)w : 0;
    }
}

/* Names come from a file: control characters must not reach the terminal. */
static void print_name(const char *name)
{
    size_t n = 0;
    for (; *name && n < 40; name++, n++)
        (void)putchar((unsigned char)*name < 32 || *name == 127 ? '?' : *name);
    (void)printf("%*s", (int)(40 - n), "");
}

static double share_of(const struct skf_explain *t, const struct row *r)
{
    return 100.0 * (double)(r->payload + r->side) / (double)(t->index + t->sent);
}

void skf_explain_print(const struct skf_explain *t)
{
    (void)printf("%-40s %-8s %12s %11s %9s %8s %7s  %s\n", "tensor", "type", "bytes", "sent", "side", "bits/el", "share", "chunks");
    for (size_t i = 0; i < t->n; i++) {
        const struct row *r = &t->rows[i];
        char codings[160], bits[16] = "";
        codings_text(r, codings, sizeof codings);
        if (!r->bytes)
            continue;
        if (r->elements)
            (void)snprintf(bits, sizeof bits, "%.3f", bits_of(r));
        print_name(r->name);
        (void)printf(" %-8s %12llu %11llu %9llu %8s %6.2f%%  %s\n", r->type, (unsigned long long)r->bytes,
                     (unsigned long long)r->payload, (unsigned long long)r->side, bits, share_of(t, r), codings);
    }
    (void)printf("%-40s %-8s %12s %11llu %9s %8s %6.2f%%\n", "(head and index)", "", "", (unsigned long long)t->index, "", "",
                 100.0 * (double)t->index / (double)(t->index + t->sent));
}

static enum skf_err row_json(const struct skf_explain *t, const struct row *r, skf_json *to)
{
    skf_json *coding = skf_json_obj();
    SKF_TRY(skf_json_set(to, "coding", coding));
    for (int k = 0; k < SKF_CODE_COUNT; k++)
        if (r->chunks[k])
            SKF_TRY(skf_json_set(coding, skf_coding_name((enum skf_coding)k), skf_json_int((int64_t)r->chunks[k])));
    SKF_TRY(skf_json_set(to, "name", skf_show_text(r->name, strlen(r->name))));
    SKF_TRY(skf_json_set(to, "type", skf_json_str(r->type)));
    SKF_TRY(skf_json_set(to, "bytes", skf_json_int((int64_t)r->bytes)));
    SKF_TRY(skf_json_set(to, "sent", skf_json_int((int64_t)r->payload)));
    SKF_TRY(skf_json_set(to, "side", skf_json_int((int64_t)r->side)));
    SKF_TRY(skf_json_set(to, "bits_per_element", skf_json_real(bits_of(r))));
    return skf_json_set(to, "share_percent", skf_json_real(share_of(t, r)));
}

enum skf_err skf_explain_json(const struct skf_explain *t, skf_json *to)
{
    skf_json *list = skf_json_arr();
    SKF_TRY(skf_json_set(to, "tensors", list));
    for (size_t i = 0; i < t->n; i++) {
        if (!t->rows[i].bytes)
            continue;
        skf_json *one = skf_json_obj();
        SKF_TRY(skf_json_push(list, one));
        SKF_TRY(row_json(t, &t->rows[i], one));
    }
    return SKF_OK;
}
