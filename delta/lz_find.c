/* Matches (lz_find_priv.h). */
#include "delta/lz_find_priv.h"

#include <string.h>

#define BITS2 16
#define BITS3 16
#define BITS4 19
#define DEPTH 64 /* places of a tree that are looked at */

/* Places are kept plus one: 0 is none. */
enum skf_err lz_finder_init(struct lz_finder *f, struct skf_lz_room *r, const uint8_t *p, uint32_t n)
{
    const size_t heads = ((size_t)1 << BITS2) + ((size_t)1 << BITS3) + ((size_t)1 << BITS4);
    SKF_TRY(skf_area_need(&r->heads, heads * sizeof(uint32_t)));
    SKF_TRY(skf_area_need(&r->tree, 2 * (size_t)n * sizeof(uint32_t)));
    *f = (struct lz_finder){p, n, (uint32_t *)(void *)r->heads.p, (uint32_t *)(void *)r->tree.p};
    memset(f->heads, 0, heads * sizeof(uint32_t));
    return SKF_OK;
}

/* The tree whose root `now` becomes: what was in it goes to its left or right, as far as it is looked at. Matches longer than `longest`
 * are written to `out` (where that is not NULL). */
static unsigned insert(struct lz_finder *f, uint32_t now, uint32_t root, uint32_t most, uint32_t longest, struct lz_match *out)
{
    uint32_t *smaller = &f->tree[2 * now], *larger = smaller + 1, len_smaller = 0, len_larger = 0;
    unsigned count = 0;
    for (unsigned depth = DEPTH; root && depth; depth--) {
        uint32_t was = root - 1, *pair = &f->tree[2 * was];
        uint32_t len = lz_common(f->p + was, f->p + now, SKF_MIN(len_smaller, len_larger), most);
        if (len > longest && out) {
            longest = len;
            out[count++] = (struct lz_match){len, now - was - 1};
        }
        if (len == most) { /* takes its place */
            *smaller = pair[0];
            *larger = pair[1];
            return count;
        }
        if (f->p[was + len] < f->p[now + len]) {
            *smaller = root;
            smaller = pair + 1;
            root = *smaller;
            len_smaller = len;
        } else {
            *larger = root;
            larger = pair;
            root = *larger;
            len_larger = len;
        }
    }
    *smaller = *larger = 0;
    return count;
}

static unsigned find(struct lz_finder *f, uint32_t at, struct lz_match *out)
{
    const uint8_t *p = f->p + at;
    uint32_t most = SKF_MIN(f->n - at, LZ_NICE), longest = 1;
    unsigned count = 0;
    if (most < 8) /* nor is it put anywhere: what follows is as short */
        return 0;
    uint32_t four = skf_le32(p), *near[2] = {f->heads + (four & 0xffff), f->heads + (1u << BITS2) + ((four << 8) * 2654435761u >> (32 - BITS3))};
    uint32_t *head = f->heads + (1u << BITS2) + (1u << BITS3) + (four * 2654435761u >> (32 - BITS4));
    for (unsigned k = 0; k < 2; k++) {
        uint32_t was = *near[k];
        *near[k] = at + 1;
        if (!was || !out)
            continue;
        uint32_t len = lz_common(f->p + was - 1, p, 0, most);
        if (len > longest && len >= k + 2) {
            longest = len;
            out[count++] = (struct lz_match){len, at - was};
        }
    }
    uint32_t root = *head;
    *head = at + 1;
    return count + insert(f, at, root, most, longest, out ? out + count : NULL);
}

unsigned lz_find(struct lz_finder *f, uint32_t at, struct lz_match *out) { return find(f, at, out); }
void lz_skip(struct lz_finder *f, uint32_t at) { (void)find(f, at, NULL); }
