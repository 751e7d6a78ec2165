/* A plain HTTP client for tests: one request over a socket of its own, the answer whole or piece by piece. */
#ifndef SKF_TESTS_LIB_HTTP_CLIENT_H
#define SKF_TESTS_LIB_HTTP_CLIENT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"

enum { CLIENT_MAX = 1 << 20 };

static double client_slow(void)
{
    const char *s = getenv("SKF_SLOW");
    double v = s ? strtod(s, NULL) : 1;
    return v > 0 ? v : 1;
}

static int client_connect(unsigned port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static void client_send(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t put = send(fd, p, n, MSG_NOSIGNAL);
        if (put <= 0)
            return; /* the server may have answered and closed already */
        p += put;
        n -= (size_t)put;
    }
}

static void client_request(int fd, const char *method, const char *path, const char *headers, const char *body)
{
    char head[2048];
    int n = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: t\r\n%sContent-Length: %zu\r\n\r\n", method, path, headers ? headers : "",
                     body ? strlen(body) : 0);
    assert_true(n > 0 && (size_t)n < sizeof head);
    client_send(fd, head, (size_t)n);
    if (body)
        client_send(fd, body, strlen(body));
}

/* Reads until `until` stands in what came, or the other side closes, or 10 s pass. to is a C string; *len counts what it has. */
static bool is_client_read(int fd, char *to, size_t cap, size_t *len, const char *until)
{
    uint64_t end = skf_now_ns() + (uint64_t)(10e9 * client_slow());
    while (skf_now_ns() < end) {
        if (until && strstr(to, until))
            return true;
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, 100) <= 0)
            continue;
        ssize_t got = recv(fd, to + *len, cap - *len - 1, 0);
        if (got <= 0)
            return !until;
        *len += (size_t)got;
        to[*len] = 0;
    }
    return false;
}

/* One whole exchange; gives the status and leaves everything that came in `answer`. */
static int client_ask(unsigned port, const char *method, const char *path, const char *headers, const char *body, char *answer, size_t cap)
{
    char all[512];
    size_t len = 0;
    int fd = client_connect(port), status = 0;
    snprintf(all, sizeof all, "Connection: close\r\n%s", headers ? headers : "");
    client_request(fd, method, path, all, body);
    answer[0] = 0;
    (void)is_client_read(fd, answer, cap, &len, NULL);
    close(fd);
    (void)sscanf(answer, "HTTP/1.1 %d", &status);
    return status;
}

#endif
