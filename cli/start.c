/* The beginning of `skiff` and `skiff-fleet` (start.h). */
#include "cli/start.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/cli.h"

static void usage(FILE *to, const char *program, const struct skf_cli_verb *verbs, size_t n)
{
    (void)fprintf(to, "usage: %s VERB [ARGUMENTS]\n\nverbs:", program);
    for (size_t i = 0; i < n; i++)
        (void)fprintf(to, " %s", verbs[i].name);
    (void)fprintf(to, "\n\n`%s VERB --help` describes one. Exit status: 0 done, 1 failed, 2 wrong usage.\n", program);
}

/* Puts `from` behind what stands in `line`, without what could speak to a terminal. */
static size_t put(char *line, size_t at, size_t cap, const char *from)
{
    for (; *from && at < cap; from++)
        line[at++] = (unsigned char)*from < 0x20 || *from == 0x7F ? '?' : *from;
    return at;
}

/* Where no guard stands (base/file.h): one line, as for any other failure. What it leaves the next run sweeps. */
static void on_bus(int sig, siginfo_t *info, void *context)
{
    char name[256], line[400];
    (void)context;
    static atomic_flag is_told = ATOMIC_FLAG_INIT;
    if (info->si_code > 0) { /* by a read, not by kill() */
        while (atomic_flag_test_and_set(&is_told))
            (void)pause(); /* another thread says it, and ends all */
        bool is_known = has_map_name(info->si_addr, name, sizeof name);
        size_t n = put(line, 0, sizeof line, "skiff: ");
        n = put(line, n, sizeof line, is_known ? name : "a file");
        n = put(line, n, sizeof line - 1, is_known ? ": became shorter while it was read, or its disk fails"
                                                   : " became shorter while it was read, or its disk fails");
        line[n++] = '\n';
        ssize_t written = write(STDERR_FILENO, line, n);
        (void)written;
        _exit(SKF_EXIT_FAILED);
    }
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
}

enum skf_err skf_cli_beside(const char *program, char path[PATH_MAX], struct skf_why *why)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return skf_fail_errno(why, errno, "/proc/self/exe");
    self[n] = 0;
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = 0;
    SKF_TRY(skf_path(path, PATH_MAX, self, program));
    if (access(path, X_OK) != 0)
        return skf_fail_errno(why, errno, "%s, which should stand beside skiff", path);
    return SKF_OK;
}

/* Becomes the fleet's program, which does the rest. */
static int go_over(char **argv)
{
    char path[PATH_MAX];
    struct skf_why why = {{0}};
    enum skf_err e = skf_cli_beside(SKF_FLEET_PROGRAM, path, &why);
    if (e == SKF_OK) {
        argv[0] = path;
        (void)execv(path, argv);
        e = skf_fail_errno(&why, errno, "%s", path);
    }
    return skf_cli_fail(e, &why);
}

int skf_cli_start(const char *program, const struct skf_cli_verb *verbs, size_t n, int argc, char **argv)
{
    struct sigaction bus = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
    (void)sigaction(SIGBUS, &bus, NULL);
    skf_log_open("skiff", SKF_LOG_WARN);
    (void)signal(SIGXFSZ, SIG_IGN); /* a file over `ulimit -f` is an error to tell and to clean up after, not an end */
    if (argc < 2) {
        usage(stderr, program, verbs, n);
        return SKF_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout, program, verbs, n);
        return skf_cli_flush(SKF_EXIT_OK);
    }
    if (strcmp(argv[1], "--version") == 0) {
        (void)printf("%s %s\n", program, SKF_VERSION);
        return skf_cli_flush(SKF_EXIT_OK);
    }
    for (size_t i = 0; i < n; i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].run ? skf_cli_flush(verbs[i].run(argc - 1, argv + 1)) : go_over(argv);
    (void)fprintf(stderr, "skiff: %s: no such verb; `%s --help` lists them\n", argv[1], program);
    return SKF_EXIT_USAGE;
}
