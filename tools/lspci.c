/* tools/lspci.c: `outboard lspci`: the device of a server as lspci(8) shows one of this machine, and dumps that it
 * reads.
 */
#include "lspci.h"
#include "target.h"

#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>

struct lspci {
    struct target target;
    int verbose, numbers, dump;
};

static int fetch(struct lspci *lspci, struct function *f)
{
    const struct ob_client_region *region;
    struct ob_client *client = lspci->target.client;
    int err, status = target_find(&lspci->target, VFIO_PCI_CONFIG_REGION_INDEX, &region);

    if (status != 0)
        return status;
    if (region->size < PCI_STD_HEADER_SIZEOF)
        return target_fail(&lspci->target, 1,
                           "region config has %u bytes, and the header alone has 64: it is no PCI device",
                           (unsigned)region->size);
    f->size = region->size < sizeof(f->config) ? (size_t)region->size : sizeof(f->config);
    err = ob_client_read(client, VFIO_PCI_CONFIG_REGION_INDEX, 0, f->config, f->size, NULL);
    if (err < 0)
        return target_error(&lspci->target, err, "reading region config");
    for (uint32_t i = VFIO_PCI_BAR0_REGION_INDEX; i <= VFIO_PCI_ROM_REGION_INDEX; i++) {
        if (i >= ob_client_info(client)->regions)
            break;
        err = ob_client_region(client, i, &region);
        if (err < 0)
            return target_error(&lspci->target, err, "asking for a region");
        if (i == VFIO_PCI_ROM_REGION_INDEX)
            f->rom_size = region->size;
        else
            f->bar_sizes[i] = region->size;
    }
    return 0;
}

/* -x: the header; -xxx: what PCI 2.x had; -xxxx: all. */
static void show_dump(const struct function *f, int level)
{
    size_t size = level >= 4 ? PCI_CFG_SPACE_EXP_SIZE : level == 3 ? PCI_CFG_SPACE_SIZE : PCI_STD_HEADER_SIZEOF;

    for (size_t at = 0; at < size && at < f->size; at++) {
        if (at % 16 == 0)
            printf("%02zx:", at);
        printf(" %02x%s", f->config[at], at % 16 == 15 || at + 1 == f->size ? "\n" : "");
    }
}

static int show(struct lspci *lspci)
{
    struct function f = { .verbose = lspci->verbose };
    int status = fetch(lspci, &f);

    if (status != 0)
        return status;
    f.names = names_open(lspci->numbers == 0 ? NAMES_TEXT : lspci->numbers == 1 ? NAMES_NUMBERS : NAMES_BOTH);
    if (f.names == NULL)
        return target_fail(&lspci->target, 1, "out of memory");
    show_function(&f);
    if (lspci->dump > 0)
        show_dump(&f, lspci->dump);
    if (lspci->verbose > 0 || lspci->dump > 0)
        putchar('\n');
    names_close(f.names);
    return 0;
}

static int lspci_option(void *ctx, int option)
{
    struct lspci *lspci = ctx;

    if (option == 'v')
        lspci->verbose++;
    else if (option == 'n')
        lspci->numbers++;
    else
        lspci->dump++;
    return 0;
}

int lspci_main(int argc, char **argv)
{
    static const struct option options[] = { TARGET_OPTIONS };
    struct lspci lspci = {
        .target = { .command = "lspci",
                    .usage = "Usage: outboard lspci [-v]... [-n | -nn] [-x | -xxx | -xxxx] SOCKET\n"
                             "Shows the device of a server as lspci(8) does.\n\n"
                             "  -v, -vv, -vvv              more of it\n"
                             "  -n, -nn                    numbers in place of names, or both\n"
                             "  -x, -xxx, -xxxx            configuration space in hexadecimal, 64, 256 or 4096 bytes:\n"
                             "                             what 'lspci -F FILE' reads\n" },
    };
    int status = target_parse(&lspci.target, argc, argv, ":vnx", options, lspci_option, &lspci, 0, 0);

    if (status >= 0)
        return status;
    if (lspci.dump == 2)
        return target_fail(&lspci.target, STATUS_USAGE, "-xx means nothing: give -x, -xxx or -xxxx");
    status = target_open(&lspci.target);
    if (status == 0)
        status = show(&lspci);
    return target_close(&lspci.target, status);
}
