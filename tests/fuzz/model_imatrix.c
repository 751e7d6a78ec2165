/* Importance matrices of both forms on any bytes; what is accepted holds values that are not negative and finite. */
#include <stdint.h>

#include "base/alloc.h"
#include "model/imatrix.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"a", "blk.0.w", "x", ""};
    struct skf_source src = skf_source_of(data, size);
    struct skf_imatrix *im = NULL;
    if (skf_imatrix_open_source(&src, "input", &im, NULL) != SKF_OK) {
        if (im)
            __builtin_trap();
        return 0;
    }
    if (skf_imatrix_count(im) == 0)
        __builtin_trap();
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        const float *v;
        size_t n;
        if (!is_imatrix_for(im, names[k], &v, &n))
            continue;
        for (size_t i = 0; i < n; i++)
            if (!(v[i] >= 0 && v[i] - v[i] == 0))
                __builtin_trap();
    }
    skf_imatrix_close(im);
    return 0;
}
