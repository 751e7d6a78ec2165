/* `skiff show` of a .skd and of a manifest. */
#include "base/digest.h"
#include "cli/show.h"
#include "delta/delta.h"
#include "model/model.h"
#include "proto/manifest.pb-c.h"
#include "proto/msg.h"

enum { MANIFEST_MAX = 256 << 20 };

static enum skf_err put_codings(skf_json *o, const struct skf_skd *skd)
{
    uint64_t chunks[SKF_CODE_COUNT] = {0}, payload[SKF_CODE_COUNT] = {0}, result[SKF_CODE_COUNT] = {0};
    for (uint64_t i = 0; i < skf_skd_info(skd)->n_chunks; i++) {
        struct skf_skd_chunk c;
        skf_skd_chunk(skd, i, &c);
        chunks[c.coding]++;
        payload[c.coding] += c.payload_length;
        result[c.coding] += c.result_length;
    }
    skf_json *all = skf_json_obj();
    SKF_TRY(skf_json_set(o, "coding", all));
    for (int k = 0; k < SKF_CODE_COUNT; k++) {
        skf_json *one = skf_json_obj();
        SKF_TRY(skf_json_set(all, skf_coding_name((enum skf_coding)k), one));
        SKF_TRY(skf_json_set(one, "chunks", skf_json_int((int64_t)chunks[k])));
        SKF_TRY(skf_json_set(one, "payload_bytes", skf_json_int((int64_t)payload[k])));
        SKF_TRY(skf_json_set(one, "result_bytes", skf_json_int((int64_t)result[k])));
    }
    return SKF_OK;
}

static enum skf_err put_skd(skf_json *o, const char *path, uint64_t size, const struct skf_skd *skd)
{
    const struct skf_skd_info *info = skf_skd_info(skd);
    SKF_TRY(skf_json_set(o, "file", skf_show_text(path, strlen(path))));
    SKF_TRY(skf_json_set(o, "format", skf_json_str("skd")));
    SKF_TRY(skf_json_set(o, "bytes", skf_json_int((int64_t)size)));
    SKF_TRY(skf_json_set(o, "codec", skf_json_int(info->codec)));
    SKF_TRY(skf_show_digest(o, "source_root", info->source_root));
    SKF_TRY(skf_json_set(o, "source_size", skf_json_int((int64_t)info->source_size)));
    if (info->also_size) {
        SKF_TRY(skf_show_digest(o, "also_root", info->also_root));
        SKF_TRY(skf_json_set(o, "also_size", skf_json_int((int64_t)info->also_size)));
    }
    SKF_TRY(skf_show_digest(o, "result_root", info->result_root));
    SKF_TRY(skf_json_set(o, "result_size", skf_json_int((int64_t)info->result_size)));
    SKF_TRY(skf_json_set(o, "index_size", skf_json_int((int64_t)info->index_size)));
    SKF_TRY(skf_json_set(o, "payload_size", skf_json_int((int64_t)info->payload_size)));
    SKF_TRY(skf_json_set(o, "chunks", skf_json_int((int64_t)info->n_chunks)));
    uint64_t side_bytes = 0;
    for (uint64_t k = 0; k < info->n_sides; k++) {
        struct skf_skd_side side;
        skf_skd_side(skd, k, &side);
        side_bytes += side.payload_length;
    }
    SKF_TRY(skf_json_set(o, "sides", skf_json_int((int64_t)info->n_sides)));
    SKF_TRY(skf_json_set(o, "side_bytes", skf_json_int((int64_t)side_bytes)));
    return put_codings(o, skd);
}

enum skf_err skf_show_skd(const char *path, const struct skf_map *map, skf_json **out, struct skf_why *why)
{
    uint64_t index;
    struct skf_skd *skd = NULL;
    skf_json *o = NULL;
    enum skf_err e = SKF_ERR_FORMAT;
    *out = NULL;
    if (map->size < SKF_SKD_HEAD)
        return skf_fail(why, e, "%s: truncated: the file ends inside its head", path);
    e = skf_skd_index_size(map->data, &index, why);
    if (e == SKF_OK && index > map->size)
        e = skf_fail(why, SKF_ERR_FORMAT, "truncated: the file ends inside its index");
    if (e == SKF_OK)
        e = skf_skd_parse(map->data, index, &skd, why);
    if (e == SKF_OK && skf_skd_info(skd)->payload_size != map->size - index)
        e = skf_fail(why, SKF_ERR_FORMAT, "truncated or too long: %llu bytes of payload where the head says %llu",
                     (unsigned long long)(map->size - index), (unsigned long long)skf_skd_info(skd)->payload_size);
    if (e != SKF_OK) {
        skf_skd_free(skd);
        return skf_fail_prefix(why, e, "%s", path);
    }
    o = skf_json_obj();
    e = o ? put_skd(o, path, map->size, skd) : SKF_ERR_NOMEM;
    skf_skd_free(skd);
    if (e == SKF_OK) {
        *out = o;
        return e;
    }
    skf_json_free(o);
    return skf_fail(why, e, "%s: out of memory", path);
}

