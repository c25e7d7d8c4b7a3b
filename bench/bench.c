/* bench: what a device outside the VM costs, against the bound for any server (minimal_server) and against a reference
 * server given on the command line.
 *
 * Servers are measured in turns, A B C A B C, some milliseconds each, all in one run; the ones that wait are stopped.
 * What is printed is the median of the turns and its ratio to the others' medians: those travel better than absolute
 * figures. --json appends a line for each figure to a file.
 *
 * bench [--json FILE] [--turns N] [--reference COMMAND] [--reference-poll COMMAND] [NAME]...
 * COMMAND: starts a server on the socket path that stands for %s; its BAR2 has a register at 0. It may also come from
 * OUTBOARD_REFERENCE and OUTBOARD_REFERENCE_POLL. NAME: of the benchmarks to run; all by default.
 * OUTBOARD_BENCH_SERVER, OUTBOARD_MINIMAL_SERVER, OUTBOARD_EDU: the other servers' commands. */
#include "measure.h"
#include "peers.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define REGION        2
#define MAX_TURNS     500
#define BATCH         32
#define MAX_EXCHANGES 10000

static struct {
    struct ob_bench_commands commands;
    FILE *json;
    int turns;
} setup = { .turns = 60 };

/* A figure of each server, turn by turn. */
struct series {
    const char *bench, *variant, *unit;
    bool smaller_is_better;
    int turns[OB_BENCH_PEERS];
    double value[OB_BENCH_PEERS][MAX_TURNS];
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void report(struct series *series)
{
    double m[OB_BENCH_PEERS];

    printf("%-12s %-26s", series->bench, series->variant);
    for (int i = 0; i < OB_BENCH_PEERS; i++) {
        m[i] = median(series->value[i], series->turns[i]);
        if (series->turns[i] > 0) {
            printf(" %12.2f", m[i]);
        } else {
            printf(" %12s", "-");
        }
    }
    printf(" %-9s", series->unit);
    for (int i = 1; i < OB_BENCH_PEERS; i++) {
        if (series->turns[0] > 0 && series->turns[i] > 0 && m[0] > 0 && m[i] > 0) {
            printf(" %6.2f x %s", series->smaller_is_better ? m[i] / m[0] : m[0] / m[i], ob_bench_names[i]);
        }
    }
    printf("\n");
    fflush(stdout);
    for (int i = 0; i < OB_BENCH_PEERS && setup.json != NULL; i++) {
        if (series->turns[i] > 0) {
            fprintf(setup.json,
                    "{\"bench\":\"%s\",\"variant\":\"%s\",\"server\":\"%s\",\"median\":%.3f,\"unit\":\"%s\","
                    "\"turns\":%d}\n",
                    series->bench, series->variant, ob_bench_names[i], m[i], series->unit, series->turns[i]);
        }
    }
}

/* --- The client's hot path: no allocation, no poll; sizes are known ---------------------------------------------- */

struct traffic {
    struct ob_raw *raw;
    bool spin;
    size_t out_size, in_size; /* of one exchange, bytes */
    uint8_t out[BATCH * 64], in[BATCH * 64];
};

static void exchange(struct traffic *t)
{
    size_t have = 0;

    if (send(t->raw->fd, t->out, t->out_size, MSG_NOSIGNAL) != (ssize_t)t->out_size) {
        ob_bench_die("a server took part of a message: %s", strerror(errno));
    }
    while (have < t->in_size) {
        ssize_t n = recv(t->raw->fd, t->in + have, sizeof(t->in) - have, t->spin ? MSG_DONTWAIT : 0);

        if (n > 0) {
            have += (size_t)n;
        } else if (n == 0 || errno != EAGAIN) {
            ob_bench_die("a server ended the session: %s", n == 0 ? "closed" : strerror(errno));
        }
    }
    if (have != t->in_size) {
        ob_bench_die("a server answered %zu bytes, not %zu", have, t->in_size);
    }
}

static void add_access(struct traffic *t, bool write, uint32_t flags)
{
    struct {
        struct ob_raw_region region;
        uint32_t value;
    } OB_RAW_PACKED access = { .region = { .region = REGION, .count = 4 }, .value = 5 };

    t->out_size +=
        ob_raw_build(t->out + t->out_size, t->raw->next_id++, write ? OB_RAW_REGION_WRITE : OB_RAW_REGION_READ, flags,
                     &access, write ? sizeof(access) : sizeof(access.region));
    if (!(flags & OB_RAW_NO_REPLY)) {
        t->in_size += sizeof(struct ob_raw_header) + sizeof(access.region) + (write ? 0 : 4);
    }
}

/* No reply of a server under measurement may be an error; errors are shorter or flagged. */
static void check_replies(const struct traffic *t)
{
    for (size_t at = 0; at < t->in_size;) {
        struct ob_raw_header header;

        memcpy(&header, t->in + at, sizeof(header));
        if (header.flags != OB_RAW_REPLY || header.size < sizeof(header)) {
            ob_bench_die("a server answered flags %#x error %u", header.flags, header.error);
        }
        at += header.size;
    }
}

enum shape { ONE_READ, ONE_WRITE, WRITES_AT_ONCE, POSTED_AND_READ, SHAPES };
static const struct {
    const char *name;
    int operations; /* that a rate counts */
} shapes[SHAPES] = { { "read", 1 }, { "one by one", 1 }, { "32 in one send", BATCH }, { "32 posted + read", BATCH } };

static void shape_traffic(struct traffic *t, struct ob_raw *raw, enum shape shape, bool spin)
{
    *t = (struct traffic){ .raw = raw, .spin = spin };
    for (int i = 0; i < shapes[shape].operations && shape != ONE_READ; i++) {
        add_access(t, true, shape == POSTED_AND_READ ? OB_RAW_NO_REPLY : 0);
    }
    if (shape == ONE_READ || shape == POSTED_AND_READ) {
        add_access(t, false, 0);
    }
}

/* Exchanges for about a turn's time; the rate in operations a second, of the median exchange: a time slice lost to
 * another process is not the server's. */
static double turn_rate(struct traffic *t, enum shape shape)
{
    static double took[MAX_EXCHANGES];
    const uint64_t turn_ns = 20000000;
    uint64_t start, last;
    int n = 0;

    for (int i = 0; i < 10; i++) { /* wakes up whatever has to */
        exchange(t);
    }
    check_replies(t);
    start = last = now_ns();
    while (n < MAX_EXCHANGES && last - start < turn_ns) {
        uint64_t now;

        exchange(t);
        now = now_ns();
        took[n++] = (double)(now - last);
        last = now;
    }
    check_replies(t);
    return shapes[shape].operations * 1e9 / median(took, n);
}

static void compare_shape(const char *bench, enum shape shape, bool poll, bool spin)
{
    struct ob_bench_peer peers[OB_BENCH_PEERS];
    static struct series series;
    char variant[64];

    snprintf(variant, sizeof(variant), "%s, %s %s", shapes[shape].name, poll ? "poll" : "sleep",
             spin ? "spin" : "sleep");
    series = (struct series){ .bench = bench, .variant = variant, .unit = "op/s" };
    ob_bench_start(peers, poll ? setup.commands.polling : setup.commands.sleeping, poll || spin);
    for (int turn = 0; turn < setup.turns; turn++) {
        for (int i = 0; i < OB_BENCH_PEERS; i++) {
            struct traffic traffic;

            if (peers[i].present) {
                shape_traffic(&traffic, &peers[i].raw, shape, spin);
                ob_bench_resume(&peers[i]);
                series.value[i][series.turns[i]++] = turn_rate(&traffic, shape);
                ob_bench_pause(&peers[i]);
            }
        }
    }
    ob_bench_end(peers);
    report(&series);
}

/* --- The benchmarks ---------------------------------------------------------------------------------------------- */

static void bench_read(void)
{
    compare_shape("read", ONE_READ, false, false);
    compare_shape("read", ONE_READ, false, true);
    compare_shape("read", ONE_READ, true, false);
    compare_shape("read", ONE_READ, true, true);
}

static void bench_write(void)
{
    compare_shape("write", ONE_WRITE, false, false);
    compare_shape("write", WRITES_AT_ONCE, false, false);
    compare_shape("write", POSTED_AND_READ, false, false);
}

#define COUNTED 200

static void exchange_counted(void *ctx)
{
    for (int i = 0; i < COUNTED; i++) {
        exchange(ctx);
    }
}

static void count_shape(enum shape shape, bool poll)
{
    struct ob_bench_peer peers[OB_BENCH_PEERS];
    static struct series series;
    char variant[64];

    snprintf(variant, sizeof(variant), "%s, %s", shapes[shape].name, poll ? "poll" : "sleep");
    series = (struct series){ .bench = "syscalls", .variant = variant, .unit = "calls", .smaller_is_better = true };
    ob_bench_start(peers, poll ? setup.commands.polling : setup.commands.sleeping, poll);
    for (int i = 0; i < OB_BENCH_PEERS; i++) {
        struct ob_bench_calls calls;
        struct traffic traffic;

        if (peers[i].present) {
            shape_traffic(&traffic, &peers[i].raw, shape, false);
            ob_bench_resume(&peers[i]);
            calls = ob_bench_count_calls(peers[i].process.pid, exchange_counted, &traffic);
            check_replies(&traffic);
            series.value[i][series.turns[i]++] = (double)calls.done / COUNTED;
        }
    }
    ob_bench_end(peers);
    report(&series);
}

static void bench_syscalls(void)
{
    count_shape(ONE_READ, true);
    count_shape(ONE_READ, false);
    count_shape(POSTED_AND_READ, false);
    count_shape(WRITES_AT_ONCE, false);
}

#define PAGE 4096ull

static void must(int r, const char *what, const char *who)
{
    if (r != 0) {
        ob_bench_die("%s by %s: %s", what, who, strerror(abs(r)));
    }
}

static void fill_maps(struct ob_bench_peer *peer, const char *who, int fd, uint64_t present)
{
    ob_bench_resume(peer);
    for (uint64_t i = 0; i < present; i++) {
        must(ob_raw_map(&peer->raw, i * 2 * PAGE, PAGE, 3, fd, i * PAGE), "DMA_MAP", who);
    }
    ob_bench_pause(peer);
}

/* Maps between the maps that are present, and unmaps, `depth` pairs in flight: QEMU pipelines them too. */
#define MAP_DEPTH_MAX 16
static double turn_maps(struct ob_bench_peer *peer, const char *who, int fd, uint64_t present, int depth)
{
    const int pairs = 480;
    uint16_t ids[2 * MAP_DEPTH_MAX];
    uint64_t start = now_ns();

    for (int i = 0; i < pairs; i += depth) {
        for (int k = 0; k < depth; k++) {
            uint64_t nth = present * (uint64_t)(i + k) / pairs, address = (2 * nth + 1) * PAGE;
            struct ob_raw_dma_map map = {
                .argsz = sizeof(map), .flags = 3, .offset = nth * PAGE, .address = address, .size = PAGE
            };
            struct ob_raw_dma_unmap unmap = { .argsz = sizeof(unmap), .address = address, .size = PAGE };

            must(ob_raw_request(&peer->raw, OB_RAW_DMA_MAP, 0, &map, sizeof(map), &fd, 1, &ids[2 * k]), "DMA_MAP", who);
            must(ob_raw_request(&peer->raw, OB_RAW_DMA_UNMAP, 0, &unmap, sizeof(unmap), NULL, 0, &ids[2 * k + 1]),
                 "DMA_UNMAP", who);
        }
        for (int k = 0; k < 2 * depth; k++)
            must(ob_raw_reply(&peer->raw, ids[k], k % 2 ? OB_RAW_DMA_UNMAP : OB_RAW_DMA_MAP, NULL),
                 k % 2 ? "DMA_UNMAP" : "DMA_MAP", who);
    }
    return pairs * 1e9 / (double)(now_ns() - start);
}

static void compare_maps(uint64_t present, int depth)
{
    struct ob_bench_peer peers[OB_BENCH_PEERS];
    int fd = memfd_create("bench", MFD_CLOEXEC);
    static struct series series;
    char variant[64];

    if (fd < 0 || ftruncate(fd, (off_t)((present + 1) * PAGE)) != 0) {
        ob_bench_die("no memory to map: %s", strerror(errno));
    }
    snprintf(variant, sizeof(variant), "map+unmap, %llu present, %d at once", (unsigned long long)present, depth);
    series = (struct series){ .bench = "map", .variant = variant, .unit = "pair/s" };
    ob_bench_start(peers, setup.commands.sleeping, false);
    for (int i = 0; i < OB_BENCH_PEERS; i++) {
        if (peers[i].present) {
            fill_maps(&peers[i], ob_bench_names[i], fd, present);
        }
    }
    for (int turn = 0; turn < setup.turns; turn++) {
        for (int i = 0; i < OB_BENCH_PEERS; i++) {
            if (peers[i].present) {
                ob_bench_resume(&peers[i]);
                series.value[i][series.turns[i]++] = turn_maps(&peers[i], ob_bench_names[i], fd, present, depth);
                ob_bench_pause(&peers[i]);
            }
        }
    }
    ob_bench_end(peers);
    close(fd);
    report(&series);
}

static void bench_map(void)
{
    compare_maps(1, 1);
    compare_maps(60000, 1);
    compare_maps(1, MAP_DEPTH_MAX);
    compare_maps(60000, MAP_DEPTH_MAX);
}

static void bench_memory(void)
{
    const char *commands[OB_BENCH_PEERS] = { getenv("OUTBOARD_EDU"), setup.commands.sleeping[OB_BENCH_MINIMAL],
                                             setup.commands.sleeping[OB_BENCH_REFERENCE] };
    struct ob_bench_peer peers[OB_BENCH_PEERS];
    static struct series series;

    series = (struct series){ .bench = "memory", .variant = "one device, RssAnon+RssFile", .unit = "KiB" };
    series.smaller_is_better = true;
    ob_bench_start(peers, commands, false);
    for (int i = 0; i < OB_BENCH_PEERS; i++) {
        if (peers[i].present) {
            series.value[i][series.turns[i]++] = (double)(ob_process_status(peers[i].process.pid, "RssAnon") +
                                                          ob_process_status(peers[i].process.pid, "RssFile"));
        }
    }
    ob_bench_end(peers);
    report(&series);
}

static const struct {
    const char *name;
    void (*run)(void);
} benches[] = { { "read", bench_read },
                { "write", bench_write },
                { "syscalls", bench_syscalls },
                { "map", bench_map },
                { "memory", bench_memory } };

static char *with_poll(const char *command)
{
    char *text = NULL;

    if (command != NULL && asprintf(&text, "%s --poll", command) < 0) {
        ob_bench_die("no memory");
    }
    return text;
}

static void usage(void)
{
    fprintf(stderr, "usage: bench [--json FILE] [--turns N] [--reference COMMAND] [--reference-poll COMMAND]"
                    " [read|write|syscalls|map|memory]...\n");
    exit(2);
}

static void parse(int argc, char **argv)
{
    static const struct option options[] = { { "json", 1, NULL, 'j' },
                                             { "turns", 1, NULL, 't' },
                                             { "reference", 1, NULL, 'r' },
                                             { "reference-poll", 1, NULL, 'p' },
                                             { NULL, 0, NULL, 0 } };
    const char **sleeping = setup.commands.sleeping, **polling = setup.commands.polling;
    int option;

    sleeping[OB_BENCH_OURS] = getenv("OUTBOARD_BENCH_SERVER");
    sleeping[OB_BENCH_MINIMAL] = getenv("OUTBOARD_MINIMAL_SERVER");
    sleeping[OB_BENCH_REFERENCE] = getenv("OUTBOARD_REFERENCE");
    polling[OB_BENCH_OURS] = with_poll(sleeping[OB_BENCH_OURS]);
    polling[OB_BENCH_MINIMAL] = with_poll(sleeping[OB_BENCH_MINIMAL]);
    polling[OB_BENCH_REFERENCE] = getenv("OUTBOARD_REFERENCE_POLL");
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'j':
            setup.json = fopen(optarg, "ae");
            if (setup.json == NULL) {
                ob_bench_die("%s: %s", optarg, strerror(errno));
            }
            break;
        case 't':
            setup.turns = atoi(optarg);
            if (setup.turns < 1 || setup.turns > MAX_TURNS) {
                ob_bench_die("--turns: 1 to %d", MAX_TURNS);
            }
            break;
        case 'r':
            sleeping[OB_BENCH_REFERENCE] = optarg;
            break;
        case 'p':
            polling[OB_BENCH_REFERENCE] = optarg;
            break;
        default:
            usage();
        }
    }
}

int main(int argc, char **argv)
{
    int run = 0;

    parse(argc, argv);
    for (int i = optind; i < argc; i++) {
        bool known = false;

        for (size_t b = 0; b < sizeof(benches) / sizeof(*benches); b++) {
            known |= strcmp(argv[i], benches[b].name) == 0;
        }
        if (!known) {
            usage();
        }
    }
    printf("%-12s %-26s %12s %12s %12s\n", "benchmark", "what, server client", ob_bench_names[0], ob_bench_names[1],
           ob_bench_names[2]);
    for (size_t b = 0; b < sizeof(benches) / sizeof(*benches); b++) {
        bool wanted = optind == argc;

        for (int i = optind; i < argc; i++) {
            wanted |= strcmp(argv[i], benches[b].name) == 0;
        }
        if (wanted) {
            benches[b].run();
            run++;
        }
    }
    if (setup.json != NULL && fclose(setup.json) != 0) {
        ob_bench_die("the JSON file: %s", strerror(errno));
    }
    return run > 0 ? 0 : 2;
}
