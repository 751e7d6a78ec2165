/*
 * SHA-256 of several messages at once (digest.h).  One message's rounds wait for each other; those of others do not, so two are hashed
 * together by x86's instructions for SHA-256, or sixteen side by side by AVX-512, whichever the messages at hand go faster by.  They
 * need not be of one length: whichever ends first gives its lane to the next.  Elsewhere libcrypto hashes one after the other.
 */
#include <stdatomic.h>
#include <string.h>

#include <openssl/sha.h>

#include "base/alloc.h"
#include "base/digest.h"
#include "base/digest_priv.h"
#include "base/util.h"

_Static_assert(SHA_LANES == SKF_SHA256_MANY, "as many as digest.h promises");

const uint32_t sha_constants[64] __attribute__((aligned(64))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
const uint32_t sha_first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                               0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/* ---- which ways there are ---------------------------------------------------------------------------------------------------- */
enum { WAY_ASKED = 1, WAY_SHA = 2, WAY_AVX512 = 4 };

/* Asked once: in a virtual machine the question itself takes as long as hashing some KiB. */
static int ways(void)
{
    static atomic_int known;
    int k = atomic_load_explicit(&known, memory_order_relaxed);
#if defined __x86_64__
    enum skf_isa isa;
    if (!k) {
        k = WAY_ASKED | (is_sha_there() ? WAY_SHA : 0);
        if (skf_isa_pick(&isa, NULL) == SKF_OK && isa == SKF_ISA_AVX512)
            k |= WAY_AVX512;
        atomic_store_explicit(&known, k, memory_order_relaxed);
    }
#endif
    return k;
}

unsigned skf_sha256_lanes(void) { return ways() & WAY_AVX512 ? SHA_LANES : ways() & WAY_SHA ? 2 : 1; }
bool is_sha_ours(void) { return (ways() & WAY_SHA) != 0; }

/* Sixteen lanes take as long as nine messages two by two, and as two by libcrypto, however many of them are in use. */
#define WIDE_BESIDE_SHA 9
#define WIDE 2

/* ---- lanes --------------------------------------------------------------------------------------------------------------------- */
struct lane {
    size_t left;             /* blocks where its message is being read now: its whole blocks, then its end */
    size_t end_blocks;       /* in `end` */
    bool is_end;             /* that is being read */
    struct skf_message m;
    uint8_t end[2 * SHA_BLOCK]; /* what stands behind the whole blocks: the rest, a one bit, zeros, the length in bits */
};
struct skf_sha256_queue {
    unsigned n; /* lanes in use: the first ones */
    uint32_t state[SHA_LANES][8];
    const uint8_t *at[SHA_LANES];
    struct lane lane[SHA_LANES];
};

size_t sha_end(const uint8_t *rest, uint64_t n, uint8_t end[2 * SHA_BLOCK])
{
    size_t left = n % SHA_BLOCK, all = left < SHA_BLOCK - 8 ? SHA_BLOCK : 2 * SHA_BLOCK;
    memset(end, 0, 2 * SHA_BLOCK);
    if (left)
        memcpy(end, rest, left);
    end[left] = 0x80;
    for (unsigned i = 0; i < 8; i++)
        end[all - 1 - i] = (uint8_t)(n * 8 >> 8 * i);
    return all / SHA_BLOCK;
}

void sha_digest_of(const uint32_t s[8], uint8_t digest[SKF_DIGEST])
{
    for (unsigned i = 0; i < SKF_DIGEST; i++)
        digest[i] = (uint8_t)(s[i / 4] >> (24 - 8 * (i % 4)));
}

/* A lane that has read its whole blocks goes on with the end. */
static void go_to_end(struct skf_sha256_queue *q, unsigned k)
{
    struct lane *l = &q->lane[k];
    if (l->left || l->is_end)
        return;
    q->at[k] = l->end;
    l->left = l->end_blocks;
    l->is_end = true;
}

void skf_sha256_put(struct skf_sha256_queue *q, const struct skf_message *m)
{
    const unsigned k = q->n++;
    const size_t whole = m->n / SHA_BLOCK;
    const uint8_t *p = m->p;
    memcpy(q->state[k], sha_first, sizeof sha_first);
    q->at[k] = p;
    q->lane[k].left = whole;
    q->lane[k].is_end = false;
    q->lane[k].m = *m;
    q->lane[k].end_blocks = sha_end(p ? p + whole * SHA_BLOCK : p, m->n, q->lane[k].end);
    go_to_end(q, k);
}

/* Lane `from` moves to `to`; one that reads its end reads its new one. */
static void move(struct skf_sha256_queue *q, unsigned to, unsigned from)
{
    memcpy(q->state[to], q->state[from], sizeof q->state[to]);
    q->lane[to] = q->lane[from];
    q->at[to] = q->lane[to].is_end ? q->lane[to].end + (q->at[from] - q->lane[from].end) : q->at[from];
}

#if defined __x86_64__
/* Takes the first `width` lanes on until one of them has nothing left to read where it is. */
static void advance(struct skf_sha256_queue *q, unsigned width, sha_blocks_fn *fn)
{
    const unsigned used = SKF_MIN(width, q->n);
    size_t blocks = q->lane[0].left;
    for (unsigned k = 1; k < used; k++)
        blocks = SKF_MIN(blocks, q->lane[k].left);
    for (unsigned k = q->n; k < width; k++)
        q->at[k] = q->at[0]; /* for nothing, but there must be something */
    fn(q->state, q->at, blocks);
    for (unsigned k = 0; k < used; k++) {
        q->at[k] += blocks * SHA_BLOCK;
        q->lane[k].left -= blocks;
        go_to_end(q, k);
    }
}

static void advance_best(struct skf_sha256_queue *q, int way)
{
    if (!(way & WAY_SHA) || ((way & WAY_AVX512) && q->n >= WIDE_BESIDE_SHA))
        advance(q, SHA_LANES, sha_blocks_avx512);
    else if (q->n >= 2)
        advance(q, 2, sha_blocks_two);
    else
        advance(q, 1, sha_blocks_one);
}
#else
static void advance_best(struct skf_sha256_queue *q, int way) {}
#endif

unsigned skf_sha256_run(struct skf_sha256_queue *q, bool is_all, uint8_t *done[SKF_SHA256_MANY])
{
    const int way = ways();
    const unsigned most = skf_sha256_lanes();
    unsigned n = 0;
    while (q->n >= most || (is_all && q->n)) {
        if (way & (WAY_SHA | WAY_AVX512))
            advance_best(q, way);
        for (unsigned k = 0; k < q->n;) {
            struct skf_message *m = &q->lane[k].m;
            if (!(way & (WAY_SHA | WAY_AVX512))) {
                (void)SHA256(m->p ? m->p : "", m->n, m->digest);
            } else if (q->lane[k].left == 0) {
                sha_digest_of(q->state[k], m->digest);
            } else {
                k++;
                continue;
            }
            if (done)
                done[n++] = m->digest;
            if (k < --q->n)
                move(q, k, q->n);
        }
    }
    return n;
}

struct skf_sha256_queue *skf_sha256_queue_new(void) { return skf_calloc(1, sizeof(struct skf_sha256_queue)); }
void skf_sha256_queue_free(struct skf_sha256_queue *q) { skf_free(q); }

void skf_sha256_many(const struct skf_message *m, unsigned n)
{
    if (!(ways() & WAY_SHA) && n < WIDE) {
        for (unsigned i = 0; i < n; i++)
            (void)SHA256(m[i].p ? m[i].p : "", m[i].n, m[i].digest);
        return;
    }
    struct skf_sha256_queue q;
    q.n = 0;
    for (unsigned i = 0; i < n; i++) {
        skf_sha256_put(&q, &m[i]);
        (void)skf_sha256_run(&q, false, NULL);
    }
    (void)skf_sha256_run(&q, true, NULL);
}
