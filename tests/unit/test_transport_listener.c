/* A socket appears with the right mode and owner, replaces leftovers and nothing else, and lets the right peers in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/listener.h"

#define STARTERS 8
#define STRANGER 4242 /* a user and group that nobody has */

static char folder[] = "/tmp/outboard-listener-XXXXXX";
static char path[sizeof(folder) + 8];
static char why[OB_LISTENER_WHY];

static unsigned open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;

    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static int make_folder(void **state)
{
    if (!mkdtemp(folder) || chmod(folder, 0755) < 0)
        return -1;
    snprintf(path, sizeof(path), "%s/socket", folder);
    return 0;
}

static int remove_folder(void **state)
{
    return rmdir(folder);
}

/* Every test leaves the folder empty and no descriptor open. */
static unsigned fds_before;

static int before_test(void **state)
{
    memset(why, 0, sizeof(why));
    fds_before = open_fds();
    return 0;
}

static int after_test(void **state)
{
    return open_fds() == fds_before && access(path, F_OK) < 0 ? 0 : -1;
}

static struct ob_listener listen_at(const char *where)
{
    struct ob_listener listener;
    struct ob_listen_options options = OB_LISTEN_DEFAULTS;

    assert_int_equal(ob_listen(where, &options, &listener, why, sizeof(why)), 0);
    return listener;
}

/* Fails as it has to, with a text that names the path, and leaves what is there. */
static void refused_at(const char *where, int error)
{
    struct ob_listener listener;
    struct ob_listen_options options = OB_LISTEN_DEFAULTS;
    struct stat before = { 0 }, after = { 0 };
    unsigned fds = open_fds();
    int existed = lstat(where, &before);

    why[0] = '\0';
    assert_int_equal(ob_listen(where, &options, &listener, why, sizeof(why)), -error);
    assert_non_null(strstr(why, where));
    assert_int_equal(lstat(where, &after), existed);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(open_fds(), fds);
}

static int bound(const char *where, int type)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", where);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void connects(struct ob_listener *listener, const char *where)
{
    struct pollfd pollfd = { .fd = listener->fd, .events = POLLIN };
    int client, server;

    assert_int_equal(ob_accept(listener, why, sizeof(why)), -EAGAIN);
    client = ob_connect(where);
    assert_true(client >= 0);
    assert_int_equal(poll(&pollfd, 1, 0), 1);
    server = ob_accept(listener, why, sizeof(why));
    assert_true(server >= 0);
    assert_int_equal(fcntl(server, F_GETFD), FD_CLOEXEC);
    assert_true(fcntl(server, F_GETFL) & O_NONBLOCK);
    assert_int_equal(fcntl(client, F_GETFD), FD_CLOEXEC);
    assert_int_equal(write(client, "x", 1), 1);
    assert_int_equal(read(server, why, 1), 1);
    close(client);
    close(server);
}

static void listens_and_cleans_up(void **state)
{
    struct ob_listener listener;

    assert_int_equal(ob_connect(path), -ENOENT);
    assert_int_equal(ob_connect(""), -EINVAL);
    listener = listen_at(path);
    connects(&listener, path);
    ob_listener_close(&listener);
    ob_listener_close(&listener);
}

static void relative_path(void **state)
{
    struct ob_listener listener;
    int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);

    assert_int_equal(chdir(folder), 0);
    listener = listen_at("socket");
    connects(&listener, path);
    assert_int_equal(chdir("/"), 0); /* the file is found again all the same */
    ob_listener_close(&listener);
    assert_int_equal(fchdir(here), 0);
    close(here);
}

static void leftover_is_replaced(void **state)
{
    struct ob_listener listener;

    close(bound(path, SOCK_STREAM));
    assert_int_equal(ob_connect(path), -ECONNREFUSED);
    listener = listen_at(path);
    connects(&listener, path);
    ob_listener_close(&listener);
}

static void live_socket_is_left(void **state)
{
    struct ob_listener listener = listen_at(path);
    int client;

    refused_at(path, EADDRINUSE);
    client = ob_accept(&listener, why, sizeof(why)); /* the look at it is a connection */
    assert_true(client >= 0);
    close(client);
    connects(&listener, path);
    ob_listener_close(&listener);
}

