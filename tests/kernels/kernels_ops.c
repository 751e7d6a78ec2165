/*
 * The operator tables: the reference against the formulas of kernels.h in double, every instruction set of this machine against
 * the reference to the bit, many tokens against one, rows in one segment against rows in many.  Shapes are awkward on purpose:
 * one row, one more or less than a group, tails of every sum.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "kernels/lanes_priv.h"
#include "tests/kernels/tables.h"

static void fill(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = uniform() * (next() % 16 == 0 ? 8.0f : 1.0f);
}

static const enum skf_type types[] = {SKF_T_F32,  SKF_T_F16,  SKF_T_BF16, SKF_T_Q8_0, SKF_T_Q4_0, SKF_T_Q4_1,
                                      SKF_T_Q5_0, SKF_T_Q5_1, SKF_T_Q4_K, SKF_T_Q5_K, SKF_T_Q6_K};

/* A matrix of random but finite weights, cut into segments that lie apart. */
struct matrix {
    struct skf_weight w;
    struct skf_rows seg[64];
    uint8_t *bytes;
};
static void random_row(enum skf_type t, uint8_t *p, uint32_t cols)
{
    const struct skf_type_info *info = skf_type_info(t);
    size_t bytes = (size_t)cols / info->block * info->block_bytes;
    for (size_t i = 0; i < bytes; i++)
        p[i] = (uint8_t)next();
    for (uint32_t b = 0; b < cols / info->block; b++) {
        uint8_t *q = p + (size_t)b * info->block_bytes;
        uint16_t h[2] = {skf_f32_to_f16(uniform() * 0.1f), skf_f32_to_f16(uniform() * 0.1f)};
        float f = uniform();
        const struct skf_lanes_form *form = skf_lanes_form(t);
        if (t == SKF_T_F32)
            memcpy(q, &f, 4);
        else if (t == SKF_T_BF16)
            h[0] = skf_f32_to_bf16(f), memcpy(q, h, 2);
        else if (t == SKF_T_F16)
            memcpy(q, h, 2);
        for (uint32_t i = 0; form && i < form->halves; i++)
            memcpy(q + form->half_at[i], h + i, 2);
    }
}
static void matrix_make(struct matrix *m, enum skf_type t, uint32_t rows, uint32_t cols, bool is_cut)
{
    const struct skf_type_info *info = skf_type_info(t);
    memset(m, 0, sizeof *m);
    m->w = (struct skf_weight){t, rows, cols, (uint64_t)cols / info->block * info->block_bytes, 0, m->seg, NULL, NULL};
    m->bytes = skf_alloc((size_t)rows * m->w.row_bytes + 64 * 7);
    assert_non_null(m->bytes);
    uint8_t *p = m->bytes;
    for (uint32_t r = 0; r < rows;) {
        uint32_t some = 1 + next() % 7, n = is_cut && m->w.n_seg < 63 ? SKF_MIN(some, rows - r) : rows - r;
        m->seg[m->w.n_seg++] = (struct skf_rows){p, r, n};
        for (uint32_t i = 0; i < n; i++, p += m->w.row_bytes)
            random_row(t, p, cols);
        p += 1 + next() % 7; /* and nothing is aligned */
        r += n;
    }
}

static void acts_make(struct skf_acts *a, const struct skf_ops *ops, const float *x, uint32_t m, uint32_t n)
{
    size_t blocks = n / SKF_QBLOCK;
    *a = (struct skf_acts){.m = m, .n = n, .x = x, .ldx = n};
    a->q = skf_calloc(blocks * m + 1, SKF_QBLOCK);
    a->d = skf_calloc(blocks * m + 1, sizeof *a->d);
    a->s = skf_calloc(blocks * m + 1, sizeof *a->s);
    a->sum = skf_calloc(blocks * m + 1, sizeof *a->sum);
    a->low = skf_calloc(blocks * m + 1, sizeof *a->low);
    assert_true(a->q && a->d && a->s && a->sum && a->low);
    if (n % SKF_QBLOCK == 0)
        for (uint32_t t = 0; t < m; t++)
            ops->quantize(x + (size_t)t * n, n, a, t);
}
static void acts_free(struct skf_acts *a)
{
    skf_free(a->q);
    skf_free(a->d);
    skf_free(a->s);
    skf_free(a->sum);
    skf_free(a->low);
}

