/*
 * What the verbs of `skiff` share: option parsing, error line, progress, JSON output, the connection to a distributor.
 * A verb is cli/verb_<name>.c with one function; the Makefile finds it.
 */
#ifndef SKF_CLI_CLI_H
#define SKF_CLI_CLI_H

#include "base/err.h"
#include "base/json.h"
#include "base/util.h"
#include "model/model.h"

#define SKF_VERB(name) int skf_verb_##name(int argc, char **argv);
#define SKF_FLEET_VERB(name) SKF_VERB(name)
#include "verbs.inc"
#undef SKF_VERB
#undef SKF_FLEET_VERB

/* Exit statuses. */
enum { SKF_EXIT_OK = 0, SKF_EXIT_FAILED = 1, SKF_EXIT_USAGE = 2 };

/* One option of a verb. Exactly one of the targets is set. */
struct skf_opt {
    const char *name;     /* "--jobs" */
    char letter;          /* 'j' for -j; 0 for none */
    const char *value;    /* "N" in the help; NULL for a flag */
    const char *help;
    bool *flag;
    const char **text;
    uint64_t *number;     /* takes 100, 64K, 2M, 1G */
    bool is_positive;     /* a number that is not 0: a bound of nothing would be none */
    double *real;
    const char **list;    /* may be given up to list_max times; *list_n counts */
    size_t list_max, *list_n;
};
struct skf_usage {
    const char *verb, *args, *about; /* "diff", "OLD NEW -o FILE.skd", one sentence */
    const struct skf_opt *opts;
    size_t n_opts;
    const char **positional;      /* filled with what is no option */
    size_t min_args, max_args, *n_args;
};
/* Parses argv (argv[0] is the verb). 0: go on; otherwise *status is what the verb must return: --help printed on stdout (0), or one
 * line on stderr (2). Options may stand anywhere; "--" ends them; --opt=value works. */
bool is_cli_parsed(const struct skf_usage *u, int argc, char **argv, int *status);

/* One line on stderr, for what is wrong with options taken together; the exit status of wrong usage. */
int skf_cli_usage(const char *verb, const char *what);

/* Two names of one file that is there: writing the one would destroy the other. */
bool is_cli_same_file(const char *a, const char *b);
/* Where `out` would stand in this folder, or beneath it: what is made of its files must not become one of them. False for what is no folder. */
bool is_cli_inside(const char *out, const char *folder);
/* False, and one line on stderr, when `out` is one of these sources under any name, or is there and not a regular file: to be asked
 * before work that takes long. NULL, as `out` or a source, is none. */
bool is_cli_output_free(const char *verb, const char *out, const char *const *sources, size_t n);

/* SKF_ERR_STATE, and how to go on, for a file that a change in place (`skiff apply --in-place`) left half way: to be asked of every model
 * that is read. SKF_OK for what is not there. */
SKF_MUST enum skf_err skf_cli_whole(const char *path, struct skf_why *why);
/* skf_model_open of such a file. */
SKF_MUST enum skf_err skf_cli_model_open(const char *path, struct skf_model **m, struct skf_why *why);

/* Prints `skiff: <what>` on stderr and returns SKF_EXIT_FAILED; the text of `why`, or the error's name when it is empty. */
int skf_cli_fail(enum skf_err e, const struct skf_why *why);
int skf_cli_print_json(skf_json *take_j); /* one line on stdout */
/* The verb's status, or that standard output lost something of what was printed, which is said. */
int skf_cli_flush(int status);
/* A progress line on stderr when it is a terminal, and SIGINT/SIGTERM as cancel; label is kept by reference. */
struct skf_progress skf_cli_progress(const char *label);
void skf_cli_progress_end(void);
/* "90%" or "0.9": a share from 0 to 1; false for anything else. */
bool is_cli_share(const char *s, double *v);
/* "12.7 MB", "3.2 GB" (decimal, as disks and links are sold). */
const char *skf_human_bytes(uint64_t n, char buf[16]);

#endif
