/*
 * The index of a .skd as the receiver uses it: chunks in any order from a source that lies in pieces; and an index that lies in
 * any field, its digest made right again, is refused before anything is sized by it.
 */
#include "tests/lib/skd_fix.h"

#include "base/util.h"
#include "delta/int_priv.h"
#include "delta/skd_priv.h"

static struct fix_pair pair;
static uint8_t *file; /* the delta between the pair */
static size_t file_len;
static uint64_t index_len;

static enum skf_err parse(const uint8_t *p, uint64_t n, struct skf_why *why)
{
    struct skf_skd *s = NULL;
    enum skf_err e = skf_skd_parse(p, n, &s, why);
    skf_skd_free(s);
    return e;
}

/* Makes sizes and digest right again after a change. */
static void seal(uint8_t *p, uint64_t n)
{
    skf_put_le64(p + 8, n);
    assert_int_equal(skd_index_digest(p, n, p + SKD_DIGEST_AT), SKF_OK);
}

/* The file's sides, of those that this index says are right. */
static void put_sides(struct skf_skd *skd)
{
    struct skf_skd_side side;
    for (uint64_t k = 0; k < skf_skd_info(skd)->n_sides; k++) {
        skf_skd_side(skd, k, &side);
        enum skf_err e = skf_skd_put_side(skd, k, file + side.payload_offset, NULL);
        assert_true(e == SKF_OK || e == SKF_ERR_DIGEST);
    }
}

static void decode_in_order(const struct skf_skd *skd, const struct skf_source *source, const uint64_t *order)
{
    const struct skf_skd_info *f = skf_skd_info(skd);
    struct skf_delta_scratch *s;
    uint8_t *result = skf_alloc(f->result_size), digest[SKF_DIGEST];
    assert_non_null(result);
    fix_ok(skf_delta_scratch_new(&s));
    for (uint64_t k = 0; k < f->n_chunks; k++) {
        struct skf_skd_chunk c;
        skf_skd_chunk(skd, order[k], &c);
        /* The payload arrives by itself, in memory of exactly its size. */
        uint8_t *payload = c.payload_length ? skf_memdup(file + c.payload_offset, c.payload_length) : NULL;
        uint8_t *out = skf_alloc(c.result_length);
        assert_non_null(out);
        fix_ok(skf_skd_decode(skd, order[k], payload, source, s, out, why));
        skf_sha256(out, c.result_length, digest);
        assert_memory_equal(digest, c.result_digest, SKF_DIGEST);
        memcpy(result + c.result_offset, out, c.result_length);
        skf_free(out);
        skf_free(payload);
    }
    assert_memory_equal(result, pair.new_bytes.data, f->result_size);
    skf_free(result);
    skf_delta_scratch_free(s);
}

static void test_receiver(void **unused)
{
    uint64_t size, order[256];
    struct skf_skd *skd;
    fix_ok(skf_skd_index_size(file, &size, why));
    assert_true(size == index_len);
    fix_ok(skf_skd_parse(file, size, &skd, why));
    const struct skf_skd_info *f = skf_skd_info(skd);
    struct skf_cut old = {0}, neu = {0};
    fix_ok(skf_cut_make(pair.old, 1, NULL, &old, why));
    fix_ok(skf_cut_make(pair.neu, 1, NULL, &neu, why));
    assert_memory_equal(f->source_root, old.root, SKF_DIGEST);
    assert_memory_equal(f->result_root, neu.root, SKF_DIGEST);
    assert_true(f->source_size == old.size && f->result_size == neu.size && f->n_chunks == neu.n);
    assert_true(f->index_size + f->payload_size == file_len && f->codec == 2);
    assert_true(f->n_chunks <= SKF_COUNT(order));
    put_sides(skd);
    uint64_t payload = f->index_size;
    for (uint64_t k = 0; k < f->n_sides; k++) { /* sides are in front */
        struct skf_skd_side side;
        skf_skd_side(skd, k, &side);
        assert_true(side.payload_offset == payload);
        payload += side.payload_length;
    }
    for (uint64_t i = 0; i < f->n_chunks; i++) { /* the table is the cut, payloads are contiguous */
        struct skf_skd_chunk c;
        skf_skd_chunk(skd, i, &c);
        assert_true(c.result_offset == neu.chunks[i].offset && c.result_length == neu.chunks[i].length);
        assert_memory_equal(c.result_digest, neu.chunks[i].digest, SKF_DIGEST);
        assert_true(c.payload_offset == payload);
        payload += c.payload_length;
        order[i] = i;
    }
    static const uint64_t sizes[] = {1000, 65543, 1 << 20};
    for (size_t k = 0; k < SKF_COUNT(sizes); k++) {
        for (uint64_t i = f->n_chunks; i > 1; i--) {
            uint64_t j = fix_next() % i, t = order[i - 1];
            order[i - 1] = order[j];
            order[j] = t;
        }
        struct pieces at = {pair.old_bytes.data, pair.old_bytes.len, sizes[k]};
        struct skf_source source = {at.size, span_of_pieces, &at, NULL};
        decode_in_order(skd, &source, order);
    }
    skf_cut_free(&old);
    skf_cut_free(&neu);
    skf_skd_free(skd);
}

