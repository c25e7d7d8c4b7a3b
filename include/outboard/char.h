/* outboard/char.h: what a device with a serial line sits on: a pseudo-terminal or a Unix stream socket.
 *
 * A class adds OB_CHAR_OPTIONS to its table of options and calls ob_char_open() in ops.open. Everything here belongs to
 * the control thread [C], and nothing blocks. There is one peer at a time, which comes and goes: with none, the line is
 * an unplugged cable, and what is written to it is gone.
 *
 * Nothing of a line survives its process: after a crash a socket peer finds its connection closed and connects again,
 * and a pseudo-terminal is a new one (`path` follows it). Bytes that were read and not committed are gone unless the
 * class puts them in its shared memory first.
 *
 * Not stable before version 1.0. */
#ifndef OUTBOARD_CHAR_H
#define OUTBOARD_CHAR_H

#include <outboard/device.h>

#ifdef __cplusplus
extern "C" {
#endif

/* backend=pty: a raw pseudo-terminal; its name is logged, and `path`, if given, is a symbolic link to it. A peer is
 *   whoever has it open.
 * backend=unix: a stream socket at `path`. listen=on: made with mode 0600; peers are served one after the other, the
 *   next waits for its turn. listen=off: connects, and again with growing pauses (0.1 s to 5 s) when it fails or ends.
 *   The end of a peer's output is the end of its connection. */
#define OB_CHAR_OPTIONS                                                                    \
    { .name = "backend",                                                                   \
      .type = OB_OPTION_CHOICE,                                                            \
      .value = "pty",                                                                      \
      .choices = (const char *const[]){ "pty", "unix", NULL },                             \
      .help = "what the line is connected to: a pseudo-terminal or a Unix socket" },       \
        { .name = "path",                                                                  \
          .type = OB_OPTION_STRING,                                                        \
          .help = "pty: a symbolic link to make; unix: the socket, which must be given" }, \
    {                                                                                      \
        .name = "listen", .type = OB_OPTION_BOOL, .value = "on",                           \
        .help = "unix: make the socket and wait for peers (on), or connect to it (off)"    \
    }

struct ob_char;

/* Called from the control loop, each in a transaction of its own; never from within a function of this header. */
struct ob_char_ops {
    /* There is something to read (or the peer's end to be found by reading). Has to ob_char_read(), or to stop wanting
     * it: it is called again as long as there is. */
    void (*readable)(void *ctx);
    /* ob_char_write() would take something. */
    void (*writable)(void *ctx);
    /* A peer came, or went and all it sent was read. */
    void (*presence)(void *ctx, bool present);
};

/* [C] In ops.open. Opens what the options say; `ops` must stay. Nothing is wanted yet. Logs one line and returns -errno
 * on failure: -EINVAL (no path), -EADDRINUSE (somebody listens there), -EEXIST (something else is at path). */
OB_PUBLIC int ob_char_open(struct ob_dev *dev, const struct ob_char_ops *ops, void *ctx, struct ob_char **line);
/* [C] Removes the socket or link that it made. NULL is allowed. */
OB_PUBLIC void ob_char_close(struct ob_char *line);
/* [C] Whether there is a peer. */
OB_PUBLIC bool ob_char_present(const struct ob_char *line);
/* [C] What readable() and writable() are to be called for. */
OB_PUBLIC void ob_char_want(struct ob_char *line, bool read, bool write);
/* [C] How many bytes were read, at least 1, or -EAGAIN. */
OB_PUBLIC int ob_char_read(struct ob_char *line, void *buf, size_t len);
/* [C] How many bytes went, at least 1 if len is, or -EAGAIN; without a peer all go, to nobody. */
OB_PUBLIC int ob_char_write(struct ob_char *line, const void *buf, size_t len);

#ifdef __cplusplus
}
#endif
#endif
