/* Messages in and out: what is refused, byte by byte, and what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/util.h"
#include "proto/fleet.pb-c.h"
#include "proto/local.pb-c.h"
#include "proto/manifest.pb-c.h"
#include "proto/msg.h"
#include "proto/operator.pb-c.h"

static enum skf_err try_unpack(const ProtobufCMessageDescriptor *d, const void *p, size_t n, struct skf_why *why)
{
    ProtobufCMessage *m;
    *why = (struct skf_why){{0}};
    enum skf_err e = skf_msg_unpack(d, p, n, 1u << 20, &m, why);
    assert_true((e == SKF_OK) == (m != NULL));
    assert_true((e == SKF_OK) == (why->text[0] == 0));
    skf_msg_free(m);
    return e;
}

#define REFUSED(type, bytes, error, words)                                                                             \
    do {                                                                                                               \
        struct skf_why why_;                                                                                           \
        enum skf_err e_ = try_unpack(&skiff__v1__##type##__descriptor, bytes, sizeof(bytes) - 1, &why_);               \
        if (e_ != (error) || !strstr(why_.text, words))                                                                \
            fail_msg("%s: %s", skf_err_name(e_), why_.text);                                                           \
    } while (0)
#define TAKEN(type, bytes)                                                                                             \
    do {                                                                                                               \
        struct skf_why why_;                                                                                           \
        if (try_unpack(&skiff__v1__##type##__descriptor, bytes, sizeof(bytes) - 1, &why_) != SKF_OK)                   \
            fail_msg("%s", why_.text);                                                                                 \
    } while (0)

static void test_there_and_back(void **state)
{
    Skiff__V1__State st = SKIFF__V1__STATE__INIT;
    Skiff__V1__AgentMessage m = SKIFF__V1__AGENT_MESSAGE__INIT, *back;
    Skiff__V1__RunningVersion v = SKIFF__V1__RUNNING_VERSION__INIT, *list[] = {&v, &v};
    uint8_t *p;
    size_t n;
    struct skf_why why = {{0}};
    char model[] = "smollm2", error[] = "é, 語 and 🙂";
    st.model = model;
    st.error = error;
    st.phase = SKIFF__V1__PHASE__PHASE_WATCHING;
    st.bytes_received = UINT64_MAX;
    st.n_versions = 2;
    st.versions = list;
    uint8_t root[] = {0, 0xff, 0};
    v.root = (ProtobufCBinaryData){3, root};
    m.kind_case = SKIFF__V1__AGENT_MESSAGE__KIND_STATE;
    m.state = &st;
    assert_int_equal(skf_msg_pack(&m.base, &p, &n), SKF_OK);
    assert_int_equal(SKF_UNPACK(skiff__v1__agent_message, Skiff__V1__AgentMessage, p, n, n, &back, &why), SKF_OK);
    assert_int_equal(back->kind_case, SKIFF__V1__AGENT_MESSAGE__KIND_STATE);
    assert_string_equal(back->state->error, st.error);
    assert_int_equal(back->state->phase, st.phase);
    assert_true(back->state->bytes_received == UINT64_MAX);
    assert_int_equal(back->state->n_versions, 2);
    assert_int_equal(back->state->versions[1]->root.len, 3);
    assert_memory_equal(back->state->versions[1]->root.data, "\0\xff\0", 3);
    skf_msg_free(&back->base);
    assert_int_equal(SKF_UNPACK(skiff__v1__agent_message, Skiff__V1__AgentMessage, p, n, n - 1, &back, &why),
                     SKF_ERR_LIMIT);
    assert_null(back);
    for (size_t cut = 1; cut < n; cut++) { /* no prefix of it is the whole of it */
        enum skf_err e = try_unpack(&skiff__v1__agent_message__descriptor, p, cut, &why);
        assert_int_equal(e, SKF_ERR_FORMAT);
    }
    skf_free(p);
}

static void test_empty(void **state)
{
    Skiff__V1__Quit q = SKIFF__V1__QUIT__INIT;
    uint8_t *p;
    size_t n;
    assert_int_equal(skf_msg_pack(&q.base, &p, &n), SKF_OK);
    assert_int_equal(n, 0);
    skf_free(p);
    TAKEN(quit, "");
    TAKEN(agent_message, ""); /* no kind: the receiver's to refuse */
    TAKEN(manifest, "");
}

