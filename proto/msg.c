/*
 * Messages from outside are walked once over their raw bytes before protobuf-c sees them.  protobuf-c itself takes
 * invalid UTF-8, embedded NULs and any nesting, merges what is given twice, and cannot say which field it disliked; the
 * walk settles all of that with a stack bounded by the schema and no allocation, so that what reaches protobuf-c is
 * known to be whole.  What protobuf-c then allocates is counted against a budget in proportion to the bytes that came:
 * an empty element of a repeated message costs two bytes on the wire and a whole struct in memory.
 *
 * Stricter than the protobuf specification, on purpose: a field that is not repeated may be given once, of a oneof only
 * one member, and a number must fit its type.  No encoder writes anything else, and bytes that two parsers read
 * differently are trouble.
 */
#include "proto/msg.h"

#include "base/alloc.h"
#include "base/util.h"

#define DEPTH_MAX     8          /* messages within messages; the schemas use 5 */
#define UNKNOWN_MAX   64         /* fields of a newer schema in one whole message: protobuf-c keeps each of them */
#define BUDGET_FACTOR 16         /* bytes allocated for a byte received, */
#define BUDGET_BASE   (4u << 20) /* and so much in any case */

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct walk {
    unsigned unknown;
    struct skf_why *why;
};

static bool is_varint(struct skf_reader *r, unsigned max_bytes, uint64_t *v)
{
    *v = 0;
    for (unsigned i = 0; i < max_bytes; i++) {
        uint8_t b;
        if (skf_get_u8(r, &b) != SKF_OK)
            return false;
        if (i == 9 && b > 1)
            return false;
        *v |= (uint64_t)(b & 0x7f) << 7 * i;
        if (b < 0x80)
            return true;
    }
    return false;
}

/* UTF-8 as RFC 3629 has it (no surrogates, nothing over U+10FFFF, shortest form), and no NUL. */
static bool is_text(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint8_t c = p[i];
        size_t more = c < 0x80 ? 0 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        if (c == 0 || (c >= 0x80 && c < 0xc2) || c > 0xf4 || more > n - i - 1)
            return false;
        for (size_t k = 1; k <= more; k++)
            if ((p[i + k] & 0xc0) != 0x80)
                return false;
        if ((c == 0xe0 && p[i + 1] < 0xa0) || (c == 0xed && p[i + 1] > 0x9f) || (c == 0xf0 && p[i + 1] < 0x90) ||
            (c == 0xf4 && p[i + 1] > 0x8f))
            return false;
        i += more + 1;
    }
    return true;
}

static unsigned wire_of(ProtobufCType t)
{
    switch (t) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return WIRE_32;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return WIRE_64;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_BYTES;
    default:
        return WIRE_VARINT;
    }
}

static bool is_in_range(ProtobufCType t, uint64_t v)
{
    switch (t) {
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_SINT32:
        return v <= UINT32_MAX;
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_ENUM: /* negative numbers travel with their sign in 64 bits */
        return v <= INT32_MAX || v >= (uint64_t)INT32_MIN;
    case PROTOBUF_C_TYPE_BOOL:
        return v <= 1;
    default:
        return true;
    }
}

/* One element of a scalar type. */
static bool is_scalar(struct skf_reader *r, ProtobufCType t)
{
    const uint8_t *p;
    uint64_t v;
    switch (wire_of(t)) {
    case WIRE_32:
        return skf_get_bytes(r, 4, &p) == SKF_OK;
    case WIRE_64:
        return skf_get_bytes(r, 8, &p) == SKF_OK;
    default:
        return is_varint(r, 10, &v) && is_in_range(t, v);
    }
}

static enum skf_err skip_unknown(struct walk *w, const ProtobufCMessageDescriptor *d, struct skf_reader *r,
                                 unsigned tag, unsigned wire)
{
    const uint8_t *p;
    uint64_t v;
    bool ok = false;
    if (++w->unknown > UNKNOWN_MAX)
        return skf_fail(w->why, SKF_ERR_LIMIT, "%s: more than %d unknown fields", d->short_name, UNKNOWN_MAX);
    if (wire == WIRE_VARINT)
        ok = is_varint(r, 10, &v);
    else if (wire == WIRE_BYTES)
        ok = is_varint(r, 5, &v) && skf_get_bytes(r, v, &p) == SKF_OK;
    else if (wire == WIRE_64 || wire == WIRE_32)
        ok = skf_get_bytes(r, wire == WIRE_64 ? 8 : 4, &p) == SKF_OK;
    if (!ok)
        return skf_fail(w->why, SKF_ERR_FORMAT, "%s: unknown field %u is malformed", d->short_name, tag);
    return SKF_OK;
}

static enum skf_err walk_message(struct walk *w, const ProtobufCMessageDescriptor *d, struct skf_reader r,
                                 unsigned depth);

