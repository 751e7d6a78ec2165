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

static void child(const char *path, char *const *argv, int out, pid_t parent)
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
    if (null < 0 || dup2(null, 0) < 0 || dup2(out >= 0 ? out : null, 1) < 0)
        _exit(127);
    (void)syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC);
    (void)execv(path, argv);
    _exit(127);
}

enum skf_err skf_spawn(const char *program, const char *const *args, pid_t *pid, int *out, struct skf_why *why)
{
    char path[4096];
    char *argv[32];
    int fds[2] = {-1, -1};
    *pid = 0;
    SKF_TRY(path_of(program, path, why));
    size_t n = 0;
    argv[n++] = path;
    for (; *args; args++) {
        if (n + 1 >= SKF_COUNT(argv))
            return skf_fail(why, SKF_ERR_INTERNAL, "%s: too many arguments", program);
        argv[n++] = (char *)(uintptr_t)*args;
    }
    argv[n] = NULL;
    if (out && pipe2(fds, O_CLOEXEC) != 0)
        return skf_fail_errno(why, errno, "%s: pipe", program);
    pid_t self = getpid(), p = fork();
    if (p == 0)
        child(path, argv, fds[1], self);
    int sys = errno;
    if (fds[1] >= 0)
        (void)close(fds[1]);
    if (p < 0) {
        if (fds[0] >= 0)
            (void)close(fds[0]);
        return skf_fail_errno(why, sys, "%s: fork", program);
    }
    if (out)
        *out = fds[0];
    *pid = p;
    return SKF_OK;
}
