/* The edu device, with a client that starts as monitors do, and with a transfer or without, and goes on as the input
 * says. */
#include "script.h"
#include "world.h"

extern const struct ob_device_class ob_class_edu;

#define DMA_SOURCE      0x80
#define DMA_DESTINATION 0x88
#define DMA_COUNT       0x90
#define DMA_COMMAND     0x98 /* bit 0 starts, bit 1 is the direction, to the guest, bit 2 wants an interrupt */
#define BUFFER          0x40000u

/* Starts a transfer as drivers do, between the buffer and memory that is mapped, or close to it: no input would hit on
 * registers that agree. It begins when time has passed, which is for the script. */
static void start_dma(struct peer *peer, struct input *in)
{
    uint8_t how = take8(in);
    uint64_t guest = (how & 8 ? SCRIPT_MESSAGES : SCRIPT_SHARED) + take_number(in, 2);
    uint64_t inside = BUFFER + take8(in) * 16, count = take_number(in, 2) & 0x1fff;

    script_write(peer, 0, DMA_SOURCE, how & 2 ? inside : guest, 8);
    script_write(peer, 0, DMA_DESTINATION, how & 2 ? guest : inside, 8);
    script_write(peer, 0, DMA_COUNT, count, 8);
    script_write(peer, 0, DMA_COMMAND, (how & 6) | 1, 8);
}

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
    if (!(how & 8))
        start_dma(&peer, &in);
    script_run(&peer, &in);
    peer_end(&peer);
    world_end();
    return 0;
}
