/* A configuration: any bytes are taken or refused with file and line. */
#include <string.h>

#include "agent/agent_priv.h"
#include "base/toml.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct skf_toml t;
    struct skf_why why = {{0}};
    if (skf_toml_parse("f", (const char *)p, n, &t, &why) != SKF_OK) {
        if (strncmp(why.text, "f:", 2) != 0)
            __builtin_trap();
        return 0;
    }
    unsigned line = 1;
    for (size_t i = 0; i < t.n; i++) {
        const struct skf_toml_value *v = &t.v[i];
        if (v->line < line || v->n_keys < 1 || v->n_keys > SKF_TOML_KEYS || (v->type == SKF_TOML_STRING && !v->text))
            __builtin_trap();
        line = v->type == SKF_TOML_STRING ? line : v->line;
        for (unsigned k = 0; k < v->n_keys; k++)
            (void)strlen(v->key[k]);
    }
    skf_toml_free(&t);
    return 0;
}
