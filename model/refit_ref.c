/* The fit's loops for any processor, and the choice among them (refit_priv.h). */
#include "base/util.h"
#include "model/refit_loops_priv.h"

const struct skf_refit_loops *skf_refit_loops_ref(void) { return &loops; }

const struct skf_refit_loops *skf_refit_loops_pick(void)
{
#if defined __x86_64__
    enum skf_isa isa;
    if (skf_isa_pick(&isa, NULL) == SKF_OK && (isa == SKF_ISA_AVX2 || isa == SKF_ISA_AVX512 || isa == SKF_ISA_AMX))
        return skf_refit_loops_avx2();
#endif
    return skf_refit_loops_ref();
}
