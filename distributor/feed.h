/*
 * What one session has asked for and not been sent yet: metadata, signed targets, payloads of deltas.
 *
 * Answers go out in the order of the requests, piece by piece as the stream takes them, so that a slow box costs no
 * memory.  A delta that many boxes fetch is mapped once.
 */
#ifndef SKF_DISTRIBUTOR_FEED_H
#define SKF_DISTRIBUTOR_FEED_H

#include "distributor/registry.h"
#include "distributor/signer.h"
#include "proto/fleet.pb-c.h"
#include "wire/wire.h"

/* Shared by all sessions: deltas that are open. Any thread. */
struct skf_feeds;
SKF_MUST enum skf_err skf_feeds_open(const char *deltas_dir, struct skf_registry *registry, struct skf_signer *signer,
                                     struct skf_feeds **f, struct skf_why *why);
void skf_feeds_close(struct skf_feeds *f); /* after every feed; NULL is fine */

/* One session's; its calls come from the stream's callbacks alone. */
struct skf_feed;
SKF_MUST enum skf_err skf_feed_new(struct skf_feeds *f, struct skf_feed **feed);
void skf_feed_free(struct skf_feed *feed);
/* Queue an answer; a thing that does not exist is answered as not found. SKF_ERR_LIMIT when too much was asked. */
SKF_MUST enum skf_err skf_feed_meta(struct skf_feed *feed, const Skiff__V1__GetMeta *m, struct skf_why *why);
SKF_MUST enum skf_err skf_feed_chunks(struct skf_feed *feed, const Skiff__V1__GetChunks *g, struct skf_why *why);
/* Sends until the stream holds enough or nothing is left. */
void skf_feed_pump(struct skf_feed *feed, struct skf_wire_stream *s);

/* The packed manifest behind "models/<model>/<version>.manifest"; the caller frees. SKF_ERR_NOT_FOUND. */
SKF_MUST enum skf_err skf_manifest_by_path(struct skf_registry *r, const char *path, uint8_t **p, size_t *n,
                                           struct skf_why *why);

#endif
