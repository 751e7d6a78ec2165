/* Symbols in pieces: whatever the pieces, every instruction set of this machine reads what was written, and refuses what is broken alike. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "base/alloc.h"
#include "delta/rans_priv.h"

#define MOST 150000

static uint64_t state = 88172645463325252u;
static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* The instruction sets that run here; the first is the plain one. */
static size_t sets_here(enum skf_isa out[4])
{
    enum skf_isa best;
    size_t n = 0;
    assert_int_equal(skf_isa_pick(&best, NULL), SKF_OK);
    out[n++] = SKF_ISA_REF;
    if (best == SKF_ISA_NEON)
        out[n++] = SKF_ISA_NEON;
    if (best == SKF_ISA_AVX2 || best == SKF_ISA_AVX512 || best == SKF_ISA_AMX)
        out[n++] = SKF_ISA_AVX2;
    if (best == SKF_ISA_AVX512 || best == SKF_ISA_AMX)
        out[n++] = SKF_ISA_AVX512;
    return n;
}

/* Skewed as differences are, and more so in higher contexts. */
static void fill(uint8_t *sym, uint8_t *key, uint32_t n, unsigned kinds, unsigned contexts)
{
    for (uint32_t i = 0; i < n; i++) {
        key[i] = (uint8_t)(next() % contexts);
        unsigned down = (unsigned)next() % (1 + key[i] / 4);
        sym[i] = (uint8_t)((next() % kinds) >> down);
    }
}

/* The same, and all but one in so many are below `near`. */
static void fill_near(uint8_t *sym, uint8_t *key, uint32_t n, unsigned kinds, unsigned contexts, unsigned near, unsigned rare)
{
    fill(sym, key, n, kinds, contexts);
    for (uint32_t i = 0; i < n && rare; i++)
        if (next() % rare)
            sym[i] = (uint8_t)(sym[i] % near);
}

static enum skf_err in_pieces(struct skf_work *w, struct skf_area *tables, const struct skf_buf *b, const uint8_t *key,
                              uint32_t n, uint32_t piece, uint8_t *out, size_t *left)
{
    struct skf_reader r = skf_reader_of(b->data, b->len);
    struct skf_syms_in in;
    SKF_TRY(skf_syms_begin(w, tables, &r, n, &in));
    *left = skf_reader_left(&r);
    for (uint32_t at = 0; at < n; at += piece)
        SKF_TRY(skf_syms_some(&in, out + at, key + at, SKF_MIN(piece, n - at)));
    return SKF_OK;
}

static void test_pieces(void **unused)
{
    static uint8_t sym[MOST], key[MOST], got[MOST];
    static const uint32_t pieces[] = {64, 192, 4096, 1u << 20};
    static const struct { uint32_t n; unsigned kinds, contexts, near, rare; } cases[] = {
        {1, 1, 1, 0, 0}, {31, 4, 2, 0, 0}, {32, 4, 2, 0, 0}, {33, 200, 48, 0, 0}, {5000, 2, 1, 0, 0}, {50000, 256, 48, 0, 0},
        {50000 - 7, 17, 40, 0, 0}, {MOST, 1, 48, 0, 0},
        {MOST, 200, 48, 1, 300}, {MOST, 200, 48, 1, 20}, {MOST - 33, 64, 40, 3, 1000}, {MOST, 64, 48, 3, 30}, {MOST, 3, 48, 3, 0}};
    unsigned seen[3] = {0}; /* streams of few, many and most lanes */
    enum skf_isa sets[4];
    size_t n_sets = sets_here(sets), left;
    struct skf_work w;
    struct skf_area tables = {0};
    assert_int_equal(skf_work_init(&w), SKF_OK);
    for (size_t c = 0; c < SKF_COUNT(cases); c++) {
        struct skf_buf b = SKF_BUF_INIT(1 << 20);
        uint32_t n = cases[c].n;
        fill_near(sym, key, n, cases[c].kinds, cases[c].contexts, cases[c].near, cases[c].rare);
        assert_int_equal(skf_syms_put(&w, &(struct skf_syms){sym, key, n}, &b), SKF_OK);
        assert_in_range(b.data[0] >> 4, 0, SKF_COUNT(seen) - 1);
        seen[b.data[0] >> 4]++;
        assert_int_equal(skf_buf_put(&b, "behind", 6), SKF_OK);
        for (size_t k = 0; k < n_sets; k++) {
            w.isa = sets[k];
            for (size_t p = 0; p < SKF_COUNT(pieces); p++) {
                memset(got, 77, sizeof got);
                assert_int_equal(in_pieces(&w, &tables, &b, key, n, pieces[p], got, &left), SKF_OK);
                assert_int_equal(left, 6);
                assert_memory_equal(got, sym, n);
            }
        }
        skf_buf_free(&b);
    }
    for (unsigned k = 0; k < SKF_COUNT(seen); k++)
        assert_true(seen[k]);
    skf_area_free(&tables);
    skf_work_free(&w);
}

