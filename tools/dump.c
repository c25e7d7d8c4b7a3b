/* tools/dump.c: `outboard dump`: whole regions of a server's device, as text or as bytes.
 *
 * A region is read by accesses of one width, as a driver reads registers, of which up to CALLS are on their way at a
 * time: the server's work bounds the rate, and not the way there and back. */
#include "target.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CALLS = 64, ROW = 16, PIECE_MAX = CALLS * 8, OPTION_RAW = TARGET_OWN, OPTION_OUTPUT, OPTION_SIZE, OPTION_WIDTH };

#define DEFAULT_LIMIT (UINT64_C(1) << 20)

struct dump {
    struct target target;
    const char *path;
    FILE *output;
    bool raw;
    uint64_t limit; /* bytes of each region */
    unsigned width; /* of an access */
    /* of the region under way */
    uint8_t last[ROW];
    bool skipping;
};

/* Reads `len` bytes at `offset`, whole accesses. Returns how many of them came before the first error, which is in
 * *err. */
static size_t read_piece(struct dump *dump, uint32_t index, uint64_t offset, uint8_t *buf, size_t len, int *err)
{
    struct ob_call calls[CALLS];
    size_t queued = 0, got = 0;

    memset(calls, 0, sizeof(calls));
    *err = 0;
    while (*err == 0 && queued * dump->width < len) {
        size_t at = queued * dump->width;

        *err = ob_client_read(dump->target.client, index, offset + at, buf + at, dump->width, &calls[queued]);
        queued += *err == 0;
    }
    /* all that were queued have to end before the buffer goes */
    for (size_t i = 0; i < queued; i++) {
        ssize_t result = ob_call_wait(dump->target.client, &calls[i]);

        if (result >= 0 && got == i)
            got++;
        else if (result < 0 && got == i)
            *err = (int)result;
    }
    return got * dump->width;
}

/* A row of text; equal rows after the first are one asterisk. */
static void print_row(struct dump *dump, uint64_t offset, const uint8_t *bytes, size_t len)
{
    if (offset > 0 && len == ROW && memcmp(dump->last, bytes, ROW) == 0) {
        if (!dump->skipping)
            fprintf(dump->output, "*\n");
        dump->skipping = true;
        return;
    }
    dump->skipping = false;
    memcpy(dump->last, bytes, len);
    fprintf(dump->output, "%08" PRIx64 ":", offset);
    for (size_t i = 0; i < len; i++)
        fprintf(dump->output, " %02x", bytes[i]);
    fputc('\n', dump->output);
}

static void print_piece(struct dump *dump, uint64_t offset, const uint8_t *bytes, size_t len)
{
    if (dump->raw) {
        fwrite(bytes, 1, len, dump->output);
        return;
    }
    for (size_t at = 0; at < len; at += ROW)
        print_row(dump, offset + at, bytes + at, len - at < ROW ? len - at : ROW);
}

static int dump_region(struct dump *dump, uint32_t index)
{
    const struct ob_client_region *region;
    char name[16], what[64];
    uint64_t size;
    int status = target_find(&dump->target, index, &region);

    if (status != 0)
        return status;
    target_region_name(index, name);
    if (!(region->flags & VFIO_REGION_INFO_FLAG_READ))
        return target_fail(&dump->target, 1, "region %s cannot be read", target_region_name(index, name));
    size = region->size < dump->limit ? region->size : dump->limit;
    if (!dump->raw)
        fprintf(dump->output, "%s: 0x%" PRIx64 " bytes\n", target_region_name(index, name), (uint64_t)region->size);
    dump->skipping = false;
    for (uint64_t offset = 0; offset < size;) {
        uint8_t piece[PIECE_MAX];
        uint64_t left = (size - offset) / dump->width * dump->width;
        size_t len = left < CALLS * dump->width ? (size_t)left : CALLS * dump->width, got;
        int err;

        if (len == 0)
            return target_fail(&dump->target, 1, "the last %" PRIu64 " bytes of %s are no whole access: see --width",
                               size - offset, target_region_name(index, name));
        got = read_piece(dump, index, offset, piece, len, &err);
        print_piece(dump, offset, piece, got);
        offset += got;
        if (err < 0) {
            snprintf(what, sizeof(what), "reading %u bytes at %s+0x%" PRIx64, dump->width,
                     target_region_name(index, name), offset);
            return target_error(&dump->target, err, what);
        }
    }
    if (!dump->raw)
        fprintf(dump->output, "%08" PRIx64 "\n", size);
    if (size < region->size)
        target_fail(&dump->target, 0,
                    "region %s is cut after 0x%" PRIx64 " of 0x%" PRIx64 " bytes; --size gives another limit",
                    target_region_name(index, name), size, (uint64_t)region->size);
    return 0;
}

