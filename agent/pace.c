/*
 * A rate of download, so that an update leaves the link to others.  What comes over it is paced by when it is asked for: a question for
 * so many bytes waits until the rate allows for them.  They then come at once, so the rate is that of the questions: a quarter of a
 * second's worth each, or one payload where that is more.
 */
#include "agent/agent_priv.h"

#define CREDIT (250 * SKF_MS) /* of time that nothing was asked in, which may be made up for */
#define SLICE  100u           /* ms between looks at the cancel flag */

uint64_t skf_pace_question(const struct skf_pace *p, uint64_t most)
{
    return p && p->rate ? SKF_MAX(SKF_MIN(p->rate / 4, most), 1u) : most;
}

static uint64_t time_of(const struct skf_pace *p, uint64_t bytes)
{
    return bytes / p->rate * SKF_SECOND + bytes % p->rate * SKF_SECOND / p->rate;
}

void skf_pace_begin(struct skf_pace *p, uint64_t now)
{
    if (p)
        p->paid = SKF_MAX(p->paid, now);
}

uint64_t skf_pace_due(const struct skf_pace *p, uint64_t bytes, uint64_t now)
{
    return p && p->rate ? SKF_MAX(p->paid + time_of(p, bytes), now) : now;
}

void skf_pace_charge(struct skf_pace *p, uint64_t bytes, uint64_t now)
{
    if (p && p->rate)
        p->paid = SKF_MAX(p->paid + time_of(p, bytes), now - SKF_MIN(now, CREDIT));
}

enum skf_err skf_pace_wait(uint64_t until, const atomic_bool *cancel, struct skf_why *why)
{
    for (uint64_t now = skf_now_ns(); now < until; now = skf_now_ns()) {
        if (atomic_load(cancel))
            return skf_fail(why, SKF_ERR_CANCELLED, "cancelled");
        skf_sleep_ms((unsigned)SKF_MIN((until - now) / SKF_MS + 1, SLICE));
    }
    return SKF_OK;
}