static void test_broken(void **unused)
{
    static uint8_t sym[MOST], key[MOST], want[MOST], got[MOST];
    enum skf_isa sets[4];
    size_t n_sets = sets_here(sets), left;
    struct skf_work w;
    struct skf_area tables = {0};
    unsigned refused = 0;
    assert_int_equal(skf_work_init(&w), SKF_OK);
    for (unsigned round = 0; round < 60; round++) {
        struct skf_buf b = SKF_BUF_INIT(1 << 20);
        uint32_t n = 9000 + round;
        fill(sym, key, n, 1 + 4 * round, 1 + round % SKF_CONTEXTS);
        assert_int_equal(skf_syms_put(&w, &(struct skf_syms){sym, key, n}, &b), SKF_OK);
        b.data[next() % b.len] ^= (uint8_t)(1u << next() % 8);
        w.isa = SKF_ISA_REF;
        memset(want, 0, n);
        enum skf_err e = in_pieces(&w, &tables, &b, key, n, n, want, &left);
        refused += e != SKF_OK;
        for (size_t k = 0; k < n_sets; k++) {
            w.isa = sets[k];
            memset(got, 0, n);
            assert_int_equal(in_pieces(&w, &tables, &b, key, n, 1024, got, &left), e);
            if (e == SKF_OK)
                assert_memory_equal(got, want, n);
        }
        skf_buf_free(&b);
    }
    assert_true(refused > 30);
    skf_area_free(&tables);
    skf_work_free(&w);
}

/* Two readers may be open at once; asking for what is not there is a defect that is told, not memory that is read. */
static void test_two_at_once_and_misuse(void **unused)
{
    static uint8_t sym[2][4096], key[2][4096], got[2][4096];
    struct skf_work w;
    struct skf_area tables[2] = {{0}};
    struct skf_syms_in in[2];
    struct skf_buf b[2] = {SKF_BUF_INIT(1 << 20), SKF_BUF_INIT(1 << 20)};
    struct skf_reader r[2];
    assert_int_equal(skf_work_init(&w), SKF_OK);
    for (unsigned k = 0; k < 2; k++) {
        fill(sym[k], key[k], 4096, 100 + 50 * k, 48);
        assert_int_equal(skf_syms_put(&w, &(struct skf_syms){sym[k], key[k], 4096}, &b[k]), SKF_OK);
        r[k] = skf_reader_of(b[k].data, b[k].len);
        assert_int_equal(skf_syms_begin(&w, &tables[k], &r[k], 4096, &in[k]), SKF_OK);
    }
    assert_int_equal(skf_syms_some(&in[0], got[0], key[0], 33), SKF_ERR_INTERNAL);
    for (unsigned at = 0; at < 4096; at += 512)
        for (unsigned k = 0; k < 2; k++)
            assert_int_equal(skf_syms_some(&in[k], got[k] + at, key[k] + at, 512), SKF_OK);
    assert_memory_equal(got, sym, sizeof sym);
    assert_int_equal(skf_syms_some(&in[0], got[0], key[0], 32), SKF_ERR_INTERNAL);
    assert_int_equal(skf_syms_some(&in[0], got[0], key[0], 0), SKF_OK);
    for (unsigned k = 0; k < 2; k++) {
        skf_buf_free(&b[k]);
        skf_area_free(&tables[k]);
    }
    skf_work_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_two_at_once_and_misuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
