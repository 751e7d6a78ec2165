/*
 * Head and index of a .skd, read (skd_priv.h has the format).  The bytes may come from anybody: every count is checked against
 * the bytes that are there before memory is sized by it, every range against source, result and payloads, and the chunk
 * digests must come to the result root.
 */
#include <string.h>

#include "base/alloc.h"
#include "delta/adapter_priv.h"
#include "delta/int_priv.h"
#include "delta/skd_priv.h"
#include "delta/stream_priv.h"

const char *skf_coding_name(enum skf_coding c)
{
    static const char *const names[SKF_CODE_COUNT] = {"copy", "raw", "zstd", "patch", "int", "adapter", "mixed", "pack"};
    return (unsigned)c < SKF_CODE_COUNT ? names[c] : "unknown";
}

static enum skf_err damaged(struct skf_why *why, const char *what)
{
    return skf_fail(why, SKF_ERR_FORMAT, "damaged delta: %s", what);
}

enum skf_err skf_skd_index_size(const uint8_t head[SKF_SKD_HEAD], uint64_t *size, struct skf_why *why)
{
    if (memcmp(head, "SKD\x1a", 4) != 0)
        return skf_fail(why, SKF_ERR_FORMAT, "not a delta (.skd)");
    unsigned container = skf_le16(head + 4), codec = skf_le16(head + 6);
    if (container != SKD_CONTAINER)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "delta container version %u; this skiff reads %d", container,
                        SKD_CONTAINER);
    if (codec != SKD_CODEC) /* 1 was never released */
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "delta codec version %u; this skiff reads %d", codec, SKD_CODEC);
    uint64_t n = skf_le64(head + 8), payload = skf_le64(head + 16), all;
    if (n < SKF_SKD_HEAD + 4 || !is_add_ok(n, payload, &all))
        return damaged(why, "its head contradicts itself");
    if (n > SKF_SKD_INDEX_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "delta index of %llu bytes; the most is %u", (unsigned long long)n,
                        SKF_SKD_INDEX_MAX);
    *size = n;
    return SKF_OK;
}

/* The payload that the tensor's chunks share, if any: in front of all chunks' payloads, in the order of the directory. */
static enum skf_err get_side(struct skf_skd *s, struct skf_reader *r, uint8_t has, struct skd_tensor *t)
{
    uint64_t n, before = s->info.index_size;
    struct skd_side *k = &s->sides[s->info.n_sides];
    t->side = SKF_NO_SIDE;
    if (!(has & SKD_HAS_SIDE))
        return SKF_OK;
    SKF_TRY(skf_get_varint(r, &n));
    if (s->info.n_sides)
        before = k[-1].payload_offset + k[-1].payload_length;
    if (n == 0 || n > SKF_SIDE_MAX || n > s->info.payload_size - (before - s->info.index_size))
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_get_u8(r, &k->coding));
    if (k->coding != SKF_CODE_INT && k->coding != SKF_CODE_ADAPTER && k->coding != SKF_CODE_PACK)
        return SKF_ERR_FORMAT;
    SKF_TRY(skf_get_bytes(r, SKF_DIGEST, &k->digest));
    k->payload_offset = before;
    k->payload_length = (uint32_t)n;
    t->side = (uint32_t)s->info.n_sides++;
    return SKF_OK;
}

/* A field that follows when its bit is set, and stays as it is otherwise. */
static enum skf_err get_if(struct skf_reader *r, unsigned bit, uint64_t *v) { return bit ? skf_get_varint(r, v) : SKF_OK; }
static enum skf_err get_signed_if(struct skf_reader *r, unsigned bit, uint64_t *v) { return bit ? skf_get_svarint(r, v) : SKF_OK; }

/* What chunks are packed in is no tensor, but a piece of the result. */
static bool is_piece_right(const struct skf_skd *s, const struct skd_tensor *t)
{
    if (t->side == SKF_NO_SIDE || s->sides[t->side].coding != SKF_CODE_PACK)
        return true;
    return t->bytes > 0 && t->bytes <= SKD_PACK_MAX && t->source_bytes == 0;
}

