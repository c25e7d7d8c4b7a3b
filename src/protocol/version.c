/* The JSON text of VERSION, read and written with jansson. A peer's text is hostile: its size is bounded before it is
 * parsed, which bounds its nesting and its memory, and every value is checked for its type and range. */
#include "protocol/version.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "protocol/message.h"

const struct ob_capabilities ob_capabilities_default = {
    .max_msg_fds = OB_DEFAULT_MAX_MSG_FDS,
    .max_data_xfer_size = OB_DEFAULT_MAX_DATA_XFER_SIZE,
    .max_dma_maps = 65535,
    .pgsizes = 4096,
    .write_multiple = false,
    .twin_socket = { .supported = false, .fd_index = -1 },
    .migration = { .pgsize = 4096, .max_bitmap_size = UINT64_C(256) << 20 }, /* what QEMU and the kernel take */
};

struct complaint {
    char *text;
    size_t room;
};

__attribute__((format(printf, 2, 3))) static int complain(const struct complaint *why, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (why->room > 0)
        vsnprintf(why->text, why->room, format, args);
    va_end(args);
    return -EINVAL;
}

/* An absent key leaves *value as it is. */
static int read_number(const json_t *object, const char *key, uint64_t min, uint64_t max, uint64_t *value,
                       const struct complaint *why)
{
    const json_t *number = json_object_get(object, key);
    json_int_t n;

    if (!number)
        return 0;
    if (!json_is_integer(number))
        return complain(why, "capability %s has to be a whole number", key);
    n = json_integer_value(number);
    if (n < 0 || (uint64_t)n < min || (uint64_t)n > max)
        return complain(why, "capability %s is %" JSON_INTEGER_FORMAT ", has to be %" PRIu64 " to %" PRIu64, key, n,
                        min, max);
    *value = (uint64_t)n;
    return 0;
}

static int read_bool(const json_t *object, const char *key, bool *value, const struct complaint *why)
{
    const json_t *boolean = json_object_get(object, key);

    if (!boolean)
        return 0;
    if (!json_is_boolean(boolean))
        return complain(why, "capability %s has to be true or false", key);
    *value = json_is_true(boolean);
    return 0;
}

/* 1: *member is the object; 0: there is none. */
static int read_object(const json_t *object, const char *key, const json_t **member, const struct complaint *why)
{
    *member = json_object_get(object, key);
    if (!*member)
        return 0;
    return json_is_object(*member) ? 1 : complain(why, "%s has to be an object", key);
}

static int read_twin_socket(struct ob_capabilities *caps, const json_t *object, const struct complaint *why)
{
    uint64_t fd_index = UINT64_MAX;
    const json_t *twin;
    int err = read_object(object, "twin_socket", &twin, why);

    if (err <= 0)
        return err;
    err = read_bool(twin, "supported", &caps->twin_socket.supported, why);
    if (!err)
        err = read_number(twin, "fd_index", 0, INT_MAX, &fd_index, why);
    if (!err && fd_index != UINT64_MAX)
        caps->twin_socket.fd_index = (int)fd_index;
    return err;
}

static int read_migration(struct ob_capabilities *caps, const json_t *object, const struct complaint *why)
{
    const json_t *migration;
    int err = read_object(object, "migration", &migration, why);

    if (err <= 0)
        return err;
    err = read_number(migration, "pgsize", 1, INT64_MAX, &caps->migration.pgsize, why);
    if (!err && __builtin_popcountll(caps->migration.pgsize) != 1)
        err = complain(why, "capability pgsize is %" PRIu64 ", has to be a power of two", caps->migration.pgsize);
    if (!err)
        err = read_number(migration, "max_bitmap_size", 0, INT64_MAX, &caps->migration.max_bitmap_size, why);
    return err;
}

