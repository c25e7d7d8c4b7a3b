/* header.c: VU-HDR: the header, ids, flags, errors, sizes. */
#include "check.h"

static const uint32_t get_info[4] = { 16 };

/* Sends a command without waiting for its reply; returns its id. */
static uint16_t ask(struct judge *j, uint16_t command, uint32_t flags, const void *payload, size_t size)
{
    uint16_t id = 0;

    got(j, ob_raw_request(&j->raw, command, flags, payload, size, NULL, 0, &id), "sending");
    return id;
}

static void refused(struct judge *j, uint16_t command, const void *payload, size_t size, int error)
{
    char what[64];
    int r = call(j, command, payload, size, NULL, 0, NULL);

    snprintf(what, sizeof(what), "command %u with %zu bytes", command, size);
    if (error == 0)
        want_refused(j, r, what);
    else
        want_error(j, r, error, what);
}

static void send_with(struct judge *j, struct ob_raw_header header, const void *payload, size_t size)
{
    uint8_t *bytes = judge_alloc(j, sizeof(header) + size);

    memcpy(bytes, &header, sizeof(header));
    if (size > 0) {
        memcpy(bytes + sizeof(header), payload, size);
    }
    send_bytes(j, bytes, sizeof(header) + size, NULL, 0);
}

static void check_layout(struct judge *j)
{
    send_with(j, (struct ob_raw_header){ 0x1234, OB_RAW_GET_INFO, 32, 0, 0 }, get_info, 16);

    const struct ob_raw_message *reply = receive(j, "GET_INFO");

    want(j, reply->header.id == 0x1234 && reply->header.command == OB_RAW_GET_INFO && reply->header.flags == 1,
         "a reply with id %#x, command %u, flags %#x, wanted 0x1234, 4, 0x1", reply->header.id, reply->header.command,
         reply->header.flags);
}

static void check_reply_size(struct judge *j)
{
    const uint16_t id = ask(j, OB_RAW_GET_INFO, 0, get_info, 16);
    const struct ob_raw_message *reply = receive(j, "GET_INFO");

    want(j, reply->header.id == id && reply->header.size == 32, "a reply of size %u to GET_INFO, wanted 32",
         reply->header.size);
    want_alive(j, "the message behind it");
}

static void check_ids(struct judge *j)
{
    static const uint16_t ids[] = { 0, 1, 0x7fff, 0x8000, 0xff00, 0xffff };

    for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++) {
        send_with(j, (struct ob_raw_header){ ids[i], OB_RAW_GET_INFO, 32, 0, 0 }, get_info, 16);
        want(j, receive(j, "GET_INFO")->header.id == ids[i], "id %u is not echoed", ids[i]);
    }
}

static void check_error_id(struct judge *j)
{
    send_with(j, (struct ob_raw_header){ 0xbeef, 14, 16, 0, 0 }, NULL, 0);

    const struct ob_raw_message *reply = receive(j, "command 14");

    want(j, reply->header.id == 0xbeef, "an error reply with id %#x, wanted 0xbeef", reply->header.id);
}

static void check_command_echoed(struct judge *j)
{
    const struct vfio_irq_info irq = { .argsz = 16 };
    const struct vfio_region_info region = { .argsz = 32 };
    const struct {
        uint16_t command;
        const void *payload;
        size_t size;
    } all[] = { { OB_RAW_GET_INFO, get_info, 16 },
                { OB_RAW_GET_REGION_INFO, &region, 32 },
                { OB_RAW_GET_IRQ_INFO, &irq, 16 },
                { 14, NULL, 0 },
                { 99, NULL, 0 } };

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        ask(j, all[i].command, 0, all[i].payload, all[i].size);
        want(j, receive(j, "a command")->header.command == all[i].command, "command %u is not echoed", all[i].command);
    }
}

static void check_error_type(struct judge *j)
{
    ask(j, 14, 0, NULL, 0);

    const uint32_t flags = receive(j, "command 14")->header.flags;

    want(j, (flags & OB_RAW_TYPE_MASK) == OB_RAW_REPLY, "an error reply of type %u, wanted 1",
         flags & OB_RAW_TYPE_MASK);
}

static void check_one_reply(struct judge *j)
{
    for (int i = 0; i < 10; i++) {
        uint16_t id = ask(j, i % 2 ? 14 : OB_RAW_GET_INFO, 0, get_info, i % 2 ? 0 : 16);

        got(j, ob_raw_reply(&j->raw, id, i % 2 ? 14 : OB_RAW_GET_INFO, NULL), "a command");
    }
    want_alive(j, "after the replies");
}