static void busy_socket_is_left(void **state)
{
    struct ob_listen_options options = OB_LISTEN_DEFAULTS;
    struct ob_listener listener;
    int clients[16], count = 0;

    options.backlog = 1;
    assert_int_equal(ob_listen(path, &options, &listener, why, sizeof(why)), 0);
    while (count < 16 && (clients[count] = ob_connect(path)) >= 0)
        count++;
    assert_in_range(count, 1, 15);
    assert_int_equal(clients[count], -EAGAIN);
    refused_at(path, EADDRINUSE);
    while (count > 0)
        close(clients[--count]);
    ob_listener_close(&listener);
}

static void other_sockets_are_left(void **state)
{
    int fd = bound(path, SOCK_DGRAM);

    refused_at(path, EADDRINUSE);
    close(fd);
    unlink(path);
}

static void other_files_are_left(void **state)
{
    char target[sizeof(path) + 8];
    struct ob_listener listener;
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    close(fd);
    refused_at(path, EEXIST);
    unlink(path);

    assert_int_equal(mkdir(path, 0700), 0);
    refused_at(path, EEXIST);
    rmdir(path);

    snprintf(target, sizeof(target), "%s.real", path);
    assert_int_equal(symlink(target, path), 0);
    refused_at(path, EEXIST); /* to nothing */
    close(bound(target, SOCK_STREAM));
    refused_at(path, EEXIST); /* to a leftover */
    listener = listen_at(target);
    refused_at(path, EEXIST); /* to a live socket */
    ob_listener_close(&listener);
    unlink(path);
}

static void file_of_another_is_not_removed(void **state)
{
    struct ob_listener first = listen_at(path), second;

    assert_int_equal(unlink(path), 0);
    second = listen_at(path);
    ob_listener_close(&first);
    connects(&second, path);
    ob_listener_close(&second);
}

static void check_mode(mode_t mode, mode_t mask)
{
    struct ob_listen_options options = OB_LISTEN_DEFAULTS;
    struct ob_listener listener;
    struct stat file;
    mode_t saved;

    options.mode = mode;
    saved = umask(mask);
    assert_int_equal(ob_listen(path, &options, &listener, why, sizeof(why)), 0);
    assert_int_equal(umask(saved), mask);
    assert_int_equal(lstat(path, &file), 0);
    assert_int_equal(file.st_mode, S_IFSOCK | mode);
    assert_int_equal(file.st_uid, geteuid());
    ob_listener_close(&listener);
}

static void mode_is_exact(void **state)
{
    static const mode_t modes[] = { 0600, 0660, 0666, 0777, 0400 }, masks[] = { 0, 022, 077, 0777 };

    for (unsigned i = 0; i < 5; i++) {
        for (unsigned j = 0; j < 4; j++)
            check_mode(modes[i], masks[j]);
    }
}

static void bad_options(void **state)
{
    struct ob_listen_options options = OB_LISTEN_DEFAULTS;
    struct ob_listener listener;

    options.mode = 01600;
    assert_int_equal(ob_listen(path, &options, &listener, why, sizeof(why)), -EINVAL);
    options = OB_LISTEN_DEFAULTS;
    options.backlog = 0;
    assert_int_equal(ob_listen(path, &options, &listener, why, sizeof(why)), -EINVAL);
    assert_non_null(strstr(why, "backlog"));
}

static void bad_paths(void **state)
{
    struct ob_listen_options options = OB_LISTEN_DEFAULTS;
    struct ob_listener listener;
    char missing[sizeof(path) + 8];

    assert_int_equal(ob_listen("", &options, &listener, why, sizeof(why)), -EINVAL);
    refused_at("/tmp/", EINVAL);
    refused_at("/tmp/.", EEXIST);
    snprintf(missing, sizeof(missing), "%s/no/socket", folder);
    assert_int_equal(ob_listen(missing, &options, &listener, why, sizeof(why)), -ENOENT);
    assert_non_null(strstr(why, "create it"));
}