static enum skf_err get_tensor(struct skf_skd *s, struct skf_reader *r, const struct skd_tensor *before,
                               struct skd_tensor *t)
{
    uint64_t type = before ? before->type : 0, gap = 0, shift = 0, growth = 0, end = before ? before->offset + before->bytes : 0, at;
    uint8_t has;
    t->row_bytes = before ? before->row_bytes : 0;
    SKF_TRY(skf_get_u8(r, &has));
    if (has > SKD_HAS_ALL)
        return SKF_ERR_FORMAT;
    SKF_TRY(get_if(r, has & SKD_HAS_TYPE, &type));
    SKF_TRY(get_if(r, has & SKD_HAS_ROW, &t->row_bytes));
    SKF_TRY(get_if(r, has & SKD_HAS_GAP, &gap));
    SKF_TRY(skf_get_varint(r, &t->bytes));
    SKF_TRY(get_signed_if(r, has & SKD_HAS_SHIFT, &shift));
    SKF_TRY(get_signed_if(r, has & SKD_HAS_GROWTH, &growth));
    SKF_TRY(get_side(s, r, has, t));
    const struct skf_type_info *info = type <= UINT32_MAX ? skf_type_info((uint32_t)type) : NULL;
    if (!info)
        return SKF_ERR_FORMAT;
    t->type = info->type;
    if (!is_add_ok(end, gap, &t->offset) || !is_add_ok(t->offset, t->bytes, &at) || at > s->info.result_size)
        return SKF_ERR_FORMAT;
    if (t->row_bytes == 0 || t->row_bytes % info->block_bytes || t->bytes % t->row_bytes)
        return SKF_ERR_FORMAT;
    t->source_offset = t->offset + shift + (before ? before->source_offset - before->offset : 0);
    t->source_bytes = t->bytes + growth;
    if (!is_add_ok(t->source_offset, t->source_bytes, &at) || at > s->source_all)
        return SKF_ERR_FORMAT;
    return is_piece_right(s, t) ? SKF_OK : SKF_ERR_FORMAT;
}

/* The piece that a PACK chunk lies in. `*tensor` only ever moves on. */
static enum skf_err place_in_piece(const struct skf_skd *s, struct skd_chunk *c, uint32_t *tensor)
{
    uint64_t end = c->result_offset + c->result_length;
    while (*tensor < s->n_tensors && s->tensors[*tensor].offset + s->tensors[*tensor].bytes < end)
        ++*tensor;
    if (*tensor >= s->n_tensors || c->result_offset < s->tensors[*tensor].offset)
        return SKF_ERR_FORMAT;
    c->tensor = *tensor;
    return skd_side_of(s, c) ? SKF_OK : SKF_ERR_FORMAT;
}

/* Where an INT or ADAPTER chunk reads: the same place of its tensor in the source. Moves on likewise. */
static enum skf_err place_in_tensor(const struct skf_skd *s, struct skd_chunk *c, uint32_t *tensor)
{
    uint64_t end = c->result_offset + c->result_length;
    while (*tensor < s->n_tensors && s->tensors[*tensor].offset + s->tensors[*tensor].bytes < end)
        ++*tensor;
    if (*tensor >= s->n_tensors)
        return SKF_ERR_FORMAT;
    const struct skd_tensor *t = &s->tensors[*tensor];
    uint64_t within = c->result_offset - t->offset;
    uint64_t grain = c->coding == SKF_CODE_INT                                        ? skf_int_grain(t->type)
                     : is_adapter_shape(t->type, t->row_bytes, 0, t->row_bytes) ? t->row_bytes
                                                                                      : 0;
    if (c->result_offset < t->offset || !grain || within % grain || c->result_length % grain ||
        within > t->source_bytes || c->result_length > t->source_bytes - within)
        return SKF_ERR_FORMAT;
    c->tensor = *tensor;
    c->source_offset = t->source_offset + within;
    c->source_length = c->result_length;
    return SKF_OK;
}

struct place { /* what the records before leave behind */
    uint64_t result, payload, copied;
    uint32_t tensor, length;
};

static enum skf_err get_length(const struct skf_skd *s, struct skf_reader *r, unsigned where, struct place *at, uint64_t *n)
{
    if (where == SKD_LENGTH_TOLD)
        return skf_get_varint(r, n);
    *n = at->length;
    if (where == SKD_LENGTH_AGAIN)
        return SKF_OK;
    const struct skd_tensor *t = s->tensors + at->tensor, *end = s->tensors + s->n_tensors;
    while (t < end && t->offset + t->bytes <= at->result)
        t++;
    if (where != SKD_LENGTH_REST || t == end || t->offset > at->result)
        return SKF_ERR_FORMAT;
    at->tensor = (uint32_t)(t - s->tensors);
    *n = t->offset + t->bytes - at->result;
    return SKF_OK;
}

