/* header.c: VU-HDR: the header, ids, flags, errors, commands that nobody knows. */
#include "scratch.h"

#include "../transcript.h"

static const uint32_t get_info[4] = { 16 };

static void check_layout(struct judge *j)
{
    send_with_header(j, (struct ob_raw_header){ 0x1234, OB_RAW_GET_INFO, 32, 0, 0 }, get_info, 16);

    const struct ob_raw_message *reply = receive(j, "GET_INFO");

    want(j, reply->header.id == 0x1234 && reply->header.command == OB_RAW_GET_INFO && reply->header.flags == 1,
         "a reply with id %#x, command %u, flags %#x, wanted 0x1234, 4, 0x1", reply->header.id, reply->header.command,
         reply->header.flags);
}

static void check_reply_size(struct judge *j)
{
    const uint16_t id = send_command(j, OB_RAW_GET_INFO, 0, get_info, 16);
    const struct ob_raw_message *reply = receive(j, "GET_INFO");

    want(j, reply->header.id == id && reply->header.size == 32, "a reply of size %u to GET_INFO, wanted 32",
         reply->header.size);
    want_alive(j, "the message behind it");
}

static void check_ids(struct judge *j)
{
    static const uint16_t ids[] = { 0, 1, 0x7fff, 0x8000, 0xff00, 0xffff };

    for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++) {
        send_with_header(j, (struct ob_raw_header){ ids[i], OB_RAW_GET_INFO, 32, 0, 0 }, get_info, 16);
        want(j, receive(j, "GET_INFO")->header.id == ids[i], "id %u is not echoed", ids[i]);
    }
}

static void check_error_id(struct judge *j)
{
    send_with_header(j, (struct ob_raw_header){ 0xbeef, 14, 16, 0, 0 }, NULL, 0);

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
        send_command(j, all[i].command, 0, all[i].payload, all[i].size);
        want(j, receive(j, "a command")->header.command == all[i].command, "command %u is not echoed", all[i].command);
    }
}

static void check_error_type(struct judge *j)
{
    send_command(j, 14, 0, NULL, 0);

    const uint32_t flags = receive(j, "command 14")->header.flags;

    want(j, (flags & OB_RAW_TYPE_MASK) == OB_RAW_REPLY, "an error reply of type %u, wanted 1",
         flags & OB_RAW_TYPE_MASK);
}

static void check_one_reply(struct judge *j)
{
    for (int i = 0; i < 10; i++) {
        uint16_t id = send_command(j, i % 2 ? 14 : OB_RAW_GET_INFO, 0, get_info, i % 2 ? 0 : 16);

        got(j, ob_raw_reply(&j->raw, id, i % 2 ? 14 : OB_RAW_GET_INFO, NULL), "a command");
    }
    want_alive(j, "after the replies");
}

static void check_posted(struct judge *j)
{
    const struct ob_raw_dma_map entry = { 32, 3, 0, 0x10000000, j->facts.page };

    send_command(j, OB_RAW_DMA_MAP, OB_RAW_NO_REPLY, &entry, sizeof(entry));
    want_alive(j, "a posted DMA_MAP");
    want_ok(j, unmap(j, entry.address, entry.size), "DMA_UNMAP of what a posted command mapped");
}

static void check_posted_failure(struct judge *j)
{
    const struct ob_raw_dma_map entry = { 32, 3, 0, 0x10000000, j->facts.page };

    want_ok(j, map(j, entry.address, entry.size, 3, -1, 0), "DMA_MAP");
    send_command(j, OB_RAW_DMA_MAP, OB_RAW_NO_REPLY, &entry, sizeof(entry));
    want_alive(j, "after a posted DMA_MAP that overlaps");
}

static void check_posted_unknown(struct judge *j)
{
    send_command(j, 14, OB_RAW_NO_REPLY, NULL, 0);
    send_command(j, 0xffff, OB_RAW_NO_REPLY, NULL, 0);
    want_alive(j, "after posted commands that nobody knows");
}

/* A server that waits for the rest of one fails header-truncated-map. */
static void check_posted_truncated(struct judge *j)
{
    const uint16_t id = send_command(j, OB_RAW_DMA_MAP, 0, get_info, 16);

    if (ob_raw_reply(&j->raw, id, OB_RAW_DMA_MAP, NULL) <= 0)
        judge_skip(j, "a DMA_MAP that is too short is not refused");
    send_command(j, OB_RAW_DMA_MAP, OB_RAW_NO_REPLY, get_info, 16);
    want_alive(j, "after a posted DMA_MAP that is too short");
}

