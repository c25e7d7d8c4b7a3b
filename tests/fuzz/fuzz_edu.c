/* The edu device, with a client that starts as monitors do and goes on as the input says. */
#include "script.h"
#include "world.h"

extern const struct ob_device_class ob_class_edu;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, data + size };
    uint8_t how = take8(&in);
    struct ob_dev *dev;
    struct peer peer;

    world_begin();
    promise(ob_dev_new(&ob_class_edu, how & 2 ? "dma_mask=0xffffffffffffffff" : NULL, NULL, &dev) == 0);
    peer_begin(&peer, dev, how & 1);
    script_prologue(&peer, how & 4);
    script_run(&peer, &in);
    peer_end(&peer);
    world_end();
    return 0;
}
