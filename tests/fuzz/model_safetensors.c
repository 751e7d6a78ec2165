/* The safetensors reader: the input is a header without its length, so that mutations reach the JSON, and some data behind it. */
#include <stdint.h>

#include "base/alloc.h"
#include "model/model.h"
#include "tests/lib/gguf_make.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { DATA = 64 };
    uint8_t *file = skf_calloc(1, 8 + size + DATA);
    struct skf_model *m;
    if (!file)
        return 0;
    skf_put_le64(file, size);
    if (size)
        memcpy(file + 8, data, size);
    struct skf_source src = skf_source_of(file, 8 + size + DATA);
    if (skf_model_open_source(&src, "input", &m, NULL) == SKF_OK) {
        size_t n;
        const struct skf_tensor *t = skf_model_tensors(m, &n);
        uint64_t at = 8 + size;
        for (size_t i = 0; i < n; i++) {
            if (t[i].offset != at || t[i].row_bytes == 0 || t[i].bytes % t[i].row_bytes || !skf_model_find(m, t[i].name))
                __builtin_trap();
            at += t[i].bytes;
        }
        if (n && at != src.size)
            __builtin_trap();
        skf_model_close(m);
    }
    skf_free(file);
    return 0;
}
