/*
 * Grammars that an answer must follow: from a text (GBNF, a JSON schema) to the set of tokens that may come next.
 *
 * A grammar is compiled to rules of bytes, each a small automaton whose edges take a byte of a range, nothing, or call a rule and go on
 * behind it; together they are a pushdown automaton (as in xgrammar, Dong et al. 2024, and llguidance).  A place in it is a node and a
 * stack of nodes to return to; what may follow an answer so far is a set of places, since texts may be read in several ways.  Stacks are
 * shared, equal sets are one state, and what a byte leads to from a state is looked up once.
 *
 * Which tokens may come is found by going through a trie of the vocabulary's texts.  Most of that does not depend on the stack: for each
 * node the tokens that stay within what was called from it are found once and kept with the grammar, and with them the places in
 * the trie where the stack is gone below the node; only what lies behind those is gone through with the true stack.
 *
 * The text comes from a client: what is compiled and what is computed at a time is bounded, and a grammar beyond that is refused.
 */
#ifndef SKF_RUNTIME_GRAMMAR_PRIV_H
#define SKF_RUNTIME_GRAMMAR_PRIV_H

#include "base/err.h"
#include "runtime/tokenizer_priv.h"

#define SKF_GRAMMAR_TEXT_MAX  (1u << 20) /* bytes of its text */
#define SKF_GRAMMAR_NODES_MAX (1u << 17)
#define SKF_GRAMMAR_EDGES_MAX (1u << 18)
#define SKF_GRAMMAR_RULES_MAX (1u << 15)
#define SKF_GRAMMAR_DEPTH_MAX 512u       /* of a stack: rules within rules */
#define SKF_GRAMMAR_NO_MAX    UINT32_MAX /* a repetition without an end */

/* ---- building (grammar_build.c) ------------------------------------------------------------------------------------------------ */
/*
 * Expressions are made by the calls below and named by numbers; each may be a part of one other only.  The first failure stays in `err`
 * (and its words in `why`): all calls after it do nothing and give 0, so that only the end needs a check.
 */
enum skf_gx_kind { SKF_GX_BYTES, SKF_GX_SEQ, SKF_GX_ALT, SKF_GX_REP, SKF_GX_CALL };
struct skf_gx {
    uint8_t kind, lo, hi;
    uint32_t first, last, next; /* parts; the next part of the same whole */
    uint32_t min, max;          /* of SKF_GX_REP; of SKF_GX_CALL min is the rule */
};
struct skf_gb {
    struct skf_gx *x; /* [0] is no expression */
    uint32_t n, room;
    uint32_t *bodies; /* of rules; rule 0 is the root */
    uint32_t n_rules, rules_room;
    enum skf_err err;
    struct skf_why *why;
};
void skf_gb_fail(struct skf_gb *b, enum skf_err e, const char *fmt, ...) SKF_PRINTF(3, 4);
uint32_t skf_gb_bytes(struct skf_gb *b, uint8_t lo, uint8_t hi);
uint32_t skf_gb_seq(struct skf_gb *b); /* of no parts: the empty text */
uint32_t skf_gb_alt(struct skf_gb *b); /* of no parts: nothing at all */
uint32_t skf_gb_rep(struct skf_gb *b, uint32_t x, uint32_t min, uint32_t max);
uint32_t skf_gb_call(struct skf_gb *b, uint32_t rule);
void skf_gb_add(struct skf_gb *b, uint32_t whole, uint32_t part);
uint32_t skf_gb_text(struct skf_gb *b, const char *p, size_t n);
void skf_gb_str(struct skf_gb *b, uint32_t seq, const char *s); /* adds a literal */
void skf_gb_chars(struct skf_gb *b, uint32_t alt, uint32_t lo, uint32_t hi); /* adds the characters from lo to hi, in UTF-8 */
uint32_t skf_gb_rule(struct skf_gb *b); /* its body is given once, later */
void skf_gb_body(struct skf_gb *b, uint32_t rule, uint32_t x);
void skf_gb_free(struct skf_gb *b);

/* ---- compiled (grammar.c) ------------------------------------------------------------------------------------------------------- */
enum { SKF_EDGE_BYTES, SKF_EDGE_EMPTY, SKF_EDGE_CALL };
struct skf_edge {
    uint32_t from, to, start; /* start: of the rule that is called */
    uint8_t kind, lo, hi;
};
struct skf_node {
    uint32_t first, n; /* its edges */
    bool is_final, has_bytes;
};
struct skf_local;
struct skf_machine;
struct skf_grammar {
    struct skf_node *nodes;
    struct skf_edge *edges; /* by their node */
    uint32_t n_nodes, n_edges, start, n_classes;
    uint8_t class_of[256], byte_of[256]; /* bytes that no edge tells apart; one of each class */
    /* What is found out lazily, by the thread that steps. */
    struct skf_local **local; /* [n_nodes] */
    struct skf_machine *machine;
    struct skf_match *matches; /* that have begun */
    size_t local_bytes, mask_bytes;
};
/* Compiles what was built. SKF_ERR_ARG: it calls itself without progress, or there is no text that it allows; SKF_ERR_LIMIT. */
SKF_MUST enum skf_err skf_grammar_compile(const struct skf_gb *b, struct skf_grammar **g, struct skf_why *why);
void skf_grammar_free(struct skf_grammar *g);

