/* What is told of a delta as JSON, whichever verb made or applied it (diff.h). */
#include "cli/diff.h"

enum skf_err skf_delta_json(const struct skf_delta_stats *s, skf_json *to)
{
    char source[SKF_HEX], result[SKF_HEX];
    skf_hex(s->source_root, SKF_DIGEST, source);
    skf_hex(s->result_root, SKF_DIGEST, result);
    if (!to)
        return SKF_ERR_NOMEM;
    SKF_TRY(skf_json_set(to, "bytes", skf_json_int((int64_t)s->bytes)));
    SKF_TRY(skf_json_set(to, "source_root", skf_json_str(source)));
    SKF_TRY(skf_json_set(to, "result_root", skf_json_str(result)));
    SKF_TRY(skf_json_set(to, "seconds", skf_json_real(s->seconds)));
    if (s->has_also) {
        skf_hex(s->also_root, SKF_DIGEST, source);
        SKF_TRY(skf_json_set(to, "also_root", skf_json_str(source)));
    }
    return skf_json_set(to, "chunks", skf_json_int((int64_t)s->chunks));
}
