/* bench_client: what the client library costs beside a loop of send() and recv() by hand, on the same server program,
 * in turns and in one run: round trips of a 4-byte read, reads at a depth of 32, and posted writes.
 *
 * bench_client [--turns N]    OUTBOARD_MINIMAL_SERVER, OUTBOARD_BENCH_SERVER: the servers' commands */
#include <outboard/client.h>

#include "../tests/integration/process.h"
#include "measure.h"
#include "raw/client.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REGION    2
#define MAX_TURNS 200
#define ROUNDS    1000 /* round trips of a turn */
#define DEPTH     32
#define BATCHES   50
#define POSTS     10000
#define GATHER    500 /* posted writes that are sent at once by hand: 18,000 bytes */

static int turns = 30;

/* A server of its own for each of those who are compared. */
struct side {
    struct ob_process process;
    struct ob_raw raw;
    struct ob_client *client;
};

/* --- By hand ----------------------------------------------------------------------------------------------------- */

static struct ob_raw_region access_of(uint64_t offset)
{
    return (struct ob_raw_region){ .offset = offset, .region = REGION, .count = 4 };
}

static void send_all(int fd, const void *bytes, size_t size)
{
    if (send(fd, bytes, size, MSG_NOSIGNAL) != (ssize_t)size)
        die("a server took part of a message: %s", strerror(errno));
}

static void receive_all(int fd, size_t size)
{
    uint8_t in[DEPTH * 64];
    size_t have = 0;

    while (have < size) {
        ssize_t n = recv(fd, in, sizeof(in), 0);

        if (n <= 0)
            die("a server ended the session");
        have += (size_t)n;
    }
}

/* Builds n reads; returns their size. The replies have 36 bytes each. */
static size_t build_reads(uint8_t *to, unsigned n)
{
    struct ob_raw_region access = access_of(0);
    size_t size = 0;

    for (unsigned i = 0; i < n; i++)
        size += ob_raw_build(to + size, (uint16_t)i, OB_RAW_REGION_READ, 0, &access, sizeof(access));
    return size;
}

static double raw_round_trip(struct side *side)
{
    static double times[ROUNDS];
    uint8_t out[64];

    for (int i = 0; i < ROUNDS; i++) {
        double start = now_us();

        send_all(side->raw.fd, out, build_reads(out, 1));
        receive_all(side->raw.fd, 36);
        times[i] = now_us() - start;
    }
    return median(times, ROUNDS);
}

static double raw_depth(struct side *side)
{
    uint8_t out[DEPTH * 64];
    double start = now_us();

    for (int i = 0; i < BATCHES; i++) {
        send_all(side->raw.fd, out, build_reads(out, DEPTH));
        receive_all(side->raw.fd, DEPTH * 36);
    }
    return BATCHES * DEPTH / (now_us() - start) * 1e6;
}

static double raw_posts(struct side *side)
{
    static uint8_t out[GATHER * 64];
    double start = now_us();

    for (unsigned done = 0; done < POSTS; done += GATHER) {
        size_t size = 0;

        for (unsigned i = 0; i < GATHER; i++) {
            struct {
                struct ob_raw_region access;
                uint32_t data;
            } write = { access_of(0), done + i };

            size += ob_raw_build(out + size, 0, OB_RAW_REGION_WRITE, OB_RAW_NO_REPLY, &write, 20);
        }
        send_all(side->raw.fd, out, size);
    }
    send_all(side->raw.fd, out, build_reads(out, 1));
    receive_all(side->raw.fd, 36);
    return POSTS / (now_us() - start) * 1e6;
}

/* --- By the library ---------------------------------------------------------------------------------------------- */

static void must(int result, struct side *side)
{
    if (result != 0)
        die("a call failed: %s (%s)", strerror(-result), ob_client_why(side->client));
}

static double client_round_trip(struct side *side)
{
    static double times[ROUNDS];
    uint32_t value;

    for (int i = 0; i < ROUNDS; i++) {
        double start = now_us();

        must(ob_client_read(side->client, REGION, 0, &value, 4, NULL), side);
        times[i] = now_us() - start;
    }
    return median(times, ROUNDS);
}

