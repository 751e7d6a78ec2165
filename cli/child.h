/*
 * A program of ours that stands beside this one, run as a child: what it prints on stdout is read line by line, what it says on stderr
 * is kept (the last line says why it ended) and passed on when that is wanted.
 */
#ifndef SKF_CLI_CHILD_H
#define SKF_CLI_CHILD_H

#include <sys/types.h>

#include "base/err.h"

struct skf_child_line {
    int fd; /* -1 when closed */
    char text[512];
    size_t n;
};
struct skf_child {
    const char *program;
    pid_t pid;  /* 0 while it does not run */
    int pid_fd; /* readable when it has ended; -1 while it does not run */
    struct skf_child_line out, err;
    char said[512];    /* the last whole line on stdout, */
    char last[512];    /* and on stderr */
    bool passes_on;    /* its stderr goes to ours */
};
#define SKF_CHILD(program_) ((struct skf_child){.program = (program_), .pid_fd = -1, .out.fd = -1, .err.fd = -1})

/* argv without the program's name, NULL behind the last. The child gets no signal mask of ours and /dev/null as stdin. */
SKF_MUST enum skf_err skf_child_start(struct skf_child *c, const char *const *args, struct skf_why *why);
/* Takes what it has written; call when out.fd or err.fd is readable. */
void skf_child_read(struct skf_child *c);
/* When pid_fd is readable: the rest of its words, then its wait status. */
int skf_child_reap(struct skf_child *c);
/* SIGTERM, and SIGKILL when it has not ended within `ms`; nothing when it does not run. */
void skf_child_stop(struct skf_child *c, unsigned ms);

#endif
