/*
 * Connections that wait for a request, so that they cannot keep others out: when nearly all places are taken, who has waited longest
 * is closed for each that comes.  A connection waits from its beginning, and from the end of an answer, until all of the next request
 * is here: half a head or half a body, however often a byte of it comes, is waiting too.  One whose request is being answered is
 * never closed for another, and a few that wait always may, so that one that has just come has the time to ask.
 *
 * All on the thread of the daemon whose connections they are, hence no lock.
 */
#include <sys/socket.h>

#include "base/alloc.h"
#include "http/http_priv.h"

struct http_conn {
    struct http_conn *older, *newer;
    int fd;
    bool is_waiting, is_dropped;
};

static void stop_waiting(struct http_door *d, struct http_conn *c)
{
    if (!c->is_waiting)
        return;
    *(c->older ? &c->older->newer : &d->oldest) = c->newer;
    *(c->newer ? &c->newer->older : &d->newest) = c->older;
    c->older = c->newer = NULL;
    c->is_waiting = false;
    d->n_waiting--;
}

static void start_waiting(struct http_door *d, struct http_conn *c)
{
    if (c->is_waiting || c->is_dropped)
        return;
    c->older = d->newest;
    *(d->newest ? &d->newest->newer : &d->oldest) = c;
    d->newest = c;
    c->is_waiting = true;
    d->n_waiting++;
}

/* The daemon sees the end of the connection in its next round, and closes it. */
static void drop_oldest(struct http_door *d)
{
    struct http_conn *c = d->oldest;
    if (d->n_waiting <= d->max / 32 || !c)
        return;
    stop_waiting(d, c);
    c->is_dropped = true;
    (void)shutdown(c->fd, SHUT_RDWR);
}

void skf_http_on_connection(void *door, struct MHD_Connection *conn, void **socket_context, enum MHD_ConnectionNotificationCode what)
{
    struct http_door *d = door;
    struct http_conn *c = *socket_context;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        d->n_open--;
        if (c)
            stop_waiting(d, c);
        skf_free(c);
        *socket_context = NULL;
        return;
    }
    if (++d->n_open > d->max - d->max / 16)
        drop_oldest(d);
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    c = info ? skf_calloc(1, sizeof *c) : NULL;
    *socket_context = c; /* without one it is served, and left to the time limit */
    if (!c)
        return;
    c->fd = info->connect_fd;
    start_waiting(d, c);
}

void skf_http_wait(struct http_door *d, struct MHD_Connection *conn, bool is_waiting)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct http_conn *c = info ? info->socket_context : NULL;
    if (c && is_waiting)
        start_waiting(d, c);
    else if (c)
        stop_waiting(d, c);
}
