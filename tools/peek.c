/* tools/peek.c: `outboard peek` and `outboard poke`: single accesses to a region of a server's device. */
#include "target.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_WIDTH 4

static int parse_width(const struct target *target, const char *text, unsigned *width)
{
    static const struct {
        const char *name;
        unsigned width;
    } widths[] = { { "1", 1 }, { "2", 2 }, { "4", 4 }, { "8", 8 }, { "b", 1 }, { "w", 2 }, { "l", 4 }, { "q", 8 } };

    for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++) {
        if (strcmp(widths[i].name, text) == 0) {
            *width = widths[i].width;
            return 0;
        }
    }
    return target_fail(target, STATUS_USAGE, "'%.64s' is no width: give 1, 2, 4, 8, or b, w, l, q", text);
}

/* The region, if it permits `flag` and has `count` accesses of `width` bytes at `offset`. */
static int check_range(const struct target *target, uint32_t index, uint64_t offset, uint64_t count, unsigned width,
                       uint32_t flag, const struct ob_client_region **region)
{
    char name[16];
    int status = target_find(target, index, region);

    if (status != 0)
        return status;
    if (!((*region)->flags & flag))
        return target_fail(target, 1, "region %s cannot be %s", target_region_name(index, name),
                           flag == VFIO_REGION_INFO_FLAG_READ ? "read" : "written");
    if (offset >= (*region)->size || count > ((*region)->size - offset) / width)
        return target_fail(
            target, 1, "%" PRIu64 " x %u bytes at 0x%" PRIx64 " reach beyond region %s, which has 0x%" PRIx64 " bytes",
            count, width, offset, target_region_name(index, name), (uint64_t)(*region)->size);
    return 0;
}

static int read_one(const struct target *target, uint32_t index, uint64_t offset, unsigned width, uint64_t *value)
{
    uint64_t little = 0;
    char name[16], what[64];
    int err = ob_client_read(target->client, index, offset, &little, width, NULL);

    *value = le64toh(little);
    if (err >= 0)
        return 0;
    snprintf(what, sizeof(what), "reading %u bytes at %s+0x%" PRIx64, width, target_region_name(index, name), offset);
    return target_error(target, err, what);
}

static int peek(struct target *target, uint32_t index, uint64_t offset, unsigned width, uint64_t count)
{
    const struct ob_client_region *region;
    int status = check_range(target, index, offset, count, width, VFIO_REGION_INFO_FLAG_READ, &region);

    for (uint64_t i = 0; status == 0 && i < count; i++, offset += width) {
        uint64_t value;

        status = read_one(target, index, offset, width, &value);
        if (status == 0 && count > 1)
            printf("0x%08" PRIx64 ": ", offset);
        if (status == 0)
            printf("0x%0*" PRIx64 "\n", (int)width * 2, value);
    }
    return status;
}

int peek_main(int argc, char **argv)
{
    static const struct option options[] = { TARGET_OPTIONS };
    struct target target = {
        .command = "peek",
        .usage = "Usage: outboard peek SOCKET REGION OFFSET [WIDTH] [COUNT]\n"
                 "Reads COUNT (1) times WIDTH (4) bytes from OFFSET on, each by one access, and prints them.\n"
                 "REGION: bar0 to bar5, rom, config, vga, or an index. WIDTH: 1, 2, 4, 8, or b, w, l, q.\n"
                 "Reading a register can have side effects.\n\n",
    };
    uint64_t offset, count = 1;
    unsigned width = DEFAULT_WIDTH;
    uint32_t index;
    int status = target_parse(&target, argc, argv, ":", options, NULL, NULL, 2, 4);

    if (status >= 0)
        return status;
    status = target_region(&target, target.args[0], &index);
    if (status == 0)
        status = target_number(&target, "OFFSET", target.args[1], UINT64_MAX, &offset);
    if (status == 0 && target.count > 2)
        status = parse_width(&target, target.args[2], &width);
    if (status == 0 && target.count > 3)
        status = target_number(&target, "COUNT", target.args[3], UINT32_MAX, &count);
    if (status == 0 && count == 0)
        status = target_fail(&target, STATUS_USAGE, "COUNT 0 reads nothing: give 1 or more");
    if (status == 0)
        status = target_open(&target);
    if (status == 0)
        status = peek(&target, index, offset, width, count);
    return target_close(&target, status);
}

static int poke(struct target *target, uint32_t index, uint64_t offset, unsigned width, uint64_t value, bool verify)
{
    const struct ob_client_region *region;
    uint64_t little = htole64(value), now;
    char name[16], what[64];
    int err, status = check_range(target, index, offset, 1, width, VFIO_REGION_INFO_FLAG_WRITE, &region);

    if (status == 0 && verify && !(region->flags & VFIO_REGION_INFO_FLAG_READ))
        status =
            target_fail(target, 1, "region %s cannot be read: leave --verify out", target_region_name(index, name));
    if (status != 0)
        return status;
    err = ob_client_write(target->client, index, offset, &little, width, NULL);
    if (err < 0) {
        snprintf(what, sizeof(what), "writing %u bytes at %s+0x%" PRIx64, width, target_region_name(index, name),
                 offset);
        return target_error(target, err, what);
    }
    if (!verify)
        return 0;
    status = read_one(target, index, offset, width, &now);
    if (status == 0 && now != value)
        status = target_fail(target, 1, "0x%0*" PRIx64 " was written, and 0x%0*" PRIx64 " is read back", (int)width * 2,
                             value, (int)width * 2, now);
    return status;
}

static int poke_option(void *ctx, int option)
{
    *(bool *)ctx = true;
    return 0;
}

int poke_main(int argc, char **argv)
{
    static const struct option options[] = { { "verify", no_argument, NULL, TARGET_OWN }, TARGET_OPTIONS };
    struct target target = {
        .command = "poke",
        .usage = "Usage: outboard poke SOCKET REGION OFFSET VALUE [WIDTH]\n"
                 "Writes VALUE, WIDTH (4) bytes, at OFFSET by one access.\n"
                 "REGION: bar0 to bar5, rom, config, vga, or an index. WIDTH: 1, 2, 4, 8, or b, w, l, q.\n\n"
                 "  --verify                   read it back, and fail if it is another value\n",
    };
    uint64_t offset, value;
    unsigned width = DEFAULT_WIDTH;
    uint32_t index;
    bool verify = false;
    int status = target_parse(&target, argc, argv, ":", options, poke_option, &verify, 3, 4);

    if (status >= 0)
        return status;
    status = target_region(&target, target.args[0], &index);
    if (status == 0)
        status = target_number(&target, "OFFSET", target.args[1], UINT64_MAX, &offset);
    if (status == 0 && target.count > 3)
        status = parse_width(&target, target.args[3], &width);
    if (status == 0)
        status = target_number(&target, "VALUE", target.args[2], UINT64_MAX >> (64 - 8 * width), &value);
    if (status == 0)
        status = target_open(&target);
    if (status == 0)
        status = poke(&target, index, offset, width, value, verify);
    return target_close(&target, status);
}
