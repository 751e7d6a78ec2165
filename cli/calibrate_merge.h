/* skiff merge with calibration text. */
#ifndef SKF_CLI_CALIBRATE_MERGE_H
#define SKF_CLI_CALIBRATE_MERGE_H

#include "cli/calibrate.h"

/* ask->base with the adapter merged (calibrate.h). */
SKF_MUST enum skf_err skf_cli_merge_calibrated(const struct calibrate_ask *ask, const char *adapter, skf_json *report,
                                               struct skf_why *why);

#endif
