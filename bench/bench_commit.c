/* What a request costs without its system calls: commits of the vault, and a whole register read through the session.
 *
 * send() is ours and does nothing, and requests are put into the journal as if they had been received. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device/dev.h"

#define ROUNDS 2000000
#define BATCH  64

static bool quiet; /* nothing is really sent */

ssize_t send(int fd, const void *bytes, size_t len, int flags)
{
    return quiet ? (ssize_t)len : sendto(fd, bytes, len, flags, NULL, 0);
}

static void fail(const char *what)
{
    fprintf(stderr, "bench_commit: %s failed\n", what);
    exit(1);
}

static void commits(const char *name, size_t state, bool intents)
{
    const struct ob_vault_layout layout = { .part = { state, 256, 8, 64 }, .signals = 32 };
    struct ob_vault v;
    struct ob_position position;

    if (ob_vault_open(&v, -1, &layout, &position) < 0)
        fail("ob_vault_open");
    uint64_t start = ob_now();
    for (int i = 0; i < ROUNDS; i++) {
        position.executed++;
        if (state > 0) {
            *(volatile uint32_t *)ob_vault_part(&v, OB_PART_STATE) = (uint32_t)i;
            v.dirty[OB_PART_STATE] = true;
        }
        if (intents) {
            v.intents.set[0] = 1;
            v.has_intents = true;
        }
        ob_vault_commit(&v, &position);
        if (intents)
            ob_vault_signalled(&v);
    }
    if (name)
        printf("commit, %-32s %8.1f ns\n", name, (double)(ob_now() - start) / ROUNDS);
    ob_vault_close(&v);
}

struct registers {
    uint32_t value;
};
static const struct ob_field fields[] = { OB_FIELD(struct registers, value), OB_FIELD_END };
static const struct ob_reg table[] = { OB_REG32("VALUE", 0, struct registers, value, .rw = UINT32_MAX), OB_REG_END };
OB_CLASS(bench, .pci = { .vendor = 0x1234, .device = 0x5678 }, .bars[0] = OB_BAR_REGS(4096, table),
         .state = OB_STATE(struct registers, 1, fields));

static struct ob_dev *make_device(int *client)
{
    uint8_t bytes[4096];
    struct ob_message version = { .header.command = OB_VERSION };
    struct ob_dev *dev;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        fail("socketpair");
    struct ob_listen on = { .fd = pair[1], .owner = (uid_t)-1, .group = (gid_t)-1 };
    if (ob_dev_new(&ob_class_bench, NULL, NULL, &dev) < 0 || ob_dev_listen(dev, &on) < 0)
        fail("the device");
    ssize_t size = ob_encode_request(bytes, sizeof(bytes), &version);
    if (write(pair[0], bytes, (size_t)size) != size || ob_server_run(dev, -1) <= 0 ||
        read(pair[0], bytes, sizeof(bytes)) <= 0)
        fail("VERSION");
    *client = pair[0];
    return dev;
}

/* Requests of one kind, `BATCH` at a time as one read would bring them. */
static void requests(struct ob_dev *dev, const char *name, struct ob_message *m)
{
    struct ob_session *s = &dev->session;
    struct ob_journal_header *h = s->journal.header;
    const size_t max = ob_max_message(&s->limits);
    uint64_t start = ob_now();

    quiet = true;
    for (int i = 0; i < ROUNDS / BATCH; i++) {
        size_t room = ob_journal_in_room(&s->journal, s->position.executed, max, true);
        for (int k = 0; k < BATCH; k++) {
            ssize_t size = ob_encode_request(ob_journal_in(&s->journal, h->in_tail), room, m);
            s->receiver.position += (size_t)size;
            ob_journal_store(&h->in_tail, h->in_tail + (size_t)size);
        }
        if (ob_session_advance(s) != BATCH)
            fail(name);
    }
    quiet = false;
    printf("%-40s %8.1f ns\n", name, (double)(ob_now() - start) / ROUNDS);
}

int main(void)
{
    const uint32_t value = 5;
    int client;

    commits(NULL, 0, false); /* to warm up */
    commits("nothing changed", 0, false);
    commits("64 B of state", 64, false);
    commits("256 B of state", 256, false);
    commits("4 KiB of state", 4096, false);
    commits("256 B of state and an interrupt", 256, true);
    struct ob_dev *dev = make_device(&client);
    struct ob_message read_value = { .header.command = OB_REGION_READ, .u.region_access = { 0, 0, 4 } };
    struct ob_message write_value = { .header = { .command = OB_REGION_WRITE, .flags = OB_FLAG_NO_REPLY },
                                      .u.region_access = { 0, 0, 4 },
                                      .tail = (const uint8_t *)&value,
                                      .tail_size = 4 };
    requests(dev, "a register read, without system calls", &read_value);
    requests(dev, "a posted register write, likewise", &write_value);
    close(client);
    ob_dev_free(dev);
    return 0;
}
