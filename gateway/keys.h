/*
 * Who may ask, and how much: the gateway's file of keys.  One line a key:
 *
 *   NAME sha256:HEX [requests=N] [tokens=N] [concurrent=N] [priority=interactive|batch] [models=A,B] [off]
 *
 * HEX is the SHA-256 of the key as clients send it (`Authorization: Bearer KEY`); a key is 32 random bytes, so that its digest tells nothing of it
 * (`skiff-gateway --make-key NAME` makes one).  Requests and tokens are of a minute: each is a bucket that holds a minute's worth and fills evenly; tokens, those
 * of prompt and answer, are taken out when an answer ends, so that one answer may overdraw it and the next waits for that.  Lines that begin with # are
 * notes.  A file that cannot be read whole is refused whole, and whoever may write it may let anybody in: it must not be writable for others.
 *
 * All calls under the gateway's lock but _parse.
 */
#ifndef SKF_GATEWAY_KEYS_H
#define SKF_GATEWAY_KEYS_H

#include "base/digest.h"
#include "base/err.h"
#include "gateway/ask.h"

enum { GW_KEYS_MAX = 1024, GW_KEY_NAME = 65, GW_KEY_MODELS = 1024, GW_KEY_FILE = 1 << 20 };

struct gw_bucket {
    uint32_t each_minute; /* 0: no limit */
    double left;
    uint64_t at_ns; /* when `left` was so much */
};
struct gw_key {
    struct gw_key *next;
    char name[GW_KEY_NAME], models[GW_KEY_MODELS]; /* models: ",a,b," or "" for all */
    uint8_t digest[SKF_DIGEST];
    struct gw_bucket requests, tokens;
    uint32_t concurrent, running; /* at most, 0: no limit; now */
    bool is_batch, is_off, is_listed; /* listed: in the file as it is now; freed when it is not and nothing runs */
    uint64_t asked, refused, spent; /* requests that were taken, that were not; tokens */
};

/* A list of keys out of the file's text; SKF_ERR_FORMAT or _LIMIT names the line. now: skf_now_ns(). */
SKF_MUST enum skf_err skf_gw_keys_parse(const char *text, size_t n, uint64_t now, struct gw_key **keys, struct skf_why *why);
void skf_gw_keys_free(struct gw_key *take_keys);
/* Takes the place of what is in *keys: a name that stays keeps its buckets and what runs. */
void skf_gw_keys_replace(struct gw_key **keys, struct gw_key *take_fresh);

/* The key of a header's value ("Bearer ..."), NULL when there is none such. Takes the same time whichever key it is. */
struct gw_key *skf_gw_key_of(struct gw_key *keys, const char *authorization);
/* Whether it may ask this of that model now, and then counts it as running; otherwise what to answer, and the seconds after which to try again. */
bool is_gw_key_taken(struct gw_key *k, const char *model, uint64_t now, struct skf_gw_refusal *no, unsigned *retry_after);
/* An answer of so many tokens is over. */
void skf_gw_key_end(struct gw_key **keys, struct gw_key *k, uint64_t tokens, uint64_t now);
/* What is left of a bucket, and in how many milliseconds it is full. */
uint32_t skf_gw_bucket_left(struct gw_bucket *b, uint64_t now, uint64_t *full_ms);

/* A new key, "sk-" and 64 digits, and its line for the file; text holds at least 70 bytes, line 200. */
SKF_MUST enum skf_err skf_gw_key_make(const char *name, char *text, char *line, struct skf_why *why);

#endif
