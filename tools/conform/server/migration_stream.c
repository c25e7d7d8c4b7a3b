/* migration_stream.c: VU-MIG: what a stream carries, to the same device and to another process, and where it begins. */
#include "migrate.h"

/* What of a device is compared. */
enum part { CONFIG, MEMORY, REGISTERS };

static void only(struct judge *j, struct image *image, enum part part)
{
    if (part == REGISTERS && image->registers_size == 0)
        judge_skip(j, "the registers of this device are not known");
    image->config_size = part == CONFIG ? image->config_size : 0;
    image->memory_size = part == MEMORY ? image->memory_size : 0;
    image->registers_size = part == REGISTERS ? image->registers_size : 0;
}

/* The device, in STOP, is sent the stream, and runs. */
static void load(struct judge *j, const struct stream *stream)
{
    stream_load(j, stream);
    want_ok(j, state_set(j, STOP), "RESUMING to STOP with a stream that is whole");
    state_go(j, RUNNING);
}

static void same_device(struct judge *j, enum part part)
{
    const struct image found = device_begin(j);
    struct image marked;
    struct stream stream;

    image_mark(j, 1);
    marked = image_take(j);
    only(j, &marked, part);
    stream = stream_save(j);
    state_go(j, RUNNING);
    image_mark(j, 2);
    state_go(j, STOP);
    load(j, &stream);
    want_image(j, &marked, "loaded with its own stream, the device");
    device_end(j, &found);
}

static void check_same_config(struct judge *j)
{
    same_device(j, CONFIG);
}

static void check_same_memory(struct judge *j)
{
    same_device(j, MEMORY);
}

static void check_same_registers(struct judge *j)
{
    same_device(j, REGISTERS);
}

static void other_device(struct judge *j, enum part part)
{
    const struct image found = device_begin(j);
    struct image marked;
    struct stream stream;

    image_mark(j, 1);
    marked = image_take(j);
    only(j, &marked, part);
    stream = stream_save(j);
    judge_second(j);
    state_go(j, STOP);
    load(j, &stream);
    want_image(j, &marked, "loaded into a second process, the device");
    judge_first(j);
    device_end(j, &found);
}

static void check_other_config(struct judge *j)
{
    other_device(j, CONFIG);
}

static void check_other_memory(struct judge *j)
{
    other_device(j, MEMORY);
}

static void check_other_registers(struct judge *j)
{
    other_device(j, REGISTERS);
}

/* As a client does it that lets the device run as long as it can. What changes in PRE_COPY counts. */
static void check_other_pre_copy(struct judge *j)
{
    const struct image found = device_begin(j);
    struct stream stream = { NULL, 0 };
    struct image marked;

    image_mark(j, 2);
    state_go(j, PRE_COPY);
    stream_read(j, UINT32_MAX, &stream);
    image_mark(j, 1);
    marked = image_take(j);
    state_go(j, STOP_COPY);
    stream_read(j, UINT32_MAX, &stream);
    judge_second(j);
    state_go(j, RESUMING);
    want_ok(j, stream_write(j, UINT32_MAX, &stream), "MIG_DATA_WRITE");
    state_go(j, RUNNING);
    want_device(j, &marked, "loaded with what was read in PRE_COPY and STOP_COPY, the device");
    judge_first(j);
    device_end(j, &found);
}

/* --- Where a stream begins --------------------------------------------------------------------------------------- */

/* The device is in STOP_COPY, and was marked. What was read has to be a whole stream. */
static void want_whole(struct judge *j, const struct stream *stream, const struct image *marked, const char *what)
{
    state_go(j, STOP);
    state_go(j, RUNNING);
    image_mark(j, 2);
    state_go(j, STOP);
    state_go(j, RESUMING);
    want_ok(j, stream_write(j, UINT32_MAX, stream), what);
    want_ok(j, state_set(j, RUNNING), what);
    want_device(j, marked, what);
}

