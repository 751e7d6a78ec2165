/*
 * The distributor as a whole: registry, chunks, signer, builder, and the gRPC services in front of them.
 *
 * A folder of its own, `dir`:
 *   tls/{distributor.crt,distributor.key,ca.crt}   ca/ (only where boxes enrol)   enrol.tokens
 *   tuf/ (the signed repository)   keys/{snapshot,timestamp,deltas}.key
 *   registry/   chunks/   content/ (scratch)   deltas/
 *
 * A dispatcher thread decides what boxes are told; the wire's threads take messages and send payloads; a builder thread
 * makes deltas.
 */
#ifndef SKF_DISTRIBUTOR_CENTRE_H
#define SKF_DISTRIBUTOR_CENTRE_H

#include "base/err.h"

struct skf_centre;
struct skf_centre_opts {
    const char *dir;
    const char *listen;       /* "127.0.0.1:7443"; port 0 takes any */
    const char *enrol_listen; /* NULL: no enrolment */
    unsigned jobs;            /* of the builder; 0: one a processor */
    bool is_open_key_fine;    /* a key of its certificate that others can read is used all the same */
};
SKF_MUST enum skf_err skf_centre_open(const struct skf_centre_opts *o, struct skf_centre **c, struct skf_why *why);
int skf_centre_port(const struct skf_centre *c);
int skf_centre_enrol_port(const struct skf_centre *c); /* 0 without */
void skf_centre_close(struct skf_centre *c);           /* ends every session, waits; NULL is fine */

#endif