static enum skf_err put_manifest_lists(skf_json *o, const Skiff__V1__Manifest *m)
{
    skf_json *files = skf_json_arr();
    SKF_TRY(skf_json_set(o, "files", files));
    for (size_t i = 0; i < m->n_files; i++) {
        skf_json *f = skf_json_obj();
        SKF_TRY(skf_json_push(files, f));
        SKF_TRY(skf_json_set(f, "name", skf_json_str(m->files[i]->name)));
        SKF_TRY(skf_json_set(f, "bytes", skf_json_int((int64_t)m->files[i]->size)));
    }
    skf_json *tensors = skf_json_arr();
    SKF_TRY(skf_json_set(o, "tensors", tensors));
    for (size_t i = 0; i < m->n_tensors; i++) {
        const Skiff__V1__ManifestTensor *t = m->tensors[i];
        const struct skf_type_info *ti = skf_type_info(t->type);
        skf_json *j = skf_json_obj(), *shape;
        SKF_TRY(skf_json_push(tensors, j));
        shape = skf_json_arr();
        SKF_TRY(skf_json_set(j, "shape", shape));
        for (size_t k = 0; k < t->n_dims; k++)
            SKF_TRY(skf_json_push(shape, skf_json_int((int64_t)t->dims[k])));
        SKF_TRY(skf_json_set(j, "name", skf_json_str(t->name)));
        SKF_TRY(skf_json_set(j, "type", skf_json_str(ti ? ti->name : "unknown")));
        SKF_TRY(skf_json_set(j, "offset", skf_json_int((int64_t)t->offset)));
        SKF_TRY(skf_json_set(j, "bytes", skf_json_int((int64_t)t->bytes)));
    }
    return SKF_OK;
}

static enum skf_err put_manifest(skf_json *o, const char *path, const struct skf_map *map, const Skiff__V1__Manifest *m)
{
    uint8_t digest[SKF_DIGEST];
    skf_sha256(map->data, map->size, digest);
    SKF_TRY(skf_json_set(o, "file", skf_show_text(path, strlen(path))));
    SKF_TRY(skf_json_set(o, "format", skf_json_str("manifest")));
    SKF_TRY(skf_json_set(o, "bytes", skf_json_int((int64_t)map->size)));
    SKF_TRY(skf_show_digest(o, "sha256", digest)); /* what targets metadata lists */
    SKF_TRY(skf_json_set(o, "manifest_format", skf_json_int(m->format)));
    SKF_TRY(skf_json_set(o, "model", skf_json_str(m->model)));
    SKF_TRY(skf_json_set(o, "version", skf_json_str(m->version)));
    SKF_TRY(skf_json_set(o, "file_format", skf_json_str(m->file_format)));
    SKF_TRY(skf_show_digest(o, "root", m->root.data));
    SKF_TRY(skf_json_set(o, "size", skf_json_int((int64_t)m->size)));
    SKF_TRY(skf_json_set(o, "chunks", skf_json_int((int64_t)m->n_chunk_lengths)));
    SKF_TRY(skf_json_set(o, "notes", skf_json_str(m->notes)));
    SKF_TRY(skf_json_set(o, "created", skf_json_int(m->created)));
    if (m->needs) {
        skf_json *needs = skf_json_obj();
        SKF_TRY(skf_json_set(o, "needs", needs));
        SKF_TRY(skf_json_set(needs, "architecture", skf_json_str(m->needs->architecture)));
        SKF_TRY(skf_json_set(needs, "tokenizer", skf_json_str(m->needs->tokenizer)));
        SKF_TRY(skf_json_set(needs, "memory_bytes", skf_json_int((int64_t)m->needs->memory_bytes)));
        SKF_TRY(skf_json_set(needs, "runtime_level", skf_json_int(m->needs->runtime_level)));
    }
    return put_manifest_lists(o, m);
}

/* What must hold of any manifest; the root itself is checked, since it takes no file to do so. */
static enum skf_err check_manifest(const Skiff__V1__Manifest *m, struct skf_why *why)
{
    struct skf_merkle tree;
    uint8_t root[SKF_DIGEST];
    if (m->format != 1)
        return skf_fail(why, SKF_ERR_UNSUPPORTED, "manifest format %u; 1 is known", m->format);
    if (m->root.len != SKF_DIGEST || m->chunk_digests.len / SKF_DIGEST != m->n_chunk_lengths ||
        m->chunk_digests.len % SKF_DIGEST)
        return skf_fail(why, SKF_ERR_FORMAT, "its digests and lengths do not belong together");
    skf_merkle_init(&tree);
    for (size_t i = 0; i < m->n_chunk_lengths; i++)
        skf_merkle_add(&tree, m->chunk_digests.data + i * SKF_DIGEST, m->chunk_lengths[i]);
    skf_merkle_root(&tree, root);
    if (memcmp(root, m->root.data, SKF_DIGEST) != 0)
        return skf_fail(why, SKF_ERR_DIGEST, "its chunks do not come to its root");
    return SKF_OK;
}

enum skf_err skf_show_manifest(const char *path, const struct skf_map *map, skf_json **out, struct skf_why *why)
{
    Skiff__V1__Manifest *m = NULL;
    skf_json *o = NULL;
    *out = NULL;
    enum skf_err e = SKF_UNPACK(skiff__v1__manifest, Skiff__V1__Manifest, map->data, map->size, MANIFEST_MAX, &m, why);
    if (e == SKF_OK)
        e = check_manifest(m, why);
    if (e == SKF_OK && !(o = skf_json_obj()))
        e = SKF_ERR_NOMEM;
    if (e == SKF_OK)
        e = put_manifest(o, path, map, m);
    skf_msg_free((ProtobufCMessage *)m);
    if (e == SKF_OK) {
        *out = o;
        return e;
    }
    skf_json_free(o);
    return skf_fail_prefix(why, e, "%s", path);
}
