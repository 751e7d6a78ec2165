/* `skiff`: finds the verb and calls it. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/cli.h"

struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
};

static const struct verb verbs[] = {
#define SKF_VERB(name) {#name, skf_verb_##name},
#include "verbs.inc"
#undef SKF_VERB
};

static void usage(FILE *to)
{
    (void)fprintf(to, "usage: skiff VERB [ARGUMENTS]\n\nverbs:");
    for (size_t i = 0; i < SKF_COUNT(verbs); i++)
        (void)fprintf(to, " %s", verbs[i].name);
    (void)fprintf(to, "\n\n`skiff VERB --help` describes one. Exit status: 0 done, 1 failed, 2 wrong usage.\n");
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

int main(int argc, char **argv)
{
    struct sigaction bus = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
    (void)sigaction(SIGBUS, &bus, NULL);
    skf_log_open("skiff", SKF_LOG_WARN);
    (void)signal(SIGXFSZ, SIG_IGN); /* a file over `ulimit -f` is an error to tell and to clean up after, not an end */
    if (argc < 2) {
        usage(stderr);
        return SKF_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return skf_cli_flush(SKF_EXIT_OK);
    }
    if (strcmp(argv[1], "--version") == 0) {
        (void)printf("skiff %s\n", SKF_VERSION);
        return skf_cli_flush(SKF_EXIT_OK);
    }
    for (size_t i = 0; i < SKF_COUNT(verbs); i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return skf_cli_flush(verbs[i].run(argc - 1, argv + 1));
    (void)fprintf(stderr, "skiff: %s: no such verb; `skiff --help` lists them\n", argv[1]);
    return SKF_EXIT_USAGE;
}
