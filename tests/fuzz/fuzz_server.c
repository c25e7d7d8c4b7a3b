/* A whole server: one of four devices, and a client that sends what the input says. The first byte chooses the class,
 * how the client connects, and whether it begins as monitors do, with a twin socket or without. */
#include <stdlib.h>

#include "classes.h"
#include "script.h"
#include "world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct ob_device_class *const classes[] = { &ob_class_express, &ob_class_legacy, &ob_class_mixed,
                                                             &ob_class_bare };
    struct input in = { data, data + size };
    uint8_t how = take8(&in);
    struct ob_dev *dev;
    struct peer peer;

    world_begin();
    promise(ob_dev_new(classes[how & 3], NULL, NULL, &dev) == 0);
    peer_begin(&peer, dev, how & 4);
    peer.release = classes_release;
    if (!(how & 8))
        script_prologue(&peer, how & 16);
    script_run(&peer, &in);
    peer_end(&peer);
    world_end();
    return 0;
}
