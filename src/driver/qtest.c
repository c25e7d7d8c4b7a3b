/* qtest.c: the two sockets of a QEMU without a guest. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "driver/qtest.h"

#define COMMAND_SIZE 160
#define EXIT_MS      2000

/* --- Lines ------------------------------------------------------------------------------------------------------- */

/* QEMU is gone, or has to be given up: after a late answer it would not be known which command an answer is for. */
static int lose(struct ob_qtest *q, int err)
{
    char line[OB_DRIVER_WHY] = "";

    if (q->lost)
        return q->lost;
    q->lost = -ENOTCONN;
    if (err == -ETIMEDOUT) {
        snprintf(q->why, sizeof(q->why), "QEMU did not answer for %d ms", q->timeout_ms);
        return err;
    }
    if (q->qemu.pidfd >= 0) {
        struct pollfd ended = { .fd = q->qemu.pidfd, .events = POLLIN };

        /* Its last words come before its end, and its sockets close before either. */
        poll(&ended, 1, EXIT_MS);
    }
    ob_child_last_line(&q->qemu, line, sizeof(line));
    snprintf(q->why, sizeof(q->why), "QEMU %s%s%.200s", err == -ENOTCONN ? "ended" : "is not understood",
             *line ? ": " : "", line);
    return q->lost;
}

/* The next whole line, without its end; NULL: there is none yet. Good until the next call. */
static char *next_line(struct ob_qtest_lines *lines)
{
    char *start = lines->buf + lines->taken, *end = memchr(start, '\n', lines->len - lines->taken);

    if (end) {
        lines->taken = (size_t)(end - lines->buf) + 1;
        *end = 0;
        if (end > start && end[-1] == '\r')
            end[-1] = 0;
        return start;
    }
    memmove(lines->buf, start, lines->len - lines->taken);
    lines->len -= lines->taken;
    lines->taken = 0;
    return NULL;
}

/* Waits up to timeout_ms for bytes. 0 when some came. */
static int more(struct ob_qtest_lines *lines, int timeout_ms)
{
    struct pollfd wait = { .fd = lines->fd, .events = POLLIN };
    ssize_t n;

    if (lines->len == sizeof(lines->buf))
        return -EPROTO;
    n = poll(&wait, 1, timeout_ms);
    if (n == 0)
        return -ETIMEDOUT;
    n = n < 0 ? n : recv(lines->fd, lines->buf + lines->len, sizeof(lines->buf) - lines->len, MSG_DONTWAIT);
    if (n > 0)
        lines->len += (size_t)n;
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    return n > 0 ? 0 : -ENOTCONN;
}

static int await_line(struct ob_qtest *q, struct ob_qtest_lines *lines, int64_t deadline, char **line)
{
    while (!(*line = next_line(lines))) {
        int err = more(lines, ob_driver_left(deadline));

        if (err)
            return lose(q, err);
    }
    return 0;
}

static int send_text(struct ob_qtest *q, int fd, const char *text, size_t len)
{
    while (len) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return lose(q, -ENOTCONN);
        text += n;
        len -= (size_t)n;
    }
    return 0;
}

/* --- qtest ------------------------------------------------------------------------------------------------------- */

/* "IRQ raise N", "IRQ lower N". */
static bool take_irq(struct ob_qtest *q, const char *line)
{
    char direction[8];
    unsigned pin;

    if (sscanf(line, "IRQ %7s %u", direction, &pin) != 2)
        return false;
    if (pin < 64 && strcmp(direction, "raise") == 0)
        q->raised |= UINT64_C(1) << pin;
    if (pin < 64 && strcmp(direction, "lower") == 0)
        q->raised &= ~(UINT64_C(1) << pin);
    return true;
}

int ob_qtest_command(struct ob_qtest *q, uint64_t *val, const char *format, ...)
{
    int64_t deadline = ob_driver_now() + q->timeout_ms;
    char text[COMMAND_SIZE], *line, *end;
    va_list args;
    int err, n;

    if (q->lost)
        return q->lost;
    va_start(args, format);
    n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof(text) - 1)
        return -EINVAL;
    text[n++] = '\n';
    err = send_text(q, q->qtest.fd, text, (size_t)n);
    do {
        if (!err)
            err = await_line(q, &q->qtest, deadline, &line);
    } while (!err && take_irq(q, line));
    if (err)
        return err;
    if (strncmp(line, "OK", 2) != 0)
        return -EPROTO;
    if (val) {
        *val = strtoull(line + 2, &end, 0);
        if (end == line + 2 || *end)
            return lose(q, -EPROTO);
    }
    return 0;
}

int ob_qtest_poll(struct ob_qtest *q, int timeout_ms)
{
    int err = q->lost;
    char *line;

    if (!err)
        err = more(&q->qtest, timeout_ms);
    if (err)
        return err == -ETIMEDOUT ? 0 : lose(q, err);
    while ((line = next_line(&q->qtest)))
        if (!take_irq(q, line))
            return lose(q, -EPROTO);
    return 0;
}

/* --- QMP --------------------------------------------------------------------------------------------------------- */

/* Waits for the lines that have all the members that are wanted: `result` of a command, and an event if one is named.
 */
