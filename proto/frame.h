/*
 * Frames on a Unix socket or pipe between the processes of one box: u32le length, then that many bytes of packed protobuf.
 */
#ifndef SKF_PROTO_FRAME_H
#define SKF_PROTO_FRAME_H

#include "base/buf.h"

#define SKF_FRAME_MAX (8u << 20)

/* Blocking; timeout_ms 0 for none. SKF_ERR_NET when the other side is gone, SKF_ERR_TIMEOUT, SKF_ERR_LIMIT. `out` is cleared first. */
SKF_MUST enum skf_err skf_frame_read(int fd, unsigned timeout_ms, struct skf_buf *out);
SKF_MUST enum skf_err skf_frame_write(int fd, unsigned timeout_ms, const void *p, size_t n);

/* Unix sockets. The path's folder must exist; a stale socket nobody listens on is replaced, a live one is SKF_ERR_BUSY. */
SKF_MUST enum skf_err skf_unix_listen(const char *path, int *fd, struct skf_why *why);
SKF_MUST enum skf_err skf_unix_connect(const char *path, int *fd, struct skf_why *why);

#endif
