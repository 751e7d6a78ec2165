/*
 * skiff sign: adds one key's signature to metadata files, where they are.  Thresholds are reached by running it on each
 * keyholder's own machine, one after the other.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "cli/cli.h"
#include "trust/tuf.h"

#define FILES_MAX 64

struct sign {
    const char *key, *root, *role;
    bool json;
    const char *files[FILES_MAX];
    size_t n_files;
};

static enum skf_err read_json(const char *path, skf_json **doc, struct skf_why *why)
{
    uint8_t *p;
    size_t n;
    SKF_TRY(skf_file_read(path, SKF_TUF_META_MAX, &p, &n, why));
    enum skf_err e = skf_json_parse(p, n, 32, doc, why);
    skf_free(p);
    return e == SKF_OK ? SKF_OK : skf_fail_prefix(why, e, "%s", path);
}

/* The role whose keys must sign this document: what --role says, otherwise its own type. */
static const char *role_of(const struct sign *s, const skf_json *doc)
{
    return s->role ? s->role : skf_json_cstr(skf_json_get(skf_json_get(doc, "signed"), "_type"));
}

/* Refuses to sign with a key that the role does not list: a signature that counts for nothing is a mistake found late.
 * A root is signed by its own keys and by those of the root before it, so either will do. */
static enum skf_err check_listed(const struct sign *s, const char *path, const skf_json *doc, const skf_json *root,
                                 const struct skf_key *k, struct skf_why *why)
{
    const char *role = role_of(s, doc);
    if (!role)
        return skf_fail(why, SKF_ERR_FORMAT, "%s: not TUF metadata", path);
    bool is_root = strcmp(role, "root") == 0;
    if ((root && is_tuf_listed(root, role, skf_key_id(k))) || (is_root && is_tuf_listed(doc, role, skf_key_id(k))))
        return SKF_OK;
    if (!root && !is_root)
        return SKF_OK; /* nothing to compare with */
    return skf_fail(why, SKF_ERR_REFUSED, "%s: key %.16s... is none of the role %s", path, skf_key_id(k), role);
}

static enum skf_err write_doc(const char *path, const skf_json *doc, struct skf_why *why)
{
    char *text;
    size_t n;
    if (skf_json_text(doc, 0, &text, &n) != SKF_OK)
        return skf_fail(why, SKF_ERR_NOMEM, "%s: out of memory", path);
    enum skf_err e = skf_file_write(path, text, n, 0644, why);
    skf_free(text);
    return e;
}

static enum skf_err sign_one(const struct sign *s, const char *path, const skf_json *root, const struct skf_key *k,
                             skf_json *report, struct skf_why *why)
{
    skf_json *doc = NULL, *line = NULL;
    enum skf_err e;
    SKF_GO(e, read_json(path, &doc, why));
    SKF_GO(e, check_listed(s, path, doc, root, k, why));
    e = skf_tuf_sign(doc, k, why);
    if (e != SKF_OK) {
        e = skf_fail_prefix(why, e, "%s", path);
        goto out;
    }
    SKF_GO(e, write_doc(path, doc, why));
    const char *role = role_of(s, doc);
    const skf_json *delegator = root ? root : strcmp(role, "root") == 0 ? doc : NULL;
    struct skf_why missing = {{0}};
    bool is_enough = delegator && skf_tuf_verify(delegator, role, doc, &missing) == SKF_OK;
    if (!s->json) {
        (void)printf("%s: signed with key %.16s...%s%s\n", path, skf_key_id(k),
                     !delegator  ? ""
                     : is_enough ? ", and complete"
                                 : "; ",
                     is_enough ? "" : missing.text);
        goto out;
    }
    line = skf_json_obj();
    SKF_GO(e, skf_json_set(line, "file", skf_json_str(path)));
    SKF_GO(e, skf_json_set(line, "keyid", skf_json_str(skf_key_id(k))));
    SKF_GO(e, skf_json_set(line, "complete", delegator ? skf_json_bool(is_enough) : skf_json_null()));
    SKF_GO(e, skf_json_push(report, skf_json_ref(line)));
out:
    skf_json_free(line);
    skf_json_free(doc);
    return e;
}

static int run(const struct sign *s)
{
    struct skf_why why = {{0}};
    struct skf_key *k = NULL;
    skf_json *root = NULL, *report = skf_json_arr(), *all = skf_json_obj();
    enum skf_err e;
    int status = SKF_EXIT_OK;
    SKF_GO(e, skf_key_load(s->key, &k, &why));
    if (s->root)
        SKF_GO(e, read_json(s->root, &root, &why));
    for (size_t i = 0; i < s->n_files; i++)
        SKF_GO(e, sign_one(s, s->files[i], root, k, report, &why));
    if (s->json) {
        SKF_GO(e, skf_json_set(all, "signed", skf_json_ref(report)));
        status = skf_cli_print_json(skf_json_ref(all));
    }
out:
    if (e != SKF_OK)
        status = skf_cli_fail(e, &why);
    skf_json_free(report);
    skf_json_free(all);
    skf_json_free(root);
    skf_key_free(k);
    return status;
}

int skf_verb_sign(int argc, char **argv)
{
    struct sign s = {0};
    bool add = false;
    const struct skf_opt opts[] = {
        {.name = "--key", .value = "KEYFILE", .help = "the key to sign with", .text = &s.key},
        {.name = "--root",
         .value = "ROOT.json",
         .help = "root (or delegating targets) that must list the key",
         .text = &s.root},
        {.name = "--role", .value = "ROLE", .help = "the role to sign as, when it is a delegated one", .text = &s.role},
        {.name = "--add", .help = "the signatures there stay (they always do)", .flag = &add},
        {.name = "--json", .help = "one JSON object on stdout", .flag = &s.json},
    };
    const struct skf_usage u = {.verb = "sign",
                                .args = "--key KEYFILE FILE.json... [--root ROOT.json]",
                                .about = "Adds a signature to TUF metadata files, in place.",
                                .opts = opts,
                                .n_opts = SKF_COUNT(opts),
                                .positional = s.files,
                                .min_args = 1,
                                .max_args = FILES_MAX,
                                .n_args = &s.n_files};
    int status;
    if (!is_cli_parsed(&u, argc, argv, &status))
        return status;
    if (!s.key)
        return skf_cli_usage("sign", "--key KEYFILE is missing");
    return run(&s);
}