static void test_text(void **state)
{
    TAKEN(meta_request, "\x0a\x04"
                        "\xf0\x9f\x99\x82");
    REFUSED(meta_request, "\x0a\x01\xff", SKF_ERR_FORMAT, "MetaRequest.name: not UTF-8");
    REFUSED(meta_request,
            "\x0a\x03"
            "a\0b",
            SKF_ERR_FORMAT, "not UTF-8");                                           /* a NUL inside */
    REFUSED(meta_request, "\x0a\x02\xc0\x80", SKF_ERR_FORMAT, "not UTF-8");         /* overlong NUL */
    REFUSED(meta_request, "\x0a\x03\xed\xa0\x80", SKF_ERR_FORMAT, "not UTF-8");     /* surrogate */
    REFUSED(meta_request, "\x0a\x03\xe0\x80\xaf", SKF_ERR_FORMAT, "not UTF-8");     /* overlong slash */
    REFUSED(meta_request, "\x0a\x04\xf4\x90\x80\x80", SKF_ERR_FORMAT, "not UTF-8"); /* over U+10FFFF */
    REFUSED(meta_request, "\x0a\x04\xf0\x8f\xbf\xbf", SKF_ERR_FORMAT, "not UTF-8");
    REFUSED(meta_request, "\x0a\x02\xe2\x82", SKF_ERR_FORMAT, "not UTF-8"); /* ends in the middle */
    REFUSED(meta_request, "\x0a\x02\xc3\x28", SKF_ERR_FORMAT, "not UTF-8");
    REFUSED(meta_request, "\x0a\x01\x80", SKF_ERR_FORMAT, "not UTF-8");
    TAKEN(meta_answer, "\x0a\x02\xff\x00"); /* bytes may be anything */
    size_t n = SKF_MSG_STRING_MAX + 1 + 4;
    uint8_t *big = skf_alloc(n);
    struct skf_why why;
    ProtobufCMessage *m;
    memset(big, 'a', n);
    memcpy(big, "\x0a\x81\x80\x40", 4); /* 1 MiB and one byte */
    assert_int_equal(skf_msg_unpack(&skiff__v1__meta_request__descriptor, big, n, n, &m, &why), SKF_ERR_LIMIT);
    big[1] = 0x80; /* one fewer */
    assert_int_equal(skf_msg_unpack(&skiff__v1__meta_request__descriptor, big, n - 1, n, &m, &why), SKF_OK);
    skf_msg_free(m);
    skf_free(big);
}

