/* Lines on real pseudo-terminals and sockets: peers that come, go, write and leave, read slowly; paths in the way. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include <outboard/char.h>
#include "fake_device.h"

#define WAIT_MS 5000 /* for an event that must come */

/* A device that keeps what it reads. */
struct tester {
    struct ob_char *line;
    unsigned comings, goings, writables;
    size_t n;
    uint8_t input[1 << 20];
};

static void tester_readable(void *ctx)
{
    struct tester *t = ob_scratch(ctx);
    int n = ob_char_read(t->line, t->input + t->n, sizeof(t->input) - t->n);

    if (n > 0)
        t->n += (size_t)n;
}

static void tester_writable(void *ctx)
{
    struct tester *t = ob_scratch(ctx);

    t->writables++;
}

static void tester_presence(void *ctx, bool present)
{
    struct tester *t = ob_scratch(ctx);

    assert_int_equal(ob_char_present(t->line), present);
    if (present)
        t->comings++;
    else
        t->goings++;
}

static const struct ob_char_ops tester_ops = { tester_readable, tester_writable, tester_presence };

static int tester_open(struct ob_dev *dev, enum ob_origin origin)
{
    struct tester *t = ob_scratch(dev);
    int err = ob_char_open(dev, &tester_ops, dev, &t->line);

    if (err == 0)
        ob_char_want(t->line, true, false);
    return err;
}

static void tester_close(struct ob_dev *dev)
{
    struct tester *t = ob_scratch(dev);

    ob_char_close(t->line);
}

static const struct ob_option tester_options[] = { OB_CHAR_OPTIONS, OB_OPTION_END };

OB_DEVICE(tester, .options = tester_options, .scratch_size = sizeof(struct tester),
          .ops = { .open = tester_open, .close = tester_close })

static char folder[] = "/tmp/test_char.XXXXXX";

static struct ob_dev *start(const char *format, ...)
{
    char options[1024];
    va_list args;
    int err;

    va_start(args, format);
    vsnprintf(options, sizeof(options), format, args);
    va_end(args);
    struct ob_dev *dev = fake_new(&ob_class_tester, options, &err);

    if (!dev)
        errno = -err;
    return dev;
}

static struct tester *of(struct ob_dev *dev)
{
    return ob_scratch(dev);
}

/* Handles events until *what is `want`; none may be missing. */
static void await(struct ob_dev *dev, const unsigned *what, unsigned want)
{
    while (*what != want)
        assert_true(fake_poll(dev, WAIT_MS) > 0);
}

static void await_input(struct ob_dev *dev, size_t n)
{
    while (of(dev)->n < n)
        assert_true(fake_poll(dev, WAIT_MS) > 0);
    assert_int_equal(of(dev)->n, n);
}

/* Nothing to do: a level that is reported for ever would show as events without end. */
static void assert_idle(struct ob_dev *dev)
{
    for (int i = 0; i < 8 && fake_poll(dev, 0) > 0; i++)
        ;
    assert_int_equal(fake_poll(dev, 20), 0);
}

static void pattern(uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i * 131 + (i >> 8) * 7);
}

static void read_all(int fd, uint8_t *bytes, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = read(fd, bytes + done, n - done);

        assert_true(got > 0);
        done += (size_t)got;
    }
}

