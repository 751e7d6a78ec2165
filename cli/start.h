/* What the programs made of verbs share: `skiff`, and `skiff-fleet`, which has those that speak to a distributor. */
#ifndef SKF_CLI_START_H
#define SKF_CLI_START_H

#include <limits.h>
#include <stddef.h>

#include "base/err.h"

struct skf_cli_verb {
    const char *name;
    int (*run)(int argc, char **argv); /* NULL: SKF_FLEET_PROGRAM has it */
};
/* The program that `skiff` becomes for a verb of the fleet. gRPC is three score libraries, which take longer to load than most deltas of a
 * small model take to apply: only a program that speaks to a distributor is linked with it. */
#define SKF_FLEET_PROGRAM "skiff-fleet"

/* All of main(): finds the verb and calls it. `program` is said in the usage. */
int skf_cli_start(const char *program, const struct skf_cli_verb *verbs, size_t n, int argc, char **argv);
/* The path of a program of ours, which stands beside this one. */
SKF_MUST enum skf_err skf_cli_beside(const char *program, char path[PATH_MAX], struct skf_why *why);

#endif
