/* Memory that lies on disk: a file without a name, beside the output, mapped; gone with the process. */
#ifndef SKF_CLI_SCRATCH_H
#define SKF_CLI_SCRATCH_H

#include "base/err.h"

struct skf_scratch {
    void *p; /* NULL when closed */
    size_t size;
};
/* All zero; the disk's room is taken at once (SKF_ERR_FULL), so that writing to it cannot fail later. */
SKF_MUST enum skf_err skf_scratch_open(const char *beside, uint64_t size, struct skf_scratch *s, struct skf_why *why);
void skf_scratch_close(struct skf_scratch *s); /* a zeroed or closed one is fine */

#endif
