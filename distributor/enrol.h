/*
 * Enrolment: a box that has no certificate yet shows a one-time token and a signing request, and gets both certificate
 * and the first trusted root.
 *
 * Tokens lie in DIR/enrol.tokens, one line a box: name, SHA-256 of the token, and, once it was used, SHA-256 of the
 * request that used it, so that the very same request may be answered again when the first answer was lost.  A token
 * itself is printed once and kept nowhere.
 */
#ifndef SKF_DISTRIBUTOR_ENROL_H
#define SKF_DISTRIBUTOR_ENROL_H

#include "base/err.h"

#define SKF_TOKEN         65          /* 64 hex digits and a NUL */
#define SKF_ENROL_MESSAGE (64u << 10) /* bytes of a request: anybody may send one */

/* Makes a new token for the device (an older one for it is void). */
SKF_MUST enum skf_err skf_enrol_token(const char *dir, const char *name, char token[SKF_TOKEN], struct skf_why *why);
/* Uses the token up for this request, or only looks whether it could be (is_trial): SKF_ERR_REFUSED for a wrong name or
 * token, or one used by another request. */
SKF_MUST enum skf_err skf_enrol_use(const char *dir, const char *name, const char *token, const char *csr,
                                    bool is_trial, struct skf_why *why);
/* Enrolment.Enrol; ctx is the distributor's folder. */
SKF_MUST enum skf_err skf_enrol_unary(void *ctx, const char *identity, const uint8_t *p, size_t n, uint8_t **answer,
                                      size_t *answer_len, struct skf_why *why);

#endif