static int dial(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(strlen(path) < sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

static void path_of(char *path, const char *name)
{
    sprintf(path, "%s/%s", folder, name);
}

static void test_pty_peers(void **state)
{
    char link[64], slave[64] = "";
    uint8_t bytes[256], back[256];

    path_of(link, "tty");
    struct ob_dev *dev = start("path=%s", link);

    assert_non_null(dev);
    assert_true(readlink(link, slave, sizeof(slave) - 1) > 0);
    assert_false(ob_char_present(of(dev)->line));
    assert_int_equal(ob_char_write(of(dev)->line, "lost", 4), 4);
    assert_idle(dev);
    for (unsigned round = 1; round <= 3; round++) {
        int fd = open(link, O_RDWR | O_NOCTTY | O_CLOEXEC);

        assert_true(fd >= 0);
        await(dev, &of(dev)->comings, round);
        pattern(bytes, sizeof(bytes));
        for (unsigned i = 0; i < 256; i++)
            bytes[i] = (uint8_t)i;
        assert_int_equal(ob_char_write(of(dev)->line, bytes, sizeof(bytes)), sizeof(bytes));
        read_all(fd, back, sizeof(back));
        assert_memory_equal(back, bytes, sizeof(bytes));
        of(dev)->n = 0;
        assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
        await_input(dev, sizeof(bytes));
        assert_memory_equal(of(dev)->input, bytes, sizeof(bytes));
        assert_idle(dev);
        close(fd);
        await(dev, &of(dev)->goings, round);
        assert_idle(dev);
    }
    fake_free(dev);
    assert_int_equal(access(link, F_OK), -1);
}

/* Who opened, wrote and left before anybody looked was there all the same. */
static void test_pty_in_passing(void **state)
{
    char link[64];

    path_of(link, "tty");
    struct ob_dev *dev = start("path=%s", link);

    for (unsigned round = 1; round <= 2; round++) {
        int fd = open(link, O_WRONLY | O_NOCTTY | O_CLOEXEC);

        assert_int_equal(write(fd, "passing", 7), 7);
        close(fd);
        of(dev)->n = 0;
        await(dev, &of(dev)->goings, round);
        assert_int_equal(of(dev)->comings, round);
        assert_int_equal(of(dev)->n, 7);
        assert_memory_equal(of(dev)->input, "passing", 7);
        assert_idle(dev);
    }
    fake_free(dev);
}

/* A hang-up while its last bytes are not wanted keeps still, drops what is written, and ends when they are read. */
static void leave_unread(struct ob_dev *dev, int fd)
{
    struct tester *t = of(dev);

    await(dev, &t->comings, 1);
    ob_char_want(t->line, false, false);
    assert_int_equal(write(fd, "last", 4), 4);
    assert_idle(dev);
    close(fd);
    assert_idle(dev);
    assert_true(ob_char_present(t->line));
    assert_int_equal(ob_char_write(t->line, "gone", 4), 4);
    ob_char_want(t->line, false, true);
    assert_idle(dev);
    assert_int_equal(t->n, 0);
    ob_char_want(t->line, true, false);
    await(dev, &t->goings, 1);
    assert_int_equal(t->n, 4);
    assert_false(ob_char_present(t->line));
    assert_idle(dev);
    fake_free(dev);
}

static void test_unread(void **state)
{
    char path[64];

    path_of(path, "tty");
    struct ob_dev *dev = start("path=%s", path);

    leave_unread(dev, open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC));
    path_of(path, "socket");
    dev = start("backend=unix,path=%s", path);
    leave_unread(dev, dial(path));
}

/* A peer that does not read: the line says so, and says when it goes on. Nothing is lost. */
static void fill_and_drain(struct ob_dev *dev, int fd)
{
    struct tester *t = of(dev);
    static uint8_t out[1 << 20], in[1 << 20];
    size_t sent = 0, got = 0;
    unsigned stalls = 0;
    int n;

    await(dev, &t->comings, 1);
    pattern(out, sizeof(out));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (got < sizeof(out)) {
        while (sent < sizeof(out) && (n = ob_char_write(t->line, out + sent, sizeof(out) - sent)) > 0)
            sent += (size_t)n;
        if (sent < sizeof(out)) {
            assert_int_equal(n, -EAGAIN);
            stalls++;
            ob_char_want(t->line, true, true);
        }
        ssize_t m = read(fd, in + got, sizeof(in) - got);

        assert_true(m > 0 || errno == EAGAIN);
        got += m > 0 ? (size_t)m : 0;
        if (m <= 0 && sent == sizeof(out))
            poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, WAIT_MS);
        if (sent < sizeof(out)) {
            unsigned before = t->writables;

            while (t->writables == before && fake_poll(dev, m > 0 ? 0 : WAIT_MS) > 0)
                ;
        }
    }
    assert_true(stalls > 0);
    assert_true(t->writables > 0);
    assert_memory_equal(in, out, sizeof(out));
    ob_char_want(t->line, true, false);
    for (size_t put = 0; put < sizeof(out);) { /* and the other way */
        ssize_t m = write(fd, out + put, sizeof(out) - put);

        put += m > 0 ? (size_t)m : 0;
        while (t->n < put && fake_poll(dev, 0) > 0)
            ;
    }
    while (t->n < sizeof(out))
        assert_true(fake_poll(dev, WAIT_MS) > 0);
    assert_memory_equal(t->input, out, sizeof(out));
    close(fd);
    fake_free(dev);
}

static void test_slow_peer(void **state)
{
    char path[64];

    path_of(path, "tty");
    struct ob_dev *dev = start("path=%s", path);

    fill_and_drain(dev, open(path, O_RDWR | O_NOCTTY | O_CLOEXEC));
    path_of(path, "socket");
    dev = start("backend=unix,path=%s", path);
    fill_and_drain(dev, dial(path));
}

