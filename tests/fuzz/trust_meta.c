/*
 * Metadata from a hostile repository: whatever the bytes, parsing, canonical form, verification and the search for a
 * path end, within bounds, and what was parsed has a shape that nobody behind it stumbles over.  The first byte picks
 * the type.
 */
#include "base/alloc.h"
#include "trust/tuf_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* What each call answers is its own affair here; that it comes back is what is asked. */
static unsigned use(const skf_json *doc, const char *role)
{
    struct skf_why why = {{0}};
    struct skf_buf b = SKF_BUF_INIT(1u << 20);
    skf_json *obj, *keys, *entry = skf_tuf_meta_of(doc, "targets");
    unsigned sum = skf_tuf_canonical(skf_tuf_signed(doc), &b);
    sum += skf_tuf_verify(doc, role, doc, &why);
    sum += skf_tuf_verify(doc, "deltas", doc, &why);
    sum += skf_tuf_check_expiry("x", doc, 1800000000, &why);
    if (entry)
        sum += skf_tuf_check_bytes("x", entry, "hello", 5, &why);
    if (skf_tuf_role(doc, "deltas", &obj, &keys))
        sum += is_tuf_delegated(obj, "deltas/a-b.skdx");
    if (skf_tuf_version(doc) < 1)
        __builtin_trap();
    skf_buf_free(&b);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static const char *const types[] = {"root", "timestamp", "snapshot", "targets"};
    if (n == 0)
        return 0;
    const char *type = types[p[0] & 3];
    struct skf_why why = {{0}};
    skf_json *doc = NULL;
    enum skf_err e = skf_tuf_parse("fuzz", type, p + 1, n - 1, &doc, &why);
    if ((e == SKF_OK) != (doc != NULL) || (e != SKF_OK && !why.text[0]))
        __builtin_trap();
    if (e == SKF_OK)
        (void)use(doc, type);
    skf_json_free(doc);
    return 0;
}
