/*
 * Inside of the chat template interpreter: text -> tokens (template_lex.c) -> tree (template_parse.c) -> output (template_eval.c,
 * with the filters, tests, methods and functions of template_func.c over the values of template_value.c).
 *
 * Everything a rendering makes lives in one arena with a limit and goes at once.  Each step costs from one budget, and work on
 * long strings costs by their length, so that a template cannot hold a worker for long.
 *
 * Statements: text, {{ }}, {# #}, if/elif/else, for (with else, filter condition, unpacking; break, continue), set (also of namespace
 * attributes, and as a block), macro, generation.  Expressions: literals, names, attributes, items, slices, calls, filters, tests, inline
 * if, and/or/not, comparisons with in, + - * / // % ~.
 */
#ifndef SKF_RUNTIME_TEMPLATE_PRIV_H
#define SKF_RUNTIME_TEMPLATE_PRIV_H

#include "base/buf.h"

enum { TPL_SOURCE_MAX = 256 << 10, TPL_ARENA_MAX = 32 << 20, TPL_DEPTH_MAX = 100, TPL_VARS_MAX = 1024 };
#define TPL_STEPS_MAX 4000000u

struct tpl_str {
    const char *p;
    size_t n;
};

enum tpl_type { TPL_UNDEF, TPL_NONE, TPL_BOOL, TPL_INT, TPL_FLOAT, TPL_STR, TPL_LIST, TPL_MAP, TPL_LOOP, TPL_FUNC, TPL_MACRO };
struct tpl_value {
    enum tpl_type type;
    union {
        bool b;
        int64_t i;
        double f;
        struct tpl_str s; /* also the name of an undefined value and of a function */
        struct tpl_list *list;
        struct tpl_map *map;
        struct tpl_loop *loop;
        const struct tpl_node *macro;
    } u;
};
struct tpl_list {
    size_t n;
    struct tpl_value *v;
};
struct tpl_entry {
    struct tpl_str key;
    struct tpl_value value;
    struct tpl_entry *next;
};
struct tpl_map { /* small: looked up in order */
    struct tpl_entry *first;
    size_t n;
    bool is_namespace;
};
struct tpl_loop {
    const struct tpl_list *list;
    size_t i;
};

enum tpl_tok { TOK_EOF, TOK_TEXT, TOK_VAR, TOK_VAR_END, TOK_BLOCK, TOK_BLOCK_END, TOK_NAME, TOK_STR, TOK_INT, TOK_FLOAT, TOK_OP };
struct tpl_token {
    enum tpl_tok kind;
    unsigned line;
    struct tpl_str s;
    int64_t i;
    double f;
};

enum tpl_kind {
    /* statements */
    NODE_TEXT, NODE_OUT, NODE_IF, NODE_FOR, NODE_SET, NODE_MACRO, NODE_BREAK, NODE_CONTINUE, NODE_BODY,
    /* expressions */
    NODE_CONST, NODE_NAME, NODE_ATTR, NODE_ITEM, NODE_SLICE, NODE_CALL, NODE_KW, NODE_FILTER, NODE_TEST, NODE_NOT, NODE_NEG,
    NODE_BIN, NODE_AND, NODE_OR, NODE_CMP, NODE_COND, NODE_LIST, NODE_DICT
};
/* What the children mean: see the parser, where each kind is made. Lists of nodes hang by `next`. */
struct tpl_node {
    enum tpl_kind kind;
    unsigned line;
    struct tpl_str s; /* text, name, or operator */
    struct tpl_value v;
    struct tpl_node *a, *b, *c, *d, *next;
};

struct tpl_var {
    struct tpl_str name;
    struct tpl_value value;
};
enum tpl_flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };
struct tpl {
    struct skf_why *why;
    struct tpl_block *blocks; /* the arena */
    size_t arena_used;
    enum skf_err alloc_err;   /* why skf_tpl_alloc gave NULL */
    struct tpl_token *tok;    /* parser's position */
    unsigned depth, line;     /* line of the statement under way, for error lines */
    uint64_t steps;
    struct tpl_var vars[TPL_VARS_MAX];
    size_t n_vars, frame;     /* frame: first variable of the innermost scope */
    enum tpl_flow flow;
    struct skf_buf *out;
};

/* ---- template.c ---- */
void *skf_tpl_alloc(struct tpl *t, size_t n); /* cleared; NULL: return t->alloc_err */
/* Fails with "chat template, line N: ...". */
enum skf_err skf_tpl_fail(struct tpl *t, enum skf_err e, const char *fmt, ...) SKF_PRINTF(3, 4);
SKF_MUST enum skf_err skf_tpl_spend(struct tpl *t, uint64_t steps);