static void check_posted(struct judge *j)
{
    const struct ob_raw_dma_map entry = { 32, 3, 0, 0x10000000, j->facts.page };

    ask(j, OB_RAW_DMA_MAP, OB_RAW_NO_REPLY, &entry, sizeof(entry));
    want_alive(j, "a posted DMA_MAP");
    want_ok(j, unmap(j, entry.address, entry.size), "DMA_UNMAP of what a posted command mapped");
}

static void check_posted_failure(struct judge *j)
{
    const struct ob_raw_dma_map entry = { 32, 3, 0, 0x10000000, j->facts.page };

    want_ok(j, map(j, entry.address, entry.size, 3, -1, 0), "DMA_MAP");
    ask(j, OB_RAW_DMA_MAP, OB_RAW_NO_REPLY, &entry, sizeof(entry));
    want_alive(j, "after a posted DMA_MAP that overlaps");
}

static void check_posted_unknown(struct judge *j)
{
    ask(j, 14, OB_RAW_NO_REPLY, NULL, 0);
    ask(j, 0xffff, OB_RAW_NO_REPLY, get_info, 16);
    want_alive(j, "after posted commands that nobody knows");
}

static void check_posted_truncated(struct judge *j)
{
    ask(j, OB_RAW_DMA_MAP, OB_RAW_NO_REPLY, get_info, 16);
    want_alive(j, "after a posted DMA_MAP that is too short");
}

static void check_error_flag(struct judge *j)
{
    uint16_t id = ask(j, 14, 0, NULL, 0);
    const struct ob_raw_message *reply = receive(j, "command 14");

    want(j, reply->header.id == id && (reply->header.flags & OB_RAW_ERROR),
         "command 14: flags %#x, wanted the Error bit", reply->header.flags);
    ask(j, OB_RAW_GET_INFO, 0, get_info, 16);
    want(j, !(receive(j, "GET_INFO")->header.flags & OB_RAW_ERROR), "the reply to GET_INFO has the Error bit");
}

/* Of every command: a payload of one byte is wrong for all but those that have none. */
static void check_error_alone(struct judge *j)
{
    for (uint16_t command = 2; command <= 18; command++) {
        const struct ob_raw_message *reply;

        ask(j, command, 0, "x", 1);
        reply = receive(j, "a command of one byte");
        want(j, !(reply->header.flags & OB_RAW_ERROR) || (reply->size == 0 && reply->nfds == 0),
             "command %u: an error reply of size %u with %u descriptors, wanted 16 and none", command,
             reply->header.size, reply->nfds);
    }
}

static void check_errno(struct judge *j)
{
    for (uint16_t command = 2; command <= 20; command++) {
        const struct ob_raw_message *reply;

        ask(j, command, 0, "x", 1);
        reply = receive(j, "a command of one byte");
        want(j, !(reply->header.flags & OB_RAW_ERROR) || (reply->header.error > 0 && reply->header.error < 4096),
             "command %u: an error reply with error %u, wanted an errno of 1 to 4095", command, reply->header.error);
    }
}

static void check_reply_flags(struct judge *j)
{
    for (uint16_t command = 4; command <= 14; command++) {
        ask(j, command, 0, get_info, 16);

        const uint32_t flags = receive(j, "a command")->header.flags;

        want(j, (flags & ~(OB_RAW_TYPE_MASK | OB_RAW_ERROR)) == 0, "command %u: a reply with flags %#x", command,
             flags);
    }
}

static void check_same_ids(struct judge *j)
{
    uint8_t bytes[16 * 32];

    for (int i = 0; i < 16; i++) {
        ob_raw_build(bytes + i * 32, 7, OB_RAW_GET_INFO, 0, get_info, 16);
    }
    send_bytes(j, bytes, sizeof(bytes), NULL, 0);
    for (int i = 0; i < 16; i++) {
        want_ok(j, ob_raw_reply(&j->raw, 7, OB_RAW_GET_INFO, NULL), "GET_INFO, one of 16 with the same id");
    }
    want_alive(j, "after the replies");
}

static void check_unknown(struct judge *j, int wanted)
{
    static const uint16_t unknown[] = { 0, 14, 19, 255, 0x0104, 0x8004, 0xffff };

    for (size_t i = 0; i < sizeof(unknown) / sizeof(*unknown); i++) {
        refused(j, unknown[i], get_info, 16, wanted);
        refused(j, unknown[i], NULL, 0, wanted);
    }
    want_alive(j, "afterwards");
}

