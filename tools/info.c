/* tools/info.c: `outboard info`: all that a server says of itself. One JSON object is made of it; the text for people
 * is printed from that. */
#include "target.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define IO_FDS_MAX 256

struct name {
    uint64_t bit;
    const char *name;
};

static const struct name device_flags[] = { { VFIO_DEVICE_FLAGS_RESET, "reset" }, { VFIO_DEVICE_FLAGS_PCI, "pci" } };
static const struct name region_flags[] = { { VFIO_REGION_INFO_FLAG_READ, "read" },
                                            { VFIO_REGION_INFO_FLAG_WRITE, "write" },
                                            { VFIO_REGION_INFO_FLAG_MMAP, "mmap" } };
static const struct name irq_flags[] = { { VFIO_IRQ_INFO_EVENTFD, "eventfd" },
                                         { VFIO_IRQ_INFO_MASKABLE, "maskable" },
                                         { VFIO_IRQ_INFO_AUTOMASKED, "automasked" },
                                         { VFIO_IRQ_INFO_NORESIZE, "noresize" } };
/* <linux/vfio.h> of before 6.2 has no VFIO_MIGRATION_PRE_COPY. */
static const struct name migration_flags[] = { { VFIO_MIGRATION_STOP_COPY, "stop_copy" },
                                               { VFIO_MIGRATION_P2P, "p2p" },
                                               { 1u << 2, "pre_copy" } };
static const char *const irq_names[] = { "intx", "msi", "msix", "err", "req" };
static const char *const migration_states[] = { "error",    "stop",        "running",  "stop_copy",
                                                "resuming", "running_p2p", "pre_copy", "pre_copy_p2p" };

/* The names of the bits, and one number for those without. */
static json_t *names_of(uint64_t flags, const struct name *names, size_t count)
{
    json_t *list = json_array();

    for (size_t i = 0; i < count; i++) {
        if (flags & names[i].bit)
            json_array_append_new(list, json_string(names[i].name));
        flags &= ~names[i].bit;
    }
    if (flags != 0)
        json_array_append_new(list, json_sprintf("0x%" PRIx64, flags));
    return list;
}
#define NAMES_OF(flags, names) names_of(flags, names, sizeof(names) / sizeof(names[0]))

/* 64-bit numbers whose uppermost bit may be set; JSON's are signed here. */
static json_t *hex(uint64_t number)
{
    return json_sprintf("0x%" PRIx64, number);
}

static json_t *io_fds_of(struct ob_client *client, uint32_t index)
{
    struct ob_client_io_fd list[IO_FDS_MAX];
    json_t *result = json_array();
    int count = ob_client_io_fds(client, index, list, IO_FDS_MAX);

    for (int i = 0; i < count && i < IO_FDS_MAX; i++) {
        json_array_append_new(result, json_pack("{s:s, s:o, s:o, s:i}", "type",
                                                list[i].type == 0   ? "ioeventfd"
                                                : list[i].type == 1 ? "ioregionfd"
                                                                    : "unknown",
                                                "offset", hex(list[i].offset), "size", hex(list[i].size), "flags",
                                                (int)list[i].flags));
        if (list[i].fd >= 0)
            close(list[i].fd);
    }
    return result;
}

static int add_region(const struct target *target, uint32_t index, json_t *regions)
{
    const struct ob_client_region *region;
    json_t *object, *areas;
    char name[16];
    int err = ob_client_region(target->client, index, &region);

    if (err < 0)
        return target_error(target, err, target_region_name(index, name));
    if (region->size == 0)
        return 0;
    areas = json_array();
    for (uint32_t i = 0; i < region->areas; i++)
        json_array_append_new(
            areas, json_pack("{s:o, s:o}", "offset", hex(region->area[i].offset), "size", hex(region->area[i].size)));
    object = json_pack("{s:I, s:s, s:o, s:o, s:o, s:o}", "index", (json_int_t)index, "name",
                       target_region_name(index, name), "size", hex(region->size), "flags",
                       NAMES_OF(region->flags & ~(uint32_t)VFIO_REGION_INFO_FLAG_CAPS, region_flags), "areas", areas,
                       "io_fds", io_fds_of(target->client, index));
    if (region->typed)
        json_object_set_new(
            object, "type",
            json_pack("{s:I, s:I}", "type", (json_int_t)region->type, "subtype", (json_int_t)region->subtype));
    json_array_append_new(regions, object);
    return 0;
}