static void test_decode_refusals(void **unused)
{
    struct skf_skd *skd;
    struct skf_delta_scratch *s;
    static uint8_t out[SKF_CHUNK_MAX];
    fix_ok(skf_skd_parse(file, index_len, &skd, why));
    fix_ok(skf_delta_scratch_new(&s));
    put_sides(skd);
    uint64_t n = skf_skd_info(skd)->n_chunks;
    fix_err(SKF_ERR_ARG, skf_skd_decode(skd, n, file, &pair.old_source, s, out, why));
    struct skf_source empty = skf_source_of("", 0);
    for (uint64_t i = 0; i < n; i++) {
        struct skf_skd_chunk c;
        skf_skd_chunk(skd, i, &c);
        const uint8_t *payload = file + c.payload_offset;
        if (c.source_length) { /* from nothing, and from other bytes of the same size */
            fix_err(SKF_ERR_BASE, skf_skd_decode(skd, i, payload, &empty, s, out, why));
            uint8_t *other = skf_memdup(pair.old_bytes.data, pair.old_bytes.len);
            assert_non_null(other);
            for (uint64_t k = 0; k < c.source_length; k++)
                other[c.source_offset + k] ^= 0x11;
            struct skf_source wrong = skf_source_of(other, pair.old_bytes.len);
            fix_err(SKF_ERR_BASE, skf_skd_decode(skd, i, payload, &wrong, s, out, why));
            skf_free(other);
        }
        if (c.payload_length) {
            fix_err(SKF_ERR_ARG, skf_skd_decode(skd, i, NULL, &pair.old_source, s, out, why));
            uint8_t *broken = skf_memdup(payload, c.payload_length);
            assert_non_null(broken);
            broken[c.payload_length / 2] ^= 1;
            fix_err(SKF_ERR_DIGEST, skf_skd_decode(skd, i, broken, &pair.old_source, s, out, why));
            skf_free(broken);
        }
    }
    skf_delta_scratch_free(s);
    skf_skd_free(skd);
}

static void test_head_lies(void **unused)
{
    static const struct {
        unsigned at;
        uint8_t byte;
        enum skf_err err;
    } lies[] = {
        {0, 'X', SKF_ERR_FORMAT},       {4, 2, SKF_ERR_UNSUPPORTED}, {5, 1, SKF_ERR_UNSUPPORTED},
        {6, 1, SKF_ERR_UNSUPPORTED},    {6, 3, SKF_ERR_UNSUPPORTED}, {24, 1, SKF_ERR_FORMAT},
        {31, 0x80, SKF_ERR_FORMAT},     {16, 0xee, SKF_ERR_FORMAT},  {23, 0xff, SKF_ERR_FORMAT},
        {23, 0x10, SKF_ERR_FORMAT},     {40, 0x77, SKF_OK},          {70, 0x77, SKF_ERR_DIGEST},
    };
    for (size_t i = 0; i < SKF_COUNT(lies); i++) {
        uint8_t *p = skf_memdup(file, index_len);
        assert_non_null(p);
        p[lies[i].at] = lies[i].byte;
        seal(p, index_len);
        struct skf_why said = {{0}};
        assert_int_equal(parse(p, index_len, &said), lies[i].err);
        skf_free(p);
    }
    /* Sizes of the index that are not those of the bytes. */
    uint8_t head[SKF_SKD_HEAD];
    uint64_t size;
    static const uint64_t sizes[] = {0, 127, 131, SKF_SKD_INDEX_MAX + 1ull, 1ull << 60, UINT64_MAX};
    for (size_t i = 0; i < SKF_COUNT(sizes); i++) {
        memcpy(head, file, sizeof head);
        skf_put_le64(head + 8, sizes[i]);
        struct skf_why said = {{0}};
        enum skf_err e = skf_skd_index_size(head, &size, &said);
        assert_true(e == SKF_ERR_FORMAT || e == SKF_ERR_LIMIT);
        assert_true(said.text[0] != 0);
    }
    fix_err(SKF_ERR_FORMAT, parse(file, index_len - 1, why));
    fix_err(SKF_ERR_FORMAT, parse(file, 100, why));
    fix_err(SKF_ERR_FORMAT, parse(file, 0, why));
}