static int read_capabilities(struct ob_capabilities *caps, const json_t *object, const struct complaint *why)
{
    uint64_t fds = caps->max_msg_fds, xfer = caps->max_data_xfer_size, maps = caps->max_dma_maps;
    int err = read_number(object, "max_msg_fds", 0, UINT32_MAX, &fds, why);

    if (!err)
        err = read_number(object, "max_data_xfer_size", 1, UINT32_MAX, &xfer, why);
    if (!err)
        err = read_number(object, "max_dma_maps", 0, UINT32_MAX, &maps, why);
    if (!err)
        err = read_number(object, "pgsizes", 1, INT64_MAX, &caps->pgsizes, why);
    if (!err)
        err = read_bool(object, "write_multiple", &caps->write_multiple, why);
    if (!err)
        err = read_twin_socket(caps, object, why);
    if (!err)
        err = read_migration(caps, object, why);
    caps->max_msg_fds = (uint32_t)fds;
    caps->max_data_xfer_size = (uint32_t)xfer;
    caps->max_dma_maps = (uint32_t)maps;
    return err;
}

static int read_text(struct ob_capabilities *caps, const char *text, size_t length, const struct complaint *why)
{
    const json_t *object;
    json_error_t error;
    json_t *top = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    int err;

    if (!top && json_error_code(&error) == json_error_out_of_memory)
        return -ENOMEM;
    if (!top)
        return complain(why, "the version data is not JSON: %s at byte %d", error.text, error.position);
    if (!json_is_object(top)) {
        err = complain(why, "the version data has to be a JSON object");
    } else {
        err = read_object(top, "capabilities", &object, why);
        if (err > 0)
            err = read_capabilities(caps, object, why);
    }
    json_decref(top);
    return err;
}

int ob_version_parse(struct ob_capabilities *caps, const void *text, size_t size, char *why, size_t why_size)
{
    struct complaint complaint = { why, why_size };
    struct ob_capabilities result = ob_capabilities_default;
    const char *end;
    int err = 0;

    if (why_size > 0)
        why[0] = '\0';
    if (size > OB_VERSION_MAX_TEXT)
        return complain(&complaint, "the version data has %zu bytes, at most %d are taken", size, OB_VERSION_MAX_TEXT);
    if (size > 0) {
        end = memchr(text, '\0', size);
        if (!end)
            return complain(&complaint, "the version data does not end in NUL");
        if (end != (const char *)text + size - 1)
            return complain(&complaint, "the version data has a NUL at byte %td of %zu", end - (const char *)text,
                            size);
        err = read_text(&result, text, size - 1, &complaint);
    }
    if (!err)
        *caps = result;
    return err;
}

static json_t *twin_socket_object(const struct ob_capabilities *caps)
{
    if (caps->twin_socket.fd_index < 0)
        return json_pack("{s:b}", "supported", 1);
    return json_pack("{s:b,s:i}", "supported", 1, "fd_index", caps->twin_socket.fd_index);
}

ssize_t ob_version_encode(char *buf, size_t room, const struct ob_capabilities *caps)
{
    json_t *object, *top;
    size_t length;

    if (caps->max_data_xfer_size == 0 || caps->pgsizes == 0 || caps->pgsizes > INT64_MAX ||
        __builtin_popcountll(caps->migration.pgsize) != 1 || caps->migration.pgsize > INT64_MAX ||
        caps->migration.max_bitmap_size > INT64_MAX)
        return -EINVAL;
    object = json_pack("{s:I,s:I,s:I,s:I,s:b,s:{s:I,s:I}}", "max_msg_fds", (json_int_t)caps->max_msg_fds,
                       "max_data_xfer_size", (json_int_t)caps->max_data_xfer_size, "max_dma_maps",
                       (json_int_t)caps->max_dma_maps, "pgsizes", (json_int_t)caps->pgsizes, "write_multiple",
                       (int)caps->write_multiple, "migration", "pgsize", (json_int_t)caps->migration.pgsize,
                       "max_bitmap_size", (json_int_t)caps->migration.max_bitmap_size);
    if (object && caps->twin_socket.supported &&
        json_object_set_new(object, "twin_socket", twin_socket_object(caps)) != 0) {
        json_decref(object);
        object = NULL;
    }
    top = object ? json_pack("{s:o}", "capabilities", object) : NULL;
    if (!top)
        return -ENOMEM;
    length = json_dumpb(top, buf, room, JSON_COMPACT);
    json_decref(top);
    if (length == 0)
        return -ENOMEM;
    if (length >= room)
        return -ENOBUFS;
    buf[length] = '\0';
    return (ssize_t)length + 1;
}
