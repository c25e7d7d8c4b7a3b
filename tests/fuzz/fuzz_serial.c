/* The serial port on a Unix socket, with a client that starts as monitors do, and somebody at the other end of the
 * line. The first byte says which of the two ends listens. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "script.h"
#include "world.h"

extern const struct ob_device_class ob_class_serial;

static char folder[] = "/tmp/fuzz-serial-XXXXXX";
static struct sockaddr_un name = { .sun_family = AF_UNIX };

static void clean(void)
{
    (void)unlink(name.sun_path);
    (void)rmdir(folder);
}

static int listen_there(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    promise(bind(fd, (struct sockaddr *)&name, sizeof(name)) == 0 && listen(fd, 2) == 0);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, data + size };
    uint8_t how = take8(&in);
    char options[256];
    struct ob_dev *dev;
    struct peer peer;
    int other = -1;

    if (!name.sun_path[0]) {
        promise(mkdtemp(folder) != NULL && atexit(clean) == 0);
        snprintf(name.sun_path, sizeof(name.sun_path), "%s/line", folder);
    }
    (void)unlink(name.sun_path); /* of a run that ended early */
    world_begin();
    if (how & 2)
        other = listen_there();
    snprintf(options, sizeof(options), "backend=unix,path=%s,listen=%s", name.sun_path, how & 2 ? "off" : "on");
    promise(ob_dev_new(&ob_class_serial, options, NULL, &dev) == 0);
    peer_begin(&peer, dev, how & 1);
    peer.line = name.sun_path;
    peer.line_listener = other;
    script_prologue(&peer, false);
    script_run(&peer, &in);
    peer_end(&peer);
    world_end();
    return 0;
}
