/*
 * The journal of a file that a delta changes in place: beside it, named FILE.skiff-journal.
 *
 *   head     4096 bytes: "SKJ\x1a", u16 version 1, u16 0, 4 bytes 0, digest of the delta's index (32), u64 source size,
 *            u64 result size, u64 bytes of a batch, u32 slots, u32 bytes of a slot; SHA-256 of these 80 bytes (32)
 *   records  at 4096 and 8192, of the batches with an even and an odd number: u64 number + 1, SHA-256 of these 8 bytes and of the
 *            head's digest (32)
 *   batches  at 12288: the bytes of the last even and of the last odd batch, each with as much room as a batch may have
 *   slots    chunks that were put aside
 *
 * A batch is written here and synced, then into the file and synced; the one before it stands until then.  So after a power cut the
 * last batch that is whole here (every chunk of it has its digest) is written into the file again, whatever of it was there, and the
 * work goes on behind it.
 */
#ifndef SKF_DELTA_JOURNAL_PRIV_H
#define SKF_DELTA_JOURNAL_PRIV_H

#include "base/file.h"
#include "delta/place_priv.h"

/* What is said of one that cannot be read, with the way on: nobody can tell any more which of the file's chunks are whose. */
#define JOURNAL_DAMAGED "damaged journal; put the old version back in the file's place, remove the journal, and begin anew"

struct journal {
    struct skf_rw *file;
    uint8_t delta[SKF_DIGEST]; /* digest of its index */
    uint8_t digest[SKF_DIGEST]; /* of the head */
    uint64_t source_size, result_size, batch;
    uint32_t slots, slot_bytes;
};
/* Bytes that a journal with the layout in *j takes. */
uint64_t journal_bytes(const struct journal *j);
/* Makes it, whole or not at all, for the layout in *j, with room for everything on the disk. */
SKF_MUST enum skf_err journal_make(const char *path, struct journal *j, struct skf_why *why);
/* SKF_ERR_NOT_FOUND (and no text) when there is none; SKF_ERR_FORMAT for a damaged one. */
SKF_MUST enum skf_err journal_open(const char *path, struct journal *j, struct skf_why *why);
/* Where the bytes of a batch, and of a slot, begin. */
uint64_t journal_batch_at(const struct journal *j, uint64_t number);
uint64_t journal_slot_at(const struct journal *j, uint32_t slot);
/* Says that the bytes of this batch are written, and makes all of it last. */
SKF_MUST enum skf_err journal_commit(struct journal *j, uint64_t number, struct skf_why *why);
/* The numbers of the batches that have a record, the last first. */
SKF_MUST enum skf_err journal_records(const struct journal *j, uint64_t number[2], unsigned *n, struct skf_why *why);

#endif
