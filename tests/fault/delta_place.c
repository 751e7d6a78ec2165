/*
 * A delta applied in place while the process is killed at each lasting step, while the power goes at each (of what was not synced any
 * page may be old or new), and while each step fails: afterwards the file is the source, or the same call goes on to the result; and
 * never anything else.  What must hold is checked by opening everything anew.
 */
#include <errno.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/lib/skd_fix.h"

#define FILES 2
#define PAGE 512u

/* Tensors of a few KiB, each a chunk, so that there are many batches of few bytes; some change places, grow, come and go. */
static const struct fix_tensor before[] = {
    {"a", SKF_T_BF16, 256, 12, 1, 0},   {"b", SKF_T_Q8_0, 256, 22, 2, 0},   {"c", SKF_T_IQ2_XXS, 256, 70, 3, 0}, {"d", SKF_T_I8, 256, 20, 4, 0},
    {"e", SKF_T_Q4_1, 256, 30, 5, 0},   {"gone", SKF_T_I8, 256, 25, 6, 0},  {"f", SKF_T_BF16, 256, 12, 7, 0},
};
static const struct fix_tensor after[] = {
    {"f", SKF_T_BF16, 256, 12, 7, 20},  {"b", SKF_T_Q8_0, 256, 22, 2, 20},  {"e", SKF_T_Q4_1, 256, 30, 5, 0},    {"new", SKF_T_I8, 256, 9, 8, 0},
    {"c", SKF_T_IQ2_XXS, 256, 70, 3, 9}, {"a", SKF_T_BF16, 256, 12, 1, 0},  {"d", SKF_T_I8, 256, 29, 4, 0},      {"more", SKF_T_I8, 256, 22, 9, 0},
};
static struct fix_pair pair;

/* What the disk holds for sure: each file as it was when it was last synced. */
static struct disk {
    char path[FILES][400];
    uint8_t *synced[FILES];
    size_t n[FILES];
    bool is_there[FILES];
} disk;

static struct fault {
    unsigned at, seen;
    bool is_power_cut;
    int sys; /* 0: the process ends */
} fault;

static void snapshot(unsigned k)
{
    struct skf_why why = {{0}};
    free(disk.synced[k]);
    uint8_t *p = NULL;
    disk.is_there[k] = skf_file_read(disk.path[k], 1u << 30, &p, &disk.n[k], &why) == SKF_OK;
    disk.synced[k] = p;
}

/* The file becomes a mixture of what was synced and what was written since. */
static void cut_power(unsigned k)
{
    uint8_t *now;
    size_t n;
    if (!disk.is_there[k] || skf_file_read(disk.path[k], 1u << 30, &now, &n, NULL) != SKF_OK)
        return;
    size_t size = fix_next() % 2 ? n : disk.n[k];
    uint8_t *mixed = calloc(1, size + 1);
    if (!mixed)
        _exit(3);
    for (size_t at = 0; at < size; at += PAGE) {
        bool is_new = fix_next() % 2;
        size_t have = is_new ? n : disk.n[k], len = size - at < PAGE ? size - at : PAGE;
        if (at < have)
            memcpy(mixed + at, (is_new ? now : disk.synced[k]) + at, len < have - at ? len : have - at);
    }
    FILE *f = fopen(disk.path[k], "r+b");
    if (!f || fwrite(mixed, 1, size, f) != size || fflush(f) || ftruncate(fileno(f), (off_t)size) || fclose(f))
        _exit(4);
}

static int step(void *ctx, const char *what, const char *path)
{
    if (++fault.seen != fault.at) {
        for (unsigned k = 0; k < FILES; k++)
            if (strcmp(what, "fsync") == 0 && strcmp(path, disk.path[k]) == 0)
                snapshot(k);
        if (strcmp(what, "dirsync") == 0) /* the journal came under its name whole, and synced */
            snapshot(1);
        return 0;
    }
    if (fault.sys)
        return fault.sys;
    for (unsigned k = 0; fault.is_power_cut && k < FILES; k++)
        cut_power(k);
    _exit(9);
}

static enum skf_err in_place(const char *delta, unsigned jobs, struct skf_why *why)
{
    struct skf_delta_opts o = {.jobs = jobs};
    struct skf_delta_stats s;
    return skf_delta_apply_in_place(fix_path("ip"), fix_path(delta), &o, &s, why);
}

static void reset(const struct skf_buf *from)
{
    fix_write("ip", from->data, from->len);
    (void)snprintf(disk.path[0], sizeof disk.path[0], "%s", fix_path("ip"));
    (void)snprintf(disk.path[1], sizeof disk.path[1], "%s.skiff-journal", fix_path("ip"));
    for (unsigned k = 0; k < FILES; k++)
        snapshot(k);
}

