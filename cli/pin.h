/* What pin, unpin and rollback share: one question to the distributor about a box and a model. */
#ifndef SKF_CLI_PIN_H
#define SKF_CLI_PIN_H

#include "cli/cli.h"

struct skf_pin_verb {
    const char *verb, *args, *about;
    bool has_version, wants_version, has_all;
};
int skf_pin_verb_run(const struct skf_pin_verb *v, int argc, char **argv);

#endif
