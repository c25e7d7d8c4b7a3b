/* test_crash: a device process is killed at each labelled step of a request, in the middle of work, and a successor
 * goes on with its memory, journal, descriptors and client. The client sees latency and nothing else: every request
 * executed once, every reply once and in order, no interrupt lost.
 *
 * For each label the process dies at its first passage, in the next run at its second, and so on until a run needs
 * fewer passages than that. Needs a library with the labels compiled in (option crash_steps). */
#include "bells.h"
#include "edu_dma.h"
#include "lifeline.h"
#include "migrate_client.h"
#include "testdev_regs.h"

#include <linux/serial_reg.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096ull

static const char *const labels[] = { "received",  "checked",   "executed", "replied", "copied",
                                      "committed", "signalled", "sending",  "sent" };

/* Runs a script once for each passage of each label. */
static void at_every_step(const char *variable, void (*script)(struct ob_life *life), unsigned most)
{
    const char *command = getenv(variable);
    unsigned runs = 0;

    assert_non_null(command);
    for (size_t i = 0; i < sizeof(labels) / sizeof(*labels); i++) {
        unsigned deaths = 1;

        for (unsigned nth = 1; nth <= most && deaths > 0; nth++) {
            struct ob_life life;

            fprintf(stderr, "%s at %s:%u\n", variable, labels[i], nth);
            ob_ok(ob_life_start(&life, command, labels[i], nth, false));
            script(&life);
            deaths = atomic_load(&life.deaths);
            ob_ok(ob_life_end(&life));
            assert_in_range(deaths, 0, 1);
            runs += deaths;
        }
        if (runs == 0) {
            fail_msg("%s was never killed at %s: is crash_steps off?", variable, labels[i]);
        }
    }
}

/* Each successor dies too, at the nth passage that it makes itself: beyond those of its recovery, in which every event
 * rings, or none would come any further. */
static void again_and_again(const char *variable, void (*script)(struct ob_life *life), unsigned nth)
{
    for (size_t i = 0; i < sizeof(labels) / sizeof(*labels); i++) {
        struct ob_life life;

        fprintf(stderr, "%s at every %s:%u\n", variable, labels[i], nth);
        ob_ok(ob_life_start(&life, getenv(variable), labels[i], nth, true));
        script(&life);
        assert_true(atomic_load(&life.deaths) > 0);
        ob_ok(ob_life_end(&life));
    }
}

static uint16_t send_read(struct ob_raw *raw, uint32_t region, uint64_t offset, uint32_t count)
{
    struct ob_raw_region access = { .offset = offset, .region = region, .count = count };
    uint16_t id;

    ob_ok(ob_raw_request(raw, OB_RAW_REGION_READ, 0, &access, sizeof(access), NULL, 0, &id));
    return id;
}

static uint32_t take_read(struct ob_raw *raw, uint16_t id)
{
    struct ob_raw_message *reply = NULL;
    uint32_t value = 0;

    ob_ok(ob_raw_reply(raw, id, OB_RAW_REGION_READ, &reply));
    memcpy(&value, reply->payload + sizeof(struct ob_raw_region), reply->size - sizeof(struct ob_raw_region));
    ob_raw_message_free(reply);
    return value;
}

/* --- The test device: requests that can be counted ---------------------------------------------------------------- */

static void count_script(struct ob_life *life)
{
    struct ob_raw *raw = &life->raw;
    uint16_t reads[8];
    uint32_t one = 1;

    ob_ok(ob_raw_handshake(raw));
    for (uint32_t i = 0; i < 8; i++) { /* in one stream: an addition, and what it came to */
        ob_ok(ob_raw_post(raw, TD_BAR, TD_TICK, &one, sizeof(one)));
        reads[i] = send_read(raw, TD_BAR, TD_COUNT, 4);
    }
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(take_read(raw, reads[i]), i + 1);
    }
    for (uint32_t i = 9; i < 12; i++) { /* one by one */
        ob_write32(raw, TD_BAR, TD_TICK, 1);
        assert_int_equal(ob_read32(raw, TD_BAR, TD_COUNT), i);
    }
    /* Refused requests undo what they did, in a successor too. */
    ob_write32(raw, TD_BAR, TD_ERROR_CODE, EIO);
    assert_int_equal(ob_raw_write(raw, TD_BAR, TD_ERROR, &one, 4), EIO);
    assert_int_equal(ob_read32(raw, TD_BAR, TD_COUNT), 11);
    ob_write32(raw, TD_BAR, TD_FLAGS_SET, 0x3c);
    assert_int_equal(ob_read32(raw, TD_BAR, TD_LATCH), 0x3c); /* cleared by the read that saw it, once */
    assert_int_equal(ob_read32(raw, TD_BAR, TD_LATCH), 0);
    ob_ok(ob_raw_reset(raw));
    assert_int_equal(ob_read32(raw, TD_BAR, TD_COUNT), 0);
}

