/* Head and index of a .skd, written (skd_priv.h has the format). */
#include <string.h>

#include "delta/skd_priv.h"
#include "delta/stream_priv.h"

enum skf_err skd_index_digest(const uint8_t *index, uint64_t n, uint8_t out[SKF_DIGEST])
{
    struct skf_sha256_ctx *c = skf_sha256_new();
    if (!c)
        return SKF_ERR_NOMEM;
    skf_sha256_add(c, index, SKD_DIGEST_AT);
    skf_sha256_add(c, index + SKF_SKD_HEAD, n - SKF_SKD_HEAD);
    skf_sha256_final(c, out);
    return SKF_OK;
}

static enum skf_err put_tensors(const struct skd_out *o, struct skf_buf *b)
{
    uint64_t end = 0, shift = 0, type = 0, row = 0;
    for (uint64_t i = 0; i < o->n_tensors; i++) {
        const struct skd_out_tensor *t = &o->tensors[i];
        const uint64_t moved = t->source_offset - t->offset - shift, growth = t->source_bytes - t->bytes;
        const int has = (t->type != type ? SKD_HAS_TYPE : 0) | (t->row_bytes != row ? SKD_HAS_ROW : 0) | (t->offset != end ? SKD_HAS_GAP : 0) |
                        (moved ? SKD_HAS_SHIFT : 0) | (growth ? SKD_HAS_GROWTH : 0) | (t->side_length ? SKD_HAS_SIDE : 0);
        SKF_TRY(skf_buf_u8(b, (uint8_t)has));
        SKF_TRY(has & SKD_HAS_TYPE ? skf_put_varint(b, (uint64_t)t->type) : SKF_OK);
        SKF_TRY(has & SKD_HAS_ROW ? skf_put_varint(b, t->row_bytes) : SKF_OK);
        SKF_TRY(has & SKD_HAS_GAP ? skf_put_varint(b, t->offset - end) : SKF_OK);
        SKF_TRY(skf_put_varint(b, t->bytes));
        SKF_TRY(moved ? skf_put_svarint(b, moved) : SKF_OK);
        SKF_TRY(growth ? skf_put_svarint(b, growth) : SKF_OK);
        if (t->side_length) {
            SKF_TRY(skf_put_varint(b, t->side_length));
            SKF_TRY(skf_buf_u8(b, t->side_coding));
            SKF_TRY(skf_buf_put(b, t->side_digest, SKF_DIGEST));
        }
        type = t->type;
        row = t->row_bytes;
        end = t->offset + t->bytes;
        shift = t->source_offset - t->offset;
    }
    return SKF_OK;
}

/* Coding and length of chunk i. `*tensor` only ever moves on. */
static enum skf_err put_length(const struct skd_out *o, uint64_t i, uint64_t *tensor, struct skf_buf *b)
{
    const struct skd_out_chunk *c = &o->chunks[i];
    const uint64_t end = c->result_offset + c->result_length;
    if (i && c[-1].result_length == c->result_length)
        return skf_buf_u8(b, (uint8_t)(c->coding | SKD_LENGTH_AGAIN << 4));
    while (*tensor < o->n_tensors && o->tensors[*tensor].offset + o->tensors[*tensor].bytes <= c->result_offset)
        ++*tensor;
    const struct skd_out_tensor *t = *tensor < o->n_tensors ? &o->tensors[*tensor] : NULL;
    if (t && t->offset <= c->result_offset && t->offset + t->bytes == end)
        return skf_buf_u8(b, (uint8_t)(c->coding | SKD_LENGTH_REST << 4));
    SKF_TRY(skf_buf_u8(b, c->coding));
    return skf_put_varint(b, c->result_length);
}

static enum skf_err put_chunks(const struct skd_out *o, struct skf_buf *b)
{
    uint64_t copied = 0, tensor = 0;
    for (uint64_t i = 0; i < o->n_chunks; i++) {
        const struct skd_out_chunk *c = &o->chunks[i];
        SKF_TRY(put_length(o, i, &tensor, b));
        if (c->coding == SKF_CODE_COPY) {
            SKF_TRY(skf_put_svarint(b, c->source_offset - copied));
            copied = c->source_offset + c->result_length;
        } else if (c->coding == SKF_CODE_PATCH) {
            SKF_TRY(skf_put_svarint(b, c->source_offset - c->result_offset));
            SKF_TRY(skf_put_varint(b, c->source_length));
        } else if (c->coding == SKF_CODE_MIXED) {
            uint64_t end = c->result_offset;
            SKF_TRY(skf_put_varint(b, c->n_ranges));
            for (uint32_t k = 0; k < c->n_ranges; k++) {
                SKF_TRY(skf_put_svarint(b, c->ranges[k].at - end));
                SKF_TRY(skf_put_varint(b, c->ranges[k].n));
                end = c->ranges[k].at + c->ranges[k].n;
            }
        }
        bool has_payload = has_skd_own(c->coding);
        if (has_payload)
            SKF_TRY(skf_put_varint(b, c->payload_length));
        SKF_TRY(skf_buf_put(b, c->result_digest, SKF_DIGEST));
        if (has_payload)
            SKF_TRY(skf_buf_put(b, c->payload_digest, SKD_PAYLOAD_DIGEST));
    }
    return SKF_OK;
}

enum skf_err skd_write_index(const struct skd_out *o, struct skf_buf *b)
{
    uint8_t head[SKF_SKD_HEAD] = {'S', 'K', 'D', 0x1a, SKD_CONTAINER, 0, SKD_CODEC, 0};
    uint64_t payload = 0;
    for (uint64_t i = 0; i < o->n_chunks; i++)
        payload += o->chunks[i].payload_length;
    for (uint64_t i = 0; i < o->n_tensors; i++)
        payload += o->tensors[i].side_length;
    SKF_TRY(skf_buf_put(b, head, sizeof head));
    SKF_TRY(skf_put_varint(b, o->source_size));
    SKF_TRY(skf_put_varint(b, o->result_size));
    SKF_TRY(skf_put_varint(b, o->n_tensors));
    SKF_TRY(skf_put_varint(b, o->n_chunks));
    if (o->also_size)
        SKF_TRY(skf_buf_put(b, o->also_root, SKF_DIGEST));
    SKF_TRY(put_tensors(o, b));
    SKF_TRY(put_chunks(o, b));
    skf_put_le64(b->data + 8, b->len);
    skf_put_le64(b->data + 16, payload);
    skf_put_le64(b->data + 24, o->also_size);
    memcpy(b->data + 32, o->source_root, SKF_DIGEST);
    memcpy(b->data + 64, o->result_root, SKF_DIGEST);
    return skd_index_digest(b->data, b->len, b->data + SKD_DIGEST_AT);
}
