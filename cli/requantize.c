/* skiff quantize --base: the new weights on the old version's grid, within a budget (quantize.h). */
#include "cli/quantize.h"

enum skf_err skf_cli_requantize(const struct quantize_args *a, skf_json *report, struct skf_why *why)
{
    (void)report;
    return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: --base is not in this build; leave it out", a->base);
}
