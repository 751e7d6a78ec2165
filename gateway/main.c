/*
 * skiff-gateway: the box's HTTP port.  Started and told about workers by the agent or by `skiff serve`; prints the address it listens
 * on, and ends on SIGTERM or SIGINT, or with its parent when that is asked for.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/util.h"
#include "gateway/gateway.h"

static const char help[] =
    "usage: skiff-gateway --listen HOST:PORT --control SOCKET [--max-requests N] [--wait SECONDS] [--parent-death]\n"
    "\n"
    "Serves the OpenAI API on HOST:PORT (port 0 for any free one) from the workers that it is told of over the control socket.\n"
    "Prints `listening HOST:PORT` when it is ready.\n"
    "\n"
    "  --listen HOST:PORT  where to serve HTTP\n"
    "  --unix PATH         serve it on a Unix socket too, for this user and group\n"
    "  --tls-cert FILE     with --tls-key FILE: TLS on HOST:PORT, with this certificate (PEM, followed by what leads to its CA) and key\n"
    "  --control SOCKET    path of the Unix socket that routes are set through\n"
    "  --max-requests N    requests under way at once, more get status 429 (128)\n"
    "  --wait SECONDS      how long a request waits for a worker to appear (10)\n"
    "  --parent-death      end when the process that started this one ends\n"
    "  --help, --version\n";

static int usage(const char *what)
{
    fprintf(stderr, "skiff-gateway: %s (--help says more)\n", what);
    return 2;
}

static bool is_number(const char *s, unsigned low, unsigned high, unsigned *out)
{
    char *end;
    errno = 0;
    unsigned long v = strtoul(s, &end, 10);
    if (errno || *end || end == s || *s == '-' || v < low || v > high)
        return false;
    *out = (unsigned)v;
    return true;
}

/* A client is a descriptor, and the usual limit is below what the server would take. */
static void raise_descriptor_limit(void)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < 4096) {
        l.rlim_cur = l.rlim_max < 4096 ? l.rlim_max : 4096;
        (void)setrlimit(RLIMIT_NOFILE, &l);
    }
}

/* Waits for a signal to end, or for the parent's end when parent_fd >= 0. */
static void wait_for_end(int signal_fd, int parent_fd)
{
    struct pollfd fds[2] = {{signal_fd, POLLIN, 0}, {parent_fd, POLLIN, 0}};
    while (poll(fds, 2, -1) < 0 && errno == EINTR)
        ;
}

static int run(const struct skf_gw_opts *o, bool parent_death)
{
    struct skf_gw *g = NULL;
    struct skf_why why = {{0}};
    sigset_t set;
    int parent_fd = -1;
    pid_t parent = getppid();
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* before any thread, so that all of them inherit it */
    int signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    if (parent_death && parent > 0)
        parent_fd = pidfd_open(parent, 0);
    if (signal_fd < 0 || (parent_death && (parent_fd < 0 || getppid() != parent))) {
        fprintf(stderr, "skiff-gateway: cannot watch for the end: %s\n", parent_death && getppid() != parent ? "the parent is gone" : strerror(errno));
        return 1;
    }
    raise_descriptor_limit();
    skf_log_open("skiff-gateway", SKF_LOG_INFO);
    if (skf_gw_open(o, &g, &why) != SKF_OK) {
        fprintf(stderr, "skiff-gateway: %s\n", why.text);
        return 1;
    }
    const char *colon = strrchr(o->listen, ':');
    printf("listening %.*s:%u\n", (int)(colon - o->listen), o->listen, skf_gw_port(g));
    fflush(stdout);
    wait_for_end(signal_fd, parent_fd);
    skf_gw_close(g);
    return 0;
}

int main(int argc, char **argv)
{
    struct skf_gw_opts o = {0};
    unsigned seconds = 0;
    bool parent_death = false;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(a, "--help") == 0 || strcmp(a, "--version") == 0)
            return fputs(a[2] == 'h' ? help : "skiff-gateway " SKF_VERSION "\n", stdout) < 0;
        if (strcmp(a, "--parent-death") == 0) {
            parent_death = true;
            continue;
        }
        bool ok = v != NULL;
        if (strcmp(a, "--listen") == 0)
            o.listen = v;
        else if (strcmp(a, "--unix") == 0)
            o.unix_path = v;
        else if (strcmp(a, "--tls-cert") == 0)
            o.cert = v;
        else if (strcmp(a, "--tls-key") == 0)
            o.key = v;
        else if (strcmp(a, "--control") == 0)
            o.control = v;
        else if (strcmp(a, "--max-requests") == 0)
            ok = ok && is_number(v, 1, 4096, &o.max_requests);
        else if (strcmp(a, "--wait") == 0)
            ok = ok && is_number(v, 1, 3600, &seconds);
        else
            return usage("unknown option");
        if (!ok)
            return usage("an option lacks its value, or has one that cannot be");
        i++;
    }
    if (!o.listen || !o.control)
        return usage("--listen and --control are needed");
    o.wait_ms = seconds * 1000;
    return run(&o, parent_death);
}