static void test_link(void **state)
{
    char link[64], slave[64] = "";

    path_of(link, "tty");
    int fd = open(link, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    close(fd);
    assert_null(start("path=%s", link));
    assert_int_equal(errno, EEXIST);
    assert_int_equal(access(link, F_OK), 0);
    unlink(link);
    assert_int_equal(symlink("/etc/passwd", link), 0);
    assert_null(start("path=%s", link));
    assert_int_equal(errno, EEXIST);
    unlink(link);
    assert_int_equal(symlink("/dev/pts/4194303", link), 0); /* of a process that died */
    struct ob_dev *dev = start("path=%s", link);

    assert_non_null(dev);
    assert_true(readlink(link, slave, sizeof(slave) - 1) > 0);
    assert_string_not_equal(slave, "/dev/pts/4194303");
    unlink(link);
    assert_int_equal(symlink("/dev/null", link), 0); /* turned elsewhere: not ours to remove */
    fake_free(dev);
    assert_int_equal(unlink(link), 0);
    assert_null(start("path=%s/no/such/folder", folder));
    assert_int_equal(errno, ENOENT);
}

static void test_unix_peers(void **state)
{
    char path[64];
    struct stat st;
    uint8_t byte;

    path_of(path, "socket");
    mode_t mask = umask(0);
    struct ob_dev *dev = start("backend=unix,path=%s", path);

    umask(mask);
    assert_non_null(dev);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(ob_char_write(of(dev)->line, "lost", 4), 4);
    int first = dial(path), second = dial(path);

    await(dev, &of(dev)->comings, 1);
    assert_int_equal(write(second, "2", 1), 1); /* waits for its turn */
    assert_idle(dev);
    assert_int_equal(of(dev)->n, 0);
    assert_int_equal(ob_char_write(of(dev)->line, "1", 1), 1);
    read_all(first, &byte, 1);
    assert_int_equal(byte, '1');
    close(first);
    await(dev, &of(dev)->comings, 2);
    assert_int_equal(of(dev)->goings, 1);
    await_input(dev, 1);
    assert_int_equal(of(dev)->input[0], '2');
    shutdown(second, SHUT_WR);
    await(dev, &of(dev)->goings, 2);
    assert_int_equal(read(second, &byte, 1), 0);
    close(second);
    assert_idle(dev);
    fake_free(dev);
    assert_int_equal(access(path, F_OK), -1);
}

static void test_unix_in_the_way(void **state)
{
    char path[64];

    assert_null(start("backend=unix"));
    assert_int_equal(errno, EINVAL);
    path_of(path, "socket");
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_null(start("backend=unix,path=%s", path));
    assert_int_equal(errno, EEXIST);
    assert_int_equal(unlink(path), 0);
    int live = listen_at(path);

    assert_null(start("backend=unix,path=%s", path));
    assert_int_equal(errno, EADDRINUSE);
    assert_int_equal(access(path, F_OK), 0);
    close(live); /* now it is stale */
    struct ob_dev *dev = start("backend=unix,path=%s", path);

    assert_non_null(dev);
    unlink(path);
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)); /* not the socket any more: stays */
    fake_free(dev);
    assert_int_equal(unlink(path), 0);
    assert_null(start("backend=unix,path=%s/no/such", folder));
    assert_int_equal(errno, ENOENT);
}

static void test_unix_long_path(void **state)
{
    char deep[512], path[600], name[160];

    strcpy(deep, folder);
    for (int i = 0; i < 4; i++) {
        strcat(deep, "/a-folder-with-a-long-name-to-pass-the-limit");
        assert_int_equal(mkdir(deep, 0700), 0);
    }
    sprintf(path, "%s/socket", deep);
    assert_true(strlen(path) > 108);
    struct ob_dev *dev = start("backend=unix,path=%s", path);

    assert_non_null(dev);
    struct ob_dev *other = start("backend=unix,listen=off,path=%s", path);

    assert_non_null(other);
    assert_true(ob_char_present(of(other)->line));
    await(dev, &of(dev)->comings, 1);
    fake_free(other);
    fake_free(dev);
    assert_int_equal(access(path, F_OK), -1);
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    assert_null(start("backend=unix,path=%s/%s", folder, name));
    assert_int_equal(errno, ENAMETOOLONG);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(rmdir(deep), 0);
        *strrchr(deep, '/') = '\0';
    }
}

static void test_unix_connect(void **state)
{
    char path[64];

    path_of(path, "socket");
    struct ob_dev *dev = start("backend=unix,listen=off,path=%s", path);

    assert_non_null(dev);
    assert_false(ob_char_present(of(dev)->line));
    assert_int_equal(fake_poll(dev, WAIT_MS), 1); /* tried again, in vain */
    assert_int_equal(fake_log_lines(dev), 1);
    int listener = listen_at(path);

    for (unsigned round = 1; round <= 2; round++) {
        await(dev, &of(dev)->comings, round);
        int peer = accept(listener, NULL, NULL);

        assert_int_equal(write(peer, "x", 1), 1);
        await_input(dev, round);
        close(peer);
        await(dev, &of(dev)->goings, round);
    }
    fake_free(dev);
    close(listener);
    assert_int_equal(unlink(path), 0);
}

static int make_folder(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pty_peers),
        cmocka_unit_test(test_pty_in_passing),
        cmocka_unit_test(test_unread),
        cmocka_unit_test(test_slow_peer),
        cmocka_unit_test(test_link),
        cmocka_unit_test(test_unix_peers),
        cmocka_unit_test(test_unix_in_the_way),
        cmocka_unit_test(test_unix_long_path),
        cmocka_unit_test(test_unix_connect),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