/* Ends the process, or the power, at each step in turn. */
static void each_end(const char *delta, const char *back, const struct skf_buf *from, const struct skf_buf *to, bool is_power_cut)
{
    unsigned at = 1, ended = 0, begun = 0;
    for (;; at++) {
        assert_true(at < 2000);
        reset(from);
        (void)fix_next(); /* other pages are lost each time */
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct skf_why why = {{0}};
            fault = (struct fault){.at = at, .is_power_cut = is_power_cut};
            skf_file_hook(step, NULL);
            _exit(in_place(delta, 1, &why) == SKF_OK ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 0)
            break;
        assert_int_equal(WEXITSTATUS(status), 9);
        ended++;
        if (access(disk.path[1], F_OK) == 0) { /* on its way: no other delta may have it */
            begun++;
            struct skf_why other = {{0}};
            assert_int_equal(in_place(back, 2, &other), SKF_ERR_STATE);
        }
        fix_ok(in_place(delta, 1 + at % 2, why));
        fix_same("ip", to->data, to->len);
        assert_int_equal(fix_left("ip"), 1);
        fix_ok(in_place(delta, 2, why)); /* once more: nothing is left to do */
        fix_same("ip", to->data, to->len);
    }
    fix_same("ip", to->data, to->len);
    assert_true(ended > 10 && begun > 5);
    (void)unlink(fix_path("ip"));
}

static void test_killed_forwards(void **unused) { each_end("d", "back", &pair.old_bytes, &pair.new_bytes, false); }
static void test_killed_backwards(void **unused) { each_end("back", "d", &pair.new_bytes, &pair.old_bytes, false); }
static void test_power_forwards(void **unused)
{
    for (int i = 0; i < 3; i++)
        each_end("d", "back", &pair.old_bytes, &pair.new_bytes, true);
}
static void test_power_backwards(void **unused)
{
    for (int i = 0; i < 3; i++)
        each_end("back", "d", &pair.new_bytes, &pair.old_bytes, true);
}

/* A step that fails is told in a line that says what to do; the file is the source again, or half way with its journal. */
static void each_failure(int sys)
{
    unsigned failed = 0, half = 0;
    for (unsigned at = 1;; at++) {
        assert_true(at < 2000);
        reset(&pair.old_bytes);
        struct skf_why said = {{0}};
        fault = (struct fault){.at = at, .sys = sys};
        skf_file_hook(step, NULL);
        enum skf_err e = in_place("d", 1, &said);
        skf_file_hook(NULL, NULL);
        if (fault.seen < at) {
            assert_int_equal(e, SKF_OK);
            break;
        }
        failed++;
        if (e != SKF_OK) {
            assert_int_equal(e, sys == ENOSPC ? SKF_ERR_FULL : SKF_ERR_IO);
            assert_non_null(strstr(said.text, fix_dir));
        }
        bool is_half = access(disk.path[1], F_OK) == 0;
        half += is_half;
        if (e != SKF_OK && !is_half) { /* whole, one or the other */
            uint8_t *p;
            size_t n;
            fix_read("ip", &p, &n);
            const struct skf_buf *b = n == pair.old_bytes.len ? &pair.old_bytes : &pair.new_bytes;
            fix_same("ip", b->data, b->len);
            skf_free(p);
        }
        fix_ok(in_place("d", 2, why));
        fix_same("ip", pair.new_bytes.data, pair.new_bytes.len);
        assert_int_equal(fix_left("ip"), 1);
    }
    assert_true(failed > 10 && half > 3);
    (void)unlink(fix_path("ip"));
}
static void test_failing_steps(void **unused)
{
    each_failure(EIO);
    each_failure(ENOSPC);
}

static void test_allocation(void **unused)
{
    unsigned long k = 1;
    for (bool is_over = false; !is_over; k++) {
        assert_true(k < 5000);
        reset(&pair.old_bytes);
        struct skf_why said = {{0}};
        skf_alloc_fail_at(k);
        enum skf_err e = in_place("d", 1, &said);
        is_over = skf_alloc_count() < k;
        skf_alloc_fail_at(0);
        if (e != SKF_OK)
            fix_ok(in_place("d", 1, why));
        fix_same("ip", pair.new_bytes.data, pair.new_bytes.len);
        assert_int_equal(fix_left("ip"), 1);
    }
    assert_true(k > 5);
    (void)unlink(fix_path("ip"));
}