static void check_unknown_refused(struct judge *j)
{
    check_unknown(j, 0);
}

static void check_unknown_enosys(struct judge *j)
{
    check_unknown(j, ENOSYS);
}

static void check_server_commands(struct judge *j)
{
    const struct ob_raw_dma dma = { 0x10000000, 8 };
    uint8_t write[24] = { 0 };

    memcpy(write, &dma, sizeof(dma));
    want_ok(j, map(j, dma.address, j->facts.page, 3, -1, 0), "DMA_MAP");
    refused(j, OB_RAW_DMA_READ, &dma, sizeof(dma), 0);
    refused(j, OB_RAW_DMA_WRITE, write, sizeof(write), 0);
}

static const struct {
    uint16_t command;
    uint8_t fixed;
} fixed_parts[] = { { OB_RAW_DMA_MAP, 32 },         { OB_RAW_DMA_UNMAP, 24 },    { OB_RAW_GET_INFO, 16 },
                    { OB_RAW_GET_REGION_INFO, 32 }, { OB_RAW_GET_IRQ_INFO, 16 }, { OB_RAW_SET_IRQS, 20 },
                    { OB_RAW_REGION_READ, 16 },     { OB_RAW_REGION_WRITE, 16 } };

/* One check for each command, so that the report tells them apart. */
static void check_truncated(struct judge *j, size_t which)
{
    uint8_t payload[32] = { 0 };

    payload[0] = fixed_parts[which].fixed; /* argsz, where there is one, is right */
    for (size_t size = 0; size < fixed_parts[which].fixed; size++) {
        refused(j, fixed_parts[which].command, payload, size, EINVAL);
    }
    want_alive(j, "afterwards");
}

#define TRUNCATED(name, index)                          \
    static void check_truncated_##name(struct judge *j) \
    {                                                   \
        check_truncated(j, index);                      \
    }
TRUNCATED(map, 0)
TRUNCATED(unmap, 1)
TRUNCATED(info, 2)
TRUNCATED(region_info, 3)
TRUNCATED(irq_info, 4)
TRUNCATED(set_irqs, 5)
TRUNCATED(read, 6)
TRUNCATED(write, 7)

static void check_longer(struct judge *j)
{
    struct {
        struct ob_raw_dma_map map;
        uint8_t more[8];
    } longer = { { 32, 3, 0, 0x10000000, j->facts.page }, { 0 } };
    const struct ob_raw_region read[2] = { { 0, VFIO_PCI_CONFIG_REGION_INDEX, 4 }, { 0, 0, 0 } };

    refused(j, OB_RAW_DMA_MAP, &longer, sizeof(longer), EINVAL);
    refused(j, OB_RAW_DMA_MAP, &longer, sizeof(longer.map) + 1, EINVAL);
    refused(j, OB_RAW_REGION_READ, read, sizeof(read), EINVAL);
    refused(j, OB_RAW_RESET, read, 4, EINVAL);
}

static void check_framing(struct judge *j)
{
    static const uint32_t sizes[] = { 0, 1, 8, 15 };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        unsigned answers = 0;

        send_with(j, (struct ob_raw_header){ 3, OB_RAW_GET_INFO, sizes[i], 0, 0 }, NULL, 0);
        got(j, ob_raw_wait_closed(&j->raw, &answers), "after a header of a size below 16");
        want(j, answers <= 1, "%u answers to a header of size %u", answers, sizes[i]);
        judge_reconnect(j);
    }
}

static void check_framing_answers(struct judge *j)
{
    const struct ob_raw_header bad = { 3, OB_RAW_GET_INFO, 0, 0, 0 };
    uint8_t bytes[2 * 32 + 16];

    ob_raw_build(bytes, 1, OB_RAW_GET_INFO, 0, get_info, 16);
    ob_raw_build(bytes + 32, 2, OB_RAW_GET_INFO, 0, get_info, 16);
    memcpy(bytes + 64, &bad, sizeof(bad));
    send_bytes(j, bytes, sizeof(bytes), NULL, 0);
    want_ok(j, ob_raw_reply(&j->raw, 1, OB_RAW_GET_INFO, NULL), "the first command before a header of size 0");
    want_ok(j, ob_raw_reply(&j->raw, 2, OB_RAW_GET_INFO, NULL), "the second command before a header of size 0");
    want_closed(j, "after a header of size 0");
}

