/*
 * Runs a fuzz target without libFuzzer, so that `make check` needs no clang: every file of the corpus, then a fixed number of seeded
 * mutations of them.  It finds what is shallow and holds on to what was found before; `make fuzz` looks deeper.
 *
 * usage: TARGET CORPUS-FOLDER [MUTATIONS]       prints TAP
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILES 512
#define MAX_SIZE (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

struct seed {
    uint8_t *p;
    size_t n;
};

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint64_t next(void) /* xorshift64*, Vigna 2016 */
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1du;
}

static size_t load(const char *dir, struct seed *seeds)
{
    size_t count = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && count < MAX_FILES && (e = readdir(d));) {
        char path[4096];
        (void)snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "rb");
        if (!f)
            continue;
        uint8_t *p = malloc(MAX_SIZE);
        size_t n = p ? fread(p, 1, MAX_SIZE, f) : 0;
        (void)fclose(f);
        if (p)
            seeds[count++] = (struct seed){p, n};
    }
    if (d)
        (void)closedir(d);
    return count;
}

/* Runs one input in a block of exactly its size, so that a sanitizer or valgrind sees a read past the end. */
static void run(const uint8_t *p, size_t n)
{
    uint8_t *exact = malloc(n ? n : 1);
    if (!exact)
        return;
    if (n)
        memcpy(exact, p, n);
    (void)LLVMFuzzerTestOneInput(exact, n);
    free(exact);
}

static size_t mutate(uint8_t *p, size_t n, const struct seed *seeds, size_t count)
{
    static const uint8_t edges[] = {0, 1, 0x7f, 0x80, 0xff};
    for (unsigned k = 1 + next() % 6; k && n; k--) {
        size_t at = next() % n;
        switch (next() % 6) {
        case 0:
            p[at] ^= (uint8_t)(1u << next() % 8);
            break;
        case 1:
            p[at] = edges[next() % sizeof edges];
            break;
        case 2: /* an integer field becomes huge */
            memset(p + at, 0xff, n - at < 8 ? n - at : 8);
            break;
        case 3:
            n = at;
            break;
        case 4: /* a run taken from elsewhere */
            if (count) {
                const struct seed *s = &seeds[next() % count];
                size_t len = s->n ? next() % 32 % s->n : 0;
                if (len > n - at)
                    len = n - at;
                memcpy(p + at, s->p, len);
            }
            break;
        default:
            p[at] = (uint8_t)next();
        }
    }
    return n;
}

int main(int argc, char **argv)
{
    static struct seed seeds[MAX_FILES];
    if (LLVMFuzzerInitialize)
        (void)LLVMFuzzerInitialize(&argc, &argv);
    size_t count = argc > 1 ? load(argv[1], seeds) : 0;
    unsigned long mutations = argc > 2 ? strtoul(argv[2], NULL, 10) : 20000;
    run((const uint8_t *)"", 0);
    for (size_t i = 0; i < count; i++)
        run(seeds[i].p, seeds[i].n);
    uint8_t *work = malloc(MAX_SIZE);
    for (unsigned long i = 0; work && count && i < mutations; i++) {
        const struct seed *s = &seeds[next() % count];
        if (s->n > 65536 && i % 64) /* large seeds cost time; they are tried too, but seldom */
            continue;
        if (s->n)
            memcpy(work, s->p, s->n);
        run(work, mutate(work, s->n, seeds, count));
    }
    free(work);
    (void)printf("1..1\n%s 1 - %zu seeds, %lu mutations\n", count ? "ok" : "not ok", count, mutations);
    return count ? 0 : 1;
}
