/*
 * A grammar or a schema as any client may send it: refused with a reason, or compiled within its bounds, and then followed byte by byte
 * without ever being stuck where it says that it can go on. The first byte picks the form.
 */
#include "runtime/schema_priv.h"
#include "runtime/tools_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* Some byte that goes on from here, seen from a place that differs each time; -1: none. */
static int next_byte(struct skf_machine *m, uint32_t state, unsigned turn)
{
    for (unsigned k = 0; k < 256; k++) {
        uint8_t byte = (uint8_t)(k + turn * 37);
        uint32_t to = skf_machine_step(m, state, byte);
        if (to == SKF_STATE_UNKNOWN)
            return -2;
        if (to != SKF_STATE_DEAD)
            return byte;
    }
    return -1;
}

static void follow(struct skf_grammar *g)
{
    struct skf_machine *m = g->machine;
    uint32_t state = skf_machine_at(m, g->start, 0);
    for (unsigned turn = 0; turn < 64 && state != SKF_STATE_UNKNOWN; turn++) {
        int byte = next_byte(m, state, turn);
        if (byte == -2)
            return; /* over a bound */
        if (byte == -1) {
            if (!m->states[state].is_done)
                __builtin_trap();
            return;
        }
        state = skf_machine_step(m, state, (uint8_t)byte);
        if (turn == 40) {
            uint32_t *states[] = {&state};
            if (skf_machine_empty(m, states, 1) != SKF_OK)
                return;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct skf_grammar *g = NULL;
    struct skf_why why = {{0}};
    if (n == 0)
        return 0;
    const char *text = (const char *)p + 1;
    enum skf_err e = p[0] % 3 == 0 ? skf_grammar_gbnf(text, n - 1, &g, &why) : p[0] % 3 == 1 ? skf_grammar_schema(text, n - 1, &g, &why) :
                     skf_grammar_tools(text, n - 1, &g, &why);
    if (e != SKF_OK) {
        if (!why.text[0] || g)
            __builtin_trap();
        return 0;
    }
    follow(g);
    skf_grammar_free(g);
    return 0;
}