/* The announced bytes never come. */
static void check_huge(struct judge *j)
{
    static const uint32_t sizes[] = { 64u << 20, 0x7fffffff, 0x80000000, 0xffffffff };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        send_with(j, (struct ob_raw_header){ 3, OB_RAW_REGION_WRITE, sizes[i], 0, 0 }, NULL, 0);
        want_refused_or_closed(j, ob_raw_reply(&j->raw, 3, OB_RAW_REGION_WRITE, NULL),
                               "a header that announces too much");
        judge_reconnect(j);
    }
}

static void check_huge_memory(struct judge *j)
{
    long before = server_memory(j), after;

    send_with(j, (struct ob_raw_header){ 3, OB_RAW_REGION_WRITE, 0x40000000, 0, 0 }, NULL, 0);
    want_refused_or_closed(j, ob_raw_reply(&j->raw, 3, OB_RAW_REGION_WRITE, NULL), "a header that announces 1 GiB");
    after = server_memory(j);
    want(j, after - before < 65536, "the server's memory grew by %ld KiB", after - before);
}

static void check_drained(struct judge *j)
{
    const size_t size = (size_t)(j->facts.max_data < 4u << 20 ? j->facts.max_data : 4u << 20);
    struct ob_raw_region access = { 0, VFIO_PCI_CONFIG_REGION_INDEX, (uint32_t)(size + (1 << 20)) };
    uint8_t *payload = judge_alloc(j, sizeof(access) + access.count);

    memcpy(payload, &access, sizeof(access));
    refused(j, OB_RAW_REGION_WRITE, payload, sizeof(access) + access.count, 0);
    want_alive(j, "after a message that is too large");
}

static void check_other_type(struct judge *j)
{
    const struct ob_raw_dma_map entry = { 32, 3, 0, 0x10000000, j->facts.page };

    for (uint32_t type = 2; type <= 15; type += 13) {
        struct ob_raw_message *message = NULL;
        int r;

        ask(j, OB_RAW_DMA_MAP, type, &entry, sizeof(entry));
        ask(j, OB_RAW_GET_INFO, 0, get_info, 16);
        r = ob_raw_receive(&j->raw, &message);
        if (r == -ENOTCONN) {
            judge_reconnect(j);
            continue;
        }
        want_ok(j, r, "the message behind one of an unknown type");

        const bool answered = message->header.command == OB_RAW_DMA_MAP;
        const uint32_t flags = message->header.flags;

        ob_raw_message_free(message);
        if (answered) {
            want(j, flags & OB_RAW_ERROR, "a DMA_MAP of type %u is answered as if it were a command", type);
            receive(j, "GET_INFO");
        }
        want_refused(j, unmap(j, entry.address, entry.size), "DMA_UNMAP of what must not be mapped");
    }
}

static void check_unasked_reply(struct judge *j)
{
    static const uint16_t commands[] = { OB_RAW_DMA_READ, OB_RAW_DMA_WRITE, OB_RAW_GET_INFO, 99 };
    const struct ob_raw_dma dma = { 0x10000000, 0 };

    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        ask(j, commands[i], OB_RAW_REPLY, &dma, sizeof(dma));
        want_alive(j, "after a reply that nobody asked for");
    }
}

static void check_unasked_error(struct judge *j)
{
    send_with(j, (struct ob_raw_header){ 77, OB_RAW_DMA_READ, 16, OB_RAW_REPLY | OB_RAW_ERROR, EIO }, NULL, 0);
    want_alive(j, "after an error reply that nobody asked for");
}

static void check_error_ignored(struct judge *j)
{
    send_with(j, (struct ob_raw_header){ 9, OB_RAW_GET_INFO, 32, 0, 0xffffffff }, get_info, 16);
    want_ok(j, ob_raw_reply(&j->raw, 9, OB_RAW_GET_INFO, NULL), "GET_INFO with something in the error field");
}

static void check_reserved_zero(struct judge *j)
{
    ask(j, OB_RAW_GET_INFO, 0, get_info, 16);
    want(j, receive(j, "GET_INFO")->header.error == 0, "a successful reply has something in its error field");
}