/* The ranges of a MIXED chunk: none, or several that a receiver gathers. */
static enum skf_err get_ranges(struct skf_skd *s, struct skf_reader *r, struct skd_chunk *c)
{
    uint64_t count, d, n, end = c->result_offset, all = 0;
    SKF_TRY(skf_get_varint(r, &count));
    if (count > SKD_RANGES_MAX)
        return SKF_ERR_FORMAT;
    c->range = (uint32_t)(s->ranges.len / sizeof(struct skd_range));
    c->ranges = (uint8_t)count;
    for (uint64_t i = 0; i < count; i++) {
        SKF_TRY(skf_get_svarint(r, &d));
        SKF_TRY(skf_get_varint(r, &n));
        struct skd_range g = {end + d, (uint32_t)n};
        if (n == 0 || n > SKD_PATCH_MAX - all || n > s->source_all || g.at > s->source_all - n)
            return SKF_ERR_FORMAT;
        SKF_TRY(skf_buf_put(&s->ranges, &g, sizeof g));
        if (i == 0)
            c->source_offset = g.at;
        end = g.at + n;
        all += n;
    }
    c->source_length = (uint32_t)all;
    return SKF_OK;
}

static enum skf_err get_source(struct skf_skd *s, struct skf_reader *r, struct place *at, struct skd_chunk *c)
{
    uint64_t d, n = c->result_length;
    if (c->coding == SKF_CODE_INT || c->coding == SKF_CODE_ADAPTER)
        return place_in_tensor(s, c, &at->tensor);
    if (c->coding == SKF_CODE_PACK)
        return place_in_piece(s, c, &at->tensor);
    if (c->coding == SKF_CODE_MIXED)
        return get_ranges(s, r, c);
    if (c->coding != SKF_CODE_COPY && c->coding != SKF_CODE_PATCH)
        return SKF_OK;
    SKF_TRY(skf_get_svarint(r, &d));
    c->source_offset = d + (c->coding == SKF_CODE_COPY ? at->copied : c->result_offset);
    if (c->coding == SKF_CODE_PATCH)
        SKF_TRY(skf_get_varint(r, &n));
    if (n == 0 || n > SKD_PATCH_MAX || n > s->source_all || c->source_offset > s->source_all - n)
        return SKF_ERR_FORMAT;
    c->source_length = (uint32_t)n;
    if (c->coding == SKF_CODE_COPY)
        at->copied = c->source_offset + n;
    return SKF_OK;
}

static enum skf_err get_chunk(struct skf_skd *s, struct skf_reader *r, struct place *at, struct skd_chunk *c)
{
    uint64_t n;
    const uint8_t *p;
    SKF_TRY(skf_get_u8(r, &c->coding));
    SKF_TRY(get_length(s, r, c->coding >> 4, at, &n));
    c->coding &= 15;
    if (c->coding >= SKF_CODE_COUNT || n == 0 || n > SKF_CHUNK_MAX || n > s->info.result_size - at->result)
        return SKF_ERR_FORMAT;
    c->result_offset = at->result;
    c->result_length = (uint32_t)n;
    c->tensor = SKD_NO_TENSOR;
    SKF_TRY(get_source(s, r, at, c));
    bool has_own = has_skd_own(c->coding);
    if (has_own) {
        SKF_TRY(skf_get_varint(r, &n));
        if (n == 0 || n >= c->result_length) /* otherwise it were RAW */
            return SKF_ERR_FORMAT;
    }
    c->payload_length = has_own || c->coding == SKF_CODE_RAW ? (uint32_t)n : 0;
    if (c->payload_length > s->info.payload_size - (at->payload - s->info.index_size))
        return SKF_ERR_FORMAT;
    c->payload_offset = at->payload;
    SKF_TRY(skf_get_bytes(r, has_own ? SKF_DIGEST + SKD_PAYLOAD_DIGEST : SKF_DIGEST, &p));
    c->digest_at = (uint32_t)(p - s->index);
    at->length = c->result_length;
    at->result += c->result_length;
    at->payload += c->payload_length;
    return SKF_OK;
}