static void test_quantize_is_close_and_the_same_everywhere(void **state)
{
    enum { N = 32 * 9 };
    float x[N];
    fill(x, N);
    memset(x + 32, 0, 32 * sizeof *x);                       /* all zero */
    x[64] = 1e-31f, memset(x + 65, 0, 31 * sizeof *x);       /* too small to tell from zero */
    x[96] = INFINITY, x[128] = NAN;                          /* what must not reach the codes */
    for (int i = 0; i < 32; i++)                             /* halves go to even */
        x[160 + i] = i == 0 ? 127.0f : (float)i + 0.5f;
    struct skf_acts ref;
    acts_make(&ref, tables[0], x, 1, N);
    for (uint32_t i = 0; i < N; i++) {
        float d = ref.d[i / 32];
        if (i / 32 == 3 || i / 32 == 4)
            assert_true(isnan(d) && ref.q[i] == 0);
        else
            assert_true(fabsf(x[i] - d * (float)ref.q[i]) <= 0.5001f * d + SKF_TINY);
    }
    assert_int_equal(ref.q[162], 2);
    assert_int_equal(ref.q[163], 4);
    for (size_t k = 1; k < n_tables; k++) {
        struct skf_acts a;
        acts_make(&a, tables[k], x, 1, N);
        assert_memory_equal(a.q, ref.q, N);
        assert_memory_equal(a.d, ref.d, N / 32 * sizeof *a.d);
        assert_memory_equal(a.s, ref.s, N / 32 * sizeof *a.s);
        assert_memory_equal(a.sum, ref.sum, N / 32 * sizeof *a.sum);
        assert_memory_equal(a.low, ref.low, N / 32 * sizeof *a.low);
        acts_free(&a);
    }
    acts_free(&ref);
}

static void test_reference_matmul_is_the_formula(void **state)
{
    enum { ROWS = 5, COLS = 512 };
    for (size_t k = 0; k < SKF_COUNT(types); k++) {
        static float x[2 * COLS], y[2 * ROWS], row[COLS];
        bool is_blocks = skf_type_info(types[k])->block > 1;
        fill(x, 2 * COLS);
        struct matrix m;
        struct skf_acts a;
        matrix_make(&m, types[k], ROWS, COLS, true);
        acts_make(&a, tables[0], x, 2, COLS);
        tables[0]->matmul(&m.w, &a, 0, ROWS, y, ROWS);
        for (uint32_t t = 0; t < 2; t++)
            for (uint32_t r = 0; r < ROWS; r++) {
                double want = 0, size = 0, most = 0;
                assert_int_equal(skf_dequantize(types[k], skf_weight_row(&m.w, r), row, COLS), SKF_OK);
                for (uint32_t i = 0; i < COLS; i++) {
                    size_t at = (size_t)(i / 32) * 2 + t;
                    double v = is_blocks ? (double)a.d[at] * a.q[at * 32 + i % 32] : x[t * COLS + i];
                    want += (double)row[i] * v;
                    size += fabs(v);
                    most = fmax(most, fabs((double)row[i]));
                }
                /* each of some 40 roundings is at most 2^-24 of what has been summed up by then; a code and its minimum are larger
                 * than the weight they make */
                assert_true(fabs(y[t * ROWS + r] - want) <= 4e-6 * size * most);
            }
        acts_free(&a);
        skf_free(m.bytes);
    }
}

