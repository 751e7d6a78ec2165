/*
 * What is fetched over HTTP, through libcurl.  Bounded in bytes and time; redirects are not followed, proxies of the environment not asked: what is
 * wanted stands where it was said to.
 */
#ifndef SKF_FETCH_FETCH_H
#define SKF_FETCH_FETCH_H

#include "base/buf.h"

struct skf_fetch; /* one connection, kept open between requests; one thread's */
SKF_MUST enum skf_err skf_fetch_open(struct skf_fetch **f, struct skf_why *why);
void skf_fetch_close(struct skf_fetch *take_f); /* NULL is fine */

struct skf_fetch_opts {
    unsigned timeout_ms; /* for all of it; 0 for 10,000 */
    const char *bearer;  /* sent as Authorization; NULL for none */
    const char *unix_path, *ca; /* a Unix socket instead of the URL's host; a PEM file instead of the system's; NULL */
};
/* GET of an http or https URL into b, which is cleared and whose limit bounds the answer (SKF_ERR_LIMIT). *status is HTTP's, whatever it is.
 * SKF_ERR_ARG for what is no such URL; SKF_ERR_NET, naming the URL and why, when nobody answers; SKF_ERR_TIMEOUT. */
SKF_MUST enum skf_err skf_fetch_get(struct skf_fetch *f, const char *url, const struct skf_fetch_opts *o, struct skf_buf *b, unsigned *status,
                                    struct skf_why *why);

#endif
