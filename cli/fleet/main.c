/* `skiff-fleet`: the verbs that speak to a distributor. `skiff` starts it for them (cli/start.h). */
#include "cli/cli.h"
#include "cli/start.h"

static const struct skf_cli_verb verbs[] = {
#define SKF_VERB(name)
#define SKF_FLEET_VERB(name) {#name, skf_verb_##name},
#include "verbs.inc"
#undef SKF_VERB
#undef SKF_FLEET_VERB
};

int main(int argc, char **argv) { return skf_cli_start(SKF_FLEET_PROGRAM, verbs, SKF_COUNT(verbs), argc, argv); }