static void one_shape(enum skf_type type, uint32_t rows, uint32_t cols, uint32_t m)
{
    struct matrix w;
    struct skf_acts a, one;
    float *x = skf_alloc((size_t)m * cols * sizeof *x), *want = skf_calloc((size_t)m * rows, sizeof *want),
          *y = skf_calloc((size_t)m * (rows + 3), sizeof *y);
    assert_true(x && want && y);
    fill(x, (size_t)m * cols);
    matrix_make(&w, type, rows, cols, true);
    acts_make(&a, tables[0], x, m, cols);
    for (uint32_t t = 0; t < m; t++) { /* token by token */
        acts_make(&one, tables[0], x + (size_t)t * cols, 1, cols);
        tables[0]->matmul(&w.w, &one, 0, rows, want + (size_t)t * rows, rows);
        acts_free(&one);
    }
    uint64_t size = skf_lanes_size(&w.w);
    uint8_t *laid = size ? skf_aligned(64, size) : NULL;
    assert_true(is_lanes_type(type) == (laid != NULL));
    if (laid) { /* by two, as threads would */
        uint32_t groups = (rows + SKF_LANES - 1) / SKF_LANES;
        memset(laid, 0xa5, size);
        skf_lanes_lay(&w.w, groups / 2, groups, laid);
        skf_lanes_lay(&w.w, 0, groups / 2, laid);
    }
    for (size_t k = 0; k < 2 * n_tables; k++) {
        uint32_t cut = next() % (rows + 1);
        const struct skf_ops *ops = tables[k / 2];
        w.w.lanes = k % 2 ? laid : NULL;
        ops->matmul(&w.w, &a, cut, rows, y, rows + 3); /* in two parts, as two threads would */
        ops->matmul(&w.w, &a, 0, cut, y, rows + 3);
        for (uint32_t t = 0; t < m; t++)
            if (memcmp(y + (size_t)t * (rows + 3), want + (size_t)t * rows, rows * sizeof *y))
                fail_msg("%s %s%s rows %u cols %u tokens %u: token %u differs from the reference", skf_isa_name(ops->isa),
                         skf_type_info(type)->name, k % 2 ? " side by side" : "", rows, cols, m, t);
    }
    skf_free(laid);
    acts_free(&a);
    skf_free(w.bytes);
    skf_free(x);
    skf_free(want);
    skf_free(y);
}

static void test_matmul_is_the_same_everywhere(void **state)
{
    static const uint32_t rows[] = {1, 2, 3, 5, 15, 16, 17, 33, 48}, tokens[] = {1, 2, 3, 4, 5, 7, 8, 9, 13, 64, 65, 70};
    static const uint32_t blocks[] = {32, 64, 544, 576}, floats[] = {1, 15, 16, 17, 31, 64, 100};
    for (size_t k = 0; k < SKF_COUNT(types); k++)
        for (size_t r = 0; r < SKF_COUNT(rows); r++)
            for (size_t t = 0; t < SKF_COUNT(tokens); t++) {
                bool is_blocks = skf_type_info(types[k])->block > 1;
                size_t c = r + t;
                uint32_t cols = is_blocks ? blocks[c % SKF_COUNT(blocks)] : floats[c % SKF_COUNT(floats)];
                if (skf_type_info(types[k])->block > 32)
                    cols = (uint32_t[]){256, 512, 768}[c % 3];
                one_shape(types[k], rows[r], cols, tokens[t]);
            }
    for (size_t k = 0; k < SKF_COUNT(types); k++) /* more blocks than are laid out at once */
        one_shape(types[k], 40, 4608, 3);
}

