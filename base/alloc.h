/*
 * The allocation hook: everything of ours is allocated here, so that a test can make the n-th allocation fail.
 * Each returns NULL when there is no memory; skf_free takes NULL. Thread-safe.
 */
#ifndef SKF_BASE_ALLOC_H
#define SKF_BASE_ALLOC_H

#include <stddef.h>

void *skf_alloc(size_t n);                        /* n bytes, not cleared; n == 0 gives a pointer that can be freed */
void *skf_calloc(size_t count, size_t size);      /* cleared; NULL when count * size overflows */
void *skf_realloc(void *p, size_t n);             /* as realloc; the old block stays when it fails */
void *skf_aligned(size_t align, size_t n);        /* align a power of two of at least 8; freed with skf_free */
char *skf_strdup(const char *s);                  /* NULL in, NULL out */
void *skf_memdup(const void *p, size_t n);
void skf_free(void *p);

/* For tests: the n-th allocation from now on fails (1 is the next), once; 0 turns it off. */
void skf_alloc_fail_at(unsigned long n);
/* For tests: allocations since skf_alloc_fail_at was last called. */
unsigned long skf_alloc_count(void);

#endif
