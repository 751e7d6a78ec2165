/* The options of `skiff tuf`, shared by its client side (tuf_client.c) and its repository side (tuf_repo.c). */
#ifndef SKF_CLI_TUF_PRIV_H
#define SKF_CLI_TUF_PRIV_H

#include "cli/cli.h"

#define SKF_TUF_OPT_KEYS 16

struct skf_tuf_list {
    const char *path[SKF_TUF_OPT_KEYS];
    size_t n;
};
struct skf_tuf_opts {
    /* client */
    const char *metadata_dir, *repo, *target_dir, *target_base;
    struct skf_tuf_list names;
    /* repository */
    const char *dir, *keys, *file;
    struct skf_tuf_list root, targets, snapshot, timestamp, deltas;
    uint64_t root_threshold, targets_threshold;
    bool json;
    const char *args[2];
    size_t n_args;
};

int skf_tuf_usage_error(const char *what);
/* Each is one subcommand and gives the exit status. */
int skf_tuf_cmd_client_init(const struct skf_tuf_opts *o);
int skf_tuf_cmd_refresh(const struct skf_tuf_opts *o);
int skf_tuf_cmd_download(const struct skf_tuf_opts *o);
int skf_tuf_cmd_init(const struct skf_tuf_opts *o);
int skf_tuf_cmd_rotate(const struct skf_tuf_opts *o);
int skf_tuf_cmd_create(const struct skf_tuf_opts *o);
int skf_tuf_cmd_add(const struct skf_tuf_opts *o);
int skf_tuf_cmd_update(const struct skf_tuf_opts *o);
int skf_tuf_cmd_show(const struct skf_tuf_opts *o);

#endif