/* Codes and activations at their ends: nothing may overflow on the way. */
static void test_extreme_codes(void **state)
{
    enum { ROWS = 17, COLS = 256 };
    float x[COLS];
    for (int sign = -1; sign <= 1; sign += 2)
        for (size_t k = 3; k < SKF_COUNT(types); k++)
            for (int code = 0; code < 3; code++) {
                struct matrix m;
                struct skf_acts a;
                float want[ROWS], y[ROWS];
                for (int i = 0; i < COLS; i++)
                    x[i] = (float)sign;
                matrix_make(&m, types[k], ROWS, COLS, false);
                uint32_t bytes = skf_type_info(types[k])->block_bytes;
                const struct skf_lanes_form *f = skf_lanes_form(types[k]);
                for (uint32_t b = 0; b < ROWS * COLS / f->block; b++)
                    for (size_t i = 0; i < SKF_COUNT(f->run); i++)
                        memset(m.bytes + b * bytes + f->run[i].at, (int[]){0x80, 0xff, 0x7f}[code], (size_t)4 * f->run[i].words);
                acts_make(&a, tables[0], x, 1, COLS);
                tables[0]->matmul(&m.w, &a, 0, ROWS, want, ROWS);
                for (size_t j = 1; j < n_tables; j++) {
                    tables[j]->matmul(&m.w, &a, 0, ROWS, y, ROWS);
                    assert_memory_equal(y, want, sizeof y);
                }
                acts_free(&a);
                skf_free(m.bytes);
            }
}

static void test_elementwise_is_the_same_everywhere(void **state)
{
    enum { MOST = 200 };
    for (uint32_t n = 1; n <= MOST; n += n < 70 ? 1 : 13) {
        float x[MOST], w[MOST], out[4][7][MOST], norm[4], sums[4];
        uint16_t h[4][MOST];
        memset(out, 0, sizeof out);
        memset(h, 0, sizeof h);
        fill(x, n);
        fill(w, n);
        if (n > 3)
            x[1] = 95.0f, x[2] = -95.0f, x[3] = -0.0f;
        for (size_t k = 0; k < n_tables; k++) {
            tables[k]->rms_norm(x, w, n, 1e-5f, out[k][0]);
            memcpy(out[k][1], x, n * sizeof *x);
            tables[k]->silu_mul(out[k][1], w, n);
            memcpy(out[k][2], x, n * sizeof *x);
            tables[k]->add(out[k][2], w, n);
            tables[k]->to_f16(x, h[k], n);
            memcpy(out[k][3], x, n * sizeof *x);
            tables[k]->rope(out[k][3], 1, n, n & ~1u, w);
            memcpy(out[k][4], x, n * sizeof *x);
            tables[k]->rope_halves(out[k][4], 1, n, n & ~1u, w);
            memcpy(out[k][5], x, n * sizeof *x);
            tables[k]->gelu_mul(out[k][5], w, n);
            memcpy(out[k][6], x, n * sizeof *x);
            tables[k]->soft_cap(out[k][6], n, 30.0f);
            sums[k] = tables[k]->sum_exp(x, n, 8.0f);
            norm[k] = sums[k];
            assert_memory_equal(out[k], out[0], sizeof out[0]);
            assert_memory_equal(h[k], h[0], sizeof h[0]);
            assert_memory_equal(&norm[k], &norm[0], sizeof norm[0]);
        }
        double ss = 0, e = 0;
        for (uint32_t i = 0; i < n; i++)
            ss += (double)x[i] * x[i];
        for (uint32_t i = 0; i < n; i++) {
            double y = x[i] / sqrt(ss / n + 1e-5f) * w[i], g = x[i] / (1 + exp(-(double)x[i])) * w[i];
            assert_true(fabs(out[0][0][i] - y) <= 1e-6 * fabs(y) + 1e-30);
            assert_true(fabs(out[0][1][i] - g) <= 1e-6 * fabs(g) + 1e-30);
            double v = x[i], gelu = 0.5 * v * (1 + tanh(sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))) * w[i];
            assert_true(fabs(out[0][5][i] - gelu) <= 1e-5 * fabs(gelu) + 1e-6 * fabs((double)w[i]));
            assert_true(fabs(out[0][6][i] - 30 * tanh(v / 30)) <= 1e-5);
            e += exp(fmin(x[i] - 8.0, 88.0));
        }
        assert_true(fabs(sums[0] - e) <= 1e-5 * e);
    }
}

/* ---- attention ------------------------------------------------------------------------------------------------------------------------- */
enum { POSITIONS = 600, KV_PAGES = POSITIONS / SKF_KV_PAGE + 1, KV_AT = 64, HEAD_MOST = 256, ROWS_MOST = 40 };

