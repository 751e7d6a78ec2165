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
    "usage: skiff-gateway --listen HOST:PORT --control SOCKET [--max-requests N] [--wait SECONDS] [--keys FILE] [--parent-death]\n"
    "       skiff-gateway --make-key NAME\n"
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
    "  --keys FILE         who may ask and how much, a line each (skiff-gateway(1)); read anew on SIGHUP (whoever reaches the port)\n"
    "  --make-key NAME     print a new key and its line for that file\n"
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

static void reload(struct skf_gw *g)
{
    struct skf_why why = {{0}};
    if (skf_gw_reload_keys(g, &why) != SKF_OK)
        skf_log(SKF_LOG_ERROR, "the keys stay as they were: %s", why.text);
}

/* Waits for a signal to end, or for the parent's end when parent_fd >= 0; SIGHUP reads the keys anew. */
static void wait_for_end(struct skf_gw *g, int signal_fd, int parent_fd)
{
    struct pollfd fds[2] = {{signal_fd, POLLIN, 0}, {parent_fd, POLLIN, 0}};
    struct signalfd_siginfo si = {.ssi_signo = SIGHUP};
    while (si.ssi_signo == SIGHUP) {
        if (poll(fds, 2, -1) < 0)
            continue;
        if (fds[1].revents || read(signal_fd, &si, sizeof si) != (ssize_t)sizeof si)
            return;
        if (si.ssi_signo == SIGHUP)
            reload(g);
    }
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
    if (o->keys)
        sigaddset(&set, SIGHUP);
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
    wait_for_end(g, signal_fd, parent_fd);
    skf_gw_close(g);
    return 0;
}

static int make_key(const char *name)
{
    struct skf_why why = {{0}};
    if (skf_gw_print_key(name, &why) == SKF_OK)
        return 0;
    fprintf(stderr, "skiff-gateway: %s\n", why.text);
    return 1;
}

/* Where the option's text goes; NULL for one that takes none. */
static const char **text_of(struct skf_gw_opts *o, const char *name)
{
    const struct {
        const char *name, **to;
    } texts[] = {{"--listen", &o->listen}, {"--unix", &o->unix_path}, {"--tls-cert", &o->cert}, {"--tls-key", &o->key}, {"--control", &o->control}, {"--keys", &o->keys}};
    for (size_t i = 0; i < SKF_COUNT(texts); i++)
        if (strcmp(name, texts[i].name) == 0)
            return texts[i].to;
    return NULL;
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
        const char **text = text_of(&o, a);
        bool ok = v != NULL;
        if (text)
            *text = v;
        else if (strcmp(a, "--make-key") == 0 && v)
            return make_key(v);
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
