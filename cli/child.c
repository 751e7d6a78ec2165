/* Children of `skiff serve`. See cli/child.h. */
#include "cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/start.h"

enum { ARGS_MAX = 32 };

extern char **environ;

/* Runs it with the two pipes as stdout and stderr. */
static int spawn(const char *path, char *const *argv, int out, int err, pid_t *pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none;
    sigemptyset(&none);
    int bad = posix_spawn_file_actions_init(&files);
    if (bad)
        return bad;
    bad = posix_spawnattr_init(&attr);
    if (bad) {
        posix_spawn_file_actions_destroy(&files);
        return bad;
    }
    bad = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    if (!bad)
        bad = posix_spawn_file_actions_adddup2(&files, out, 1);
    if (!bad)
        bad = posix_spawn_file_actions_adddup2(&files, err, 2);
    if (!bad)
        bad = posix_spawnattr_setsigmask(&attr, &none);
    if (!bad)
        bad = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    if (!bad)
        bad = posix_spawn(pid, path, &files, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return bad;
}

static void close_end(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

enum skf_err skf_child_start(struct skf_child *c, const char *const *args, struct skf_why *why)
{
    char path[PATH_MAX], *argv[ARGS_MAX];
    int out[2] = {-1, -1}, err[2] = {-1, -1};
    size_t n = 0;
    SKF_TRY(skf_cli_beside(c->program, path, why));
    for (argv[n++] = path; *args && n + 1 < ARGS_MAX; args++)
        argv[n++] = (char *)(uintptr_t)*args;
    argv[n] = NULL;
    int bad = pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) ? errno : spawn(path, argv, out[1], err[1], &c->pid);
    close_end(&out[1]);
    close_end(&err[1]);
    c->out = (struct skf_child_line){.fd = out[0]};
    c->err = (struct skf_child_line){.fd = err[0]};
    c->said[0] = c->last[0] = 0;
    if (!bad) {
        c->pid_fd = pidfd_open(c->pid, 0);
        bad = c->pid_fd < 0 ? errno : 0;
        if (!bad && (fcntl(out[0], F_SETFL, O_NONBLOCK) || fcntl(err[0], F_SETFL, O_NONBLOCK)))
            bad = errno;
        if (bad) {
            (void)kill(c->pid, SIGKILL);
            (void)waitpid(c->pid, NULL, 0);
        }
    }
    if (!bad)
        return SKF_OK;
    close_end(&c->out.fd);
    close_end(&c->err.fd);
    close_end(&c->pid_fd);
    c->pid = 0;
    return skf_fail_errno(why, bad, "%s", path);
}

/* Whole lines go to `last`; one longer than the buffer counts as several. */
static void take_lines(struct skf_child_line *l, char *last, bool passes_on)
{
    char c;
    for (ssize_t got; l->fd >= 0 && (got = read(l->fd, &c, 1)) != -1;) {
        if (got == 0) {
            close_end(&l->fd);
            c = '\n';
        }
        if (c != '\n' && l->n + 1 < sizeof l->text) {
            l->text[l->n++] = c;
            continue;
        }
        l->text[l->n] = 0;
        if (l->n) {
            memcpy(last, l->text, l->n + 1);
            if (passes_on)
                (void)fprintf(stderr, "%s\n", l->text);
        }
        l->n = 0;
    }
}

void skf_child_read(struct skf_child *c)
{
    take_lines(&c->out, c->said, false);
    take_lines(&c->err, c->last, c->passes_on);
}

int skf_child_reap(struct skf_child *c)
{
    int status = 0;
    skf_child_read(c);
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
        ;
    close_end(&c->pid_fd);
    close_end(&c->out.fd);
    close_end(&c->err.fd);
    c->pid = 0;
    return status;
}

void skf_child_stop(struct skf_child *c, unsigned ms)
{
    if (!c->pid)
        return;
    struct pollfd p = {c->pid_fd, POLLIN, 0};
    (void)kill(c->pid, SIGTERM);
    if (poll(&p, 1, (int)ms) <= 0)
        (void)kill(c->pid, SIGKILL);
    (void)skf_child_reap(c);
}
