/* transcript.c: keeps the last messages, and prints them as a line each. */
#include "transcript.h"

#include <stdlib.h>
#include <string.h>

#include "raw/wire.h"

#define LINES 12
#define SHOWN 48 /* bytes of payload */

struct line {
    bool sent;
    size_t size;  /* of the bytes, as they were */
    size_t shown; /* of them kept */
    unsigned nfds;
    unsigned char bytes[sizeof(struct ob_raw_header) + SHOWN];
};

struct transcript {
    bool stopped;
    unsigned long count;
    struct line lines[LINES];
};

struct transcript *transcript_new(void)
{
    return calloc(1, sizeof(struct transcript));
}

void transcript_free(struct transcript *t)
{
    free(t);
}

struct transcript *transcript_copy(const struct transcript *t)
{
    struct transcript *copy = transcript_new();

    if (copy != NULL)
        *copy = *t;
    return copy;
}

void transcript_clear(struct transcript *t)
{
    t->count = 0;
}

void transcript_stop(struct transcript *t, bool stopped)
{
    t->stopped = stopped;
}

void transcript_add(void *transcript, bool sent, const void *bytes, size_t size, unsigned nfds)
{
    struct transcript *t = transcript;
    struct line *line;

    if (t->stopped)
        return;
    line = &t->lines[t->count++ % LINES];
    *line = (struct line){ .sent = sent, .size = size, .nfds = nfds };
    line->shown = size < sizeof(line->bytes) ? size : sizeof(line->bytes);
    memcpy(line->bytes, bytes, line->shown);
}

const char *command_name(unsigned command)
{
    static const char *const names[] = {
        [OB_RAW_VERSION] = "VERSION",
        [OB_RAW_DMA_MAP] = "DMA_MAP",
        [OB_RAW_DMA_UNMAP] = "DMA_UNMAP",
        [OB_RAW_GET_INFO] = "GET_INFO",
        [OB_RAW_GET_REGION_INFO] = "GET_REGION_INFO",
        [OB_RAW_GET_REGION_IO_FDS] = "GET_REGION_IO_FDS",
        [OB_RAW_GET_IRQ_INFO] = "GET_IRQ_INFO",
        [OB_RAW_SET_IRQS] = "SET_IRQS",
        [OB_RAW_REGION_READ] = "REGION_READ",
        [OB_RAW_REGION_WRITE] = "REGION_WRITE",
        [OB_RAW_DMA_READ] = "DMA_READ",
        [OB_RAW_DMA_WRITE] = "DMA_WRITE",
        [OB_RAW_RESET] = "DEVICE_RESET",
        [OB_RAW_WRITE_MULTI] = "REGION_WRITE_MULTI",
        [OB_RAW_FEATURE] = "DEVICE_FEATURE",
        [OB_RAW_MIG_READ] = "MIG_DATA_READ",
        [OB_RAW_MIG_WRITE] = "MIG_DATA_WRITE",
    };
    static char unknown[24];

    if (command < sizeof(names) / sizeof(names[0]) && names[command] != NULL)
        return names[command];
    snprintf(unknown, sizeof(unknown), "command %u", command);
    return unknown;
}

static void print_line(const struct line *line, FILE *to, const char *indent)
{
    struct ob_raw_header h;

    fprintf(to, "%s%s ", indent, line->sent ? "sent:" : "came:");
    if (line->shown < sizeof(h)) {
        fprintf(to, "%zu bytes:", line->size);
        for (size_t i = 0; i < line->shown; i++)
            fprintf(to, " %02x", line->bytes[i]);
        fputc('\n', to);
        return;
    }
    memcpy(&h, line->bytes, sizeof(h));
    fprintf(to, "%s id=%u size=%u flags=%#x", command_name(h.command), h.id, h.size, h.flags);
    if (h.error != 0)
        fprintf(to, " error=%u (%s)", h.error, strerror((int)h.error));
    if (line->nfds > 0)
        fprintf(to, " descriptors=%u", line->nfds);
    for (size_t i = sizeof(h); i < line->shown; i++)
        fprintf(to, "%s%02x", i == sizeof(h) ? " payload " : i % 4 == 0 ? " " : "", line->bytes[i]);
    fprintf(to, "%s\n", line->size > line->shown ? " ..." : "");
}

void transcript_print(const struct transcript *t, FILE *to, const char *indent)
{
    unsigned long first = t->count > LINES ? t->count - LINES : 0;

    if (first > 0)
        fprintf(to, "%s(%lu messages before these)\n", indent, first);
    for (unsigned long i = first; i < t->count; i++)
        print_line(&t->lines[i % LINES], to, indent);
}
