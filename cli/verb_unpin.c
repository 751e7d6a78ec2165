/* skiff unpin: a box follows its channel again. */
#include "cli/pin.h"

int skf_verb_unpin(int argc, char **argv)
{
    static const struct skf_pin_verb v = {.verb = "unpin",
                                          .args = "DEVICE --model M [--json]",
                                          .about = "Ends a pin or a rollback: the box follows its channel again."};
    return skf_pin_verb_run(&v, argc, argv);
}
