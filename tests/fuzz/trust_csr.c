/* A signing request from a box that nobody knows yet: with a CA at hand, nothing but a true request gets a certificate.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "trust/cert.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static char ca[64];

static void end(void)
{
    char path[80];
    (void)snprintf(path, sizeof path, "%s/ca.crt", ca);
    (void)unlink(path);
    (void)snprintf(path, sizeof path, "%s/ca.key", ca);
    (void)unlink(path);
    (void)rmdir(ca);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct skf_why why = {{0}};
    char crt[8192];
    if (!ca[0]) {
        (void)snprintf(ca, sizeof ca, "/tmp/fuzz-ca-XXXXXX");
        if (!mkdtemp(ca) || skf_ca_init(ca, "fuzz", 30, &why) != SKF_OK)
            __builtin_trap();
        (void)atexit(end);
    }
    char *text = skf_alloc(n + 1);
    if (!text)
        return 0;
    if (n)
        memcpy(text, p, n);
    text[n] = 0;
    enum skf_err e = skf_ca_sign_csr(ca, text, "box", 30, crt, sizeof crt, &why);
    if (e != SKF_OK && !why.text[0])
        __builtin_trap();
    skf_free(text);
    return 0;
}
