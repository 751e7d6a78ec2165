/* skiff publish: a model file becomes a version that boxes can be moved to. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/publish.h"
#include "distributor/manifest.h"
#include "proto/msg.h"

static int usage_error(const char *what)
{
    (void)fprintf(stderr, "skiff: publish: %s; `skiff publish --help` tells more\n", what);
    return SKF_EXIT_USAGE;
}

static enum skf_err fill(const struct skf_publish *p, double seconds, skf_json *j)
{
    const Skiff__V1__PublishDone *done = ((Skiff__V1__PublishReply *)p->done)->done;
    char root[SKF_HEX];
    skf_hex(p->cut.root, SKF_DIGEST, root);
    SKF_TRY(skf_json_put_str(j, "model", p->model));
    SKF_TRY(skf_json_put_str(j, "version", p->version));
    if (p->channel)
        SKF_TRY(skf_json_put_str(j, "channel", p->channel));
    SKF_TRY(skf_json_put_str(j, "root", root));
    SKF_TRY(skf_json_put_u64(j, "size", p->cut.size));
    SKF_TRY(skf_json_put_u64(j, "chunks", p->cut.n));
    SKF_TRY(skf_json_set(j, "dry_run", skf_json_bool(p->is_dry)));
    SKF_TRY(skf_json_set(j, "new", skf_json_bool(!p->is_known)));
    SKF_TRY(skf_json_put_u64(j, "bytes_to_send", p->need_bytes));
    SKF_TRY(skf_json_put_u64(j, "bytes_sent", p->bytes_sent));
    SKF_TRY(skf_json_put_u64(j, "chunks_sent", p->chunks_sent));
    SKF_TRY(skf_json_set(j, "seconds", skf_json_real(seconds)));
    skf_json *list = skf_json_arr();
    enum skf_err e = skf_json_set(j, "deltas", list);
    for (size_t i = 0; i < done->n_deltas && e == SKF_OK; i++) {
        skf_json *d = skf_json_obj();
        e = skf_json_push(list, d);
        if (e == SKF_OK)
            e = skf_json_put_str(d, "from", done->deltas[i]->from_version);
        if (e == SKF_OK)
            e = skf_json_put_u64(d, "bytes", done->deltas[i]->bytes);
        if (e == SKF_OK && done->deltas[i]->adapter[0])
            e = skf_json_put_str(d, "adapter", done->deltas[i]->adapter);
    }
    return e == SKF_OK && p->adapter.file ? skf_publish_adapter_json(p, j) : e;
}

static int print_result(const struct skf_publish *p, double seconds)
{
    const Skiff__V1__PublishDone *done = ((Skiff__V1__PublishReply *)p->done)->done;
    char a[16], b[16];
    if (p->json) {
        skf_json *j = skf_json_obj();
        enum skf_err e = fill(p, seconds, j);
        return skf_json_finish(e, j);
    }
    (void)printf("%s %s: %s in %llu chunks, %s %s%s\n", p->model, p->version, skf_human_bytes(p->cut.size, a),
                 (unsigned long long)p->cut.n, skf_human_bytes(p->is_dry ? p->need_bytes : p->bytes_sent, b),
                 p->is_dry ? "to be sent" : "sent", p->is_known ? "; it was published before" : "");
    for (size_t i = 0; i < done->n_deltas; i++)
        (void)printf("  %s%s: %s%s\n", done->deltas[i]->from_version[0] ? "from " : "full content",
                     done->deltas[i]->from_version, skf_human_bytes(done->deltas[i]->bytes, a),
                     strcmp(done->deltas[i]->adapter, "used") == 0 ? ", by its adapter" : "");
    if (p->adapter.file)
        skf_publish_adapter_print(p);
    if (p->channel && !p->is_dry)
        (void)printf("  channel %s moves to it\n", p->channel);
    return SKF_EXIT_OK;
}

static enum skf_err open_content(struct skf_publish *p, struct skf_why *why)
{
    SKF_TRY(skf_cli_model_open(p->file, &p->content, why));
    struct skf_progress progress = skf_cli_progress("reading");
    enum skf_err e = skf_cut_make(p->content, 0, &progress, &p->cut, why);
    skf_cli_progress_end();
    if (e != SKF_OK)
        return skf_fail_prefix(why, e, "%s", p->file);
    return p->cut.n ? SKF_OK : skf_fail(why, SKF_ERR_ARG, "%s: empty", p->file);
}

static int run(struct skf_publish *p)
{
    struct skf_why why = {{0}};
    uint64_t begun = skf_now_ns();
    bool is_written = false;
    int status = SKF_EXIT_OK;
    enum skf_err e;
    SKF_GO(e, skf_connect_open(&p->c, &why));
    SKF_GO(e, open_content(p, &why));
    SKF_GO(e, skf_publish_adapter_open(p, &why));
    SKF_GO(e, skf_publish_manifest(p, &why));
    SKF_GO(e, skf_publish_adapter_base(p, &why));
    if (!p->is_known && !p->is_dry)
        SKF_GO(e, skf_publish_sign(p, &is_written, &why));
    if (is_written)
        goto out;
    SKF_GO(e, skf_publish_send(p, &why));
    status = print_result(p, (double)(skf_now_ns() - begun) / 1e9);
out:
    if (e != SKF_OK)
        status = skf_cli_fail(e, &why);
    skf_connect_close(&p->c);
    if (p->done)
        skf_msg_free(p->done);
    skf_free(p->targets);
    skf_free(p->manifest);
    skf_publish_adapter_close(p);
    skf_cut_free(&p->cut);
    skf_model_close(p->content);
    return status;
}

int skf_verb_publish(int argc, char **argv)
{
    struct skf_publish p = {.file = NULL};
    int status;
    const struct skf_opt opts[] = {
        SKF_CONNECT_OPTS(&p.c),
        {.name = "--model", .value = "NAME", .help = "the model's name", .text = &p.model},
        {.name = "--version", .value = "V", .help = "the version's name", .text = &p.version},
        {.name = "--channel", .value = "C", .help = "start its rollout on this channel", .text = &p.channel},
        {.name = "--key",
         .value = "KEYFILE",
         .help = "targets key to sign with; again for a second one",
         .list = p.keys,
         .list_max = SKF_PUBLISH_KEYS_MAX,
         .list_n = &p.n_keys},
        {.name = "--targets",
         .value = "FILE",
         .help = "the targets that were written without --key, signed since",
         .text = &p.targets_file},
        {.name = "--out",
         .letter = 'o',
         .value = "PREFIX",
         .help = "where to write them (MODEL-VERSION)",
         .text = &p.out},
        {.name = "--adapter",
         .value = "LORA.gguf",
         .help = "it makes the new version of an older one: boxes there get little more than it",
         .text = &p.adapter.file},
        {.name = "--adapter-base",
         .value = "VERSION",
         .help = "the version it is for (the channel's, or else the newest)",
         .text = &p.adapter.asked},
        {.name = "--notes", .value = "TEXT", .help = "notes kept in the manifest", .text = &p.notes},
        {.name = "--dry-run", .help = "say what would be sent, change nothing", .flag = &p.is_dry},
        {.name = "--json", .help = "one JSON object on stdout", .flag = &p.json},
    };
    const struct skf_usage u = {
        .verb = "publish",
        .args = "MODELFILE --model NAME --version V [--channel C] [--key KEYFILE]",
        .about = "Sends a version to the distributor, signed. Without --key the metadata to be signed is "
                 "written to a file, to go on from with --targets once it is signed.",
        .opts = opts,
        .n_opts = SKF_COUNT(opts),
        .positional = &p.file,
        .min_args = 1,
        .max_args = 1};
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    if (!p.model || !p.version)
        return usage_error("--model and --version are needed");
    if (!is_registry_name(p.model) || !is_registry_name(p.version) || (p.channel && !is_registry_name(p.channel)))
        return usage_error("names are 1 to 128 of [A-Za-z0-9._-]");
    if (p.adapter.asked && !p.adapter.file)
        return usage_error("--adapter-base goes with --adapter LORA.gguf");
    if (p.adapter.asked && (!is_registry_name(p.adapter.asked) || strcmp(p.adapter.asked, p.version) == 0))
        return usage_error("--adapter-base: not the name of an older version");
    if (p.notes && strlen(p.notes) > SKF_MANIFEST_NOTES_MAX)
        return usage_error("--notes: longer than 4096 bytes");
    if (p.n_keys && p.targets_file)
        return usage_error("--key and --targets exclude each other");
    return run(&p);
}
