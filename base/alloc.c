/* The allocation hook (alloc.h). */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static atomic_ulong fail_at; /* 0: off */
static atomic_ulong count;

static int is_made_to_fail(void)
{
    unsigned long n = atomic_fetch_add_explicit(&count, 1, memory_order_relaxed) + 1;
    return n == atomic_load_explicit(&fail_at, memory_order_relaxed);
}

void skf_alloc_fail_at(unsigned long n)
{
    atomic_store(&count, 0);
    atomic_store(&fail_at, n);
}

unsigned long skf_alloc_count(void) { return atomic_load(&count); }

void *skf_alloc(size_t n) { return is_made_to_fail() ? NULL : malloc(n ? n : 1); }

void *skf_calloc(size_t n, size_t size)
{
    return is_made_to_fail() ? NULL : calloc(n ? n : 1, size ? size : 1);
}

void *skf_realloc(void *p, size_t n) { return is_made_to_fail() ? NULL : realloc(p, n ? n : 1); }

void *skf_aligned(size_t align, size_t n)
{
    void *p = NULL;
    if (is_made_to_fail() || posix_memalign(&p, align, n ? n : 1) != 0)
        return NULL;
    return p;
}

char *skf_strdup(const char *s) { return s ? skf_memdup(s, strlen(s) + 1) : NULL; }

void *skf_memdup(const void *p, size_t n)
{
    void *q = skf_alloc(n);
    if (q && n)
        memcpy(q, p, n);
    return q;
}

void skf_free(void *p) { free(p); }