/* ---- template_lex.c, template_parse.c, template_eval.c ---- */
SKF_MUST enum skf_err skf_tpl_lex(struct tpl *t, const char *src, size_t n);
SKF_MUST enum skf_err skf_tpl_parse(struct tpl *t, struct tpl_node **body);
SKF_MUST enum skf_err skf_tpl_parse_expr(struct tpl *t, struct tpl_node **out);    /* with inline if */
SKF_MUST enum skf_err skf_tpl_parse_or(struct tpl *t, struct tpl_node **out);      /* without it */
SKF_MUST enum skf_err skf_tpl_parse_args(struct tpl *t, struct tpl_node **out);    /* behind "(", takes ")" */
SKF_MUST enum skf_err skf_tpl_node(struct tpl *t, enum tpl_kind kind, struct tpl_node **out);
bool is_tpl_op(const struct tpl *t, const char *op);
bool is_tpl_name(const struct tpl *t, const char *name);
SKF_MUST enum skf_err skf_tpl_expect(struct tpl *t, const char *op);
SKF_MUST enum skf_err skf_tpl_run(struct tpl *t, const struct tpl_node *body);
SKF_MUST enum skf_err skf_tpl_eval(struct tpl *t, const struct tpl_node *x, struct tpl_value *out);
SKF_MUST enum skf_err skf_tpl_set(struct tpl *t, struct tpl_str name, struct tpl_value v); /* in the innermost scope */

/* ---- template_value.c ---- */
static inline bool is_tpl_str(struct tpl_str s, const char *c)
{
    return s.n == strlen(c) && memcmp(s.p, c, s.n) == 0;
}
struct tpl_value skf_tpl_of_str(const char *p, size_t n);
struct tpl_value skf_tpl_of_int(int64_t i);
struct tpl_value skf_tpl_of_bool(bool b);
bool is_tpl_true(struct tpl_value v);
const char *skf_tpl_type_name(struct tpl_value v);
SKF_MUST enum skf_err skf_tpl_equal(struct tpl *t, struct tpl_value a, struct tpl_value b, bool *equal);
SKF_MUST enum skf_err skf_tpl_compare(struct tpl *t, struct tpl_str op, struct tpl_value a, struct tpl_value b, bool *r);
SKF_MUST enum skf_err skf_tpl_arith(struct tpl *t, struct tpl_str op, struct tpl_value a, struct tpl_value b,
                                    struct tpl_value *out);
SKF_MUST enum skf_err skf_tpl_text(struct tpl *t, struct tpl_value v, struct tpl_str *out); /* as {{ }} would print it */
SKF_MUST enum skf_err skf_tpl_json(struct tpl *t, struct tpl_value v, int64_t indent, struct tpl_value *out);
SKF_MUST enum skf_err skf_tpl_list(struct tpl *t, size_t n, struct tpl_value *out);
SKF_MUST enum skf_err skf_tpl_map(struct tpl *t, struct tpl_value *out);
SKF_MUST enum skf_err skf_tpl_map_set(struct tpl *t, struct tpl_map *m, struct tpl_str key, struct tpl_value v);
const struct tpl_value *skf_tpl_map_get(const struct tpl_map *m, struct tpl_str key);
SKF_MUST enum skf_err skf_tpl_iter(struct tpl *t, struct tpl_value v, struct tpl_list **out); /* what a for loop goes over */
SKF_MUST enum skf_err skf_tpl_length(struct tpl *t, struct tpl_value v, int64_t *n);
SKF_MUST enum skf_err skf_tpl_attr(struct tpl *t, struct tpl_value obj, struct tpl_str name, struct tpl_value *out);
SKF_MUST enum skf_err skf_tpl_item(struct tpl *t, struct tpl_value obj, struct tpl_value key, struct tpl_value *out);
/* Bounds are undefined or none where the slice leaves them out. */
SKF_MUST enum skf_err skf_tpl_slice(struct tpl *t, struct tpl_value obj, const struct tpl_value bound[3],
                                    struct tpl_value *out);

/* ---- template_func.c ---- */
enum { TPL_ARGS_MAX = 8 };
struct tpl_args {
    size_t n, n_kw;
    struct tpl_value v[TPL_ARGS_MAX], kw[TPL_ARGS_MAX];
    struct tpl_str kw_name[TPL_ARGS_MAX];
};
SKF_MUST enum skf_err skf_tpl_filter(struct tpl *t, struct tpl_str name, struct tpl_value in, const struct tpl_args *a,
                                     struct tpl_value *out);
SKF_MUST enum skf_err skf_tpl_test(struct tpl *t, struct tpl_str name, struct tpl_value in, const struct tpl_args *a, bool *r);
SKF_MUST enum skf_err skf_tpl_method(struct tpl *t, struct tpl_value self, struct tpl_str name, const struct tpl_args *a,
                                     struct tpl_value *out);
SKF_MUST enum skf_err skf_tpl_call(struct tpl *t, struct tpl_str name, const struct tpl_args *a, struct tpl_value *out);
bool is_tpl_function(struct tpl_str name);

#endif