static void test_count(void **state)
{
    at_every_step("OUTBOARD_TESTDEV", count_script, 100);
}

static void test_count_again_and_again(void **state)
{
    again_and_again("OUTBOARD_TESTDEV", count_script, 9);
}

/* Several writes in one message: some of them done before the kill. */
static void multi_script(struct ob_life *life)
{
    struct ob_raw_one_write writes[10];
    uint64_t done = 0;

    ob_ok(ob_raw_handshake(&life->raw));
    for (uint32_t i = 0; i < 10; i++) {
        writes[i] = (struct ob_raw_one_write){ .offset = TD_TICK, .region = TD_BAR, .count = 4, .data = { 1 } };
    }
    for (uint32_t i = 1; i <= 3; i++) {
        ob_ok(ob_raw_write_multi(&life->raw, writes, 10, &done));
        assert_int_equal(done, 10);
        assert_int_equal(ob_read32(&life->raw, TD_BAR, TD_COUNT), 10 * i);
    }
}

static void test_multi(void **state)
{
    at_every_step("OUTBOARD_TESTDEV", multi_script, 60);
}

/* Memory that the client maps, a request that is kept, MSI-X, and the worker's ring. */
static void ring_script(struct ob_life *life)
{
    struct ob_raw *raw = &life->raw;
    int guest = ob_guest_memory(16 * PAGE), event = ob_event_new();
    uint8_t *memory = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, guest, 0);
    struct td_entry *ring = (struct td_entry *)memory;
    uint64_t address = 0x100000;
    uint16_t on = PCI_MSIX_FLAGS_ENABLE, kept;
    uint32_t at;

    assert_ptr_not_equal(memory, MAP_FAILED);
    ob_ok(ob_raw_handshake(raw));
    ob_ok(ob_raw_map(raw, address, 16 * PAGE, 3, guest, 0));
    at = ob_find_capability(raw, PCI_CAP_ID_MSIX) + PCI_MSIX_FLAGS;
    ob_set_command(raw, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    ob_ok(ob_raw_write(raw, VFIO_PCI_CONFIG_REGION_INDEX, at, &on, sizeof(on)));
    ob_ok(ob_set_eventfds(raw, VFIO_PCI_MSIX_IRQ_INDEX, 4, 1, &event));
    ob_ok(ob_raw_write(raw, TD_BAR, TD_RING_ADDR, &address, sizeof(address)));
    ob_write32(raw, TD_BAR, TD_RING_SIZE, 16);
    ob_write32(raw, TD_BAR, TD_RING_CTRL, 1);
    for (uint32_t i = 1; i <= 4; i++) {
        struct td_entry *entry = &ring[i - 1];

        memset(memory + PAGE, (int)(0x10 + i), 100);
        *entry = (struct td_entry){ .src = address + PAGE, .dst = address + (1 + i) * PAGE, .len = 100, .vector = 4 };
        ob_write32(raw, TD_BAR, TD_DOORBELL, i);
        while (ob_read32(raw, TD_BAR, TD_RING_DONE) != i) {
            ob_event_wait(event);
        }
        assert_int_equal(__atomic_load_n(&entry->status, __ATOMIC_ACQUIRE), TD_DONE);
        assert_memory_equal(memory + PAGE, memory + (1 + i) * PAGE, 100);
    }
    for (int i = 0; i < 2; i++) {
        kept = send_read(raw, TD_BAR, TD_ASYNC, 4);
        assert_int_equal(take_read(raw, kept), TD_ASYNC_VALUE);
    }
    ob_ok(ob_set_eventfds(raw, VFIO_PCI_MSIX_IRQ_INDEX, 1, 1, &event));
    ob_event_take(event);
    ob_write32(raw, TD_BAR, TD_TIMER_NS, 1000000);
    ob_event_wait(event);
    assert_int_equal(ob_read32(raw, TD_BAR, TD_TIMER_FIRED), 1);
    ob_write32(raw, 2, 128, 0xcafe);
    assert_int_equal(ob_read32(raw, 2, 128), 0xcafe);
    ob_ok(ob_raw_unmap(raw, address, 16 * PAGE));
    munmap(memory, 16 * PAGE);
    close(guest);
    close(event);
}

