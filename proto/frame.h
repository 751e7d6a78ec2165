/*
 * Frames on a Unix socket or pipe between the processes of one box: u32le length, then that many bytes of packed
 * protobuf.
 */
#ifndef SKF_PROTO_FRAME_H
#define SKF_PROTO_FRAME_H

#include "base/buf.h"

#define SKF_FRAME_MAX (8u << 20)

/*
 * Blocking, whatever the descriptor's mode; timeout_ms 0 for none. SKF_ERR_TIMEOUT when no byte went within timeout_ms:
 * nothing has happened and one may try again. SKF_ERR_NET when the other side is gone or stalls in the middle of a
 * frame; SKF_ERR_LIMIT for a frame over SKF_FRAME_MAX or over out's own limit: close the descriptor after either. `out`
 * is cleared first. On a pipe the caller must ignore SIGPIPE; sockets need nothing.
 */
SKF_MUST enum skf_err skf_frame_read(int fd, unsigned timeout_ms, struct skf_buf *out);
SKF_MUST enum skf_err skf_frame_write(int fd, unsigned timeout_ms, const void *p, size_t n);

/* Unix sockets, close-on-exec, mode 0600. The path's folder must exist; a stale socket nobody listens on is replaced, a
 * live one (or any other file of that name) is SKF_ERR_BUSY. Connecting where nobody listens is SKF_ERR_NET, to no file
 * SKF_ERR_NOT_FOUND. */
SKF_MUST enum skf_err skf_unix_listen(const char *path, int *fd, struct skf_why *why);
SKF_MUST enum skf_err skf_unix_connect(const char *path, int *fd, struct skf_why *why);

#endif
