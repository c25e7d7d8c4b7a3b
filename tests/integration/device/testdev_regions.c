/* The regions of testdev's own, its doorbells, and what it tells the client itself (see testdev.c). */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include "testdev.h"

#define READ_ONLY_SIZE 100u
#define VENDOR_TYPE    0x80001234u /* VFIO_REGION_TYPE_PCI_VENDOR_TYPE */
#define BY_WORKER      0x100u
#define FAIL           0x200u

/* --- Regions ----------------------------------------------------------------------------------------------------- */

static int log_access(struct ob_req *req, const struct ob_access *access)
{
    for (uint32_t i = 0; i < access->len; i++)
        ((uint8_t *)access->data)[i] = (uint8_t)(access->off + i);
    return OB_DONE;
}

static int add_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    req_state(req)->count += (uint32_t)val;
    return OB_DONE;
}

static const struct ob_reg mixed_regs[] = {
    OB_REG32("REGION", 0x00, struct testdev, region, .rw = UINT32_MAX, .reset = 0x11223344),
    OB_REG32("UNDER", 0x100, struct testdev, under, .rw = UINT32_MAX, .reset = 0xcafe),
    OB_REG_END,
};

static const struct ob_area mixed_areas[] = {
    { .off = 0x0000, .size = 0x1000, .regs = mixed_regs },
    { .off = 0x1000, .size = 0x1000, .flags = OB_AREA_RAM | OB_AREA_MMAP },
    { .off = 0x2000, .size = 0x80, .flags = OB_AREA_RAM },
    OB_AREA_END,
};

static const struct ob_area whole_areas[] = {
    { .off = 0, .size = 0x2000, .flags = OB_AREA_RAM | OB_AREA_MMAP },
    OB_AREA_END,
};

static const struct ob_area log_areas[] = { { .off = 0, .size = READ_ONLY_SIZE, .access = log_access }, OB_AREA_END };

static const struct ob_reg add_regs[] = { { .name = "ADD", .width = 4, .write = add_write }, OB_REG_END };
static const struct ob_area add_areas[] = { { .off = 0, .size = 4, .regs = add_regs }, OB_AREA_END };

const struct ob_region testdev_regions[] = {
    { "mixed", 0x2100, OB_REGION_READABLE | OB_REGION_WRITABLE, VENDOR_TYPE, 1, mixed_areas },
    { "whole", 0x2000, OB_REGION_READABLE | OB_REGION_WRITABLE, VENDOR_TYPE, 2, whole_areas },
    { "log", READ_ONLY_SIZE, OB_REGION_READABLE, VENDOR_TYPE, 3, log_areas },
    { "add", 4, OB_REGION_WRITABLE, VENDOR_TYPE, 4, add_areas },
    { "bells", 0x100, OB_REGION_READABLE | OB_REGION_WRITABLE, VENDOR_TYPE, 5, NULL },
    OB_REGION_END,
};

/* --- Doorbells --------------------------------------------------------------------------------------------------- */

#define BELL(n)                                                                             \
    {                                                                                       \
        .region = OB_REGION_FIRST + 4, .off = 4 * (n), .size = 4, .event = FIRST_BELL + (n) \
    }
#define FIVE_BELLS(n) BELL(n), BELL((n) + 1), BELL((n) + 2), BELL((n) + 3), BELL((n) + 4)
#define FIRST_BELL    6

const struct ob_doorbell testdev_doorbells[] = {
    FIVE_BELLS(0),
    FIVE_BELLS(5),
    FIVE_BELLS(10),
    FIVE_BELLS(15),
    { .region = 0, .off = 0x104, .size = 4, .event = 0 },
    { .region = 0, .off = 0x100, .size = 4, .event = 0 },
    { .region = 0, .off = 0x108, .size = 2, .match = true, .value = 0x1234, .event = 1 },
    { .region = 0, .off = 0x108, .size = 2, .match = true, .value = 0x4321, .event = 2 },
    { .region = 0, .off = 0x110, .size = 8, .event = 3 },
    { .region = 0, .off = 0x118, .size = 1, .event = 3 },
    { .region = 1, .off = 0x0c, .size = 4, .event = 4 },
    { .region = OB_REGION_FIRST, .off = 0x100, .size = 4, .event = 5 },
    OB_DOORBELL_END,
};

/* The event of a watched descriptor. */
static unsigned event_of(struct ob_dev *dev, int fd)
{
    unsigned event = 0;

    while (ob_doorbell_fd(dev, event) != fd)
        event++;
    return event;
}

static bool is_control(unsigned event)
{
    return event - CONTROL_FIRST < CONTROL_EVENTS;
}

static void rang_on_worker(struct ob_worker *worker, int fd, uint32_t events, void *ctx)
{
    struct ob_dev *dev = ob_worker_dev(worker);
    unsigned event = event_of(dev, fd);

    testdev_ring_rang(dev, event, (uint32_t)ob_doorbell_take(dev, event));
}

static void rang_on_control(struct ob_worker *worker, int fd, uint32_t events, void *ctx)
{
    struct ob_dev *dev = ob_worker_dev(worker);
    struct testdev *t = ob_state(dev);
    unsigned event = event_of(dev, fd);

    t->rings[event - CONTROL_FIRST] += (uint32_t)ob_doorbell_take(dev, event);
}

int testdev_doorbells_open(struct ob_dev *dev, struct ob_worker *worker)
{
    int err = 0;

    for (unsigned event = 0; !err && event < TESTDEV_EVENTS; event++)
        if (!is_control(event))
            err = ob_worker_fd(worker, ob_doorbell_fd(dev, event), EPOLLIN, rang_on_worker, NULL);
    return err;
}

int testdev_doorbells_watch(struct ob_dev *dev, bool on)
{
    int err = 0;

    for (unsigned event = CONTROL_FIRST; !err && is_control(event); event++) {
        err = ob_worker_fd(ob_control(dev), ob_doorbell_fd(dev, event), on ? EPOLLIN : 0, rang_on_control, NULL);
        if (err == -ENOENT && !on)
            err = 0;
    }
    return err;
}

int testdev_rings_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct ring_shared *shared = ob_shared(ob_req_dev(req));

    *val = is_control(index) ? req_state(req)->rings[index - CONTROL_FIRST] : atomic_load(&shared->rings[index]);
    return OB_DONE;
}

/* --- What the client is told ------------------------------------------------------------------------------------- */

void testdev_notify(struct ob_dev *dev, uint32_t what)
{
    if (what & 1)
        ob_irq_error(dev);
    if (what & 2)
        ob_irq_request(dev);
}

int testdev_notify_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct scratch *s = ob_scratch(ob_req_dev(req));

    if (val & BY_WORKER) {
        atomic_fetch_or(&s->notify, (uint32_t)val & 3);
        ob_worker_wake(s->worker);
        return OB_DONE;
    }
    testdev_notify(ob_req_dev(req), (uint32_t)val);
    return val & FAIL ? -EIO : OB_DONE;
}
