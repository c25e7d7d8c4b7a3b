/* Composes messages from a fuzz target's bytes.
 *
 * The grammar, in bytes of the input: command, mode (bits below), then each field of the fixed part as take_number()
 * has it, where 0 for argsz or for a count of data stands for the right one; then the tail. */
#include "compose.h"

#include <stdlib.h>

#include "protocol/version.h"

enum { MODE_NO_REPLY = 1, MODE_FLAGS = 2, MODE_SIZE = 4, MODE_EXCESS = 8, MODE_ID = 16, MODE_ERROR = 32 };

uint64_t take_number(struct input *in, unsigned width)
{
    static const uint64_t round[32] = {
        0x1000,     0x2000,    0x3000,     0x4000,     0x8000,         0x10000,   0x100000,   0x101000,
        0x110000,   0x200000,  0x40000,    0xfffff000, 1ull << 32,     ~0xfffull, UINT64_MAX, INT64_MAX,
        1ull << 63, INT32_MAX, 1ull << 31, UINT32_MAX, UINT32_MAX - 1, 0xffff,    0x10001,    0xff,
        0x100,      0x200,     0x800,      0x801,      0xfff,          0x100001,  32769,      1ull << 40,
    };
    uint8_t selector = take8(in);

    if (selector < 0xc0)
        return selector;
    if (selector < 0xe0)
        return round[selector - 0xc0];
    return take(in, width);
}

struct draft {
    uint8_t *at; /* where the next byte goes */
    size_t room;
};

static void put(struct draft *draft, const void *bytes, size_t size)
{
    size = size < draft->room ? size : draft->room;
    if (size > 0)
        memcpy(draft->at, bytes, size);
    draft->at += size;
    draft->room -= size;
}

/* `size` bytes of which the input gives the first ones. */
static void put_filled(struct draft *draft, struct input *in, size_t size)
{
    size_t given;
    const uint8_t *bytes = take_bytes(in, size < 32 ? size : take8(in) % 64, &given);

    size = size < draft->room ? size : draft->room;
    given = given < size ? given : size;
    put(draft, bytes, given);
    memset(draft->at, (int)given, size - given);
    draft->at += size - given;
    draft->room -= size - given;
}

static void put_number(struct draft *draft, struct input *in, unsigned width)
{
    uint64_t value = take_number(in, width);

    put(draft, &value, width);
}

static void put_json(struct draft *draft, struct input *in)
{
    uint8_t length = take8(in);
    char text[OB_VERSION_MAX_TEXT];

    if (length == 0) {
        struct ob_capabilities caps = ob_capabilities_default;
        caps.write_multiple = true;
        caps.max_msg_fds = 16;
        caps.twin_socket.supported = take8(in) & 1;
        ssize_t size = ob_version_encode(text, sizeof(text), &caps);
        promise(size > 0);
        put(draft, text, (size_t)size);
    } else if (length > 1) {
        size_t given;
        const uint8_t *bytes = take_bytes(in, length, &given);
        put(draft, bytes, given);
        put(draft, "", 1);
    }
}

static void put_writes(struct draft *draft, struct input *in, uint64_t count)
{
    for (uint64_t i = 0; i < count && input_left(in); i++) {
        put_number(draft, in, 8);
        put_number(draft, in, 4);
        put_number(draft, in, 4);
        put_filled(draft, in, 8);
    }
}

static void put_tail(struct draft *draft, struct input *in, const struct ob_part *part, uint64_t count, uint32_t flags)
{
    switch ((enum ob_tail)part->tail) {
    case OB_TAIL_NONE:
        break;
    case OB_TAIL_JSON:
        put_json(draft, in);
        break;
    case OB_TAIL_IRQS:
        if (flags & VFIO_IRQ_SET_DATA_BOOL)
            put_filled(draft, in, count < 4096 ? count : 4096);
        break;
    case OB_TAIL_DATA:
        put_filled(draft, in, count < COMPOSE_MAX / 2 ? count : 0);
        break;
    case OB_TAIL_WRITES:
        put_writes(draft, in, count);
        break;
    case OB_TAIL_GROWN:
    case OB_TAIL_CAPS:
    case OB_TAIL_IO_FDS:
    case OB_TAIL_FEATURE:
        put_filled(draft, in, take_number(in, 2));
        break;
    }
}

/* The fixed part; *count and *flags become what its fields of these names say. */
static void put_fields(struct draft *draft, struct input *in, const struct ob_part *part, uint64_t *count,
                       uint32_t *flags)
{
    for (size_t i = 0; i < part->nfields; i++) {
        const struct ob_wire_field *f = &part->fields[i];
        uint64_t value = take_number(in, f->width);
        if (f->counts && value == 0 && part->tail == OB_TAIL_DATA)
            value = 4;
        if (f->counts)
            *count = value;
        if (strcmp(f->name, "flags") == 0)
            *flags = (uint32_t)value;
        put(draft, &value, f->width);
    }
}

static uint16_t take_command(struct input *in)
{
    uint8_t command = take8(in);

    return command < 0xf0 ? command % 20 : (uint16_t)take(in, 2);
}

size_t compose(struct input *in, uint8_t *to, uint16_t id, const struct ob_message *answer, bool *framed)
{
    struct ob_header header = { .id = id, .command = take_command(in) };
    uint8_t mode = take8(in);
    struct draft draft = { to + OB_HEADER_SIZE, COMPOSE_MAX - OB_HEADER_SIZE };

    if (answer) {
        header.id = answer->header.id;
        header.command = answer->header.command;
        header.flags = OB_FLAG_REPLY | (mode & MODE_ERROR ? OB_FLAG_ERROR : 0);
        header.error = mode & MODE_ERROR ? (uint32_t)take_number(in, 4) : 0;
    } else if (mode & MODE_NO_REPLY) {
        header.flags = OB_FLAG_NO_REPLY;
    }
    if (mode & MODE_FLAGS)
        header.flags = (uint32_t)take(in, 4);
    if (mode & MODE_ID)
        header.id = (uint16_t)take(in, 2);
    if (header.command < OB_COMMAND_END && ob_commands[header.command].name) {
        const struct ob_command_info *info = &ob_commands[header.command];
        const struct ob_part *part = answer ? &info->reply : &info->request;
        uint64_t count = 0;
        uint32_t flags = 0;
        put_fields(&draft, in, part, &count, &flags);
        put_tail(&draft, in, part, count, flags);
        uint32_t argsz = (uint32_t)(draft.at - to) - OB_HEADER_SIZE, given;
        if (part->nfields > 0 && strcmp(part->fields[0].name, "argsz") == 0) {
            memcpy(&given, to + OB_HEADER_SIZE, sizeof(given));
            memcpy(to + OB_HEADER_SIZE, given ? &given : &argsz, sizeof(argsz));
        }
    }
    if (mode & MODE_EXCESS)
        put_filled(&draft, in, take_number(in, 2));
    size_t size = (size_t)(draft.at - to);
    header.size = (uint32_t)size;
    if (mode & MODE_SIZE)
        header.size = (uint32_t)take_number(in, 4);
    memcpy(to, &header, sizeof(header));
    *framed = header.size == size && (answer || !(header.flags & OB_FLAG_TYPE_MASK));
    return size;
}