static double client_depth(struct side *side)
{
    struct ob_call calls[DEPTH];
    uint32_t values[DEPTH];
    double start = now_us();

    memset(calls, 0, sizeof(calls));
    for (int i = 0; i < BATCHES; i++) {
        for (int k = 0; k < DEPTH; k++)
            must(ob_client_read(side->client, REGION, 0, &values[k], 4, &calls[k]), side);
        for (int k = 0; k < DEPTH; k++)
            must((int)ob_call_wait(side->client, &calls[k]), side);
    }
    return BATCHES * DEPTH / (now_us() - start) * 1e6;
}

static double client_posts(struct side *side)
{
    double start = now_us();
    uint32_t value;

    for (uint32_t i = 0; i < POSTS; i++)
        must(ob_client_post(side->client, REGION, 0, &i, 4), side);
    must(ob_client_read(side->client, REGION, 0, &value, 4, NULL), side);
    return POSTS / (now_us() - start) * 1e6;
}

/* --- Both -------------------------------------------------------------------------------------------------------- */

static void start_server(struct side *side, const char *command)
{
    struct ob_process_options options = { .command = command, .socket = OB_PROCESS_LISTENING };
    int err = ob_process_start(&side->process, &options);

    if (err)
        die("cannot start %s: %s", command, strerror(-err));
}

static void start_raw(struct side *side, const char *command)
{
    start_server(side, command);
    if (ob_raw_connect(&side->raw, side->process.path) != 0 || ob_raw_handshake(&side->raw) != 0)
        die("%s: %s", command, side->raw.why);
}

static void start_client(struct side *side, const char *command, bool multi)
{
    struct ob_client_options options = { .no_write_multi = !multi };
    char why[256];

    start_server(side, command);
    if (ob_client_connect(side->process.path, &options, &side->client, why, sizeof(why)) != 0)
        die("%s: %s", command, why);
}

/* Takes turns and prints the medians, and the library's relative speed. */
static void compare_both(const char *server, const char *name, double (*by_hand)(struct side *), struct side *raw,
                         double (*by_library)(struct side *), struct side *client, bool time)
{
    double hand[MAX_TURNS], library[MAX_TURNS], h, l;

    for (int i = 0; i < turns; i++) {
        hand[i] = by_hand(raw);
        library[i] = by_library(client);
    }
    h = median(hand, turns);
    l = median(library, turns);
    printf("%-10s %-28s %12.2f %12.2f %-6s %6.2f\n", server, name, h, l, time ? "us" : "/s", time ? h / l : l / h);
    fflush(stdout);
}

static void bench(const char *name, const char *variable)
{
    const char *command = getenv(variable);
    struct side raw = { 0 }, single = { 0 }, multi = { 0 };

    if (!command)
        die("%s is not set: the command of a server", variable);
    start_raw(&raw, command);
    start_client(&single, command, false);
    start_client(&multi, command, true);
    compare_both(name, "read of 4 bytes", raw_round_trip, &raw, client_round_trip, &single, true);
    compare_both(name, "reads at depth 32", raw_depth, &raw, client_depth, &single, false);
    compare_both(name, "posted writes", raw_posts, &raw, client_posts, &single, false);
    compare_both(name, "posted writes, coalesced", raw_posts, &raw, client_posts, &multi, false);
    ob_raw_close(&raw.raw);
    ob_client_close(single.client);
    ob_client_close(multi.client);
    ob_process_stop(&raw.process, SIGTERM, 5000);
    ob_process_stop(&single.process, SIGTERM, 5000);
    ob_process_stop(&multi.process, SIGTERM, 5000);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--turns") == 0)
        turns = atoi(argv[2]);
    if ((argc != 1 && argc != 3) || turns < 1 || turns > MAX_TURNS) {
        fprintf(stderr, "usage: bench_client [--turns 1..%d]\n", MAX_TURNS);
        return 2;
    }
    printf("%-10s %-28s %12s %12s %-6s %6s\n", "server", "what", "by hand", "library", "", "ratio");
    bench("minimal", "OUTBOARD_MINIMAL_SERVER");
    bench("outboard", "OUTBOARD_BENCH_SERVER");
    return 0;
}