/* One head's keys and values in pages, and as the numbers that they stand for. */
struct kept {
    uint8_t *page[KV_PAGES];
    float k[POSITIONS][HEAD_MOST], v[POSITIONS][HEAD_MOST];
    struct skf_kv_head kv;
};
static float stands_for(enum skf_kv_type type, const float *x, uint32_t hd, uint32_t i)
{
    if (type == SKF_KV_F16)
        return skf_f16_to_f32(skf_f32_to_f16(x[i]));
    float most = 0;
    for (uint32_t j = i / 32 * 32; j < i / 32 * 32 + 32; j++)
        most = fmaxf(most, fabsf(x[j]));
    return skf_f16_to_f32(skf_f32_to_f16(most / 127.0f)) * rintf(x[i] * (127.0f / most));
}
static void keep(struct kept *x, enum skf_kv_type type, uint32_t hd, float cap)
{
    x->kv = (struct skf_kv_head){x->page, KV_AT, type, hd, 0.25f, cap};
    for (size_t i = 0; i < KV_PAGES; i++) {
        size_t n = KV_AT + skf_kv_head_bytes(type, hd);
        x->page[i] = skf_aligned(64, n);
        assert_non_null(x->page[i]);
        memset(x->page[i], 0xff, n); /* no numbers, where nothing is */
    }
    for (uint32_t t = 0; t < POSITIONS; t++) {
        float k[HEAD_MOST], v[HEAD_MOST];
        fill(k, hd);
        fill(v, hd);
        for (size_t i = 0; i < n_tables; i++) /* each puts the same */
            skf_kv_put(tables[i], type, x->page[t / SKF_KV_PAGE] + KV_AT, t % SKF_KV_PAGE, hd, k, v);
        for (uint32_t i = 0; i < hd; i++) {
            x->k[t][i] = stands_for(type, k, hd, i);
            x->v[t][i] = stands_for(type, v, hd, i);
        }
    }
}

static void in_double(const struct kept *x, const struct skf_attn_row *r, double *want)
{
    double s[POSITIONS], max = -1e300, sum = 0;
    const uint32_t hd = x->kv.head_dim;
    for (uint32_t t = r->first; t < r->end; t++) {
        s[t] = 0;
        for (uint32_t i = 0; i < hd; i++)
            s[t] += (double)r->q[i] * x->k[t][i] * x->kv.scale;
        s[t] = x->kv.cap > 0 ? x->kv.cap * tanh(s[t] / x->kv.cap) : s[t];
        max = fmax(max, s[t]);
    }
    memset(want, 0, hd * sizeof *want);
    for (uint32_t t = r->first; t < r->end; t++) {
        double p = exp(s[t] - max);
        sum += p;
        for (uint32_t i = 0; i < hd; i++)
            want[i] += p * x->v[t][i];
    }
    for (uint32_t i = 0; i < hd; i++)
        want[i] /= sum;
}

/* Rows over all spans, as a graph does it. */
static void attend(const struct skf_ops *ops, const struct kept *x, struct skf_attn_row *rows, uint32_t n, float *out)
{
    const uint32_t hd = x->kv.head_dim, part = SKF_ATTN_PART + HEAD_MOST;
    static float parts[ROWS_MOST][SKF_ATTN_PART + HEAD_MOST], sums[ROWS_MOST][SKF_ATTN_PART + HEAD_MOST], tile[2 * SKF_KV_PAGE * HEAD_MOST];
    for (uint32_t r = 0; r < n; r++)
        rows[r].part = parts[r];
    for (uint32_t span = 0; span * SKF_KV_SPAN < POSITIONS; span++) {
        memset(parts, 0x7f, sizeof parts);
        ops->attention(&x->kv, rows, n, span, tile);
        for (uint32_t r = 0; r < n; r++) {
            bool is_any = rows[r].first < (span + 1) * SKF_KV_SPAN && rows[r].end > span * SKF_KV_SPAN;
            if (!is_any)
                assert_true(memcmp(parts[r], parts[r] + 1, (part - 1) * sizeof(float)) == 0); /* left alone */
            else if (rows[r].first / SKF_KV_SPAN == span)
                memcpy(sums[r], parts[r], sizeof sums[r]);
            else
                skf_attn_join(sums[r], parts[r], hd);
        }
    }
    for (uint32_t r = 0; r < n; r++)
        skf_attn_finish(sums[r], hd, out + (size_t)r * hd);
}