/* An index of one 1000-byte chunk and one tensor, into which each test puts its lie. */
static struct skd_out_tensor tensor;
static struct skd_out_chunk chunk;
static struct skd_out out;
static uint8_t source_root[SKF_DIGEST], result_root[SKF_DIGEST];

static void fresh(enum skf_coding coding)
{
    tensor = (struct skd_out_tensor){.type = SKF_T_BF16, .row_bytes = 100, .bytes = 2000,
                                     .source_offset = 500, .source_bytes = 2000};
    chunk = (struct skd_out_chunk){.result_length = 1000, .payload_length = 300, .source_length = 1000,
                                   .coding = (uint8_t)coding, .source_offset = 100};
    if (coding == SKF_CODE_COPY)
        chunk.payload_length = 0;
    if (coding == SKF_CODE_RAW)
        chunk.payload_length = 1000;
    out = (struct skd_out){source_root, result_root, 2500, 2000, &tensor, 1, NULL, 2, NULL, 0};
    memset(source_root, 1, sizeof source_root);
}

/* Two chunks like `chunk`, root and digest right. */
static enum skf_err verdict(void)
{
    struct skd_out_chunk both[2] = {chunk, chunk};
    struct skf_buf b = SKF_BUF_INIT(1 << 20);
    struct skf_merkle m;
    struct skf_why why = {{0}};
    both[1].result_offset = chunk.result_length;
    out.chunks = both;
    skf_merkle_init(&m);
    skf_merkle_add(&m, chunk.result_digest, chunk.result_length);
    skf_merkle_add(&m, chunk.result_digest, chunk.result_length);
    skf_merkle_root(&m, result_root);
    assert_int_equal(skd_write_index(&out, &b), SKF_OK);
    enum skf_err e = parse(b.data, b.len, &why);
    assert_true((e == SKF_OK) == (why.text[0] == 0));
    skf_buf_free(&b);
    return e;
}
#define REFUSED(coding, lie)                                                                                           \
    do {                                                                                                               \
        fresh(coding);                                                                                                 \
        assert_int_equal(verdict(), SKF_OK);                                                                           \
        lie;                                                                                                           \
        assert_int_equal(verdict(), SKF_ERR_FORMAT);                                                                   \
    } while (0)

static void test_table_lies(void **unused)
{
    REFUSED(SKF_CODE_COPY, chunk.coding = SKF_CODE_COUNT);
    REFUSED(SKF_CODE_COPY, chunk.coding = 0x30);             /* reserved bits */
    REFUSED(SKF_CODE_COPY, chunk.source_offset = 1501);      /* past the source's end */
    REFUSED(SKF_CODE_COPY, chunk.source_offset = UINT64_MAX - 10);
    REFUSED(SKF_CODE_COPY, out.source_size = 0);
    REFUSED(SKF_CODE_ZSTD, chunk.payload_length = 0);
    REFUSED(SKF_CODE_ZSTD, chunk.payload_length = 1000);     /* no smaller than raw */
    REFUSED(SKF_CODE_ZSTD, chunk.payload_length = UINT32_MAX);
    REFUSED(SKF_CODE_PATCH, chunk.source_length = 0);
    REFUSED(SKF_CODE_PATCH, chunk.source_length = 2401);
    REFUSED(SKF_CODE_PATCH, (out.source_size = 1ull << 40, chunk.source_length = SKD_PATCH_MAX + 1));
    REFUSED(SKF_CODE_PATCH, chunk.source_offset = 1ull << 63);
    REFUSED(SKF_CODE_RAW, chunk.result_length = 0);
    REFUSED(SKF_CODE_RAW, out.result_size = 1999);
    REFUSED(SKF_CODE_RAW, (out.result_size = 1ull << 40, chunk.payload_length = chunk.result_length = SKF_CHUNK_MAX + 1));
    fresh(SKF_CODE_RAW);
    out.result_size = 2001; /* the chunks do not fill it */
    assert_int_equal(verdict(), SKF_ERR_DIGEST);
}