static void length_of_the_path(void **state)
{
    char name[109];
    struct ob_listener listener;

    memset(name, 'n', sizeof(name));
    memcpy(name, folder, strlen(folder));
    name[strlen(folder)] = '/';
    name[108] = '\0';
    refused_at(name, ENAMETOOLONG);
    assert_int_equal(ob_connect(name), -ENAMETOOLONG);
    name[107] = '\0';
    listener = listen_at(name);
    connects(&listener, name);
    ob_listener_close(&listener);

    memset(name, 'n', sizeof(name)); /* all of it the name of a file */
    name[107] = '\0';
    assert_int_equal(chdir(folder), 0);
    listener = listen_at(name);
    connects(&listener, name);
    ob_listener_close(&listener);
    assert_int_equal(access(name, F_OK), -1);
}

static void locked_folder_is_given_up(void **state)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_int_equal(flock(fd, LOCK_EX), 0);
    refused_at(path, EBUSY);
    close(fd);
}

struct starter {
    pthread_t thread;
    pthread_barrier_t *barrier;
    struct ob_listener listener;
    int result;
};

static void *start(void *opaque)
{
    struct starter *starter = opaque;
    struct ob_listen_options options = OB_LISTEN_DEFAULTS;
    char text[OB_LISTENER_WHY];

    pthread_barrier_wait(starter->barrier);
    starter->result = ob_listen(path, &options, &starter->listener, text, sizeof(text));
    return NULL;
}

/* However many start at once, on a leftover or on nothing: one listens, and it is the one at the path. */
static void race_of_starters(void **state)
{
    struct starter starters[STARTERS];
    pthread_barrier_t barrier;

    pthread_barrier_init(&barrier, NULL, STARTERS);
    for (int round = 0; round < 40; round++) {
        struct ob_listener *winner = NULL;
        int client;

        if (round % 2)
            close(bound(path, SOCK_STREAM));
        for (int i = 0; i < STARTERS; i++) {
            starters[i].barrier = &barrier;
            assert_int_equal(pthread_create(&starters[i].thread, NULL, start, &starters[i]), 0);
        }
        for (int i = 0; i < STARTERS; i++) {
            pthread_join(starters[i].thread, NULL);
            if (starters[i].result != 0) {
                assert_int_equal(starters[i].result, -EADDRINUSE);
                continue;
            }
            assert_null(winner);
            winner = &starters[i].listener;
        }
        assert_non_null(winner);
        while ((client = ob_accept(winner, why, sizeof(why))) >= 0)
            close(client);
        connects(winner, path);
        ob_listener_close(winner);
    }
    pthread_barrier_destroy(&barrier);
}

/* Connects as another user: its group is `group` and its only supplementary group `extra`. */
static int stranger_connects(struct ob_listener *listener, uid_t user, gid_t group, gid_t extra)
{
    int status, result;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        if (setgroups(1, &extra) < 0 || setgid(group) < 0 || setuid(user) < 0)
            _exit(1);
        _exit(ob_connect(path) >= 0 ? 0 : 2);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    result = ob_accept(listener, why, sizeof(why));
    if (result < 0)
        return result;
    close(result);
    return 0;
}

static void credentials(void **state)
{
    struct ob_listen_options options = OB_LISTEN_DEFAULTS;
    struct ob_listener listener;
    struct stat file;
    char pid[32];

    if (geteuid() != 0)
        skip();
    options.mode = 0666; /* so that the credentials alone decide */
    assert_int_equal(ob_listen(path, &options, &listener, why, sizeof(why)), 0);
    assert_int_equal(stranger_connects(&listener, STRANGER, STRANGER, STRANGER), -EPERM);
    snprintf(pid, sizeof(pid), "user %d", STRANGER);
    assert_non_null(strstr(why, pid));
    assert_int_equal(stranger_connects(&listener, 0, STRANGER, STRANGER), 0);
    connects(&listener, path);
    ob_listener_close(&listener);

    options.owner = STRANGER;
    assert_int_equal(ob_listen(path, &options, &listener, why, sizeof(why)), 0);
    assert_int_equal(lstat(path, &file), 0);
    assert_int_equal(file.st_uid, STRANGER);
    assert_int_equal(file.st_gid, getegid());
    assert_int_equal(stranger_connects(&listener, STRANGER, STRANGER, STRANGER), 0);
    assert_int_equal(stranger_connects(&listener, STRANGER + 1, STRANGER, STRANGER), -EPERM);
    ob_listener_close(&listener);

    options.owner = (uid_t)-1;
    options.group = STRANGER;
    assert_int_equal(ob_listen(path, &options, &listener, why, sizeof(why)), 0);
    assert_int_equal(lstat(path, &file), 0);
    assert_int_equal(file.st_uid, geteuid());
    assert_int_equal(file.st_gid, STRANGER);
    assert_int_equal(stranger_connects(&listener, STRANGER, STRANGER, STRANGER + 1), 0);
    assert_int_equal(stranger_connects(&listener, STRANGER, STRANGER + 1, STRANGER), 0);
    assert_int_equal(stranger_connects(&listener, STRANGER, STRANGER + 1, STRANGER + 1), -EPERM);
    ob_listener_close(&listener);
}

