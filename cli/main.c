/* `skiff`: all verbs; those of the fleet are another program's (start.h). */
#include "cli/cli.h"
#include "cli/start.h"

static const struct skf_cli_verb verbs[] = {
#define SKF_VERB(name) {#name, skf_verb_##name},
#define SKF_FLEET_VERB(name) {#name, NULL},
#include "verbs.inc"
#undef SKF_VERB
#undef SKF_FLEET_VERB
};

int main(int argc, char **argv) { return skf_cli_start("skiff", verbs, SKF_COUNT(verbs), argc, argv); }