static void check_error_flag(struct judge *j)
{
    uint16_t id = send_command(j, 14, 0, NULL, 0);
    const struct ob_raw_message *reply = receive(j, "command 14");

    want(j, reply->header.id == id && (reply->header.flags & OB_RAW_ERROR),
         "command 14: flags %#x, wanted the Error bit", reply->header.flags);
    send_command(j, OB_RAW_GET_INFO, 0, get_info, 16);
    want(j, !(receive(j, "GET_INFO")->header.flags & OB_RAW_ERROR), "the reply to GET_INFO has the Error bit");
}

static void want_flags(struct judge *j, uint16_t command, const void *payload, size_t size)
{
    uint32_t flags;

    send_command(j, command, 0, payload, size);
    flags = receive(j, command_name(command))->header.flags;
    want(j, (flags & ~(OB_RAW_TYPE_MASK | OB_RAW_ERROR)) == 0, "%s: a reply with flags %#x", command_name(command),
         flags);
}

static void check_reply_flags(struct judge *j)
{
    const struct ob_raw_dma_map map = { 32, 3, 0, 0x10000000, j->facts.page };
    const struct ob_raw_dma_unmap unmap = { 24, 0, 0x10000000, j->facts.page };
    const struct vfio_irq_info irqs[] = { { .argsz = 16 }, { .argsz = 16, .index = 0xffff } };
    const struct vfio_region_info regions[] = { { .argsz = 32 }, { .argsz = 32, .index = 0xffff } };
    const struct ob_raw_region read = { 0, VFIO_PCI_CONFIG_REGION_INDEX, 4 };

    want_flags(j, OB_RAW_DMA_MAP, &map, sizeof(map));
    want_flags(j, OB_RAW_DMA_UNMAP, &unmap, sizeof(unmap));
    want_flags(j, OB_RAW_GET_INFO, get_info, 16);
    for (size_t i = 0; i < 2; i++) {
        want_flags(j, OB_RAW_GET_REGION_INFO, &regions[i], 32);
        want_flags(j, OB_RAW_GET_IRQ_INFO, &irqs[i], 16);
    }
    want_flags(j, OB_RAW_REGION_READ, &read, sizeof(read));
    want_flags(j, 14, NULL, 0);
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
        call_refused(j, unknown[i], NULL, 0, wanted);
        want_alive(j, "afterwards");
        call_refused(j, unknown[i], get_info, 16, wanted);
        judge_reconnect(j); /* whether it has skipped the payload is for header-skips-unknown to say */
    }
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
    call_refused(j, OB_RAW_DMA_READ, &dma, sizeof(dma), 0);
    judge_reconnect(j); /* whether it has skipped the payload is for header-skips-server to say */
    want_ok(j, map(j, dma.address, j->facts.page, 3, -1, 0), "DMA_MAP");
    call_refused(j, OB_RAW_DMA_WRITE, write, sizeof(write), 0);
}

/* What becomes of the connection is not said. */
static void check_other_type(struct judge *j)
{
    uint8_t bytes[SCRATCH_WRITE_SIZE];

    scratch_begin(j);
    for (uint32_t type = 2; type <= 15; type++) {
        char what[64];

        scratch_write(j, bytes, 1, type, 1);
        send_bytes(j, bytes, sizeof(bytes), NULL, 0);
        wait_taken(j);
        judge_reconnect(j);
        snprintf(what, sizeof(what), "after a REGION_WRITE of type %u", type);
        want_scratch(j, 0, what);
    }
}

/* What else comes, if anything, is for others to judge. */
static void check_answered_type(struct judge *j)
{
    for (uint32_t type = 2; type <= 15; type++) {
        struct ob_raw_message *m;

        send_with_header(j, (struct ob_raw_header){ 0x5154, OB_RAW_GET_INFO, 32, type, 0 }, get_info, 16);
        send_with_header(j, (struct ob_raw_header){ 0x5155, OB_RAW_GET_INFO, 32, 0, 0 }, get_info, 16);
        while (ob_raw_receive(&j->raw, &m) == 0 && judge_keep(j, m)->header.id != 0x5155)
            want(j, m->header.id != 0x5154 || m->header.flags & OB_RAW_ERROR, "a GET_INFO of type %u was answered",
                 type);
        judge_reconnect(j);
    }
}

static void check_unasked_reply(struct judge *j)
{
    static const uint16_t commands[] = { OB_RAW_DMA_READ, OB_RAW_DMA_WRITE, OB_RAW_GET_INFO, 99 };
    const struct ob_raw_dma dma = { 0x10000000, 0 };

    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        send_command(j, commands[i], OB_RAW_REPLY, &dma, sizeof(dma));
        want_alive(j, "after a reply that nobody asked for");
    }
}