static void test_ring(void **state)
{
    at_every_step("OUTBOARD_TESTDEV", ring_script, 100);
}

/* Doorbells: the client goes on ringing the eventfds that it has, and no ring is lost. A successor rings each once more
 * on its own: hence "at least". ERR and REQ are told with the commit. */
static void await_rings(struct ob_raw *raw, unsigned event, uint32_t least)
{
    while (bells_count(raw, event) < least) {
    }
}

static void bells_script(struct ob_life *life)
{
    struct ob_raw *raw = &life->raw;
    int event = ob_event_new();
    struct bells bells, again;

    ob_ok(ob_raw_handshake(raw));
    bells_ask(raw, TD_BAR, 4096, &bells);
    assert_int_equal(bells.nfds, 4);
    ob_ok(ob_set_eventfds(raw, VFIO_PCI_REQ_IRQ_INDEX, 0, 1, &event));
    for (uint32_t i = 1; i <= 3; i++) {
        uint32_t worker = bells_count(raw, 0), control = bells_count(raw, 3);

        bells_ring(&bells, 0); /* the worker's */
        await_rings(raw, 0, worker + 1);
        bells_ring(&bells, 4); /* the control loop's */
        await_rings(raw, 3, control + 1);
        ob_write32(raw, TD_BAR, 0x104, i);
        ob_ok(ob_raw_write(raw, TD_BAR, 0x118, &i, 1));
        await_rings(raw, 0, worker + 2);
        await_rings(raw, 3, control + 2);
        ob_write32(raw, TD_BAR, TD_NOTIFY, TD_NOTIFY_REQ);
        assert_in_range(ob_event_take(event), 1, 2);
        ob_write32(raw, TD_MIXED, 0, i);
        ob_write32(raw, TD_WHOLE, 0x1ffc, ~i);
        assert_int_equal(ob_read32(raw, TD_MIXED, 0), i);
        assert_int_equal(ob_read32(raw, TD_WHOLE, 0x1ffc), ~i);
    }
    /* Who asks again gets the same ones. */
    bells_ask(raw, TD_BAR, 4096, &again);
    uint32_t count = bells_count(raw, 0);
    bells_ring(&again, 0);
    await_rings(raw, 0, count + 1);
    bells_close(&again);
    bells_close(&bells);
    close(event);
}

static void test_bells(void **state)
{
    at_every_step("OUTBOARD_TESTDEV", bells_script, 100);
}

/* Memory that the device reaches over the twin socket, which outlives its processes as the main one does. */
struct served {
    struct ob_raw twin;
    uint64_t address;
    uint8_t bytes[32 * PAGE];
};

static int serve(void *ctx, bool write, uint64_t address, uint64_t count, void *data)
{
    struct served *served = ctx;
    uint64_t at = address - served->address;

    if (address < served->address || count > sizeof(served->bytes) || at > sizeof(served->bytes) - count) {
        return EFAULT;
    }
    memcpy(write ? served->bytes + at : data, write ? data : served->bytes + at, count);
    return 0;
}

static void twin_script(struct ob_life *life)
{
    static const uint32_t lengths[] = { 100, 40000 }; /* one message each way, and two */
    static struct served served;
    struct ob_raw *raw = &life->raw;
    struct ob_raw_message *reply = NULL;
    int guest = ob_guest_memory(PAGE);
    uint64_t ring = 0x100000;

    served.address = 0x200000;
    ob_ok(ob_raw_version(raw, 0, 0, "{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}", &reply));
    ob_ok(ob_raw_take_twin(reply, &served.twin));
    ob_raw_message_free(reply);
    served.twin.dma = serve;
    served.twin.dma_ctx = &served;
    raw->twin = &served.twin;
    ob_ok(ob_raw_map(raw, ring, PAGE, 3, guest, 0));
    ob_ok(ob_raw_map(raw, served.address, sizeof(served.bytes), 3, -1, 0));
    ob_set_command(raw, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    ob_ok(ob_raw_write(raw, TD_BAR, TD_RING_ADDR, &ring, sizeof(ring)));
    ob_write32(raw, TD_BAR, TD_RING_SIZE, 4);
    ob_write32(raw, TD_BAR, TD_RING_CTRL, 1);
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t from = served.address, to = from + 16 * PAGE;
        struct td_entry entry = { from, to, lengths[i], TD_NO_VECTOR, 0, 0 };

        memset(served.bytes, (int)(0x50 + i), lengths[i]);
        served.bytes[lengths[i] - 1] = 0x77;
        assert_int_equal(pwrite(guest, &entry, sizeof(entry), (off_t)(i * sizeof(entry))), sizeof(entry));
        ob_write32(raw, TD_BAR, TD_DOORBELL, i + 1);
        ob_wait_register(raw, TD_BAR, TD_RING_DONE, UINT32_MAX, i + 1);
        assert_int_equal(pread(guest, &entry, sizeof(entry), (off_t)(i * sizeof(entry))), sizeof(entry));
        assert_int_equal(entry.status, TD_DONE);
        assert_memory_equal(served.bytes, served.bytes + 16 * PAGE, lengths[i]);
    }
    assert_ptr_equal(raw->twin, &served.twin); /* nobody has ended it */
    raw->twin = NULL;
    ob_raw_close(&served.twin);
    close(guest);
}