static void run_until(unsigned at)
{
    reset(&pair.old_bytes);
    pid_t child = fork();
    if (child == 0) {
        struct skf_why why = {{0}};
        fault = (struct fault){.at = at};
        skf_file_hook(step, NULL);
        _exit(in_place("d", 1, &why) == SKF_OK ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(access(disk.path[1], F_OK), 0);
}

/* A journal that is damaged stops everything: what stands in the file is not known then. */
static void test_damaged_journal(void **unused)
{
    run_until(25);
    uint8_t *j, *half;
    size_t n, len;
    fix_read("ip.skiff-journal", &j, &n);
    fix_read("ip", &half, &len);
    j[50] ^= 1;
    fix_write("ip.skiff-journal", j, n);
    fix_err(SKF_ERR_FORMAT, in_place("d", 2, why));
    fix_same("ip", half, len);
    j[50] ^= 1;
    fix_write("ip.skiff-journal", j, n);
    fix_ok(in_place("d", 2, why));
    fix_same("ip", pair.new_bytes.data, pair.new_bytes.len);
    skf_free(j);
    skf_free(half);
}

/* Half way, somebody brings the source or the result anew, or changes what was done: it is seen before anything is written. */
static void test_brought_anew(void **unused)
{
    const struct skf_buf *brought[] = {&pair.old_bytes, &pair.new_bytes};
    for (unsigned k = 0; k < SKF_COUNT(brought); k++) {
        run_until(45);
        fix_write("ip", brought[k]->data, brought[k]->len);
        fix_ok(in_place("d", 2, why));
        fix_same("ip", pair.new_bytes.data, pair.new_bytes.len);
        assert_int_equal(fix_left("ip"), 1);
    }
    uint8_t *early, *half;
    size_t n, m, at = 0, end = 0;
    const uint8_t *old = pair.old_bytes.data, *neu = pair.new_bytes.data;
    unsigned k = 20;
    for (; at == end; k += 5) { /* until there is something that a batch did */
        run_until(k);
        fix_read("ip", &early, &n);
        end = SKF_MIN(SKF_MIN(pair.old_bytes.len, pair.new_bytes.len), n);
        for (at = 0; at < end && !(old[at] != neu[at] && early[at] == neu[at]);)
            at++;
        skf_free(early);
        (void)unlink(disk.path[1]);
    }
    run_until(k + 10); /* a batch or two later */
    fix_read("ip", &half, &m);
    half[at] ^= 1;
    fix_write("ip", half, m);
    fix_err(SKF_ERR_STATE, in_place("d", 2, why));
    fix_same("ip", half, m);
    half[at] ^= 1;
    fix_write("ip", half, m);
    fix_ok(in_place("d", 2, why));
    fix_same("ip", neu, pair.new_bytes.len);
    skf_free(half);
}

/* Nothing is changed by a delta that is for another file, or broken in its last payload. */
static void test_untouched(void **unused)
{
    uint8_t *d;
    size_t n;
    reset(&pair.new_bytes);
    pair.new_bytes.data[pair.new_bytes.len / 2] ^= 1;
    fix_write("ip", pair.new_bytes.data, pair.new_bytes.len);
    fix_err(SKF_ERR_BASE, in_place("d", 2, why));
    fix_err(SKF_ERR_BASE, in_place("back", 2, why));
    fix_same("ip", pair.new_bytes.data, pair.new_bytes.len);
    pair.new_bytes.data[pair.new_bytes.len / 2] ^= 1;
    reset(&pair.old_bytes);
    fix_read("d", &d, &n);
    d[n - 1] ^= 1;
    fix_write("bad", d, n);
    fix_err(SKF_ERR_DIGEST, in_place("bad", 2, why));
    fix_same("ip", pair.old_bytes.data, pair.old_bytes.len);
    assert_int_equal(fix_left("ip"), 1);
    atomic_bool cancel = true;
    struct skf_delta_opts o = {.jobs = 2, .progress = {.cancel = &cancel}};
    struct skf_delta_stats s;
    fix_err(SKF_ERR_CANCELLED, skf_delta_apply_in_place(fix_path("ip"), fix_path("d"), &o, &s, why));
    fix_same("ip", pair.old_bytes.data, pair.old_bytes.len);
    assert_int_equal(fix_left("ip"), 1);
    skf_free(d);
}

static int setup(void **state)
{
    /* Thousands of syncs: in memory where there is such a folder. What they would do is done by cut_power. */
    if (access("/dev/shm", W_OK) == 0)
        (void)setenv("SKF_TMP", "/dev/shm", 1);
    if (fix_setup(state))
        return -1;
    pair.old_bytes = fix_gguf(before, SKF_COUNT(before), false);
    pair.new_bytes = fix_gguf(after, SKF_COUNT(after), true);
    fix_open(&pair);
    struct fix_pair turned = {.old = pair.neu, .neu = pair.old};
    (void)fix_build(&pair, "d", 2);
    (void)fix_build(&turned, "back", 2);
    return 0;
}
static int teardown(void **state)
{
    for (unsigned k = 0; k < FILES; k++)
        free(disk.synced[k]);
    fix_close(&pair);
    return fix_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_forwards), cmocka_unit_test(test_killed_backwards),
        cmocka_unit_test(test_power_forwards),  cmocka_unit_test(test_power_backwards),
        cmocka_unit_test(test_failing_steps),   cmocka_unit_test(test_allocation),
        cmocka_unit_test(test_damaged_journal), cmocka_unit_test(test_brought_anew),
        cmocka_unit_test(test_untouched),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
