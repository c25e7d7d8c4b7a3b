/* bells.h: asking testdev for the eventfds of its doorbells. */
#ifndef OB_BELLS_H
#define OB_BELLS_H

#include "fixture.h"
#include "testdev_regs.h"

#include <string.h>
#include <unistd.h>

/* An entry of GET_REGION_IO_FDS, as the specification has it for an ioeventfd. */
struct bell {
    uint64_t offset, size;
    uint32_t fd_index, type, flags, padding;
    uint64_t datamatch;
};

struct bells {
    struct ob_raw_io_fds head;
    struct bell entries[64];
    unsigned n; /* that came */
    unsigned nfds;
    int fds[OB_RAW_MAX_FDS];
};

static inline void bells_ask(struct ob_raw *raw, uint32_t region, uint32_t argsz, struct bells *bells)
{
    const struct ob_raw_io_fds request = { .argsz = argsz, .index = region };
    struct ob_raw_message *reply = NULL;

    memset(bells, 0, sizeof(*bells));
    ob_ok(ob_raw_call(raw, OB_RAW_GET_REGION_IO_FDS, &request, sizeof(request), NULL, 0, &reply));
    assert_in_range(reply->size, sizeof(bells->head), sizeof(bells->head) + sizeof(bells->entries));
    memcpy(&bells->head, reply->payload, sizeof(bells->head));
    memcpy(bells->entries, reply->payload + sizeof(bells->head), reply->size - sizeof(bells->head));
    bells->n = (reply->size - sizeof(bells->head)) / sizeof(struct bell);
    assert_int_equal(reply->size, sizeof(bells->head) + bells->n * sizeof(struct bell));
    bells->nfds = reply->nfds;
    for (unsigned i = 0; i < reply->nfds; i++) {
        bells->fds[i] = reply->fds[i];
        reply->fds[i] = -1;
    }
    ob_raw_message_free(reply);
}

static inline void bells_close(struct bells *bells)
{
    for (unsigned i = 0; i < bells->nfds; i++) {
        close(bells->fds[i]);
    }
}

static inline void bells_ring(const struct bells *bells, unsigned entry)
{
    const uint64_t one = 1;

    assert_int_equal(write(bells->fds[bells->entries[entry].fd_index], &one, sizeof(one)), sizeof(one));
}

static inline uint32_t bells_count(struct ob_raw *raw, unsigned event)
{
    return ob_read32(raw, TD_BAR, TD_RINGS + 4 * event);
}

#endif