static void test_twin(void **state)
{
    at_every_step("OUTBOARD_TESTDEV", twin_script, 100);
}

/* --- edu ---------------------------------------------------------------------------------------------------------- */

static void edu_script(struct ob_life *life)
{
    struct ob_raw *raw = &life->raw;
    int guest = ob_guest_memory(4 * PAGE), event = ob_event_new();
    uint16_t reads[8];

    ob_ok(ob_raw_handshake(raw));
    ob_ok(ob_raw_map(raw, 0x10000, 4 * PAGE, 3, guest, 0));
    ob_ok(ob_set_eventfds(raw, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, &event));
    edu_enable(raw);
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t value = ~i;

        ob_ok(ob_raw_post(raw, EDU_BAR, EDU_LIVENESS, &value, 4));
        reads[i] = send_read(raw, EDU_BAR, EDU_LIVENESS, 4);
    }
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(take_read(raw, reads[i]), i);
    }
    ob_write32(raw, EDU_BAR, EDU_STATUS, EDU_STATUS_IRQ); /* an interrupt when the factorial is there */
    ob_write32(raw, EDU_BAR, EDU_FACTORIAL, 10);
    ob_event_wait(event);
    assert_int_equal(ob_read32(raw, EDU_BAR, EDU_FACTORIAL), 3628800);
    assert_int_equal(ob_read32(raw, EDU_BAR, EDU_IRQ_STATUS), 1);
    ob_write32(raw, EDU_BAR, EDU_IRQ_ACK, 1);
    ob_ok(ob_raw_set_irqs(raw, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, NULL,
                          NULL, 0));
    assert_int_equal(pwrite(guest, "survives", 8, 100), 8);
    ob_event_take(event); /* one too many is allowed, see design.md; none is not */
    edu_dma(raw, 0x10000 + 100, EDU_BUFFER, 8, EDU_DMA_IRQ);
    ob_event_wait(event);
    ob_write32(raw, EDU_BAR, EDU_IRQ_ACK, EDU_IRQ_DMA);
    edu_dma(raw, EDU_BUFFER, 0x10000 + 3 * PAGE, 8, EDU_DMA_TO_GUEST);
    edu_check(guest, 3 * PAGE, "survives", 8);
    ob_ok(ob_raw_unmap(raw, 0x10000, 4 * PAGE));
    close(guest);
    close(event);
}

static void test_edu(void **state)
{
    at_every_step("OUTBOARD_EDU", edu_script, 100);
}

static void test_edu_again_and_again(void **state)
{
    again_and_again("OUTBOARD_EDU", edu_script, 6);
}

/* --- serial: bytes through the loop of the UART, each once and in order ------------------------------------------- */

static void set_uart(struct ob_raw *raw, uint8_t offset, uint8_t value)
{
    ob_ok(ob_raw_write(raw, 0, offset, &value, 1));
}