static void test_malformed(void **state)
{
    REFUSED(meta_request, "\x0a", SKF_ERR_FORMAT, "MetaRequest.name: cut short");
    REFUSED(meta_request,
            "\x0a\x05"
            "abc",
            SKF_ERR_FORMAT, "MetaRequest.name: cut short");
    REFUSED(meta_request, "\x0a\xff\xff\xff\xff\x0f", SKF_ERR_FORMAT, "cut short"); /* 4 GiB announced */
    REFUSED(meta_request, "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", SKF_ERR_FORMAT, "cut short");
    REFUSED(meta_request, "\x08\x01", SKF_ERR_FORMAT, "MetaRequest.name: wrong wire type 0");
    REFUSED(meta_request, "\x02\x00", SKF_ERR_FORMAT, "malformed field number"); /* number 0 */
    REFUSED(meta_request, "\x80", SKF_ERR_FORMAT, "malformed field number");
    REFUSED(meta_request, "\xff\xff\xff\xff\xff\x01", SKF_ERR_FORMAT, "malformed field number");
    REFUSED(ping, "\x08", SKF_ERR_FORMAT, "Ping.nonce: cut short");
    REFUSED(ping, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", SKF_ERR_FORMAT,
            "Ping.nonce: cut short or out of range");
    TAKEN(ping, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    REFUSED(chunk, "\x08\x80\x80\x80\x80\x10", SKF_ERR_FORMAT, "Chunk.id: cut short or out of range"); /* 2^32 */
    TAKEN(token, "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");                                      /* -1 */
    REFUSED(token, "\x10\x80\x80\x80\x80\x08", SKF_ERR_FORMAT, "Token.token");                         /* 2^31 */
    REFUSED(meta, "\x10\x02", SKF_ERR_FORMAT, "Meta.found"); /* a boolean of 2 */
    TAKEN(sampling, "\x0d\0\0\x80\x3f");
    REFUSED(sampling, "\x0d\0\0\x80", SKF_ERR_FORMAT, "Sampling.temperature");
    REFUSED(sampling, "\x08\x00", SKF_ERR_FORMAT, "Sampling.temperature: wrong wire type");
    REFUSED(agent_message, "\x0a\x02\x12\x01", SKF_ERR_FORMAT, "Hello.inventory: cut short");
}

static void test_given_twice(void **state)
{
    REFUSED(meta_request,
            "\x0a\x01"
            "a\x0a\x01"
            "b",
            SKF_ERR_FORMAT, "MetaRequest.name: given twice");
    REFUSED(agent_message, "\x0a\x00\x0a\x00", SKF_ERR_FORMAT, "AgentMessage.hello: given twice");
    REFUSED(agent_message, "\x0a\x00\x12\x00", SKF_ERR_FORMAT,
            "AgentMessage.get_meta: given twice"); /* two of a oneof */
    REFUSED(hello, "\x12\x00\x12\x00", SKF_ERR_FORMAT, "Hello.inventory: given twice");
    TAKEN(inventory, "\x42\x01"
                     "a\x42\x01"
                     "b"); /* a list */
}

static void test_packed(void **state)
{
    Skiff__V1__PublishNeed *m;
    struct skf_why why = {{0}};
    TAKEN(publish_need, "\x0a\x00");
    TAKEN(publish_need, "\x08\x05\x08\x06"); /* not packed: allowed */
    REFUSED(publish_need, "\x0a\x02\x05\x80", SKF_ERR_FORMAT, "PublishNeed.first: cut short");
    static const uint8_t both[] = "\x0a\x03\x05\xac\x02\x08\x07";
    assert_int_equal(SKF_UNPACK(skiff__v1__publish_need, Skiff__V1__PublishNeed, both, sizeof both - 1, 100, &m, &why),
                     SKF_OK);
    assert_int_equal(m->n_first, 3);
    assert_int_equal(m->first[1], 300);
    assert_int_equal(m->first[2], 7);
    skf_msg_free(&m->base);
}

static void test_unknown_fields(void **state)
{
    TAKEN(ping, "\xf8\x01\x07"); /* field 31 of a newer schema, each wire type */
    TAKEN(ping, "\xfa\x01\x02hi");
    TAKEN(ping, "\xf9\x01"
                "12345678");
    TAKEN(ping, "\xfd\x01"
                "1234");
    REFUSED(ping, "\xfb\x01\xfc\x01", SKF_ERR_FORMAT, "Ping: unknown field 31 is malformed"); /* groups are gone */
    REFUSED(ping, "\xfa\x01\x09hi", SKF_ERR_FORMAT, "unknown field 31");
    REFUSED(ping, "\xfe\x01\x01", SKF_ERR_FORMAT, "unknown field 31");
    uint8_t many[3 * 65];
    struct skf_why why;
    for (size_t i = 0; i < 65; i++)
        memcpy(many + 3 * i, "\xf8\x01\x07", 3);
    assert_int_equal(try_unpack(&skiff__v1__ping__descriptor, many, sizeof many - 3, &why), SKF_OK);
    assert_int_equal(try_unpack(&skiff__v1__ping__descriptor, many, sizeof many, &why), SKF_ERR_LIMIT);
}

/* Two bytes an element on the wire, a struct each in memory: the memory is bounded by what came, and by nothing else.
 */
static void test_amplification(void **state)
{
    size_t n = 1u << 20;
    uint8_t *p = skf_alloc(n);
    struct skf_why why;
    for (size_t i = 0; i < n; i += 2)
        memcpy(p + i, "\x0a\x00", 2); /* DevicesReply.devices: empty */
    assert_int_equal(try_unpack(&skiff__v1__devices_reply__descriptor, p, n, &why), SKF_ERR_LIMIT);
    assert_non_null(strstr(why.text, "DevicesReply: too many parts"));
    assert_int_equal(try_unpack(&skiff__v1__devices_reply__descriptor, p, 2000, &why), SKF_OK);
    skf_free(p);
}

/* Every allocation fails in turn; the message is whole or refused, nothing leaks (ASan tells). */
static void test_no_memory(void **state)
{
    static const uint8_t p[] = "\x22\x0e\x0a\x01"
                               "a\x5a\x03\x0a\x01"
                               "b\x5a\x04\x1a\x02\xff\xff";
    struct skf_why why;
    unsigned long n = 0;
    enum skf_err e;
    do {
        skf_alloc_fail_at(++n);
        e = try_unpack(&skiff__v1__agent_message__descriptor, p, sizeof p - 1, &why);
        skf_alloc_fail_at(0);
        assert_true(e == SKF_OK || e == SKF_ERR_NOMEM);
    } while (e == SKF_ERR_NOMEM);
    assert_true(n > 4);
}

static unsigned depth_of(const ProtobufCMessageDescriptor *d, unsigned at)
{
    unsigned deepest = at;
    assert_true(at < 8); /* a recursive type would end here */
    assert_true(d->n_fields <= 64);
    for (unsigned i = 0; i < d->n_fields; i++)
        if (d->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
            deepest = SKF_MAX(deepest, depth_of(d->fields[i].descriptor, at + 1));
    return deepest;
}

static void test_schemas_fit_the_walk(void **state)
{
    const ProtobufCMessageDescriptor *const top[] = {
        &skiff__v1__agent_message__descriptor, &skiff__v1__centre_message__descriptor,
        &skiff__v1__enrol_request__descriptor, &skiff__v1__enrol_reply__descriptor,
        &skiff__v1__to_worker__descriptor,     &skiff__v1__from_worker__descriptor,
        &skiff__v1__to_gateway__descriptor,    &skiff__v1__from_gateway__descriptor,
        &skiff__v1__manifest__descriptor,      &skiff__v1__publish_message__descriptor,
        &skiff__v1__publish_reply__descriptor, &skiff__v1__versions_reply__descriptor,
        &skiff__v1__devices_reply__descriptor, &skiff__v1__rollout_reply__descriptor,
        &skiff__v1__pin_reply__descriptor,
    };
    for (size_t i = 0; i < SKF_COUNT(top); i++)
        assert_true(depth_of(top[i], 0) <= 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_empty),
        cmocka_unit_test(test_text),           cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_given_twice),    cmocka_unit_test(test_packed),
        cmocka_unit_test(test_unknown_fields), cmocka_unit_test(test_amplification),
        cmocka_unit_test(test_no_memory),      cmocka_unit_test(test_schemas_fit_the_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
