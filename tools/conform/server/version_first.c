/* version_first.c: VU-VER: commands before VERSION are refused, or end the connection, and are not executed. */
#include "irqs.h"
#include "scratch.h"
#include "version.h"

#include "../transcript.h"

#define BASE 0x10000000ull

static const uint32_t get_info[4] = { 16 };

/* Sends it as the first of a connection; false: that has ended. */
static bool refused_first(struct judge *j, uint16_t command, const void *payload, size_t size, int fd)
{
    int r;

    judge_reconnect_bare(j);
    r = call(j, command, payload, size, &fd, fd >= 0, NULL);
    want(j, r != 0, "%s before VERSION succeeded, wanted to be refused or to end the connection",
         command_name(command));
    return r != -ENOTCONN;
}

/* Whether the server still takes VERSION after such a refusal, which it need not. */
static bool begins_late(struct judge *j)
{
    return judge_version(j, 0, 0, judge_capabilities, NULL) == 0;
}

static void first_info(struct judge *j)
{
    refused_first(j, OB_RAW_GET_INFO, get_info, sizeof(get_info), -1);
}

static void first_region_info(struct judge *j)
{
    const struct vfio_region_info get = { .argsz = 32, .index = VFIO_PCI_CONFIG_REGION_INDEX };

    refused_first(j, OB_RAW_GET_REGION_INFO, &get, sizeof(get), -1);
}

static void first_io_fds(struct judge *j)
{
    const struct ob_raw_io_fds get = { .argsz = 16 };

    refused_first(j, OB_RAW_GET_REGION_IO_FDS, &get, sizeof(get), -1);
}

static void first_irq_info(struct judge *j)
{
    const struct vfio_irq_info get = { .argsz = 16 };

    refused_first(j, OB_RAW_GET_IRQ_INFO, &get, 16, -1);
}

static void first_map(struct judge *j)
{
    const struct ob_raw_dma_map map = { 32, 3, 0, BASE, j->facts.page };

    if (!refused_first(j, OB_RAW_DMA_MAP, &map, sizeof(map), -1) || !begins_late(j))
        return;
    want_refused(j, unmap(j, BASE, j->facts.page), "DMA_UNMAP of what was refused before VERSION");
}

static void first_unmap(struct judge *j)
{
    const struct ob_raw_dma_unmap all = { 24, VFIO_DMA_UNMAP_FLAG_ALL, 0, 0 };

    refused_first(j, OB_RAW_DMA_UNMAP, &all, sizeof(all), -1);
}

static void first_set_irqs(struct judge *j)
{
    const uint32_t index = irqs_any(j);
    const struct vfio_irq_set set = { .argsz = sizeof(set), .flags = EVENTFD | TRIGGER, .index = index, .count = 1 };
    int fd = judge_eventfd(j);

    judge_reconnect(j);
    irqs_on(j, index);
    if (refused_first(j, OB_RAW_SET_IRQS, &set, sizeof(set), fd) && begins_late(j)) {
        irqs_needs_loopback(j, index);
        irqs_trigger(j, index, 0, 1);
        want(j, signals(j, fd) == 0, "an eventfd that was given before VERSION was signalled");
    }
}

static void first_read(struct judge *j)
{
    const struct ob_raw_region read = { 0, VFIO_PCI_CONFIG_REGION_INDEX, 4 };

    refused_first(j, OB_RAW_REGION_READ, &read, sizeof(read), -1);
}

static void first_write(struct judge *j)
{
    uint8_t bytes[SCRATCH_WRITE_SIZE];

    judge_reconnect(j);
    scratch_begin(j);
    scratch_write(j, bytes, 1, 0, 1);
    refused_first(j, OB_RAW_REGION_WRITE, bytes + 16, sizeof(bytes) - 16, -1);
    judge_reconnect(j);
    want_scratch(j, 0, "after a write before VERSION");
}

/* There is no reply to tell what becomes of it, only the next session. */
static void first_posted(struct judge *j)
{
    uint8_t bytes[SCRATCH_WRITE_SIZE];

    judge_reconnect(j);
    scratch_begin(j);
    scratch_write(j, bytes, 1, OB_RAW_NO_REPLY, 1);
    judge_reconnect_bare(j);
    send_bytes(j, bytes, sizeof(bytes), NULL, 0);
    wait_taken(j);
    judge_reconnect(j);
    want_scratch(j, 0, "after a posted write before VERSION");
}

