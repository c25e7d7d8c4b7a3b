/* log.h: the commands of DMA logging, for the checks of VU-LOG. */
#ifndef CONFORM_LOG_H
#define CONFORM_LOG_H

#include "guest.h"

struct log_range {
    uint64_t iova, length;
};

/* SET of DMA_LOGGING_START with a num_ranges of `says` and n ranges: 0 or errno. reply may be NULL. */
int log_start_as(struct judge *j, uint64_t page_size, uint32_t says, const struct log_range *ranges, uint32_t n,
                 struct ob_raw_message **reply);
/* The same, which has to succeed; returns the page size in use. */
uint64_t log_start(struct judge *j, uint64_t page_size, const struct log_range *ranges, uint32_t n);
int log_stop(struct judge *j);

/* GET of DMA_LOGGING_REPORT with room for `room` bytes of bitmap: 0 or errno. */
int log_report_as(struct judge *j, struct log_range range, uint64_t page_size, uint32_t room,
                  struct ob_raw_message **reply);
/* The same with room for all, which has to succeed, with the right layout: the bitmap, in whole words. */
const uint64_t *log_report(struct judge *j, struct log_range range, uint64_t page_size);
/* Its first word. */
uint64_t log_word(struct judge *j, struct log_range range, uint64_t page_size);

/* --- A device that writes, in log_pages.c ------------------------------------------------------------------------- */

#define LOG_NEEDS (NEED_DMA | NEED_LOGGING)

/* Memory is mapped and logged: skips the check if a report that begins within it is refused, which is for log-part to
 * say. */
void log_needs_parts(struct judge *j, uint64_t page_size);

/* What the device writes to is in `to`, in 128 pages and more of `unit`: the page size that it logs with, or that of
 * maps if that is larger. */
struct log {
    struct guest_map *from, *to;
    uint64_t unit;
};

/* The device is on, and has memory, from which it copies up to `len` bytes; it does not log. */
struct log log_memory(struct judge *j, bool shared, uint32_t len);
/* Begins to log everything. */
void log_begin_on(struct judge *j, struct log *l);
struct log log_begin(struct judge *j, bool shared); /* both */
/* The device writes to one page. */
void log_write(struct judge *j, const struct log *l, uint64_t page, uint64_t offset, uint32_t len);
/* So many pages from that one on. */
struct log_range log_part(const struct log *l, uint64_t first, uint64_t number);
uint64_t log_bit(unsigned n);
/* A report of the first 64 pages has these bits. */
void log_want(struct judge *j, const struct log *l, uint64_t wanted, const char *when);

#endif