static enum skf_err walk_field(struct walk *w, const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f,
                               struct skf_reader *r, unsigned wire, unsigned depth)
{
    bool is_list = f->label == PROTOBUF_C_LABEL_REPEATED;
    unsigned want = wire_of(f->type);
    if (wire != want && !(is_list && wire == WIRE_BYTES))
        return skf_fail(w->why, SKF_ERR_FORMAT, "%s.%s: wrong wire type %u", d->short_name, f->name, wire);
    if (wire != WIRE_BYTES) {
        if (!is_scalar(r, f->type))
            return skf_fail(w->why, SKF_ERR_FORMAT, "%s.%s: cut short or out of range", d->short_name, f->name);
        return SKF_OK;
    }
    uint64_t n;
    const uint8_t *p;
    if (!is_varint(r, 5, &n) || skf_get_bytes(r, n, &p) != SKF_OK)
        return skf_fail(w->why, SKF_ERR_FORMAT, "%s.%s: cut short", d->short_name, f->name);
    if (f->type == PROTOBUF_C_TYPE_MESSAGE)
        return walk_message(w, f->descriptor, skf_reader_of(p, n), depth + 1);
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        if (n > SKF_MSG_STRING_MAX)
            return skf_fail(w->why, SKF_ERR_LIMIT, "%s.%s: %llu bytes, at most %u", d->short_name, f->name,
                            (unsigned long long)n, SKF_MSG_STRING_MAX);
        if (!is_text(p, n))
            return skf_fail(w->why, SKF_ERR_FORMAT, "%s.%s: not UTF-8 text", d->short_name, f->name);
    } else if (want != WIRE_BYTES) {
        for (struct skf_reader list = skf_reader_of(p, n); skf_reader_left(&list);)
            if (!is_scalar(&list, f->type))
                return skf_fail(w->why, SKF_ERR_FORMAT, "%s.%s: cut short or out of range", d->short_name, f->name);
    }
    return SKF_OK;
}

/* Notes that field f came; false when it, or another member of its oneof, came before. */
static bool is_first(uint64_t *seen, const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f)
{
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return true;
    unsigned at = (unsigned)(f - d->fields);
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) /* all members share a case number: the first of them stands for all */
        for (at = 0; !(d->fields[at].flags & PROTOBUF_C_FIELD_FLAG_ONEOF) ||
                     d->fields[at].quantifier_offset != f->quantifier_offset;)
            at++;
    if (at >= 64)
        return true; /* no schema has as many; protobuf-c's merging is then all there is */
    bool first = !(*seen >> at & 1);
    *seen |= (uint64_t)1 << at;
    return first;
}

static enum skf_err walk_message(struct walk *w, const ProtobufCMessageDescriptor *d, struct skf_reader r,
                                 unsigned depth)
{
    uint64_t seen = 0;
    if (depth > DEPTH_MAX)
        return skf_fail(w->why, SKF_ERR_LIMIT, "%s: nested deeper than %d", d->short_name, DEPTH_MAX);
    while (skf_reader_left(&r)) {
        uint64_t key;
        if (!is_varint(&r, 5, &key) || key > UINT32_MAX || key >> 3 == 0)
            return skf_fail(w->why, SKF_ERR_FORMAT, "%s: malformed field number", d->short_name);
        unsigned tag = (unsigned)(key >> 3), wire = (unsigned)(key & 7);
        const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field(d, tag);
        if (!f) {
            SKF_TRY(skip_unknown(w, d, &r, tag, wire));
            continue;
        }
        if (!is_first(&seen, d, f))
            return skf_fail(w->why, SKF_ERR_FORMAT, "%s.%s: given twice", d->short_name, f->name);
        SKF_TRY(walk_field(w, d, f, &r, wire, depth));
    }
    return SKF_OK;
}

struct budget {
    size_t left;
    bool is_over;
};

static void *budget_alloc(void *data, size_t n)
{
    struct budget *b = data;
    if (n > b->left) {
        b->is_over = true;
        return NULL;
    }
    b->left -= n;
    return skf_alloc(n);
}

static void budget_free(void *data, void *p)
{
    skf_free(p);
}

enum skf_err skf_msg_unpack(const ProtobufCMessageDescriptor *d, const void *p, size_t n, size_t max_n,
                            ProtobufCMessage **m, struct skf_why *why)
{
    *m = NULL;
    if (n > max_n || n > UINT32_MAX)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: %zu bytes, at most %zu", d->short_name, n, max_n);
    struct walk w = {0, why};
    SKF_TRY(walk_message(&w, d, skf_reader_of(p, n), 0));

    struct budget b = {n * BUDGET_FACTOR + BUDGET_BASE, false};
    ProtobufCAllocator a = {budget_alloc, budget_free, &b};
    static const uint8_t none[1] = {0};
    *m = protobuf_c_message_unpack(d, &a, n, n ? p : none);
    if (*m)
        return SKF_OK;
    if (b.is_over)
        return skf_fail(why, SKF_ERR_LIMIT, "%s: too many parts for its %zu bytes", d->short_name, n);
    /* After the walk nothing but memory is left to fail; if protobuf-c sees it otherwise, the bytes are refused all the
     * same. */
    return skf_fail(why, SKF_ERR_NOMEM, "%s: no memory to unpack %zu bytes", d->short_name, n);
}

void skf_msg_free(ProtobufCMessage *m)
{
    ProtobufCAllocator a = {budget_alloc, budget_free, NULL};
    if (m)
        protobuf_c_message_free_unpacked(m, &a);
}

enum skf_err skf_msg_pack(const ProtobufCMessage *m, uint8_t **p, size_t *n)
{
    size_t size = protobuf_c_message_get_packed_size(m);
    *p = skf_alloc(size);
    if (!*p)
        return SKF_ERR_NOMEM;
    *n = protobuf_c_message_pack(m, *p);
    return SKF_OK;
}
