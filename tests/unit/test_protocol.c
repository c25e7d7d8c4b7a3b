/* Properties of the protocol's checks, on random valid messages of every command: they survive encoding and checking;
 * cut anywhere, or with any length, count, flag, direction or number of descriptors lied about, they do not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "test_protocol_random.h"

#define ROUNDS 300

static const struct ob_limits limits = { MAX_TAIL, 16 };

/* The bytes of an encoded message, at an alignment of their own, ending where the allocation ends. */
struct bytes {
    uint8_t *block, *at;
    size_t size;
};

static struct bytes copy_bytes(const uint8_t *from, size_t size)
{
    size_t shift = random_below(8);
    struct bytes b = { .block = malloc(shift + size + 1), .size = size };

    assert_non_null(b.block);
    /* The sanitizer sees reads behind the end only if the end is the block's. */
    b.block = realloc(b.block, shift + size ? shift + size : 1);
    assert_non_null(b.block);
    b.at = b.block + shift;
    memcpy(b.at, from, size);
    return b;
}

static int check(const struct sample *s, const struct sample *request, const uint8_t *bytes, size_t size,
                 struct ob_message *m, struct bytes *copy)
{
    *copy = copy_bytes(bytes, size);
    if (request)
        return ob_check_reply(m, copy->at, size, &request->m, &limits, s->m.nfds);
    return ob_check_request(m, copy->at, size, ob_commands[s->m.header.command].from, &limits, s->m.nfds);
}

static int verdict(const struct sample *s, const struct sample *request, const uint8_t *bytes, size_t size)
{
    struct ob_message m;
    struct bytes copy;
    int err = check(s, request, bytes, size, &m, &copy);

    free(copy.block);
    return err;
}

static ssize_t encode(const struct sample *s, bool reply, uint8_t *buf, size_t room)
{
    return reply ? ob_encode_reply(buf, room, &s->m) : ob_encode_request(buf, room, &s->m);
}

static const struct ob_part *part_of(const struct sample *s, bool reply)
{
    const struct ob_command_info *info = &ob_commands[s->m.header.command];
    return reply ? &info->reply : &info->request;
}

typedef void property(const struct sample *s, const struct sample *request, const uint8_t *bytes, size_t size);

/* Runs a property on many messages of each command, requests and replies. */
static void for_all(property *p)
{
    static struct sample request, reply;
    static uint8_t bytes[OB_HEADER_SIZE + OB_MAX_FIXED_SIZE + MAX_TAIL];
    ssize_t size;

    for (uint16_t command = 0; command < OB_COMMAND_END; command++) {
        if (!ob_command_name(command))
            continue;
        for (int round = 0; round < ROUNDS; round++) {
            random_request(&request, command);
            size = encode(&request, false, bytes, sizeof(bytes));
            assert_true(size > 0);
            p(&request, NULL, bytes, (size_t)size);
            random_reply(&reply, &request);
            size = encode(&reply, true, bytes, sizeof(bytes));
            assert_true(size > 0);
            p(&reply, &request, bytes, (size_t)size);
        }
    }
}

static void round_trip(const struct sample *s, const struct sample *request, const uint8_t *bytes, size_t size)
{
    static uint8_t again[OB_HEADER_SIZE + OB_MAX_FIXED_SIZE + MAX_TAIL];
    const struct ob_part *part = part_of(s, request != NULL);
    struct ob_message m;
    struct ob_header h;
    struct bytes copy;

    assert_int_equal(ob_frame(bytes, size, ob_max_message(&limits), &h), size);
    assert_int_equal(check(s, request, bytes, size, &m, &copy), 0);
    assert_int_equal(m.header.id, s->m.header.id);
    assert_int_equal(m.header.flags, s->m.header.flags);
    assert_memory_equal(&m.u, &s->m.u, part->size);
    assert_int_equal(m.tail_size, s->m.tail_size);
    if (m.tail_size > 0)
        assert_memory_equal(m.tail, s->tail, m.tail_size);
    assert_int_equal(m.nfds, s->m.nfds);
    assert_int_equal(request ? ob_encode_reply(again, sizeof(again), &m) : ob_encode_request(again, sizeof(again), &m),
                     size);
    assert_memory_equal(again, bytes, size);
    /* One byte less of room is too little, and nothing is written behind it. */
    again[size - 1] = 0x5a;
    assert_int_equal(encode(s, request != NULL, again, size - 1), -ENOBUFS);
    assert_int_equal(again[size - 1], 0x5a);
    free(copy.block);
}

static void test_round_trip(void **unused)
{
    for_all(round_trip);
}

