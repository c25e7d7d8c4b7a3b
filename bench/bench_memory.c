/* Measures the guest's memory: dependent translation, pinned I/O, changes; beside a flat sorted binary search.
 *
 * Dependent means that the next address comes out of the result of the last lookup, so lookups cannot overlap: it is
 * the latency a device sees, not the throughput of a loop. The flat search is the best that one sorted array gives; it
 * would have to be rebuilt or moved for every change, which is not charged to it here. The column `loop` is the cost of
 * the loop without a lookup, which is part of every other figure.
 *
 * Each figure is the best of several runs that take turns, since other load on a machine only ever makes it slower.
 *
 *   bench_memory [runs, default 5 [milliseconds for each, default 60]] */
#include "memory/memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define REGION    UINT64_C(0x2000) /* bytes of a map; with as many unmapped after it, so that no two could be merged */
#define STRIDE    (2 * REGION)
#define ROUND     1024 /* operations between two looks at the clock, and two quiescent points */
#define FILE_SIZE (UINT64_C(1) << 20)

struct flat {
    uint64_t *key;
    struct {
        uint64_t size;
        char *host;
        uint32_t slot;
        int prot;
    } * value;
    unsigned n;
};

struct scene {
    struct ob_memory *memory;
    struct flat flat;
    uint32_t *next; /* a random cycle over all maps, by number */
    unsigned n;
    unsigned milliseconds;
};

