/* skiff pin: one box runs one version, whatever its channel says. */
#include "cli/pin.h"

int skf_verb_pin(int argc, char **argv)
{
    static const struct skf_pin_verb v = {
        .verb = "pin",
        .args = "DEVICE --model M --version V [--json]",
        .about = "Has a box run this version until it is unpinned. A version that the box still "
                 "holds costs no bytes.",
        .wants_version = true};
    return skf_pin_verb_run(&v, argc, argv);
}
