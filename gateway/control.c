/*
 * The control socket: the agent (or `skiff serve`) says which worker gets what and asks how things are.  One thread, a few connections,
 * one frame at a time; the socket is the owner's alone, so a peer that stalls in the middle of a frame holds up itself and its kin.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/util.h"
#include "gateway/gateway_priv.h"
#include "proto/frame.h"
#include "proto/msg.h"

enum { PEERS_MAX = 8, PEER_MS = 2000, WAIT_MOST_MS = 600000 };

static enum skf_err set_routes(struct skf_gw *g, const Skiff__V1__SetRoutes *set, struct skf_why *why)
{
    struct skf_gw_route routes[GW_LINKS];
    struct skf_gw_alias aliases[SKF_GW_ALIASES];
    if (set->n_routes > GW_LINKS)
        return skf_fail(why, SKF_ERR_LIMIT, "more than %d routes", GW_LINKS);
    for (size_t i = 0; i < set->n_routes; i++)
        routes[i] = (struct skf_gw_route){set->routes[i]->model, set->routes[i]->version, set->routes[i]->socket, set->routes[i]->is_held,
                                          set->routes[i]->is_asleep, SKF_MIN(set->routes[i]->shadow_permille, 1000u)};
    if (set->n_aliases > SKF_GW_ALIASES)
        return skf_fail(why, SKF_ERR_LIMIT, "more than %d aliases", SKF_GW_ALIASES);
    for (size_t i = 0; i < set->n_aliases; i++)
        aliases[i] = (struct skf_gw_alias){set->aliases[i]->name, set->aliases[i]->model};
    SKF_TRY(skf_gw_set_names(g, aliases, set->n_aliases, SKF_MIN(set->wait_ms, WAIT_MOST_MS), why));
    return skf_gw_set_routes(g, routes, set->n_routes, why);
}

/* One question and its answer. An error means that the peer is to be hung up on. */
static enum skf_err serve(struct skf_gw *g, int fd, struct skf_buf *b)
{
    Skiff__V1__ToGateway *m = NULL;
    struct skf_why why = {{0}};
    uint8_t *p = NULL;
    size_t n = 0;
    SKF_TRY(skf_frame_read(fd, PEER_MS, b));
    SKF_TRY(SKF_UNPACK(skiff__v1__to_gateway, Skiff__V1__ToGateway, b->data, b->len, SKF_FRAME_MAX, &m, &why));
    enum skf_err e = SKF_OK;
    if (m->kind_case == SKIFF__V1__TO_GATEWAY__KIND_SET_ROUTES)
        e = set_routes(g, m->set_routes, &why);
    else if (m->kind_case != SKIFF__V1__TO_GATEWAY__KIND_GET_STATUS)
        e = skf_fail(&why, SKF_ERR_UNSUPPORTED, "unknown question");
    if (e != SKF_OK)
        skf_log(SKF_LOG_WARN, "routes not set: %s", why.text);
    e = skf_gw_status_pack(g, m->id, e == SKF_OK ? "" : why.text[0] ? why.text : skf_err_name(e), &p, &n);
    if (e == SKF_OK)
        e = skf_frame_write(fd, PEER_MS, p, n);
    skf_free(p);
    skf_msg_free(&m->base);
    return e;
}

static void *control_loop(void *ctx)
{
    struct skf_gw *g = ctx;
    struct pollfd fds[2 + PEERS_MAX] = {{g->control_stop[0], POLLIN, 0}, {g->control_fd, POLLIN, 0}};
    nfds_t n = 2;
    struct skf_buf b = SKF_BUF_INIT(SKF_FRAME_MAX);
    while (poll(fds, n, -1) >= 0 || errno == EINTR) {
        if (fds[0].revents)
            break;
        for (nfds_t i = n; i-- > 2;) {
            if (!fds[i].revents)
                continue;
            fds[i].revents = 0;
            if (serve(g, fds[i].fd, &b) != SKF_OK) {
                close(fds[i].fd);
                fds[i] = fds[--n];
            }
        }
        if (fds[1].revents) {
            fds[1].revents = 0;
            int fd = accept4(g->control_fd, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0 && n == SKF_COUNT(fds)) {
                skf_log(SKF_LOG_WARN, "control socket: more than %d connections", PEERS_MAX);
                close(fd);
            } else if (fd >= 0) {
                fds[n++] = (struct pollfd){fd, POLLIN, 0};
            }
        }
    }
    while (n > 2)
        close(fds[--n].fd);
    skf_buf_free(&b);
    return NULL;
}

enum skf_err skf_gw_control_open(struct skf_gw *g, const char *path, struct skf_why *why)
{
    if (strlen(path) >= sizeof g->control_path)
        return skf_fail(why, SKF_ERR_ARG, "%s: too long for a socket's path", path);
    if (pipe2(g->control_stop, O_CLOEXEC))
        return skf_fail_errno(why, errno, "cannot make a pipe");
    SKF_TRY(skf_unix_listen(path, &g->control_fd, why));
    snprintf(g->control_path, sizeof g->control_path, "%s", path);
    int bad = pthread_create(&g->controller, NULL, control_loop, g);
    if (bad)
        return skf_fail_errno(why, bad, "cannot start a thread");
    g->has_controller = true;
    return SKF_OK;
}

void skf_gw_control_close(struct skf_gw *g)
{
    if (g->has_controller) {
        while (write(g->control_stop[1], "x", 1) < 0 && errno == EINTR)
            ;
        pthread_join(g->controller, NULL);
        g->has_controller = false;
    }
    int *fds[] = {&g->control_stop[0], &g->control_stop[1], &g->control_fd};
    for (size_t i = 0; i < SKF_COUNT(fds); i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
    if (g->control_path[0])
        (void)unlink(g->control_path);
    g->control_path[0] = 0;
}