static void first_multi(struct judge *j)
{
    struct {
        uint64_t count;
        struct ob_raw_one_write write;
    } OB_RAW_PACKED multi = { 1, { 0, VFIO_PCI_CONFIG_REGION_INDEX, 2, { 0 } } };
    uint8_t bytes[SCRATCH_WRITE_SIZE];

    judge_reconnect(j);
    scratch_begin(j);
    scratch_write(j, bytes, 1, 0, 1);
    memcpy(&multi.write.offset, bytes + 16, sizeof(multi.write.offset));
    memcpy(multi.write.data, bytes + 32, 2);
    refused_first(j, OB_RAW_WRITE_MULTI, &multi, sizeof(multi), -1);
    judge_reconnect(j);
    want_scratch(j, 0, "after a REGION_WRITE_MULTI before VERSION");
}

static void first_reset(struct judge *j)
{
    judge_reconnect(j);
    scratch_begin(j);
    scratch_set(j, 1);
    refused_first(j, OB_RAW_RESET, NULL, 0, -1);
    judge_reconnect(j);
    want_scratch(j, 1, "after a DEVICE_RESET before VERSION");
}

static void first_feature(struct judge *j)
{
    const uint32_t get[2] = { 16, VFIO_DEVICE_FEATURE_MIGRATION | VFIO_DEVICE_FEATURE_GET };
    const uint32_t probe[2] = { 8,
                                VFIO_DEVICE_FEATURE_MIGRATION | VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_PROBE };

    refused_first(j, OB_RAW_FEATURE, get, sizeof(get), -1);
    refused_first(j, OB_RAW_FEATURE, probe, sizeof(probe), -1);
}

static void first_data(struct judge *j)
{
    const struct ob_raw_mig_data read = { 16, 8 }, write = { 8, 0 };

    refused_first(j, OB_RAW_MIG_READ, &read, sizeof(read), -1);
    refused_first(j, OB_RAW_MIG_WRITE, &write, sizeof(write), -1);
}

static void first_unknown(struct judge *j)
{
    refused_first(j, 14, NULL, 0, -1);
    refused_first(j, 0, NULL, 0, -1);
}

#define FIRST(name, title, needs, run)                           \
    {                                                            \
        { "version-first-" name, "VU-VER-2", title }, needs, run \
    }

const struct check server_version_first_checks[] = {
    FIRST("info", "GET_INFO before VERSION does not succeed", CHECK_UNCONNECTED, first_info),
    FIRST("region-info", "GET_REGION_INFO before VERSION does not succeed", CHECK_UNCONNECTED, first_region_info),
    FIRST("io-fds", "GET_REGION_IO_FDS before VERSION does not succeed", CHECK_UNCONNECTED, first_io_fds),
    FIRST("irq-info", "GET_IRQ_INFO before VERSION does not succeed", CHECK_UNCONNECTED, first_irq_info),
    FIRST("map", "DMA_MAP before VERSION maps nothing", CHECK_UNCONNECTED | NEED_MAPS, first_map),
    FIRST("unmap", "DMA_UNMAP before VERSION does not succeed", CHECK_UNCONNECTED, first_unmap),
    FIRST("set-irqs", "SET_IRQS before VERSION gives no eventfd", CHECK_UNCONNECTED | NEED_IRQ, first_set_irqs),
    FIRST("read", "REGION_READ before VERSION does not succeed", CHECK_UNCONNECTED, first_read),
    FIRST("write", "REGION_WRITE before VERSION writes nothing", CHECK_UNCONNECTED | NEED_NEXT | NEED_EARLY,
          first_write),
    FIRST("posted", "nor does a posted one", CHECK_UNCONNECTED | NEED_NEXT | NEED_EARLY, first_posted),
    FIRST("multi", "REGION_WRITE_MULTI before VERSION writes nothing", CHECK_UNCONNECTED | NEED_NEXT | NEED_EARLY,
          first_multi),
    FIRST("reset", "DEVICE_RESET before VERSION resets nothing",
          CHECK_UNCONNECTED | NEED_RESET | NEED_NEXT | NEED_EARLY, first_reset),
    FIRST("feature", "DEVICE_FEATURE before VERSION does not succeed", CHECK_UNCONNECTED, first_feature),
    FIRST("data", "MIG_DATA_READ and MIG_DATA_WRITE before VERSION do not succeed", CHECK_UNCONNECTED, first_data),
    FIRST("unknown", "unknown commands before VERSION do not succeed", CHECK_UNCONNECTED, first_unknown),
    { { NULL, NULL, NULL }, 0, NULL },
};
