/* The journal of a file that is changed in place (journal_priv.h has the format). */
#include "delta/journal_priv.h"

#include <string.h>

#include "base/buf.h"
#include "base/util.h"

#define PAGE 4096u
#define VERSION 1
#define HEAD_BYTES 80
#define BATCHES_AT (3 * PAGE)

uint64_t journal_batch_at(const struct journal *j, uint64_t number) { return BATCHES_AT + number % 2 * j->batch; }
uint64_t journal_slot_at(const struct journal *j, uint32_t slot)
{
    return BATCHES_AT + 2 * j->batch + (uint64_t)slot * j->slot_bytes;
}
uint64_t journal_bytes(const struct journal *j) { return journal_slot_at(j, j->slots); }

static void put_head(struct journal *j, uint8_t head[PAGE])
{
    memset(head, 0, PAGE);
    memcpy(head, "SKJ\x1a", 4);
    skf_put_le16(head + 4, VERSION);
    memcpy(head + 12, j->delta, SKF_DIGEST);
    skf_put_le64(head + 44, j->source_size);
    skf_put_le64(head + 52, j->result_size);
    skf_put_le64(head + 60, j->batch);
    skf_put_le32(head + 68, j->slots);
    skf_put_le32(head + 72, j->slot_bytes);
    skf_sha256(head, HEAD_BYTES, j->digest);
    memcpy(head + HEAD_BYTES, j->digest, SKF_DIGEST);
}

enum skf_err journal_make(const char *path, struct journal *j, struct skf_why *why)
{
    struct skf_draft *d;
    uint8_t head[PAGE];
    put_head(j, head);
    SKF_TRY(skf_draft_open(path, journal_bytes(j), 0600, &d, why));
    enum skf_err e = skf_draft_write_at(d, 0, head, sizeof head, why);
    if (e != SKF_OK) {
        skf_draft_abort(d);
        return e;
    }
    SKF_TRY(skf_draft_commit(d, why));
    return skf_rw_open(path, false, &j->file, why);
}

enum skf_err journal_open(const char *path, struct journal *j, struct skf_why *why)
{
    uint8_t head[PAGE], digest[SKF_DIGEST];
    uint64_t size;
    struct skf_why silent = {{0}};
    enum skf_err e = skf_rw_open(path, false, &j->file, &silent);
    if (e == SKF_ERR_NOT_FOUND)
        return e;
    if (e != SKF_OK)
        return skf_fail(why, e, "%s", silent.text);
    SKF_TRY(skf_rw_size(j->file, &size, why));
    if (size < PAGE)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: " JOURNAL_DAMAGED, path);
    SKF_TRY(skf_rw_read_at(j->file, 0, head, sizeof head, why));
    skf_sha256(head, HEAD_BYTES, digest);
    if (memcmp(head, "SKJ\x1a", 4) != 0 || memcmp(digest, head + HEAD_BYTES, SKF_DIGEST) != 0)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: " JOURNAL_DAMAGED, path);
    if (skf_le16(head + 4) != VERSION)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: journal version %u; this skiff reads %d", path,
                        skf_le16(head + 4), VERSION);
    memcpy(j->digest, digest, SKF_DIGEST);
    memcpy(j->delta, head + 12, SKF_DIGEST);
    j->source_size = skf_le64(head + 44);
    j->result_size = skf_le64(head + 52);
    j->batch = skf_le64(head + 60);
    j->slots = skf_le32(head + 68);
    j->slot_bytes = skf_le32(head + 72);
    return SKF_OK;
}

static void record_digest(const struct journal *j, const uint8_t number[8], uint8_t digest[SKF_DIGEST])
{
    uint8_t t[8 + SKF_DIGEST];
    memcpy(t, number, 8);
    memcpy(t + 8, j->digest, SKF_DIGEST);
    skf_sha256(t, sizeof t, digest);
}

enum skf_err journal_commit(struct journal *j, uint64_t number, struct skf_why *why)
{
    uint8_t r[8 + SKF_DIGEST];
    skf_put_le64(r, number + 1);
    record_digest(j, r, r + 8);
    SKF_TRY(skf_rw_write_at(j->file, PAGE * (1 + number % 2), r, sizeof r, why));
    return skf_rw_sync(j->file, why);
}

enum skf_err journal_records(const struct journal *j, uint64_t number[2], unsigned *n, struct skf_why *why)
{
    *n = 0;
    for (unsigned k = 0; k < 2; k++) {
        uint8_t r[8 + SKF_DIGEST], digest[SKF_DIGEST];
        SKF_TRY(skf_rw_read_at(j->file, PAGE * (1 + k), r, sizeof r, why));
        record_digest(j, r, digest);
        uint64_t v = skf_le64(r);
        if (v > 0 && (v - 1) % 2 == k && memcmp(digest, r + 8, SKF_DIGEST) == 0)
            number[(*n)++] = v - 1;
    }
    if (*n == 2 && number[0] < number[1]) {
        uint64_t t = number[0];
        number[0] = number[1];
        number[1] = t;
    }
    return SKF_OK;
}
