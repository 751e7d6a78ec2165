/*
 * Starting the box's other programs.  gRPC's threads run by then, so that a child may do nothing between fork and exec but plain
 * system calls, and must not keep our descriptors.
 */
#include "agent/agent_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.h"

/* The programs stand in one folder. */
static enum skf_err path_of(const char *program, char path[4096], struct skf_why *why)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return skf_fail_errno(why, errno, "/proc/self/exe");
    self[n] = 0;
    char *slash = strrchr(self, '/');
    if (!slash)
        return skf_fail(why, SKF_ERR_INTERNAL, "%s: no absolute path", self);
    *slash = 0;
    SKF_TRY(skf_path(path, 4096, self, program));
    if (access(path, X_OK) != 0)
        return skf_fail_errno(why, errno, "%s", path);
    return SKF_OK;
}

static void child(const char *path, char *const *argv, int out, int err, pid_t parent)
{
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    /* Of the thread that forked, which is the agent's first and lives as long as it does. */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, 0) < 0 || dup2(out >= 0 ? out : null, 1) < 0 || dup2(err, 2) < 0)
        _exit(127);
    (void)syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC);
    (void)execv(path, argv);
    _exit(127);
}

/* ---- what a child says ------------------------------------------------------------------------------------------------- */

/* "skiff-worker: model: why" is an error; a line of the log begins with a date. */
static void take_line(struct skf_tap *t)
{
    t->line[t->len] = 0;
    if (strncmp(t->line, "skiff-", 6) == 0)
        (void)snprintf(t->error, sizeof t->error, "%.255s", t->line);
    t->len = 0;
}

void skf_tap_pump(struct skf_tap *t)
{
    char b[4096];
    ssize_t n;
    while (t->fd >= 0 && (n = read(t->fd, b, sizeof b)) > 0) {
        ssize_t put = t->is_quiet ? n : write(STDERR_FILENO, b, (size_t)n); /* a log that is full is no reason to stop */
        (void)put;
        for (ssize_t i = 0; i < n; i++) {
            if (b[i] == '\n')
                take_line(t);
            else if (t->len + 1 < sizeof t->line)
                t->line[t->len++] = b[i];
        }
    }
}

void skf_tap_close(struct skf_tap *t)
{
    skf_tap_pump(t);
    if (t->fd >= 0)
        (void)close(t->fd);
    t->fd = -1;
}

/* ---- starting ------------------------------------------------------------------------------------------------------------ */

static void close_pair(int fds[2])
{
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
}

enum skf_err skf_spawn(const char *program, const char *const *args, pid_t *pid, int *out, struct skf_tap *tap,
                       struct skf_why *why)
{
    char path[4096];
    char *argv[32];
    int outs[2] = {-1, -1}, errs[2] = {-1, -1};
    *pid = 0;
    tap->error[0] = 0;
    tap->len = 0;
    SKF_TRY(path_of(program, path, why));
    size_t n = 0;
    argv[n++] = path;
    for (; *args; args++) {
        if (n + 1 >= SKF_COUNT(argv))
            return skf_fail(why, SKF_ERR_INTERNAL, "%s: too many arguments", program);
        argv[n++] = (char *)(uintptr_t)*args;
    }
    argv[n] = NULL;
    if ((out && pipe2(outs, O_CLOEXEC) != 0) || pipe2(errs, O_CLOEXEC) != 0) {
        int sys = errno;
        close_pair(outs);
        return skf_fail_errno(why, sys, "%s: pipe", program);
    }
    pid_t self = getpid(), p = fork();
    if (p == 0)
        child(path, argv, outs[1], errs[1], self);
    if (p < 0) {
        int sys = errno;
        close_pair(outs);
        close_pair(errs);
        return skf_fail_errno(why, sys, "%s: fork", program);
    }
    if (out) {
        (void)close(outs[1]);
        (void)fcntl(outs[0], F_SETFL, O_NONBLOCK);
        *out = outs[0];
    }
    (void)close(errs[1]);
    (void)fcntl(errs[0], F_SETFL, O_NONBLOCK);
    tap->fd = errs[0];
    *pid = p;
    return SKF_OK;
}