const struct check server_header_checks[] = {
    { { "header-layout", "VU-HDR-1", "a reply's header has id, command and type where they belong" }, 0, check_layout },
    { { "header-size", "VU-HDR-2", "the size of a reply counts its header" }, 0, check_reply_size },
    { { "header-id-echoed", "VU-HDR-3", "the reply has the command's id, whatever its value" }, 0, check_ids },
    { { "header-id-echoed-error", "VU-HDR-3", "an error reply has the command's id" }, 0, check_error_id },
    { { "header-command-echoed", "VU-HDR-4", "the reply has the command's number, error or not" },
      0,
      check_command_echoed },
    { { "header-type-of-error", "VU-HDR-5", "an error reply is of type reply" }, 0, check_error_type },
    { { "header-one-reply", "VU-HDR-6", "each command gets one reply and nothing else comes" }, 0, check_one_reply },
    { { "header-posted", "VU-HDR-7", "a posted DMA_MAP is executed and not answered" }, 0, check_posted },
    { { "header-posted-overlap", "VU-HDR-8", "a posted command that fails is not answered" }, 0, check_posted_failure },
    { { "header-posted-unknown", "VU-HDR-8", "posted unknown commands are not answered" }, 0, check_posted_unknown },
    { { "header-posted-truncated", "VU-HDR-8", "a posted command that is cut short is not answered" },
      0,
      check_posted_truncated },
    { { "header-error-flag", "VU-HDR-9", "the Error flag tells failure from success" }, 0, check_error_flag },
    { { "header-error-alone", "VU-HDR-10", "an error reply of any command is a header alone" }, 0, check_error_alone },
    { { "header-errno", "VU-HDR-11", "the error of an error reply is an errno" }, 0, check_errno },
    { { "header-reply-flags", "VU-HDR-13", "replies have no flags but type and Error" }, 0, check_reply_flags },
    { { "header-same-ids", "VU-HDR-14", "sixteen outstanding commands with one id get sixteen replies" },
      0,
      check_same_ids },
    { { "header-unknown-refused", "VU-HDR-16", "unknown commands are refused" }, 0, check_unknown_refused },
    { { "header-unknown-enosys", "VU-HDR-17", "unknown commands fail with ENOSYS" }, 0, check_unknown_enosys },
    { { "header-server-commands", "VU-HDR-18", "DMA_READ and DMA_WRITE from a client are refused" },
      0,
      check_server_commands },
    { { "header-truncated-map", "VU-HDR-19", "every truncation of DMA_MAP fails with EINVAL" },
      0,
      check_truncated_map },
    { { "header-truncated-unmap", "VU-HDR-19", "every truncation of DMA_UNMAP fails with EINVAL" },
      0,
      check_truncated_unmap },
    { { "header-truncated-info", "VU-HDR-19", "every truncation of GET_INFO fails with EINVAL" },
      0,
      check_truncated_info },
    { { "header-truncated-region-info", "VU-HDR-19", "every truncation of GET_REGION_INFO fails with EINVAL" },
      0,
      check_truncated_region_info },
    { { "header-truncated-irq-info", "VU-HDR-19", "every truncation of GET_IRQ_INFO fails with EINVAL" },
      0,
      check_truncated_irq_info },
    { { "header-truncated-set-irqs", "VU-HDR-19", "every truncation of SET_IRQS fails with EINVAL" },
      0,
      check_truncated_set_irqs },
    { { "header-truncated-read", "VU-HDR-19", "every truncation of REGION_READ fails with EINVAL" },
      0,
      check_truncated_read },
    { { "header-truncated-write", "VU-HDR-19", "every truncation of REGION_WRITE fails with EINVAL" },
      0,
      check_truncated_write },
    { { "header-longer", "VU-HDR-20", "a payload longer than its fields say fails with EINVAL" }, 0, check_longer },
    { { "header-framing-lost", "VU-HDR-21", "a size below 16 ends the connection" }, 0, check_framing },
    { { "header-framing-answers", "VU-HDR-21", "commands before a size below 16 are answered" },
      0,
      check_framing_answers },
    { { "header-huge", "VU-HDR-22", "a header that announces up to 4 GiB is refused or ends the connection" },
      0,
      check_huge },
    { { "header-huge-memory", "VU-HDR-22", "a header that announces 1 GiB takes no memory" },
      NEED_SPAWN,
      check_huge_memory },
    { { "header-drained", "VU-HDR-23", "a message that is too large is refused, discarded, and the session goes on" },
      0,
      check_drained },
    { { "header-other-type", "VU-HDR-24", "a message of an unknown type is not executed" }, 0, check_other_type },
    { { "header-unasked-reply", "VU-HDR-25", "a reply to nothing is discarded" }, 0, check_unasked_reply },
    { { "header-unasked-error", "VU-HDR-25", "an error reply to nothing is discarded" }, 0, check_unasked_error },
    { { "header-error-ignored", "VU-HDR-29", "the error field of a command is ignored" }, 0, check_error_ignored },
    { { "header-reserved-zero", "VU-HDR-30", "the error field of a successful reply is 0" }, 0, check_reserved_zero },
    { { NULL, NULL, NULL }, 0, NULL },
};
