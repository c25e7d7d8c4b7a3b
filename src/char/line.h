/* line.h: between the common part of a line (line.c) and its back ends (pty.c, unix.c). All control thread. */
#ifndef CHAR_LINE_H
#define CHAR_LINE_H

#include <outboard/char.h>
#include <sys/types.h>

/* A back end finds peers: it hands each to ob_line_attach(). */
struct ob_line_backend {
    /* Fills in its part of the line; logs and returns -errno. On failure, close() is called all the same. */
    int (*open)(struct ob_char *line, const char *path);
    /* The peer of `fd` is gone, and the line does not use fd any more. */
    void (*lost)(struct ob_char *line, int fd);
    void (*close)(struct ob_char *line);
};
extern const struct ob_line_backend ob_line_pty, ob_line_unix;

struct ob_line_pty {
    int master, watch; /* watch: inotify, for opens of the other side */
    char *link;        /* the symbolic link that is ours */
    char slave[64];
};

struct ob_line_unix {
    int listener, timer;
    char *path;
    bool listen, watched, logged; /* watched: the listener is; logged: this outage was */
    dev_t dev;                    /* of the socket file that is ours, with ino; ino 0: none */
    ino_t ino;
    unsigned pause_ms; /* before the next attempt to connect */
};

struct ob_char {
    struct ob_dev *dev;
    const struct ob_char_ops *ops;
    void *ctx;
    const struct ob_line_backend *backend;
    int fd; /* the peer's stream; -1: no peer */
    bool want_read, want_write;
    bool opened; /* ob_char_open() is over: presence is reported */
    bool ended;  /* a read found the peer's end */
    /* The peer hung up and its last bytes are not wanted yet. The descriptor is not watched meanwhile: a hang-up is
     * reported for ever. */
    bool parked;
    union {
        struct ob_line_pty pty;
        struct ob_line_unix un;
    };
};

/* A peer, which the line had none of; fd is not blocking and stays the back end's to close. Fails, logged, if it cannot
 * be watched: then there still is no peer. */
int ob_line_attach(struct ob_char *line, int fd);
/* ob_worker_fd() on the control loop; logs failure. */
int ob_line_watch(struct ob_char *line, int fd, uint32_t events, ob_ready_fn *ready);

#endif