static void die(const char *what, int err)
{
    fprintf(stderr, "bench_memory: %s: %s\n", what, strerror(-err));
    exit(1);
}

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static uint64_t random64(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void *allocate(size_t n, size_t size)
{
    void *memory = calloc(n, size);

    if (!memory)
        die("calloc", -ENOMEM);
    return memory;
}

/* The order of addresses is in an array of ours rather than in guest memory, to measure lookups and not the cache
 * misses of the memory that was looked up. */
static void make_scene(struct scene *scene, unsigned n, unsigned milliseconds)
{
    uint64_t seed = UINT64_C(0x5eed5eed5eed), *order = allocate(n, sizeof(*order));
    int fd = memfd_create("bench", MFD_CLOEXEC), err;

    if (fd < 0 || ftruncate(fd, FILE_SIZE) < 0)
        die("memfd", -errno);
    *scene = (struct scene){ .n = n, .milliseconds = milliseconds };
    scene->next = allocate(n, sizeof(*scene->next));
    scene->flat.key = allocate(n, sizeof(*scene->flat.key));
    scene->flat.value = allocate(n, sizeof(*scene->flat.value));
    scene->flat.n = n;
    err = ob_memory_new(&scene->memory, OB_MEMORY_MAX_MAPS);
    if (err)
        die("ob_memory_new", err);
    for (unsigned i = 0; i < n; i++)
        order[i] = i;
    for (unsigned i = n; i > 1; i--) {
        uint64_t j = random64(&seed) % i, t = order[j];

        order[j] = order[i - 1];
        order[i - 1] = t;
    }
    for (unsigned i = 0; i < n; i++) { /* mapped in random order, which fills nodes least */
        err = ob_memory_map(scene->memory, order[i] * STRIDE, REGION, PROT_READ | PROT_WRITE, dup(fd),
                            order[i] * REGION % FILE_SIZE);
        if (err)
            die("ob_memory_map", err);
        scene->next[order[i]] = (uint32_t)order[(i + 1) % n];
    }
    for (unsigned i = 0; i < n; i++) {
        struct iovec iov;

        err = ob_memory_translate(scene->memory, i * STRIDE, REGION, PROT_READ, &iov, 1);
        if (err != 1)
            die("ob_memory_translate", err);
        memset(iov.iov_base, 0, REGION);
        scene->flat.key[i] = i * STRIDE;
        scene->flat.value[i].size = REGION;
        scene->flat.value[i].host = iov.iov_base;
        scene->flat.value[i].slot = i;
        scene->flat.value[i].prot = PROT_READ | PROT_WRITE;
    }
    free(order);
    close(fd);
}

static void free_scene(struct scene *scene)
{
    ob_memory_free(scene->memory);
    free(scene->flat.key);
    free(scene->flat.value);
    free(scene->next);
}

/* A branchless binary search of a flat array, with all the checks of a translation. */
static int flat_translate(const struct flat *flat, uint64_t iova, size_t len, int prot, struct iovec *iov)
{
    const uint64_t *base = flat->key;
    unsigned n = flat->n;
    size_t i;

    while (n > 1) {
        unsigned half = n / 2;

        base += base[half] <= iova ? half : 0;
        n -= half;
    }
    i = (size_t)(base - flat->key);
    if (iova - *base >= flat->value[i].size || len > flat->value[i].size - (iova - *base) ||
        (prot & ~flat->value[i].prot))
        return -EFAULT;
    *iov = (struct iovec){ .iov_base = flat->value[i].host + (iova - *base), .iov_len = len };
    return 1;
}

enum kind { FLAT, TRANSLATE, PIN };

struct worker {
    alignas(64) struct ob_reader reader;
    struct scene *scene;
    enum kind kind;
    uint64_t start;
    double ns; /* for one operation */
};

/* One round of dependent operations from an address; the next address comes out of the result. */
static uint64_t round_of(struct worker *w, uint64_t iova)
{
    struct ob_memory *memory = w->scene->memory;
    const uint32_t *next = w->scene->next;
    struct iovec iov = { 0 };
    uint32_t pin;
    int n;

    for (unsigned i = 0; i < ROUND; i++) {
        if (w->kind == FLAT)
            n = flat_translate(&w->scene->flat, iova, 512, PROT_READ, &iov);
        else if (w->kind == TRANSLATE)
            n = ob_memory_translate(memory, iova, 512, PROT_READ, &iov, 1);
        else
            n = ob_memory_pin(&w->reader, memory, iova, 512, PROT_READ, &iov, &pin, 1);
        if (n != 1)
            die("lookup", n);
        if (w->kind == PIN)
            ob_memory_unpin(&w->reader, memory, &pin, n);
        /* This adds 0, which takes the result of the lookup to find out. */
        iova = next[iova / STRIDE] * STRIDE + (iov.iov_len - 512) + ((uintptr_t)iov.iov_base & 1);
    }
    return iova;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    uint64_t rounds = 0, iova = w->start;
    double begin, end;

    ob_reader_online(&w->reader);
    for (unsigned i = 0; i < w->scene->n / ROUND + 1; i++) /* once around, to warm up */
        iova = round_of(w, iova);
    begin = now();
    do {
        iova = round_of(w, iova);
        ob_reader_quiescent(&w->reader);
        rounds++;
        end = now();
    } while (end - begin < w->scene->milliseconds * 1e6);
    ob_reader_offline(&w->reader);
    w->ns = (end - begin) / (double)(rounds * ROUND);
    return NULL;
}

/* The worst of the workers, in ns an operation. */
static double measure(struct scene *scene, enum kind kind, unsigned workers)
{
    struct worker w[2];
    pthread_t thread[2];
    double worst = 0;

    memset(w, 0, sizeof(w));
    for (unsigned i = 0; i < workers; i++) {
        int err = ob_reader_add(ob_memory_epoch(scene->memory), &w[i].reader);

        if (err)
            die("ob_reader_add", err);
        w[i].scene = scene;
        w[i].kind = kind;
        w[i].start = scene->n / 2 * i * STRIDE;
    }
    for (unsigned i = 0; i < workers; i++)
        if (pthread_create(&thread[i], NULL, work, &w[i]))
            die("pthread_create", -EAGAIN);
    for (unsigned i = 0; i < workers; i++) {
        pthread_join(thread[i], NULL);
        ob_reader_remove(&w[i].reader);
        worst = w[i].ns > worst ? w[i].ns : worst;
    }
    return worst;
}

/* The cost of the loop itself: the order array, without a lookup. */
static double measure_loop(const struct scene *scene)
{
    uint64_t rounds = 0;
    volatile uint64_t iova = 0;
    uint64_t at = 0;
    double begin = now(), end;

    do {
        for (unsigned i = 0; i < ROUND; i++)
            at = scene->next[at / STRIDE] * STRIDE;
        iova = at;
        rounds++;
        end = now();
    } while (end - begin < scene->milliseconds * 1e6);
    at = iova;
    return (end - begin) / (double)(rounds * ROUND);
}

/* Map and unmap pairs a second at random free places, with a descriptor (as a client's message brings it) or without.
 */
static double measure_pairs(struct scene *scene, bool file)
{
    uint64_t pairs = 0, seed = 99;
    int fd = memfd_create("pairs", MFD_CLOEXEC), err;
    double begin, end, dups = 0;

    if (fd < 0 || ftruncate(fd, FILE_SIZE) < 0)
        die("memfd", -errno);
    begin = now();
    do {
        for (unsigned i = 0; i < 64; i++) {
            uint64_t iova = random64(&seed) % scene->n * STRIDE + REGION;
            struct ob_retired *retired;
            int copy = -1;

            if (file) { /* receiving it is not ours to pay for */
                double before = now();

                copy = dup(fd);
                dups += now() - before;
            }
            err = ob_memory_map(scene->memory, iova, REGION, PROT_READ, copy, 0);
            if (err)
                die("ob_memory_map", err);
            err = ob_memory_unmap(scene->memory, iova, REGION, &retired);
            if (err || !ob_memory_retired_done(retired))
                die("ob_memory_unmap", err);
            ob_memory_retire(retired);
        }
        pairs += 64;
        end = now();
    } while (end - begin < scene->milliseconds * 1e6);
    close(fd);
    return (double)pairs / (end - begin - dups) * 1e9;
}

enum { LOOP, FLAT_1, TRANSLATE_1, PIN_1, TRANSLATE_2, PIN_2, PAIRS, PAIRS_FILE, COLUMNS };

static double measure_column(struct scene *scene, unsigned column)
{
    switch (column) {
    case LOOP:
        return measure_loop(scene);
    case FLAT_1:
        return measure(scene, FLAT, 1);
    case TRANSLATE_1:
        return measure(scene, TRANSLATE, 1);
    case PIN_1:
        return measure(scene, PIN, 1);
    case TRANSLATE_2:
        return measure(scene, TRANSLATE, 2);
    case PIN_2:
        return measure(scene, PIN, 2);
    default:
        return measure_pairs(scene, column == PAIRS_FILE);
    }
}

int main(int argc, char **argv)
{
    static const unsigned sizes[] = { 1, 10, 1000, 60000 };
    unsigned runs = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 5;
    unsigned milliseconds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 60;

    printf("ns an operation, dependent, random; of two workers the slower\n");
    printf("%8s %8s %8s %10s %8s %10s %10s %12s %12s\n", "maps", "loop", "flat", "translate", "pinned", "2 transl.",
           "2 pinned", "pairs/s", "pairs/s, fd");
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        double best[COLUMNS] = { 0 };
        struct scene scene;

        make_scene(&scene, sizes[i], milliseconds);
        for (unsigned run = 0; run < runs; run++) {
            for (unsigned column = 0; column < COLUMNS; column++) {
                double figure = measure_column(&scene, column);

                if (!run || (column < PAIRS ? figure < best[column] : figure > best[column]))
                    best[column] = figure;
            }
        }
        printf("%8u %8.1f %8.1f %10.1f %8.1f %10.1f %10.1f %12.0f %12.0f\n", sizes[i], best[LOOP], best[FLAT_1],
               best[TRANSLATE_1], best[PIN_1], best[TRANSLATE_2], best[PIN_2], best[PAIRS], best[PAIRS_FILE]);
        fflush(stdout);
        free_scene(&scene);
    }
    return 0;
}