/* Where a cut message is one that the specification, or a known peer, means to send. */
static bool cut_is_legal(const struct sample *s, const struct sample *request, size_t n)
{
    const struct ob_part *part = part_of(s, request != NULL);
    size_t payload = n - OB_HEADER_SIZE;

    switch (s->m.header.command) {
    case OB_VERSION: /* the text is optional */
        return payload == part->size;
    case OB_DEVICE_FEATURE: /* a probe's data means nothing */
        return (s->m.u.feature.flags & VFIO_DEVICE_FEATURE_PROBE) && payload >= part->size;
    case OB_REGION_READ:
    case OB_REGION_WRITE:
        return request && payload == 0 && request->m.u.region_access.count == 0;
    case OB_DMA_WRITE:
        return request && (payload == 0 || payload == 12);
    default:
        return false;
    }
}

static void truncation(const struct sample *s, const struct sample *request, const uint8_t *bytes, size_t size)
{
    static uint8_t cut[OB_HEADER_SIZE + OB_MAX_FIXED_SIZE + MAX_TAIL];
    const int wrong = request ? -EPROTO : -EINVAL;

    memcpy(cut, bytes, size);
    for (uint32_t n = 0; n < size; n++) {
        assert_int_equal(verdict(s, request, bytes, n), wrong); /* the header tells */
        if (n >= OB_HEADER_SIZE) {
            memcpy(cut + offsetof(struct ob_header, size), &n, sizeof(n)); /* the header lies */
            assert_int_equal(verdict(s, request, cut, n), cut_is_legal(s, request, n) ? 0 : wrong);
        }
    }
}

static void test_truncation(void **unused)
{
    for_all(truncation);
}

/* Is every other value of the counting field wrong? */
static bool count_binds(const struct sample *s, const struct sample *request, enum ob_tail tail)
{
    switch (tail) {
    case OB_TAIL_DATA:
        return !(request && s->m.header.command == OB_MIG_DATA_READ); /* padding tolerated */
    case OB_TAIL_WRITES:
        return true;
    case OB_TAIL_IO_FDS:
        return s->m.tail_size > 0;
    case OB_TAIL_IRQS:
        return s->m.tail_size > 0 || s->m.nfds > 0;
    default:
        return false;
    }
}

static uint64_t lie(uint64_t truth, int which, unsigned width)
{
    uint64_t mask = width == 8 ? UINT64_MAX : (UINT64_C(1) << width * 8) - 1;
    const uint64_t lies[] = { truth + 1, truth - 1,    0, mask, mask >> 1, mask - 15, truth ^ (mask ^ mask >> 1),
                              truth * 2, random_bits() };
    return lies[which % 9] & mask;
}

static void lies(const struct sample *s, const struct sample *request, const uint8_t *bytes, size_t size)
{
    static uint8_t changed[OB_HEADER_SIZE + OB_MAX_FIXED_SIZE + MAX_TAIL];
    const struct ob_part *part = part_of(s, request != NULL);
    const int wrong = request ? -EPROTO : -EINVAL;

    memcpy(changed, bytes, size);
    for (int which = 0; which < 9; which++) {
        uint32_t value = (uint32_t)lie(size, which, 4);
        memcpy(changed + offsetof(struct ob_header, size), &value, sizeof(value));
        if (value != size)
            assert_int_equal(verdict(s, request, changed, size), wrong);
    }
    memcpy(changed, bytes, size);
    for (size_t i = 0; i < part->nfields; i++) {
        const struct ob_wire_field *field = &part->fields[i];
        uint8_t *at = changed + OB_HEADER_SIZE + field->offset;
        uint64_t truth = 0;
        if (!field->counts || !count_binds(s, request, part->tail))
            continue;
        memcpy(&truth, at, field->width);
        for (int which = 0; which < 9; which++) {
            uint64_t value = lie(truth, which, field->width);
            memcpy(at, &value, field->width); /* the low bytes first: this test runs on little-endian hosts */
            /* Fewer entries of a multiple of the size are entries that grew. */
            if (part->tail == OB_TAIL_IO_FDS && value > 0 && value < truth && truth % value == 0)
                assert_int_equal(verdict(s, request, changed, size), 0);
            else if (value != truth && !(part->tail == OB_TAIL_IO_FDS && value > 0 && value < truth))
                assert_int_equal(verdict(s, request, changed, size), wrong);
        }
        memcpy(at, &truth, field->width);
    }
}

static void test_lies(void **unused)
{
    for_all(lies);
}