static void test_directory_lies(void **unused)
{
    REFUSED(SKF_CODE_INT, out.n_tensors = 0);
    REFUSED(SKF_CODE_INT, tensor.type = (enum skf_type)99);
    REFUSED(SKF_CODE_INT, tensor.type = SKF_T_IQ2_XXS);      /* a type that has no integer differences */
    REFUSED(SKF_CODE_INT, tensor.row_bytes = 0);
    REFUSED(SKF_CODE_INT, tensor.row_bytes = 101);
    REFUSED(SKF_CODE_INT, tensor.row_bytes = 300);
    REFUSED(SKF_CODE_INT, tensor.offset = 100);              /* past the result's end */
    REFUSED(SKF_CODE_INT, tensor.offset = UINT64_MAX - 100);
    REFUSED(SKF_CODE_INT, tensor.bytes = 1ull << 62);
    REFUSED(SKF_CODE_INT, tensor.bytes = 1900);              /* the second chunk leaves it */
    REFUSED(SKF_CODE_INT, tensor.source_bytes = 1999);       /* and here that of the source */
    REFUSED(SKF_CODE_INT, tensor.source_bytes = UINT64_MAX);
    REFUSED(SKF_CODE_INT, tensor.source_offset = 501);
    REFUSED(SKF_CODE_INT, tensor.source_offset = UINT64_MAX);
    REFUSED(SKF_CODE_INT, chunk.result_length = 999);        /* half a word */
}

/* A first chunk as long as the one before it, one that fills a tensor where there is none, and one by a way that there is not. */
static void test_lengths_lie(void **unused)
{
    const size_t at = SKF_SKD_HEAD + 6; /* the first chunk's coding, behind two sizes of two bytes and two counts */
    for (uint8_t where = 0; where < 16; where++) {
        fresh(SKF_CODE_COPY);
        out.n_tensors = 0;
        assert_int_equal(verdict(), SKF_OK);
        struct skd_out_chunk both[2] = {chunk, chunk};
        struct skf_buf b = SKF_BUF_INIT(1 << 20);
        both[1].result_offset = chunk.result_length;
        out.chunks = both;
        assert_int_equal(skd_write_index(&out, &b), SKF_OK);
        b.data[at] |= (uint8_t)(where << 4);
        if (where) { /* the length goes */
            memmove(b.data + at + 1, b.data + at + 3, b.len - at - 3);
            b.len -= 2;
            skf_put_le64(b.data + 8, b.len);
        }
        seal(b.data, b.len);
        if (where)
            fix_err(SKF_ERR_FORMAT, parse(b.data, b.len, why));
        else
            fix_ok(parse(b.data, b.len, why));
        skf_buf_free(&b);
    }
}

