/* `skiff`: finds the verb and calls it. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

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

int main(int argc, char **argv)
{
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