static int await_qmp(struct ob_qtest *q, const char *result, const char *event)
{
    int64_t deadline = ob_driver_now() + q->timeout_ms;
    bool got_result = false, got_event = event == NULL;
    char *line;

    while (!got_result || !got_event) {
        int err = await_line(q, &q->qmp, deadline, &line);
        json_t *json = err ? NULL : json_loads(line, 0, NULL);
        const char *name = json_string_value(json_object_get(json, "event"));

        got_result = got_result || json_object_get(json, result);
        got_event = got_event || (name && strcmp(name, event) == 0);
        if (json_object_get(json, "error"))
            err = -EPROTO;
        json_decref(json);
        if (err)
            return err;
    }
    return 0;
}

static int qmp(struct ob_qtest *q, const char *command, const char *event)
{
    char text[COMMAND_SIZE];
    int n = snprintf(text, sizeof(text), "{\"execute\":\"%s\"}\n", command), err = q->lost;

    if (!err)
        err = send_text(q, q->qmp.fd, text, (size_t)n);
    return err ? err : await_qmp(q, "return", event);
}

int ob_qtest_reset(struct ob_qtest *q)
{
    return qmp(q, "system_reset", "RESET");
}

/* --- Life -------------------------------------------------------------------------------------------------------- */

#define ARGS_MAX 128

struct arguments {
    char *list[ARGS_MAX];
    unsigned n;
    bool overflow;
};

/* Adds a copy; what is missing at the end shows in `overflow`. */
__attribute__((format(printf, 2, 3))) static void add(struct arguments *args, const char *format, ...)
{
    va_list list;
    char *text = NULL;

    va_start(list, format);
    if (vasprintf(&text, format, list) < 0)
        text = NULL;
    va_end(list);
    if (!text || args->n + 1 >= ARGS_MAX) {
        args->overflow = true;
        free(text);
        return;
    }
    args->list[args->n++] = text;
    args->list[args->n] = NULL;
}

/* Its sockets and its memory are descriptors that it inherits: nothing has a path. */
static void make_arguments(struct arguments *args, const struct ob_qtest_options *options, int qtest_fd, int qmp_fd)
{
    static const char *const fixed[] = {
        "-accel", "qtest",      "-machine", "q35,memory-backend=ob-ram", "-nodefaults", "-no-user-config", "-display",
        "none",   "-qtest-log", "none"
    };

    add(args, "%s", options->program);
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        add(args, "%s", fixed[i]);
    add(args, "-m");
    add(args, "%" PRIu64 "M", options->memory_size >> 20);
    add(args, "-object");
    add(args, "memory-backend-file,id=ob-ram,size=%" PRIu64 ",mem-path=/proc/self/fd/%d,share=on", options->memory_size,
        options->memory_fd);
    add(args, "-chardev");
    add(args, "socket,id=ob-qtest,fd=%d", qtest_fd);
    add(args, "-qtest");
    add(args, "chardev:ob-qtest");
    add(args, "-chardev");
    add(args, "socket,id=ob-qmp,fd=%d", qmp_fd);
    add(args, "-qmp");
    add(args, "chardev:ob-qmp");
    for (const char *const *extra = options->args; extra && *extra; extra++)
        add(args, "%s", *extra);
    add(args, "-device");
    add(args, "%s", options->device);
}

static int launch(struct ob_qtest *q, const struct ob_qtest_options *options, int qtest_fd, int qmp_fd, char *why)
{
    const int keep[] = { qtest_fd, qmp_fd, options->memory_fd, options->device_fd };
    struct arguments args = { .n = 0 };
    int err;

    make_arguments(&args, options, qtest_fd, qmp_fd);
    err = args.overflow ? -E2BIG : ob_child_start(&q->qemu, args.list, keep, options->device_fd < 0 ? 3 : 4, true);
    while (args.n)
        free(args.list[--args.n]);
    return err ? ob_driver_why(why, err, "cannot start %s: %s", options->program, strerror(-err)) : 0;
}

int ob_qtest_start(struct ob_qtest *q, const struct ob_qtest_options *options, char *why)
{
    int qtest[2], commands[2], err;

    *q = (struct ob_qtest){
        .qemu = { .pidfd = -1, .errors = -1 }, .qtest.fd = -1, .qmp.fd = -1, .timeout_ms = options->timeout_ms
    };
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, qtest) != 0)
        return -errno;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, commands) != 0) {
        err = -errno;
        close(qtest[0]);
        close(qtest[1]);
        return err;
    }
    q->qtest.fd = qtest[0];
    q->qmp.fd = commands[0];
    err = launch(q, options, qtest[1], commands[1], why);
    close(qtest[1]);
    close(commands[1]);
    if (err)
        return err;
    if (options->started)
        err = options->started(options->ctx);
    if (!err)
        err = await_qmp(q, "QMP", NULL);
    if (!err)
        err = qmp(q, "qmp_capabilities", NULL);
    if (!err)
        err = ob_qtest_command(q, NULL, "irq_intercept_in ioapic");
    if (err && q->lost)
        ob_driver_why(why, err, "%s", q->why);
    return err;
}

void ob_qtest_end(struct ob_qtest *q)
{
    /* It ends when it loses its sockets, or by the signal. */
    if (q->qtest.fd >= 0)
        close(q->qtest.fd);
    if (q->qmp.fd >= 0)
        close(q->qmp.fd);
    q->qtest.fd = q->qmp.fd = -1;
    ob_child_stop(&q->qemu, EXIT_MS);
}