static int adopt(int fd, struct ob_listener *listener)
{
    struct ob_listen_options options = OB_LISTEN_DEFAULTS;

    why[0] = '\0';
    return ob_listener_adopt(fd, &options, listener, why, sizeof(why));
}

static void adopts_a_listener(void **state)
{
    struct ob_listener listener;
    int fd = bound(path, SOCK_STREAM);

    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(fcntl(fd, F_SETFD, 0), 0);
    assert_int_equal(adopt(fd, &listener), OB_ADOPTED_LISTENER);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    connects(&listener, path);
    ob_listener_close(&listener);
    assert_int_equal(unlink(path), 0); /* it is the parent's to remove */
}

static void adopts_a_connection(void **state)
{
    struct ob_listener listener = listen_at(path), untouched = { .fd = 77 };
    int pair[2], client, server;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(adopt(pair[0], &untouched), OB_ADOPTED_CONNECTION);
    assert_int_equal(fcntl(pair[0], F_GETFD), FD_CLOEXEC);
    assert_false(fcntl(pair[0], F_GETFL) & O_NONBLOCK);
    client = ob_connect(path);
    server = ob_accept(&listener, why, sizeof(why));
    assert_int_equal(adopt(client, &untouched), OB_ADOPTED_CONNECTION);
    assert_int_equal(adopt(server, &untouched), OB_ADOPTED_CONNECTION);
    assert_int_equal(untouched.fd, 77);
    close(client);
    close(server);
    close(pair[0]);
    close(pair[1]);
    ob_listener_close(&listener);
}

static void refuses_other_descriptors(void **state)
{
    static const struct {
        int domain, type, error;
    } wrong[] = {
        { AF_UNIX, SOCK_STREAM, ENOTCONN },
        { AF_UNIX, SOCK_DGRAM, EPROTONOSUPPORT },
        { AF_UNIX, SOCK_SEQPACKET, EPROTONOSUPPORT },
        { AF_INET, SOCK_STREAM, EPROTONOSUPPORT },
    };
    struct ob_listener listener;
    char name[32];
    int fd;

    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        fd = socket(wrong[i].domain, wrong[i].type, 0);
        if (fd < 0 && wrong[i].domain == AF_INET)
            continue; /* a kernel without it */
        assert_int_equal(adopt(fd, &listener), -wrong[i].error);
        snprintf(name, sizeof(name), "descriptor %d", fd);
        assert_non_null(strstr(why, name));
        assert_int_equal(fcntl(fd, F_GETFD), 0); /* as it was */
        close(fd);
        assert_int_equal(adopt(fd, &listener), -EBADF);
    }
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(adopt(fd, &listener), -ENOTSOCK);
    close(fd);
    fd = bound(path, SOCK_STREAM); /* bound, but not listening */
    assert_int_equal(adopt(fd, &listener), -ENOTCONN);
    close(fd);
    unlink(path);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, before_test, after_test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(listens_and_cleans_up),
        TEST(relative_path),
        TEST(leftover_is_replaced),
        TEST(live_socket_is_left),
        TEST(busy_socket_is_left),
        TEST(other_sockets_are_left),
        TEST(other_files_are_left),
        TEST(file_of_another_is_not_removed),
        TEST(mode_is_exact),
        TEST(bad_options),
        TEST(bad_paths),
        TEST(length_of_the_path),
        TEST(locked_folder_is_given_up),
        TEST(race_of_starters),
        TEST(credentials),
        TEST(adopts_a_listener),
        TEST(adopts_a_connection),
        TEST(refuses_other_descriptors),
    };

    return cmocka_run_group_tests_name("listener", tests, make_folder, remove_folder);
}
