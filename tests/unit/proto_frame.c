/* Frames over sockets and pipes: whole, cut, late, too long; and the sockets themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/util.h"
#include "proto/frame.h"

struct ends {
    int a, b;
};

static struct ends make_pair(void)
{
    int fd[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    return (struct ends){fd[0], fd[1]};
}

static void *write_frames(void *arg)
{
    const struct ends *e = arg;
    uint8_t *m = skf_alloc(SKF_FRAME_MAX);
    for (uint32_t i = 0; i < 40; i++) {
        size_t n = i == 39 ? SKF_FRAME_MAX : i * 1000;
        memset(m, (int)i, n);
        assert_int_equal(skf_frame_write(e->a, i % 2 ? 20000 : 0, m, n), SKF_OK);
    }
    skf_free(m);
    close(e->a);
    return NULL;
}

static void read_frames(struct ends e)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_FRAME_MAX);
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, write_frames, &e), 0);
    for (uint32_t i = 0; i < 40; i++) {
        assert_int_equal(skf_frame_read(e.b, i % 3 ? 20000 : 0, &b), SKF_OK);
        assert_int_equal(b.len, i == 39 ? SKF_FRAME_MAX : i * 1000);
        for (size_t k = 0; k < b.len; k++)
            if (b.data[k] != i)
                fail_msg("frame %u, byte %zu", i, k);
    }
    assert_int_equal(skf_frame_read(e.b, 0, &b), SKF_ERR_NET);
    assert_int_equal(b.len, 0);
    pthread_join(t, NULL);
    close(e.b);
    skf_buf_free(&b);
}

static void test_socket(void **state)
{
    read_frames(make_pair());
}

static void test_socket_without_blocking(void **state)
{
    struct ends e = make_pair();
    assert_int_equal(fcntl(e.a, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(fcntl(e.b, F_SETFL, O_NONBLOCK), 0);
    read_frames(e);
}

static void test_pipe(void **state)
{
    int fd[2];
    assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
    read_frames((struct ends){fd[1], fd[0]});
}

static void test_cut_and_too_long(void **state)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_FRAME_MAX), small = SKF_BUF_INIT(10);
    struct ends e = make_pair();
    assert_int_equal(write(e.a, "\x05\0\0\0abc", 7), 7);
    close(e.a);
    assert_int_equal(skf_frame_read(e.b, 1000, &b), SKF_ERR_NET); /* ends inside a frame */
    close(e.b);
    e = make_pair();
    assert_int_equal(write(e.a, "\x01\0\x80\0", 4), 4); /* 8 MiB and one byte: refused before anything is allocated */
    assert_int_equal(skf_frame_read(e.b, 1000, &b), SKF_ERR_LIMIT);
    assert_int_equal(write(e.a, "\x0b\0\0\0", 4), 4);
    assert_int_equal(skf_frame_read(e.b, 1000, &small), SKF_ERR_LIMIT); /* the buffer's own limit */
    assert_int_equal(skf_frame_write(e.a, 1000, "", (size_t)SKF_FRAME_MAX + 1), SKF_ERR_LIMIT);
    close(e.b);
    assert_int_equal(skf_frame_write(e.a, 1000, "abc", 3), SKF_ERR_NET); /* and no SIGPIPE */
    close(e.a);
    skf_buf_free(&b);
}

static void *dribble(void *arg)
{
    const struct ends *e = arg;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(write(e->a, &"\x04\0\0\0wxyz"[i], 1), 1);
        skf_sleep_ms(20);
    }
    return NULL;
}

static void test_late(void **state)
{
    struct skf_buf b = SKF_BUF_INIT(SKF_FRAME_MAX);
    struct ends e = make_pair();
    uint64_t begun = skf_now_ns();
    assert_int_equal(skf_frame_read(e.b, 50, &b), SKF_ERR_TIMEOUT);
    assert_true(skf_now_ns() - begun >= 49000000u);
    /* A frame that has begun may take longer than the wait for its first byte. */
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, dribble, &e), 0);
    assert_int_equal(skf_frame_read(e.b, 60, &b), SKF_OK);
    assert_int_equal(b.len, 4);
    assert_memory_equal(b.data, "wxyz", 4);
    pthread_join(t, NULL);
    /* A reader that does not read: nothing went, so it may be tried again. */
    uint8_t block[4096] = {0};
    while (send(e.a, block, sizeof block, MSG_DONTWAIT) > 0)
        continue;
    assert_int_equal(skf_frame_write(e.a, 50, "abc", 3), SKF_ERR_TIMEOUT);
    close(e.a);
    close(e.b);
    skf_buf_free(&b);
}

static void path_of(char *out, size_t cap, const char *name)
{
    const char *tmp = getenv("SKF_TMP");
    assert_int_equal(skf_path(out, cap, tmp ? tmp : "/tmp", name), SKF_OK);
}

static void test_listen_and_connect(void **state)
{
    char path[256];
    struct skf_why why = {{0}};
    int first, second, client;
    path_of(path, sizeof path, "skiff-frame-test.sock");
    (void)unlink(path);
    assert_int_equal(skf_unix_connect(path, &client, &why), SKF_ERR_NOT_FOUND);
    assert_int_equal(client, -1);
    assert_int_equal(skf_unix_listen(path, &first, &why), SKF_OK);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(fcntl(first, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(skf_unix_connect(path, &client, &why), SKF_OK);
    assert_true(fcntl(client, F_GETFD) & FD_CLOEXEC);
    int server = accept(first, NULL, NULL);
    assert_true(server >= 0);
    assert_int_equal(skf_frame_write(client, 1000, "hello", 5), SKF_OK);
    struct skf_buf b = SKF_BUF_INIT(100);
    assert_int_equal(skf_frame_read(server, 1000, &b), SKF_OK);
    assert_int_equal(b.len, 5);
    skf_buf_free(&b);
    close(server);
    close(client);
    assert_int_equal(skf_unix_listen(path, &second, &why), SKF_ERR_BUSY); /* somebody listens */
    assert_non_null(strstr(why.text, path));
    close(first); /* as if it had been killed: the file stays */
    assert_int_equal(skf_unix_connect(path, &client, &why), SKF_ERR_NET);
    assert_int_equal(skf_unix_listen(path, &second, &why), SKF_OK);
    close(second);
    (void)unlink(path);
}

static void test_bad_paths(void **state)
{
    char path[256], longer[300];
    struct skf_why why = {{0}};
    int fd;
    path_of(path, sizeof path, "skiff-frame-test.file");
    int file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(file >= 0);
    close(file);
    assert_int_equal(skf_unix_listen(path, &fd, &why), SKF_ERR_BUSY); /* not ours to remove */
    assert_int_equal(access(path, F_OK), 0);
    (void)unlink(path);
    memset(longer, 'a', sizeof longer - 1);
    longer[0] = '/';
    longer[sizeof longer - 1] = 0;
    assert_int_equal(skf_unix_listen(longer, &fd, &why), SKF_ERR_ARG);
    assert_int_equal(skf_unix_connect("", &fd, &why), SKF_ERR_ARG);
    assert_int_equal(skf_unix_listen("/nowhere/at/all.sock", &fd, &why), SKF_ERR_NOT_FOUND);
}

int main(void)
{
    (void)signal(SIGPIPE, SIG_DFL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_socket),    cmocka_unit_test(test_socket_without_blocking),
        cmocka_unit_test(test_pipe),      cmocka_unit_test(test_cut_and_too_long),
        cmocka_unit_test(test_late),      cmocka_unit_test(test_listen_and_connect),
        cmocka_unit_test(test_bad_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