/* Another version behind the source: places count through both and no further. */
static void test_another_version(void **unused)
{
    static const uint8_t root[SKF_DIGEST] = {7};
    const struct {
        enum skf_coding coding;
        uint64_t *place, last; /* the last place that is one */
    } cases[] = {{SKF_CODE_COPY, &chunk.source_offset, 2500}, {SKF_CODE_PATCH, &chunk.source_offset, 2500}, {SKF_CODE_INT, &tensor.source_offset, 1500}};
    for (size_t i = 0; i < SKF_COUNT(cases); i++) {
        fresh(cases[i].coding);
        out.also_size = 1000;
        out.also_root = root;
        *cases[i].place = cases[i].last;
        assert_int_equal(verdict(), SKF_OK);
        ++*cases[i].place;
        assert_int_equal(verdict(), SKF_ERR_FORMAT);
        *cases[i].place = cases[i].last;
        out.also_size = 999;
        assert_int_equal(verdict(), SKF_ERR_FORMAT);
        out.also_size = UINT64_MAX - 2499; /* with the source one byte too many for a number */
        assert_int_equal(verdict(), SKF_ERR_FORMAT);
        out.also_size = UINT64_MAX - 2500;
        assert_int_equal(verdict(), SKF_OK);
    }
    struct skf_buf b = SKF_BUF_INIT(1 << 20);
    out = (struct skd_out){source_root, source_root, 500, 500, NULL, 0, NULL, 0, root, 10};
    assert_int_equal(skd_write_index(&out, &b), SKF_OK);
    fix_err(SKF_ERR_FORMAT, parse(b.data, b.len, why)); /* an identity has one source */
    skf_put_le64(b.data + 24, 0);
    seal(b.data, b.len);
    fix_err(SKF_ERR_FORMAT, parse(b.data, b.len, why)); /* a root of nothing */
    for (size_t n = b.len - SKF_DIGEST; n < b.len; n++) {
        skf_put_le64(b.data + 24, 10);
        skf_put_le64(b.data + 8, n);
        seal(b.data, n);
        fix_err(SKF_ERR_FORMAT, parse(b.data, n, why)); /* a root cut short */
    }
    skf_buf_free(&b);
}

/* A piece that chunks are packed in: no source, of bounded size, and its chunks wholly inside. */
static void fresh_piece(void)
{
    fresh(SKF_CODE_PACK);
    chunk.payload_length = 0;
    tensor.type = SKF_T_I8;
    tensor.row_bytes = 1;
    tensor.offset = tensor.source_offset = tensor.source_bytes = 0;
    tensor.bytes = 2000;
    tensor.side_length = 400;
    tensor.side_coding = SKF_CODE_PACK;
    out.tensors = &tensor;
    out.n_tensors = 1;
}

static void test_pieces(void **unused)
{
#define PIECE_REFUSED(lie)                                                                                             \
    do {                                                                                                               \
        fresh_piece();                                                                                                 \
        assert_int_equal(verdict(), SKF_OK);                                                                           \
        lie;                                                                                                           \
        assert_int_equal(verdict(), SKF_ERR_FORMAT);                                                                   \
    } while (0)
    PIECE_REFUSED(out.n_tensors = 0);
    PIECE_REFUSED(tensor.side_length = 0);
    PIECE_REFUSED(tensor.side_length = SKF_SIDE_MAX + 1);
    PIECE_REFUSED(tensor.side_coding = SKF_CODE_INT);
    PIECE_REFUSED(tensor.side_coding = SKF_CODE_MIXED);
    PIECE_REFUSED(tensor.source_bytes = 1);
    PIECE_REFUSED(tensor.bytes = 1999);
    PIECE_REFUSED(tensor.bytes = 0);
    PIECE_REFUSED(tensor.offset = 1);
    PIECE_REFUSED((out.result_size = 1ull << 40, tensor.bytes = SKD_PACK_MAX + 1));
    PIECE_REFUSED(chunk.coding = SKF_CODE_INT);
}

