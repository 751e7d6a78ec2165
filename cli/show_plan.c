/* `skiff show --plan`: the operators of a model's forward pass in their order, and where their buffers lie. */
#include "cli/show.h"
#include "runtime/plan.h"

/* Sets a key, and keeps the first error. The value is taken. */
static void set(skf_json *o, const char *key, skf_json *take_v, enum skf_err *e)
{
    enum skf_err one = skf_json_set(o, key, take_v);
    *e = *e == SKF_OK ? one : *e;
}
static void push(skf_json *list, skf_json *take_v, enum skf_err *e)
{
    enum skf_err one = skf_json_push(list, take_v);
    *e = *e == SKF_OK ? one : *e;
}

static skf_json *names(const struct skf_plan *p, uint32_t bits, enum skf_err *e)
{
    skf_json *list = skf_json_arr();
    for (uint32_t i = 0; i < SKF_PLAN_BUFS; i++)
        if (bits >> i & 1)
            push(list, skf_json_str(p->buf[i].name), e);
    return list;
}

static enum skf_err put_plan(const struct skf_plan *p, skf_json *o)
{
    enum skf_err e = SKF_OK;
    skf_json *list = skf_json_arr(), *bufs = skf_json_arr();
    set(o, "tokens", skf_json_int(p->tokens), &e);
    set(o, "layers", skf_json_int(p->layers), &e);
    for (uint32_t i = 0; i < p->n_ops; i++) {
        skf_json *row = skf_json_obj();
        set(row, "operator", skf_json_str(p->ops[i].name), &e);
        set(row, "each_layer", skf_json_bool(p->ops[i].is_layer), &e);
        set(row, "reads", names(p, p->ops[i].reads, &e), &e);
        set(row, "writes", names(p, p->ops[i].writes, &e), &e);
        push(list, row, &e);
    }
    set(o, "operators", list, &e);
    for (uint32_t i = 0; i < SKF_PLAN_BUFS; i++) {
        skf_json *row = skf_json_obj();
        set(row, "name", skf_json_str(p->buf[i].name), &e);
        set(row, "offset", skf_json_int((int64_t)p->buf[i].at), &e);
        set(row, "bytes", skf_json_int((int64_t)p->buf[i].bytes), &e);
        push(bufs, row, &e);
    }
    set(o, "buffers", bufs, &e);
    set(o, "bytes", skf_json_int((int64_t)p->bytes), &e);
    set(o, "bytes_apart", skf_json_int((int64_t)p->bytes_apart), &e);
    return e;
}

enum skf_err skf_show_plan(const char *path, uint32_t tokens, skf_json **out, struct skf_why *why)
{
    struct skf_model *m = NULL;
    struct skf_plan p;
    *out = NULL;
    SKF_TRY(skf_model_open(path, &m, why));
    enum skf_err e = skf_plan_of_model(m, tokens, &p, why);
    skf_model_close(m);
    if (e != SKF_OK) {
        char text[sizeof why->text];
        (void)snprintf(text, sizeof text, "%s", why->text);
        return skf_fail(why, e, "%s: %.*s", path, (int)(sizeof text - 1), text);
    }
    skf_json *o = skf_json_obj();
    e = put_plan(&p, o);
    if (e == SKF_OK)
        *out = o;
    else
        skf_json_free(o);
    return e == SKF_OK ? e : skf_fail(why, e, "no memory for the plan");
}

static void print_list(const skf_json *names_of, char text[96])
{
    size_t n = 0;
    text[0] = 0;
    for (size_t i = 0; i < skf_json_len(names_of) && n < 80; i++)
        n += (size_t)snprintf(text + n, 96 - n, "%s%s", i ? ", " : "", skf_json_cstr(skf_json_at(names_of, i)));
}

void skf_show_plan_text(const skf_json *o)
{
    const skf_json *ops = skf_json_get(o, "operators"), *bufs = skf_json_get(o, "buffers");
    (void)printf("%lld tokens at once, %lld layers\n", (long long)skf_json_i64(skf_json_get(o, "tokens"), 0),
                 (long long)skf_json_i64(skf_json_get(o, "layers"), 0));
    for (size_t i = 0; i < skf_json_len(ops); i++) {
        const skf_json *op = skf_json_at(ops, i);
        char reads[96], writes[96];
        print_list(skf_json_get(op, "reads"), reads);
        print_list(skf_json_get(op, "writes"), writes);
        (void)printf("  %-10s %-24s %-16s -> %s\n", skf_json_is_true(skf_json_get(op, "each_layer"), false) ? "each layer" : "once",
                     skf_json_cstr(skf_json_get(op, "operator")), *reads ? reads : "token ids", *writes ? writes : "logits");
    }
    (void)printf("buffers\n");
    for (size_t i = 0; i < skf_json_len(bufs); i++) {
        const skf_json *b = skf_json_at(bufs, i);
        (void)printf("  %-10s %10lld bytes at %lld\n", skf_json_cstr(skf_json_get(b, "name")), (long long)skf_json_i64(skf_json_get(b, "bytes"), 0),
                     (long long)skf_json_i64(skf_json_get(b, "offset"), 0));
    }
    (void)printf("%lld bytes in all, %lld if each had memory of its own\n", (long long)skf_json_i64(skf_json_get(o, "bytes"), 0),
                 (long long)skf_json_i64(skf_json_get(o, "bytes_apart"), 0));
}