static int add_irq(const struct target *target, uint32_t index, json_t *irqs)
{
    struct ob_client_irq irq;
    int err = ob_client_irq(target->client, index, &irq);
    json_t *object;

    if (err < 0)
        return target_error(target, err, "asking for an interrupt");
    if (irq.count == 0)
        return 0;
    object = json_pack("{s:I, s:I, s:o}", "index", (json_int_t)index, "count", (json_int_t)irq.count, "flags",
                       NAMES_OF(irq.flags, irq_flags));
    if (index < sizeof(irq_names) / sizeof(irq_names[0]))
        json_object_set_new(object, "name", json_string(irq_names[index]));
    json_array_append_new(irqs, object);
    return 0;
}

/* null: the device cannot migrate. */
static json_t *migration_of(struct ob_client *client)
{
    uint64_t flags, size;
    uint32_t state;
    json_t *object;

    if (ob_client_migration_flags(client, &flags) < 0)
        return json_null();
    object = json_pack("{s:o}", "flags", NAMES_OF(flags, migration_flags));
    if (ob_client_migration_state(client, &state) >= 0)
        json_object_set_new(object, "state",
                            state < sizeof(migration_states) / sizeof(migration_states[0])
                                ? json_string(migration_states[state])
                                : json_sprintf("%" PRIu32, state));
    if (ob_client_migration_size(client, &size) >= 0)
        json_object_set_new(object, "size", hex(size));
    return object;
}

static bool logs_dirty_pages(struct ob_client *client)
{
    uint32_t flags = VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START;

    return ob_client_feature(client, flags, NULL, 0, 0, NULL) >= 0;
}

static int collect(const struct target *target, json_t *root)
{
    const struct ob_client_info *info = ob_client_info(target->client);
    json_t *regions = json_array(), *irqs = json_array();
    int status = 0;

    json_object_set_new(root, "protocol",
                        json_pack("{s:i, s:i, s:I, s:I, s:I, s:o, s:b, s:b}", "major", info->major, "minor",
                                  info->minor, "max_data_xfer_size", (json_int_t)info->max_data_xfer_size,
                                  "max_msg_fds", (json_int_t)info->max_msg_fds, "max_dma_maps",
                                  (json_int_t)info->max_dma_maps, "pgsizes", hex(info->pgsizes), "write_multiple",
                                  info->write_multi, "twin_socket", info->twin_socket));
    json_object_set_new(root, "flags", NAMES_OF(info->flags, device_flags));
    json_object_set_new(root, "regions", regions);
    json_object_set_new(root, "irqs", irqs);
    for (uint32_t i = 0; i < info->regions && status == 0; i++)
        status = add_region(target, i, regions);
    for (uint32_t i = 0; i < info->irqs && status == 0; i++)
        status = add_irq(target, i, irqs);
    if (status != 0)
        return status;
    json_object_set_new(root, "migration", migration_of(target->client));
    json_object_set_new(root, "dirty_logging", json_boolean(logs_dirty_pages(target->client)));
    if (ob_client_why(target->client)[0] != '\0')
        return target_error(target, -ENOTCONN, "asking for features");
    return 0;
}