/* A side of the tensor: its length and kind are held to bounds, its payload to its digest, its chunks wait for it. */
static void test_sides(void **unused)
{
#define WITH_SIDE tensor.side_length = 400, tensor.side_coding = SKF_CODE_INT
    REFUSED(SKF_CODE_INT, (WITH_SIDE, tensor.side_coding = SKF_CODE_COPY));
    REFUSED(SKF_CODE_INT, (WITH_SIDE, tensor.side_coding = SKF_CODE_PATCH));
    REFUSED(SKF_CODE_INT, (WITH_SIDE, tensor.side_coding = SKF_CODE_INT | 0x10));
    REFUSED(SKF_CODE_INT, (WITH_SIDE, tensor.side_length = SKF_SIDE_MAX + 1));
    fresh(SKF_CODE_INT);
    uint8_t payload[400] = {7}, broken[400] = {7, 1}, body[1000];
    WITH_SIDE;
    skf_sha256(payload, sizeof payload, tensor.side_digest);
    assert_int_equal(verdict(), SKF_OK);
    struct skd_out_chunk both[2] = {chunk, chunk};
    struct skf_buf b = SKF_BUF_INIT(1 << 20);
    struct skf_skd *skd;
    struct skf_delta_scratch *s;
    out.chunks = both; /* as verdict() had it, root and all */
    assert_int_equal(skd_write_index(&out, &b), SKF_OK);
    assert_int_equal(skf_le64(b.data + 16), 400 + 2 * 300);
    fix_ok(skf_skd_parse(b.data, b.len, &skd, why));
    assert_int_equal(skf_skd_info(skd)->n_sides, 1);
    struct skf_skd_side side;
    struct skf_skd_chunk c;
    skf_skd_side(skd, 0, &side);
    assert_int_equal(side.payload_offset, b.len);
    assert_int_equal(side.payload_length, 400);
    assert_memory_equal(side.payload_digest, tensor.side_digest, SKF_DIGEST);
    skf_skd_chunk(skd, 1, &c);
    assert_int_equal(c.side, 0);
    assert_int_equal(c.payload_offset, b.len + 400 + 300);
    fix_ok(skf_delta_scratch_new(&s));
    memset(body, 1, sizeof body);
    fix_err(SKF_ERR_ARG, skf_skd_decode(skd, 0, body, &pair.old_source, s, body, why));
    fix_err(SKF_ERR_DIGEST, skf_skd_put_side(skd, 0, broken, why));
    fix_err(SKF_ERR_ARG, skf_skd_put_side(skd, 1, payload, why));
    fix_err(SKF_ERR_ARG, skf_skd_decode(skd, 0, body, &pair.old_source, s, body, why));
    fix_ok(skf_skd_put_side(skd, 0, payload, why));
    fix_err(SKF_ERR_DIGEST, skf_skd_decode(skd, 0, body, &pair.old_source, s, body, why)); /* the chunk's own payload is next */
    skf_delta_scratch_free(s);
    skf_skd_free(skd);
    /* A side that the payloads have no room for. */
    skf_put_le64(b.data + 16, 399);
    seal(b.data, b.len);
    fix_err(SKF_ERR_FORMAT, parse(b.data, b.len, why));
    skf_buf_free(&b);
}

/* Counts far over what the index could hold cost nothing. */
static void test_counts_lie(void **unused)
{
    static const uint64_t counts[] = {3, 1000, 1ull << 32, 1ull << 60, UINT64_MAX};
    for (size_t i = 0; i < 2 * SKF_COUNT(counts); i++) {
        uint64_t n = counts[i / 2];
        struct skf_buf b = SKF_BUF_INIT(1 << 20);
        assert_int_equal(skf_buf_put(&b, file, SKF_SKD_HEAD), SKF_OK);
        assert_int_equal(skf_put_varint(&b, 1000), SKF_OK);
        assert_int_equal(skf_put_varint(&b, 1000), SKF_OK);
        assert_int_equal(skf_put_varint(&b, i % 2 ? 0 : n), SKF_OK);
        assert_int_equal(skf_put_varint(&b, n), SKF_OK);
        assert_int_equal(skf_buf_fill(&b, 0, 2 * SKD_CHUNK_MIN), SKF_OK);
        skf_put_le64(b.data + 16, 0);
        seal(b.data, b.len);
        unsigned long before = skf_alloc_count();
        fix_err(SKF_ERR_FORMAT, parse(b.data, b.len, why));
        assert_true(skf_alloc_count() - before <= 4); /* what the parser keeps, no tables */
        skf_buf_free(&b);
    }
}

/* Identity: equal roots and anything else besides. */
static void test_identity_lies(void **unused)
{
    struct skf_buf b = SKF_BUF_INIT(1 << 20);
    struct skd_out o = {source_root, source_root, 500, 500, NULL, 0, NULL, 0, NULL, 0};
    assert_int_equal(skd_write_index(&o, &b), SKF_OK);
    assert_true(b.len < 4096);
    fix_ok(parse(b.data, b.len, why));
    skf_buf_clear(&b);
    o.result_size = 501;
    assert_int_equal(skd_write_index(&o, &b), SKF_OK);
    fix_err(SKF_ERR_FORMAT, parse(b.data, b.len, why));
    skf_buf_clear(&b);
    fresh(SKF_CODE_RAW);
    struct skd_out_chunk two[2] = {chunk, chunk};
    o = (struct skd_out){source_root, source_root, 2000, 2000, NULL, 0, two, 2, NULL, 0};
    assert_int_equal(skd_write_index(&o, &b), SKF_OK);
    fix_err(SKF_ERR_FORMAT, parse(b.data, b.len, why));
    skf_buf_free(&b);
}

