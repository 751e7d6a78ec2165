/* skiff rollback: boxes go back to the version they ran before. */
#include "cli/pin.h"

int skf_verb_rollback(int argc, char **argv)
{
    static const struct skf_pin_verb v = {
        .verb = "rollback",
        .args = "DEVICE|--all --model M [--version V] [--json]",
        .about = "Has a box, or all, go back to the version it ran before (or to V). Holds until the "
                 "channel's next rollout, or `skiff unpin`.",
        .has_version = true,
        .has_all = true};
    return skf_pin_verb_run(&v, argc, argv);
}
