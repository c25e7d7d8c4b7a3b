/* behind.c: a vfio-user server that is started for a QEMU.
 *
 * A program that takes a connected socket gets the one that QEMU made: QEMU connects to a socket of ours, without a
 * name outside of our two processes, and waits for its greeting to be answered while the program starts. A program that
 * makes a socket at a path is started first. That it listens cannot be learnt by connecting, since it may take one
 * client only, nor by an event: /proc/net/unix says so. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "driver/behind.h"
#include "driver/driver.h"

#define EXIT_MS       1000
#define SO_ACCEPTCON_ 0x10000u /* in the flags of /proc/net/unix: it listens */

void ob_behind_init(struct ob_behind *behind)
{
    *behind = (struct ob_behind){ .server = { .pidfd = -1, .errors = -1 }, .listener = -1, .path_fd = -1 };
}

/* Replaces the first `what` in each word. Returns how many, or -ENOMEM. */
static int replace(struct ob_behind *behind, const char *what, const char *with)
{
    int found = 0;

    for (unsigned i = 0; behind->words[i]; i++) {
        char *at = strstr(behind->words[i], what), *text;

        if (!at)
            continue;
        if (asprintf(&text, "%.*s%s%s", (int)(at - behind->words[i]), behind->words[i], with, at + strlen(what)) < 0)
            return -ENOMEM;
        free(behind->words[i]);
        behind->words[i] = text;
        found++;
    }
    return found;
}

static bool uses(const struct ob_behind *behind, const char *what)
{
    for (unsigned i = 0; behind->words[i]; i++)
        if (strstr(behind->words[i], what))
            return true;
    return false;
}

static int make_folder(struct ob_behind *behind)
{
    const char *tmp = getenv("TMPDIR");

    if (!tmp || strlen(tmp) > 40)
        tmp = "/tmp";
    snprintf(behind->folder, sizeof(behind->folder), "%s/outboard-XXXXXX", tmp);
    if (!mkdtemp(behind->folder)) {
        behind->folder[0] = 0;
        return -errno;
    }
    snprintf(behind->path, sizeof(behind->path), "%s/s", behind->folder);
    return 0;
}

static void remove_folder(struct ob_behind *behind)
{
    char path[80];

    if (behind->folder[0]) {
        snprintf(path, sizeof(path), "%s/s", behind->folder);
        unlink(path);
        rmdir(behind->folder);
        behind->folder[0] = 0;
    }
}

/* --- A socket of ours -------------------------------------------------------------------------------------------- */

static int listen_hidden(struct ob_behind *behind)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int err = 0;

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", behind->path);
    behind->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (behind->listener < 0 || bind(behind->listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(behind->listener, 1) != 0 || (behind->path_fd = open(behind->path, O_PATH | O_CLOEXEC)) < 0)
        err = -errno;
    remove_folder(behind);
    snprintf(behind->path, sizeof(behind->path), "/proc/self/fd/%d", behind->path_fd);
    return err;
}

int ob_behind_accept(struct ob_behind *behind, int qemu, int timeout_ms)
{
    struct pollfd wait[2] = { { .fd = behind->listener, .events = POLLIN }, { .fd = qemu, .events = POLLIN } };
    char number[16];
    int fd, err;

    if (behind->listener < 0)
        return 0;
    if (poll(wait, 2, timeout_ms) <= 0)
        return ob_driver_why(behind->why, -ETIMEDOUT, "QEMU did not connect to the server's socket");
    /* QEMU ended: it says why by itself. */
    if (!wait[0].revents)
        return 0;
    fd = accept4(behind->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return -errno;
    snprintf(number, sizeof(number), "%d", fd);
    err = replace(behind, "{fd}", number);
    if (err >= 0)
        err = ob_child_start(&behind->server, behind->words, &fd, 1, false);
    close(fd);
    return err ? ob_driver_why(behind->why, err, "cannot start %s: %s", behind->words[0], strerror(-err)) : 0;
}

/* --- A socket of the program's ----------------------------------------------------------------------------------- */

static bool listens(const char *path)
{
    FILE *table = fopen("/proc/net/unix", "re");
    char line[512], name[256];
    bool found = false;
    unsigned flags;

    while (table && !found && fgets(line, sizeof(line), table))
        found = sscanf(line, "%*s %*x %*x %x %*x %*x %*d %255s", &flags, name) == 2 && (flags & SO_ACCEPTCON_) &&
                strcmp(name, path) == 0;
    if (table)
        fclose(table);
    return found;
}

static int start_listening(struct ob_behind *behind, int timeout_ms)
{
    int64_t deadline = ob_driver_now() + timeout_ms;
    int err = replace(behind, "{socket}", behind->path);

    if (err >= 0)
        err = ob_child_start(&behind->server, behind->words, NULL, 0, false);
    if (err)
        return ob_driver_why(behind->why, err, "cannot start %s: %s", behind->words[0], strerror(-err));
    for (unsigned turn = 0; !listens(behind->path); turn++) {
        struct pollfd ended = { .fd = behind->server.pidfd, .events = POLLIN };

        if (poll(&ended, 1, 0) == 1)
            return ob_driver_why(behind->why, -ENOTCONN, "%s ended before it listened", behind->words[0]);
        if (!ob_driver_left(deadline))
            return ob_driver_why(behind->why, -ETIMEDOUT, "%s does not listen at %s", behind->words[0], behind->path);
        ob_driver_back_off(turn);
    }
    return 0;
}

/* --- Life -------------------------------------------------------------------------------------------------------- */

/* The words become copies of their own, with "--fd={fd}" if they name no socket. */
static int take_words(struct ob_behind *behind, const char *command)
{
    char *words[OB_BEHIND_WORDS], *text = strdup(command);
    int n = text ? ob_driver_words(text, words, OB_BEHIND_WORDS) : -ENOMEM, err = n < 0 ? n : 0;

    for (int i = 0; i < n && !err; i++)
        if (!(behind->words[i] = strdup(words[i])))
            err = -ENOMEM;
    if (!err && n == 0)
        err = -EINVAL;
    if (!err && !uses(behind, "{fd}") && !uses(behind, "{socket}") && !(behind->words[n] = strdup("--fd={fd}")))
        err = -ENOMEM;
    free(text);
    return err;
}

int ob_behind_prepare(struct ob_behind *behind, const char *command, int timeout_ms, char *why)
{
    int err = take_words(behind, command);

    behind->why = why;
    if (err)
        return ob_driver_why(why, err, "qemu-spawn: takes a command of 1 to %d words", OB_BEHIND_WORDS - 1);
    err = make_folder(behind);
    if (err)
        return ob_driver_why(why, err, "cannot make a folder for a socket: %s", strerror(-err));
    if (uses(behind, "{socket}"))
        return start_listening(behind, timeout_ms);
    err = listen_hidden(behind);
    return err ? ob_driver_why(why, err, "cannot make a socket: %s", strerror(-err)) : 0;
}

void ob_behind_end(struct ob_behind *behind)
{
    ob_child_stop(&behind->server, EXIT_MS);
    if (behind->listener >= 0)
        close(behind->listener);
    if (behind->path_fd >= 0)
        close(behind->path_fd);
    remove_folder(behind);
    for (unsigned i = 0; behind->words[i]; i++)
        free(behind->words[i]);
    ob_behind_init(behind);
}