/* Bytes of the index changed at random and its digest made right: refused, or every chunk is right or refused. */
static void test_sealed_noise(void **unused)
{
    struct skf_delta_scratch *s;
    static uint8_t result[SKF_CHUNK_MAX];
    unsigned parsed = 0;
    fix_ok(skf_delta_scratch_new(&s));
    for (unsigned k = 0; k < 4000; k++) {
        uint8_t *p = skf_memdup(file, index_len);
        assert_non_null(p);
        for (unsigned m = 1 + fix_next() % 3; m; m--) {
            uint64_t at = SKF_SKD_HEAD + fix_next() % (fix_next() % 2 ? 150 : index_len - SKF_SKD_HEAD);
            p[at] = (uint8_t)(fix_next() % 3 ? p[at] + fix_next() % 5 - 2 : fix_next());
        }
        seal(p, index_len);
        struct skf_skd *skd;
        if (skf_skd_parse(p, index_len, &skd, NULL) == SKF_OK) {
            parsed++;
            put_sides(skd);
            for (uint64_t i = 0; i < skf_skd_info(skd)->n_chunks && k % 16 == 0; i++) {
                struct skf_skd_chunk c;
                skf_skd_chunk(skd, i, &c);
                assert_true(c.payload_offset + c.payload_length <= file_len);
                enum skf_err e = skf_skd_decode(skd, i, file + c.payload_offset, &pair.old_source, s, result, NULL);
                assert_true(e == SKF_OK || e == SKF_ERR_DIGEST || e == SKF_ERR_BASE || e == SKF_ERR_FORMAT || (e == SKF_ERR_ARG && c.side != SKF_NO_SIDE));
            }
            skf_skd_free(skd);
        }
        skf_free(p);
    }
    assert_true(parsed > 10); /* changes of payload digests get through the parser */
    skf_delta_scratch_free(s);
}

/* A delta that is whole, for this base, and does not make what it says: the source is hashed and found innocent. */
static void test_broken_promise(void **unused)
{
    struct skf_skd *skd;
    uint8_t *p = skf_memdup(file, file_len);
    assert_non_null(p);
    fix_ok(skf_skd_parse(file, index_len, &skd, why));
    uint64_t i = 0;
    while (skd->chunks[i].coding != SKF_CODE_INT)
        i++;
    const struct skd_chunk *c = &skd->chunks[i];
    memset(p + c->payload_offset, 0, c->payload_length);
    uint8_t digest[SKF_DIGEST];
    skf_sha256(p + c->payload_offset, c->payload_length, digest);
    memcpy(p + (skd_payload_digest(skd, c) - skd->index), digest, SKD_PAYLOAD_DIGEST);
    seal(p, index_len);
    fix_write("promise", p, file_len);
    struct skf_why said = {{0}};
    assert_int_equal(fix_apply("old", "promise", "out", &said), SKF_ERR_DIGEST);
    assert_non_null(strstr(said.text, "promises"));
    assert_int_equal(fix_left("out"), 0);
    skf_skd_free(skd);
    skf_free(p);
}

static int setup(void **state)
{
    int r = fix_setup(state);
    if (r)
        return r;
    fix_models(&pair);
    (void)fix_build(&pair, "d", 2);
    fix_read("d", &file, &file_len);
    return skf_skd_index_size(file, &index_len, NULL) == SKF_OK ? 0 : -1;
}
static int teardown(void **state)
{
    skf_free(file);
    fix_close(&pair);
    return fix_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_receiver),       cmocka_unit_test(test_decode_refusals),
        cmocka_unit_test(test_head_lies),      cmocka_unit_test(test_table_lies),
        cmocka_unit_test(test_another_version), cmocka_unit_test(test_lengths_lie),
        cmocka_unit_test(test_directory_lies), cmocka_unit_test(test_counts_lie),
        cmocka_unit_test(test_identity_lies),  cmocka_unit_test(test_sealed_noise),
        cmocka_unit_test(test_broken_promise), cmocka_unit_test(test_pieces), cmocka_unit_test(test_sides),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