/* Sizes and counts, and room for what the counts say, once the index is known to be able to hold as much. */
static enum skf_err get_counts(struct skf_skd *s, struct skf_reader *r, struct skf_why *why)
{
    struct skf_skd_info *f = &s->info;
    if (skf_get_varint(r, &f->source_size) || skf_get_varint(r, &f->result_size) || skf_get_varint(r, &s->n_tensors) ||
        skf_get_varint(r, &f->n_chunks))
        return damaged(why, "its index ends early");
    const uint8_t *root;
    if (f->also_size && skf_get_bytes(r, SKF_DIGEST, &root))
        return damaged(why, "its index ends early");
    if (f->also_size)
        memcpy(f->also_root, root, SKF_DIGEST);
    if (!is_add_ok(f->source_size, f->also_size, &s->source_all))
        return damaged(why, "its sources are larger than anything");
    size_t left = skf_reader_left(r);
    if (f->n_chunks > left / SKD_CHUNK_MIN || s->n_tensors > left / SKD_TENSOR_MIN || s->n_tensors > f->n_chunks)
        return damaged(why, "it claims more tensors or chunks than its index holds");
    s->ranges = SKF_BUF_INIT(sizeof(struct skd_range) / 2 * left); /* each takes two bytes and more */
    s->tensors = skf_calloc(s->n_tensors, sizeof *s->tensors);
    s->sides = skf_calloc(s->n_tensors, sizeof *s->sides);
    s->chunks = skf_calloc(f->n_chunks, sizeof *s->chunks);
    return s->tensors && s->sides && s->chunks ? SKF_OK : skf_fail(why, SKF_ERR_NOMEM, "out of memory");
}

/* What must hold once every record is read. */
static enum skf_err check_whole(const struct skf_skd *s, const struct place *end, const struct skf_merkle *m,
                                struct skf_why *why)
{
    const struct skf_skd_info *f = &s->info;
    uint8_t root[SKF_DIGEST];
    if (end->payload - f->index_size != f->payload_size)
        return damaged(why, "its payloads do not come to their size");
    if (memcmp(f->source_root, f->result_root, SKF_DIGEST) == 0)
        return f->n_chunks == 0 && f->source_size == f->result_size && !f->also_size ? SKF_OK
                                                                    : damaged(why, "an identity that changes something");
    skf_merkle_root(m, root);
    if (end->result != f->result_size || memcmp(root, f->result_root, SKF_DIGEST) != 0)
        return skf_fail(why, SKF_ERR_DIGEST, "damaged delta: its chunks do not come to its result root");
    return SKF_OK;
}

static enum skf_err get_tables(struct skf_skd *s, struct skf_reader *r, struct skf_why *why)
{
    SKF_TRY(get_counts(s, r, why));
    for (uint64_t i = 0; i < s->n_tensors; i++) {
        enum skf_err e = get_tensor(s, r, i ? &s->tensors[i - 1] : NULL, &s->tensors[i]);
        if (e != SKF_OK)
            return skf_fail(why, e, "damaged delta: tensor %llu of its directory", (unsigned long long)i);
    }
    struct place at = {.payload = s->info.index_size};
    if (s->info.n_sides) {
        const struct skd_side *last = &s->sides[s->info.n_sides - 1];
        at.payload = last->payload_offset + last->payload_length;
    }
    struct skf_merkle m;
    skf_merkle_init(&m);
    for (uint64_t i = 0; i < s->info.n_chunks; i++) {
        enum skf_err e = get_chunk(s, r, &at, &s->chunks[i]);
        if (e != SKF_OK)
            return skf_fail(why, e, "damaged delta: chunk %llu of its table", (unsigned long long)i);
        skf_merkle_add(&m, skd_result_digest(s, &s->chunks[i]), s->chunks[i].result_length);
    }
    return skf_reader_left(r) == 0 ? check_whole(s, &at, &m, why) : damaged(why, "its index does not fill its size");
}

static enum skf_err parse(const uint8_t *p, uint64_t n, bool is_copied, struct skf_skd **skd, struct skf_why *why)
{
    uint64_t size;
    if (n < SKF_SKD_HEAD)
        return damaged(why, "shorter than its head");
    SKF_TRY(skf_skd_index_size(p, &size, why));
    if (size != n)
        return damaged(why, "its index is cut short");
    uint8_t digest[SKF_DIGEST];
    SKF_TRY(skd_index_digest(p, n, digest));
    if (memcmp(digest, p + SKD_DIGEST_AT, SKF_DIGEST) != 0)
        return skf_fail(why, SKF_ERR_DIGEST, "damaged delta: its index has not the digest it must have");
    struct skf_skd *s = skf_calloc(1, sizeof *s);
    if (!s || (is_copied && !(s->copy = skf_memdup(p, n)))) {
        skf_free(s);
        return skf_fail(why, SKF_ERR_NOMEM, "out of memory");
    }
    s->info.codec = skf_le16(p + 6);
    s->info.index_size = n;
    s->info.payload_size = skf_le64(p + 16);
    s->info.also_size = skf_le64(p + 24);
    memcpy(s->info.source_root, p + 32, SKF_DIGEST);
    memcpy(s->info.result_root, p + 64, SKF_DIGEST);
    s->index = is_copied ? s->copy : p;
    struct skf_reader r = skf_reader_of(s->index + SKF_SKD_HEAD, n - SKF_SKD_HEAD);
    enum skf_err e = get_tables(s, &r, why);
    if (e != SKF_OK) {
        skf_skd_free(s);
        return e;
    }
    *skd = s;
    return SKF_OK;
}