static void check_unasked_error(struct judge *j)
{
    send_with_header(j, (struct ob_raw_header){ 77, OB_RAW_DMA_READ, 16, OB_RAW_REPLY | OB_RAW_ERROR, EIO }, NULL, 0);
    want_alive(j, "after an error reply that nobody asked for");
}

static void check_error_ignored(struct judge *j)
{
    send_with_header(j, (struct ob_raw_header){ 9, OB_RAW_GET_INFO, 32, 0, 0xffffffff }, get_info, 16);
    want_ok(j, ob_raw_reply(&j->raw, 9, OB_RAW_GET_INFO, NULL), "GET_INFO with something in the error field");
}

static void check_reserved_zero(struct judge *j)
{
    send_command(j, OB_RAW_GET_INFO, 0, get_info, 16);
    want(j, receive(j, "GET_INFO")->header.error == 0, "a successful reply has something in its error field");
}

static void check_reserved_sparse(struct judge *j)
{
    for (uint32_t i = 0; i < j->facts.regions && i < MAX_REGIONS; i++) {
        struct vfio_region_info get = { .argsz = j->facts.region[i].argsz, .index = i };
        struct ob_raw_message *m;
        uint32_t at;

        if (j->facts.region[i].areas == 0)
            continue;
        want_ok(j, call(j, OB_RAW_GET_REGION_INFO, &get, sizeof(get), NULL, 0, &m), "GET_REGION_INFO");
        at = field32(j, m, 12);
        for (unsigned turns = 0; at != 0 && turns < 16; turns++, at = field32(j, m, at + 4)) {
            if (field16(j, m, at) == VFIO_REGION_INFO_CAP_SPARSE_MMAP)
                want(j, field32(j, m, at + 12) == 0, "region %u: the reserved field of the sparse areas is %#x", i,
                     field32(j, m, at + 12));
        }
    }
}

/* Entries of another size have something else there (VU-IOFD, notes). */
static void check_reserved_io_fds(struct judge *j)
{
    for (uint32_t i = 0; i < j->facts.regions && i < MAX_REGIONS; i++) {
        const struct ob_raw_io_fds get = { .argsz = 4096, .index = i };
        struct ob_raw_message *m;

        if (j->facts.region[i].size == 0 || call(j, OB_RAW_GET_REGION_IO_FDS, &get, sizeof(get), NULL, 0, &m) != 0)
            continue;
        for (uint32_t n = field32(j, m, 12), e = 0; e < n && field32(j, m, 0) == sizeof(get) + n * 40; e++)
            want(j, field32(j, m, sizeof(get) + 40 * e + 28) == 0, "region %u: the padding of entry %u is %#x", i, e,
                 field32(j, m, sizeof(get) + 40 * e + 28));
    }
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
    { { "header-reply-flags", "VU-HDR-13", "replies have no flags but type and Error" }, 0, check_reply_flags },
    { { "header-same-ids", "VU-HDR-14", "sixteen outstanding commands with one id get sixteen replies" },
      0,
      check_same_ids },
    { { "header-unknown-refused", "VU-HDR-16", "unknown commands are refused" }, 0, check_unknown_refused },
    { { "header-unknown-enosys", "VU-HDR-17", "unknown commands fail with ENOSYS" }, 0, check_unknown_enosys },
    { { "header-server-commands", "VU-HDR-18", "DMA_READ and DMA_WRITE from a client are refused" },
      0,
      check_server_commands },
    { { "header-other-type", "VU-HDR-24", "a message of an unknown type is not executed" },
      NEED_NEXT,
      check_other_type },
    { { "header-other-type-answered", "VU-HDR-24", "nor is one answered with success, or a reply" },
      0,
      check_answered_type },
    { { "header-unasked-reply", "VU-HDR-25", "a reply to nothing is discarded" }, 0, check_unasked_reply },
    { { "header-unasked-error", "VU-HDR-25", "an error reply to nothing is discarded" }, 0, check_unasked_error },
    { { "header-error-ignored", "VU-HDR-29", "the error field of a command is ignored" }, 0, check_error_ignored },
    { { "header-reserved-zero", "VU-HDR-30", "the error field of a successful reply is 0" }, 0, check_reserved_zero },
    { { "header-reserved-sparse", "VU-HDR-30", "the reserved field of sparse areas is 0" },
      NEED_SPARSE,
      check_reserved_sparse },
    { { "header-reserved-io-fds", "VU-HDR-30", "the padding of I/O descriptors is 0" },
      NEED_IO_FDS,
      check_reserved_io_fds },
    { { NULL, NULL, NULL }, 0, NULL },
};
