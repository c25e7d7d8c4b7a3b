/* bench_dma: DMA_READ of 4 KiB by messages, over the main socket and over the twin socket, in turns and in one run: the
 * client library on one side, the device library on the other. What is printed are medians.
 *
 * bench_dma [--turns N]    OUTBOARD_BENCH_SERVER: the server's command */
#include <outboard/client.h>

#include "../tests/integration/process.h"
#include "measure.h"

#include <linux/vfio.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define REGION    2
#define DATA      0
#define DEPTH     4
#define COPIES    8
#define PAGE      4096u
#define MAX_TURNS 200
#define ROUNDS    2000 /* copies, or reads, of a turn */

static int turns = 30;

/* A server of its own, and a client that takes a twin socket or not. */
struct side {
    struct ob_process process;
    struct ob_client *client;
    uint8_t memory[16 * PAGE];
    atomic_uint served;
};

static int serve(void *ctx, bool to_device, uint64_t iova, void *buf, size_t len)
{
    struct side *side = ctx;

    if (!to_device || len > sizeof(side->memory) || iova > sizeof(side->memory) - len)
        die("DMA that was not asked for");
    memcpy(buf, side->memory + iova, len);
    side->served++;
    return 0;
}

static void must(int result, struct side *side)
{
    if (result != 0)
        die("a call failed: %s (%s)", strerror(-result), ob_client_why(side->client));
}

static void start(struct side *side, const char *command, bool twin)
{
    const struct ob_process_options process = { .command = command, .socket = OB_PROCESS_LISTENING };
    const struct ob_client_options options = { .dma = serve, .dma_ctx = side, .no_twin_socket = !twin };
    const uint16_t master = 6;
    char why[256];
    int err = ob_process_start(&side->process, &process);

    if (err)
        die("cannot start %s: %s", command, strerror(-err));
    if (ob_client_connect(side->process.path, &options, &side->client, why, sizeof(why)) != 0)
        die("%s: %s", command, why);
    if (ob_client_info(side->client)->twin_socket != twin)
        die("%s %s a twin socket", command, twin ? "does not give" : "gives");
    must(ob_client_dma_map(side->client, 0, sizeof(side->memory), PROT_READ, -1, 0, NULL), side);
    must(ob_client_write(side->client, VFIO_PCI_CONFIG_REGION_INDEX, 4, &master, sizeof(master), NULL), side);
}

static void stop(struct side *side)
{
    ob_client_close(side->client);
    ob_process_stop(&side->process, SIGTERM, 5000);
}

/* --- What is measured -------------------------------------------------------------------------------------------- */

static void begin(struct side *side, uint32_t depth)
{
    const uint32_t copies = ROUNDS;

    side->served = 0;
    must(ob_client_write(side->client, REGION, DEPTH, &depth, 4, NULL), side);
    must(ob_client_write(side->client, REGION, COPIES, &copies, 4, NULL), side);
}

static double copies(struct side *side, uint32_t depth)
{
    double start = now_us();

    begin(side, depth);
    while (side->served < ROUNDS)
        if (ob_client_run(side->client, 5000) <= 0)
            die("copies do not end: %s", ob_client_why(side->client));
    return ROUNDS / (now_us() - start) * 1e6;
}

static double one_by_one(struct side *side)
{
    return copies(side, 1);
}

static double sixteen(struct side *side)
{
    return copies(side, 16);
}

/* The client does nothing but read a register, and serves while it waits. */
static double beside_reads(struct side *side)
{
    double start = now_us();
    uint32_t value;

    begin(side, 16);
    while (side->served < ROUNDS)
        must(ob_client_read(side->client, REGION, DATA, &value, 4, NULL), side);
    return ROUNDS / (now_us() - start) * 1e6;
}

static double round_trip(struct side *side)
{
    static double times[ROUNDS];
    uint32_t value;

    for (int i = 0; i < ROUNDS; i++) {
        double start = now_us();

        must(ob_client_read(side->client, REGION, DATA, &value, 4, NULL), side);
        times[i] = now_us() - start;
    }
    return median(times, ROUNDS);
}

static void measure(const char *name, double (*run)(struct side *), struct side sides[2], const char *unit)
{
    double values[2][MAX_TURNS], m[2];

    for (int i = 0; i < turns; i++)
        for (int side = 0; side < 2; side++)
            values[side][i] = run(&sides[side]);
    for (int side = 0; side < 2; side++)
        m[side] = median(values[side], turns);
    printf("%-34s %12.2f %12.2f %-5s %6.2f\n", name, m[0], m[1], unit, m[1] / m[0]);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct side sides[2];
    const char *command = getenv("OUTBOARD_BENCH_SERVER");

    if (argc == 3 && strcmp(argv[1], "--turns") == 0)
        turns = atoi(argv[2]);
    if ((argc != 1 && argc != 3) || turns < 1 || turns > MAX_TURNS) {
        fprintf(stderr, "usage: bench_dma [--turns 1..%d]\n", MAX_TURNS);
        return 2;
    }
    if (!command)
        die("OUTBOARD_BENCH_SERVER is not set: the command of a server");
    for (int twin = 0; twin < 2; twin++)
        start(&sides[twin], command, twin);
    printf("%-34s %12s %12s %-5s %6s\n", "what", "main", "twin", "", "ratio");
    measure("DMA_READ of 4 KiB, one at a time", one_by_one, sides, "/s");
    measure("DMA_READ of 4 KiB, 16 in flight", sixteen, sides, "/s");
    measure("the same, beside register reads", beside_reads, sides, "/s");
    measure("read of a register, no DMA", round_trip, sides, "us");
    for (int twin = 0; twin < 2; twin++)
        stop(&sides[twin]);
    return 0;
}
