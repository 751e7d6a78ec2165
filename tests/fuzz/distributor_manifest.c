/* Any bytes as a manifest: what is taken holds what the code above relies on. */
#include <stdlib.h>
#include <string.h>

#include "distributor/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    Skiff__V1__Manifest *m = NULL;
    struct skf_why why = {{0}};
    enum skf_err e = skf_manifest_read(p, n, &m, &why);
    if ((e == SKF_OK) != (m != NULL) || (e != SKF_OK && !why.text[0]))
        abort();
    if (!m)
        return 0;
    struct skf_reg_version v;
    struct skf_chunk_list l = skf_manifest_chunks(m);
    uint64_t sum = 0;
    skf_manifest_version(m, &v);
    for (uint64_t i = 0; i < l.n; i++)
        sum += l.lengths[i];
    if (sum != v.size || l.n == 0 || !is_registry_name(v.model) || !is_registry_name(v.version) ||
        strchr(m->files[0]->name, '/'))
        abort();
    skf_manifest_free(m);
    return 0;
}
