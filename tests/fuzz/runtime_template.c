/* A chat template from a hostile file: whatever it holds, rendering ends, within its bounds. */
#include "runtime/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static const struct skf_chat msgs[] = {{"system", "s\303\251"}, {"user", " u </think> \n"}, {"assistant", ""}};
    struct skf_buf out = SKF_BUF_INIT(1 << 16);
    struct skf_why why = {{0}};
    enum skf_err e = skf_template_render((const char *)p, n, msgs, 3, "<s>", NULL, true, &out, &why);
    if ((e != SKF_OK) != (why.text[0] != 0) || (e != SKF_OK && out.len))
        __builtin_trap();
    skf_buf_free(&out);
    return 0;
}
