/*
 * Sides: payloads that several chunks need beside their own come before any chunk, into incoming/<model>.sides, which is mapped while
 * chunks are decoded and removed when the version is whole.  The file holds each side at its place among all sides of the delta; what
 * an earlier try left in it counts by its digest alone, so that a break or a restart asks for no side twice.
 */
#include "agent/agent_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "delta/delta.h"

#define WINDOW   (4u << 20) /* payload bytes under way */
#define RANGES   256u       /* in one question; the protocol's limit */
#define TRIES    3u         /* of one side whose payload is wrong */
#define SILENCES 5u

enum { UNNEEDED, LACKS, ASKED };

struct sides {
    const struct skf_install *in;
    struct skf_skd *skd;
    const struct skf_skd_info *info;
    int fd;
    const struct skf_map *map;
    uint8_t *state, *tries; /* a byte a side */
    uint64_t lacking, asked;
};

static void side_of(const struct sides *s, uint64_t k, struct skf_skd_side *side, uint64_t *at)
{
    skf_skd_side(s->skd, k, side);
    *at = side->payload_offset - s->info->index_size;
}

static enum skf_err ask(struct sides *s, struct skf_why *why)
{
    struct skf_range ranges[RANGES];
    size_t n = 0;
    uint64_t bytes = 0, most = skf_pace_question(s->in->pace, WINDOW), now = skf_now_ns();
    for (uint64_t k = 0; k < s->info->n_sides && bytes < most; k++) {
        struct skf_skd_side side;
        uint64_t at, number = s->info->n_chunks + k;
        if (s->state[k] != LACKS)
            continue;
        if (n && ranges[n - 1].first + ranges[n - 1].count == number)
            ranges[n - 1].count++;
        else if (n == RANGES)
            break;
        else
            ranges[n++] = (struct skf_range){number, 1};
        s->state[k] = ASKED;
        s->asked++;
        side_of(s, k, &side, &at);
        bytes += side.payload_length;
    }
    SKF_TRY(skf_pace_wait(skf_pace_due(s->in->pace, bytes, now), s->in->cancel, why));
    skf_pace_charge(s->in->pace, bytes, now);
    return s->in->link.ask(s->in->link.ctx, s->in->assign.delta, ranges, n, why);
}

static enum skf_err keep(const struct sides *s, const struct skf_payload *p, uint64_t at, struct skf_why *why)
{
    for (size_t put = 0; put < p->n;) {
        ssize_t n = pwrite(s->fd, p->data + put, p->n - put, (off_t)(at + put));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return skf_fail_errno(why, errno, "a delta's sides cannot be kept");
        put += (size_t)n;
    }
    return SKF_OK;
}

static enum skf_err take(struct sides *s, const struct skf_payload *p, struct skf_why *why)
{
    struct skf_skd_side side;
    uint64_t k = p->number - s->info->n_chunks, at;
    if (p->number < s->info->n_chunks || k >= s->info->n_sides || s->state[k] != ASKED)
        return skf_fail(why, SKF_ERR_FORMAT, "the centre sent payload %llu, which was not asked for",
                        (unsigned long long)p->number);
    side_of(s, k, &side, &at);
    if (p->n != side.payload_length)
        return skf_fail(why, SKF_ERR_FORMAT, "the centre sent %zu bytes for side %llu instead of %u", p->n,
                        (unsigned long long)k, side.payload_length);
    s->asked--;
    atomic_fetch_add(&s->in->progress->bytes, p->n);
    SKF_TRY(keep(s, p, at, why));
    enum skf_err e = skf_skd_put_side(s->skd, k, s->map->data + at, why);
    if (e == SKF_ERR_DIGEST && ++s->tries[k] < TRIES) {
        s->state[k] = LACKS;
        return SKF_OK;
    }
    if (e != SKF_OK)
        return skf_fail_prefix(why, e, "%s", s->in->assign.delta);
    s->state[k] = UNNEEDED;
    s->lacking--;
    return SKF_OK;
}

