/* A model's matrices laid out for the kernels (lanes_priv.h). */
#include "runtime/lanes_priv.h"

#include <sys/mman.h>

#include "base/alloc.h"
#include "kernels/lanes.h"

#define ARENA_ALIGN ((size_t)2 << 20) /* a huge page: one entry of the address cache for what many small pages would take */
#define SPARE 3u /* a worker of the next version beside this one, and room for what else runs */
#define TASK_GROUPS 16u               /* groups of rows that a thread lays out at a time */

struct job {
    struct skf_weight *w;
    uint8_t *to;
    uint32_t groups, first_task;
};
struct jobs {
    struct job *job;
    uint32_t n, tasks;
};

static void add(struct jobs *j, struct skf_weight *w, uint64_t *bytes)
{
    uint64_t n = skf_lanes_size(w);
    if (n == 0 || w->packed || w->lanes) /* what is packed is not multiplied from its rows */
        return;
    uint32_t groups = (w->rows + SKF_LANES - 1) / SKF_LANES;
    j->job[j->n++] = (struct job){w, NULL, groups, j->tasks};
    j->tasks += (groups + TASK_GROUPS - 1) / TASK_GROUPS;
    *bytes += n;
}

static void lay_some(void *ctx, unsigned worker, uint32_t task)
{
    const struct jobs *j = ctx;
    uint32_t lo = 0, hi = j->n - 1;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo + 1) / 2;
        if (j->job[mid].first_task <= task)
            lo = mid;
        else
            hi = mid - 1;
    }
    const struct job *it = &j->job[lo];
    uint32_t from = (task - it->first_task) * TASK_GROUPS;
    skf_lanes_lay(it->w, from, SKF_MIN(from + TASK_GROUPS, it->groups), it->to);
}

uint8_t *skf_lanes_memory(uint64_t bytes, bool asked)
{
    if (bytes >= SIZE_MAX - ARENA_ALIGN || (!asked && skf_memory_available() / SPARE < bytes))
        return NULL;
    uint8_t *p = skf_aligned(ARENA_ALIGN, bytes);
    if (p)
        (void)madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

enum skf_err skf_llama_lanes(struct skf_llama *l, const struct skf_source *src, struct skf_pool *pool, enum skf_repack repack,
                             struct skf_why *why)
{
    uint64_t bytes = 0;
    if (repack == SKF_REPACK_OFF || repack == SKF_REPACK_SHARED)
        return SKF_OK;
    struct jobs j = {.job = skf_calloc(skf_llama_matrices(l), sizeof *j.job)};
    if (!j.job)
        return skf_fail(why, SKF_ERR_NOMEM, "no memory for a list of matrices");
    for (uint32_t k = 0; k < skf_llama_matrices(l); k++)
        add(&j, skf_llama_matrix(l, k), &bytes);
    enum skf_err e = SKF_OK;
    if (bytes > 0) {
        l->lanes = skf_lanes_memory(bytes, repack == SKF_REPACK_ON);
        if (!l->lanes && repack == SKF_REPACK_ON)
            e = skf_fail(why, SKF_ERR_NOMEM, "no memory to lay out %llu MB of matrices", (unsigned long long)bytes / 1000000);
    }
    if (l->lanes) {
        uint8_t *to = l->lanes;
        for (uint32_t i = 0; i < j.n; i++) {
            j.job[i].to = to;
            to += skf_lanes_size(j.job[i].w);
        }
        skf_pool_run(pool, j.tasks, lay_some, &j);
        for (uint32_t i = 0; i < j.n; i++) {
            j.job[i].w->lanes = j.job[i].to;
            skf_weight_idle(src, j.job[i].w);
        }
    }
    skf_free(j.job);
    return e;
}