/* From texts: GBNF, llama.cpp's form (grammar_gbnf.c). SKF_ERR_ARG, SKF_ERR_LIMIT with the reason. */
SKF_MUST enum skf_err skf_grammar_gbnf(const char *text, size_t n, struct skf_grammar **g, struct skf_why *why);

/* ---- going through it (grammar_machine.c) --------------------------------------------------------------------------------------- */
enum { SKF_STATE_UNKNOWN, SKF_STATE_DEAD, SKF_STATE_FIRST };
struct skf_place {
    uint32_t node, stack;
};
struct skf_state {
    uint32_t first, n; /* its places */
    bool is_done;      /* the grammar may end here */
    uint64_t *mask;    /* once it was asked for: what may follow */
};
struct skf_frame {
    uint32_t below, back, depth;
};
struct skf_machine {
    const struct skf_grammar *g;
    struct skf_state *states; /* [0] and [1] are unknown and dead */
    uint32_t n_states, states_room;
    uint32_t *next; /* [state][class] */
    struct skf_place *places;
    uint32_t n_places, places_room;
    struct skf_frame *frames; /* stacks; [0] is the empty one */
    uint32_t n_frames, frames_room;
    uint32_t *state_index, *frame_index; /* hash tables of fixed size */
    struct seen {
        struct skf_place at;
        uint32_t stamp;
    } *seen;
    struct skf_place *work;
    uint32_t stamp, n_work, n_set;
    bool is_done;
    uint64_t spent; /* places visited */
    enum skf_err err; /* NOMEM; LIMIT: too many at once; FULL: to be emptied and tried again */
};
SKF_MUST enum skf_err skf_machine_new(const struct skf_grammar *g, struct skf_machine **m);
void skf_machine_free(struct skf_machine *m);
/* These give a state, or SKF_STATE_UNKNOWN with m->err set. */
uint32_t skf_machine_at(struct skf_machine *m, uint32_t node, uint32_t stack); /* a node with its stack, and what follows without a byte */
uint32_t skf_machine_find(struct skf_machine *m, uint32_t state, uint8_t byte);
static inline uint32_t skf_machine_step(struct skf_machine *m, uint32_t state, uint8_t byte)
{
    uint32_t to = m->next[(size_t)state * m->g->n_classes + m->g->class_of[byte]];
    return to != SKF_STATE_UNKNOWN ? to : skf_machine_find(m, state, byte);
}
/* Forgets all states but these, which get new numbers, and what went wrong. */
SKF_MUST enum skf_err skf_machine_empty(struct skf_machine *m, uint32_t *const states[], size_t n);

/* ---- tokens (grammar_vocab.c, grammar_match.c) ------------------------------------------------------------------------------------ */
struct skf_trie_node {
    uint32_t skip;  /* the node behind its subtree */
    int32_t token;  /* the first that is spelt so, -1: none */
    uint16_t depth; /* bytes, from 1 */
    uint8_t byte;
};
struct skf_vocab {
    struct skf_trie_node *nodes; /* in the order of their texts */
    uint32_t n, n_tokens, depth;
    int32_t *same; /* [n_tokens]: the next token of the same text, -1: none */
    int32_t *stops;
    uint32_t n_stops;
    const struct skf_tokenizer *tk;
};
SKF_MUST enum skf_err skf_vocab_new(const struct skf_tokenizer *tk, struct skf_vocab **v);
void skf_vocab_free(struct skf_vocab *v);

/* Where one answer is. The grammar and the vocabulary outlive it. Any thread may make one; from its first use on it is the stepping thread's. */
struct skf_match;
SKF_MUST enum skf_err skf_match_new(struct skf_grammar *g, const struct skf_vocab *v, struct skf_match **m);
void skf_match_free(struct skf_match *m);
/* The tokens that may come next, one bit each; valid until the next call. SKF_ERR_LIMIT when that takes too much. */
SKF_MUST enum skf_err skf_match_mask(struct skf_match *m, const uint64_t **mask);
/* Goes on by a token that the mask allows; one that ends the answer changes nothing. SKF_ERR_ARG for another, SKF_ERR_LIMIT. */
SKF_MUST enum skf_err skf_match_take(struct skf_match *m, int32_t id);
bool is_match_over(const struct skf_match *m); /* nothing can follow */
void skf_local_free(struct skf_local *l);

#endif
