/*
 * What the agent tells the centre: Hello with the inventory, State of a model.  The messages are views of an inventory held in
 * fixed arrays, packed and forgotten.
 */
#include "agent/agent_priv.h"

#include <sys/utsname.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "model/runs.h"
#include "proto/msg.h"

#define VERSIONS_MAX  64
#define TAGS_MAX      16

struct inventory {
    Skiff__V1__RunningVersion items[VERSIONS_MAX], *list[VERSIONS_MAX];
    char model[VERSIONS_MAX][SKF_NAME_MAX], version[VERSIONS_MAX][SKF_NAME_MAX];
    uint8_t root[VERSIONS_MAX][SKF_DIGEST];
    size_t n;
    struct skf_agent *agent;
};

static void add(struct inventory *in, const struct skf_store_version *v, const char *slot)
{
    if (in->n == VERSIONS_MAX)
        return;
    size_t i = in->n++;
    Skiff__V1__RunningVersion *r = &in->items[i];
    skiff__v1__running_version__init(r);
    (void)snprintf(in->model[i], SKF_NAME_MAX, "%s", v->model);
    (void)snprintf(in->version[i], SKF_NAME_MAX, "%s", v->version);
    memcpy(in->root[i], v->root, SKF_DIGEST);
    r->model = in->model[i];
    r->version = in->version[i];
    r->root = (ProtobufCBinaryData){SKF_DIGEST, in->root[i]};
    r->slot = (char *)(uintptr_t)slot;
    in->list[i] = r;
}

/* One entry a slot that names the version; one without a slot when none does. */
static enum skf_err on_version(void *ctx, const struct skf_store_version *v)
{
    static const char *const names[SKF_SLOT_COUNT] = {"active", "previous", "incoming", "pinned"};
    struct inventory *in = ctx;
    const struct skf_agent *a = in->agent;
    bool has = false;
    for (size_t i = 0; i < a->n_box; i++)
        for (int s = 0; strcmp(a->box[i].model, v->model) == 0 && s < SKF_SLOT_COUNT; s++)
            if (strcmp(a->box[i].slots.version[s], v->version) == 0) {
                add(in, v, names[s]);
                has = true;
            }
    if (!has)
        add(in, v, "");
    return SKF_OK;
}

static enum skf_err take_inventory(struct skf_agent *a, struct inventory **out)
{
    *out = skf_calloc(1, sizeof **out);
    if (!*out)
        return SKF_ERR_NOMEM;
    (*out)->agent = a;
    enum skf_err e = skf_store_each_version(a->store, on_version, *out);
    if (e != SKF_OK) {
        skf_free(*out);
        *out = NULL;
    }
    return e;
}

enum skf_err skf_report_hello(struct skf_agent *a, uint8_t **p, size_t *n)
{
    Skiff__V1__AgentMessage m = SKIFF__V1__AGENT_MESSAGE__INIT;
    Skiff__V1__Hello hello = SKIFF__V1__HELLO__INIT;
    Skiff__V1__Inventory inv = SKIFF__V1__INVENTORY__INIT;
    struct inventory *versions;
    struct utsname machine;
    enum skf_isa isa = SKF_ISA_REF;
    uint64_t disk = 0;
    char *tags[TAGS_MAX];
    SKF_TRY(take_inventory(a, &versions));
    inv.agent_version = (char *)(uintptr_t)SKF_VERSION;
    if (uname(&machine) == 0)
        inv.machine = machine.machine;
    if (skf_isa_pick(&isa, NULL) == SKF_OK)
        inv.isa = (char *)(uintptr_t)skf_isa_name(isa);
    inv.cpus = skf_cpu_count();
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    inv.memory_bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    if (skf_disk_free("store", &disk, NULL) == SKF_OK)
        inv.disk_free = disk;
    inv.runtime_level = SKF_RUNTIME_LEVEL;
    inv.n_versions = versions->n;
    inv.versions = versions->list;
    inv.n_tags = SKF_MIN(a->o->n_tags, (size_t)TAGS_MAX);
    for (size_t i = 0; i < inv.n_tags; i++)
        tags[i] = (char *)(uintptr_t)a->o->tags[i];
    inv.tags = tags;
    hello.protocol = 1;
    hello.inventory = &inv;
    m.kind_case = SKIFF__V1__AGENT_MESSAGE__KIND_HELLO;
    m.hello = &hello;
    enum skf_err e = skf_msg_pack(&m.base, p, n);
    skf_free(versions);
    return e;
}

enum skf_err skf_report_state(struct skf_box *b, uint8_t **p, size_t *n)
{
    Skiff__V1__AgentMessage m = SKIFF__V1__AGENT_MESSAGE__INIT;
    Skiff__V1__State s = SKIFF__V1__STATE__INIT;
    const struct skf_record *r = &b->rec;
    struct skf_job *j = &b->agent->job;
    struct inventory *versions;
    SKF_TRY(take_inventory(b->agent, &versions));
    s.assignment = (char *)(uintptr_t)r->assign.id;
    s.model = b->model;
    s.version = (char *)(uintptr_t)r->assign.version;
    s.phase = r->phase;
    s.bytes_received = r->bytes;
    if (j->box == b) { /* this job or the last */
        s.chunks_done = atomic_load(&j->progress.done);
        s.chunks_total = atomic_load(&j->progress.total);
        if (j->is_running)
            s.bytes_received = j->bytes_before + atomic_load(&j->progress.bytes);
    }
    if (r->err != SKF_OK) {
        s.error_class = (char *)(uintptr_t)skf_err_name(r->err);
        s.error = (char *)(uintptr_t)r->error;
    }
    s.swap_pause_us = r->swap_pause_us;
    s.n_versions = versions->n;
    s.versions = versions->list;
    m.kind_case = SKIFF__V1__AGENT_MESSAGE__KIND_STATE;
    m.state = &s;
    enum skf_err e = skf_msg_pack(&m.base, p, n);
    skf_free(versions);
    return e;
}
