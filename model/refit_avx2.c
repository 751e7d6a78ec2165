/* The fit's loops in vectors of eight (refit_priv.h). */
#if defined __x86_64__
#include "model/refit_loops_priv.h"

const struct skf_refit_loops *skf_refit_loops_avx2(void) { return &loops; }

#else
typedef int skf_refit_avx2_is_empty; /* C wants something in a file */
#endif