static void envelope(const struct sample *s, const struct sample *request, const uint8_t *bytes, size_t size)
{
    const struct ob_command_info *info = &ob_commands[s->m.header.command];
    const int wrong = request ? -EPROTO : -EINVAL;
    unsigned most = part_of(s, request != NULL)->max_fds;
    struct ob_header h;
    uint8_t *changed = malloc(size);
    struct sample other;
    struct ob_message m;

    assert_non_null(changed);
    memcpy(changed, bytes, size);
    /* Too many descriptors: for the command, and for what was negotiated. */
    memcpy(&other, s, sizeof(other));
    other.m.nfds = most == OB_FDS_LIMIT ? limits.max_msg_fds + 1 : most + 1;
    assert_int_equal(verdict(&other, request, bytes, size), wrong);
    /* Every flag that is not its own, but for what No_reply may add. */
    for (int bit = 0; bit < 32; bit++) {
        memcpy(&h, bytes, sizeof(h));
        h.flags ^= 1u << bit;
        memcpy(changed, &h, sizeof(h));
        if (!request && (h.flags & ~OB_FLAG_NO_REPLY) == 0 && info->no_reply)
            assert_int_equal(verdict(s, request, changed, size), 0);
        else if (request && size == OB_HEADER_SIZE && h.flags == (OB_FLAG_REPLY | OB_FLAG_ERROR) && s->m.nfds == 0)
            assert_int_equal(verdict(s, request, changed, size), 0); /* that is a refusal */
        else
            assert_int_equal(verdict(s, request, changed, size), wrong);
    }
    memcpy(changed, bytes, size);
    if (request) {
        h.id = (uint16_t)(s->m.header.id + 1);
        memcpy(changed, &h.id, sizeof(h.id));
        assert_int_equal(verdict(s, request, changed, size), -EPROTO);
    } else {
        assert_int_equal(ob_check_request(&m, bytes, size,
                                          info->from == OB_FROM_CLIENT ? OB_FROM_SERVER : OB_FROM_CLIENT, &limits,
                                          s->m.nfds),
                         -EINVAL);
    }
    for (uint32_t command = 0; command < 0x10000; command += command < 64 ? 1 : 997) {
        if (ob_command_name((uint16_t)command))
            continue;
        h.command = (uint16_t)command;
        memcpy(changed + offsetof(struct ob_header, command), &h.command, sizeof(h.command));
        memcpy(changed, bytes, sizeof(h.id));
        assert_int_equal(request ? ob_check_reply(&m, changed, size, &request->m, &limits, s->m.nfds)
                                 : ob_check_request(&m, changed, size, OB_FROM_CLIENT, &limits, s->m.nfds),
                         request ? -EPROTO : -ENOSYS);
    }
    free(changed);
}

static void test_envelope(void **unused)
{
    for_all(envelope);
}

/* Bytes that nobody meant: no verdict is expected but that there is one, and what passes encodes to what it was. */
static void mutations(const struct sample *s, const struct sample *request, const uint8_t *bytes, size_t size)
{
    static uint8_t changed[OB_HEADER_SIZE + OB_MAX_FIXED_SIZE + MAX_TAIL], again[sizeof(changed)];
    char line[256];
    struct bytes copy;
    struct ob_message m;
    int err;

    memcpy(changed, bytes, size);
    for (int i = 0; i < 3 && size > OB_HEADER_SIZE; i++)
        changed[OB_HEADER_SIZE + random_below(size - OB_HEADER_SIZE)] = (uint8_t)random_bits();
    err = check(s, request, changed, size, &m, &copy);
    assert_true(err == 0 || err == (request ? -EPROTO : -EINVAL));
    if (err == 0) {
        assert_true(ob_print_message(line, sizeof(line), &m, OB_FROM_CLIENT) > 0);
        if (!request) {
            assert_int_equal(ob_encode_request(again, sizeof(again), &m), size);
            assert_memory_equal(again, changed, size);
        }
    }
    free(copy.block);
}

static void test_mutations(void **unused)
{
    for (int i = 0; i < 10; i++)
        for_all(mutations);
}

static void test_frame(void **unused)
{
    struct ob_header h = { 7, OB_REGION_READ, 32, 0, 0 }, got = { 0 };

    for (size_t have = 0; have < sizeof(h); have++)
        assert_int_equal(ob_frame(&h, have, 4096, &got), 0);
    assert_int_equal(got.size, 0);
    assert_int_equal(ob_frame(&h, sizeof(h), 4096, &got), 32);
    assert_memory_equal(&got, &h, sizeof(h));
    assert_int_equal(ob_frame(&h, sizeof(h), 32, &got), 32);
    assert_int_equal(ob_frame(&h, sizeof(h), 31, &got), -EMSGSIZE);
    for (h.size = 0; h.size < 16; h.size++)
        assert_int_equal(ob_frame(&h, sizeof(h), 4096, &got), -EPROTO);
    assert_int_equal(ob_frame(&h, sizeof(h), 4096, &got), 16);
    h.size = UINT32_MAX;
    assert_int_equal(ob_frame(&h, sizeof(h), SIZE_MAX, &got), -EMSGSIZE);
    assert_int_equal(got.id, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frame), cmocka_unit_test(test_round_trip), cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_lies),  cmocka_unit_test(test_envelope),   cmocka_unit_test(test_mutations),
    };

    random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
