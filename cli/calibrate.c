/* skiff quantize --base --calibrate: the new weights on the old version's grid, weighed by what a text asks of them (quantize.h). */
#include "cli/quantize.h"

enum skf_err skf_cli_quantize_calibrated(const struct quantize_args *a, skf_json *report, struct skf_why *why)
{
    (void)report;
    return skf_fail(why, SKF_ERR_UNSUPPORTED, "%s: --base with --calibrate is not in this build; leave it out", a->base);
}