enum skf_err skf_skd_parse(const uint8_t *p, uint64_t n, struct skf_skd **skd, struct skf_why *why)
{
    return parse(p, n, true, skd, why);
}

enum skf_err skf_skd_parse_in_place(const uint8_t *p, uint64_t n, struct skf_skd **skd, struct skf_why *why)
{
    return parse(p, n, false, skd, why);
}

void skf_skd_free(struct skf_skd *skd)
{
    if (!skd)
        return;
    skf_buf_free(&skd->ranges);
    skf_free(skd->tensors);
    skf_free(skd->sides);
    skf_free(skd->chunks);
    skf_free(skd->copy);
    skf_free(skd);
}

size_t skf_skd_memory(const struct skf_skd *s)
{
    return s->info.n_chunks * sizeof *s->chunks + s->n_tensors * sizeof *s->tensors + s->info.n_sides * sizeof *s->sides +
           s->ranges.cap + (s->copy ? s->info.index_size : 0);
}

const struct skf_skd_info *skf_skd_info(const struct skf_skd *skd) { return &skd->info; }

void skf_skd_chunk(const struct skf_skd *skd, uint64_t i, struct skf_skd_chunk *c)
{
    const struct skd_chunk *k = &skd->chunks[i];
    *c = (struct skf_skd_chunk){.result_offset = k->result_offset,
                                .result_length = k->result_length,
                                .coding = (enum skf_coding)k->coding,
                                .payload_offset = k->payload_offset,
                                .payload_length = k->payload_length,
                                .source_offset = k->source_offset,
                                .source_length = k->source_length};
    const struct skd_side *side = skd_side_of(skd, k);
    c->side = side ? skd->tensors[k->tensor].side : SKF_NO_SIDE;
    memcpy(c->result_digest, skd_result_digest(skd, k), SKF_DIGEST);
}

void skf_skd_side(const struct skf_skd *skd, uint64_t k, struct skf_skd_side *s)
{
    *s = (struct skf_skd_side){.payload_offset = skd->sides[k].payload_offset,
                               .payload_length = skd->sides[k].payload_length};
    memcpy(s->payload_digest, skd->sides[k].digest, SKF_DIGEST);
}

void skf_skd_payload(const struct skf_skd *skd, uint64_t number, uint64_t *offset, uint32_t *length)
{
    bool is_chunk = number < skd->info.n_chunks;
    const struct skd_chunk *c = &skd->chunks[is_chunk ? number : 0];
    const struct skd_side *s = &skd->sides[is_chunk ? 0 : number - skd->info.n_chunks];
    *offset = is_chunk ? c->payload_offset : s->payload_offset;
    *length = is_chunk ? c->payload_length : s->payload_length;
}

enum skf_err skf_skd_put_side(struct skf_skd *skd, uint64_t k, const uint8_t *payload, struct skf_why *why)
{
    uint8_t digest[SKF_DIGEST];
    if (k >= skd->info.n_sides)
        return skf_fail(why, SKF_ERR_ARG, "the delta has no side %llu", (unsigned long long)k);
    skf_sha256(payload, skd->sides[k].payload_length, digest);
    if (memcmp(digest, skd->sides[k].digest, SKF_DIGEST) != 0)
        return skf_fail(why, SKF_ERR_DIGEST, "damaged delta: the payload of side %llu has not its digest",
                        (unsigned long long)k);
    skd->sides[k].payload = payload;
    return SKF_OK;
}

uint64_t skd_more_memory(const struct skf_skd *s)
{
    uint64_t most = 0;
    for (uint64_t i = 0; i < s->info.n_chunks; i++) {
        const struct skd_chunk *c = &s->chunks[i];
        const struct skd_side *side = skd_side_of(s, c);
        if (c->coding == SKF_CODE_PACK) /* the window it is unpacked in */
            most = SKF_MAX(most, s->tensors[c->tensor].bytes);
        if (c->ranges > 1)
            most = SKF_MAX(most, (uint64_t)c->source_length);
        if (c->coding == SKF_CODE_ADAPTER)
            most = SKF_MAX(most, c->result_length + sizeof(float) * ((uint64_t)c->payload_length + (side ? side->payload_length : 0)));
    }
    return most;
}