/* --- The text ---------------------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "?";
}

static json_int_t number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static void print_list(const json_t *list)
{
    size_t i;
    json_t *item;

    json_array_foreach(list, i, item) printf("%s%s", i > 0 ? " " : "", json_string_value(item));
    if (json_array_size(list) == 0)
        printf("none");
}

static void print_region(const json_t *region)
{
    const json_t *type = json_object_get(region, "type");
    size_t i;
    json_t *item;

    printf("region %-6s  %12s bytes  ", text_of(region, "name"), text_of(region, "size"));
    print_list(json_object_get(region, "flags"));
    if (type != NULL)
        printf("  type %" JSON_INTEGER_FORMAT "/%" JSON_INTEGER_FORMAT, number_of(type, "type"),
               number_of(type, "subtype"));
    putchar('\n');
    json_array_foreach(json_object_get(region, "areas"), i, item)
        printf("  mappable at %s, %s bytes\n", text_of(item, "offset"), text_of(item, "size"));
    json_array_foreach(json_object_get(region, "io_fds"), i, item)
        printf("  %s at %s, %s bytes\n", text_of(item, "type"), text_of(item, "offset"), text_of(item, "size"));
}

static void print_text(const json_t *root)
{
    const json_t *protocol = json_object_get(root, "protocol"), *migration = json_object_get(root, "migration");
    size_t i;
    json_t *item;

    printf("protocol       %" JSON_INTEGER_FORMAT ".%" JSON_INTEGER_FORMAT "\n", number_of(protocol, "major"),
           number_of(protocol, "minor"));
    printf("limits         max_data_xfer_size %" JSON_INTEGER_FORMAT ", max_msg_fds %" JSON_INTEGER_FORMAT
           ", max_dma_maps %" JSON_INTEGER_FORMAT ", pgsizes %s\n",
           number_of(protocol, "max_data_xfer_size"), number_of(protocol, "max_msg_fds"),
           number_of(protocol, "max_dma_maps"), text_of(protocol, "pgsizes"));
    printf("in use         write_multiple %s, twin_socket %s\n",
           json_is_true(json_object_get(protocol, "write_multiple")) ? "yes" : "no",
           json_is_true(json_object_get(protocol, "twin_socket")) ? "yes" : "no");
    printf("device         ");
    print_list(json_object_get(root, "flags"));
    putchar('\n');
    json_array_foreach(json_object_get(root, "regions"), i, item) print_region(item);
    json_array_foreach(json_object_get(root, "irqs"), i, item)
    {
        printf("irq %" JSON_INTEGER_FORMAT " %-5s    %" JSON_INTEGER_FORMAT " vectors  ", number_of(item, "index"),
               text_of(item, "name"), number_of(item, "count"));
        print_list(json_object_get(item, "flags"));
        putchar('\n');
    }
    printf("migration      ");
    if (json_is_null(migration)) {
        printf("no\n");
    } else {
        print_list(json_object_get(migration, "flags"));
        printf(", state %s, size %s\n", text_of(migration, "state"), text_of(migration, "size"));
    }
    printf("dirty logging  %s\n", json_is_true(json_object_get(root, "dirty_logging")) ? "yes" : "no");
}

static int info_option(void *ctx, int option)
{
    *(bool *)ctx = true;
    return 0;
}

int info_main(int argc, char **argv)
{
    static const struct option options[] = { { "json", no_argument, NULL, TARGET_OWN }, TARGET_OPTIONS };
    struct target target = {
        .command = "info",
        .usage = "Usage: outboard info [--json] SOCKET\n"
                 "Shows what a server says of itself: protocol, limits, regions, interrupts, migration.\n\n"
                 "  --json                     a JSON object; outboard-info(1) tells its keys\n",
    };
    bool json = false;
    int status = target_parse(&target, argc, argv, ":", options, info_option, &json, 0, 0);
    json_t *root;

    if (status >= 0)
        return status;
    status = target_open(&target);
    root = json_object();
    if (status == 0)
        status = collect(&target, root);
    if (status == 0 && json)
        json_dumpf(root, stdout, JSON_INDENT(2));
    if (status == 0 && json)
        putchar('\n');
    else if (status == 0)
        print_text(root);
    json_decref(root);
    return target_close(&target, status);
}