static void check_new_stream(struct judge *j)
{
    const struct image found = device_begin(j);
    struct stream half = { NULL, 0 }, stream = { NULL, 0 };
    struct image marked;
    size_t whole;

    image_mark(j, 1);
    marked = image_take(j);
    whole = stream_save(j).size;
    state_go(j, STOP_COPY);
    stream_read_some(j, (whole + 1) / 2, &half);
    state_go(j, STOP);
    state_go(j, STOP_COPY);
    stream_read(j, UINT32_MAX, &stream);
    want_whole(j, &stream, &marked, "a stream begun anew after half of one");
    device_end(j, &found);
}

static void check_new_pre_copy(struct judge *j)
{
    const struct image found = device_begin(j);
    struct stream before = { NULL, 0 }, stream = { NULL, 0 };
    struct image marked;

    image_mark(j, 1);
    marked = image_take(j);
    state_go(j, PRE_COPY);
    stream_read(j, UINT32_MAX, &before);
    state_go(j, RUNNING);
    state_go(j, PRE_COPY);
    stream_read(j, UINT32_MAX, &stream);
    state_go(j, STOP_COPY);
    stream_read(j, UINT32_MAX, &stream);
    want_whole(j, &stream, &marked, "a stream begun anew in PRE_COPY");
    device_end(j, &found);
}

/* What was not read in PRE_COPY is read in STOP_COPY, and what was is not read again. */
static void check_goes_on(struct judge *j)
{
    const struct image found = device_begin(j);
    struct stream all = { NULL, 0 }, stream = { NULL, 0 };
    struct image marked;

    image_mark(j, 1);
    marked = image_take(j);
    state_go(j, PRE_COPY);
    stream_read(j, UINT32_MAX, &all);
    if (all.size < 2)
        judge_skip(j, "there are %zu bytes to read in PRE_COPY", all.size);
    state_go(j, RUNNING);
    state_go(j, PRE_COPY);
    stream_read_some(j, all.size / 2, &stream);
    state_go(j, STOP_COPY);
    stream_read(j, UINT32_MAX, &stream);
    want_whole(j, &stream, &marked, "a stream read half in PRE_COPY, the rest in STOP_COPY");
    device_end(j, &found);
}

/* clang-format off: a line or two for each check. */
#define M NEED_MIGRATION
const struct check server_migration_stream_checks[] = {
    { { "migration-same-config", "VU-MIG-43", "its own stream gives a device its configuration space back" },
      M,
      check_same_config },
    { { "migration-same-memory", "VU-MIG-36", "its own stream gives a device the memory of its BARs back" },
      M | NEED_MAPPABLE,
      check_same_memory },
    { { "migration-same-registers", "VU-MIG-36", "its own stream gives a device its registers back" },
      M,
      check_same_registers },
    { { "migration-other-config", "VU-MIG-43", "a second process gets the same configuration space" },
      M | NEED_SPAWN,
      check_other_config },
    { { "migration-other-memory", "VU-MIG-36", "a second process gets the same memory of BARs" },
      M | NEED_SPAWN | NEED_MAPPABLE,
      check_other_memory },
    { { "migration-other-registers", "VU-MIG-36", "a second process gets the same registers" },
      M | NEED_SPAWN,
      check_other_registers },
    { { "migration-other-pre-copy", "VU-MIG-36", "what is read in PRE_COPY and STOP_COPY has all that changed" },
      M | NEED_SPAWN | NEED_PRE_COPY,
      check_other_pre_copy },
    { { "migration-new-stream", "VU-MIG-37", "STOP_COPY entered again begins a new stream" }, M, check_new_stream },
    { { "migration-new-pre-copy", "VU-MIG-37", "PRE_COPY entered again begins a new stream" },
      M | NEED_PRE_COPY,
      check_new_pre_copy },
    { { "migration-goes-on", "VU-MIG-37", "PRE_COPY to STOP_COPY goes on where the stream was" },
      M | NEED_PRE_COPY,
      check_goes_on },
    { { NULL, NULL, NULL }, 0, NULL },
};
/* clang-format on */