/* The reference against the formula; every table against it, alone and in any company. */
static void test_attention(void **state)
{
    static const uint32_t dims[] = {2, 16, 20, 32, 48, 64, 80, 96, 128, 256};
    static float q[ROWS_MOST][HEAD_MOST], one[ROWS_MOST * HEAD_MOST], out[ROWS_MOST * HEAD_MOST];
    static struct kept x;
    for (size_t k = 0; k < 2 * SKF_COUNT(dims); k++) {
        const uint32_t hd = dims[k / 2];
        enum skf_kv_type type = k % 2 ? SKF_KV_Q8_0 : SKF_KV_F16;
        struct skf_attn_row rows[ROWS_MOST];
        if (type == SKF_KV_Q8_0 && hd % 32)
            continue;
        keep(&x, type, hd, hd % 3 ? 0.0f : 2.0f);
        for (uint32_t r = 0; r < ROWS_MOST; r++) { /* tokens of three heads, one behind the other; some see a window, some next to nothing */
            uint32_t end = r < 30 ? 240 + r / 3 : 1 + next() % POSITIONS;
            fill(q[r], hd);
            rows[r] = (struct skf_attn_row){q[r], NULL, r % 7 == 0 || r < 6 ? end - 1 - next() % end : 0, end};
        }
        for (uint32_t r = 0; r < ROWS_MOST; r++) {
            double want[HEAD_MOST];
            attend(tables[0], &x, &rows[r], 1, one + (size_t)r * hd);
            in_double(&x, &rows[r], want);
            for (uint32_t i = 0; i < hd; i++)
                assert_true(fabs(one[r * hd + i] - want[i]) <= 1e-4);
        }
        for (size_t i = 0; i < n_tables; i++)
            for (uint32_t from = 0, n; from < ROWS_MOST; from += n) {
                n = 1 + next() % (i == 0 ? 3 : ROWS_MOST);
                n = SKF_MIN(n, ROWS_MOST - from);
                attend(tables[i], &x, rows + from, n, out);
                assert_memory_equal(out, one + (size_t)from * hd, (size_t)n * hd * sizeof *out);
            }
        for (size_t i = 0; i < KV_PAGES; i++)
            skf_free(x.page[i]);
    }
}

static void test_rope_turns_pairs(void **state)
{
    float x[4] = {3.0f, 4.0f, 5.0f, 6.0f}, cs[2] = {0.0f, 1.0f};
    for (size_t k = 0; k < n_tables; k++) {
        float y[4];
        memcpy(y, x, sizeof y);
        tables[k]->rope(y, 1, 4, 2, cs); /* a quarter turn of the first pair, the rest left alone */
        assert_true(y[0] == -4.0f && y[1] == 3.0f && y[2] == 5.0f && y[3] == 6.0f);
        memcpy(y, x, sizeof y);
        tables[k]->rope_halves(y, 1, 4, 4, (float[]){0.0f, 1.0f, 1.0f, 0.0f}); /* the first and third; the others stay */
        assert_true(y[0] == -5.0f && y[1] == 4.0f && y[2] == 3.0f && y[3] == 6.0f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantize_is_close_and_the_same_everywhere),
        cmocka_unit_test(test_reference_matmul_is_the_formula),
        cmocka_unit_test(test_matmul_is_the_same_everywhere),
        cmocka_unit_test(test_extreme_codes),
        cmocka_unit_test(test_elementwise_is_the_same_everywhere),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_rope_turns_pairs),
    };
    return cmocka_run_group_tests(tests, find_tables, NULL);
}
