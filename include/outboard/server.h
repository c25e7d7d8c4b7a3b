/* outboard/server.h: hosting devices in a process: sockets, loops, successors of a crashed process.
 *
 * ob_device_main() (device.h) does all of this for a program with one device; this header is for programs that hold
 * several devices or have a loop of their own, and for the `outboard` command.
 */
#ifndef OUTBOARD_SERVER_H
#define OUTBOARD_SERVER_H

#include <outboard/device.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What outlives the process. Three memfds, each -1 for a new one: `vault` (state and shared memory), `bars` (what
 * clients map) and `journal` (requests and replies); and `holder`, -1 or a connected SOCK_SEQPACKET socket to whoever
 * keeps the client's descriptors for a successor. A successor gets the same four and the client's connected socket; see
 * docs/design.md, "Crash". */
struct ob_lifeline {
    int vault, bars, journal, holder;
};
#define OB_LIFELINE_NONE \
    {                    \
        -1, -1, -1, -1   \
    }

/* [C] Makes a device: options "key=value,key=value" (NULL: none; a comma in a value is written twice), memory, back
 * ends. The class is copied; what it points to has to outlive the device. `lifeline` may be NULL; its descriptors are
 * taken over on success, and stay the caller's on failure. Logs one line, besides those of ops.configure and ops.open,
 * and returns -errno on failure: -EINVAL for the class, an option, or memory of another layout. */
OB_PUBLIC int ob_dev_new(const struct ob_device_class *cls, const char *options, const struct ob_lifeline *lifeline,
                         struct ob_dev **dev);
/* [C] Ends the session (ops.quiesce, for which it waits up to 4 s), stops workers, closes everything, frees. Not from a
 * callback of the class. */
OB_PUBLIC void ob_dev_free(struct ob_dev *dev);

struct ob_listen {
    const char *path; /* of the socket; NULL: `fd` is one, listening or connected */
    int fd;
    mode_t mode; /* of the socket file; 0: 0600 */
    uid_t owner; /* (uid_t)-1: leave; also let in as a peer */
    gid_t group; /* (gid_t)-1: leave; also let in as a peer */
};
/* [C] Where clients come from; one at a time is served, one after the other. Logs and returns -errno: -EADDRINUSE (a
 * live server is there), -EEXIST (something else than a socket is). `fd` is taken over on success. */
OB_PUBLIC int ob_dev_listen(struct ob_dev *dev, const struct ob_listen *listen);

/* [A] Readable whenever ob_server_run(dev, 0) has something to do: for a loop of the caller's. */
OB_PUBLIC int ob_server_fd(struct ob_dev *dev);
/* [C] Handles what is there, waiting up to timeout_ms for it (-1: without end). 0 does not sleep and reads the client's
 * socket at once, and looks at everything else every 16 calls that found nothing: it is for loops that poll, and for
 * those that call it as long as the descriptor above is readable. Returns what it did (0: nothing), -EPIPE when a
 * connected `fd` was given and its client went, or another -errno when the device cannot go on. */
OB_PUBLIC int ob_server_run(struct ob_dev *dev, int timeout_ms);

/* What `--print-capabilities` prints: a JSON object (the device's identity, options, memory sizes); malloc'ed. */
OB_PUBLIC char *ob_class_describe(const struct ob_device_class *cls);

#ifdef __cplusplus
}
#endif
#endif