static int dump_regions(struct dump *dump, const uint32_t *indexes, size_t count)
{
    const struct ob_client_region *region;
    int status = 0;

    for (size_t i = 0; i < count && status == 0; i++)
        status = dump_region(dump, indexes[i]);
    if (count > 0)
        return status;
    for (uint32_t i = 0; i < ob_client_info(dump->target.client)->regions && status == 0; i++) {
        char name[16];
        int err = ob_client_region(dump->target.client, i, &region);

        if (err < 0)
            return target_error(&dump->target, err, target_region_name(i, name));
        if (region->size > 0 && region->flags & VFIO_REGION_INFO_FLAG_READ)
            status = dump_region(dump, i);
    }
    return status;
}

static int dump_to_output(struct dump *dump, const uint32_t *indexes, size_t count)
{
    int status = target_open(&dump->target);

    if (status != 0)
        return status;
    dump->output = dump->path != NULL ? fopen(dump->path, "we") : stdout;
    if (dump->output == NULL)
        return target_fail(&dump->target, 1, "cannot write '%s': %s", dump->path, strerror(errno));
    if (count != 1 || indexes[0] != VFIO_PCI_CONFIG_REGION_INDEX)
        target_fail(&dump->target, 0, "reading the registers of a device can have side effects on it");
    status = dump_regions(dump, indexes, count);
    if (dump->path != NULL && (ferror(dump->output) | fclose(dump->output)) != 0)
        status = target_fail(&dump->target, 1, "cannot write '%s': %s", dump->path, strerror(errno));
    return status;
}

static int dump_option(void *ctx, int option)
{
    struct dump *dump = ctx;
    uint64_t number;
    int status = 0;

    switch (option) {
    case OPTION_RAW:
        dump->raw = true;
        break;
    case OPTION_OUTPUT:
        dump->path = optarg;
        break;
    case OPTION_SIZE:
        status = target_number(&dump->target, "--size", optarg, UINT64_MAX, &dump->limit);
        break;
    case OPTION_WIDTH:
        status = target_number(&dump->target, "--width", optarg, 8, &number);
        if (status == 0 && (number == 0 || (number & (number - 1)) != 0))
            status = target_fail(&dump->target, STATUS_USAGE, "--width %s: give 1, 2, 4 or 8", optarg);
        dump->width = (unsigned)number;
        break;
    }
    return status;
}

int dump_main(int argc, char **argv)
{
    static const struct option options[] = { { "raw", no_argument, NULL, OPTION_RAW },
                                             { "output", required_argument, NULL, OPTION_OUTPUT },
                                             { "size", required_argument, NULL, OPTION_SIZE },
                                             { "width", required_argument, NULL, OPTION_WIDTH },
                                             TARGET_OPTIONS };
    struct dump dump = {
        .target = { .command = "dump",
                    .usage = "Usage: outboard dump [OPTION]... SOCKET [REGION]...\n"
                             "Prints whole regions, all that can be read if none is named, in hexadecimal.\n"
                             "REGION: bar0 to bar5, rom, config, vga, or an index.\n"
                             "Reading registers can have side effects on the device.\n\n"
                             "  --raw                      the bytes themselves, of one region\n"
                             "  --output FILE              not to standard output\n"
                             "  --size BYTES               at most so much of each region (0x100000)\n"
                             "  --width WIDTH              bytes of each access: 1, 2, 4 (the default) or 8\n" },
        .limit = DEFAULT_LIMIT,
        .width = 4,
    };
    int status = target_parse(&dump.target, argc, argv, ":", options, dump_option, &dump, 0, -1);
    uint32_t *indexes;

    if (status >= 0)
        return status;
    if (dump.raw && dump.target.count != 1)
        return target_fail(&dump.target, STATUS_USAGE, "--raw writes one region: name one");
    indexes = calloc((size_t)dump.target.count + 1, sizeof(*indexes));
    if (indexes == NULL)
        return target_fail(&dump.target, 1, "out of memory");
    status = 0;
    for (int i = 0; i < dump.target.count && status == 0; i++)
        status = target_region(&dump.target, dump.target.args[i], &indexes[i]);
    if (status == 0)
        status = dump_to_output(&dump, indexes, (size_t)dump.target.count);
    free(indexes);
    return target_close(&dump.target, status);
}