static void serial_script(struct ob_life *life)
{
    struct ob_raw *raw = &life->raw;
    uint16_t reads[12], status;
    uint8_t scratch;

    ob_ok(ob_raw_handshake(raw));
    set_uart(raw, UART_LCR, UART_LCR_DLAB | UART_LCR_WLEN8);
    set_uart(raw, UART_DLL, 1);
    set_uart(raw, UART_DLM, 0);
    set_uart(raw, UART_LCR, UART_LCR_WLEN8);
    set_uart(raw, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT);
    set_uart(raw, UART_MCR, UART_MCR_LOOP);
    set_uart(raw, UART_SCR, 0x5a);
    for (uint8_t i = 0; i < 12; i++) {
        uint8_t byte = (uint8_t)('a' + i);

        ob_ok(ob_raw_post(raw, 0, UART_TX, &byte, 1));
    }
    status = send_read(raw, 0, UART_LSR, 1);
    for (uint8_t i = 0; i < 12; i++) {
        reads[i] = send_read(raw, 0, UART_RX, 1);
    }
    assert_int_equal(take_read(raw, status) & (UART_LSR_DR | UART_LSR_OE), UART_LSR_DR);
    for (uint8_t i = 0; i < 12; i++) {
        assert_int_equal(take_read(raw, reads[i]), 'a' + i);
    }
    assert_int_equal(take_read(raw, send_read(raw, 0, UART_LSR, 1)) & (UART_LSR_DR | UART_LSR_OE), 0);
    ob_ok(ob_raw_read(raw, 0, UART_SCR, &scratch, 1));
    assert_int_equal(scratch, 0x5a);
}

static void test_serial(void **state)
{
    at_every_step("OUTBOARD_SERIAL", serial_script, 100);
}

/* --- Migration: out of the device and into it again, with its log on ---------------------------------------------- */

static void migrate_script(struct ob_life *life)
{
    struct ob_raw *raw = &life->raw;
    int guest = ob_guest_memory(4 * PAGE);
    uint64_t ring = PAGE, bitmap = 0;
    enum mig_state state;
    uint8_t *data;
    size_t size;

    struct td_entry entry = { 2 * PAGE, 3 * PAGE + 8, 4, TD_NO_VECTOR, 0, 0 };
    assert_int_equal(pwrite(guest, &entry, sizeof(entry), 0), sizeof(entry));
    assert_int_equal(pwrite(guest, "moved", 5, PAGE), 5);
    ob_ok(ob_raw_handshake(raw));
    ob_ok(ob_raw_map(raw, ring, 3 * PAGE, 3, guest, 0));
    ob_set_command(raw, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    ob_ok(mig_log_start(raw, PAGE, NULL, 0));
    ob_write32(raw, TD_BAR, TD_TICK, 5);
    ob_write32(raw, 4, 0x1ffc, 0x600df00d);
    ob_ok(ob_raw_write(raw, TD_BAR, TD_RING_ADDR, &ring, sizeof(ring)));
    ob_write32(raw, TD_BAR, TD_RING_SIZE, 4);
    ob_write32(raw, TD_BAR, TD_RING_CTRL, 1);
    ob_write32(raw, TD_BAR, TD_DOORBELL, 1);
    ob_wait_register(raw, TD_BAR, TD_RING_DONE, UINT32_MAX, 1);
    ob_ok(mig_log_report(raw, PAGE, 3 * PAGE, PAGE, &bitmap));
    assert_int_equal(bitmap & 4, 4); /* more is allowed, less is not */
    ob_ok(mig_set_state(raw, MIG_PRE_COPY));
    ob_write32(raw, TD_BAR, TD_TICK, 2);
    ob_ok(mig_set_state(raw, MIG_STOP_COPY));
    ob_ok(mig_read_all(raw, 50000, &data, &size));
    ob_ok(mig_set_state(raw, MIG_RESUMING));
    ob_ok(mig_write_all(raw, 50000, data, size));
    ob_ok(mig_set_state(raw, MIG_RUNNING));
    ob_ok(mig_get_state(raw, &state));
    assert_int_equal(state, MIG_RUNNING);
    assert_int_equal(ob_read32(raw, TD_BAR, TD_COUNT), 7);
    assert_int_equal(ob_read32(raw, TD_BAR, TD_RING_DONE), 1);
    assert_int_equal(ob_read32(raw, 4, 0x1ffc), 0x600df00d);
    assert_int_equal(ob_config16(raw, PCI_COMMAND), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    ob_ok(mig_log_stop(raw));
    free(data);
    close(guest);
}

static void test_migrate(void **state)
{
    at_every_step("OUTBOARD_TESTDEV", migrate_script, 100);
}

static void test_migrate_again_and_again(void **state)
{
    again_and_again("OUTBOARD_TESTDEV", migrate_script, 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_count),
        cmocka_unit_test(test_count_again_and_again),
        cmocka_unit_test(test_multi),
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_bells),
        cmocka_unit_test(test_twin),
        cmocka_unit_test(test_edu),
        cmocka_unit_test(test_edu_again_and_again),
        cmocka_unit_test(test_serial),
        cmocka_unit_test(test_migrate),
        cmocka_unit_test(test_migrate_again_and_again),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