static enum skf_err receive(struct sides *s, struct skf_why *why)
{
    unsigned silences = 0;
    while (s->lacking) {
        struct skf_payload p = {0};
        struct skf_why lost = {{0}};
        enum skf_err e = s->asked ? SKF_OK : ask(s, &lost);
        if (e == SKF_OK)
            e = s->in->link.chunk(s->in->link.ctx, s->in->cancel, &p, &lost);
        if (e == SKF_OK) {
            e = take(s, &p, why);
            skf_free(p.data);
            SKF_TRY(e);
            silences = 0;
            continue;
        }
        if (e != SKF_ERR_NET && (e != SKF_ERR_TIMEOUT || ++silences >= SILENCES))
            return skf_fail(why, e, "%s: %s", s->in->assign.delta, lost.text);
        for (uint64_t k = 0; k < s->info->n_sides; k++) /* what was asked over a link that broke will not come */
            if (s->state[k] == ASKED)
                s->state[k] = LACKS;
        s->asked = 0;
        SKF_TRY(s->in->link.wait(s->in->link.ctx, s->in->cancel, why));
    }
    return SKF_OK;
}

/* A file of exactly that size; what it holds is looked at later. */
static enum skf_err open_file(struct sides *s, const char *path, uint64_t size, struct skf_map *map, struct skf_why *why)
{
    s->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->fd < 0 || ftruncate(s->fd, (off_t)size) != 0)
        return skf_fail_errno(why, errno, "%s", path);
    SKF_TRY(skf_map_open(path, map, why));
    return map->size == size ? SKF_OK : skf_fail(why, SKF_ERR_IO, "%s: changed while it was opened", path);
}

static enum skf_err path_of(const struct skf_install *in, char path[SKF_AGENT_PATH])
{
    char name[SKF_NAME_MAX + 16];
    (void)snprintf(name, sizeof name, "%s.sides", in->assign.model);
    return skf_path(path, SKF_AGENT_PATH, in->cache_dir, name);
}

enum skf_err skf_sides_fetch(const struct skf_install *in, struct skf_skd *skd, const uint8_t *is_wanted, struct skf_map *map,
                             struct skf_why *why)
{
    struct sides s = {.in = in, .skd = skd, .info = skf_skd_info(skd), .fd = -1, .map = map};
    char path[SKF_AGENT_PATH];
    enum skf_err e;
    uint64_t n = s.info->n_sides, size = 0;
    s.state = skf_calloc(n + 1, 1);
    s.tries = skf_calloc(n + 1, 1);
    if (!s.state || !s.tries)
        SKF_GO(e, skf_fail(why, SKF_ERR_NOMEM, "no memory for %llu sides", (unsigned long long)n));
    SKF_GO(e, path_of(in, path));
    for (uint64_t k = 0; k < n; k++) {
        struct skf_skd_side side;
        uint64_t at;
        side_of(&s, k, &side, &at);
        size = at + side.payload_length; /* the last one's end */
        s.lacking += s.state[k] = is_wanted[k] ? LACKS : UNNEEDED;
    }
    if (!s.lacking) {
        (void)unlink(path);
        goto out;
    }
    SKF_GO(e, open_file(&s, path, size, map, why));
    for (uint64_t k = 0; k < n; k++) {
        struct skf_skd_side side;
        uint64_t at;
        side_of(&s, k, &side, &at);
        if (s.state[k] == LACKS && skf_skd_put_side(skd, k, map->data + at, NULL) == SKF_OK) {
            s.state[k] = UNNEEDED;
            s.lacking--;
        }
    }
    e = receive(&s, why);
out:
    if (s.fd >= 0)
        (void)close(s.fd);
    skf_free(s.state);
    skf_free(s.tries);
    return e;
}

void skf_sides_remove(const struct skf_install *in)
{
    char path[SKF_AGENT_PATH];
    if (path_of(in, path) == SKF_OK)
        (void)unlink(path);
}
